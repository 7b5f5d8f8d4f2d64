"""Pictures decoded once, in parallel, into a folder of the cache, of which the arrays are then mapped into memory.

Neither what is read nor what is written is ever in memory as a whole. The folder appears whole or not at all:

    images-KEY/images.npy   [N, H, W, C] uint8: those to train on, to validate and to test
    images-KEY/labels.npy   [N] int32
    images-KEY/about.json   how many there are of each, and what is told of them
    images-KEY/skipped.txt  each file that was skipped, and why
"""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from eigen_jax.data import decoding
from eigen_jax.data.decoding import ColourError, Look, choose_size, decode, look_at, why_skipped
from eigen_jax.data.pictures import PARTS, Pictures, draw_parts, tell
from eigen_jax.data.types import DataConfig, DataError, Progress, RawDataset
from eigen_jax.store import files, locks
from eigen_jax.store.files import sha256
from eigen_jax.store.records import Count, RecordFile

_logger = logging.getLogger(__name__)

_LOOKED_AT = 1_000  # pictures whose headers say which size fits all
_CHUNK = 256  # pictures decoded, or moved, at a time
_MOST_THREADS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class _About:
    counts: tuple[Count, Count, Count]  # images to train on, to validate and to test
    class_names: tuple[str, ...]
    report: tuple[str, ...]


_ABOUT = RecordFile(
    name="about.json", place="folder of decoded images", kind=_About, schema_version=1, error=DataError, advice="go on"
)


def decoded(list_all: Callable[[], Pictures], config: DataConfig, progress: Progress) -> RawDataset:
    """The pictures that are listed, decoded by this process or one before, split, and mapped into memory.

    They are listed again after decoding: DataError is raised where they are others then, where too few can be read, or
    the cache folder cannot be written; ConfigError where sizes of parts do not fit.
    """
    found = list_all()
    depends_on = {
        "place": found.place,  # which the report names
        "pictures": found.digest(),
        "image_size": config.image_size,
        "sizes": [config.validation_size, config.test_size, config.split_seed],
        "version": decoding.VERSION,
    }
    key = sha256([json.dumps(depends_on, sort_keys=True)])
    folder = config.cache_folder().absolute() / "decoded" / f"images-{key[:32]}"
    if (raw := _mapped(folder)) is not None:
        return raw
    lock = folder.with_name(f"{folder.name}.lock")
    with files.told_as(DataError, f"cache folder {config.cache_folder()}", "name another"):
        waits = f"waiting for another process that decodes the images of {found.place}"
        with locks.held(lock, on_wait=lambda: _logger.info("%s", waits)):
            try:
                if (raw := _mapped(folder)) is None:
                    _make(folder, found, config, progress, list_all)
                    raw = _mapped(folder)
            finally:
                lock.unlink(missing_ok=True)
    if raw is None:
        raise DataError(f"the decoded images in {folder} cannot be read; delete that folder, and it is made again")
    return raw


def _make(
    folder: Path, found: Pictures, config: DataConfig, progress: Progress, list_all: Callable[[], Pictures]
) -> None:
    """Makes a folder of decoded images, of pictures that are still the same afterwards."""
    with files.making_folder(folder) as partial:
        _decode(found, config, progress, partial, listing=folder / "skipped.txt")
        if list_all().digest() != found.digest():
            problem = f"{found.place} changed while its images were read"
            raise DataError(f"{problem}; let it be, and give the same command again")


def _mapped(folder: Path) -> RawDataset | None:
    """What a folder of decoded images holds, mapped into memory; None where it is missing or damaged."""
    if not folder.exists():
        return None
    try:
        about = _ABOUT.read(folder)
        images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))
        if images.ndim != 4 or not len(images) == len(labels) == sum(about.counts):
            raise DataError("its arrays are of another length")
    except (DataError, OSError, ValueError, EOFError) as error:
        _logger.warning("decoded images in %s are damaged (%s), and are made again", folder, type(error).__name__)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    ends = np.cumsum(about.counts)[:2]
    (train, validation, test), (train_labels, *others) = np.split(images, ends), np.split(np.asarray(labels), ends)
    parts = train, train_labels, test, others[1], validation, others[0]
    return RawDataset("images", about.class_names, *parts, report=about.report)


def _decode(found: Pictures, config: DataConfig, progress: Progress, folder: Path, *, listing: Path) -> None:
    """Decodes pictures into a folder, and says in it what was read; they are in their order, then in that of parts."""
    with warnings.catch_warnings(), _threads() as pool:
        # Of pictures that are large, which is told of them here, and of metadata.
        warnings.simplefilter("ignore")
        looks = _look(found, pool)
        size, why = (config.image_size, "as asked for") if config.image_size else choose_size(looks)
        channels = 1 if looks and all(look.is_grey for look in looks) else 3
        try:
            kept, skipped = _write_all(found, size, channels, progress, pool, folder / "listed.npy")
        except ColourError:
            channels = 3
            kept, skipped = _write_all(found, size, channels, progress, pool, folder / "listed.npy")
    for reason, names in found.skipped.items():
        skipped[reason] = [*names, *skipped.get(reason, ())]
    if not len(kept):
        told = "; ".join(f"{len(names):,}: {reason}" for reason, names in sorted(skipped.items()))
        raise DataError(f"{found.place} holds no image that can be read, of {len(found.names):,} files ({told})")
    labels, names = found.labels[kept], found.class_names
    parts = draw_parts(labels, found.parts[kept], config, class_names=names, place=found.place)
    order = np.argsort(parts, kind="stable")
    _reorder(folder / "listed.npy", folder / "images.npy", order)
    np.save(folder / "labels.npy", labels[order])
    lines = [f"{name}\t{reason}" for reason, skips in sorted(skipped.items()) for name in skips]
    (folder / "skipped.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="replace")
    colours = "grey" if channels == 1 else "in colours"
    shown = f"images are of {size} x {size} pixels ({why}), {colours}; --image-size chooses another size"
    report = tell(found, labels, parts, size=shown, skipped=skipped, listing=str(listing))
    counts = tuple(np.bincount(parts, minlength=len(PARTS)).tolist())
    _ABOUT.write(folder, _About(counts=counts, class_names=names, report=report))


def _threads() -> ThreadPoolExecutor:
    # Pillow decodes and scales without Python's lock.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(min(cores, _MOST_THREADS))


def _look(found: Pictures, pool: ThreadPoolExecutor) -> list[Look]:
    """What the headers of some pictures say, evenly taken; those that have none are passed over."""
    rows = np.unique(np.linspace(0, len(found.names) - 1, _LOOKED_AT).astype(int))

    def look(row: int) -> Look | None:
        try:
            with found.open(row) as image:
                return look_at(image)
        except Exception:  # of damaged files, told of when all are decoded
            return None

    return [each for each in pool.map(look, rows.tolist()) if each is not None]


def _write_all(
    found: Pictures, size: int, channels: int, progress: Progress, pool: ThreadPoolExecutor, path: Path
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Writes the pictures that can be decoded to a .npy; gives their rows, and by the reason those that cannot be."""

    def decoded_or_why(row: int) -> np.ndarray | str:
        try:
            with found.open(row) as image:
                return decode(image, size=size, channels=channels)
        except ColourError:
            raise
        except Exception as error:
            return why_skipped(error)

    total, kept, skipped = len(found.names), list[int](), defaultdict[str, list[str]](list)
    with _array_file(path, (size, size, channels), most=total) as write:
        for start in range(0, total, _CHUNK):
            rows = range(start, min(start + _CHUNK, total))
            for row, pixels in zip(rows, pool.map(decoded_or_why, rows), strict=True):
                if isinstance(pixels, str):
                    skipped[pixels].append(found.names[row])
                else:
                    kept.append(row)
                    write(pixels)
            progress(rows.stop, total)
    return np.array(kept, np.int64), skipped


def _reorder(source: Path, target: Path, order: np.ndarray) -> None:
    """Writes the rows of a .npy in another order, in place of it."""
    if (np.diff(order) == 1).all():
        os.rename(source, target)
        return
    images = np.load(source, mmap_mode="r")
    with _array_file(target, images.shape[1:], most=len(order)) as write:
        for start in range(0, len(order), _CHUNK):
            write(images[order[start : start + _CHUNK]])
    source.unlink()


@contextlib.contextmanager
def _array_file(path: Path, shape: tuple[int, ...], *, most: int) -> Iterator[Callable[[np.ndarray], object]]:
    """Gives what appends pixels, uint8, to a .npy of rows of a shape, of which there are as many as come, or `most`."""
    with open(path, "wb") as file:
        length = _write_header(file, (most, *shape))

        yield lambda pixels: file.write(np.ascontiguousarray(pixels).data)

        rows = (file.tell() - length) // int(np.prod(shape))
        file.seek(0)
        if _write_header(file, (rows, *shape)) != length:  # NumPy leaves room for a length that grows
            raise RuntimeError(f"the header of {path} has another length for {rows} rows than for {most}")
        file.flush()
        os.fsync(file.fileno())


def _write_header(file: BinaryIO, shape: Sequence[int]) -> int:
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
