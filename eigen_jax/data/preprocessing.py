"""Splitting and preprocessing of whole data sets on the host; every statistic is of the training images alone."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from eigen_jax.data.types import DataConfig, DataError
from eigen_jax.errors import ConfigError

Transform = Callable[[np.ndarray], np.ndarray]

VERSION = 1  # part of every cache key: raise it whenever the same images would come out otherwise

_CHUNK = 4096  # images transformed at a time, to bound the float64 copies
_FEW = 256  # as many in float64 stay in a cache of the processor
_CONSTANT_NORM = 1e-8  # an image with less contrast than this is constant but for rounding


def stratified_split(
    labels: np.ndarray, size: int | None, *, num_classes: int, seed: int, setting: str = "validation_size"
) -> tuple[np.ndarray, np.ndarray]:
    """Holds `size` images out, each class in proportion to its number of images; None: `sevenths`.

    `labels` are [N] integers in [0, num_classes). Gives the positions kept, [N - size], and held out, [size], each
    int64 and ascending. Quotas are rounded by largest remainder, so classes of equal size differ by one image at
    most. The stream of NumPy's legacy generator is frozen: a seed's split is the same with every version of NumPy.

    Raises:
        DataError: a class has one image alone.
        ConfigError: `size`, which is the setting of that name, leaves a class without an image on one of the two sides.
    """
    counts = np.bincount(labels, minlength=num_classes)
    smallest, total = int(counts.min()), len(labels)
    if smallest < 2:
        raise DataError(f"class {counts.argmin()} has {smallest} training images; a stratified split needs at least 2")
    if size is None:
        return hold_out(labels, sevenths(counts), seed=seed)
    quotas, remainders = np.divmod(counts * size, total)
    # Ties go to the lower class.
    quotas[np.argsort(-remainders, kind="stable")[: size - int(quotas.sum())]] += 1
    if (quotas < 1).any() or (quotas >= counts).any():
        least = -(-total // smallest)
        rule = f"{{{setting}}} is {{}} of {{}} training images; with {{}} classes on both sides it must be from {{}} to"
        raise ConfigError(DataConfig, f"{rule} {{}}", size, total, num_classes, least, total - least)
    return hold_out(labels, quotas, seed=seed)


def sevenths(counts: np.ndarray) -> np.ndarray:
    """A seventh of each class, rounded, and at least one; of numbers of images, [K]."""
    return np.maximum((2 * counts + 7) // 14, 1)


def hold_out(labels: np.ndarray, quotas: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Holds as many images of each class out as the quotas, [K], say; see `stratified_split`."""
    generator = np.random.RandomState(seed)
    held_out = np.zeros(len(labels), bool)
    for label, quota in enumerate(quotas):
        held_out[generator.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def global_contrast_normalize(images: np.ndarray, *, scale: float = 55.0) -> np.ndarray:
    """Gives every image mean 0 and L2 norm `scale`; a constant one becomes zero. [N, ...] of any real dtype to float64.

    Goodfellow et al., "Maxout Networks" (2013), Section 5.2, and Coates et al. (2011).
    """
    rows = images.reshape(len(images), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows *= np.where(norms < _CONSTANT_NORM, 0.0, scale / np.maximum(norms, _CONSTANT_NORM))
    return rows.reshape(images.shape)


class _Fitted:
    """Equal where all arrays are, as what a data set says of itself must be to be mapped with another one."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return False
        both = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(bool(np.all(one == another)) for one, another in both)

    def __hash__(self) -> int:
        return hash(type(self))


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelTable(_Fitted):
    """A preprocessing by channel, such as `standardize`: what networks see of each value of a pixel."""

    table: np.ndarray  # [256, C] float32

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """[N, H, W, C] uint8 to float32."""
        return self.table[images, np.arange(self.table.shape[1])]


@dataclasses.dataclass(frozen=True, eq=False)
class Whitening(_Fitted):
    """A ZCA whitening of rows x of D pixels, (x - mean) W; without a W, x - mean."""

    mean: np.ndarray  # [D] float64
    matrix: np.ndarray | None = None  # [D, D] float64, W

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Those that there are, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """[N, ...] float64 to float64."""
        rows = images.reshape(len(images), -1) - self.mean
        return (rows if self.matrix is None else rows @ self.matrix).reshape(images.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class ContrastWhitening(_Fitted):
    """`gcn_zca`, `gcn_mean` or `gcn`, fitted: global contrast normalization, then a whitening, if it has a matrix."""

    scale: float  # L2 norm of an image after contrast normalization
    whitening: Whitening

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """[N, H, W, C] uint8 to float32."""
        return _in_chunks(lambda chunk: self.whitening(global_contrast_normalize(chunk, scale=self.scale)), images)


# What networks see of images, [N, H, W, C] uint8 to float32, fitted to the training images.
Preprocessor = ChannelTable | ContrastWhitening


def fit_zca(images: np.ndarray, *, bias: float = 0.1) -> Whitening:
    """Fits a ZCA whitening to images, [N, ...] float64, each a row x of D pixels.

    x becomes (x - mean) W, with W = U diag(1 / sqrt(s + bias)) U^T, where U diag(s) U^T is the covariance, divided
    by N. All D components are kept; the bias bounds the gain of directions with little variance. Krizhevsky,
    "Learning multiple layers of features from tiny images" (2009), Appendix A.
    """
    rows = images.reshape(len(images), -1)
    mean = rows.mean(axis=0)
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _CHUNK):
        centred = rows[start : start + _CHUNK] - mean
        covariance += centred.T @ centred
    eigenvalues, vectors = np.linalg.eigh(covariance / len(rows))
    eigenvalues = np.maximum(eigenvalues, 0.0)  # rounding makes the null space slightly negative
    matrix = (vectors / np.sqrt(eigenvalues + bias)) @ vectors.T
    return Whitening(mean, matrix)


def gcn_zca(train: np.ndarray, *others: np.ndarray, scale: float = 55.0, bias: float = 0.1) -> list[np.ndarray]:
    """Contrast-normalizes all parts, [N, H, W, C] uint8, then whitens them with the ZCA of `train`; float32."""
    whiten = fit_gcn_zca(train, scale=scale, bias=bias)
    return [whiten(part) for part in (train, *others)]


def fit_gcn_zca(train: np.ndarray, *, scale: float, bias: float) -> ContrastWhitening:
    """The preprocessing of `gcn_zca`."""
    return ContrastWhitening(scale, fit_zca(global_contrast_normalize(train, scale=scale), bias=bias))


def fit_gcn(train: np.ndarray, *, scale: float, subtract_mean: bool) -> ContrastWhitening:
    """Global contrast normalization alone, or less the mean of all images of [N, H, W, C] uint8 so normalized."""
    total = np.zeros(train[0].size)
    for start in range(0, len(train), _CHUNK) if subtract_mean else ():
        chunk = global_contrast_normalize(train[start : start + _CHUNK], scale=scale)
        total += chunk.reshape(len(chunk), -1).sum(axis=0)
    return ContrastWhitening(scale, Whitening(total / len(train)))


def standardize(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Gives each channel of `train` mean 0 and standard deviation 1, if not constant; maps as `gcn_zca` does."""
    standardizer = fit_standardizer(train)
    return [standardizer(part) for part in (train, *others)]


def fit_standardizer(train: np.ndarray, rows: np.ndarray | slice = slice(None)) -> ChannelTable:
    """The preprocessing of `standardize`, of those rows of [N, H, W, C] uint8.

    It reads a chunk at a time, but adds as `numpy.std` would add all at once: of any other order, last bits are others,
    and so are all searches.
    """
    channels, values, used = np.arange(train.shape[-1]), np.arange(256)[:, None], np.arange(len(train))[rows]

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, len(used), _FEW):
            yield train[used[start : start + _FEW]].reshape(-1, len(channels))

    count = len(used) * train[0, ..., 0].size
    mean = sum(chunk.sum(axis=0, dtype=np.int64) for chunk in chunks()) / count
    squares, total = (values - mean) ** 2, np.zeros((1, len(channels)))
    for chunk in chunks():
        total = np.add.reduce(np.concatenate([total, squares[chunk, channels]]), axis=0, keepdims=True)
    deviation = np.sqrt(total[0] / count)
    return ChannelTable(((values - mean) / np.where(deviation == 0.0, 1.0, deviation)).astype(np.float32))


def _in_chunks(transform: Transform, images: np.ndarray) -> np.ndarray:
    result = np.empty(images.shape, np.float32)
    for start in range(0, len(images), _CHUNK):
        result[start : start + _CHUNK] = transform(images[start : start + _CHUNK])
    return result
