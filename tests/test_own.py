"""What users bring along: found by file and name, here and in other processes, or refused in one line."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusals import refuses

from eigen_jax.executor.processes import python_path
from experiments.own import OwnFileError, is_own, load


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules, and where they are found, are as before afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_what_is_named_is_found_with_its_neighbours_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "my_neighbour.py", "SIZE = 3\n")
    write(tmp_path, "my_own.py", "from my_neighbour import SIZE\n\nclass Own:\n    size = SIZE\n\nmade = Own()\n")
    monkeypatch.chdir(tmp_path)
    assert load("my_own.py:made", "--own").size == 3
    assert load(f"{tmp_path}/my_own.py:Own", "--own") is type(load("my_own.py:made", "--own"))
    assert sys.path.count(str(tmp_path)) == 1


def test_processes_that_are_started_find_it(tmp_path: Path) -> None:
    path = write(tmp_path, "my_pickled.py", "def double(number):\n    return 2 * number\n")
    sent = pickle.dumps(load(f"{path}:double", "--own"))
    code = f"import pickle; print(pickle.loads({sent!r})(21))"
    environment = {**os.environ, **python_path()}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, check=True)
    assert shown.stdout == b"42\n"


@pytest.mark.parametrize(
    ("name", "text", "asked", "line"),
    [
        ("a.py", "", "", "--own is '{folder}/a.py'; it must be FILE.py:NAME, as my_file.py:my_name"),
        ("a.py", "", ":1", "--own is '{folder}/a.py:1'; it must be FILE.py:NAME, as my_file.py:my_name"),
        ("my_one.py", "one = two = 1", ":x", "--own: {folder}/my_one.py has no 'x'; it has one, two"),
        ("my_none.py", "", ":x", "--own: {folder}/my_none.py has no 'x'; it has nothing"),
        (
            *("my-own.py", "x = 1", ":x"),
            "--own: my-own.py can be no module; name the file with letters, digits and underscores",
        ),
        *((name, "x = 1", ":x", f"--own: {name} has the name of another module; give the file another one")
          for name in ("json.py", "time.py", "conftest.py")),
        (
            *("my_broken.py", "x = 1 / 0", ":x"),
            "--own: {folder}/my_broken.py cannot be imported (ZeroDivisionError: division by zero); mend it",
        ),
        (
            *("my_text.py", "x = = 1", ":x"),
            "--own: {folder}/my_text.py cannot be imported (SyntaxError: invalid syntax (my_text.py, line 1)); mend it",
        ),
        ("my_exit.py", "exit(3)", ":x", "--own: {folder}/my_exit.py cannot be imported (SystemExit: 3); mend it"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_gets_one_line(tmp_path: Path, name: str, text: str, asked: str, line: str) -> None:
    path = write(tmp_path, name, text)
    with refuses(OwnFileError, line.format(folder=tmp_path)):
        load(f"{path}{asked}", "--own")


def test_a_file_that_is_not_there_gets_one_line(tmp_path: Path) -> None:
    with refuses(OwnFileError, f"--own: there is no file {tmp_path}/my_lost.py; name one that is there"):
        load(f"{tmp_path}/my_lost.py:x", "--own")


def test_names_and_files_are_told_apart() -> None:
    assert [is_own(text) for text in ("a.py:f", "a.py", "a:f", "accuracy", "accuracy-flops")] == [True] * 3 + [
        False
    ] * 2
