"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, which need no download."""

import numpy as np
from sklearn.datasets import load_digits

from eigen_jax.data.splitting import stratified_split
from eigen_jax.data.types import RawDataset

_TEST_SIZE = 360
_HIGHEST = 16  # of the published pixel values


def read_digits() -> RawDataset:
    """The digits as 1,437 training and 360 test images, [N, 8, 8, 1] uint8.

    The published set has no test part, so a fixed stratified one is held out here, for good.
    """
    published = load_digits()
    images = np.rint(published.images * (255 / _HIGHEST)).astype(np.uint8)[..., None]
    labels = published.target.astype(np.int32)
    train, test = stratified_split(labels, _TEST_SIZE, num_classes=10, seed=0)
    return RawDataset(
        name="digits",
        class_names=tuple(str(name) for name in published.target_names),
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
    )
