"""The settings of a run folder: those of older runs, which do not name what came after them."""

import json
from pathlib import Path
from typing import Any

import pytest

from eigen_jax.search import RunFolder, RunFolderError, check_run_folder

OLD: dict[str, Any] = {"t1": 5, "channels": (4, 8), "train": {"momentum": 0.5}}
NEW: dict[str, Any] = {
    **OLD,
    "dtype": "float32",
    "teacher_dtype": "float32",
    "train": {"momentum": 0.5, "dtype": "float32"},
}


@pytest.fixture
def old(tmp_path) -> Path:
    """The folder of a run that was made when there was no dtype to choose."""
    with RunFolder.open(tmp_path / "run", OLD, {}) as run:
        return run.path


def open_run(folder: Path, settings: dict[str, Any]) -> None:
    with RunFolder.open(folder, settings, {}):
        pass


@pytest.mark.parametrize("use", [check_run_folder, open_run])
def test_an_older_run_goes_on_where_later_settings_are_as_they_were_in_it(old, use):
    before = (old / "settings.json").read_bytes()
    use(old, NEW)
    use(old, OLD)
    assert (old / "settings.json").read_bytes() == before


@pytest.mark.parametrize("use", [check_run_folder, open_run])
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
    with pytest.raises(RunFolderError) as caught:
        use(old, {**NEW, **changes})
    assert str(caught.value) == f"{old} belongs to a run with other settings: {line}; choose another folder"
    assert (old / "settings.json").read_bytes() == before


def test_a_run_that_names_a_later_setting_does_not_go_on_without_it(tmp_path):
    open_run(tmp_path, {**NEW, "dtype": "bfloat16"})
    assert json.loads((tmp_path / "settings.json").read_text())["settings"]["dtype"] == "bfloat16"
    with pytest.raises(RunFolderError, match="dtype was 'bfloat16' and is now None"):
        open_run(tmp_path, {name: value for name, value in NEW.items() if name != "dtype"})
