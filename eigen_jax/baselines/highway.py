"""Highway network of 19 layers: Srivastava et al., "Training Very Deep Networks" (NIPS 2015).

As in flukeskywalker/highway-networks, examples/highways/cifar10-19layers and cifar100-19layers.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.baselines.baseline import BASELINES, Baseline, Published, Recipe
from eigen_jax.baselines.layers import average, conv, drop, max_pool, xavier
from eigen_jax.baselines.optimizers import Group, GroupedSGD
from eigen_jax.training import OPTIMIZERS, TrainConfig

_STAGES = ((32, 4), (80, 5), (128, 5))  # maps, and highway layers after the convolution that makes them
_FEATURES = 100  # maps of the last convolution, whatever the number of classes
_FIRST_DEVIATION = 1.0  # of initial weights
_GATE_BIAS = -2.0  # so that inputs pass at first


class Highway(nn.Module):
    """Three stages of a convolution and highway layers, a 1 x 1 convolution, global average pooling, a classifier.

    It has 2,256,838 parameters for ten classes and 2,265,928 for a hundred, on colour images. The first layer's initial
    weights are of deviation 1, which is what Caffe makes of the authors' file: it passes over the 0.05 there, which is
    no deviation by its name. With 0.05, what depends on the image nearly vanishes on the way to the classifier.
    """

    num_classes: int  # K
    dtype: DTypeLike = jnp.float32  # of the maps

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """[B, K] float32 logits of images [B, H, W, C], any real dtype."""
        x = drop(self, images.astype(self.dtype), 0.2, train=train)
        for stage, (maps, depth) in enumerate(_STAGES, 1):
            if stage > 1:
                x = drop(self, max_pool(x, 2, 2), 0.2, train=train)
            initial = nn.initializers.normal(_FIRST_DEVIATION) if stage == 1 else xavier
            x = nn.relu(conv(maps, 3, pad=1, name=f"conv_{stage}", dtype=self.dtype, kernel_init=initial)(x))
            for number in range(1, depth + 1):
                x = self._highway(x, name=f"highway_{stage}_{number}")
        x = nn.relu(conv(_FEATURES, 1, name="conv_4", dtype=self.dtype, kernel_init=xavier)(x))
        x = drop(self, average(x), 0.2, train=train)
        initial = xavier if self.num_classes == 100 else nn.initializers.normal(0.05)
        return nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=initial, name="classifier")(x)

    def _highway(self, x: Array, *, name: str) -> Array:
        """[B, H, W, C] to the same shape: what the layer computes where its gate is open, else what came in."""
        options: dict[str, Any] = {"pad": 1, "dtype": self.dtype, "kernel_init": xavier}
        y = nn.relu(conv(x.shape[-1], 3, name=f"{name}_plain", **options)(x))
        gate = nn.sigmoid(conv(x.shape[-1], 3, name=f"{name}_gate", bias=_GATE_BIAS, **options)(x))
        return y * gate + x * (1 - gate)


OPTIMIZERS.add(
    "highway",
    GroupedSGD(groups=(Group(".*/bias", rate=2.0, decay=0.0), Group("classifier/kernel", decay=10.0))),
)

BASELINES.add(
    "highway-19",
    Baseline(
        title="Highway, 19 layers",
        source='Srivastava et al., "Training Very Deep Networks", NIPS 2015',
        layers=19,
        module=Highway,
        recipe=Recipe(
            steps=200_000,
            preprocessing="gcn_mean",
            train=TrainConfig(
                batch_size=100,
                optimizer="highway",
                learning_rate=0.025,
                decay_steps=(100_000, 150_000, 175_000),
                decay_rate=0.1,
                nesterov=True,
                weight_decay=1e-3,
                pad=8,
            ),
        ),
        published=Published(cifar10=0.923, cifar100=0.676, parameters=2.3e6),
        exact=(
            "layers, gates, pooling, dropout, initial weights",
            "rates and decay of each group of parameters, momentum, batch size, schedule",
            "contrast normalization less the mean image; padding of 8 pixels, random crops, mirror images",
        ),
        decided=(
            "initial weights of the first layer of deviation 1, as Caffe reads the authors' file, which may mean 0.05",
        ),
    ),
)
