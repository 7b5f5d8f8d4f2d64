"""A run folder: whom it takes in, and the settings of older runs, which do not name what came after them."""

import json
from pathlib import Path
from typing import Any

import jax
import pytest
from refusals import refuses

from eigen_jax.search import RunFolder, RunFolderError, check_run_folder

OLD: dict[str, Any] = {"t1": 5, "channels": (4, 8), "train": {"momentum": 0.5}}
DTYPES = {"dtype": "float32", "teacher_dtype": "float32"}
NEW: dict[str, Any] = {**OLD, **DTYPES, "train": {"momentum": 0.5, "dtype": "float32"}}


@pytest.fixture
def old(tmp_path) -> Path:
    """The folder of a run that was made when there was no dtype to choose."""
    open_run(tmp_path / "run", OLD)
    return tmp_path / "run"


def open_run(folder: Path, settings: dict[str, Any] = OLD) -> None:
    with RunFolder.open(folder, settings, {}):
        pass


PUT_BACK = "put the run's own file back, or choose another folder"

BOTH = pytest.mark.parametrize("use", [check_run_folder, open_run])


@BOTH
def test_an_older_run_goes_on_where_later_settings_are_as_they_were_in_it(old, use):
    before = (old / "settings.json").read_bytes()
    use(old, NEW)
    use(old, OLD)
    assert (old / "settings.json").read_bytes() == before


@BOTH
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"dtype": "bfloat16"}, "dtype was 'float32' and is now 'bfloat16'"),
        (
            {"teacher_dtype": "bfloat16", "t1": 6},
            "t1 was 5 and is now 6, teacher_dtype was 'float32' and is now 'bfloat16'",
        ),
        (
            {"train": {"momentum": 0.5, "dtype": "bfloat16"}},
            "train was {'dtype': 'float32', 'momentum': 0.5} and is now {'momentum': 0.5, 'dtype': 'bfloat16'}",
        ),
        ({"seed": 0}, "seed was None and is now 0"),
        (
            {"train": {"dtype": "float32"}},
            "train was {'dtype': 'float32', 'momentum': 0.5} and is now {'dtype': 'float32'}",
        ),
    ],
)
def test_an_older_run_does_not_go_on_with_what_it_was_not_made_with(old, use, changes, line):
    before = (old / "settings.json").read_bytes()
    with refuses(RunFolderError, f"{old} belongs to a run with other settings: {line}; choose another folder"):
        use(old, {**NEW, **changes})
    assert (old / "settings.json").read_bytes() == before


def test_a_run_that_names_a_later_setting_does_not_go_on_without_it(tmp_path):
    open_run(tmp_path, {**NEW, "dtype": "bfloat16"})
    assert json.loads((tmp_path / "settings.json").read_text())["settings"]["dtype"] == "bfloat16"
    with pytest.raises(RunFolderError, match="dtype was 'bfloat16' and is now None"):
        open_run(tmp_path, {name: value for name, value in NEW.items() if name != "dtype"})


@BOTH
def test_a_folder_that_is_none_of_a_run_is_refused(tmp_path, use):
    (tmp_path / "thesis.tex").write_text("precious")
    line = f"{tmp_path} holds files but no settings.json, so it is no run folder; choose another"
    with refuses(RunFolderError, line):
        use(tmp_path, OLD)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_in_use_is_refused_and_is_free_afterwards(old):
    line = f"{old} is in use by another process; wait for it or end it, or choose another folder"
    with RunFolder.open(old, OLD, {}), refuses(RunFolderError, line):
        open_run(old)
    open_run(old)


def test_a_folder_left_by_a_process_killed_at_once_is_taken(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / "settings.json.partial").write_text('{"schema')
    open_run(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "settings.json"]


def test_other_versions_and_switches_are_warned_of_once_and_older_runs_go_on_without_a_word(old, caplog):
    path = old / "settings.json"
    content = json.loads(path.read_text())
    with jax.default_matmul_precision("highest"), jax.threefry_partitionable(False):
        open_run(old)
    assert caplog.messages == [
        "the run was started with another JAX_THREEFRY_PARTITIONABLE (True then, False now),"
        " JAX_DEFAULT_MATMUL_PRECISION (unset then, highest now); what follows may differ from what it would be"
    ]
    caplog.clear()
    content["versions"]["jax"] = "0.0.1"
    path.write_text(json.dumps(content))
    open_run(old)
    (line,) = caplog.messages
    assert line.startswith(f"the run was started with another jax (0.0.1 then, {jax.__version__} now); what")
    caplog.clear()
    for part in ("versions", "switches"):  # which older runs do not say
        del content[part]
        path.write_text(json.dumps(content))
        open_run(old)
    assert caplog.text == ""


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    line = f"cannot write {tmp_path}/file/run: Not a directory; choose a folder that can be written"
    with refuses(RunFolderError, line):
        open_run(tmp_path / "file" / "run")


@BOTH
@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", f"is damaged (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); {PUT_BACK}"),
        (
            '{"schema_version": 2, "settings": {}, "switches": {"XLA_FLAGS": 1}}',
            f"is damaged (Expected `str`, got `int` - at `$.switches[...]`); {PUT_BACK}",
        ),
        ('{"schema_version": 9, "settings": {}}', "has schema version 9; this version of eigen_jax reads 2"),
    ],
)
def test_damaged_settings_are_refused(tmp_path, use, content, line):
    (tmp_path / "settings.json").write_text(content)
    with refuses(RunFolderError, f"{tmp_path}/settings.json {line}"):
        use(tmp_path, OLD)
