"""Checkpoints: round trips, what is kept, and what is passed over after a kill or damage."""

import hashlib
import itertools
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from odd_names import ODD_NAMES
from refusals import refuses

from eigen_jax.store import checkpoint
from eigen_jax.store.checkpoint import CheckpointError

ROOT = Path(__file__).resolve().parents[1]


@struct.dataclass
class Population:
    """Fields in an order that is not alphabetic, as real states have them."""

    op: jax.Array  # [G] int8
    fitness: jax.Array  # [P] float32
    alive: jax.Array  # [P] bool
    kind: str = struct.field(pytree_node=False, default="primary")


def make_tree():
    params = {"kernel": jnp.ones((3, 3, 2, 4)), "half": jnp.ones(3, jnp.bfloat16)}
    return {
        "population": Population(
            op=jnp.arange(4, dtype=jnp.int8),
            fitness=jnp.array([1.0, -jnp.inf, jnp.nan]),
            alive=jnp.array([True, False, True]),
        ),
        "opt": optax.sgd(0.1, momentum=0.9).init(params),
        "key": jax.random.key(5),
        "keys": jax.random.split(jax.random.key(6), 3),
        "host": np.arange(4, dtype=np.int16),
        "level": jnp.float32(0.3),
        "generation": 7,
        "empty": {},
    }


def files_of(step_folder: Path) -> list[Path]:
    return sorted(file for file in step_folder.rglob("*") if file.is_file())


def save_values(folder: Path, *steps: int, keep: int = 10) -> None:
    for step in steps:
        checkpoint.save(folder, step, {"state": {"value": jnp.full(4_000, float(step))}}, keep=keep)


def value_of(folder: Path, **which) -> float:
    return float(checkpoint.restore(folder, "state", **which)["value"][0])


def test_a_tree_comes_back_with_its_structure_types_and_bits(tmp_path):
    tree = make_tree()
    part = {name: tree[name] for name in ("population", "key")}
    checkpoint.save(tmp_path, 3, {"state": tree, "part": part, "count": {"generation": 7}})
    restored = checkpoint.restore(tmp_path, "state", abstract=tree)
    chex.assert_trees_all_equal_structs(restored, tree)
    for after, before in zip(jax.tree.leaves(restored), jax.tree.leaves(tree), strict=True):
        assert type(after) is type(before)
        assert jnp.result_type(after) == jnp.result_type(before)
    chex.assert_trees_all_equal(restored, tree)
    np.testing.assert_array_equal(jax.random.bits(restored["key"]), jax.random.bits(tree["key"]))
    # Shapes give arrays on the device, and no shapes dictionaries.
    restored = checkpoint.restore(tmp_path, "part", abstract=jax.eval_shape(lambda: part))
    assert isinstance(restored["population"], Population)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    chex.assert_trees_all_equal(restored, part)
    restored = checkpoint.restore(tmp_path, "part")
    np.testing.assert_array_equal(restored["population"]["op"], [0, 1, 2, 3])
    np.testing.assert_array_equal(jax.random.key_data(restored["key"]), jax.random.key_data(tree["key"]))
    assert checkpoint.restore(tmp_path, "count") == {"generation": 7}


def test_the_newest_steps_are_kept_in_numeric_order_and_leftovers_of_a_kill_are_unseen_and_cleared(tmp_path):
    save_values(tmp_path, 2, 9)
    for name in (".10.saving", ".10.saving.orbax-checkpoint-tmp", ".8.deleting"):
        shutil.copytree(tmp_path / "9", tmp_path / name)
    assert checkpoint.steps(tmp_path) == (2, 9)
    save_values(tmp_path, 10, 11, keep=2)
    assert checkpoint.steps(tmp_path) == (10, 11)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["10", "11"]
    assert value_of(tmp_path) == 11
    assert value_of(tmp_path, step=10) == 10


@pytest.mark.parametrize(
    ("step", "keep", "line"),
    [
        (6, 2, "step 6 cannot be saved: {} has step 6 already; save a later step"),
        (5, 2, "step 5 cannot be saved: {} has step 6 already; save a later step"),
        (-1, 2, "step is -1 and keep is 2; they must be at least 0 and at least 1"),
        (7, 0, "step is 7 and keep is 0; they must be at least 0 and at least 1"),
    ],
)
def test_a_step_that_cannot_be_is_refused_and_nothing_is_lost(tmp_path, step, keep, line):
    save_values(tmp_path, 4, 6)
    with refuses(CheckpointError, line.format(tmp_path)):
        save_values(tmp_path, step, keep=keep)
    assert checkpoint.steps(tmp_path) == (4, 6)
    assert value_of(tmp_path) == 6


def test_damaged_steps_are_passed_over_and_saved_anew_and_push_out_no_new_one(tmp_path):
    save_values(tmp_path, 1, 2, 3, 8, 9)
    for step in (3, 8, 9):
        largest = max(files_of(tmp_path / str(step)), key=lambda file: file.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    assert checkpoint.latest_step(tmp_path) == 2
    assert checkpoint.steps(tmp_path) == (1, 2)
    assert value_of(tmp_path) == 2
    with refuses(CheckpointError, f"step 3 in {tmp_path} is missing or damaged; the intact steps are: 1, 2"):
        value_of(tmp_path, step=3)
    save_values(tmp_path, 3, keep=2)
    assert checkpoint.steps(tmp_path) == (2, 3)
    assert value_of(tmp_path) == 3


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def test_damage_to_any_file_is_recognised(tmp_path):
    save_values(tmp_path, 1)
    assert {"manifest.json", "_METADATA", "_CHECKPOINT_METADATA"} <= {file.name for file in files_of(tmp_path / "1")}
    for file in files_of(tmp_path / "1"):
        whole = file.read_bytes()
        bits = [flipped(whole, part * (8 * len(whole) - 1) // 24) for part in range(24)] if whole else []
        for data in (*bits, whole[: len(whole) // 2], whole[:-1], whole + b"\n", b"[" * 100_000, None):
            if data is not None and data.strip() == whole.strip():
                continue  # the same, or the same JSON
            file.unlink() if data is None else file.write_bytes(data)
            assert checkpoint.latest_step(tmp_path) is None, (file, data)
        file.write_bytes(whole)
        assert checkpoint.latest_step(tmp_path) == 1


def change_digests(step: Path, change: Callable[[dict[str, str]], Any]) -> None:
    content = json.loads((step / "manifest.json").read_text())
    change(content["sha256"])
    (step / "manifest.json").write_text(json.dumps(content))


def half_deleted(step: Path) -> None:
    for file in files_of(step)[::2]:
        file.unlink()


def emptied(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "half deleted": half_deleted,
    "item deleted": lambda step: shutil.rmtree(step / "state"),
    "file added": lambda step: (step / "state" / "more").write_bytes(b""),
    "one digest less": lambda step: change_digests(step, lambda digests: digests.popitem()),
    "no digests": lambda step: change_digests(step, lambda digests: digests.clear()),
    "empty": emptied,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_files_that_are_not_those_of_the_manifest_are_damage(tmp_path, damage):
    save_values(tmp_path, 1, 2)
    damage(tmp_path / "2")
    assert checkpoint.latest_step(tmp_path) == 1
    save_values(tmp_path, 2)
    assert value_of(tmp_path) == 2


UNSOUND = [b"", b"{", b"[1]", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b'{"tree_metadata": {"a": 1}}', b'"x"']


def write_and_reseal(step: Path, file: Path, content: bytes) -> None:
    digest = {file.relative_to(step).as_posix(): hashlib.sha256(content).hexdigest()}
    file.write_bytes(content)
    change_digests(step, lambda digests: digests.update(digest))


ABSTRACT = {"value": jax.ShapeDtypeStruct((4_000,), jnp.float32)}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax leaves a coroutine waiting
@pytest.mark.parametrize(
    ("abstract", "every"),
    [(None, 3), pytest.param(None, 1, marks=pytest.mark.slow), pytest.param(ABSTRACT, 1, marks=pytest.mark.slow)],
)
def test_damage_that_the_manifest_agrees_with_gives_a_tree_or_one_line(tmp_path, abstract, every):
    save_values(tmp_path, 1)
    refused, number = 0, itertools.count()
    for file in files_of(tmp_path / "1"):
        if file.name == "manifest.json":
            continue
        whole = file.read_bytes()
        for damaged in (*UNSOUND, whole[: len(whole) // 2], whole.replace(b"value", b"valve")):
            if next(number) % every:
                continue
            write_and_reseal(tmp_path / "1", file, damaged)
            assert checkpoint.latest_step(tmp_path) == 1
            try:
                checkpoint.restore(tmp_path, "state", abstract=abstract)
            except CheckpointError as error:
                refused += str(error).isprintable()
        write_and_reseal(tmp_path / "1", file, whole)
    assert refused >= len(UNSOUND) / every
    assert value_of(tmp_path) == 1


def test_restoring_runs_nothing_that_the_files_name(tmp_path):
    save_values(tmp_path, 1)
    value_of(tmp_path)  # imports what it needs
    unpickled: list[str] | None = None  # while it is a list

    def note(event: str, arguments: tuple) -> None:
        if unpickled is not None and event in ("pickle.find_class", "marshal.loads", "exec"):
            unpickled.append(f"{event} {arguments}")

    sys.addaudithook(note)  # which stays for good
    unpickled = []
    try:
        pickle.loads(pickle.dumps(Path("x")))
        assert any(each.startswith("pickle.find_class") for each in unpickled)
        unpickled.clear()
        assert value_of(tmp_path) == 1
        assert unpickled == []
    finally:
        unpickled = None


class _Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_a_kill_before_any_change_of_names_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    save_values(tmp_path / "before", 1, 2, keep=2)
    left: list[int] = []  # changes that the kill lets through; empty where there is none

    def deadly(operation):
        def change(*arguments, **options):
            if left and left[0] == 0:
                raise _Killed
            left[:] = [each - 1 for each in left]
            return operation(*arguments, **options)

        return change

    for owner, name in ((shutil, "rmtree"), (Path, "rename"), (os, "rename"), (os, "replace")):
        monkeypatch.setattr(owner, name, deadly(getattr(owner, name)))
    for kills in itertools.count():
        folder = shutil.copytree(tmp_path / "before", tmp_path / f"run{kills}")
        left[:] = [kills]
        try:
            save_values(folder, 3, keep=2)
            break
        except _Killed:
            left.clear()
        latest = checkpoint.latest_step(folder)
        assert latest in (2, 3)
        assert value_of(folder) == latest
        save_values(folder, 4, keep=2)
        assert sorted(entry.name for entry in folder.iterdir()) == [str(latest), "4"]
    assert kills > 3


SAVING_THREADS = """
import sys, threading
import jax.numpy as jnp
from eigen_jax.store import (checkpoint)

def work(folder):
    for step in range(1, 5):
        checkpoint.save(folder, step, {"state": {"value": jnp.full(4_000, float(step))}})
        assert checkpoint.restore(folder, "state")["value"][0] == step

threads = [threading.Thread(target=work, args=(f"{sys.argv[1]}/{name}",)) for name in "abc"]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_threads_that_save_and_restore_at_once_do_not_wait_for_each_other_forever(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", SAVING_THREADS, str(tmp_path)], env=environment, timeout=60, check=True)
    assert [checkpoint.latest_step(tmp_path / name) for name in "abc"] == [4, 4, 4]
    assert [value_of(tmp_path / name) for name in "abc"] == [4, 4, 4]


SAVER = """
import itertools, sys
import jax.numpy as jnp
from eigen_jax.store import (checkpoint)
for step in itertools.count(1):
    checkpoint.save(sys.argv[1], step, {"state": {"value": jnp.full(200_000, float(step))}}, keep=2)
    print(step, flush=True)
"""


@pytest.mark.slow  # Quick: the test before.
@pytest.mark.parametrize("delay", [0.0, 0.03, 0.07])
def test_sigkill_at_any_moment_leaves_a_whole_checkpoint(tmp_path, delay):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SAVER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(3)]
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        done += [int(line) for line in process.stdout.read().split()]
    latest = checkpoint.latest_step(tmp_path)
    assert latest in (done[-1], done[-1] + 1)
    np.testing.assert_array_equal(checkpoint.restore(tmp_path, "state")["value"], np.full(200_000, float(latest)))


def test_what_is_not_there_or_has_another_form_or_cannot_be_saved_gets_one_line(tmp_path):
    folder = tmp_path / "none"
    assert checkpoint.latest_step(folder) is None
    assert checkpoint.steps(folder) == ()
    with refuses(CheckpointError, f"{folder} holds no intact checkpoint; start the run anew, or name another folder"):
        checkpoint.restore(folder, "state")
    save_values(folder, 1)
    with refuses(CheckpointError, f"step 1 in {folder} holds no 'network'; it holds: state"):
        checkpoint.restore(folder, "network")
    for abstract in ({"value": jax.ShapeDtypeStruct((3,), jnp.float32)}, {"other": ABSTRACT["value"]}, {}):
        with pytest.raises(CheckpointError, match=r"^'state' of step 1 in .* has another form: [^\n]+$"):
            checkpoint.restore(folder, "state", abstract=abstract)
    with pytest.raises(CheckpointError, match=r"^step 2 cannot be saved in [^\n]+$"):
        checkpoint.save(folder, 2, {"state": {"name": "text"}})
    assert checkpoint.steps(folder) == (1,)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match=r"^step 1 cannot be saved in .*file: [^\n]+$"):
        save_values(tmp_path / "file", 1)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_may_have_any_name(tmp_path, name):
    folder = tmp_path / name / "run"
    checkpoint.save(folder, 0, {"state": {"value": jnp.arange(3)}, "seconds": {"training": 0.5}})
    assert checkpoint.steps(folder) == (0,)
    assert checkpoint.restore(folder, "state")["value"].tolist() == [0, 1, 2]
    assert checkpoint.restore(folder, "seconds") == {"training": 0.5}


@pytest.fixture
def folder_that_orbax_reads_as_a_pattern(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_PLAIN_PATH", re.compile(".*"))
    return tmp_path / "run [1]"


def test_a_save_that_cannot_be_read_back_is_none(folder_that_orbax_reads_as_a_pattern, tmp_path):
    folder = folder_that_orbax_reads_as_a_pattern
    save_values(tmp_path / "run", 1)
    shutil.move(tmp_path / "run", folder)
    with pytest.raises(CheckpointError, match=r"^step 2 cannot be saved in .*run \[1\]: [^\n]+$"):
        save_values(folder, 2)
    assert [entry.name for entry in folder.iterdir()] == ["1"]
    assert checkpoint.steps(folder) == (1,)


def test_a_save_that_was_never_joined_is_passed_over_whatever_its_manifest_says(
    folder_that_orbax_reads_as_a_pattern, monkeypatch
):
    folder = folder_that_orbax_reads_as_a_pattern
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "is_same", lambda *_: True)
        patch.setattr(checkpoint, "_read", lambda _, items: items)
        save_values(folder, 0, 1)
    assert sorted(entry.name for entry in folder.iterdir()) == ["0", "1"]
    assert checkpoint.steps(folder) == ()
    assert checkpoint.latest_step(folder) is None
