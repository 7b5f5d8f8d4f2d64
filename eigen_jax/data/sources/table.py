"""A CSV of files and labels, and if need be of their parts: train, val or test."""

import csv
import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from eigen_jax.data.decoded import decoded
from eigen_jax.data.pictures import PART_NAMES, TRAIN, Pictures, list_pictures
from eigen_jax.data.sources.folder import open_picture, stamp_of
from eigen_jax.data.sources.source import SOURCES, Source, data_dir_of
from eigen_jax.data.types import DataConfig, DataError, Progress, RawDataset

# What the columns of file, label and part are called, in lower case.
_FILE = ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "img", "picture")
_LABEL = ("label", "class", "class_name", "category", "target")
_PART = ("split", "part", "set", "subset")


def list_table(path: Path) -> Pictures:
    """The pictures that a CSV lists, separated by commas, semicolons or tabs, in UTF-8.

    Its columns are found by their names, or are the file, the label and the part, in that order. Files are told from
    the folder of the CSV. One that is listed twice is taken once. Raises DataError where the CSV cannot be read, names
    an unknown part, or gives one file two labels or parts.
    """
    lines = _lines(path)
    header = [cell.strip().lower() for cell in lines[0]]
    has_names = any(name in _FILE for name in header) and any(name in _LABEL for name in header)
    if has_names:
        columns = [next((i for i, name in enumerate(header) if name in known), -1) for known in (_FILE, _LABEL, _PART)]
    else:
        columns = [0, 1, 2 if len(header) > 2 else -1]
        # A header whose names are not known; the first picture may be missing as well.
        has_names = len(lines) > 1 and not _is_there(path, lines[0]) and _is_there(path, lines[1])
    found, skipped = dict[str, tuple[str, int]](), defaultdict[str, list[str]](list)
    rows = list[tuple[str, str, int, str]]()
    for number, cells in enumerate(lines[has_names:], start=1 + has_names):
        file, label, part_name = (cells[i].strip() if 0 <= i < len(cells) else "" for i in columns)
        if not file or not label:
            skipped["no file or no label"].append(f"line {number}")
            continue
        part = PART_NAMES.get(part_name.lower(), TRAIN if not part_name else -1)
        if part < 0:
            known = ", ".join(PART_NAMES)
            raise DataError(f"line {number} of {path} has the part {part_name!r}; choose from {known}")
        before = found.setdefault(file, (label, part))
        if before != (label, part):
            raise DataError(f"line {number} of {path} has {file} again, as other than before; list it once")
        stamp = stamp_of(path.parent / file)
        if stamp.startswith("-"):
            skipped[stamp[1:]].append(file)
        else:
            rows.append((file, label, part, stamp))
    twice = len(rows) - len(set(rows))
    if not rows:
        raise DataError(f"{path} lists no file that is there; files are told from the folder of the CSV")
    report = (f"{twice:,} lines list a file again, which is taken once",) if twice else ()
    open_one = functools.partial(open_picture, path.parent)
    return list_pictures(set(rows), place=str(path), open=open_one, report=report, skipped=dict(skipped))


def _is_there(path: Path, cells: Sequence[str]) -> bool:
    return (path.parent / cells[0].strip()).is_file()


def _lines(path: Path) -> list[list[str]]:
    """The cells of each line that is not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        lines = [cells for cells in csv.reader(text.splitlines(), delimiter=delimiter) if any(cells)]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV in UTF-8 ({type(error).__name__}); save it as one") from error
    if not lines:
        raise DataError(f"{path} is empty; list a file and its label in each line")
    if len(lines[0]) < 2:
        raise DataError(f"{path} has one column; list a file and its label in each line, with a comma between")
    return lines


def _read(config: DataConfig, progress: Progress) -> RawDataset:
    return decoded(functools.partial(list_table, data_dir_of(config)), config, progress)


SOURCES.add("csv", Source(_read, lambda path: path.suffix.lower() in (".csv", ".tsv")))
