"""Computing a teacher's logits for every view of every image, once, and keeping them on disk.

    teacher-logits/<key>.npy     [N, S, K] float16
    teacher-logits/<key>.json    checksum of it, seconds that it took; written last, so what has none is unfinished
    teacher-logits/<key>.lock    held while the two are read or written

The key is a hash of all that the logits depend on. Dimension letters are those of
`eigen_jax.teacher.logits`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from eigen_jax.data import apply_views
from eigen_jax.files import read_json, write_json
from eigen_jax.resumable import ShouldStop, acquire_in_turn, never
from eigen_jax.teacher.config import TeacherError
from eigen_jax.teacher.ensemble import Ensemble, average_logits, check_fits
from eigen_jax.teacher.logits import (
    DEVICE_BYTES,
    CachedLogits,
    MappedLogits,
    ViewSet,
    from_array,
    stored_views,
    view_slots,
)

CacheStart = Callable[["LogitsCost", float], None]  # what it takes, and images a second
CacheProgress = Callable[[int, int], None]  # forward passes done, and in all

BATCH_SIZE = 1_000  # views that the teacher is asked about at a time

_FORMAT_VERSION = 1
_LARGEST_COUNT = 2**31 - 1  # positions are int32 on the device

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsCost:
    """What a cache of logits takes."""

    images: int  # N
    views: int  # S
    bytes: int  # on disk, and in memory where it is kept there

    @property
    def forward_passes(self) -> int:
        """Images that the whole teacher is asked about."""
        return self.images * self.views


def logits_cost(num_images: int, *, num_classes: int, pad: int, flip: bool, views: ViewSet) -> LogitsCost:
    """What a cache takes; nothing is computed. Divide its `forward_passes` by `measure_rate` for the seconds.

    Args:
        num_images: N.
        num_classes: K.
        pad: pixels around an image before it is cropped.
        flip: whether training mirrors images.
        views: the set of views.
    """
    stored = len(stored_views(pad=pad, flip=flip, views=views))
    return LogitsCost(images=num_images, views=stored, bytes=num_images * stored * num_classes * 2)


def measure_rate(
    teacher: Ensemble, images: Array, *, pad: int, flip: bool, views: ViewSet = "all", batch_size: int = BATCH_SIZE
) -> float:
    """Images a second that a teacher answers for: of one batch, after another that compiles the programs.

    A live teacher adds the inverse of this rate, times the batch size, to each training step.

    Args: as of `cache_logits`, which finds its programs compiled after this.
    """
    stored = jnp.asarray(stored_views(pad=pad, flip=flip, views=views))
    size = min(batch_size, images.shape[0] * stored.size)
    jax.block_until_ready(_batch_logits(teacher, images, stored, 0, pad=pad, size=size))
    started = time.perf_counter()
    jax.block_until_ready(_batch_logits(teacher, images, stored, 0, pad=pad, size=size))
    return size / (time.perf_counter() - started)


def cache_logits(
    teacher: Ensemble,
    images: Array,
    *,
    data_fingerprint: str,
    num_classes: int,
    pad: int,
    flip: bool,
    views: ViewSet = "all",
    cache_dir: str | Path,
    device_bytes: int = DEVICE_BYTES,
    batch_size: int = BATCH_SIZE,
    on_start: CacheStart | None = None,
    on_progress: CacheProgress | None = None,
    should_stop: ShouldStop = never,
) -> CachedLogits | MappedLogits:
    """A teacher's logits for views of images: from the cache, or computed and put there.

    A cache file that is unfinished or damaged is computed again. Where the folder cannot hold it,
    the logits are kept in memory.

    Args:
        teacher: the ensemble.
        images: [N, H, W, C] float32; examples are their positions.
        data_fingerprint: of the data set that the images are of, in the order that they are in.
        num_classes: K.
        pad: pixels around an image before it is cropped.
        flip: whether training mirrors images.
        views: the set of views that have logits of their own.
        cache_dir: the folder `teacher-logits` is made in it.
        device_bytes: logits of more bytes are mapped into memory, not put on the device.
        batch_size: views at a time; what is computed may depend on it in the last bits.
        on_start: called before the logits are computed, and not where the cache has them; the rate
            is measured for it.
        on_progress: called after every batch.
        should_stop: whether to leave; asked while another process computes them, for which this one waits.

    Raises:
        StoppedError: it was asked to stop.
        TeacherError: the teacher does not fit the images, its logits are not finite in float16, or
            they are too many.
    """
    count, height, width, channels = images.shape
    check_fits(teacher, image_shape=(height, width, channels), num_classes=num_classes)
    stored, slots = stored_views(pad=pad, flip=flip, views=views), view_slots(pad=pad, flip=flip, views=views)
    if count < 1 or count * stored.size > _LARGEST_COUNT:
        raise TeacherError(
            f"{stored.size} views of {count} images cannot be stored; there must be 1 to {_LARGEST_COUNT} in all"
        )
    shape = (count, stored.size, num_classes)
    key = _key(teacher, images, data_fingerprint=data_fingerprint, pad=pad, flip=flip, views=views)
    images = jnp.asarray(images)

    def compute() -> Iterator[np.ndarray]:
        if on_start is not None:
            rate = measure_rate(teacher, images, pad=pad, flip=flip, views=views, batch_size=batch_size)
            on_start(logits_cost(count, num_classes=num_classes, pad=pad, flip=flip, views=views), rate)
        yield from _compute(teacher, images, stored, pad=pad, batch_size=batch_size, on_progress=on_progress)

    logits = _from_disk(
        Path(cache_dir) / "teacher-logits", key, shape, compute, device_bytes=device_bytes, should_stop=should_stop
    )
    return from_array(logits, slots, key, device_bytes=device_bytes)


def _key(teacher: Ensemble, images: Array, *, data_fingerprint: str, pad: int, flip: bool, views: ViewSet) -> str:
    parts: dict[str, Any] = {
        "format": _FORMAT_VERSION,
        "teacher": teacher.fingerprint,
        "data": data_fingerprint,
        "images": images.shape,
        "pad": pad,
        "flip": flip,
        "views": views,
        "dtype": "float16",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _batch_logits(teacher: Ensemble, images: Array, views: Array, start: int, *, pad: int, size: int) -> Array:
    """[B, K] float16, from position `start` of all views of the first image, then of the second, and so on."""
    seen = _batch_images(images, views, start, pad=pad, size=size)
    return average_logits(teacher, seen).astype(jnp.float16)


@functools.partial(jax.jit, static_argnames=("pad", "size"))
def _batch_images(images: Array, views: Array, start: int | Array, *, pad: int, size: int) -> Array:
    position = start + jnp.arange(size)
    examples = jnp.minimum(position // views.size, images.shape[0] - 1)
    return apply_views(images[examples], views[position % views.size], pad=pad)


def _compute(
    teacher: Ensemble,
    images: Array,
    stored: np.ndarray,
    *,
    pad: int,
    batch_size: int,
    on_progress: CacheProgress | None,
) -> Iterator[np.ndarray]:
    """Yields [B, K] float16 in order, the last one shorter."""
    total = images.shape[0] * stored.size
    size, views = min(batch_size, total), jnp.asarray(stored)
    coming = _batch_logits(teacher, images, views, 0, pad=pad, size=size)
    for start in range(0, total, size):
        logits = coming
        if start + size < total:  # under way while this one is fetched and written
            coming = _batch_logits(teacher, images, views, start + size, pad=pad, size=size)
        batch = np.asarray(logits)[: total - start]
        if not np.isfinite(batch).all():
            raise TeacherError(
                "the teacher's logits are not finite in float16, which holds up to 65,504; ask the teacher live, or"
                " train it anew at a lower learning rate"
            )
        yield batch
        if on_progress is not None:
            on_progress(start + len(batch), total)


def _from_disk(
    folder: Path,
    key: str,
    shape: tuple[int, int, int],
    compute: Callable[[], Iterator[np.ndarray]],
    *,
    device_bytes: int,
    should_stop: ShouldStop,
) -> np.ndarray:
    """The array of a key: as it is stored, or computed and stored, or computed and in memory."""
    nbytes = int(np.prod(shape)) * 2
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Without the lock first: a folder that can only be read has none.
        if (array := _read(folder, key, shape)) is not None:
            return array
        _remove_abandoned(folder)
        with _locked(folder, key, should_stop):
            if (array := _read(folder, key, shape)) is not None:
                return array
            if (folder / f"{key}.npy").exists():
                _logger.warning(
                    "cached logits %s are unfinished or damaged; they are computed again", folder / f"{key}.npy"
                )
            if (free := shutil.disk_usage(folder).free) < nbytes:
                raise OSError(f"{nbytes:,} bytes are needed and {free:,} free")
            _write(folder, key, shape, compute())
            return np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or str(error)
    if nbytes > device_bytes:
        raise TeacherError(
            f"cache folder {folder} cannot hold the teacher's {nbytes:,} bytes of logits ({reason}); choose another"
            " folder, fewer views, or a live teacher"
        )
    _logger.warning("cache folder %s cannot hold the teacher's logits (%s); going on without it", folder, reason)
    return np.concatenate(list(compute())).reshape(shape)


@contextlib.contextmanager
def _locked(folder: Path, key: str, should_stop: ShouldStop) -> Iterator[None]:
    lock = filelock.FileLock(folder / f"{key}.lock")
    tell = functools.partial(_logger.info, "another process computes the same teacher's logits; waiting for it")
    acquire_in_turn(lock, should_stop=should_stop, on_wait=tell)
    try:
        yield
    finally:
        lock.release()


def _read(folder: Path, key: str, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The stored array; None where there is none, or no intact one."""
    path, manifest = folder / f"{key}.npy", folder / f"{key}.json"
    try:
        content = read_json(manifest)
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != content["sha256"]:
                return None
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return array if array.shape == shape and array.dtype == np.float16 else None


def _write(folder: Path, key: str, shape: tuple[int, int, int], batches: Iterator[np.ndarray]) -> None:
    """Writes array and manifest, each whole or not at all."""
    path, partial = folder / f"{key}.npy", _partial(folder, key)
    (folder / f"{key}.json").unlink(missing_ok=True)
    began = time.perf_counter()
    try:
        with partial.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            for batch in batches:
                file.write(batch.astype("<f2", copy=False).tobytes())
            file.flush()
            os.fsync(file.fileno())
        with partial.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    write_json(folder / f"{key}.json", {"sha256": checksum, "seconds": time.perf_counter() - began})


def _partial(folder: Path, key: str) -> Path:
    return folder / f"{key}.npy.partial"


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed processes left half-written: the partial files whose lock nobody holds."""
    for partial in folder.glob("*.npy.partial"):
        lock = filelock.FileLock(folder / f"{partial.name.removesuffix('.npy.partial')}.lock", blocking=False)
        with contextlib.suppress(filelock.Timeout), lock:
            partial.unlink(missing_ok=True)
