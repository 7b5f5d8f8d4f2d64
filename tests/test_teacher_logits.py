"""Cached logits: equal to asking the teacher, kept on disk, and built again when damaged."""

import logging
from typing import Any

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from teacher_data import CLASSES, SHAPE, make_dataset, make_teacher

from eigen_jax.data import apply_views
from eigen_jax.teacher import (
    CachedLogits,
    MappedLogits,
    TeacherError,
    cache_logits,
    logits_cost,
    measure_rate,
    read_logits,
)
from eigen_jax.training import TrainConfig, init_state, train_to

PAD = 2
VIEWS = 50  # (2 * 2 + 1)**2 crops, flipped or not
COUNT = 7


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(5).normal(size=(COUNT, *SHAPE)), jnp.float32)


@pytest.fixture(scope="module")
def teacher():
    return make_teacher()


def build(teacher, images, folder, **changes):
    arguments = {
        "data_fingerprint": "data",
        "num_classes": CLASSES,
        "pad": PAD,
        "flip": True,
        "cache_dir": folder,
        "batch_size": 64,
    }
    return cache_logits(teacher, images, **arguments | changes)


def reference_logits(teacher, image, view, pad=PAD):
    """The mean logits of one view in NumPy float64, cropped and flipped by hand."""
    offset, flipped = divmod(view, 2)
    top, left = divmod(offset, 2 * pad + 1)
    seen = np.pad(np.asarray(image, np.float64), ((pad, pad), (pad, pad), (0, 0)))[top:, left:][: SHAPE[0], : SHAPE[1]]
    pixels = (seen[:, ::-1] if flipped else seen).reshape(-1)
    logits = np.zeros(CLASSES)
    for variables in teacher.variables:
        dense = variables["params"]["Dense_0"]
        logits += pixels @ np.asarray(dense["kernel"], np.float64) + np.asarray(dense["bias"], np.float64)
    return logits / len(teacher.variables)


def ask(cached, pairs):
    examples, views = (jnp.asarray(each, jnp.int32) for each in zip(*pairs, strict=True))
    return np.asarray(cached(examples, views, jnp.zeros((len(pairs), *SHAPE))))


@pytest.mark.parametrize("batch_size", [25, 64, 1_000])
def test_every_view_of_every_image_has_its_logits(teacher, images, tmp_path, batch_size):
    cached = build(teacher, images, tmp_path, batch_size=batch_size)
    assert (cached.logits.shape, cached.logits.dtype) == ((COUNT, VIEWS, CLASSES), jnp.float16)
    pairs = [(example, view) for example in range(COUNT) for view in range(VIEWS)]
    expected = [reference_logits(teacher, images[example], view) for example, view in pairs]
    np.testing.assert_allclose(ask(cached, pairs), expected, rtol=2**-10, atol=1e-5)


@pytest.mark.parametrize("pad", [0, PAD])
@pytest.mark.parametrize(
    ("views", "flip", "slots"), [("all", True, 2), ("all", False, 1), ("center", True, 2), ("center", False, 1)]
)
def test_a_view_finds_the_logits_of_its_set(teacher, images, tmp_path, views, flip, slots, pad):
    cached = build(teacher, images, tmp_path, views=views, flip=flip, pad=pad)
    crops = (2 * pad + 1) ** 2
    assert cached.logits.shape == (COUNT, slots * (crops if views == "all" else 1), CLASSES)
    centre = 24 if pad else 0  # of 5 x 5 offsets, the one in row 2 and column 2, not flipped
    for view in range(0, 2 * crops, 1 if flip else 2):
        answering = view if views == "all" else centre + view % 2
        expected = reference_logits(teacher, images[3], answering, pad)
        np.testing.assert_allclose(ask(cached, [(3, view)])[0], expected, rtol=2**-10, atol=1e-5)


def test_mapped_logits_are_those_on_the_device(teacher, images, tmp_path):
    on_device = build(teacher, images, tmp_path)
    mapped = build(teacher, images, tmp_path, device_bytes=on_device.logits.nbytes - 1)
    assert isinstance(on_device, CachedLogits)
    assert isinstance(mapped, MappedLogits)
    assert isinstance(mapped.logits, np.memmap)
    assert mapped.fingerprint == on_device.fingerprint
    pairs = [(example, view) for example in range(COUNT) for view in range(VIEWS)]
    assert ask(mapped, pairs).dtype == np.float16
    np.testing.assert_array_equal(ask(mapped, pairs), ask(on_device, pairs))


def test_cached_logits_are_looked_up_inside_of_traced_functions(teacher, images, tmp_path):
    cached = build(teacher, images, tmp_path)
    examples, views = jnp.array([2, 6, 0]), jnp.array([49, 0, 24])
    seen = apply_views(images[examples], views, pad=PAD)

    @jax.jit
    def scanned(cached):
        return jax.lax.scan(lambda carry, at: (carry, cached(*at)), None, (examples[:, None], views[:, None], seen))[1]

    np.testing.assert_array_equal(scanned(cached)[:, 0], cached(examples, views, seen))


def test_an_example_that_is_not_there_has_no_logits(teacher, images, tmp_path):
    cached = build(teacher, images, tmp_path)
    assert np.isnan(ask(cached, [(COUNT, 0)])).all()
    with pytest.raises(IndexError):
        ask(build(teacher, images, tmp_path, device_bytes=0), [(COUNT, 0)])


class Student(nn.Module):
    """One convolution with batch normalisation."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (3, 3), use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(CLASSES)(x.mean(axis=(1, 2)))


def test_cached_and_live_teachers_give_the_same_student(tmp_path):
    dataset, teacher = make_dataset(), make_teacher()
    config = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=PAD)
    losses: dict[str, list[float]] = {}
    states: dict[str, Any] = {}
    cached = build(teacher, dataset.train_images, tmp_path)
    mapped = build(teacher, dataset.train_images, tmp_path, device_bytes=0)
    for name, whom in {"live": teacher, "cached": cached, "mapped": mapped, "none": None}.items():
        state = init_state(jax.random.key(1), network=Student(), config=config, input_shape=SHAPE)
        losses[name] = []
        for step in range(1, 51):
            state, report = train_to(
                jax.random.key(2), state, dataset, step, network=Student(), config=config, teacher=whom
            )
            losses[name].append(report.loss)
        states[name] = state.params
    np.testing.assert_allclose(losses["cached"], losses["live"], rtol=1e-3)
    np.testing.assert_array_equal(losses["mapped"], losses["cached"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), states["cached"], states["live"])
    jax.tree.map(np.testing.assert_array_equal, states["mapped"], states["cached"])
    assert abs(losses["none"][-1] / losses["live"][-1] - 1) > 0.1  # the teacher does matter


class Forbidden:
    """Fails where logits are computed, which a cache that is hit never does."""

    def __call__(self, done, total):
        raise AssertionError("computed again")


def stored(folder, suffix):
    (path,) = (folder / "teacher-logits").glob(f"*.{suffix}")
    return path


def test_logits_are_computed_once(teacher, images, tmp_path):
    told = []
    first = build(
        teacher,
        images,
        tmp_path,
        on_start=lambda cost, rate: told.append((cost, rate)),
        on_progress=lambda *counts: told.append(counts),
    )
    cost, rate = told[0]
    assert (cost.images, cost.views, cost.forward_passes) == (COUNT, VIEWS, COUNT * VIEWS)
    assert cost.bytes == first.logits.nbytes
    assert rate > 0
    assert told[1:] == [(min(done, 350), 350) for done in range(64, 400, 64)]
    again = build(teacher, images, tmp_path, on_progress=Forbidden(), on_start=Forbidden())
    np.testing.assert_array_equal(again.logits, first.logits)
    assert again.fingerprint == first.fingerprint
    assert {path.suffix for path in (tmp_path / "teacher-logits").iterdir()} == {".npy", ".json", ".lock"}


def test_the_key_is_of_all_that_the_logits_depend_on(teacher, images, tmp_path):
    changes: list[dict[str, Any]] = [
        {},
        {"data_fingerprint": "other"},
        {"pad": 1},
        {"flip": False},
        {"views": "center"},
        {"views": "center", "flip": False},
    ]
    fingerprints = {build(teacher, images, tmp_path, **change).fingerprint for change in changes}
    fingerprints.add(build(teacher, images[:5], tmp_path).fingerprint)
    fingerprints.add(build(make_teacher(scale=2.0), images, tmp_path).fingerprint)
    assert len(fingerprints) == len(changes) + 2


def cut(folder):
    path = stored(folder, "npy")
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(folder):
    path = stored(folder, "npy")
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip_a_bit,
        lambda folder: stored(folder, "json").unlink(),
        lambda folder: stored(folder, "json").write_text("{"),
        lambda folder: stored(folder, "json").write_text("[]"),
        lambda folder: stored(folder, "npy").write_bytes(b""),
    ],
)
def test_a_damaged_cache_is_told_and_built_again(teacher, images, tmp_path, damage, caplog):
    before = build(teacher, images, tmp_path).logits
    damage(tmp_path)
    with caplog.at_level(logging.INFO, "eigen_jax"):
        after = build(teacher, images, tmp_path)
    assert [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()] == [
        f"cached logits {stored(tmp_path, 'npy')} are unfinished or damaged; they are computed again"
    ]
    np.testing.assert_array_equal(after.logits, before)
    build(teacher, images, tmp_path, on_progress=Forbidden())


def test_what_killed_processes_left_is_cleared_away(teacher, images, tmp_path):
    folder = tmp_path / "teacher-logits"
    folder.mkdir()
    (folder / "dead.npy.partial").write_bytes(b"half")
    (folder / "alive.npy.partial").write_bytes(b"half")
    with filelock.FileLock(folder / "alive.lock"):
        build(teacher, images, tmp_path)
    assert [path.name for path in folder.glob("*.partial")] == ["alive.npy.partial"]


def test_an_interrupted_build_leaves_nothing_that_counts(teacher, images, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(teacher, images, tmp_path, on_progress=stop)
    assert [path.suffix for path in (tmp_path / "teacher-logits").iterdir()] == [".lock"]
    expected = build(teacher, images, tmp_path / "elsewhere").logits
    np.testing.assert_array_equal(build(teacher, images, tmp_path).logits, expected)


def test_a_folder_that_cannot_be_written_costs_a_warning(teacher, images, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.INFO, "eigen_jax"):
        cached = build(teacher, images, tmp_path / "file")
    assert ["cannot hold the teacher's logits" in record.getMessage() for record in caplog.records] == [True]
    np.testing.assert_array_equal(cached.logits, build(teacher, images, tmp_path).logits)
    with pytest.raises(TeacherError, match="cannot hold the teacher's 2,100 bytes of logits"):
        build(teacher, images, tmp_path / "file", device_bytes=2_099)


def test_a_disk_that_fills_up_costs_a_warning(teacher, images, tmp_path, caplog):
    calls = []

    def fail_once(done, total):
        calls.append(done)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    with caplog.at_level(logging.INFO, "eigen_jax"):
        cached = build(teacher, images, tmp_path, on_progress=fail_once)
    assert "No space left on device" in caplog.text
    np.testing.assert_array_equal(cached.logits, build(teacher, images, tmp_path / "elsewhere").logits)


@pytest.mark.parametrize("scale", [1e6, np.nan])
def test_logits_beyond_float16_are_refused(images, tmp_path, scale):
    with pytest.raises(TeacherError, match="not finite in float16, which holds up to 65,504"):
        build(make_teacher(scale=scale), images, tmp_path)
    assert not list((tmp_path / "teacher-logits").glob("*.npy*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 5}, "the teacher gives 3 logits an image; the data have 5 classes"),
        ({"views": "some"}, "views is 'some'; it must be one of all, center"),
    ],
)
def test_what_does_not_fit_is_refused(teacher, images, tmp_path, changes, message):
    with pytest.raises(TeacherError, match=message):
        build(teacher, images, tmp_path, **changes)
    with pytest.raises(TeacherError, match="does not take images of 8 x 8 x 1"):
        build(teacher, images[..., :1], tmp_path)


def test_the_cost_of_the_papers_cache():
    cost = logits_cost(45_000, num_classes=10, pad=4, flip=True, views="all")
    assert (cost.views, cost.forward_passes, cost.bytes) == (162, 7_290_000, 145_800_000)
    center = logits_cost(45_000, num_classes=100, pad=4, flip=True, views="center")
    assert (center.views, center.forward_passes, center.bytes) == (2, 90_000, 18_000_000)


def test_the_rate_of_a_teacher_is_measured_without_compilation(teacher, images):
    assert measure_rate(teacher, images, pad=PAD, flip=True, batch_size=64) > 1_000


def save(folder, array):
    np.save(folder / "logits.npy", array)
    return folder / "logits.npy"


def read(path, **changes):
    return read_logits(path, **{"num_examples": 4, "pad": PAD, "flip": True, "num_classes": CLASSES} | changes)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "flip", "slot"),
    [
        ((4, 50, 3), True, lambda view: view),
        ((4, 50, 3), False, lambda view: view),
        ((4, 25, 3), False, lambda view: view // 2),
        ((4, 2, 3), True, lambda view: view % 2),
        ((4, 3), True, lambda view: 0),
    ],
)
@pytest.mark.parametrize("device_bytes", [0, 1 << 20])
def test_a_file_of_logits_is_a_teacher(tmp_path, dtype, shape, flip, slot, device_bytes):
    array = np.random.default_rng(1).normal(size=shape).astype(dtype)
    teacher = read(save(tmp_path, array), flip=flip, device_bytes=device_bytes)
    assert isinstance(teacher, MappedLogits if device_bytes == 0 else CachedLogits)
    pairs = [(example, view) for example in range(4) for view in range(0, 50, 1 if flip else 2)]
    expected = np.array([array.reshape(4, -1, 3)[example, slot(view)] for example, view in pairs])
    answers = ask(teacher, pairs)
    assert answers.dtype == (np.float16 if dtype == np.float16 else np.float32)
    np.testing.assert_array_equal(answers, expected.astype(answers.dtype))


def test_the_fingerprint_of_a_file_is_of_its_content(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    fingerprint = read(save(tmp_path, array)).fingerprint
    assert read(save(tmp_path, np.asfortranarray(array))).fingerprint == fingerprint
    assert read(save(tmp_path, array), device_bytes=0).fingerprint == fingerprint
    assert read(save(tmp_path, array + np.float32(1e-6))).fingerprint != fingerprint
    assert read(save(tmp_path, array.astype(np.float16))).fingerprint != fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            np.zeros((4, 18, 3), np.float32),
            r"shape \[4, 18, 3\]; for these data it must be \[4, 50, 3\], \[4, 2, 3\] or \[4, 3\]$",
        ),
        (np.zeros((5, 3), np.float32), r"shape \[5, 3\]"),
        (np.zeros((4, 25, 3), np.float32), r"shape \[4, 25, 3\]"),
        (np.zeros((), np.float32), r"shape \[\]"),
        (np.zeros((4, 3), np.int32), "holds int32; logits must be float16, float32 or float64"),
        (np.array([[0, 1, 2], [0, np.inf, 2]] * 2, np.float32), "not finite"),
        (np.array([[0, 1, 2], [0, "x", 2]] * 2, object), "no intact .npy file"),
        (b"", "no intact .npy file"),
        (b"text", "no intact .npy file"),
        (None, "cannot be read .No such file"),
    ],
)
def test_a_file_that_is_no_teacher_is_refused(tmp_path, content, message):
    path = tmp_path / "logits.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=content.dtype == object)
    with pytest.raises(TeacherError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_cut_file_and_an_archive_are_refused(tmp_path):
    path = save(tmp_path, np.zeros((4, 3), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TeacherError, match=r"is no intact \.npy file"):
        read(path)
    np.savez(tmp_path / "several.npz", a=np.zeros((4, 3), np.float32))
    with pytest.raises(TeacherError, match="holds several arrays"):
        read(tmp_path / "several.npz")
