"""The benchmark measures what it says, on a tiny search space, and prints and writes it."""

import json

import pytest

from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
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


def test_the_table_is_aligned_and_marks_the_best_way():
    assert benchmark.table([SLOW, FAST]).splitlines() == [
        "                       a second  slowest  fastest  compiling",
        "children  one call        1,500    1,000    3,000      1.2 s",
        "children  2 threads *     2,500    1,000    3,000      1.2 s",
    ]


def test_the_numbers_are_printed_and_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "measure_mutation", lambda **settings: iter([SLOW, FAST]))
    monkeypatch.setattr(benchmark, "measure_evolution", lambda **settings: iter([]))
    path = tmp_path / "numbers.json"
    assert benchmark.main(["--quick", "--json", str(path)]) == 0
    assert "2 threads *" in capsys.readouterr().out
    written = json.loads(path.read_text())
    assert [row["per_second"] for row in written["measurements"]] == [1_500, 2_500]
    assert written["machine"].keys() == {"cpu", "cores", "device", "python", "jax"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "measure_mutation", lambda **settings: pytest.fail("measured"))
    missing = tmp_path / "missing"
    assert benchmark.main(["--json", str(missing / "numbers.json")]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {missing} to write numbers.json in; make it\n"
