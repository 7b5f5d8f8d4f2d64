"""Fitness: what a network is measured at, and what its users make of it (Section 3).

A fitness maps a `Measurement` to one number, or to several objectives; of each, more is better, and any sign will do.
NaN stands for no fitness, with which a network is extinct, and -inf for a hard limit that it misses. Fitness by name
is here; any other is a function of its user, hashable and pure. One that has a set `needs`, of names of fields of a
`Measurement`, looks at no other, so that the latency of one image is only measured where that names it.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eigen_jax.config import name_of
from eigen_jax.errors import ConfigError, EigenError, first_line
from eigen_jax.registry import Registry, check_there_is
from eigen_jax.store.records import Count, Fraction, Seconds

Fitness = Callable[["Measurement"], float | Sequence[float]]


class FitnessError(EigenError):
    """A fitness that gives no numbers, or not always as many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of a network at a landmark, on the validation images. None: not measured."""

    accuracy: Fraction  # of the validation images
    loss: float | None = None  # their mean cross-entropy, nats; None as well where it is not finite
    parameters: Count  # trainable values, classifier included
    flops: Count  # of one image's forward pass
    latency: Seconds | None = None  # of one image's forward pass, on the device at hand
    batch_latency: Seconds | None = None  # of that of a batch of `TrainConfig.eval_batch_size`
    memory: Count | None = None  # bytes of a device, at the peak of a training step
    balanced_accuracy: Fraction | None = None  # the mean of the accuracies of each class; None in older records
    macro_f1: Fraction | None = None  # the mean of the F1 of each class; None in older records


# The fields of a measurement, with 1 where more is better and -1 for a cost, of which less is; and each kind alone.
OBJECTIVES, COSTS = Registry[int]("measurement"), Registry[int]("cost")
SCORES = ("accuracy", "balanced_accuracy", "macro_f1")
for _name in SCORES:
    OBJECTIVES.add(_name, 1)
for _name in ("loss", "parameters", "flops", "latency", "batch_latency", "memory"):
    OBJECTIVES.add(_name, COSTS.add(_name, -1))


@dataclasses.dataclass(frozen=True)
class Objectives:
    """Values of a measurement, of costs their negatives; several are for strategies that weigh none against another."""

    names: tuple[str, ...]  # of fields

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.names)) == len(self.names):
            rule = "the objectives are {}; they must be different ones, at least one"
            raise ConfigError(None, rule, ", ".join(self.names) or "none")
        for name in self.names:
            OBJECTIVES.find(name)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.names)

    def __call__(self, measurement: Measurement) -> float | tuple[float, ...]:
        numbers = tuple(OBJECTIVES.find(name) * _value(measurement, name) for name in self.names)
        return numbers if len(numbers) > 1 else numbers[0]

    def __str__(self) -> str:
        return ", ".join(self.names)


accuracy = Objectives(("accuracy",))  # a fraction: the fitness of the paper's own searches


@dataclasses.dataclass(frozen=True)
class Penalised:
    """A score less `weight` for every power of ten of a cost: accuracy - weight * log10(cost)."""

    cost: str = "parameters"
    weight: float = 0.01
    score: str = "accuracy"  # one of `SCORES`

    def __post_init__(self) -> None:
        check_there_is("score", self.score, SCORES)
        COSTS.find(self.cost)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.score, self.cost})

    def __call__(self, measurement: Measurement) -> float:
        # A loss can be 0, and is then as good as the smallest number.
        cost = max(_value(measurement, self.cost), sys.float_info.min)
        return _value(measurement, self.score) - self.weight * math.log10(cost)

    def __str__(self) -> str:
        return f"{self.score} - {self.weight!r} * log10({self.cost})"


@dataclasses.dataclass(frozen=True)
class Limited:
    """Another fitness within hard limits: -inf in every objective where a cost is over its own."""

    fitness: Fitness
    limits: tuple[tuple[str, float], ...]  # cost and limit, sorted; may be given as a dictionary

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(sorted(dict[str, float](self.limits).items())))
        for name, _ in self.limits:
            COSTS.find(name)

    @property
    def needs(self) -> frozenset[str]:
        return needs(self.fitness) | dict(self.limits).keys()

    def __call__(self, measurement: Measurement) -> tuple[float, ...]:
        numbers = values(self.fitness, measurement)
        keeps = all(_value(measurement, name) <= limit for name, limit in self.limits)
        return numbers if keeps else (-math.inf,) * len(numbers)

    def __str__(self) -> str:
        limits = " and ".join(f"{name} <= {limit!r}" for name, limit in self.limits)
        return f"{name_of(self.fitness)} where {limits}"


def parse_fitness(text: str, *, weight: float = 0.01, limits: Sequence[str] = ()) -> Fitness:
    """The fitness that a text names; raises ConfigError for what names none.

    It is one of `SCORES` or a cost, or several with commas, or "SCORE-COST", which is `Penalised` by `weight`; in each
    name, a hyphen is as good as an underscore. `limits` are as of `limit`.
    """
    names = tuple(name.strip().replace("-", "_") for name in text.split(","))
    if len(names) > 1 or names[0] in OBJECTIVES or "-" not in text:
        return limit(Objectives(names), limits)
    # The longest first, of which another may be the beginning.
    for score in sorted(SCORES, key=len, reverse=True):
        if names[0].startswith(f"{score}_"):
            return limit(Penalised(names[0].removeprefix(f"{score}_"), weight, score), limits)
    spelt = ", ".join(score.replace("_", "-") for score in SCORES)
    rule = "{fitness} is {!r}; a penalty is named SCORE-COST, as accuracy-parameters, where scores are {}"
    raise ConfigError(None, rule, text, spelt)


def limit(fitness: Fitness, limits: Sequence[str]) -> Fitness:
    """A fitness within limits as "latency=0.002", if there are any; raises ConfigError for what is none."""
    bounds: dict[str, float] = {}
    for text in limits:
        name, _, number = text.partition("=")
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if name in bounds or not math.isfinite(bound):
            raise ConfigError(None, "{limits} has {!r}; it must be COST=NUMBER, each cost once, as latency=0.002", text)
        bounds[name] = bound
    return Limited(fitness, tuple(bounds.items())) if bounds else fitness


def values(fitness: Fitness, measurement: Measurement, *, objectives: int | None = None) -> tuple[float, ...]:
    """What a fitness makes of a measurement, a number for each of the `objectives`, if it is known how many.

    Raises FitnessError where it fails, or gives anything else than numbers below +inf (of float32), or not as many.
    """
    try:
        given: Any = fitness(measurement)
        parts = [given] if np.ndim(given) == 0 else list(given)
        if any(isinstance(part, str | bytes) for part in parts):
            raise TypeError(f"it gives {given!r}, which is text")
        numbers = tuple(map(float, parts))
    except FitnessError:  # of a fitness within this one
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {first_line(error)}"
        raise FitnessError(f"the fitness {name_of(fitness)} fails on {measurement}: {cause}; mend it") from None
    if any(number > _LARGEST for number in numbers):
        problem = "there is none above what float32 holds"
    elif not numbers or len(numbers) != (objectives or len(numbers)):
        problem = f"it always needs {objectives or 'some'}"
    else:
        return numbers
    raise FitnessError(
        f"the fitness {name_of(fitness)} gives the numbers {numbers} of {measurement}, and {problem}; mend it"
    )


def num_objectives(fitness: Fitness) -> int:
    """M: how many numbers a fitness gives, which it is asked with an example; raises FitnessError as `values` does."""
    for name in needs(fitness):
        OBJECTIVES.find(name)
    return len(values(fitness, _EXAMPLE))


def needs(fitness: Fitness) -> frozenset[str]:
    """The names of all that a fitness may look at; where latency is none of them, it is not measured on the way."""
    return frozenset(getattr(fitness, "needs", OBJECTIVES))


def _value(measurement: Measurement, name: str) -> float:
    """One value; NaN for a loss that is not finite."""
    value = getattr(measurement, name)
    if value is None and name != "loss":
        raise ValueError(f"{name} was not measured")
    return math.nan if value is None else value


_LARGEST = float(np.finfo(np.float32).max)
_EXAMPLE = Measurement(
    accuracy=0.5, loss=1.0, parameters=1_000, flops=1_000_000, latency=1e-3, batch_latency=1e-2, memory=1_000_000,
    balanced_accuracy=0.5, macro_f1=0.5,
)  # fmt: skip
