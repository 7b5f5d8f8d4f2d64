"""What a network is saved with to take new pictures: the same images as in its search, or one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from refusals import refuses

from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.data.loading import read_raw
from eigen_jax.processor import ImageProcessor, ProcessorError, has_processor, load_processor, save_processor

ADVICE = "`python -m experiments.evaluate RUN`, with the data, makes it anew"


def digits(preprocessing, folder: Path) -> tuple[Dataset, np.ndarray]:
    """The data set, and its test images as pixels."""
    config = DataConfig(name="digits", validation_size=237, preprocessing=preprocessing, cache_dir=folder)
    return load_dataset(config), read_raw(config).test_images


@pytest.mark.parametrize("preprocessing", ["standardize", "gcn_zca", "gcn", "gcn_mean"])
def test_what_is_read_again_makes_the_images_of_the_search_to_the_last_bit(tmp_path, preprocessing):
    dataset, pixels = digits(preprocessing, tmp_path / "cache")
    assert not has_processor(tmp_path)
    save_processor(tmp_path, ImageProcessor.of(dataset))
    assert has_processor(tmp_path)
    processor = load_processor(tmp_path)
    assert processor.class_names == tuple("0123456789")
    assert (processor.image_shape, processor.dataset) == ((8, 8, 1), "digits")
    images = processor(pixels)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images.view(np.int32), np.asarray(dataset.test_images).view(np.int32))


def test_images_of_arrays_have_numbers_for_names_and_no_preprocessing(tmp_path):
    part = np.zeros((3, 2, 5, 1)), np.array([0, 2, 1])
    save_processor(tmp_path, ImageProcessor.of(Dataset.from_arrays(part, part, part)))
    processor = load_processor(tmp_path)
    assert (processor.class_names, processor.image_shape) == (("0", "1", "2"), (2, 5, 1))
    with pytest.raises(ProcessorError, match=r"nothing says how the pixels of arrays became images.*preprocess"):
        processor(np.zeros((1, 2, 5, 1), np.uint8))


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8, 1), np.uint8), ((2, 8, 8, 3), np.uint8), ((2, 8, 8, 1), float)])
def test_pixels_of_another_form_are_refused(tmp_path, shape, dtype):
    processor = ImageProcessor.of(digits("standardize", tmp_path)[0])
    line = f"pictures are {np.dtype(dtype)} of shape {shape}; this network takes uint8 of shape (N, 8, 8, 1)"
    with refuses(ProcessorError, line):
        processor(np.zeros(shape, dtype))


def test_what_is_missing_or_damaged_gets_one_line_that_says_how_it_is_made(tmp_path):
    with refuses(ProcessorError, f"cannot read {tmp_path}/processor.json: No such file or directory; {ADVICE}"):
        load_processor(tmp_path)
    save_processor(tmp_path, ImageProcessor.of(digits("standardize", tmp_path / "cache")[0]))
    record, arrays = tmp_path / "processor.json", tmp_path / "preprocessing.safetensors"
    whole = arrays.read_bytes()
    for content, problem in ((whole[:-1] + b"\x7f", "is damaged"), (whole[:20], "it is no safetensors file")):
        arrays.write_bytes(content)
        with pytest.raises(ProcessorError, match=rf"{problem}; .*makes it anew$"):
            load_processor(tmp_path)
    arrays.unlink()
    with refuses(ProcessorError, f"cannot read {arrays}: No such file or directory; {ADVICE}"):
        load_processor(tmp_path)
    record.write_text(json.dumps({**json.loads(record.read_text()), "image_shape": [8, 0, 1]}))
    with pytest.raises(ProcessorError, match=r"processor.json is damaged \(.*\); .*makes it anew$"):
        load_processor(tmp_path)
