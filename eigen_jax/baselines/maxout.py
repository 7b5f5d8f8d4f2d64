"""Maxout: Goodfellow et al., "Maxout Networks" (ICML 2013), as in pylearn2's scripts/papers/maxout/cifar10.yaml."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.baselines.baseline import BASELINES, Baseline, Published, Recipe, epochs
from eigen_jax.baselines.layers import conv, drop, enlarge, max_pool, symmetric_uniform
from eigen_jax.baselines.optimizers import Group, GroupedSGD
from eigen_jax.training import OPTIMIZERS, TrainConfig

_LEAST = 16  # pixels a side, so that the kernels of 8 x 8 pixels have something to see
# Maps that go out, kernel, padding, and the window of the pooling, whose stride is 2.
_CONVOLUTIONS = ((96, 8, 4, 4), (192, 8, 3, 4), (192, 5, 3, 2))
_PIECES = 2  # linear maps that each map of a convolution is the maximum of
_UNITS, _UNIT_PIECES = 500, 5  # of the dense layer
_initial = symmetric_uniform(0.005)


class Maxout(nn.Module):
    """Three convolutions and a dense layer of maxima over pieces, and a linear classifier; no other activation.

    It has 16,247,830 parameters for ten classes and 16,292,920 for a hundred, on 32 x 32 x 3 images. Smaller images are
    enlarged by repeated pixels to at least 16 a side (a decision).
    """

    num_classes: int  # K
    dtype: DTypeLike = jnp.float32  # of the maps

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """[B, K] float32 logits of images [B, H, W, C], any real dtype."""
        x = drop(self, enlarge(images, _LEAST).astype(self.dtype), 0.2, train=train, rescale=False)
        for number, (channels, kernel, pad, window) in enumerate(_CONVOLUTIONS):
            x = drop(self, x, 0.5, train=train) if number else x
            options: dict[str, Any] = {"pad": pad, "dtype": self.dtype, "kernel_init": _initial}
            x = _largest(conv(channels * _PIECES, kernel, name=f"h{number}", **options)(x), _PIECES)
            x = max_pool(x, window, 2)
        x = drop(self, x.reshape(x.shape[0], -1), 0.5, train=train)
        x = nn.Dense(_UNITS * _UNIT_PIECES, dtype=self.dtype, kernel_init=_initial, name="h3")(x)
        x = drop(self, _largest(x, _UNIT_PIECES), 0.5, train=train)
        return nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=_initial, name="classifier")(
            x.astype(jnp.float32)
        )


def _largest(x: Array, pieces: int) -> Array:
    """[..., D * pieces] to [..., D]."""
    return x.reshape(*x.shape[:-1], -1, pieces).max(axis=-1)


OPTIMIZERS.add(
    "maxout",
    GroupedSGD(
        groups=(
            Group(r"h[012]/.*", rate=0.05),
            Group("h0/kernel", max_norm=0.9),
            Group("h[12]/kernel", max_norm=1.9365),
            Group("h3/kernel", max_norm=1.9),
            Group("classifier/kernel", max_norm=1.9365),
        ),
        final_momentum=0.65,
    ),
)

BASELINES.add(
    "maxout",
    Baseline(
        title="Maxout",
        source='Goodfellow et al., "Maxout Networks", ICML 2013',
        layers=5,
        module=Maxout,
        recipe=Recipe(
            steps=epochs(474, 128),
            preprocessing="gcn_zca",
            train=TrainConfig(
                optimizer="maxout",
                learning_rate=0.17,
                schedule="linear",
                decay_steps=(epochs(500, 128),),
                decay_rate=0.01,
                momentum=0.5,
                weight_decay=0.0,
            ),
        ),
        published=Published(cifar10=0.907, cifar100=0.614),
        exact=(
            "layers, pooling, dropout, initial weights",
            "rates, momentum and norms of each layer, batch size, 474 epochs",
            "contrast normalization and whitening; padding of 4 pixels, random windows, mirror images",
        ),
        decided=(
            "crops are drawn anew for each batch, not for each epoch",
            "the rate falls and the momentum rises step by step, from the first step on",
            "CIFAR-100 has the same recipe, augmentation included",
        ),
    ),
)
