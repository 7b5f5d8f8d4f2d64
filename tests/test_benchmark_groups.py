"""Each group measures what it says, and its numbers are those of its times."""

import dataclasses
import functools
import importlib.util
import itertools
import json
import multiprocessing
import os
from types import SimpleNamespace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands_data import with_values
from layer_data import concat, conv, network, pool
from report_data import individual

from eigen_jax import lineage, training
from eigen_jax.architecture import IMAGE, count_parameters
from eigen_jax.data import load_dataset, num_views
from eigen_jax.training import TrainConfig
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import measuring, ours, plain_flax, searches, steps
from experiments.benchmark.measuring import NotMeasured, Plan, Timing
from experiments.benchmark.ours import benchmark_architectures, eight_layers, one_convolution, training_flops
from experiments.settings import Machine

ONCE = Plan(rounds=1, seconds=0, runs=1)
QUICK = dataclasses.replace(ONCE, quick=True)
TINY = network(conv(IMAGE, 2, kernel=1), conv(0, 3, kernel=1), input_shape=(4, 4, 1))
# Two operations for each of 16 pixels, 1 x 2 and 2 x 3 channels; the classifier has 3 x 10 weights. A step is three
# passes, but two for what reads the image.
FLOPS = 2 * (2 * 16 * 2) + 3 * (2 * 16 * 6) + 3 * (2 * 30)
OURS = ("ours float32", "ours bfloat16", "ours float32, 8 in one call")
TORCH_NOTE = (
    "" if importlib.util.find_spec("torch") else "not measured: PyTorch is not installed; pip install -e '.[torch]'"
)


class Times(dict[str, float]):
    """What a call of each work takes, by name, in place of calling it; who has no time here is absent."""

    def interleave(self, works, plan):
        self.works = works
        return {name: Timing(9, [0, self[name], 7]) if name in self else "it is absent" for name in works}


@pytest.fixture
def times(monkeypatch):
    times = Times()
    monkeypatch.setattr(measuring, "interleave", times.interleave)
    return times


@pytest.fixture
def no_noise(monkeypatch):
    """Noise takes longer to compile than what is made of it."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=jnp.float32: jnp.zeros(shape, dtype))


def test_the_networks_are_those_that_the_table_names():
    layers = {name: len(network.layers) for name, network in benchmark_architectures().items()}
    assert layers == {"small": 8, "typical": 30, "large": 101}
    # Each of 9 weights an input and output channel and 2 values of normalisation; 97 x 10 of the classifier.
    widths = (3, 32, 32, 48, 48, 64, 64, 96, 96)
    weights = sum(9 * before * after + 2 * after for before, after in itertools.pairwise(widths))
    assert count_parameters(eight_layers(), num_classes=10) == weights + 97 * 10
    assert training_flops(TINY) == FLOPS


def test_steps_are_held_against_pytorch_the_peak_and_single_calls(times):
    def values(ms: float, peak: float, **ratios: float) -> Any:
        images = 128 / ms * 1e3
        rate = {"ms": ms, "images_per_second": images, "share_of_peak": FLOPS * images / peak, "first_seconds": 9}
        return pytest.approx(rate | ratios)

    times |= {"PyTorch eager float32": 0.2, "plain Flax float32": 0.8, "ours float32": 0.1, "ours bfloat16": 0.05}
    times["ours float32, 8 in one call"] = 8 * 0.04
    peak: Any = {"float32": 1e7, "bfloat16": 4e7}
    rows = list(steps.measure_network("tiny", TINY, peak, ONCE))
    assert [row.method for row in rows] == list(steps.ways(TINY))
    eager, absent, _, _, plain, _, ours, rounded, chunk = rows
    assert eager.values == values(200, 1e7, times_pytorch=1)
    assert absent.note == "not measured: it is absent"
    assert plain.values == values(800, 1e7, times_pytorch=4)
    assert ours.values == values(100, 1e7, times_pytorch=0.5)
    assert rounded.values == values(50, 4e7, times_pytorch=0.25)
    assert chunk.values == values(40, 1e7, times_pytorch=0.2, times_single=0.4)


def test_a_quick_run_measures_a_step_of_ours_and_of_the_reference(times):
    list(steps.measure_network("tiny", TINY, {}, QUICK))
    measured = [way for way, prepare in times.works.items() if prepare is not steps._left_out]
    assert measured == ["PyTorch eager float32", "ours float32"]
    with pytest.raises(NotMeasured, match=r"^left out by --quick$"):
        times.works["torch.compile float32"]()


def test_our_ways_take_the_same_steps(monkeypatch):
    # Optimising the programs takes longer than running them.
    quickly = functools.partial(ours.compiled, options={"xla_backend_optimization_level": 0})
    monkeypatch.setattr(ours, "compiled", quickly)
    single, rounded, chunk = (steps.ways(TINY)[method].prepare() for method in OURS)
    losses = [single() for _ in range(16)]
    assert losses[15] < losses[7] < losses[0]
    assert [chunk(), chunk()] == pytest.approx(losses[7::8], rel=1e-4), "each goes on from where it was"
    assert ours.training_steps(TINY, "float32", 2)() == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != rounded() == pytest.approx(losses[0], rel=0.05)


def test_compilation_is_held_against_plain_flax(times, monkeypatch):
    times |= {"ours float32": 3, "plain Flax float32": 2}
    monkeypatch.setattr(steps, "benchmark_architectures", lambda: {"tiny": TINY, "large": TINY})
    our, plain, large = steps.measure_compilation(QUICK, print)
    assert our.values == {"seconds": 3, "seconds_per_layer": 1.5, "times_plain": 1.5}
    assert plain.values == {"seconds": 2, "seconds_per_layer": 1, "times_plain": 1}
    assert large.note == "not measured: left out by --quick"


def as_plain(ours):
    """Variables of ours by Flax's own names: numbered by kind, in the order of the layers."""
    layers = [ours[name] for name in sorted(ours) if name.startswith("layer_")]
    found = {"Dense_0": ours["classifier"]} if "classifier" in ours else {}
    for number, layer in enumerate(layers):
        found |= {f"Conv_{number}": layer["conv"]} if "conv" in layer else {}
        found |= {f"BatchNorm_{number}": layer["norm"]}
    return found


def test_plain_flax_takes_the_same_steps(monkeypatch):
    quickly = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(ours, "compiled", functools.partial(ours.compiled, options=quickly))
    architecture = network(conv(IMAGE, 4, stride=2), pool(0), concat(1, 1), input_shape=(7, 7, 3))
    run, batch = ours.compile_steps(architecture, "float32", None)
    state, kept = (jax.tree.map(jnp.copy, ours.untrained(architecture)[0]) for _ in range(2))  # `run` overwrites one
    plain = plain_flax.untrained(architecture, "float32")
    plain = plain.replace(params=as_plain(kept.params), batch_stats=as_plain(kept.batch_stats))
    step = jax.jit(plain_flax._step, compiler_options=quickly)
    for _ in range(2):  # the second with momentum
        state, metrics = run(state, batch)
        plain, loss = step(plain, batch)
    assert float(loss) == pytest.approx(float(metrics.loss), rel=1e-5)
    found = as_plain(state.params), as_plain(state.batch_stats)
    chex.assert_trees_all_close(found, (plain.params, plain.batch_stats), rtol=1e-4, atol=1e-6)


def test_the_peak_is_that_of_the_faster_side(times):
    times |= {"ours float32": 2, "PyTorch float32": 0.5}
    peak, rows = steps.measure_peak(ONCE, size=8)
    assert peak == {"float32": 2048, "bfloat16": 2048}
    assert [row.values for row in rows] == [
        {"ms": 2000, "gflops_per_second": pytest.approx(512e-9)},
        {"ms": 500, "gflops_per_second": pytest.approx(2048e-9)},
    ]


def test_every_part_is_held_against_pytorch(times, monkeypatch):
    times |= {"ours": 0.5, "PyTorch": 0.25}
    monkeypatch.setattr(steps, "CONVOLUTIONS", (one_convolution(5, 2, 3, stride=2),))
    monkeypatch.setattr(steps, "BATCH", 2)
    rows = list(steps.measure_parts(ONCE, print))
    assert [row.what for row in rows[:6:2]] == [
        f"conv 3 x 3, stride 2, 2 to 3, on 5 x 5: {part}" for part in ("forward", "input gradient", "kernel gradient")
    ]
    # 3 outputs a side, of whose 9 taps 2 at either edge fall on the padding: 7 x 7 taps.
    flops = 2 * 49 * 2 * 3 * 2
    for place, row in enumerate(rows):
        method, ms = ("PyTorch", 250) if place % 2 else ("ours", 500)
        rate = {"gflops_per_second": flops / ms / 1e6} if place < 6 else {}
        assert (row.method, row.values) == (method, pytest.approx({"ms": ms, "times_pytorch": ms / 250} | rate))


@pytest.mark.slow
def test_matrix_products_parts_and_mimicry_run(no_noise, small_mimicry, monkeypatch):
    monkeypatch.setattr(steps, "CONVOLUTIONS", (one_convolution(5, 2, 3, stride=2),))
    monkeypatch.setattr(steps, "BATCH", 2)
    rows = [*steps.measure_peak(ONCE, size=8)[1], *steps.measure_parts(ONCE, print)]
    assert [row.note for row in rows] == ["", TORCH_NOTE] * 6
    for row in steps.measure_mimicry(ONCE, print):
        assert row.values["ms"] > 0


@pytest.fixture
def small_mimicry(monkeypatch):
    """What it caches is cached for the test alone."""
    monkeypatch.setattr(ours, "eight_layers", lambda: TINY)
    monkeypatch.setattr(ours, "untrained", ours.untrained.__wrapped__)
    monkeypatch.setattr(ours, "CONFIG", TrainConfig(batch_size=4, pad=1))
    monkeypatch.setattr(steps, "_MIMICRY_IMAGES", 8)
    monkeypatch.setattr(steps, "_MIMICRY_STEPS", 2)


def test_mimicry_is_measured_beside_plain_training(times, no_noise, small_mimicry, monkeypatch):
    asked: list[tuple[int, Any]] = []

    def train_to(key, state, dataset, until, *, network, config, teacher):
        asked.append((until, teacher))
        return (state,)

    times |= {"plain": 0.5, "mimicking cached logits": 0.6}
    monkeypatch.setattr(training, "train_to", train_to)
    plain, mimicking = steps.measure_mimicry(ONCE, print)
    assert (plain.method, mimicking.method) == tuple(times)
    assert plain.values == {"ms": 250, "first_seconds": 9, "times_plain": 1}
    assert mimicking.values == pytest.approx({"ms": 300, "first_seconds": 9, "times_plain": 1.2})
    for prepare in times.works.values():
        prepare()()
    assert [(until, teacher is None) for until, teacher in asked] == [(2, True), (2, False)]
    assert asked[1][1].logits.shape == (8, num_views(1), 10)


def test_rates_count_all_children_and_all_generations(monkeypatch):
    monkeypatch.setattr(searches, "rate_row", lambda work, *, amount, method, **_: (method, amount, work(1)))
    monkeypatch.setattr(searches, "breeder", lambda spec, *, steps: jax.random.key_data)
    monkeypatch.setattr(searches, "cores", lambda: 2)
    monkeypatch.setattr(searches, "initial_state", lambda key, *, spec, config: 1)
    monkeypatch.setattr(searches, "evolution_step", lambda key, state, fitness, *, spec, config: state + 1)
    rates: Any = searches.measure_evolution(dataclasses.replace(ONCE, mutation_batches=(4,)), print)
    *found, generations = rates
    assert len(found) == 2
    for method, amount, shares in found:
        children = np.concatenate(shares)
        assert (method, amount) == (("batch 4, one call", "batch 4, 2 threads of 2")[len(shares) - 1], 4)
        assert len(np.unique(children, axis=0)) == len(children) == 4, "each has a key of its own"
    assert generations == ("population 10, 20 generations", 20, 20)
    rates = searches.measure_evolution(dataclasses.replace(QUICK, mutation_batches=(4,)), print)
    assert [method for method, *_ in rates] == ["batch 4, 2 threads of 2", generations[0]]


FIRST = individual(0, 0, "primary", 0.5, seconds_training=50.0, seconds_compiling=4.0)
RECORD = [
    FIRST,
    individual(0, 1, "primary", 0.5, seconds_training=40.0, seconds_compiling=1.0),
    individual(0, 2, "primary", 0.5, seconds_training=0.0, seconds_compiling=0.0, same_as=FIRST.reference),
]
SHARES = {"seconds": 100, "share_training": 0.9, "share_compiling": 0.05, "trained": 2}


@pytest.fixture
def run_folder(tmp_path):
    """A finished run that started at second 1,000 and recorded its last generation at second 1,100."""
    lineage.append(tmp_path / "lineage.jsonl", RECORD)
    for name, time in (("settings.json", 1_000), ("lineage.jsonl", 1_100), ("result.json", 9_000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    return tmp_path


def test_the_share_of_a_finished_run_is_told_by_the_times_of_its_files(run_folder, capsys):
    assert benchmark.main(["--search", str(run_folder), "--json", str(run_folder / "numbers.json")]) == 0
    (row,) = json.loads((run_folder / "numbers.json").read_text())["rows"]
    assert (row["what"], row["values"]) == (str(run_folder), SHARES)
    assert "90.0" in capsys.readouterr().out


@pytest.mark.parametrize("spoilt", ["settings.json", "result.json", "lineage.jsonl"])
def test_a_run_that_has_not_finished_and_copies_of_one_tell_no_share(run_folder, capsys, spoilt):
    message = "is no folder of a finished run"
    if spoilt == "lineage.jsonl":
        message = "within 89 s, less than their run trained"
        os.utime(run_folder / spoilt, (1_089, 1_089))
    else:
        (run_folder / spoilt).unlink()
    assert benchmark.main(["--search", str(run_folder)]) == 2
    assert message in capsys.readouterr().err


def test_a_generation_is_held_against_one_worker(monkeypatch, tmp_path):
    def take(settings, dataset):
        return 6 / settings.machine.workers if settings.machine.executor == "processes" else 9

    settings = searches.short_search("--population 4 --p 2 --q 2 --t1 2 --t2 2 --t3 2")
    settings = with_values(settings, {"cache_dir": tmp_path})
    monkeypatch.setattr(searches, "_time_generation", take)
    monkeypatch.setattr(searches, "short_search", lambda options: settings)
    assert {row.method: row.values for row in searches.measure_workers(QUICK, print)} == {
        "inline": {"seconds": 9, "times_one_worker": 1.5},
        "1 worker process": {"seconds": 6, "times_one_worker": 1},
        "2 worker processes": {"seconds": 3, "times_one_worker": 0.5},
    }


@pytest.mark.slow
def test_searches_evolution_mutation_and_memory_run(monkeypatch, tmp_path):
    """In one test, since what one of them compiles serves the others."""
    settings = searches.short_search("--population 2 --p 1 --q 1 --t1 2 --t2 1 --t3 1")
    small: dict[str, Any] = {"primary_steps": 3, "capacity": 3, "decay_steps": (), "cache_dir": tmp_path}
    settings = with_values(settings, small)
    monkeypatch.setattr(searches, "short_search", lambda options: settings)
    (row,) = searches.measure_search(QUICK, print)
    assert row.method == "4 steps an individual"
    assert row.values["trained"] in (1, 2)
    assert 0 < row.values["share_training"] < row.values["share_training"] + row.values["share_compiling"] < 1
    # Worker processes take seconds to start; test_executor_processes.py has them.
    inline = dataclasses.replace(settings, machine=Machine(executor="inline"))
    assert searches._time_generation(inline, load_dataset(settings.data)) > 0
    spec = settings.search_config().genome
    monkeypatch.setattr(searches, "SPEC", spec)
    for row in searches.measure_evolution(dataclasses.replace(QUICK, mutation_batches=(2,)), print):
        assert row.values["per_second"] > 0
    monkeypatch.setattr(searches, "_SPEC", spec)
    monkeypatch.setattr(searches, "_BRED", 2)
    if searches._STATM.exists():  # not on every system
        assert 10 < searches.train_networks(1)[1] < 1 << 20


def test_memory_is_read_early_and_at_the_end_of_training(monkeypatch):
    read, trained = iter([90.0, 100.0, 110.0]), []

    def run(self, jobs):
        (job,) = jobs
        trained.append((job.until, job.architecture))
        yield 0, SimpleNamespace(cause=None)

    architectures = list(benchmark_architectures().values())
    monkeypatch.setattr(searches.InlineExecutor, "run", run)
    monkeypatch.setattr(searches, "_resident_mib", lambda: next(read))
    monkeypatch.setattr(searches, "EARLY", 1)
    monkeypatch.setattr(searches, "different_architectures", lambda: iter(architectures))
    assert searches.train_networks(2) == (100, 110)
    assert trained == [(3, architecture) for architecture in architectures[:2]]


def test_architectures_for_the_memory_are_different(monkeypatch):
    decoded = iter("abac" + "cdbe" + "efef")
    monkeypatch.setattr(searches, "_BRED", 4)
    monkeypatch.setattr(searches, "breeder", lambda spec, *, steps: lambda keys: keys)
    monkeypatch.setattr(searches, "decode", lambda genome, *, spec: next(decoded))
    found: Any = searches.different_architectures()
    assert [next(found) for _ in range(6)] == list("abcdef")


def memory_by_process(count: int) -> tuple[float, float]:
    """In place of `train_networks`: 100 MiB less where it is called in a process of its own."""
    return count - 100 * (multiprocessing.parent_process() is not None), 230


@pytest.mark.parametrize(
    ("trained", "values", "note"),
    [
        (memory_by_process, {"mib_early": 200, "mib": 230, "times_early": 1.15}, ""),
        (os._exit, {}, "not measured: A process in the process pool was terminated abruptly"),
    ],
)
def test_memory_is_measured_in_a_process_of_its_own(monkeypatch, trained, values, note):
    monkeypatch.setattr(searches, "train_networks", trained)
    (row,) = searches.measure_memory(dataclasses.replace(ONCE, memory=300), print)
    assert (row.values, row.note.partition(" while")[0]) == (values, note)
