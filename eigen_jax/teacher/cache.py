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
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from eigen_jax.data import apply_views
from eigen_jax.store import files
from eigen_jax.store.locks import InUseError, ShouldStop, StoppedError, held, never
from eigen_jax.store.records import JSONError, convert, read_json, write_json
from eigen_jax.teacher.config import TeacherError
from eigen_jax.teacher.ensemble import Ensemble, average_logits, check_fits
from eigen_jax.teacher.logits import DEVICE_BYTES, CachedLogits, LogitsLayout, MappedLogits, from_array

CacheStart = Callable[["LogitsCost", float], None]  # what it takes, and images a second
CacheProgress = Callable[[int, int], None]  # forward passes done, and in all

BATCH_SIZE = 1_000  # views that the teacher is asked about at a time

_FOLDER = "teacher-logits"
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


def logits_cost(num_images: int, layout: LogitsLayout) -> LogitsCost:
    """What a cache takes; nothing is computed. Divide its `forward_passes` by `measure_rate` for the seconds."""
    stored = layout.stored_views.size
    return LogitsCost(images=num_images, views=stored, bytes=num_images * stored * layout.num_classes * 2)


def measure_rate(teacher: Ensemble, images: Array, layout: LogitsLayout, *, batch_size: int = BATCH_SIZE) -> float:
    """Images a second that a teacher answers for: of one batch, after another that compiles the programs.

    A live teacher adds the inverse of this rate, times the batch size, to each training step.

    Args: as of `cache_logits`, which finds its programs compiled after this.
    """
    stored = jnp.asarray(layout.stored_views)
    size = min(batch_size, images.shape[0] * stored.size)
    jax.block_until_ready(_batch_logits(teacher, images, stored, 0, pad=layout.pad, size=size))
    started = time.perf_counter()
    jax.block_until_ready(_batch_logits(teacher, images, stored, 0, pad=layout.pad, size=size))
    return size / (time.perf_counter() - started)


def cache_logits(
    teacher: Ensemble,
    images: Array,
    layout: LogitsLayout,
    *,
    data_fingerprint: str,
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
        layout: which views have logits of their own.
        data_fingerprint: of the data set that the images are of, in the order that they are in.
        cache_dir: the folder `teacher-logits` is made in it.
        device_bytes: logits of more bytes are mapped into memory, not put on the device.
        batch_size: views at a time; what is computed may depend on it in the last bits.
        on_start: called before the logits are computed, and not where the cache has them; the rate
            is measured for it.
        on_progress: called after every batch.
        should_stop: whether to leave; asked after every batch, and while another process computes them, for
            which this one waits.

    Raises:
        StoppedError: it was asked to stop.
        TeacherError: the teacher does not fit the images, its logits are not finite in float16, or
            they are too many.
    """
    count, height, width, channels = images.shape
    check_fits(teacher, image_shape=(height, width, channels), num_classes=layout.num_classes)
    stored = layout.stored_views
    if count < 1 or count * stored.size > _LARGEST_COUNT:
        raise TeacherError(
            f"{stored.size} views of {count} images cannot be stored; there must be 1 to {_LARGEST_COUNT} in all"
        )
    key = _key(teacher, images, layout, data_fingerprint)
    images = jnp.asarray(images)

    def compute() -> Iterator[np.ndarray]:
        if on_start is not None:
            on_start(logits_cost(count, layout), measure_rate(teacher, images, layout, batch_size=batch_size))
        done = 0
        for batch in _batches(teacher, images, stored, pad=layout.pad, batch_size=batch_size):
            yield batch
            done += len(batch)
            if on_progress is not None:
                on_progress(done, count * stored.size)
            if should_stop():
                raise StoppedError("the teacher's logits are computed anew by the same command")

    place, shape = Path(cache_dir) / _FOLDER / key, (count, stored.size, layout.num_classes)
    logits = _from_disk(place, shape, compute, device_bytes=device_bytes, should_stop=should_stop)
    return from_array(logits, layout.view_slots, key, device_bytes=device_bytes)


def seconds_of_logits(cache_dir: str | Path, fingerprint: str) -> float | None:
    """What computing the teacher that `cache_logits` gave took; None where the cache does not say it."""
    try:
        return _read_manifest(Path(cache_dir) / _FOLDER / f"{fingerprint}.json").seconds
    except (OSError, JSONError):
        return None


def _key(teacher: Ensemble, images: Array, layout: LogitsLayout, data_fingerprint: str) -> str:
    parts: dict[str, Any] = {
        "format": _FORMAT_VERSION,
        "teacher": teacher.fingerprint,
        "data": data_fingerprint,
        "images": images.shape,
        "pad": layout.pad,
        "flip": layout.flip,
        "views": layout.views,
        "dtype": "float16",
    }
    return files.sha256([json.dumps(parts, sort_keys=True)])


def _batch_logits(teacher: Ensemble, images: Array, views: Array, start: int, *, pad: int, size: int) -> Array:
    """[B, K] float16, from position `start` of all views of the first image, then of the second, and so on."""
    seen = _batch_images(images, views, start, pad=pad, size=size)
    return average_logits(teacher, seen).astype(jnp.float16)


@functools.partial(jax.jit, static_argnames=("pad", "size"))
def _batch_images(images: Array, views: Array, start: int | Array, *, pad: int, size: int) -> Array:
    position = start + jnp.arange(size)
    examples = jnp.minimum(position // views.size, images.shape[0] - 1)
    return apply_views(images[examples], views[position % views.size], pad=pad)


def _batches(
    teacher: Ensemble, images: Array, stored: np.ndarray, *, pad: int, batch_size: int
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Manifest:
    sha256: str  # hexadecimal, of the file of the array
    seconds: float | None = None  # that computing it took; None in older ones


def _read_manifest(path: Path) -> _Manifest:
    return convert(read_json(path), _Manifest)


def _from_disk(
    place: Path,
    shape: tuple[int, int, int],
    compute: Callable[[], Iterator[np.ndarray]],
    *,
    device_bytes: int,
    should_stop: ShouldStop,
) -> np.ndarray:
    """The array at a place, a path without suffix: as stored, or computed and stored, or computed and in memory."""
    nbytes = int(np.prod(shape)) * 2
    tell = functools.partial(_logger.info, "another process computes the same teacher's logits; waiting for it")
    try:
        # Without the lock first: a folder that can only be read has none.
        if (array := _read(place, shape)) is not None:
            return array
        _remove_abandoned(place.parent)
        with held(place.with_suffix(".lock"), should_stop=should_stop, on_wait=tell):
            if (array := _read(place, shape)) is not None:
                return array
            if (path := place.with_suffix(".npy")).exists():
                _logger.warning("cached logits %s are unfinished or damaged; they are computed again", path)
            if (free := shutil.disk_usage(place.parent).free) < nbytes:
                raise OSError(f"{nbytes:,} bytes are needed and {free:,} free")
            _write(place, shape, compute())
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or str(error)
    if nbytes > device_bytes:
        raise TeacherError(
            f"cache folder {place.parent} cannot hold the teacher's {nbytes:,} bytes of logits ({reason}); choose"
            " another folder, fewer views, or a live teacher"
        )
    _logger.warning("cache folder %s cannot hold the teacher's logits (%s); going on without it", place.parent, reason)
    return np.concatenate(list(compute())).reshape(shape)


def _read(place: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The stored array; None where there is none, or no intact one."""
    path = place.with_suffix(".npy")
    try:
        expected = _read_manifest(place.with_suffix(".json")).sha256
        if files.sha256_of_file(path) != expected:
            return None
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError):
        return None
    return array if array.shape == shape and array.dtype == np.float16 else None


def _write(place: Path, shape: tuple[int, int, int], batches: Iterator[np.ndarray]) -> None:
    """Writes array and manifest, each whole or not at all."""
    path, manifest = place.with_suffix(".npy"), place.with_suffix(".json")
    manifest.unlink(missing_ok=True)
    began = time.perf_counter()
    with files.replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for batch in batches:
            file.write(batch.astype("<f2", copy=False).tobytes())
    write_json(manifest, {"sha256": files.sha256_of_file(path), "seconds": time.perf_counter() - began})


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed processes left half-written: the partial files whose lock nobody holds."""
    for partial in folder.glob(f"*.npy{files.PARTIAL}"):
        lock = folder / f"{partial.name.removesuffix(f'.npy{files.PARTIAL}')}.lock"
        with contextlib.suppress(InUseError), held(lock, patience=0):
            partial.unlink(missing_ok=True)
