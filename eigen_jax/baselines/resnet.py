"""ResNet for CIFAR: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), Section 4.2."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.baselines.baseline import BASELINES, Baseline, Published, Recipe
from eigen_jax.baselines.layers import average, conv
from eigen_jax.layers import BatchNormRelu
from eigen_jax.training import TrainConfig

_MAPS = (16, 32, 64)  # of each stage
_initial = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet(nn.Module):
    """A convolution and three stages of (depth - 2) / 6 blocks of two, global average pooling, a linear classifier.

    Shortcuts are those without parameters (option A). At 110 layers it has 1,727,962 parameters for ten classes and
    1,733,812 for a hundred, on colour images. Running statistics move a tenth of the way, as in all of the project; the
    classifier's initial weights are Flax's (a decision).
    """

    num_classes: int  # K
    depth: int = 110  # layers with weights: 6 n + 2
    dtype: DTypeLike = jnp.float32  # of the maps
    axis_name: str | None = None  # mapped axis that batch statistics are averaged over

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """[B, K] float32 logits of images [B, H, W, C], any real dtype.

        With `train`, normalises with the batch's statistics and updates the running ones, which needs
        `mutable=["batch_stats"]`.
        """
        x = self._conv(images.astype(self.dtype), _MAPS[0], 1, "stem")
        x = self._norm_relu(x, train=train, name="stem_norm")
        for stage, maps in enumerate(_MAPS, 1):
            for block in range(1, (self.depth - 2) // 6 + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                x = self._block(x, maps, stride, train=train, name=f"block_{stage}_{block}")
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="classifier")(average(x))

    def _block(self, x: Array, maps: int, stride: int, *, train: bool, name: str) -> Array:
        """[B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), maps]."""
        y = self._norm_relu(self._conv(x, maps, stride, f"{name}_conv_1"), train=train, name=f"{name}_norm_1")
        y = self._conv(y, maps, 1, f"{name}_conv_2")
        y = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            dtype=jnp.float32,
            axis_name=self.axis_name,
            name=f"{name}_norm_2",
        )(y.astype(jnp.float32)).astype(y.dtype)
        shortcut = x[:, ::stride, ::stride]
        return nn.relu(y + jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, maps - x.shape[-1]))))

    def _conv(self, x: Array, maps: int, stride: int, name: str) -> Array:
        options: dict[str, Any] = {"pad": 1, "stride": stride, "bias": None, "kernel_init": _initial}
        return conv(maps, 3, name=name, dtype=self.dtype, **options)(x)

    def _norm_relu(self, x: Array, *, train: bool, name: str) -> Array:
        return BatchNormRelu(use_running_average=not train, axis_name=self.axis_name, name=name)(x)


_TRAIN = TrainConfig(decay_steps=(32_000, 48_000), decay_rates=(0.1, 0.1), weight_decay=1e-4)


def _add(depth: int, train: TrainConfig, published: Published | None = None, *, decided: tuple[str, ...] = ()) -> None:
    BASELINES.add(
        f"resnet-{depth}",
        Baseline(
            title=f"ResNet-{depth}",
            source='He et al., "Deep Residual Learning for Image Recognition", CVPR 2016',
            layers=depth,
            module=functools.partial(ResNet, depth=depth),
            recipe=Recipe(steps=64_000, preprocessing="standardize", train=train),
            published=published,
            exact=("layers, shortcuts without parameters, initial weights of convolutions",),
            decided=(
                "64,000 steps of 128 images, a tenth of the rate from 32,000 and a hundredth from 48,000 on",
                "mean and deviation of each channel, as in the authors' Torch code; the paper subtracts a mean image",
                "momentum without Nesterov's look ahead, as in the paper; the Torch code has it",
                "padding of 4 pixels, random crops, mirror images",
                "initial weights of the classifier: Flax's",
                *decided,
            ),
        ),
    )


_add(20, _TRAIN)
_add(56, _TRAIN)
_add(
    110,
    dataclasses.replace(
        _TRAIN, learning_rate=0.01, decay_steps=(400, *_TRAIN.decay_steps), decay_rates=(10.0, *_TRAIN.decay_rates)
    ),
    Published(cifar10=0.934, cifar100=0.728, parameters=1.7e6),
    decided=("a tenth of the rate for the first 400 steps, where the authors waited for an error below 80 %",),
)
