"""Network in Network: Lin et al. (ICLR 2014), as in the authors' cuda-convnet, folder NIN."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.baselines.baseline import BASELINES, Baseline, Published, Recipe
from eigen_jax.baselines.layers import average, conv, drop, max_pool
from eigen_jax.baselines.optimizers import Group, GroupedSGD
from eigen_jax.training import OPTIMIZERS, TrainConfig

# The kernel of each block's first convolution, with 192 maps, and the maps of the two of 1 x 1 that follow; None: K.
_BLOCKS: tuple[tuple[int, tuple[int, int | None]], ...] = ((5, (160, 96)), (5, (192, 192)), (3, (192, None)))
_MAPS = 192
_STD = 0.05  # of initial weights
_STDS: Mapping[str, float] = {}  # of layers where it is another
_STDS_CIFAR100: Mapping[str, float] = {"conv_1": 0.001, "mlp_1_1": 0.01, "mlp_1_2": 0.01}  # of a hundred classes


class NetworkInNetwork(nn.Module):
    """Three convolutions, each followed by two of 1 x 1, with ReLU everywhere, and global average pooling.

    It has 966,986 parameters for ten classes and 984,356 for a hundred, on colour images.
    """

    num_classes: int  # K
    dtype: DTypeLike = jnp.float32  # of the maps

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """[B, K] float32 logits of images [B, H, W, C], any real dtype."""
        stds = _STDS_CIFAR100 if self.num_classes == 100 else _STDS
        x = mlpconv_blocks(self, images.astype(self.dtype), self.num_classes, stds=stds, train=train)
        return average(nn.relu(x))


def mlpconv_blocks(
    module: nn.Module,
    images: Array,
    num_classes: int,
    *,
    train: bool,
    stds: Mapping[str, float] = _STDS,
    see: Callable[[int, Array], None] = lambda block, maps: None,
) -> Array:
    """Images [B, H, W, C] to maps [B, I, J, K] of the same dtype, one for each class, before their ReLU.

    For `module`'s compact method. `stds` are those of initial weights by layer, where they are others than 0.05; `see`
    is shown the first convolution of each block, from 1, before its ReLU, [B, H, W, 192].
    """

    def layer(x: Array, maps: int, kernel: int, name: str) -> Array:
        initial = nn.initializers.normal(stds.get(name, _STD))
        return conv(maps, kernel, pad=kernel // 2, name=name, dtype=x.dtype, kernel_init=initial)(x)

    x = images
    for block, (kernel, widths) in enumerate(_BLOCKS, 1):
        if block > 1:
            x = drop(module, max_pool(x, 3, 2), 0.5, train=train)
        x = layer(x, _MAPS, kernel, f"conv_{block}")
        see(block, x)
        for number, maps in enumerate(widths, 1):
            name = f"mlp_{block}_{number}" if maps else "classifier"
            x = layer(nn.relu(x), maps or num_classes, 1, name)
        x = nn.relu(x) if block < len(_BLOCKS) else x
    return x


_BIASES = Group(".*/bias", rate=2.0, decay=0.0)
OPTIMIZERS.add("nin", GroupedSGD(groups=(_BIASES, Group("classifier/.*", rate=0.1))))
OPTIMIZERS.add("nin-cifar100", GroupedSGD(groups=(_BIASES,)))


def _recipe(optimizer: str, rate: float, decay: float) -> Recipe:
    train = TrainConfig(
        optimizer=optimizer, learning_rate=rate, decay_steps=(100_000, 110_000), decay_rate=0.1, weight_decay=decay
    )
    return Recipe(steps=120_000, preprocessing="gcn_zca", train=train)


BASELINES.add(
    "nin",
    Baseline(
        title="Network in Network",
        source='Lin et al., "Network in Network", ICLR 2014',
        layers=9,
        module=NetworkInNetwork,
        recipe=_recipe("nin", 0.1, 1e-4),
        recipe_cifar100=_recipe("nin-cifar100", 0.02, 5e-4),
        published=Published(cifar10=0.912, cifar100=0.643),
        exact=(
            "layers, pooling, dropout, initial weights",
            "rates and decay of each group of parameters, the momentum",
            "contrast normalization and whitening",
        ),
        decided=(
            "batches of 128 images",
            "the rate falls at 100,000 and 110,000 of 120,000 steps; the authors waited for the accuracy to stall",
            "no decay of biases",
            "padding of 4 pixels, random crops, mirror images",
        ),
    ),
)
