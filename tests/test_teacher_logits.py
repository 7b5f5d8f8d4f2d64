"""Cached logits: equal to asking the teacher, kept on disk, and built again when damaged."""

import io
import logging
from types import SimpleNamespace
from typing import Any
from unittest import mock

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from teacher_data import CLASSES, SHAPE, assert_refused, make_dataset, make_teacher
from training_data import TRACES, Convolutional

from eigen_jax.data import apply_views
from eigen_jax.store.locks import StoppedError
from eigen_jax.teacher import CachedLogits, LogitsLayout, MappedLogits, make_ensemble
from eigen_jax.teacher.cache import Questions, cache_logits
from eigen_jax.teacher.logits import read_logits
from eigen_jax.training import TrainConfig, init_state, loop, train_to

PAD = 2
VIEWS = 50  # (2 * 2 + 1)**2 crops, flipped or not
COUNT = 7
PAIRS = [(example, view) for example in range(COUNT) for view in range(VIEWS)]


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(5).normal(size=(COUNT, *SHAPE)), jnp.float32)


@pytest.fixture(scope="module")
def teacher():
    return make_teacher()


def build(teacher, images, folder, *, batch_size=64, **changes):
    layout, rest = split(changes)
    questions = Questions(teacher=teacher, images=images, layout=layout, batch_size=batch_size)
    return cache_logits(questions, cache_dir=folder, **{"data_fingerprint": "data"} | rest)


def split(changes: dict[str, Any]) -> tuple[LogitsLayout, dict[str, Any]]:
    """The layout that a call is to have, and its other arguments."""
    fields: dict[str, Any] = {"num_classes": CLASSES, "pad": PAD, "flip": True, "views": "all"}
    of_layout = {name: changes.get(name, value) for name, value in fields.items()}
    return LogitsLayout(**of_layout), {name: value for name, value in changes.items() if name not in fields}


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


@pytest.mark.parametrize("pad", [0, PAD])
@pytest.mark.parametrize(
    ("views", "flip", "slots"), [("all", True, 2), ("all", False, 1), ("center", True, 2), ("center", False, 1)]
)
def test_every_view_of_every_image_finds_the_logits_of_its_set(teacher, images, tmp_path, views, flip, slots, pad):
    crops = (2 * pad + 1) ** 2
    centre = 24 if pad else 0  # of 5 x 5 offsets, the one in row 2 and column 2, not flipped
    asked = range(0, 2 * crops, 1 if flip else 2)
    answering = [view if views == "all" else centre + view % 2 for view in asked]
    expected = [reference_logits(teacher, image, view, pad) for image in np.asarray(images) for view in answering]
    for size in (25, 64, 1_000):
        cached = build(teacher, images, tmp_path / str(size), views=views, flip=flip, pad=pad, batch_size=size)
        assert cached.logits.shape == (COUNT, slots * (crops if views == "all" else 1), CLASSES)
        answers = ask(cached, [(example, view) for example in range(COUNT) for view in asked])
        assert (cached.logits.dtype, answers.dtype) == (np.float16, np.float16)
        np.testing.assert_allclose(answers, expected, rtol=2**-10, atol=1e-5)


def test_logits_are_the_same_on_the_device_mapped_and_in_traced_functions(teacher, images, tmp_path):
    on_device = build(teacher, images, tmp_path)
    mapped = build(teacher, images, tmp_path, device_bytes=on_device.logits.nbytes - 1)
    assert isinstance(on_device, CachedLogits)
    assert isinstance(mapped, MappedLogits)
    assert isinstance(mapped.logits, np.memmap)
    assert mapped.fingerprint == on_device.fingerprint
    assert ask(mapped, PAIRS).dtype == np.float16
    np.testing.assert_array_equal(ask(mapped, PAIRS), ask(on_device, PAIRS))

    examples, views = jnp.array([2, 6, 0]), jnp.array([49, 0, 24])
    seen = apply_views(images[examples], views, pad=PAD)

    @jax.jit
    def scanned(cached):
        return jax.lax.scan(lambda carry, at: (carry, cached(*at)), None, (examples[:, None], views[:, None], seen))[1]

    np.testing.assert_array_equal(scanned(on_device)[:, 0], on_device(examples, views, seen))
    # An example that is not there has none.
    assert np.isnan(ask(on_device, [(COUNT, 0)])).all()
    with pytest.raises(IndexError):
        ask(mapped, [(COUNT, 0)])


def test_cached_and_live_teachers_give_the_same_student(tmp_path, monkeypatch):
    dataset, teacher, student = make_dataset(24), make_teacher(), Convolutional()
    config = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=PAD)
    start = init_state(jax.random.key(1), network=student, config=config, input_shape=SHAPE)
    cached, mapped = (build(teacher, dataset.train_images, tmp_path, **rest) for rest in ({}, {"device_bytes": 0}))
    monkeypatch.setattr(loop, "CHECK_EVERY", 1)

    def train(whom) -> tuple[list[float], Any]:
        told: list[float] = []
        options: dict[str, Any] = {"network": student, "config": config, "teacher": whom}
        options["on_progress"] = lambda step, loss, rate: told.append(loss)
        return told, train_to(jax.random.key(2), start, dataset, 50, **options)[0].params

    live, from_cache, without = map(train, (teacher, cached, None))
    assert len(live[0]) == 50
    jax.tree.map(np.testing.assert_array_equal, train(mapped), from_cache)
    np.testing.assert_allclose(from_cache[0], live[0], rtol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), from_cache[1], live[1])
    assert abs(without[0][-1] / live[0][-1] - 1) > 0.1  # the teacher does matter


# Fails where logits are computed, which a cache that is hit never does.
FORBIDDEN = mock.Mock(side_effect=AssertionError("computed again"))


def test_logits_are_computed_once(teacher, images, tmp_path):
    told: list[tuple] = []
    callbacks = {name: lambda *each: told.append(each) for name in ("on_start", "on_progress")}
    first = build(teacher, images, tmp_path, **callbacks)
    assert told[0][0] > 0
    assert told[1:] == [(min(done, 350), 350) for done in range(64, 400, 64)]
    again = build(teacher, images, tmp_path, on_progress=FORBIDDEN, on_start=FORBIDDEN)
    np.testing.assert_array_equal(again.logits, first.logits)
    assert again.fingerprint == first.fingerprint
    assert {path.suffix for path in (tmp_path / "teacher-logits").iterdir()} == {".npy", ".json", ".lock"}


def test_the_key_is_of_all_that_the_logits_depend_on(teacher, images, tmp_path):
    center, straight = {"views": "center"}, {"flip": False}
    changes: list[dict] = [{}, {"data_fingerprint": "other"}, {"pad": 1}, straight, center, center | straight]
    built = [build(teacher, images, tmp_path, **change) for change in changes]
    built += [build(teacher, images[:5], tmp_path), build(make_teacher(scale=2.0), images, tmp_path)]
    assert len({each.fingerprint for each in built}) == len(changes) + 2


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("npy", lambda content: content[:-10]),
        ("npy", lambda content: content[:-100] + bytes([content[-100] ^ 4]) + content[-99:]),
        ("json", lambda content: None),
        ("json", lambda content: b"{"),
        ("json", lambda content: b"[]"),
    ],
)
def test_a_damaged_cache_is_told_and_built_again(teacher, images, tmp_path, suffix, damage, caplog):
    before = build(teacher, images, tmp_path).logits
    (path,) = (tmp_path / "teacher-logits").glob(f"*.{suffix}")
    damaged = damage(path.read_bytes())
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    with caplog.at_level(logging.INFO, "eigen_jax"):
        after = build(teacher, images, tmp_path)
    told = f"cached logits {path.with_suffix('.npy')} are unfinished or damaged; they are computed again"
    assert [message for message in caplog.messages if "damaged" in message] == [told]
    np.testing.assert_array_equal(after.logits, before)
    build(teacher, images, tmp_path, on_progress=FORBIDDEN)


def test_interrupted_builds_leave_nothing_that_counts_and_killed_ones_are_cleared_away(teacher, images, tmp_path):
    folder = tmp_path / "teacher-logits"
    with pytest.raises(KeyboardInterrupt):
        build(teacher, images, tmp_path, on_progress=mock.Mock(side_effect=KeyboardInterrupt))
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
    for name in ("dead", "alive"):
        (folder / f"{name}.npy.partial").write_bytes(b"half")
    with filelock.FileLock(folder / "alive.lock"):
        built = build(teacher, images, tmp_path).logits
    assert [path.name for path in folder.glob("*.partial")] == ["alive.npy.partial"]
    np.testing.assert_array_equal(built, build(teacher, images, tmp_path / "elsewhere").logits)


def test_who_waits_for_the_logits_of_another_process_can_be_stopped(teacher, images, tmp_path, caplog):
    fingerprint = build(teacher, images, tmp_path).fingerprint
    (manifest,) = (tmp_path / "teacher-logits").glob("*.json")
    manifest.unlink()
    held, listening = filelock.FileLock(manifest.with_suffix(".lock")), caplog.at_level(logging.INFO, "eigen_jax")
    with held, listening, pytest.raises(StoppedError):
        build(teacher, images, tmp_path, should_stop=lambda: True)
    assert caplog.messages == ["another process computes the same teacher's logits; waiting for it"]
    assert build(teacher, images, tmp_path).fingerprint == fingerprint


@pytest.mark.parametrize(
    ("place", "effects", "said"),
    [
        ("file", [None] * 99, "cannot hold the teacher's logits"),
        ("full", [None, OSError(28, "No space left on device"), *[None] * 99], "No space left on device"),
    ],
)
def test_what_cannot_be_written_costs_a_warning(teacher, images, tmp_path, caplog, place, effects, said):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.INFO, "eigen_jax"):
        cached = build(teacher, images, tmp_path / place, on_progress=mock.Mock(side_effect=effects))
    assert [said in message for message in caplog.messages] == [True]
    np.testing.assert_array_equal(cached.logits, build(teacher, images, tmp_path).logits)
    message = "cannot hold the teacher's 2,100 bytes of logits"
    assert_refused(message, build, teacher, images, tmp_path / "file", device_bytes=2_099)


@pytest.mark.parametrize("scale", [1e6, np.nan])
def test_logits_beyond_float16_are_refused(images, tmp_path, scale):
    message = "not finite in float16, which holds up to 65,504"
    assert_refused(message, build, make_teacher(scale=scale), images, tmp_path)
    assert not list((tmp_path / "teacher-logits").glob("*.npy*"))


def test_what_does_not_fit_is_refused(teacher, images, tmp_path):
    wrong = "the teacher gives 3 logits an image; the data have 5 classes"
    assert_refused(wrong, build, teacher, images, tmp_path, num_classes=5)
    wrong = "views is 'some'; it must be one of all, center"
    assert_refused(wrong, build, teacher, images, tmp_path, views="some")
    assert_refused("does not take images of 8 x 8 x 1", build, teacher, images[..., :1], tmp_path)


@pytest.mark.parametrize(
    ("views", "num_classes", "cost"),
    [("all", 10, (45_000, 162, 7_290_000, 145_800_000)), ("center", 100, (45_000, 2, 90_000, 18_000_000))],
)
def test_the_cost_of_the_papers_cache(teacher, views, num_classes, cost):
    layout, images = LogitsLayout(num_classes=num_classes, pad=4, flip=True, views=views), jnp.zeros((45_000, 1, 1, 1))
    asked = Questions(teacher=teacher, images=images, layout=layout)
    assert (*asked.shape[:2], asked.forward_passes, asked.bytes) == cost


def test_the_rate_of_a_teacher_is_measured_without_compilation(images, monkeypatch):
    network, traced = Convolutional(width=11), []
    initialize = jax.jit(lambda: network.init(jax.random.key(0), images, train=False))
    teacher = make_ensemble([network], [initialize()])

    def clock() -> float:
        traced.append(len(TRACES))
        return 0.5 * len(traced)

    monkeypatch.setattr("eigen_jax.teacher.cache.time", SimpleNamespace(perf_counter=clock))
    TRACES.clear()
    questions = Questions(teacher=teacher, images=images, layout=split({})[0], batch_size=64)
    assert questions.measure_rate() == 64 / 0.5
    assert traced == [1, 1]


def npy(array, write=np.save) -> bytes:
    """What a file of an array holds."""
    stream = io.BytesIO()
    write(stream, array)
    return stream.getvalue()


def read(folder, content: bytes | None, **changes):
    if content is not None:
        (folder / "logits.npy").write_bytes(content)
    layout, rest = split(changes)
    return read_logits(folder / "logits.npy", layout, num_examples=4, **rest)


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
    teacher = read(tmp_path, npy(array), flip=flip, device_bytes=device_bytes)
    assert isinstance(teacher, MappedLogits if device_bytes == 0 else CachedLogits)
    pairs = [(example, view) for example in range(4) for view in range(0, 50, 1 if flip else 2)]
    expected = np.array([array.reshape(4, -1, 3)[example, slot(view)] for example, view in pairs])
    answers = ask(teacher, pairs)
    assert answers.dtype == (np.float16 if dtype == np.float16 else np.float32)
    np.testing.assert_array_equal(answers, expected.astype(answers.dtype))


def test_the_fingerprint_of_a_file_is_of_its_content(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    fingerprint = read(tmp_path, npy(array), device_bytes=0).fingerprint
    others = (array, np.asfortranarray(array), array + np.float32(1e-6), array.astype(np.float16))
    assert [read(tmp_path, npy(each)).fingerprint == fingerprint for each in others] == [True, True, False, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.zeros((5, 3))), r"shape \[5, 3\]; for these data it must be \[4, 50, 3\], \[4, 2, 3\] or \[4, 3\]$"),
        (npy(np.zeros((4, 25, 3))), r"shape \[4, 25, 3\]"),
        (npy(0.0), r"shape \[\]"),
        (npy(np.zeros((4, 3), np.int32)), "holds int32; logits must be float16, float32 or float64"),
        (npy([[0, 1, 2], [0, np.inf, 2]] * 2), "not finite"),
        (npy(np.array([[0, 1, 2], [0, "x", 2]] * 2, object)), "is no intact .npy file"),
        (npy(np.zeros((4, 3)))[:-1], r"is no intact \.npy file"),
        (npy(np.zeros((4, 3)), write=np.savez), "holds several arrays"),
        (b"text", "no intact .npy file"),
        (None, "cannot be read .No such file"),
    ],
    ids=range(10),
)
def test_a_file_that_is_no_teacher_is_refused(tmp_path, content, message):
    assert_refused(message, read, tmp_path, content)
