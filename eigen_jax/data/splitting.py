"""Stratified division of a set of images in two."""

import numpy as np

from eigen_jax.data.types import DataConfig, DataError
from eigen_jax.errors import ConfigError


def stratified_split(labels: np.ndarray, size: int, *, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Holds `size` images out, each class in proportion to its number of images.

    Quotas are rounded by largest remainder, so classes of equal size differ by one image at most.
    The drawing uses NumPy's legacy generator, whose stream is frozen: the split of a seed (from 0 to
    2**32 - 1) is the same with every version of NumPy. `labels` are [N] integers in [0, num_classes).

    Returns:
        The positions kept, [N - size], and held out, [size], each int64 and ascending.

    Raises:
        DataError: a class has one image alone.
        ConfigError: `size` leaves a class without an image on one of the two sides.
    """
    counts = np.bincount(labels, minlength=num_classes)
    smallest, total = int(counts.min()), len(labels)
    if smallest < 2:
        raise DataError(f"class {counts.argmin()} has {smallest} training images; a stratified split needs at least 2")
    quotas = _largest_remainder(counts, size)
    if (quotas < 1).any() or (quotas >= counts).any():
        least = -(-total // smallest)
        raise ConfigError(
            DataConfig,
            "{validation_size} is {} of {} training images; with {} classes on both sides it must be from {} to {}",
            *(size, total, num_classes, least, total - least),
        )
    generator = np.random.RandomState(seed)
    held_out = np.zeros(total, bool)
    for label, quota in enumerate(quotas):
        held_out[generator.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _largest_remainder(counts: np.ndarray, size: int) -> np.ndarray:
    """Divides `size` in proportion to `counts`, in whole numbers; ties go to the lower class."""
    total = int(counts.sum())
    quotas = counts * size // total
    remainders = counts * size % total
    quotas[np.argsort(-remainders, kind="stable")[: size - int(quotas.sum())]] += 1
    return quotas
