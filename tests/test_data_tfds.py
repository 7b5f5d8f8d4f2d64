"""CIFAR through tensorflow-datasets, with an archive in the official binary layout made here."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums

from eigen_jax.data import DataConfig, DataError, read_raw, tfds_source

URL = {f"cifar{count}": f"https://www.cs.toronto.edu/~kriz/cifar-{count}-binary.tar.gz" for count in (10, 100)}
CLASSES = {"cifar10": 10, "cifar100": 100}
TRAIN, TEST = 200, 100


def random_part(name: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, np.arange(count) * 7 % CLASSES[name]


def records(name: str, images: np.ndarray, labels: np.ndarray) -> bytes:
    """A label, after the coarse one in CIFAR-100; then the red, the green and the blue plane."""
    content = b""
    for image, label in zip(images, labels, strict=True):
        planes = b"".join(image[..., channel].tobytes() for channel in range(3))
        content += (bytes([label // 5, label]) if name == "cifar100" else bytes([label])) + planes
    return content


def write_archive(name: str, cache_dir: Path) -> Path:
    """Puts the archive where tensorflow-datasets looks for what a user has downloaded by hand."""
    train, test = (records(name, *random_part(name, *part)) for part in ((TRAIN, 0), (TEST, 1)))
    names = "\n".join(f"class{index}" for index in range(CLASSES[name])).encode()
    if name == "cifar100":
        coarse = "\n".join(f"coarse{index}" for index in range(20)).encode()
        files = {"train.bin": train, "test.bin": test, "fine_label_names.txt": names, "coarse_label_names.txt": coarse}
        folder = "cifar-100-binary"
    else:
        size = len(train) // 5
        files = {f"data_batch_{i + 1}.bin": train[i * size : (i + 1) * size] for i in range(5)}
        files |= {"test_batch.bin": test, "batches.meta.txt": names + b"\n\n"}
        folder = "cifar-10-batches-bin"
    path = cache_dir / "tensorflow_datasets" / "downloads" / "manual" / URL[name].rpartition("/")[2]
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def expect_checksum(monkeypatch):
    """Makes tensorflow-datasets expect the checksum of a file at hand, in place of the official one's."""

    def expect(name: str, path: Path) -> None:
        found = checksums.compute_url_info(path)
        info = checksums.UrlInfo(size=found.size, checksum=found.checksum, filename=path.name)
        monkeypatch.setattr(checksums, "get_all_url_infos", lambda: {URL[name]: info})

    return expect


def error_of(config: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        read_raw(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_an_archive_is_prepared_once_and_then_kept_decoded(tmp_path, expect_checksum, monkeypatch, name):
    expect_checksum(name, write_archive(name, tmp_path))
    config = DataConfig(name=name, cache_dir=tmp_path)
    raw = read_raw(config)
    for part, images, labels in (
        ((TRAIN, 0), raw.train_images, raw.train_labels),
        ((TEST, 1), raw.test_images, raw.test_labels),
    ):
        expected_images, expected_labels = random_part(name, *part)
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)
    assert (raw.train_images.dtype, raw.train_labels.dtype) == (np.uint8, np.int32)
    assert raw.class_names == tuple(f"class{index}" for index in range(CLASSES[name]))

    assert "tensorflow" not in sys.modules

    # Prepared by our builder, read by the stock one, which has never heard of us.
    stock = tfds.data_source(name, data_dir=tmp_path / "tensorflow_datasets", download=False, split="train")
    example = stock[0]
    position = int(example["id"].decode().removeprefix("train_"))
    np.testing.assert_array_equal(example["image"], raw.train_images[position])
    assert example["label"] == raw.train_labels[position]

    def refuse(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr(tfds_source, "read_tfds", refuse)
    again = read_raw(config)
    assert again.content_hash() == raw.content_hash()
    assert again.class_names == raw.class_names


def test_no_data_and_no_network_or_no_folder_for_it(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "head", unreachable)
    assert error_of(DataConfig(name="cifar100", cache_dir=tmp_path)) == (
        f"no data for cifar100: {URL['cifar100']} cannot be reached "
        "(ConnectionError); connect to the network and it is downloaded, or give --data-dir with the official "
        "python-version folder or archive, or run `python -m experiments.digits`, which needs neither"
    )
    (tmp_path / "file").write_text("in the way")
    assert error_of(DataConfig(name="cifar10", cache_dir=tmp_path / "file")) == (
        f"cache folder {tmp_path}/file cannot be written (Not a directory); name another"
    )


def test_an_archive_with_a_wrong_checksum_or_that_is_cut_short(tmp_path, expect_checksum):
    path = write_archive("cifar10", tmp_path)
    config = DataConfig(name="cifar10", cache_dir=tmp_path)
    assert error_of(config) == (
        f"the archive of cifar10 in {tmp_path}/tensorflow_datasets/downloads has a wrong checksum; "
        "delete that folder and start again"
    )
    path.write_bytes(path.read_bytes()[:5000])
    expect_checksum("cifar10", path)
    assert error_of(config) == f"{path} is truncated or damaged (EOFError); delete it and start again"


def test_prepared_files_that_are_damaged(tmp_path, expect_checksum):
    expect_checksum("cifar10", write_archive("cifar10", tmp_path))
    config = DataConfig(name="cifar10", cache_dir=tmp_path)
    read_raw(config)
    (tmp_path / "decoded" / "cifar10.npz").unlink()
    prepared = tmp_path / "tensorflow_datasets" / "cifar10" / "3.0.2"
    for shard in prepared.glob("*train*"):
        shard.write_bytes(shard.read_bytes()[:1000])
    message = error_of(config)
    assert message.startswith(f"the prepared cifar10 in {prepared} cannot be read (")
    assert message.endswith("); delete that folder, and it is made again")


class PetsOfTests(tfds.core.GeneratorBasedBuilder):
    """A set of pictures of several sizes, with a part to test, one that is passed over, and none to validate."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel(names=["dog", "cat"])
        features = tfds.features.FeaturesDict({"picture": tfds.features.Image(), "kind": label})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("picture", "kind"))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(count) for name, count in (("train", 14), ("test", 4), ("extra", 2))}

    def _generate_examples(self, count: int):
        for number in range(count):
            png = io.BytesIO()
            Image.new("RGB", (20 + number, 30), (100 * (number % 2), 0, 0)).save(png, format="png")
            png.seek(0)
            yield number, {"picture": png, "kind": ["dog", "cat"][number % 2]}


class WordsOfTests(PetsOfTests):
    """A set without pictures."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))


def of_tfds(name: str, cache_dir: Path) -> DataConfig:
    return DataConfig(name="images", source=f"tfds:{name}", cache_dir=cache_dir, validation_size=None)


def test_any_set_of_pictures_is_read_by_its_name(tmp_path):
    raw = read_raw(of_tfds("pets_of_tests", tmp_path))
    assert raw.class_names == ("cat", "dog")
    assert raw.validation_labels is not None
    assert [len(raw.train_labels), len(raw.validation_labels), len(raw.test_labels)] == [12, 2, 4]
    assert raw.train_images.shape == (12, 24, 24, 3)
    for images, labels in ((raw.train_images, raw.train_labels), (raw.test_images, raw.test_labels)):
        assert (images[:, 12, 12, 0] == np.where(labels == 0, 100, 0)).all()
    told = "read 18 images of 2 classes from pets_of_tests of tensorflow-datasets: 12 training, 2 validation, 4 test"
    assert raw.report[0] == told
    assert "tensorflow" not in sys.modules


def test_cifar_is_a_set_of_pictures_as_well(tmp_path, expect_checksum):
    expect_checksum("cifar10", write_archive("cifar10", tmp_path))
    raw = read_raw(of_tfds("cifar10", tmp_path))
    assert raw.train_images.shape[1:] == (32, 32, 3)
    images, labels = random_part("cifar10", TEST, 1)
    published = sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))
    read = sorted((int(label), image.tobytes()) for image, label in zip(raw.test_images, raw.test_labels, strict=True))
    assert read == published


def test_sets_that_cannot_be_read_get_one_line(tmp_path, monkeypatch):
    line = "there is no set 'pets_of_test' in tensorflow-datasets; did you mean pets_of_tests?"
    assert error_of(of_tfds("pets_of_test", tmp_path)) == line
    line = "words_of_tests of tensorflow-datasets is no set of images with a class each; choose another"
    assert error_of(of_tfds("words_of_tests", tmp_path)) == line
    line = "coco of tensorflow-datasets cannot be used without TensorFlow (ModuleNotFoundError: No module named "
    assert error_of(of_tfds("coco", tmp_path)).startswith(line)
    monkeypatch.setattr(PetsOfTests, "_split_generators", lambda self, dl_manager: 1 / 0)
    line = "pets_of_tests of tensorflow-datasets cannot be prepared or read here (ZeroDivisionError: division by zero)"
    assert error_of(of_tfds("pets_of_tests", tmp_path)).startswith(f"{line}; prepare it where TensorFlow is installed,")
    assert not (tmp_path / "decoded").exists()
