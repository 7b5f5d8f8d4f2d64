"""A folder of pictures: PATH/CLASS/*, or PATH/train|val|test/CLASS/*, as deep in the folder of a class as they lie."""

import functools
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from eigen_jax.data.decoded import decoded
from eigen_jax.data.pictures import PART_NAMES, TRAIN, Pictures, list_pictures
from eigen_jax.data.sources.source import SOURCES, Source, data_dir_of
from eigen_jax.data.types import DataConfig, DataError, Progress, RawDataset

_LAYOUT = "PATH/CLASS/*.jpg, or PATH/train/CLASS/*.jpg with PATH/val and PATH/test"


def list_folder(root: Path) -> Pictures:
    """The pictures of a folder, the classes named as their folders; hidden files and folders are passed over.

    Raises DataError where the folder cannot be read, or does not hold folders of classes.
    """
    folders, loose = _entries(root)
    report, skipped = list[str](), defaultdict[str, list[str]](list)
    of_part = {name: PART_NAMES[name.lower()] for name in folders if name.lower() in PART_NAMES}
    has_parts = any(part == TRAIN and _entries(root / name)[0] for name, part in of_part.items())
    tops = of_part if has_parts else {"": TRAIN}
    passed = [f"{name}/" for name in folders if has_parts and name not in of_part] + loose
    rows, empty = list[tuple[str, str, int, str]](), dict[str, str]()
    for top, part in tops.items():
        classes, beside = _entries(root / top)
        passed += [f"{top}/{name}" for name in beside if top]
        if not classes:
            report.append(f"{root / top} has no folders of classes, and is left out")
        for name in classes:
            own = list(_files(root / top / name, root, skipped))
            rows += [(file, name, part, stamp) for file, stamp in own]
            if not own:
                empty[name] = f"class {name!r} has no files, and is left out"
    report += [line for name, line in empty.items() if name not in {row[1] for row in rows}]
    if passed:
        report.append(f"{len(passed):,} beside the folders of classes passed over: {', '.join(passed[:3])}")
    if not rows:
        advice = f"the layout is {_LAYOUT}, or a CSV of files and labels"
        raise DataError(f"{root} holds no folders with images, one a class; {advice}")
    if len({row[1] for row in rows}) == 1:
        raise _one_class(root, rows[0][1])
    open_one = functools.partial(open_picture, root)
    return list_pictures(rows, place=str(root), open=open_one, report=tuple(report), skipped=dict(skipped))


def _one_class(root: Path, name: str) -> DataError:
    """With what may be meant in place of the folder."""
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    inner = [root / name] if (root / name).is_dir() and _entries(root / name)[0] else []
    meant = [f"is {path} meant?" for path in (*tables, *inner)] or ["give pictures of two or more"]
    return DataError(f"{root} has one class alone, {name!r}; {meant[0]}")


def open_picture(root: Path, name: str) -> Image.Image:
    """The picture of a name that is told from a folder, not decoded yet; raises as Pillow does."""
    return Image.open(root / name)


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the folders, and of all else, in a folder, but for hidden ones."""
    try:
        with os.scandir(folder) as entries:
            visible = sorted((each.name, each.is_dir()) for each in entries if not each.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); make it readable") from error
    return [name for name, is_folder in visible if is_folder], [name for name, is_folder in visible if not is_folder]


def _files(folder: Path, root: Path, skipped: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """The name from the root, and the stamp, of each file in a folder and those in it; others are told as skipped."""
    folders, files = _entries(folder)
    for file in files:
        name = str((folder / file).relative_to(root))
        stamp = stamp_of(folder / file)
        if stamp.startswith("-"):
            skipped[stamp[1:]].append(name)
        else:
            yield name, stamp
    for each in folders:
        if not (folder / each).is_symlink():  # which may lead back
            yield from _files(folder / each, root, skipped)


def stamp_of(path: Path) -> str:
    """What is another after a file changed; of what is no file, a hyphen and why it cannot be read."""
    try:
        found = path.stat()
    except OSError as error:
        return f"-cannot be opened ({error.strerror})"
    return f"{found.st_size} {found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else "-no regular file"


def _read(config: DataConfig, progress: Progress) -> RawDataset:
    path = data_dir_of(config)
    if not path.is_dir():
        raise DataError(f"{path} is no folder; name one, or leave the source to be found")
    return decoded(functools.partial(list_folder, path), config, progress)


SOURCES.add("folder", Source(_read, Path.is_dir))
