"""Each group measures what it says, on tiny networks and search spaces."""

import dataclasses
import importlib.util
import os
from itertools import pairwise
from typing import Any

import pytest

from eigen_jax import lineage
from eigen_jax.architecture import IMAGE, Architecture, Layer, count_parameters, layer_shapes
from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.search import RunFolderError
from eigen_jax.training import TrainConfig
from experiments.benchmarks import (
    evolution,
    memory,
    mimicry,
    our_steps,
    parts,
    plan,
    search,
    steps,
    torch_steps,
    workers,
)
from experiments.benchmarks.architectures import (
    benchmark_architectures,
    convolution_flops,
    eight_layers,
    training_flops,
)
from experiments.benchmarks.compilation import measure_compilation
from experiments.benchmarks.measuring import Effort, NotMeasured, Row

ONCE = Effort(rounds=1, seconds=0)
SPEC = GenomeSpec(capacity=3, input_shape=(2, 2, 1))
CONVOLUTION = Layer(op="conv", inputs=(IMAGE,), channels=2, kernel=1, stride=1)
TINY = Architecture(input_shape=(4, 4, 1), layers=(CONVOLUTION,))
NO_TORCH = "not measured: PyTorch is not installed; pip install -e '.[torch]'"


@pytest.fixture
def no_torch(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(our_steps, "CONFIG", TrainConfig(batch_size=4, decay_steps=()))
    for cached in (our_steps.initial_state, our_steps.noise_batch, our_steps.compile_steps):
        cached.cache_clear()
    yield
    for cached in (our_steps.initial_state, our_steps.noise_batch, our_steps.compile_steps):
        cached.cache_clear()


# The networks.


def test_the_small_network_has_eight_convolutions():
    network = eight_layers()
    assert layer_shapes(network)[-1] == (4, 4, 96)
    assert [layer.op for layer in network.layers] == ["conv"] * 8
    # Each of 9 weights an input and output channel and 2 values of normalisation; 97 x 10 of the classifier.
    widths = (3, 32, 32, 48, 48, 64, 64, 96, 96)
    weights = sum(9 * before * after + 2 * after for before, after in pairwise(widths))
    assert count_parameters(network, num_classes=10) == weights + 97 * 10


@pytest.mark.parametrize(
    ("name", "layers", "concats", "parameters", "work"),
    [("typical", (28, 32), 6, (3e5, 1.5e6), (0.5, 2)), ("large", (95, 105), 20, (1e6, 4e6), (2, 3.2))],
)
def test_the_evolved_networks_are_such_as_a_search_finds(name, layers, concats, parameters, work):
    network = benchmark_architectures()[name]
    assert network.input_shape == (32, 32, 3)
    assert layers[0] <= len(network.layers) <= layers[1]
    convolutions = [layer for layer in network.layers if layer.op == "conv"]
    assert len(convolutions) > len(network.layers) / 2
    assert {layer.kernel for layer in convolutions} == {1, 3}
    assert {layer.stride for layer in convolutions} == {1, 2}
    assert {layer.channels for layer in convolutions} <= {16, 32, 48, 64, 96}
    assert sum(layer.op == "concat" for layer in network.layers) >= concats
    assert sum(layer.op == "pool" for layer in network.layers) >= 1
    assert parameters[0] <= count_parameters(network, num_classes=10) <= parameters[1]
    assert work[0] <= training_flops(network) / training_flops(eight_layers()) <= work[1]


def test_the_work_of_a_step_is_three_passes_but_two_for_what_reads_the_image():
    layers = (CONVOLUTION, Layer(op="conv", inputs=(0,), channels=3, kernel=1, stride=1))
    network = Architecture(input_shape=(4, 4, 1), layers=layers)
    # Two operations for each of 16 pixels, 1 x 2 and 2 x 3 channels; the classifier has 3 x 10 weights.
    first, second, classifier = 2 * 16 * 2, 2 * 16 * 6, 2 * 30
    assert training_flops(network) == 2 * first + 3 * second + 3 * classifier
    assert convolution_flops((4, 4, 1), CONVOLUTION) == first


# Training steps.


def test_steps_are_measured_every_way_and_held_against_pytorch(small_batches):
    pytest.importorskip("torch", reason="PyTorch is not installed; pip install -e '.[torch]'")
    rows = measure_tiny_steps(left_out=lambda name, way: "slow" if "compile" in way else None)
    eager, _, compiled, _, ours, _, chunk = rows
    assert compiled == Row(
        group=steps.GROUP, what="tiny, 1 layers", method="torch.compile float32", note="not measured: slow"
    )
    assert [row.method for row in (eager, ours, chunk)] == [
        "PyTorch eager float32",
        "ours float32",
        "ours float32, 8 in one call",
    ]
    for row in (eager, ours, chunk):
        seconds = row.values["ms"] / 1e3
        assert row.values["images_per_second"] == pytest.approx(4 / seconds)
        assert row.values["share_of_peak"] == pytest.approx(training_flops(TINY) * 4 / seconds / 1e9)
        assert row.values["times_pytorch"] == pytest.approx(row.values["ms"] / eager.values["ms"])
    assert chunk.values["times_single"] == pytest.approx(chunk.values["ms"] / ours.values["ms"])
    assert "times_single" not in ours.values


def test_ours_are_measured_without_pytorch(small_batches, no_torch):
    rows = measure_tiny_steps()
    assert [row.note for row in rows] == [NO_TORCH] * 4 + [""] * 3
    assert "times_pytorch" not in rows[-1].values


def measure_tiny_steps(**options) -> list[Row]:
    return list(steps.measure_steps("tiny", TINY, peak={"float32": 1e9, "bfloat16": 1e9}, effort=ONCE, **options))


def test_a_chunk_takes_the_steps_of_as_many_calls(small_batches):
    single, chunk = our_steps.make_step(TINY, dtype="float32", calls=8), None
    chunk = our_steps.make_step(TINY, dtype="float32", calls=1, steps=8)
    assert single() == pytest.approx(chunk(), rel=1e-4)
    assert single() == pytest.approx(chunk(), rel=1e-4), "each goes on from where it was"


def test_torch_compile_that_fails_says_so_in_one_line():
    def fail():
        raise RuntimeError("no C++ compiler\nfound")

    with pytest.raises(NotMeasured, match=r"^torch\.compile failed: no C\+\+ compiler$"):
        torch_steps._told(fail)


def test_the_peak_is_that_of_the_faster_side(no_torch):
    peak, (ours, theirs) = steps.measure_peak(ONCE, size=8)
    assert peak["float32"] == peak["bfloat16"] == pytest.approx(2 * 8**3 / (ours.values["ms"] / 1e3))
    assert theirs.note == NO_TORCH


@pytest.mark.parametrize(
    ("name", "way", "measured"),
    [
        ("small", "ours float32", True),
        ("small", "ours bfloat16", True),
        ("small", "PyTorch eager bfloat16", True),
        ("small", "torch.compile float32", False),
        ("typical", "ours float32", True),
        ("typical", "ours float32, 8 in one call", False),
        ("typical", "PyTorch eager float32", True),
        ("typical", "PyTorch eager bfloat16", False),
        ("large", "ours float32", False),
        ("large", "PyTorch eager float32", False),
    ],
)
def test_a_quick_run_leaves_out_what_takes_long_to_compile(name, way, measured):
    assert plan._quickly_left_out(name, way) == (None if measured else "left out by --quick")


def test_compilation_is_that_of_the_step_that_was_timed(small_batches, monkeypatch):
    """A program that the process holds already compiles in no time, so it must not be asked for again."""
    compiled, calls = our_steps.compiled, []

    def watched(*arguments, **options):
        calls.append(arguments)
        return compiled(*arguments, **options)

    monkeypatch.setattr(our_steps, "compiled", watched)
    our_steps.make_step(TINY, dtype="float32", calls=1)
    row = measure_compilation("tiny", TINY)
    assert row == measure_compilation("tiny", TINY)
    assert len(calls) == 1
    assert 0 < row.values["seconds"] == row.values["seconds_per_layer"]


# Parts.


def test_every_part_is_measured_beside_pytorch(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed; pip install -e '.[torch]'")
    monkeypatch.setattr(parts, "CONVOLUTIONS", (parts._convolution(5, 2, 3, stride=2),))
    rows = list(parts.measure_parts(ONCE, batch=2))
    assert [row.method for row in rows] == ["ours", "PyTorch"] * 5
    assert [row.what for row in rows[::2]] == [
        "conv 3 x 3, stride 2, 2 to 3, on 5 x 5: forward",
        "conv 3 x 3, stride 2, 2 to 3, on 5 x 5: input gradient",
        "conv 3 x 3, stride 2, 2 to 3, on 5 x 5: kernel gradient",
        "batch norm and ReLU, 32 on 32 x 32: forward and backward",
        "max pooling, 32 on 32 x 32: forward and backward",
    ]
    # 3 outputs a side, of whose 9 taps 2 at either edge fall on the padding: 7 x 7 taps.
    flops = 2 * 49 * 2 * 3 * 2
    for row in rows[:6]:
        assert row.values["gflops_per_second"] == pytest.approx(flops / (row.values["ms"] / 1e3) / 1e9)
    assert rows[1].values["times_pytorch"] == 1


def test_parts_of_ours_are_measured_without_pytorch(monkeypatch, no_torch):
    monkeypatch.setattr(parts, "CONVOLUTIONS", ())
    rows = list(parts.measure_parts(ONCE, batch=2))
    assert [row.note for row in rows] == ["", NO_TORCH] * 2


# Mimicry and evolution.


def test_mimicry_is_measured_in_turns_with_plain_training(monkeypatch):
    asked: list[bool] = []
    train_to = mimicry.train_to

    def watched(*arguments, teacher, **options):
        asked.append(teacher is not None)
        return train_to(*arguments, teacher=teacher, **options)

    monkeypatch.setattr(mimicry, "train_to", watched)
    config = TrainConfig(batch_size=4, pad=1)
    effort = Effort(rounds=2, seconds=60)
    plain, mimicking = mimicry.measure_mimicry(architecture=TINY, images=8, config=config, effort=effort, steps=1)
    assert asked == [False, True] * 3, "once each to compile, then twice each"
    assert (plain.method, mimicking.method) == ("plain", "mimicking cached logits")
    assert plain.values["times_plain"] == 1
    assert mimicking.values["times_plain"] == mimicking.values["ms"] / plain.values["ms"] > 0


def test_mutation_is_measured_in_one_call_and_in_threads():
    rows = list(evolution.measure_mutation(spec=SPEC, batches=(4,), threads=(1, 2), runs=1))
    assert [row.method for row in rows] == ["batch 4, one call", "batch 4, 2 threads of 2"]
    assert all(row.values["per_second"] > 0 for row in rows)


def test_evolution_is_measured():
    config = EvolutionConfig(population_size=2, first_rank=1, second_rank=1, primary_steps=2)
    assert evolution.measure_evolution(spec=SPEC, config=config, runs=1).values["per_second"] > 0


# The share of training in a search.


def individual(index: int, *, training: float, compiling: float, same_as: Reference | None = None) -> Individual:
    return Individual(
        generation=0,
        phase="primary",
        index=index,
        parent=None,
        operators={},
        architecture=TINY,
        parameters=1,
        flops=1,
        fate=Fate.SURVIVED,
        seconds_training=training,
        seconds_compiling=compiling,
        same_as=same_as,
    )


RECORD = [
    individual(0, training=50, compiling=4),
    individual(1, training=40, compiling=1),
    individual(2, training=0, compiling=0, same_as=Reference(generation=0, index=0)),
]


def test_a_share_is_the_seconds_of_the_record_over_the_wall_time():
    row = search.share_row(RECORD, 100, what="a search", method="")
    assert row.values == {"seconds": 100, "share_training": 0.9, "share_compiling": 0.05, "trained": 2}


@pytest.fixture
def run_folder(tmp_path):
    """A finished run that started at second 1,000 and recorded its last generation at second 1,100."""
    lineage.append(tmp_path / "lineage.jsonl", RECORD)
    for name in ("settings.json", "result.json"):
        (tmp_path / name).write_text("{}")
    for name, time in (("settings.json", 1_000), ("lineage.jsonl", 1_100), ("result.json", 9_000)):
        os.utime(tmp_path / name, (time, time))
    return tmp_path


def test_the_share_of_a_finished_run_is_told_by_the_times_of_its_files(run_folder):
    row = search.measure_folder(run_folder)
    assert row.values == {"seconds": 100, "share_training": 0.9, "share_compiling": 0.05, "trained": 2}
    assert "settings.json" in row.method


def test_copied_files_tell_no_wall_time(run_folder):
    os.utime(run_folder / "lineage.jsonl", (1_001, 1_001))
    with pytest.raises(RunFolderError, match="copies"):
        search.measure_folder(run_folder)


@pytest.mark.parametrize("name", ["settings.json", "result.json"])
def test_a_run_that_has_not_finished_has_no_share(run_folder, name):
    (run_folder / name).unlink()
    with pytest.raises(RunFolderError, match="finished"):
        search.measure_folder(run_folder)


def test_a_search_is_measured(tmp_path):
    differences: dict[str, Any] = {
        "population": 2,
        "p": 1,
        "q": 1,
        "t1": 2,
        "t2": 1,
        "t3": 1,
        "primary_steps": 3,
        "capacity": 3,
        "decay_steps": (),
        "max_primary_generations": 1,
    }
    row = search.measure_search(dataclasses.replace(search.search_settings(quick=True), **differences))
    assert row.method == "4 steps an individual"
    assert row.values["trained"] in (1, 2)
    assert 0 < row.values["share_training"] < 1
    assert 0 < row.values["share_compiling"] < 1


def test_a_generation_is_measured_in_each_place(monkeypatch):
    # Worker processes take seconds to start; test_executor_processes.py has them.
    monkeypatch.setattr(workers, "_PLACES", {name: {"executor": "inline"} for name in workers._PLACES})
    differences: dict[str, Any] = {
        "population": 2,
        "p": 1,
        "q": 1,
        "t1": 2,
        "t2": 1,
        "t3": 1,
        "decay_steps": (),
        "primary_steps": 3,
        "capacity": 3,
    }
    settings = dataclasses.replace(workers.generation_settings(quick=True), **differences)
    told: list[str] = []
    rows = list(workers.measure_workers(settings, told.append))
    assert told == [f"a generation, {row.method}" for row in rows]
    assert [row.method for row in rows] == ["inline", "1 worker process", "2 worker processes"]
    assert rows[1].values["times_one_worker"] == 1
    for row in rows:
        assert row.values["times_one_worker"] == row.values["seconds"] / rows[1].values["seconds"]


@pytest.mark.parametrize("quick", [False, True])
def test_the_generation_is_the_only_one(quick):
    settings = workers.generation_settings(quick=quick)
    assert (settings.max_primary_generations, settings.max_secondary_generations) == (1, 0)
    assert (settings.max_duplication_generations, settings.final_steps, settings.teacher) == (0, 0, "none")


@pytest.mark.parametrize("quick", [False, True])
def test_the_search_is_one_for_the_digits(quick):
    settings = search.search_settings(quick=quick)
    assert settings.teacher == "none"
    assert settings.final_steps == 0


# Memory.


def test_architectures_for_the_memory_are_different(monkeypatch):
    monkeypatch.setattr(memory, "_SPEC", SPEC)
    monkeypatch.setattr(memory, "_BRED", 4)
    found = memory.different_architectures()
    some = [next(found) for _ in range(9)]
    assert len(set(some)) == 9


def test_memory_is_read_early_and_at_the_end(monkeypatch, capsys):
    read = iter([0.0, 100.0, 110.0, 120.0])
    trained = []
    run_job = memory.run_job

    def watched(job, dataset):
        trained.append(job.until)
        return run_job(job, dataset)

    monkeypatch.setattr(memory, "run_job", watched)
    monkeypatch.setattr(memory, "_resident_mib", lambda: next(read))
    monkeypatch.setattr(memory, "EARLY", 1)
    monkeypatch.setattr(memory, "different_architectures", lambda: iter([tiny(1), tiny(2), tiny(3)]))
    monkeypatch.setattr(memory, "_report", lambda number, count: None)
    assert memory.train_networks(2) == {"early": 100, "end": 110}
    assert trained == [3, 3]


def tiny(channels: int) -> Architecture:
    layer = dataclasses.replace(CONVOLUTION, channels=channels)
    return Architecture(input_shape=(8, 8, 1), layers=(layer,))


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch):
    class Done:
        returncode = 0
        stdout = '{"early": 200.0, "end": 230.0}'

    def run(command, **options):
        commands.append(command)
        return Done

    commands: list[list[str]] = []
    monkeypatch.setattr(memory.subprocess, "run", run)
    row = memory.measure_memory(300)
    assert commands[0][1:] == ["-m", "experiments.benchmarks.memory", "300"]
    assert row.values == {"mib_early": 200, "mib": 230, "times_early": 1.15}
    Done.returncode = 1
    assert memory.measure_memory(300).note == "not measured: the process that trains them ended with code 1"


def test_resident_memory_is_more_than_nothing():
    if not memory._STATM.exists():
        pytest.skip("there is no /proc/self/statm on this system")
    assert 10 < memory._resident_mib() < 1 << 20
