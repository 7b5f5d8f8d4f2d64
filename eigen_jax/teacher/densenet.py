"""Wide-DenseNet-BC for small images: Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017).

Dimension letters: B images, H x W x C their maps, K classes.

"B" is for the bottleneck, a 1 x 1 convolution to 4 k maps before each 3 x 3 one; "C" for the compression of the maps
between blocks (Section 3). Initial values and pooling are those of the authors' Torch code. Variables, batch
normalisation, global pooling and the classifier are float32; maps are of the module's dtype.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.layers import BatchNormRelu, Conv
from eigen_jax.teacher.config import TeacherError

_BLOCKS = 3
_initial_kernel = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class DenseNet(nn.Module):
    """Three dense blocks of (depth - 4) / 6 bottlenecks each, global average pooling, linear classifier.

    By default it has 4,261,690 parameters for ten classes and 4,321,180 for a hundred, on colour images.
    """

    num_classes: int  # K
    depth: int = 40  # L, layers with weights: 6 n + 4
    growth: int = 60  # k, maps that each bottleneck adds
    compression: float = 0.5  # share of the maps that a transition keeps
    stem_stride: int = 1  # pixels; 2 halves the maps of all blocks, at a quarter of the cost
    dtype: DTypeLike = jnp.float32  # of the maps
    axis_name: str | None = None  # mapped axis that batch statistics are averaged over

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """[B, K] float32 logits of images [B, H, W, C], any real dtype, with at least 4 pixels a side after the stem.

        With `train`, normalises with the batch's statistics and updates the running ones, which needs
        `mutable=["batch_stats"]`. Raises TeacherError for a depth or a compression that no network has, or such images.
        """
        self._check(images.shape)
        x = _conv(2 * self.growth, 3, stride=self.stem_stride, name="stem")(images.astype(self.dtype))
        for block in range(_BLOCKS):
            if block:
                x = self._transition(x, train=train, name=f"transition_{block - 1}")
            for layer in range((self.depth - 4) // 6):
                x = self._bottleneck(x, train=train, name=f"block_{block}_{layer}")
        x = self._norm_relu(x, train=train, name="norm")
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="classifier")(features)

    def _bottleneck(self, x: Array, *, train: bool, name: str) -> Array:
        """[B, H, W, C] to [B, H, W, C + k]: the maps that came in, and k new ones (Section 3)."""
        y = self._norm_relu(x, train=train, name=f"{name}_norm_1")
        y = _conv(4 * self.growth, 1, name=f"{name}_conv_1")(y)
        y = self._norm_relu(y, train=train, name=f"{name}_norm_2")
        y = _conv(self.growth, 3, name=f"{name}_conv_2")(y)
        return jnp.concatenate([x, y], axis=-1)

    def _transition(self, x: Array, *, train: bool, name: str) -> Array:
        """[B, H, W, C] to [B, H // 2, W // 2, floor(compression C)]; the pooling cuts an odd last row or column."""
        channels = math.floor(self.compression * x.shape[-1])
        if channels < 1:
            raise TeacherError(f"compression is {self.compression}; it leaves none of {x.shape[-1]} maps: raise it")
        y = _conv(channels, 1, name=f"{name}_conv")(self._norm_relu(x, train=train, name=f"{name}_norm"))
        batch, height, width = y.shape[0], y.shape[1] // 2, y.shape[2] // 2
        return y[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels).mean(axis=(2, 4))

    def _norm_relu(self, x: Array, *, train: bool, name: str) -> Array:
        return BatchNormRelu(use_running_average=not train, axis_name=self.axis_name, name=name)(x)

    def _check(self, shape: tuple[int, ...]) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            raise TeacherError(f"depth is {self.depth}; it must be 6 n + 4 for an n of at least 1")
        after_stem = 2 ** (_BLOCKS - 1)  # pixels a side, which the transitions halve to one
        smallest = self.stem_stride * (after_stem - 1) + 1
        if len(shape) != 4 or min(shape[1:3]) < smallest:
            rule = f"the network takes [B, H, W, C] of at least {smallest} pixels a side"
            raise TeacherError(f"images have shape {shape}; {rule}")


def _conv(channels: int, kernel: int, *, name: str, stride: int = 1) -> Conv:
    return Conv(channels, kernel, stride, kernel_init=_initial_kernel, name=name)
