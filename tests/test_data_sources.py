"""Images of one's own by folder, CSV, .npz and sources of one's own: what is read, told, kept, and refused."""

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import config_of, png_of_size, write_pictures
from PIL import Image
from refusals import refuses

from eigen_jax.data import DataConfig, DataError, RawDataset, decoded, load_dataset, read_raw, resolve
from eigen_jax.data.sources import SOURCES, Source
from eigen_jax.errors import ConfigError

COUNTS = {"cat": 14, "dog": 21}
SHAPE = "images are of 16 x 16 pixels (as they are), in colours; --image-size chooses another size"


def classes_of(raw: RawDataset) -> list[list[tuple[int, int]]]:
    """Class and number of each image to train on, to validate and to test, as `write_pictures` drew them."""
    parts = (raw.train_images, raw.train_labels), (raw.validation_images, raw.validation_labels)
    seen = []
    for images, labels in (*parts, (raw.test_images, raw.test_labels)):
        assert images is not None
        assert labels is not None
        assert (np.asarray(images[:, 0, 0, 0]) == 10 * labels).all()
        seen.append(list(zip(labels.tolist(), images[:, 8, 8, 1].tolist(), strict=True)))
    return seen


def read(path: Path, tmp_path: Path, **changes) -> RawDataset:
    return read_raw(config_of(path, tmp_path / "cache", **changes))


# --- What is read --------------------------------------------------------------------------------


def test_a_folder_of_classes_is_split_into_three_parts_by_class(tmp_path):
    raw = read(write_pictures(tmp_path / "pets", COUNTS), tmp_path)
    train, validation, test = classes_of(raw)
    assert raw.class_names == ("cat", "dog")
    assert raw.report == (
        f"read 35 images of 2 classes from {tmp_path}/pets: 25 training, 5 validation, 5 test",
        SHAPE,
    )
    for part, quotas in ((train, [10, 15]), (validation, [2, 3]), (test, [2, 3])):
        assert np.bincount([label for label, _ in part]).tolist() == quotas
    assert sorted(train + validation + test) == [(0, n) for n in range(14)] + [(1, n) for n in range(21)]
    # By hand, as a seed's permutation of each class says: those of the test first, by seed 0.
    generator = np.random.RandomState(0)
    drawn = [(0, n) for n in generator.permutation(14)[:2]] + [(1, n) for n in generator.permutation(21)[:3]]
    assert sorted(drawn) == test


def test_the_test_part_does_not_depend_on_the_seed(tmp_path):
    root = write_pictures(tmp_path / "pets", COUNTS)
    first, second = (classes_of(read(root, tmp_path, split_seed=seed)) for seed in (0, 1))
    assert first[2] == second[2]
    assert first[1] != second[1]


def test_sizes_of_parts_can_be_said(tmp_path):
    root = write_pictures(tmp_path / "pets", COUNTS)
    parts = classes_of(read(root, tmp_path, test_size=10, validation_size=5))
    assert [np.bincount([label for label, _ in part]).tolist() for part in parts] == [[8, 12], [2, 3], [4, 6]]


@pytest.mark.parametrize(
    ("folders", "sizes"),
    [
        (("train", "val", "test"), (8, 6, 4)),
        (("Training", "valid", "test"), (8, 6, 4)),
        (("train", "test"), (6, 2, 4)),
        (("train", "validation"), (6, 6, 2)),
    ],
)
def test_folders_of_parts_are_the_parts_and_others_are_drawn(tmp_path, folders, sizes):
    counts = {"test": 2, "val": 3, "valid": 3, "validation": 3}
    for folder in folders:
        write_pictures(tmp_path / "pets" / folder, dict.fromkeys(("cat", "dog"), counts.get(folder, 4)))
    raw = read(tmp_path / "pets", tmp_path)
    assert tuple(map(len, classes_of(raw))) == sizes


def test_hidden_files_are_ignored_and_what_else_is_passed_over_is_told(tmp_path):
    root = write_pictures(tmp_path / "pets", COUNTS | {"cat/deep/er": 2})
    (root / "empty").mkdir()
    (root / "dog" / ".DS_Store").write_text("hidden")
    write_pictures(root, {".cache": 2})
    (root / "readme.txt").write_text("hello")
    raw = read(root, tmp_path)
    assert raw.class_names == ("cat", "dog")
    assert raw.report[2:] == (
        "class 'empty' has no files, and is left out",
        "1 beside the folders of classes passed over: readme.txt",
    )
    assert len(raw.train_labels) + len(raw.test_labels) + len(raw.validation_labels) == 37  # type: ignore[arg-type]


def test_a_test_folder_without_classes_is_left_out(tmp_path):
    write_pictures(tmp_path / "pets", {"train/cat": 7, "train/dog": 7, "test": 3})
    raw = read(tmp_path / "pets", tmp_path)
    assert f"{tmp_path}/pets/test has no folders of classes, and is left out" in raw.report
    assert len(raw.test_labels) == 2


def test_classes_that_are_numbers_are_in_their_order_and_imbalance_is_told(tmp_path):
    raw = read(write_pictures(tmp_path / "digits", {"2": 30, "10": 3}), tmp_path)
    assert raw.class_names == ("2", "10")
    unbalanced = "the classes are unbalanced: '10' 3 images, '2' 30; accuracy tells little of small ones"
    assert unbalanced in raw.report


def test_files_that_cannot_be_read_are_skipped_and_told_with_their_reasons(tmp_path):
    root = write_pictures(tmp_path / "pets", COUNTS)
    for name in "abcd":
        (root / "cat" / f"{name}.txt").write_text("no image")
    whole = (root / "dog" / "000.png").read_bytes()
    (root / "dog" / "half.png").write_bytes(whole[: len(whole) - 30])
    (root / "dog" / "bomb.png").write_bytes(png_of_size(20_000, 20_000))
    (root / "dog" / "gone.png").symlink_to(root / "nowhere")
    os.mkfifo(root / "dog" / "pipe.png")
    raw = read(root, tmp_path)
    (listing,) = (tmp_path / "cache" / "decoded").glob("*/skipped.txt")
    assert raw.report[2:] == (
        "skipped 1: cannot be opened (No such file or directory): dog/gone.png",
        "skipped 1: more than 89,478,485 pixels, which a decompression bomb has: dog/bomb.png",
        "skipped 4: no image that Pillow knows: cat/a.txt, cat/b.txt, cat/c.txt and 1 more",
        "skipped 1: no regular file: dog/pipe.png",
        "skipped 1: truncated or damaged: dog/half.png",
        f"all that was skipped: {listing}",
    )
    assert len(listing.read_text().splitlines()) == 8
    # Those that are left are shared as if the others had never been there.
    again = read(write_pictures(tmp_path / "others", COUNTS), tmp_path)
    assert classes_of(raw) == classes_of(again)
    assert raw.content_hash() == again.content_hash()


def test_a_size_is_chosen_and_a_set_of_grey_pictures_is_grey(tmp_path):
    raw = read(write_pictures(tmp_path / "large", COUNTS, size=(60, 50), mode="L"), tmp_path)
    assert raw.train_images.shape == (25, 48, 48, 1)
    told = "images are of 48 x 48 pixels (chosen by the median of their shorter sides, 50 pixels), grey; --image-size"
    assert raw.report[1] == f"{told} chooses another size"
    assert read(tmp_path / "large", tmp_path, image_size=20).train_images.shape == (25, 20, 20, 1)


def test_one_picture_in_colours_makes_a_set_of_colours(tmp_path, monkeypatch):
    root = write_pictures(tmp_path / "pets", COUNTS, mode="L")
    write_pictures(tmp_path / "more", {"dog": 22})
    shutil.copy(tmp_path / "more" / "dog" / "021.png", root / "dog" / "z.png")
    monkeypatch.setattr(decoded, "_LOOKED_AT", 1)  # which is grey
    assert read(root, tmp_path).train_images.shape[3] == 3


@pytest.mark.parametrize(
    "lines",
    [
        ["file,label", "{cat}", "{dog}"],
        ["{cat}", "{dog}"],
        ["dateiname;art", "{cat}", "{dog}"],
        ["id\tLabel\tFilename", "{cat}", "{dog}"],
    ],
)
def test_a_csv_lists_files_and_labels(tmp_path, lines):
    root = write_pictures(tmp_path / "all", {"x": 14, "y": 21})
    mark = next((mark for mark in ";\t" if mark in lines[0]), ",")

    def listed(label: str, folder: str, count: int) -> list[str]:
        files = [f"{folder}/{number:03d}.png" for number in range(count)]
        return [mark.join(("7", label, file) if mark == "\t" else (file, label)) for file in files]

    content = [*lines[:-2], *listed("cat", "x", 14), *listed("dog", "y", 21), ""]
    (root / "list.csv").write_text("\n".join(content), encoding="utf-8-sig")
    raw = read(root / "list.csv", tmp_path)
    assert raw.class_names == ("cat", "dog")
    assert raw.content_hash() == read(write_pictures(tmp_path / "pets", COUNTS), tmp_path).content_hash()


def test_a_csv_can_say_the_parts_and_what_is_not_there_is_skipped(tmp_path):
    root = write_pictures(tmp_path / "all", {"x": 9, "y": 9})
    parts = ["train"] * 4 + ["val"] * 3 + ["TEST"] * 2
    lines = [f"{folder}/{n:03d}.png,{folder},{part}" for folder in "xy" for n, part in enumerate(parts)]
    lines += ["x/lost.png,x,train", "x/000.png,,train", lines[0]]
    (root / "list.csv").write_text("\n".join(lines))
    raw = read(root / "list.csv", tmp_path)
    assert list(map(len, classes_of(raw))) == [8, 6, 4]
    assert raw.report[2:] == (
        "1 lines list a file again, which is taken once",
        "skipped 1: cannot be opened (No such file or directory): x/lost.png",
        "skipped 1: no file or no label: line 20",
    )


def test_an_npz_is_read_by_the_names_of_its_arrays(tmp_path):
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "one.npz", x_train=images[:28], y_train=labels[:28], x_test=images[28:], y_test=labels[28:])
    raw = read(tmp_path / "one.npz", tmp_path)
    assert raw.class_names == ("0", "1", "2", "3")
    assert (raw.train_images.shape, len(raw.validation_labels)) == ((24, 28, 28, 1), 4)  # type: ignore[arg-type]
    by_hand = sorted(range(28, 40), key=lambda row: (labels[row], row))
    np.testing.assert_array_equal(raw.test_images[..., 0], images[by_hand])
    np.testing.assert_array_equal(raw.test_labels, labels[by_hand])
    named: dict[str, Any] = {"images": np.repeat(images[..., None], 3, axis=3), "class_names": list("abcd")}
    np.savez(tmp_path / "two.npz", labels=labels[:, None].astype(np.uint8), **named)
    raw = read(tmp_path / "two.npz", tmp_path, image_size=14)
    assert (raw.class_names, raw.train_images.shape) == (("a", "b", "c", "d"), (32, 14, 14, 3))
    np.savez(tmp_path / "three.npz", train_images=images, train_labels=np.array(list("wxyz"))[labels])
    assert read(tmp_path / "three.npz", tmp_path).class_names == ("w", "x", "y", "z")


def own_source(config: DataConfig, progress: object) -> RawDataset:
    """A source of one's own: arrays, of 5 x 4 pixels, without a validation part."""
    labels = np.arange(70, dtype=np.int32) % 2
    images = np.random.default_rng(0).integers(0, 256, (70, 5, 4, 1), dtype=np.uint8)
    return RawDataset("images", ("even", "odd"), images, labels, images[:10], labels[:10], report=("made",))


def test_a_source_of_ones_own_is_a_function(tmp_path, caplog):
    config = resolve(config_of(None, tmp_path, source=own_source))
    assert (config.image_shape, config.num_classes) == ((5, 4, 1), 2)
    with caplog.at_level(logging.INFO):
        dataset = load_dataset(config)
    assert "made" in caplog.text
    assert (dataset.train_images.shape, dataset.validation_images.shape) == ((60, 5, 4, 1), (10, 5, 4, 1))
    assert dataset.class_names == ("even", "odd")


MADE = own_source(DataConfig(), None)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (None, "of type NoneType; it must be a RawDataset"),
        (dataclasses.replace(MADE, class_names=("one",)), "with class_names ('one',); there must be two or more"),
        (
            dataclasses.replace(MADE, train_images=MADE.train_images / 255),
            "with train images float64 [70, 5, 4, 1]; they must be uint8 [N, H, W, C], alike in all parts",
        ),
        (
            dataclasses.replace(MADE, test_images=MADE.test_images[:, :4]),
            "with test images uint8 [10, 4, 4, 1]; they must be uint8 [N, H, W, C], alike in all parts",
        ),
        (
            dataclasses.replace(MADE, test_labels=MADE.test_labels[1:]),
            "with test labels int32 [9]; they must be whole numbers [N], from 0 to 1",
        ),
        (
            dataclasses.replace(MADE, validation_images=MADE.test_images, validation_labels=MADE.test_labels + 1),
            "with validation labels int32 [10]; they must be whole numbers [N], from 0 to 1",
        ),
    ],
)
def test_a_source_of_ones_own_that_gives_something_else_gets_one_line(tmp_path, made, line):
    with refuses(DataError, f"the source of your own gives something {line}"):
        read_raw(config_of(None, tmp_path, source=lambda config, progress: made))


def test_a_source_that_is_added_is_named_and_found(tmp_path, monkeypatch):
    source = Source(own_source, lambda path: path.suffix == ".own")
    monkeypatch.setattr(SOURCES, "setdefault", lambda name, entry: entry)  # of the table, nothing changes
    assert SOURCES.add("own", source) is source
    monkeypatch.setitem(SOURCES, "own", source)
    (tmp_path / "x.own").touch()
    for name in ("own", "auto"):
        assert read(tmp_path / "x.own", tmp_path, source=name).class_names == ("even", "odd")


# --- The cache -----------------------------------------------------------------------------------


def test_pictures_are_decoded_once_and_told_of_on_the_way(tmp_path, monkeypatch):
    config, told = config_of(write_pictures(tmp_path / "pets", COUNTS), tmp_path / "cache"), []
    monkeypatch.setattr(decoded, "_CHUNK", 20)
    config = resolve(config, lambda done, total: told.append((done, total)))
    assert told == [(20, 35), (35, 35)]
    assert (config.image_shape, config.num_classes, config.found.train) == ((16, 16, 3), 2, 25)  # type: ignore[union-attr]

    monkeypatch.setattr(decoded, "decode", None)  # which nobody calls
    raw = read_raw(config)
    assert isinstance(raw.train_images, np.memmap)
    (folder,) = (tmp_path / "cache" / "decoded").iterdir()
    assert raw.train_images.filename == folder / "images.npy"
    np.testing.assert_array_equal(load_dataset(config).train_labels, raw.train_labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "cat" / "000.png").unlink(),
        lambda root: os.utime(root / "cat" / "000.png", (1, 1)),
        lambda root: (root / "cat" / "000.png").rename(root / "dog" / "0.png"),
        lambda root: (root / "cat").rename(root / "lion"),
        lambda root: write_pictures(root, {"owl": 7}),
    ],
)
def test_a_folder_that_changed_is_read_again(tmp_path, change):
    root = write_pictures(tmp_path / "pets", COUNTS)
    before = read(root, tmp_path)
    change(root)
    after = read(root, tmp_path)
    assert before.train_images.filename != after.train_images.filename  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_decoded_images_that_are_damaged_are_made_again(tmp_path, caplog, name, content):
    root = write_pictures(tmp_path / "pets", COUNTS)
    whole = read(root, tmp_path).content_hash()
    (path,) = (tmp_path / "cache" / "decoded").glob(f"*/{name}")
    path.unlink() if content is None else path.write_bytes(content)
    assert read(root, tmp_path).content_hash() == whole
    assert f"decoded images in {path.parent} are damaged" in caplog.text


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    root = write_pictures(tmp_path / "pets", COUNTS)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded.os, "fsync", full)
    told = f"cannot write cache folder {tmp_path}/cache: No space left on device; free some space there, then give the"
    with refuses(DataError, f"{told} same command again"):
        read(root, tmp_path)
    monkeypatch.undo()
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []
    left = tmp_path / "cache" / "decoded" / "images-0.partial"
    left.mkdir(parents=True)
    assert len(read(root, tmp_path).train_labels) == 25


# --- What is refused -----------------------------------------------------------------------------


def spoil(root: Path, *names: str) -> Path:
    """Files that are no images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("no image")
    return root


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda root: root.mkdir(),
            "{root} holds no folders with images, one a class; the layout is PATH/CLASS/*.jpg, or PATH/",
        ),
        (lambda root: write_pictures(root, {"cat": 0, "dog": 0}), "{root} holds no folders with images, one a class; "),
        (lambda root: write_pictures(root, {"": 3}), "{root} holds no folders with images, one a class; "),
        (
            lambda root: spoil(root, "a/x", "a/y", "b/z"),
            "{root} holds no image that can be read, of 3 files (3: no image that Pillow knows)",
        ),
        (
            lambda root: write_pictures(root, {"cat": 7}),
            "{root} has one class alone, 'cat'; give pictures of two or more",
        ),
        (
            lambda root: write_pictures(root, {"all/cat": 7, "all/dog": 7}),
            "{root} has one class alone, 'all'; is {root}/all meant?",
        ),
        (
            lambda root: (write_pictures(root, {"all": 7}), (root / "list.csv").touch()),
            "{root} has one class alone, 'all'; is {root}/list.csv meant?",
        ),
        (
            lambda root: write_pictures(root, {"Cat": 7, "cat": 7}),
            "the classes 'Cat' and 'cat' of {root} have one name but for case; make them one, or rename one",
        ),
        (
            lambda root: write_pictures(root, {"train/cat": 7, "train/dog": 7, "test/Dog": 7}),
            "the classes 'Dog' and 'dog' of {root} have one name but for case; ",
        ),
        (
            lambda root: write_pictures(root, {"cat": 7, "dog": 2}),
            "class 'dog' of {root} has 2 training images that can be"
            " read, and needs 3, one each for training, validation, test; add some, or take the class out",
        ),
        (
            lambda root: (write_pictures(root, {"cat": 7, "dog": 2}), spoil(root, "dog/1", "dog/2")),
            "class 'dog' of {root} has 2 training images that can be read, and needs 3, ",
        ),
        (
            lambda root: (write_pictures(root, {"cat": 7}), spoil(root, "dog/1")),
            "class 'dog' of {root} has 0 training images that can be read, and needs 3, ",
        ),
        (
            lambda root: write_pictures(root, {"train/cat": 7, "train/dog": 7, "test/owl": 1}),
            "class 'owl' of {root} has test images and no training images; add some, or take the class out",
        ),
    ],
)
def test_a_folder_that_cannot_be_read_gets_one_line(tmp_path, make, line):
    make(tmp_path / "pets")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "pets", tmp_path)
    assert str(caught.value).startswith(line.format(root=tmp_path / "pets"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("cache/decoded/images-*/*"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "{path} is empty; list a file and its label in each line"),
        (b"a.png\nb.png", "{path} has one column; list a file and its label in each line, with a comma between"),
        (b"a.png,x\nb.png,y", "{path} lists no file that is there; files are told from the folder of the CSV"),
        (b"x/000.png,\xff", "{path} is no CSV in UTF-8 (UnicodeDecodeError); save it as one"),
        (
            b"x/000.png,x,train\nx/001.png,x,later",
            "line 2 of {path} has the part 'later'; choose from train, training, ",
        ),
        (b"x/000.png,x\nx/000.png,y", "line 2 of {path} has x/000.png again, as other than before; list it once"),
        (b"x/000.png,x\nx/001.png,x", "{path} has one class alone, 'x'; give pictures of two or more"),
        (b"x/000.png,x,train\nx/001.png,y,test", "class 'y' of {path} has test images and no training images; "),
        (b"x/000.png,x\nx/001.png,X", "the classes 'X' and 'x' of {path} have one name but for case; "),
    ],
)
def test_a_csv_that_cannot_be_read_gets_one_line(tmp_path, content, line):
    path = write_pictures(tmp_path / "all", {"x": 3}) / "list.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path, tmp_path)
    assert str(caught.value).startswith(line.format(path=path))


IMAGES, LABELS = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 2


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"a": LABELS}, "{path} has a; it must have x_train and y_train, with x_test and y_test, or images"),
        ({"x_train": IMAGES}, "{path} has x_train without y_train; save both"),
        (
            {"images": IMAGES / 255, "labels": LABELS},
            "images of {path} is of dtype float64; images must be uint8, from 0 to",
        ),
        (
            {"images": IMAGES[..., :2], "labels": LABELS},
            "images of {path} has the shape [6, 8, 8, 2]; images must be [N, H, W]",
        ),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images of {path} has the shape [0, 8, 8, 3]; "),
        (
            {"images": IMAGES, "labels": LABELS[:5]},
            "labels of {path} has the shape [5]; it must be [6], one label an image",
        ),
        (
            {"images": IMAGES, "labels": LABELS / 2},
            "labels of {path} is of dtype float64; labels must be whole numbers or texts",
        ),
        (
            {"images": IMAGES, "labels": LABELS - 1},
            "labels of {path} has the label -1; labels must be counted from 0 on",
        ),
        (
            {"images": IMAGES, "labels": LABELS + 1, "class_names": ["a", "b"]},
            "labels of {path} has the label 2; labels must be from 0 to 1, as class_names has 2",
        ),
        (
            {"images": IMAGES, "labels": list("abcabc"), "class_names": ["a", "b"]},
            "labels of {path} has 'c', which class_names does not have",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 1},
            "class '2' of {path} has test images and no training images; ",
        ),
        (
            {"images": np.array([None]), "labels": LABELS},
            "{path} holds Python objects; save arrays of numbers with numpy.savez",
        ),
    ],
)
def test_an_npz_that_cannot_be_read_gets_one_line(tmp_path, arrays, line):
    path = tmp_path / "some.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        read(path, tmp_path)
    assert str(caught.value).startswith(line.format(path=path))


def test_files_that_are_no_npz_get_one_line(tmp_path):
    path = tmp_path / "some.npz"
    for content in (b"", b"damaged", b"PK\x03\x04 damaged"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"^\S+/some.npz (is no whole|holds Python objects|cannot be read)"):
            read(path, tmp_path)
    with open(path, "wb") as file:
        np.save(file, IMAGES)
    with refuses(DataError, f"{path} is a single array; save images and labels with numpy.savez"):
        read(path, tmp_path)


def test_a_folder_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    root = write_pictures(tmp_path / "pets", COUNTS)
    one = decoded.decode

    def changing(*arguments: object, **options: object) -> np.ndarray:
        (root / "cat" / "000.png").unlink(missing_ok=True)
        return one(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(decoded, "decode", changing)
    with refuses(DataError, f"{root} changed while its images were read; let it be, and give the same command again"):
        read(root, tmp_path)
    assert not list(tmp_path.glob("cache/decoded/images-*/*"))


def test_a_folder_that_may_not_be_read_gets_one_line(tmp_path, monkeypatch):
    root = write_pictures(tmp_path / "pets", COUNTS)

    def denied(path: Path) -> object:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    scandir: Callable = os.scandir
    monkeypatch.setattr(os, "scandir", denied)
    with refuses(DataError, f"{root}/dog cannot be read (Permission denied); make it readable"):
        read(root, tmp_path)


@pytest.mark.parametrize(
    ("path", "changes", "line"),
    [
        (
            None,
            {},
            "data_dir is missing; name the folder, the CSV or the .npz of your pictures, or a set of"
            " tensorflow-datasets with source tfds:NAME",
        ),
        (None, {"source": "csv"}, "data_dir is missing; "),
        (None, {"source": "tfds"}, "source is 'tfds'; it must be tfds:NAME, as tfds:mnist"),
        ("lost", {}, "{tmp}/lost does not exist; name the folder, the CSV or the .npz of your pictures"),
        (
            "a.zip",
            {},
            "{tmp}/a.zip is neither a folder, nor a .csv or .tsv, nor an .npz; unpack it, and name the folder",
        ),
        ("a.jpg", {}, "{tmp}/a.jpg is neither a folder, nor a .csv or .tsv, nor an .npz; name one of these"),
        ("a.jpg", {"source": "folder"}, "{tmp}/a.jpg is no folder; name one, or leave the source to be found"),
        ("a.jpg", {"source": "web"}, "there is no source of images 'web'; choose from auto, "),
        ("a.jpg", {"source": "cifar10"}, "there is no source of images 'cifar10'; choose from auto, "),
        (
            "pets",
            {"validation_size": 40},
            "validation_size is 40 of 30 training images; with 2 classes on both sides it must",
        ),
        (
            "pets",
            {"test_size": 1},
            "test_size is 1 of 35 training images; with 2 classes on both sides it must be from 3 to 32",
        ),
        ("parts", {"test_size": 2}, "test_size is 2, but {tmp}/parts has 2 test images of its own: leave it out"),
    ],
)
def test_settings_that_do_not_fit_get_one_line(tmp_path, path, changes, line):
    write_pictures(tmp_path / "pets", COUNTS)
    write_pictures(tmp_path / "parts", {f"{part}/{name}": 1 for part in ("train", "val", "test") for name in "ab"})
    for name in ("a.zip", "a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises((ConfigError, DataError)) as caught:
        read(path and tmp_path / path, tmp_path, **changes)
    assert str(caught.value).startswith(line.format(tmp=tmp_path))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"source": "csv"}, "source is csv, which is for images of your own, and the data are cifar10: leave it out"),
        ({"image_size": 32}, "image_size is 32, which is for images of your own, "),
        (
            {"name": "digits", "test_size": 5},
            "test_size is 5, which is for images of your own, and the data are digits: ",
        ),
        ({"name": "images", "image_size": 4}, "image_size is 4; it must be from 8 to 1,024"),
    ],
)
def test_published_data_have_no_settings_of_images(changes, line):
    with pytest.raises(ConfigError) as caught:
        DataConfig(**changes)
    assert str(caught.value).startswith(line)


def test_nothing_is_known_of_images_that_are_not_read(tmp_path):
    config = config_of(tmp_path, tmp_path)
    for name in ("image_shape", "num_classes"):
        with refuses(ConfigError, "the images are not read yet, so that nothing is known of them; call resolve"):
            getattr(config, name)


def test_any_name_of_a_file_is_told_in_one_line(tmp_path):
    root = write_pictures(tmp_path / "pets", COUNTS)
    Path(os.fsdecode(os.fsencode(root / "cat") + b"/\xff\n.png")).write_text("no image")
    shutil.copytree(root / "dog", Path(os.fsdecode(os.fsencode(root) + b"/ow\xff\nl")))
    raw = read(root, tmp_path)
    assert raw.class_names == ("cat", "dog", "ow\\udcff\\nl")
    assert raw.report[-1] == "skipped 1: no image that Pillow knows: cat/\\udcff\\n.png"
    assert Image.open(root / "dog" / "000.png").size == (16, 16)
