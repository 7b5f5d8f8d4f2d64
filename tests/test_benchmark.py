"""The benchmark measures what it says, on a tiny search space, and prints and writes it."""

import json
from itertools import pairwise

import pytest

from eigen_jax.architecture import IMAGE, Architecture, Layer, count_parameters, layer_shapes
from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.training import TrainConfig
from experiments import benchmark
from experiments.benchmark import Measurement

SPEC = GenomeSpec(capacity=3, input_shape=(2, 2, 1))


def measurement(method: str, per_second: float) -> Measurement:
    return Measurement(
        name="children",
        method=method,
        per_second=per_second,
        slowest=1_000,
        fastest=3_000,
        compile_seconds=1.25,
        runs=3,
    )


SLOW, FAST = measurement("one call", 1_500), measurement("2 threads", 2_500)
PLAIN, MIMICKING = measurement("plain", 2.5), measurement("mimicking", 2)


def test_a_rate_is_the_median_of_runs_without_the_first(monkeypatch):
    clock = iter([0.0, 60.0, 100.0, 102.0, 200.0, 201.0, 300.0, 304.0])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    ran: list[int] = []
    measured = benchmark.measure(ran.append, name="calls", method="plain", amount=8, runs=3)
    assert ran == [0, 1, 2, 3]
    assert (measured.slowest, measured.per_second, measured.fastest) == (2, 4, 8)
    assert measured.compile_seconds == 60


def test_mutation_is_measured_in_one_call_and_on_all_cores(monkeypatch):
    monkeypatch.setattr(benchmark, "available_cores", lambda: 2)
    measured = list(benchmark.measure_mutation(spec=SPEC, batches=(4,), runs=1))
    assert [m.method for m in measured] == ["batch 4, one call", "batch 4, 2 threads of 2"]
    assert all(m.per_second > 0 for m in measured)


def test_evolution_is_measured():
    config = EvolutionConfig(population_size=2, first_rank=1, second_rank=1, primary_steps=2)
    (measured,) = benchmark.measure_evolution(spec=SPEC, config=config, runs=1)
    assert measured.per_second > 0


def test_mimicry_is_measured_in_turns_with_plain_training(monkeypatch):
    asked: list[bool] = []
    train_to = benchmark.train_to

    def watched(*arguments, teacher, **options):
        asked.append(teacher is not None)
        return train_to(*arguments, teacher=teacher, **options)

    monkeypatch.setattr(benchmark, "train_to", watched)
    convolution = Layer(op="conv", inputs=(IMAGE,), channels=2, kernel=1, stride=1)
    network = Architecture(input_shape=(4, 4, 1), layers=(convolution,))
    config = TrainConfig(batch_size=4, pad=1)
    plain, mimicking = benchmark.measure_mimicry(architecture=network, images=8, config=config, runs=2, steps=1)
    assert asked == [False, True] * 3, "once each to compile, then twice each"
    assert (plain.method, mimicking.method) == ("1 layers, plain", "1 layers, mimicking cached logits")
    for measured in (plain, mimicking):
        assert measured.name == "training steps, batch 4"
        assert measured.runs == 2
        assert 0 < measured.slowest <= measured.per_second <= measured.fastest


def test_the_network_that_mimicry_is_measured_on_has_eight_convolutions():
    network = benchmark.eight_layers()
    assert layer_shapes(network)[-1] == (4, 4, 96)
    assert [layer.op for layer in network.layers] == ["conv"] * 8
    # Each of 9 weights an input and output channel and 2 values of normalisation; 97 x 10 of the classifier.
    widths = (3, 32, 32, 48, 48, 64, 64, 96, 96)
    weights = sum(9 * before * after + 2 * after for before, after in pairwise(widths))
    assert count_parameters(network, num_classes=10) == weights + 97 * 10


def test_the_table_is_aligned_and_marks_the_best_way():
    assert benchmark.table([SLOW, FAST]).splitlines() == [
        "                       a second  slowest  fastest  compiling",
        "children  one call        1,500    1,000    3,000      1.2 s",
        "children  2 threads *     2,500    1,000    3,000      1.2 s",
    ]


def test_the_numbers_are_printed_and_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "measure_mutation", lambda **settings: iter([SLOW, FAST]))
    monkeypatch.setattr(benchmark, "measure_evolution", lambda **settings: iter([]))
    monkeypatch.setattr(benchmark, "measure_mimicry", lambda **settings: iter([PLAIN, MIMICKING]))
    path = tmp_path / "numbers.json"
    assert benchmark.main(["--quick", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2 threads *" in shown
    # 2.5 steps a second without a teacher and 2 with one.
    assert shown.endswith("A step that mimics cached logits takes 1.250 times the plain one.\n")
    written = json.loads(path.read_text())
    assert [row["per_second"] for row in written["measurements"]] == [1_500, 2_500, 2.5, 2]
    assert written["machine"].keys() == {"cpu", "cores", "device", "python", "jax"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "measure_mutation", lambda **settings: pytest.fail("measured"))
    missing = tmp_path / "missing"
    assert benchmark.main(["--json", str(missing / "numbers.json")]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {missing} to write numbers.json in; make it\n"
