"""The official CIFAR layout: what is read from it, and the line that each bad input gets."""

import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eigen_jax.data import DataConfig, DataError, read_raw
from eigen_jax.data.unpickling import unpickle

ARCHIVES = {"cifar-10-batches-py": "cifar-10-python.tar.gz", "cifar-100-python": "cifar-100-python.tar.gz"}
GIVE_10, GIVE_100 = (f"give the folder that holds {folder} or {archive}" for folder, archive in ARCHIVES.items())


def part(count: int, classes: int, seed: int, *, labels: str) -> dict[bytes, object]:
    """A batch file's content: random pixels, labels that go round the classes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {b"data": pixels, labels.encode(): [index % classes for index in range(count)]}


def write(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def make_set(folder: Path, parts: dict[str, dict[bytes, object]]) -> Path:
    folder.mkdir(parents=True)
    for name, content in parts.items():
        write(folder / name, content)
    return folder


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """A folder with a CIFAR-10 of 5 x 12 training and 10 test images."""
    parts = {f"data_batch_{number}": part(12, 10, number, labels="labels") for number in range(1, 6)}
    parts["test_batch"] = part(10, 10, 6, labels="labels")
    parts["batches.meta"] = {b"label_names": [f"class{index}".encode() for index in range(10)]}
    return make_set(tmp_path / "data" / "cifar-10-batches-py", parts)


@pytest.fixture
def cifar100(tmp_path: Path) -> Path:
    """A folder with a CIFAR-100 of 200 training and 100 test images."""
    parts = {"train": part(200, 100, 0, labels="fine_labels"), "test": part(100, 100, 1, labels="fine_labels")}
    parts["meta"] = {b"fine_label_names": [f"class{index}".encode() for index in range(100)]}
    return make_set(tmp_path / "data 100" / "cifar-100-python", parts)


def read(data_dir: Path, name: str = "cifar10"):
    return read_raw(DataConfig(name=name, data_dir=data_dir))  # type: ignore[arg-type]


def error_of(data_dir: Path, name: str = "cifar10") -> str:
    with pytest.raises(DataError) as caught:
        read(data_dir, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def archive_of(folder: Path, inside: str | None = None, before: Sequence[str] = ()) -> Path:
    """Packs a folder as the official archive, alone in a folder of its own.

    `inside` is what the archive calls it, by default its name; `before` are members that come first.
    """
    path = folder.parents[1] / "packed" / ARCHIVES[folder.name]
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        for name in before:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            file.addfile(member, io.BytesIO())
        file.add(folder, folder.name if inside is None else inside)
    return path


def test_the_folder_itself_its_parent_and_the_archive_hold_the_same(cifar10):
    archive = archive_of(cifar10)
    expected = read(cifar10).content_hash()
    assert all(read(place).content_hash() == expected for place in (cifar10.parent, archive, archive.parent))


OWN = "cifar-10-batches-py"


@pytest.mark.parametrize(
    ("inside", "before"),
    [
        pytest.param(f"./{OWN}", ["./"], id="of the folder that is worked in"),
        pytest.param(OWN, ["pax_global_header", ".DS_Store"], id="stray files first"),
        pytest.param(OWN, [f"._{OWN}", f"{OWN}/", f"{OWN}/._data_batch_1", f"{OWN}/readme.html"], id="packed on a Mac"),
        pytest.param(OWN, ["__MACOSX/", f"__MACOSX/{OWN}/._data_batch_1"], id="packed on a Mac, by the Finder"),
        pytest.param(f"{OWN}/{OWN}", [f"{OWN}/", f"{OWN}/data_batch_1"], id="nested once more"),
        pytest.param(f"data/{OWN}", ["data/"], id="in another folder"),
        pytest.param(".", [], id="without a folder"),
    ],
)
def test_an_archive_is_known_by_its_files_whatever_lies_before_and_around_them(cifar10, inside, before):
    archive = archive_of(cifar10, inside, before)
    expected = read(cifar10).content_hash()
    assert read(archive).content_hash() == read(archive.parent).content_hash() == expected


def test_a_set_is_found_in_a_folder_of_its_name_in_another_one_and_beside_an_empty_one(cifar10, tmp_path):
    expected = read(cifar10).content_hash()
    shutil.copytree(cifar10, tmp_path / "nested" / OWN / OWN)
    (tmp_path / "archive" / OWN).mkdir(parents=True)
    shutil.copy(archive_of(cifar10), tmp_path / "archive" / OWN)
    shutil.copytree(cifar10, tmp_path / "loose")
    (tmp_path / "loose" / OWN).mkdir()
    places = [tmp_path / "nested", tmp_path / "nested" / OWN, tmp_path / "archive", tmp_path / "loose"]
    assert [read(place).content_hash() for place in places] == [expected] * 4


def test_planes_become_channels_and_batches_keep_their_order(cifar10):
    raw = read(cifar10)
    assert raw.class_names == tuple(f"class{index}" for index in range(10))
    assert raw.train_images.shape == (60, 32, 32, 3)
    assert raw.test_images.shape == (10, 32, 32, 3)
    assert (raw.train_images.dtype, raw.train_labels.dtype) == (np.uint8, np.int32)
    third = pickle.loads((cifar10 / "data_batch_3").read_bytes(), encoding="bytes")
    for channel, row, column in ((0, 0, 0), (1, 5, 30), (2, 31, 31)):
        pixel = third[b"data"][7][channel * 1024 + row * 32 + column]
        assert raw.train_images[2 * 12 + 7, row, column, channel] == pixel
    assert raw.train_labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize(
    ("name", "mean", "first"),
    [("cifar10", (0.4914, 0.4822, 0.4465), "airplane"), ("cifar100", (0.5071, 0.4865, 0.4409), "apple")],
)
def test_the_real_sample_has_the_known_statistics(cifar_sample, name, mean, first):
    raw = read(cifar_sample, name)
    assert len(raw.train_images) == 5000
    assert len(raw.test_images) == 1000
    np.testing.assert_allclose(raw.train_images.mean(axis=(0, 1, 2)) / 255, mean, atol=0.01)
    assert (np.bincount(raw.train_labels) == 5000 // len(raw.class_names)).all()
    assert raw.class_names[0] == first


def test_a_pickle_of_python_2_is_read():
    """The official files are Python 2 pickles, where strings are bytes; one is spelt out here."""
    pixels = bytes(range(256)) * 12
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T\x00\x0c\x00\x00" + pixels + b"tbU\x06labels](K\x03eu."
    )
    loaded = unpickle(content, label="batch")
    assert loaded["data"].dtype == np.uint8
    assert loaded["data"].tolist() == [list(pixels)]
    assert loaded["labels"] == [3]


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def as_before_numpy_2(content: bytes) -> bytes:
    """A pickle of protocol 2 or less, with the names that NumPy's modules had."""
    return content.replace(b"cnumpy._core.", b"cnumpy.core.")


def as_it_is(content: bytes) -> bytes:
    return content


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["uint8", "<i8", ">i4", "int16"])
@pytest.mark.parametrize("order", ["C", "F", "reversed"])
def test_integer_arrays_survive_as_numpy_would_read_them(dtype, order, protocol):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    array = array[:, ::-1] if order == "reversed" else np.asarray(array, order=order)
    loaded = unpickle(pickle.dumps({b"data": array}, protocol=protocol), label="batch")["data"]
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize("dtype", ["uint8", "<i8", ">i4"])
@pytest.mark.parametrize(
    ("protocol", "renamed"), [*((protocol, as_it_is) for protocol in PROTOCOLS), (2, as_before_numpy_2)]
)
def test_numpy_scalars_are_read_as_integers(dtype, protocol, renamed: Callable[[bytes], bytes]):
    labels = list(np.array([3, 0, 99]).astype(dtype))
    loaded = unpickle(renamed(pickle.dumps({b"labels": labels}, protocol=protocol)), label="batch")["labels"]
    assert (loaded, {type(label) for label in loaded}) == ([3, 0, 99], {int})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("labelled", [list, np.asarray])
def test_a_set_that_was_written_today_is_the_same(cifar10, protocol, labelled):
    expected = read(cifar10).content_hash()
    for path in cifar10.iterdir():
        content = pickle.loads(path.read_bytes(), encoding="bytes")
        if b"labels" in content:
            content[b"labels"] = labelled(np.array(content[b"labels"]))
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert read(cifar10).content_hash() == expected


class RunsCommand:
    """Pickles to a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("packed", [False, True])
def test_a_hostile_pickle_is_refused_and_not_run(cifar10, packed):
    trace = cifar10 / "trace"
    write(cifar10 / "data_batch_2", {b"data": RunsCommand(f"touch {trace}")})
    place = archive_of(cifar10) if packed else cifar10
    label = f"data_batch_2 in {place}" if packed else f"{cifar10}/data_batch_2"
    assert error_of(place) == (
        f"{label} asks to run 'posix.system', which no CIFAR file needs; nothing in it was run: "
        "get the file from a source that you trust"
    )
    assert not trace.exists()
    # The same file does leave its trace where Python's own unpickler reads it.
    pickle.loads((cifar10 / "data_batch_2").read_bytes())
    assert trace.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("builtins\neval", "numpy\nfromfile", "numpy\nfrombuffer", "numpy\nndarray.tofile", "a\rb\nc"),
        *("numpy.core.multiarray\nfromfile", "numpy._core.numeric\nfrombuffer", "numpy._core.numeric\nscalar"),
    ],
)
def test_only_what_arrays_need_is_allowed(name):
    with pytest.raises(DataError, match="asks to run") as caught:
        unpickle(f"\x80\x02c{name}\n.".encode("latin1"), label="batch")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        # NumPy would take these bytes for pointers to objects.
        b"\x80\x02}(U\x04datacnumpy\nndarray\n(K\x01\x85U\x01OU\x08AAAAAAAAtRu.",
        *(pickle.dumps({b"data": np.array([value])}, protocol=2) for value in (1.5, None, True)),
        *(pickle.dumps({b"data": np.array([value])}, protocol=5) for value in (1.5, None, True)),
        *(pickle.dumps({b"data": value}, protocol=5) for value in (np.float32(1), np.bool_(True), np.str_("x"))),
        # Made over a buffer that is handed in beside the pickle.
        pickle.dumps({b"data": np.arange(3)}, protocol=5, buffer_callback=lambda buffer: None),
    ],
)
def test_arrays_over_a_chosen_buffer_or_of_other_types_are_refused(content):
    with pytest.raises(DataError, match="batch is truncated or damaged"):
        unpickle(content, label="batch")


class Call:
    """What a pickle asks for: a name called, and then given a state."""

    def __init__(self, name: str, arguments: tuple, state: tuple | None = None) -> None:
        self.name, self.arguments, self.state = name, arguments, state


def opcodes(value: object) -> bytes:
    """A value or a call as a part of a pickle of protocol 5."""
    if isinstance(value, Call):
        module, _, name = value.name.rpartition(".")
        called = f"c{module}\n{name}\n".encode() + opcodes(value.arguments) + b"R"
        return called if value.state is None else called + opcodes(value.state) + b"b"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, bytearray):
        return b"\x96" + len(value).to_bytes(8, "little") + value
    return pickle.dumps(value, protocol=3)[2:-1]


def calls(name: str, *arguments: st.SearchStrategy, state: st.SearchStrategy | None = None) -> st.SearchStrategy[Call]:
    """Calls with such arguments, and those of which any one may be something else."""
    either = [argument | ANYTHING for argument in arguments]
    right_or_not = st.tuples(*arguments) | st.tuples(*either)
    return st.builds(Call, st.just(name), right_or_not, st.none() if state is None else state)


ANYTHING = st.sampled_from([0, -1, 1.5, True, None, "C", b"", bytes(8), (), ("i8",)])
BUFFERS = st.sampled_from([b"", bytes(8), bytes(16), bytearray(8), "\0" * 8])
SHAPES = st.sampled_from([(8,), (1,), (-1,), (2, 4), (), (1 << 40,), ("8",)])
CODES, ORDERS = st.sampled_from(["u1", "i8", "u8", "O8", "V8"]), st.sampled_from(["|", "<", ">", "x", 1])
DTYPES = calls("numpy.dtype", CODES, st.just(False), state=st.none() | st.tuples(st.just(3), ORDERS))
ARRAYS = [
    *(calls(f"numpy.{core}.numeric._frombuffer", BUFFERS, DTYPES, SHAPES, st.just("F")) for core in ("core", "_core")),
    *(calls(f"numpy.{core}.multiarray.scalar", DTYPES, BUFFERS) for core in ("core", "_core")),
    calls("numpy.ndarray", SHAPES, DTYPES, BUFFERS),
    calls("numpy._core.multiarray._reconstruct", state=st.tuples(st.just(1), SHAPES, DTYPES, st.booleans(), BUFFERS)),
]


@given(st.one_of(ARRAYS))
def test_whatever_is_asked_of_the_names_that_are_allowed_gives_integers_or_an_error(call):
    try:
        loaded = unpickle(b"\x80\x05}U\x04data" + opcodes(call) + b"s.", label="batch")["data"]
    except DataError:
        return
    assert loaded is None or np.asarray(loaded).dtype.kind in "iu"


def test_every_truncation_of_a_pickle_is_an_error():
    content = pickle.dumps({b"data": np.arange(6, dtype=np.uint8), b"labels": [1, 2]}, protocol=2)
    for length in range(len(content)):
        with pytest.raises(DataError, match="batch is truncated or damaged"):
            unpickle(content[:length], label="batch")


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_truncated_archive(cifar10, kept):
    archive = archive_of(cifar10)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * kept)])
    assert error_of(archive.parent) == f"{archive} is truncated or damaged (EOFError); get the archive again"


def test_what_holds_no_set(tmp_path):
    assert error_of(tmp_path / "no") == f"data folder {tmp_path}/no does not exist; {GIVE_10}"
    assert error_of(tmp_path, "cifar100") == f"{tmp_path} does not hold CIFAR-100; {GIVE_100}"
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"<html>404 Not Found</html>")
    assert error_of(tmp_path) == f"{archive} is truncated or damaged (ReadError); get the archive again"
    assert error_of(archive) == f"{archive} is neither a folder nor a whole archive; {GIVE_10}"


def test_a_file_that_is_truncated_cannot_be_read_or_is_missing(cifar10):
    path = cifar10 / "data_batch_5"
    path.write_bytes(path.read_bytes()[:1000])
    assert error_of(cifar10) == f"{path} is truncated or damaged (UnpicklingError); get the file again"
    path.unlink()
    path.mkdir()
    assert error_of(cifar10) == f"{path} cannot be read (Is a directory)"
    path.rmdir()
    assert error_of(cifar10) == f"{path} is missing; unpack cifar-10-python.tar.gz again"
    archive = archive_of(cifar10)
    assert error_of(archive) == (
        f"data_batch_5 is missing in {archive}, which is no whole cifar-10-python.tar.gz; get the archive again"
    )


def test_one_set_given_for_the_other(cifar10, cifar100):
    archive = archive_of(cifar100)
    places = {cifar100.parent: cifar100, cifar100: cifar100, archive: archive, archive.parent: archive}
    for place, found in places.items():
        assert error_of(place) == f"{found} holds CIFAR-100, not CIFAR-10; {GIVE_10}"
    assert error_of(cifar10.parent, "cifar100") == f"{cifar10} holds CIFAR-10, not CIFAR-100; {GIVE_100}"
    # Files of the wrong set under the right names.
    shutil.copy(cifar10 / "data_batch_1", cifar100 / "train")
    assert error_of(cifar100, "cifar100") == f"{cifar100}/train holds CIFAR-10, not CIFAR-100; {GIVE_100}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": np.zeros((12, 3071), np.uint8)}, "holds images uint8 [12, 3071]; they must be uint8 [N, 3072]"),
        ({b"data": np.zeros((12, 3072), np.int16)}, "holds images int16 [12, 3072]; they must be uint8 [N, 3072]"),
        ({b"data": [1, 2]}, "holds images of type list; they must be a uint8 array [N, 3072]"),
        ({b"labels": [0] * 11}, "holds 12 images and 11 labels; it must hold one label an image"),
        ({b"labels": [0] * 11 + [10]}, "holds the label 10; CIFAR-10 has labels 0 to 9"),
        ({b"labels": [-1] + [0] * 11}, "holds the label -1; CIFAR-10 has labels 0 to 9"),
        ({b"labels": [0.5] * 12}, "holds labels that are not a list of integers; get the file again"),
        ({b"labels": [[0], [1, 2]]}, "holds labels that are not a list of integers; get the file again"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": np.zeros(0, np.int64)}, "holds no image; get it again"),
    ],
)
def test_content_that_cannot_be(cifar10, change, message):
    path = cifar10 / "data_batch_1"
    write(path, part(12, 10, 0, labels="labels") | change)
    assert error_of(cifar10).startswith(f"{path} {message}")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data_batch_1", {b"labels": [0]}, "has no 'data'; it is not a CIFAR-10 file: get it again"),
        ("batches.meta", [1, 2], "holds a list, not CIFAR's dictionary; get the file again"),
        ("batches.meta", {b"label_names": [b"cat"]}, "does not name 10 classes; it is not CIFAR-10's: get it again"),
    ],
)
def test_dictionaries_that_cannot_be(cifar10, file, content, message):
    write(cifar10 / file, content)
    assert error_of(cifar10) == f"{cifar10}/{file} {message}"
