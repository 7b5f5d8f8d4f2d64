"""Fitness: what each kind makes of a measurement, how it is named, and what a user's own may not do."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refuses

from eigen_jax.errors import ConfigError
from eigen_jax.fitness import (
    COSTS,
    OBJECTIVES,
    FitnessError,
    Limited,
    Measurement,
    Objectives,
    Penalised,
    accuracy,
    limit,
    name_of,
    needs,
    num_objectives,
    parse_fitness,
    values,
)

MEASURED = Measurement(
    accuracy=0.75, loss=0.5, parameters=1_000, flops=10**6, latency=0.002, batch_latency=0.25, memory=10**8,
    balanced_accuracy=0.625, macro_f1=0.5,
)  # fmt: skip
UNTIMED = dataclasses.replace(MEASURED, latency=None)


def lean(measurement: Measurement, weight: float = 1e-4) -> float:
    return measurement.accuracy - measurement.parameters * weight


def two(measurement: Measurement) -> tuple[float, float]:
    return measurement.accuracy, -measurement.flops


@dataclasses.dataclass(frozen=True)
class Share:
    """A fitness with a setting."""

    weight: float
    needs = frozenset({"accuracy", "latency"})

    def __call__(self, measurement: Measurement) -> float:
        return measurement.accuracy * self.weight


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("accuracy", [0.75]),
        ("loss", [-0.5]),
        ("parameters", [-1_000]),
        ("flops", [-1e6]),
        ("latency", [-0.002]),
        ("batch_latency", [-0.25]),
        ("batch-latency", [-0.25]),
        ("balanced-accuracy", [0.625]),
        ("macro_f1", [0.5]),
        ("balanced-accuracy-parameters", [0.625 - 0.5 * 3]),
        ("macro-f1-batch_latency", [0.5 - 0.5 * np.log10(0.25)]),
        ("macro-f1,balanced-accuracy, flops", [0.5, 0.625, -1e6]),
        ("memory", [-1e8]),
        ("accuracy-parameters", [0.75 - 0.5 * 3]),
        ("accuracy-memory", [0.75 - 0.5 * 8]),
        ("accuracy,parameters", [0.75, -1_000]),
        ("memory, accuracy,latency", [-1e8, 0.75, -0.002]),
    ],
)
def test_what_is_named_is_computed_as_by_hand(text, numbers):
    fitness = parse_fitness(text, weight=0.5)
    np.testing.assert_allclose(values(fitness, MEASURED), numbers, rtol=1e-15)
    assert num_objectives(fitness) == len(numbers)
    assert ("latency" in needs(fitness)) == ("latency" in text.replace("-", "_").replace("batch_latency", ""))
    assert hash(fitness) == hash(parse_fitness(text, weight=0.5))
    assert parse_fitness(text) == parse_fitness(text, weight=0.01)


@hypothesis.given(cost=st.sampled_from(["parameters", "flops", "memory"]), weight=st.floats(0, 1), size=st.integers(1))
@hypothesis.example(cost="parameters", weight=0.01, size=10**6)
def test_a_penalty_is_the_weight_for_every_power_of_ten(cost, weight, size):
    hypothesis.assume(size < 10**15)
    (number,) = values(Penalised(cost, weight), dataclasses.replace(MEASURED, **{cost: size}))
    assert number == pytest.approx(0.75 - weight * np.log10(float(size)), abs=1e-12)
    # Where accuracy is the same, the smaller one is fitter, if only by a rounding.
    assert number >= values(Penalised(cost, weight), dataclasses.replace(MEASURED, **{cost: 2 * size}))[0]


def test_over_a_limit_every_objective_is_minus_infinity_and_at_it_nothing_changes():
    limits = {"parameters": 1_000, "latency": 0.002}
    both = Limited(two, limits)  # type: ignore[arg-type]
    assert values(both, MEASURED) == (0.75, -1e6)
    for over in ({"parameters": 1_001}, {"latency": 0.0021}):
        assert values(both, dataclasses.replace(MEASURED, **over)) == (-math.inf, -math.inf)
    assert both.limits == (("latency", 0.002), ("parameters", 1_000))
    assert limit(two, ["parameters=1e3", "latency=0.002"]) == both
    assert limit(two, []) is two
    assert "latency" in needs(Limited(accuracy, (("latency", 1.0),)))
    assert "latency" not in needs(Limited(accuracy, (("batch_latency", 1.0),)))
    assert "latency" in needs(Limited(lean, (("memory", 1.0),)))


def test_a_loss_that_is_not_finite_is_no_fitness_and_over_every_limit():
    lost = dataclasses.replace(MEASURED, loss=None)
    for fitness in (Objectives(("loss",)), Penalised("loss")):
        assert np.isnan(values(fitness, lost)).all()
    assert values(Objectives(("accuracy", "loss")), lost)[0] == 0.75
    assert values(Limited(accuracy, (("loss", 1e30),)), lost) == (-math.inf,)


@pytest.mark.parametrize(
    ("fitness", "name"),
    [
        (accuracy, "accuracy"),
        (Penalised("flops", 0.1 + 0.2), "accuracy - 0.30000000000000004 * log10(flops)"),
        (Objectives(("loss", "flops")), "loss, flops"),
        (Limited(Objectives(("loss",)), (("memory", 1e9), ("latency", 0.002))),
         "loss where latency <= 0.002 and memory <= 1000000000.0"),
        (Penalised("flops", 0.5, "macro_f1"), "macro_f1 - 0.5 * log10(flops)"),
    ],
)  # fmt: skip
def test_a_name_says_all_of_it(fitness, name):
    assert name_of(fitness) == name


def test_the_name_of_a_function_of_ones_own_tells_its_source_and_its_settings():
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    assert name_of(lean) == f"{__name__}:lean {source}"
    assert name_of(Share(0.5)) == f"{__name__}:Share(weight=0.5) {source}"
    assert name_of(functools.partial(lean, weight=3)) == f"{__name__}:lean {source} with () {{'weight': 3}}"
    assert name_of(Limited(lean, (("loss", 2.0),))) == f"{__name__}:lean {source} where loss <= 2.0"
    spaces: list[dict[str, Any]] = [{"__name__": "made"}, {"__name__": "made"}]
    for space, weight in zip(spaces, (1, 2), strict=True):
        exec(f"def f(measurement):\n    return {weight}\n", space)
    assert name_of(spaces[0]["f"]) == "made:f"  # whose source cannot be had


def test_who_does_not_say_what_it_needs_needs_all():
    assert "latency" in needs(lean)
    assert "latency" in needs(Share(0.5))
    for fitness in (accuracy, Penalised(), Objectives(("accuracy", "parameters")), Objectives(("batch_latency",))):
        assert "latency" not in needs(fitness)


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        (1, (1.0,)),
        (np.float32(0.5), (0.5,)),
        (jnp.asarray(0.25, jnp.bfloat16), (0.25,)),
        (np.array([1, 2]), (1.0, 2.0)),
        (jnp.array([0.5, -3]), (0.5, -3.0)),
        ([jnp.asarray(1), np.int64(2), -0.5], (1.0, 2.0, -0.5)),
        (-math.inf, (-math.inf,)),
        (True, (1.0,)),
    ],
)
def test_numbers_may_be_those_of_any_library(given, numbers):
    assert values(lambda measurement: given, MEASURED) == numbers


def raises(measurement: Measurement) -> float:
    raise RuntimeError("no luck\nat all")


OBJECTIVES_RULE = "they must be different ones, at least one"


@pytest.mark.parametrize(
    ("fitness", "problem"),
    [
        (raises, "RuntimeError: no luck; mend it"),
        (lambda _: None, "TypeError: float() argument must be a string or a real number, not 'NoneType'; mend it"),
        (lambda _: "12", "TypeError: it gives '12', which is text; mend it"),
        (lambda _: ["1", 2.0], "TypeError: it gives ['1', 2.0], which is text; mend it"),
        (lambda _: np.ones((2, 2)), "mend it"),
        (lambda _: {}, "TypeError: float() argument must be a string or a real number, not 'dict'; mend it"),
        (lambda _: [], "and it always needs some; mend it"),
        (lambda _: math.inf, "gives the numbers (inf,) of ...and there is none above what float32 holds"),
        (lambda _: [1.0, 1e39], "gives the numbers (1.0, 1e+39) of ...and there is none above what float32 holds"),
        (lambda m: m.acuracy, "AttributeError: 'Measurement' object has no attribute 'acuracy'; mend it"),
        (5, "TypeError: 'int' object is not callable; mend it"),
    ],
)  # fmt: skip
def test_what_a_fitness_of_ones_own_does_wrong_is_told_in_one_line(fitness: Any, problem: str) -> None:
    checks: tuple[Callable[[], object], ...] = (lambda: num_objectives(fitness), lambda: values(fitness, MEASURED))
    for check in checks:
        with pytest.raises(FitnessError) as caught:
            check()
        assert str(caught.value).startswith("the fitness ")
        assert " Measurement(accuracy=" in str(caught.value)
        for part in problem.split("..."):
            assert part in str(caught.value)
        assert str(caught.value).endswith("; mend it")
        assert len(str(caught.value).splitlines()) == 1


def test_a_fitness_always_gives_as_many_numbers():
    def fickle(measurement: Measurement) -> list[float]:
        return [1.0] * (1 if measurement.accuracy == 0.5 else 2)

    first = num_objectives(fickle)
    assert first == 1
    with pytest.raises(
        FitnessError, match=r"the numbers \(1.0, 1.0\) of Measurement\(.*\), and it always needs 1; mend it$"
    ):
        values(fickle, MEASURED, objectives=first)
    assert values(two, MEASURED, objectives=2) == (0.75, -1e6)


def test_what_was_not_measured_is_told_and_no_network_is_extinct_for_it():
    for fitness in (Objectives(("latency",)), Penalised("latency"), Limited(accuracy, (("latency", 1.0),))):
        with pytest.raises(FitnessError, match=r"fails on .*: ValueError: latency was not measured; mend it$"):
            values(fitness, UNTIMED)
    assert values(accuracy, UNTIMED) == (0.75,)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: parse_fitness("acuracy"),
         f"there is no measurement 'acuracy'; did you mean accuracy? choose from {', '.join(OBJECTIVES)}"),
        (lambda: parse_fitness("accuracy-flop"),
         f"there is no cost 'flop'; did you mean flops? choose from {', '.join(COSTS)}"),
        (lambda: parse_fitness("accuracy-accuracy"),
         "there is no cost 'accuracy'; choose from loss, parameters, flops, latency, batch_latency, memory"),
        (lambda: parse_fitness("loss-parameters"),
         "fitness is 'loss-parameters'; a penalty is named SCORE-COST, as accuracy-parameters, where scores are"
         " accuracy, balanced-accuracy, macro-f1"),
        (lambda: parse_fitness("macro-f1-flop"),
         f"there is no cost 'flop'; did you mean flops? choose from {', '.join(COSTS)}"),
        (lambda: Penalised("flops", score="loss"),
         "there is no score 'loss'; choose from accuracy, balanced_accuracy, macro_f1"),
        (lambda: parse_fitness("loss,loss"), f"the objectives are loss, loss; {OBJECTIVES_RULE}"),
        (lambda: Objectives(()), f"the objectives are none; {OBJECTIVES_RULE}"),
        (lambda: Limited(accuracy, (("accuracy", 0.5),)),
         "there is no cost 'accuracy'; choose from loss, parameters, flops, latency, batch_latency, memory"),
        *((lambda text=text: limit(accuracy, ["loss=1", text]),
           f"limits has {text!r}; it must be COST=NUMBER, each cost once, as latency=0.002")
          for text in ("loss", "loss=2", "flops=", "flops=many", "flops=nan", "flops=inf", "=")),
    ],
)  # fmt: skip
def test_a_name_that_there_is_not_gets_one_line(make, line):
    with refuses(ConfigError, line):
        make()
