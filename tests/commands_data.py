"""What the tests of commands share: settings that are quick, run folders that are made once, the line of bad input."""

import contextlib
import dataclasses
import io
import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np
import pytest

from eigen_jax.architecture import Architecture, Layer, to_json
from eigen_jax.builder import Network
from eigen_jax.lineage import Individual
from experiments import baseline, evaluate, process, retrain, runner, teacher, trained
from experiments.commands import BAD_INPUT
from experiments.reproduce import __main__ as reproduce_command
from experiments.settings import FLAGS, Settings

NETWORK = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=1),))

# The same for all, as is the network that the seed finds: what one test compiles serves the others.
SIZES = ("--preset", "smoke", "--channels", "4", "8", "--eval-batch-size", "360", "--decay-steps")
SEARCH = (
    *(*SIZES, "--executor", "inline", "--population", "2", "--p", "2", "--q", "2", "--capacity", "8"),
    *("--t1", "4", "--t2", "4", "--t3", "4", "--final-steps", "4", "--primary-steps", "1"),
    *("--max-primary-generations", "1", "--max-secondary-generations", "0"),
)
SEED = 7  # its first children are convolutions, so that there is a block to duplicate, and equal
TRAINING = (*SIZES, "--dataset", "digits", "--t1", "1", "--t2", "1", "--t3", "1", "--final-steps", "6")


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with other values of some, by the names of their flags, with underscores."""
    parts: dict[tuple[str, ...], dict[str, Any]] = {}
    for flag in FLAGS.values():
        if flag.name in values:
            parts.setdefault(flag.path[:-1], {})[flag.path[-1]] = values[flag.name]
    assert sum(map(len, parts.values())) == len(values), f"{sorted(values)} are not all settings"

    def changed(config: Any, path: tuple[str, ...]) -> Any:
        below = {each[len(path)] for each in parts if each[: len(path)] == path and len(each) > len(path)}
        made = {name: changed(getattr(config, name), (*path, name)) for name in below}
        return dataclasses.replace(config, **parts.get(path, {}), **made)

    return changed(settings, ())


def leave_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands set up neither logging nor JAX: the process is that of the tests. To be a module's fixture."""
    for module in (baseline, evaluate, retrain, teacher, trained, reproduce_command):
        monkeypatch.setattr(module, "configure", lambda settings: settings)
    monkeypatch.setattr(process, "configure_logging", lambda: None)
    monkeypatch.setattr(process, "keep_compiled", lambda cache_dir: None)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], int]) -> Path:
    """A folder that a command of one of pytest-xdist's processes makes, and that all of them read and none changes."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / name
    with filelock.FileLock(root / f"{name}.lock"):
        if not (root / f"{name}.made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as shown:
                leave_process_alone(patch)
                assert make(folder) == 0
            (folder / "shown").write_text(shown.getvalue())
            (root / f"{name}.made").touch()
    return folder


def finished_search(factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a whole search in `run-dir`, what it showed in `shown`, and the logits it mimicked."""
    return made_once(factory, "search", lambda folder: runner.main("digits", [*search_argv(folder), *places(folder)]))


def search_argv(folder: Path) -> list[str]:
    """The options of a search that mimics logits, which lie in a folder."""
    return [*SEARCH, f"--seed={SEED}", f"--teacher-logits={write_logits(folder, 1_200)}"]


def write_logits(folder: Path, images: int) -> Path:
    """A file with logits of the digits, where there is none yet."""
    path = folder / "logits.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(0).normal(size=(images, 10)).astype(np.float32))
    return path


def trained_network(factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a training in `run-dir`, and its genome.json."""
    return made_once(factory, "training", train)


def train(folder: Path, *argv: str, architecture: Architecture = NETWORK) -> int:
    """Trains a network, with all that is written in one folder."""
    (folder / "genome.json").write_text(to_json(architecture))
    if "--teacher-logits" not in argv:
        argv = ("--teacher", "none", *argv)
    return retrain.main([str(folder / "genome.json"), *TRAINING, *places(folder), *argv])


def ran(monkeypatch, module: str, *argv: str) -> object:
    """The exit code of `python -m experiments.<module>`, in this process."""
    monkeypatch.setattr(sys, "argv", [module, *argv])
    monkeypatch.delitem(sys.modules, f"experiments.{module}.__main__", raising=False)  # which a test may have imported
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"experiments.{module}", run_name="__main__")
    return ended.value.code


def watch_dtypes(patch: pytest.MonkeyPatch) -> set[str]:
    """The dtypes that networks compute in from here on, as their programs are traced."""
    seen: set[str] = set()
    apply = Network.apply

    def watched_apply(network: Network, *arguments: Any, **options: Any) -> Any:
        seen.add(np.dtype(network.dtype).name)
        return apply(network, *arguments, **options)

    patch.setattr(Network, "apply", watched_apply)
    return seen


def float_dtypes(tree: Any) -> set[str]:
    """Of the floating-point leaves of a tree."""
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree) if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)}


def places(folder: Path) -> list[str]:
    """All folders of a run, in one that is the test's."""
    return [f"--{name}={folder / name}" for name in ("run-dir", "cache-dir", "teacher-dir")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Changes what a JSON file holds."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def found(best: Individual) -> dict[str, Any]:
    """What result.json says of the network found."""
    return {
        "individual": {"generation": best.generation, "index": best.index},
        "fingerprint": best.fingerprint,
        "layers": len(best.architecture.layers),
        "parameters": best.parameters,
        "flops": best.flops,
    }


def refused(
    capsys: pytest.CaptureFixture[str], command: Callable[[Sequence[str]], int], *argv: str, quiet: bool = True
) -> str:
    """The one line that bad input gets, before anything is shown if `quiet`."""
    capsys.readouterr()
    assert command(argv) == BAD_INPUT
    shown, error = capsys.readouterr()
    assert not (quiet and shown)
    (line,) = re.findall(r"\Aerror: ([^\n]+)\n\Z", error)
    return line
