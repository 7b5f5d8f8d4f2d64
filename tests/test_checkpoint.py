"""Checkpoints: round trips, what is kept, and what is passed over after a kill or damage."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from eigen_jax import checkpoint
from eigen_jax.checkpoint import CheckpointError


@struct.dataclass
class Population:
    """Fields in an order that is not alphabetic, as real states have them."""

    op: jax.Array  # [G] int8
    fitness: jax.Array  # [P] float32
    alive: jax.Array  # [P] bool
    kind: str = struct.field(pytree_node=False, default="primary")


def make_tree(value: float = 1.0):
    params = {"kernel": jnp.full((3, 3, 2, 4), value), "half": jnp.full(3, value, jnp.bfloat16)}
    return {
        "population": Population(
            op=jnp.arange(4, dtype=jnp.int8),
            fitness=jnp.array([value, -jnp.inf, jnp.nan]),
            alive=jnp.array([True, False, True]),
        ),
        "opt": optax.sgd(0.1, momentum=0.9).init(params),
        "key": jax.random.key(5),
        "keys": jax.random.split(jax.random.key(6), 3),
        "host": np.arange(4, dtype=np.int16),
        "level": jnp.float32(value),
        "generation": 7,
        "empty": {},
    }


def largest_data_file(step_folder: Path) -> Path:
    return max((file for file in step_folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def save_values(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, {"state": {"value": jnp.full(4_000, float(step))}}, keep=10)


def value_of(folder: Path, **which) -> float:
    return float(checkpoint.restore(folder, "state", **which)["value"][0])


def test_a_tree_comes_back_with_its_structure_types_and_bits(tmp_path):
    tree = make_tree()
    checkpoint.save(tmp_path, 3, {"state": tree, "network": {"w": jnp.ones(2)}})
    restored = checkpoint.restore(tmp_path, "state", abstract=tree)
    chex.assert_trees_all_equal_structs(restored, tree)
    for after, before in zip(jax.tree.leaves(restored), jax.tree.leaves(tree), strict=True):
        assert type(after) is type(before)
        assert jnp.result_type(after) == jnp.result_type(before)
    chex.assert_trees_all_equal(restored, tree)
    np.testing.assert_array_equal(jax.random.bits(restored["key"]), jax.random.bits(tree["key"]))
    np.testing.assert_array_equal(checkpoint.restore(tmp_path, "network")["w"], [1.0, 1.0])


def test_an_abstract_tree_of_shapes_gives_arrays_on_the_device(tmp_path):
    tree = {"population": make_tree()["population"], "key": jax.random.key(5)}
    checkpoint.save(tmp_path, 0, {"state": tree})
    restored = checkpoint.restore(tmp_path, "state", abstract=jax.eval_shape(lambda: tree))
    assert isinstance(restored["population"], Population)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    chex.assert_trees_all_equal(restored, tree)


def test_a_tree_as_saved_has_dictionaries_for_dataclasses(tmp_path):
    checkpoint.save(tmp_path, 0, {"state": make_tree()})
    restored = checkpoint.restore(tmp_path, "state")
    np.testing.assert_array_equal(restored["population"]["op"], [0, 1, 2, 3])
    np.testing.assert_array_equal(jax.random.key_data(restored["key"]), jax.random.key_data(jax.random.key(5)))
    assert restored["generation"] == 7


def test_the_newest_steps_are_kept_in_numeric_order(tmp_path):
    for step in (2, 9, 10, 11):
        checkpoint.save(tmp_path, step, {"state": {"value": jnp.full(3, float(step))}}, keep=2)
    assert checkpoint.steps(tmp_path) == (10, 11)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["10", "11"]
    assert value_of(tmp_path) == 11
    assert value_of(tmp_path, step=10) == 10


def test_a_step_that_is_not_later_is_refused_and_nothing_is_lost(tmp_path):
    save_values(tmp_path, 4, 6)
    for step in (6, 5):
        with pytest.raises(
            CheckpointError, match=rf"^step {step} cannot be saved: .* has step 6 already; save a later"
        ):
            save_values(tmp_path, step)
    assert checkpoint.steps(tmp_path) == (4, 6)
    assert value_of(tmp_path) == 6


def flip_a_bit(step_folder: Path) -> None:
    file = largest_data_file(step_folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(step_folder: Path) -> None:
    file = largest_data_file(step_folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def delete_half(step_folder: Path) -> None:
    files = sorted(file for file in step_folder.rglob("*") if file.is_file())
    for file in files[::2]:
        file.unlink()


def delete_an_item(step_folder: Path) -> None:
    shutil.rmtree(step_folder / "state")


def delete_the_manifest(step_folder: Path) -> None:
    (step_folder / "manifest.json").unlink()


def garble_the_manifest(step_folder: Path) -> None:
    (step_folder / "manifest.json").write_text("[1, 2")


def flip_a_bit_of_the_manifest(step_folder: Path) -> None:
    data = bytearray((step_folder / "manifest.json").read_bytes())
    data[data.index(b'": "') + 10] ^= 1
    (step_folder / "manifest.json").write_bytes(data)


def nest_the_manifest(step_folder: Path) -> None:
    (step_folder / "manifest.json").write_text("[" * 100_000)


def shorten_the_manifest(step_folder: Path) -> None:
    rewrite_manifest(step_folder, lambda digests: digests.popitem())


def empty_the_manifest(step_folder: Path) -> None:
    rewrite_manifest(step_folder, lambda digests: digests.clear())


def rewrite_manifest(step_folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    content = json.loads((step_folder / "manifest.json").read_text())
    change(content["sha256"])
    (step_folder / "manifest.json").write_text(json.dumps(content))


def add_a_file(step_folder: Path) -> None:
    (step_folder / "state" / "more").write_bytes(b"")


def empty(step_folder: Path) -> None:
    shutil.rmtree(step_folder)
    step_folder.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        truncate,
        delete_half,
        delete_an_item,
        delete_the_manifest,
        garble_the_manifest,
        flip_a_bit_of_the_manifest,
        nest_the_manifest,
        shorten_the_manifest,
        empty_the_manifest,
        add_a_file,
        empty,
    ],
)
def test_damaged_steps_are_passed_over_and_saved_anew(tmp_path, damage):
    save_values(tmp_path, 1, 2, 3)
    damage(tmp_path / "3")

    assert checkpoint.latest_step(tmp_path) == 2
    assert checkpoint.steps(tmp_path) == (1, 2)
    assert value_of(tmp_path) == 2
    with pytest.raises(CheckpointError, match=r"^step 3 in .* is missing or damaged; the intact steps are: 1, 2$"):
        value_of(tmp_path, step=3)

    save_values(tmp_path, 3)
    assert checkpoint.steps(tmp_path) == (1, 2, 3)
    assert value_of(tmp_path) == 3


def test_damage_to_any_file_is_recognised(tmp_path):
    save_values(tmp_path, 1)
    files = [file for file in (tmp_path / "1").rglob("*") if file.is_file()]
    assert {"manifest.json", "_METADATA", "_CHECKPOINT_METADATA"} <= {file.name for file in files}
    for file in files:
        whole = file.read_bytes()
        flipped = [bytearray(whole) for _ in range(min(24, 8 * len(whole)))]
        for number, data in enumerate(flipped):
            bit = number * (8 * len(whole) - 1) // len(flipped)
            data[bit // 8] ^= 1 << bit % 8
        for data in (*flipped, whole[: len(whole) // 2], whole[:-1], whole + b"\n", None):
            if data is not None and data.strip() == whole.strip():
                continue  # the same, or the same JSON
            file.unlink() if data is None else file.write_bytes(data)
            assert checkpoint.latest_step(tmp_path) is None, (file, data)
        file.write_bytes(whole)
        assert checkpoint.latest_step(tmp_path) == 1


UNSOUND = [b"", b"{", b"[1]", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b'{"tree_metadata": {"a": 1}}', b'"x"']


def reseal(step_folder: Path, name: str, content: bytes) -> None:
    rewrite_manifest(step_folder, lambda digests: digests.update({name: hashlib.sha256(content).hexdigest()}))


def is_refused(folder: Path, abstract: dict | None) -> bool:
    try:
        checkpoint.restore(folder, "state", abstract=abstract)
    except CheckpointError as error:
        return str(error).isprintable()
    return False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax leaves a coroutine waiting
@pytest.mark.parametrize("abstract", [None, {"value": jax.ShapeDtypeStruct((4_000,), jnp.float32)}])
def test_damage_that_the_manifest_agrees_with_gives_a_tree_or_one_line(tmp_path, abstract):
    save_values(tmp_path, 1)
    refused = 0
    for file in [file for file in (tmp_path / "1").rglob("*") if file.is_file() and file.name != "manifest.json"]:
        whole, name = file.read_bytes(), file.relative_to(tmp_path / "1").as_posix()
        for damaged in (*UNSOUND, whole[: len(whole) // 2], whole.replace(b"value", b"valve")):
            file.write_bytes(damaged)
            reseal(tmp_path / "1", name, damaged)
            assert checkpoint.latest_step(tmp_path) == 1
            refused += is_refused(tmp_path, abstract)
        file.write_bytes(whole)
        reseal(tmp_path / "1", name, whole)
    assert refused >= len(UNSOUND)
    assert value_of(tmp_path) == 1


UNPICKLED: list[str] | None = None  # what was unpickled while it is a list


def note_unpickling(event: str, arguments: tuple) -> None:
    if UNPICKLED is not None and event in ("pickle.find_class", "marshal.loads", "exec"):
        UNPICKLED.append(f"{event} {arguments}")


def test_restoring_runs_nothing_that_the_files_name(tmp_path):
    global UNPICKLED
    save_values(tmp_path, 1)
    value_of(tmp_path)  # imports what it needs
    sys.addaudithook(note_unpickling)
    UNPICKLED = []
    try:
        pickle.loads(pickle.dumps(Path("x")))
        assert any(each.startswith("pickle.find_class") for each in UNPICKLED)
        UNPICKLED.clear()
        assert value_of(tmp_path) == 1
        assert UNPICKLED == []
    finally:
        UNPICKLED = None


def test_damaged_newer_steps_do_not_push_out_a_new_one(tmp_path):
    save_values(tmp_path, 1, 8, 9)
    for step in (8, 9):
        truncate(tmp_path / str(step))
    checkpoint.save(tmp_path, 2, {"state": {"value": jnp.full(3, 2.0)}}, keep=2)
    assert checkpoint.steps(tmp_path) == (1, 2)


def test_leftovers_of_a_kill_are_unseen_and_cleared(tmp_path):
    save_values(tmp_path, 1)
    for name in (".2.saving", ".2.saving.orbax-checkpoint-tmp", ".0.deleting"):
        shutil.copytree(tmp_path / "1", tmp_path / name)
    assert checkpoint.steps(tmp_path) == (1,)
    save_values(tmp_path, 2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1", "2"]


SAVER = """
import sys
import jax.numpy as jnp
from eigen_jax import checkpoint
step = 0
while True:
    step += 1
    checkpoint.save(sys.argv[1], step, {"state": {"value": jnp.full(200_000, float(step))}}, keep=2)
    print(step, flush=True)
"""


def test_sigkill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(checkpoint.__file__).parents[1])}
    for trial, delay in enumerate((0.0, 0.03, 0.07)):
        folder = tmp_path / str(trial)
        command = [sys.executable, "-c", SAVER, str(folder)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            done = [int(process.stdout.readline()) for _ in range(3)]
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            done += [int(line) for line in process.stdout.read().split()]
        latest = checkpoint.latest_step(folder)
        assert latest in (done[-1], done[-1] + 1)
        np.testing.assert_array_equal(checkpoint.restore(folder, "state")["value"], np.full(200_000, float(latest)))


def test_nothing_to_restore_gets_one_line(tmp_path):
    assert checkpoint.latest_step(tmp_path / "none") is None
    assert checkpoint.steps(tmp_path / "none") == ()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(tmp_path / "none", "state")
    assert str(caught.value) == (
        f"{tmp_path / 'none'} holds no intact checkpoint; start the run anew, or name another folder"
    )


def test_an_item_that_is_not_there_gets_one_line(tmp_path):
    save_values(tmp_path, 1)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(tmp_path, "network")
    assert str(caught.value) == f"step 1 in {tmp_path} holds no 'network'; it holds: state"


@pytest.mark.parametrize(
    "abstract",
    [{"value": jax.ShapeDtypeStruct((3,), jnp.float32)}, {"other": jax.ShapeDtypeStruct((4_000,), jnp.float32)}, {}],
    ids=["shape", "name", "empty"],
)
def test_another_structure_gets_one_line(tmp_path, abstract):
    save_values(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"^'state' of step 1 in .* has another form: [^\n]+$"):
        checkpoint.restore(tmp_path, "state", abstract=abstract)


def test_a_folder_that_cannot_be_written_gets_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match=r"^step 1 cannot be saved in .*file: [^\n]+$"):
        save_values(tmp_path / "file", 1)


def test_leaves_that_cannot_be_saved_get_one_line_and_nothing_is_lost(tmp_path):
    save_values(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"^step 2 cannot be saved in [^\n]+$"):
        checkpoint.save(tmp_path, 2, {"state": {"name": "text"}})
    assert checkpoint.steps(tmp_path) == (1,)


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (0, 0)])
def test_steps_and_counts_that_cannot_be_get_one_line(tmp_path, step, keep):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(tmp_path, step, {"state": {"value": jnp.ones(2)}}, keep=keep)
    assert str(caught.value) == f"step is {step} and keep is {keep}; they must be at least 0 and at least 1"
