"""All-CNN-C: Springenberg et al., "Striving for Simplicity: The All Convolutional Net" (ICLR 2015 workshop)."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.baselines.baseline import BASELINES, Baseline, Published, Recipe, epochs
from eigen_jax.baselines.layers import average, conv, drop, enlarge
from eigen_jax.training import TrainConfig

_LEAST = 16  # pixels a side, so that the convolution without padding has a map to read
# Maps, kernel, stride, padding; after those of stride 2 comes dropout.
_CONVOLUTIONS = (
    *((96, 3, 1, 1), (96, 3, 1, 1), (96, 3, 2, 1)),
    *((192, 3, 1, 1), (192, 3, 1, 1), (192, 3, 2, 1)),
    *((192, 3, 1, 0), (192, 1, 1, 0)),
)


class AllCNN(nn.Module):
    """Nine convolutions with ReLU, of which two have stride 2 in place of pooling, and global average pooling.

    It has 1,369,738 parameters for ten classes and 1,387,108 for a hundred, on colour images. Images of less than 16
    pixels a side are enlarged by repeated pixels to at least so many (a decision). Initial weights are those of
    `NetworkInNetwork` (a decision: the paper's were not found). With those of He et al. (2015), whose last layer is of
    twice the deviation, all maps of classes fall below their ReLU within some 50 steps, and nothing is learned.
    """

    num_classes: int  # K
    dtype: DTypeLike = jnp.float32  # of the maps

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """[B, K] float32 logits of images [B, H, W, C], any real dtype."""
        x = drop(self, enlarge(images, _LEAST).astype(self.dtype), 0.2, train=train)
        for number, (maps, kernel, stride, pad) in enumerate((*_CONVOLUTIONS, (self.num_classes, 1, 1, 0)), 1):
            x = conv(
                maps,
                kernel,
                stride=stride,
                pad=pad,
                name=f"conv_{number}" if number <= len(_CONVOLUTIONS) else "classifier",
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.05),
            )(x)
            x = nn.relu(x)
            x = drop(self, x, 0.5, train=train) if stride == 2 else x
        return average(x)


BASELINES.add(
    "all-cnn-c",
    Baseline(
        title="All-CNN-C",
        source='Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop',
        layers=9,
        module=AllCNN,
        recipe=Recipe(
            steps=epochs(350, 128),
            preprocessing="gcn_zca",
            train=TrainConfig(
                learning_rate=0.05,
                decay_steps=(epochs(200, 128), epochs(250, 128), epochs(300, 128)),
                decay_rate=0.1,
                weight_decay=0.001,
                pad=5,
            ),
        ),
        published=Published(cifar10=0.928, cifar100=0.663, parameters=1.3e6),
        exact=(
            "layers, dropout; ReLU on the last layer as well",
            "momentum, 350 epochs with a tenth of the rate after 200, 250 and 300",
            "contrast normalization and whitening",
        ),
        decided=(
            "batches of 128 images",
            "the rate 0.05, of the four that the authors chose from",
            "weight decay 0.001, as one source has it; another has 0.0005",
            "initial weights of deviation 0.05, as of Network in Network",
            "shifts of up to 5 pixels, mirror images",
        ),
    ),
)
