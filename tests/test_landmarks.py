"""The command that studies landmarks: what it prints and writes, and what it says of folders that it cannot use."""

from pathlib import Path

import pytest
from commands_data import refused
from test_report_landmarks import RECORD

from eigen_jax import lineage
from eigen_jax.store.run_files import write_settings
from experiments.landmarks import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run without extinction."""
    (tmp_path / "run").mkdir()
    write_settings(tmp_path / "run", {"settings": {}})
    lineage.append(tmp_path / "run" / "lineage.jsonl", RECORD)
    return tmp_path / "run"


def test_tables_are_printed_and_written(run, tmp_path, capsys):
    output = tmp_path / "tables"
    assert main([str(run), "--ranks", "1", "2", "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n| what ") == shown.count("\n| p ") == shown.count("\n| third by FLOPs") == 1
    names = [f"{name}{ending}" for name in ("agreement", "replay", "extinct") for ending in (".csv", ".md")]
    assert shown.splitlines()[-6:] == [str(output / name) for name in names]
    assert all((output / name).stat().st_size for name in names)
    assert (output / "replay.md").read_text() in shown


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{tmp}/absent"], "{tmp}/absent is no folder; name the folder of a run"),
        (["{tmp}"], "{tmp} is no run folder: it has no lineage.jsonl"),
        (["{tmp}/run", "--ranks", "0"], "--ranks: is '0'; it must be "),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_what_cannot_be_studied_gets_one_line(argv, message, run, tmp_path, capsys):
    line = refused(capsys, main, *(each.format(tmp=tmp_path) for each in argv))
    assert line.startswith(message.format(tmp=tmp_path))
