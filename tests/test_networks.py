"""Networks in files, and what is told of those that are none or do not fit."""

import pytest

from eigen_jax.architecture import Architecture, ArchitectureError, Layer, to_json
from eigen_jax.data import DataConfig, load_dataset
from experiments.networks import check_takes, read_architecture
from experiments.settings import SettingsError

CONV = Layer(op="conv", inputs=(-1,), channels=2, kernel=3, stride=1)


def test_a_network_comes_back_from_its_file(tmp_path):
    architecture = Architecture(input_shape=(8, 8, 1), layers=(CONV, Layer(op="pool", inputs=(0,))))
    (tmp_path / "genome.json").write_text(to_json(architecture))
    assert read_architecture(tmp_path / "genome.json") == architecture


@pytest.mark.parametrize(
    ("content", "error", "line"),
    [
        (None, SettingsError, "cannot read {path}: No such file or directory; name the genome.json of a network"),
        (b"\xff\xfe", SettingsError, "cannot read {path}: it is no text; name the genome.json of a network"),
        (b"{", ArchitectureError, "{path}: "),
        (b"[]", ArchitectureError, "{path}: "),
    ],
)
def test_a_file_that_is_no_network_gets_one_line_that_names_it(tmp_path, content, error, line):
    path = tmp_path / "genome.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error) as caught:
        read_architecture(path)
    assert str(caught.value).startswith(line.format(path=path))
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_network(tmp_path):
    with pytest.raises(SettingsError, match=r"Is a directory; name the genome\.json of a network$"):
        read_architecture(tmp_path)


def test_a_network_of_other_images_is_refused(tmp_path):
    dataset = load_dataset(DataConfig(name="digits", validation_size=200, cache_dir=tmp_path))
    check_takes(Architecture(input_shape=(8, 8, 1), layers=(CONV,)), dataset)
    with pytest.raises(ArchitectureError) as caught:
        check_takes(Architecture(input_shape=(32, 32, 3), layers=(CONV,)), dataset)
    assert str(caught.value) == (
        "the network takes images of 32 x 32 x 3, and those of digits are 8 x 8 x 1; choose the data set it is for"
    )
