"""Labelled pictures that are listed and not decoded yet, and how they are shared among the parts of a data set."""

import dataclasses
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from eigen_jax.data.preprocessing import hold_out, sevenths, stratified_split
from eigen_jax.data.types import DataConfig, DataError
from eigen_jax.errors import ConfigError
from eigen_jax.store.files import sha256

PARTS = ("training", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
# What folders, and columns of a CSV, call the parts.
PART_NAMES = {"train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST}
PART_NAMES |= dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION)

_SHOWN = 3  # of what is skipped, in a line
_UNBALANCED = 3  # times as many images in the largest class as in the smallest, from which on it is told

Skipped = Mapping[str, Sequence[str]]  # by the reason, what was skipped


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """N pictures of K classes."""

    place: str  # where they are, in messages
    class_names: tuple[str, ...]  # K
    labels: np.ndarray  # [N] int32
    parts: np.ndarray  # [N] int8, each of `PARTS`; what is not there is held out of the training ones
    names: Sequence[str]  # [N], what messages call them
    stamps: Sequence[str]  # [N], of which one is another where a picture is
    open: Callable[[int], Image.Image]  # one of them; raises OSError
    report: tuple[str, ...] = ()  # what is to be told of the listing, a line each
    skipped: Skipped = dataclasses.field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that they are known by."""
        texts = "\0".join((*self.class_names, *self.stamps)).encode(errors="surrogateescape")
        arrays = self.labels.astype("<i4"), self.parts.astype("i1")
        return sha256([f"{len(self.class_names)}", np.frombuffer(texts, np.uint8), *arrays])


def list_pictures(
    rows: Iterable[tuple[str, str, int, str]], *, place: str, open: Callable[[str], Image.Image], **told: object
) -> Pictures:
    """The pictures of rows of name, class, part and stamp, in the order of their parts, classes and names.

    There is one at least. `open` takes a name. Raises DataError where their classes cannot be told apart.
    """
    rows = sorted(((name, _printable(label), part, stamp) for name, label, part, stamp in rows), key=_order)
    class_names = tuple(_in_order({row[1] for row in rows}))
    label_of = {name: label for label, name in enumerate(class_names)}
    names = [row[0] for row in rows]
    pictures = Pictures(
        place=place,
        class_names=class_names,
        labels=np.array([label_of[row[1]] for row in rows], np.int32),
        parts=np.array([row[2] for row in rows], np.int8),
        names=names,
        stamps=[f"{row[0]}\t{row[3]}" for row in rows],
        open=lambda row: open(names[row]),
        **told,  # type: ignore[arg-type]
    )
    check_classes(pictures)
    return pictures


def _order(row: tuple[str, str, int, str]) -> tuple[int, str, str]:
    name, label, part, _ = row
    return part, label, name


def _printable(name: str) -> str:
    """A name as lines of text can have it, whatever the file system allows."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _in_order(names: Iterable[str]) -> list[str]:
    """By number where all are numbers, else by the alphabet."""
    names = sorted(names)
    return sorted(names, key=int) if all(name.isascii() and name.isdigit() for name in names) else names


def check_classes(pictures: Pictures) -> None:
    """Raises DataError where classes differ but in case, there is one alone, or one has no training images."""
    place, names = pictures.place, pictures.class_names
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[unicodedata.normalize("NFC", name).casefold()].append(name)
    for first, *others in alike.values():
        if others:
            problem = f"the classes {first!r} and {others[0]!r} of {place} have one name but for case"
            raise DataError(f"{problem}; make them one, or rename one")
    if len(names) < 2:
        raise DataError(f"{place} has one class alone, {names[0]!r}; give pictures of two or more")
    trained = np.bincount(pictures.labels[pictures.parts == TRAIN], minlength=len(names))
    for row in np.flatnonzero(trained[pictures.labels] == 0)[:1]:
        name, part = names[pictures.labels[row]], PARTS[pictures.parts[row]]
        problem = f"class {name!r} of {place} has {part} images and no training images"
        raise DataError(f"{problem}; add some, or take the class out")


def draw_parts(
    labels: np.ndarray, parts: np.ndarray, config: DataConfig, *, class_names: Sequence[str], place: str
) -> np.ndarray:
    """The part of each picture, [N] int8, with those that are not there held out of the training ones, stratified.

    The test part does not depend on the seed, as published ones do not. By default each is a seventh of each class, and
    at least one image. Raises DataError where a class has too few images, ConfigError where a size does not fit.
    """
    sizes = {TEST: ("test_size", config.test_size, 0)}
    sizes[VALIDATION] = ("validation_size", config.validation_size, config.split_seed)
    drawn = [part for part in sizes if not (parts == part).any()]
    for part, (setting, size, _) in sizes.items():
        if part not in drawn and size is not None:
            rule = f"{{{setting}}} is {{}}, but {{}} has {{}} {PARTS[part]} images of its own: leave it out"
            raise ConfigError(DataConfig, rule, size, place, int((parts == part).sum()))
    counts = np.bincount(labels[parts == TRAIN], minlength=len(class_names))
    if counts.min() < 1 + len(drawn):
        scarce = int(counts.argmin())
        problem = f"class {class_names[scarce]!r} of {place} has {counts[scarce]} training images that can be read"
        needs = ", ".join(PARTS[part] for part in sorted((TRAIN, *drawn)))
        raise DataError(f"{problem}, and needs {1 + len(drawn)}, one each for {needs}; add some, or take the class out")
    parts = parts.copy()
    for part in drawn:
        setting, size, seed = sizes[part]
        rows = np.flatnonzero(parts == TRAIN)
        if size is None:
            _, held_out = hold_out(labels[rows], sevenths(counts), seed=seed)
        else:
            count = len(class_names)
            _, held_out = stratified_split(labels[rows], size, num_classes=count, seed=seed, setting=setting)
        parts[rows[held_out]] = part
    return parts


def tell(
    pictures: Pictures, labels: np.ndarray, parts: np.ndarray, *, size: str, skipped: Skipped, listing: str
) -> tuple[str, ...]:
    """What was read of pictures, a line each; `labels` and `parts` are of those read, `listing` names the skipped."""
    counts = np.bincount(labels, minlength=len(pictures.class_names))
    by_part = [f"{(parts == part).sum():,} {name}" for part, name in enumerate(PARTS)]
    lines = [f"read {len(labels):,} images of {len(counts)} classes from {pictures.place}: {', '.join(by_part)}", size]
    lines += pictures.report
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    if counts[largest] >= _UNBALANCED * counts[smallest]:
        least, most = (f"{pictures.class_names[each]!r} {counts[each]:,}" for each in (smallest, largest))
        lines.append(f"the classes are unbalanced: {least} images, {most}; accuracy tells little of small ones")
    for part in (VALIDATION, TEST):
        lacking = np.setdiff1d(np.arange(len(counts)), labels[parts == part])
        if len(lacking):
            shown = _shorten([repr(pictures.class_names[label]) for label in lacking])
            lines.append(f"{len(lacking)} of the classes have no {PARTS[part]} image: {shown}")
    for reason, names in sorted(skipped.items()):
        lines.append(f"skipped {len(names):,}: {reason}: {_shorten(names)}")
    if any(len(names) > _SHOWN for names in skipped.values()):
        lines.append(f"all that was skipped: {listing}")
    return tuple(lines)


def _shorten(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(_printable, names[:_SHOWN])) + (f" and {more:,} more" if more > 0 else "")
