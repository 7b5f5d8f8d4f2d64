"""The examples in docs/examples: each a diff that adds one file to a fresh clone, and that runs."""

import json
import os
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eigen_jax.fitness import Measurement
from eigen_jax.training import TrainConfig, make_optimizer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.diff"), key=lambda diff: diff.name)
# Runs each file as a script does, and tells what it printed or raised.
RUN_ALL = """
    import contextlib, io, json, runpy, sys, traceback
    told = {}
    for file in sys.argv[1:]:
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            try:
                runpy.run_path(file, run_name="__main__")
            except BaseException:
                traceback.print_exc(file=shown)
                shown.write("failed")
        told[file] = shown.getvalue()
    print(json.dumps(told))
"""


def applied(diff: Path, folder: Path) -> Path:
    """The one file that a diff adds."""
    before = set(folder.iterdir())
    subprocess.run(["git", "apply", str(diff)], cwd=folder, check=True)
    (file,) = set(folder.iterdir()) - before
    return file


def run_all(files: list[Path], folder: Path, **environment: str) -> dict[str, str]:
    """What the scripts print, or their tracebacks, by their names."""
    names = [file.name for file in files]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", textwrap.dedent(RUN_ALL), *names]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def load(name: str, folder: Path) -> dict[str, Any]:
    """What a file defines that an example adds."""
    return runpy.run_path(str(applied(ROOT / "docs" / "examples" / f"{name}.diff", folder)))


@pytest.mark.parametrize("diff", EXAMPLES, ids=lambda diff: diff.stem)
def test_an_example_adds_one_short_file_that_says_how_it_is_run(diff, tmp_path):
    file = applied(diff, tmp_path)
    assert file.name == f"{diff.stem}.py"
    text = file.read_text()
    assert len(text.splitlines()) < 90
    assert max(map(len, text.splitlines())) <= 120
    assert re.search(rf"^    python {file.name}$", text, re.MULTILINE)
    assert 'if __name__ == "__main__":' in text


@pytest.mark.slow
def test_every_example_runs(tmp_path):
    files = [applied(diff, tmp_path) for diff in EXAMPLES]
    told = run_all(files, tmp_path)
    assert {name: text for name, text in told.items() if not re.search(r"accuracy \d+\.\d%\n\Z", text)} == {}
    assert len(told) == len(EXAMPLES) >= 5


def test_the_fitness_of_the_example_is_less_the_logarithm_of_the_parameters(tmp_path):
    fitness = load("accuracy_minus_parameters", tmp_path)["accuracy_minus_parameters"]
    measured = [Measurement(accuracy=0.9, parameters=count, flops=1) for count in (1_000, 1_000_000)]
    np.testing.assert_allclose(list(map(fitness, measured)), [0.9 - 0.0690776, 0.9 - 0.1381551], atol=1e-6)


def test_the_optimizer_of_the_example_is_adamw_along_a_cosine(tmp_path):
    config = TrainConfig(
        optimizer=load("adamw_cosine", tmp_path)["adamw_cosine"], learning_rate=0.01, decay_steps=(2, 8)
    )
    parameters = {"kernel": jnp.full(1, 2.0)}
    with jax.numpy_dtype_promotion("standard"):
        optimizer = make_optimizer(config)
        state = optimizer.init(parameters)
        for step in range(10):
            updates, state = optimizer.update({"kernel": jnp.ones(1)}, state, parameters)
            # Of a gradient that is always 1, both moments are 1, but for epsilon.
            rate = 0.01 * (1 + np.cos(np.pi * min(step / 8, 1))) / 2
            value = float(parameters["kernel"][0])
            np.testing.assert_allclose(updates["kernel"], -rate * (1 + 5e-4 * value), rtol=1e-4, atol=1e-8)
            parameters = optax.apply_updates(parameters, updates)


@pytest.mark.slow
def test_pmap_on_eight_simulated_devices_comes_to_what_one_does(tmp_path):
    file = applied(ROOT / "docs" / "examples" / "pmap_training.diff", tmp_path)
    told = []
    for devices in (1, 8):
        (text,) = run_all([file], tmp_path, XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}").values()
        told.append([float(number) for number in re.findall(r"\d+\.\d+", text)])
    np.testing.assert_allclose(told[1], told[0], rtol=1e-2)
    assert told[0][0] < 0.5
    assert told[0][1] > 85
