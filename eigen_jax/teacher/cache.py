"""Computing a teacher's logits for every view of every image, once, and keeping them on disk.

    teacher-logits/<key>.npy     [N, S, K] float16
    teacher-logits/<key>.json    checksum of it, seconds that it took; written last, so what has none is unfinished
    teacher-logits/<key>.lock    held while the two are read or written

The key is a hash of all that the logits depend on. Dimension letters are those of `eigen_jax.teacher.logits`.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from eigen_jax.data import Images, apply_views, take
from eigen_jax.store import files
from eigen_jax.store.locks import InUseError, ShouldStop, StoppedError, held, never
from eigen_jax.store.records import JSONError, convert, read_json, write_json
from eigen_jax.teacher.config import TeacherError
from eigen_jax.teacher.ensemble import Ensemble, average_logits, check_fits
from eigen_jax.teacher.logits import DEVICE_BYTES, CachedLogits, LogitsLayout, MappedLogits, from_array

_FOLDER = "teacher-logits"
_MOST = 2**31 - 1  # views of images; their positions are int32 on the device

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """All that a cache of logits answers: what a teacher makes of every view of every image."""

    teacher: Ensemble
    images: Images  # [N, H, W, C] float32; examples are their positions
    layout: LogitsLayout  # which views have logits of their own
    batch_size: int = 1_000  # views at a time; what is computed may depend on it in the last bits

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, S, K) of the answers, float16."""
        return self.images.shape[0], self.layout.stored_views.size, self.layout.num_classes

    @property
    def forward_passes(self) -> int:
        """Views that the whole teacher is asked about; divide them by `measure_rate` for the seconds."""
        return self.shape[0] * self.shape[1]

    @property
    def bytes(self) -> int:
        """What the answers take, on disk, and in memory where they are kept there."""
        return 2 * math.prod(self.shape)

    def measure_rate(self) -> float:
        """Images a second that the teacher answers for: of one batch, after another that compiles the programs."""
        jax.block_until_ready(self._ask(0))
        started = time.perf_counter()
        size = jax.block_until_ready(self._ask(0)).shape[0]
        return size / (time.perf_counter() - started)

    def answers(self) -> Iterator[np.ndarray]:
        """Yields [B, K] float16, for all views of the first image, then of the second, and so on; the last is shorter.

        Raises TeacherError where they are not finite in float16.
        """
        total, coming = self.forward_passes, self._ask(0)
        for start in range(0, total, self.batch_size):
            logits = coming
            if start + self.batch_size < total:  # under way while this one is fetched and written
                coming = self._ask(start + self.batch_size)
            batch = np.asarray(logits)[: total - start]
            if not np.isfinite(batch).all():
                problem = "the teacher's logits are not finite in float16, which holds up to 65,504"
                raise TeacherError(f"{problem}; ask the teacher live, or train it anew at a lower learning rate")
            yield batch

    def _ask(self, start: int) -> Array:
        """[B, K] float16, for the views from position `start` on."""
        views, size = self.layout.stored_views, min(self.batch_size, self.forward_passes)
        position = start + np.arange(size)
        examples = np.minimum(position // views.size, len(self.images) - 1)
        seen = _see(take(self.images, examples), views[position % views.size], pad=self.layout.pad)
        return average_logits(self.teacher, seen).astype(jnp.float16)


_see = jax.jit(apply_views, static_argnames="pad")


def cache_logits(
    questions: Questions,
    *,
    data_fingerprint: str,
    cache_dir: str | Path,
    device_bytes: int = DEVICE_BYTES,
    on_start: Callable[[float], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: ShouldStop = never,
) -> CachedLogits | MappedLogits:
    """A teacher's logits for views of images: from the cache, or computed and put there.

    What is unfinished or damaged there is computed again. Where the folder `teacher-logits` in `cache_dir` cannot hold
    it, the logits are kept in memory.

    Args:
        data_fingerprint: of the data set that the images are of, in the order that they are in.
        device_bytes: logits of more bytes are mapped into memory, not put on the device.
        on_start: called with the rate of the teacher, which is measured for it, before the logits are computed.
        on_progress: called after every batch, with the forward passes done and those in all.
        should_stop: asked after every batch, and while another process, which is waited for, computes them.

    Raises:
        StoppedError: it was asked to stop.
        TeacherError: the teacher does not fit the images, or its logits are not finite in float16 or too many.
    """
    count, views, num_classes = questions.shape
    check_fits(questions.teacher, image_shape=questions.images.shape[1:], num_classes=num_classes)
    if not 1 <= questions.forward_passes <= _MOST:
        raise TeacherError(f"{views} views of {count} images cannot be stored; there must be 1 to {_MOST} in all")

    def compute() -> Iterator[np.ndarray]:
        if on_start is not None:
            on_start(questions.measure_rate())
        done = 0
        for batch in questions.answers():
            yield batch
            done += len(batch)
            if on_progress is not None:
                on_progress(done, questions.forward_passes)
            if should_stop():
                raise StoppedError("the teacher's logits are computed anew by the same command")

    key = _key(questions, data_fingerprint)
    place = Path(cache_dir) / _FOLDER / key
    try:
        logits = _from_disk(place, questions.shape, compute, should_stop)
    except OSError as error:
        place, reason = place.parent, error.strerror or str(error)
        if questions.bytes > device_bytes:
            problem = f"cache folder {place} cannot hold the teacher's {questions.bytes:,} bytes of logits ({reason})"
            raise TeacherError(f"{problem}; choose another folder, fewer views, or a live teacher") from None
        _logger.warning("cache folder %s cannot hold the teacher's logits (%s); going on without it", place, reason)
        logits = np.concatenate(list(compute())).reshape(questions.shape)
    return from_array(logits, questions.layout.view_slots, key, device_bytes=device_bytes)


def seconds_of_logits(cache_dir: str | Path, fingerprint: str) -> float | None:
    """What computing the teacher that `cache_logits` gave took; None where the cache does not say it."""
    try:
        return _read_manifest(Path(cache_dir) / _FOLDER / fingerprint).seconds
    except (OSError, JSONError):
        return None


def _key(questions: Questions, data_fingerprint: str) -> str:
    layout = questions.layout
    views = {"pad": layout.pad, "flip": layout.flip, "views": layout.views}
    asked = {"teacher": questions.teacher.fingerprint, "data": data_fingerprint, "images": questions.images.shape}
    return files.sha256([json.dumps({"format": 1, "dtype": "float16", **views, **asked}, sort_keys=True)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Manifest:
    sha256: str  # hexadecimal, of the file of the array
    seconds: float | None = None  # that computing it took; None in older ones


def _read_manifest(place: Path) -> _Manifest:
    return convert(read_json(place.with_suffix(".json")), _Manifest)


def _from_disk(
    place: Path, shape: tuple[int, int, int], compute: Callable[[], Iterator[np.ndarray]], should_stop: ShouldStop
) -> np.ndarray:
    """The array at a place, a path without suffix, as stored or computed; OSError: the disk cannot hold it."""
    # Without the lock first: a folder that can only be read has none.
    if (array := _read(place, shape)) is not None:
        return array
    _remove_abandoned(place.parent)
    path, nbytes = place.with_suffix(".npy"), 2 * math.prod(shape)
    tell = functools.partial(_logger.info, "another process computes the same teacher's logits; waiting for it")
    with held(place.with_suffix(".lock"), should_stop=should_stop, on_wait=tell):
        if (array := _read(place, shape)) is not None:
            return array
        if path.exists():
            _logger.warning("cached logits %s are unfinished or damaged; they are computed again", path)
        if (free := shutil.disk_usage(place.parent).free) < nbytes:
            raise OSError(f"{nbytes:,} bytes are needed and {free:,} free")
        _write(place, shape, compute())
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _read(place: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The stored array; None where there is none, or no intact one."""
    path = place.with_suffix(".npy")
    try:
        if files.sha256_of_file(path) != _read_manifest(place).sha256:
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
        lock = partial.with_name(partial.name.removesuffix(f".npy{files.PARTIAL}") + ".lock")
        with contextlib.suppress(InUseError), held(lock, patience=0):
            partial.unlink(missing_ok=True)
