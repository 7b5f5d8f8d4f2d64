"""The record of a GPU's run, in small: on the digits, on a CPU, with a benchmark of rows that are given."""

import json
import math
import shutil

import pytest
from commands_data import SEARCH, SEED, leave_process_alone, places, refused

from eigen_jax.store.run_files import read_result
from experiments import gpu_record, runner
from experiments.benchmark.measuring import Row
from experiments.commands import INTERRUPTED, UNFINISHED
from experiments.gpu_record import PARTS, Parts

ARGV = ("--dataset", "digits", *SEARCH, f"--seed={SEED}", "--teacher", "none")
PEAK = {"float32": 1e9, "bfloat16": 1e9}
ROWS = [
    ("PyTorch eager float32", 30.0),
    ("torch.compile bfloat16", 20.0),
    ("plain Flax float32", 15.0),  # faster than PyTorch, and neither PyTorch's nor ours
    ("ours float32", 25.0),
    ("ours many", 10.0),
]

own_settings = pytest.fixture(leave_process_alone, autouse=True)


@pytest.fixture(autouse=True)
def asked(monkeypatch) -> list[str]:
    """What the benchmark measures, in place of which it gets rows: of `small` all ways, else none of PyTorch's."""
    names: list[str] = []

    def measure(function, name, peak, plan):
        names.append(name)
        if name == "hardware":
            return PEAK, [Row(group="hardware", what="matrix product", method="ours", values={"ms": 1.0})]
        assert peak == PEAK
        none = Row(group="steps", what=name, method="torch.compile float32", note="not measured: no PyTorch")
        timed = ROWS if name == "small" else ROWS[2:]
        return peak, [none, *(Row(group="steps", what=name, method=each, values={"ms": ms}) for each, ms in timed)]

    monkeypatch.setattr(gpu_record, "_in_own_process", measure)
    monkeypatch.setattr(gpu_record, "configure", lambda settings: settings)
    return names


def test_a_run_that_is_killed_stopped_and_continued_ends_in_one_record(tmp_path, monkeypatch, capsys, asked):
    argv, folder = [*ARGV, *places(tmp_path)], tmp_path / "run-dir-record"

    def kill(settings, *, stop_at):
        assert stop_at == math.inf
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gpu_record, "search", kill)
        assert gpu_record.main(argv) == INTERRUPTED
    with monkeypatch.context() as patch:
        # Asked to end in a day, it ends at once.
        patch.setattr(gpu_record, "search", lambda settings, *, stop_at: runner.search(settings, stop_at=stop_at - 1e5))
        assert gpu_record.main([*argv, "--stop-after=100000"]) == UNFINISHED
    assert not (folder / "record.json").exists()
    PARTS.write(folder, Parts(seconds=(100.0, 200.0)))
    assert gpu_record.main(argv) == 0
    record, result = json.loads((folder / "record.json").read_text()), read_result(tmp_path / "run-dir")
    assert asked == ["hardware", "small", "typical", "large"]
    assert result.network is not None
    assert result.test_accuracy is not None
    assert record["result"]["test_accuracy"] == result.test_accuracy
    assert record["result"]["network"]["parameters"] == result.network.parameters
    first, second, last = record["seconds_of_parts"]
    assert (first, second) == (100.0, 200.0)
    seconds = record["seconds"]
    assert seconds["wall"] == pytest.approx(300 + last)
    assert 0 < seconds["training"] + seconds["final_training"] < last
    share = (seconds["training"] + seconds["final_training"]) / (300 + last)
    assert record["share_training"] == pytest.approx(share)
    assert sum(phase["trained"] for phase in record["phases"]) == result.trained
    assert {"cpu", "cores", "device"} < record["machine"].keys()
    assert record["settings"]["t1"] == 4
    text = (folder / "record.md").read_text()
    assert f"| test accuracy | {100 * result.test_accuracy:.1f} % |" in text
    assert "| small | 20 ms (torch.compile bfloat16) | 10 ms (ours many) | 0.50 |" in text
    assert "| typical | not measured | 10 ms (ours many) | - |" in text
    assert text in capsys.readouterr().out
    # Once more: nothing is searched or measured again, and no time is added.
    shutil.rmtree(tmp_path / "run-dir" / "checkpoints")
    assert gpu_record.main(argv) == 0
    assert json.loads((folder / "record.json").read_text()) == record
    assert len(asked) == 4
    line = refused(capsys, gpu_record.main, *argv, "--t1=5")
    assert line.startswith(f"{tmp_path / 'run-dir'} belongs to a run with other settings: --t1 was 4 and is now 5")


def test_a_benchmark_goes_on_with_the_network_that_was_not_measured(tmp_path, monkeypatch, asked):
    monkeypatch.setattr(gpu_record, "held_off", lambda stop_at: runner.held_off(0.0 if len(asked) else math.inf))
    argv = [*ARGV, *places(tmp_path)]
    measure = gpu_record._in_own_process

    def die(function, name, *arguments):
        if name == "typical" and "typical" not in asked:
            asked.append(name)
            raise gpu_record.RecordError("the benchmark's process ended")
        return measure(function, name, *arguments)

    monkeypatch.setattr(gpu_record, "_in_own_process", die)
    assert gpu_record.main(argv) == 2
    assert asked == ["hardware", "small", "typical"]
    assert gpu_record.main(argv) == UNFINISHED
    monkeypatch.setattr(gpu_record, "held_off", runner.held_off)
    assert gpu_record.main(argv) == 0
    assert asked == ["hardware", "small", "typical", "typical", "large"]


def test_the_help_says_what_is_its_own(capsys):
    with pytest.raises(SystemExit):
        gpu_record.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--stop-after SECONDS: saves and ends after so many" in text
    assert "The defaults are those of the preset gpu" in text
