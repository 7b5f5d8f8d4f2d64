"""Deeply-Supervised Nets: Lee et al. (AISTATS 2015), as in the authors' examples/best_augmented_cifar10_7.97.

In training, companion heads classify from the first convolution of each block, and their losses join that of the
output for the first quarter of the steps; after that, they are dropped.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from eigen_jax.baselines.baseline import BASELINES, Baseline, Published, Recipe
from eigen_jax.baselines.layers import average, xavier
from eigen_jax.baselines.nin import mlpconv_blocks
from eigen_jax.baselines.optimizers import Group, GroupedSGD
from eigen_jax.training import OPTIMIZERS, TrainConfig

_STAGE = 50_000  # steps with companion heads


class DeeplySupervisedNet(nn.Module):
    """The layers of `NetworkInNetwork`, without a ReLU on the maps of the classes, and companion heads if asked for.

    At test, and without heads, it has 966,986 parameters for ten classes and 984,356 for a hundred, on 32 x 32 x 3
    images; with heads, which read whole maps, 3,547,496 and 26,789,456. In training, heads sow their logits, [B, K]
    float32 each, in "companions".
    """

    num_classes: int  # K
    dtype: DTypeLike = jnp.float32  # of the maps
    companions: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """[B, K] float32 logits of images [B, H, W, C], any real dtype."""

        def head(block: int, maps: Array) -> None:
            if self.companions and (train or self.is_initializing()):
                dense = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=xavier, name=f"companion_{block}")
                logits = dense(maps.reshape(maps.shape[0], -1).astype(jnp.float32))
                self.sow("companions", "logits", logits)

        return average(mlpconv_blocks(self, images.astype(self.dtype), self.num_classes, train=train, see=head))


def _fade(config: TrainConfig) -> optax.Schedule:
    """(1 + t / 10,000)^-0.75, of the authors' steps t; the stage of the heads may be shorter than theirs."""
    stage = config.companion_steps

    def factor(step: jax.typing.ArrayLike) -> Array:
        steps = jnp.asarray(step, jnp.float32) * (_STAGE / stage if stage else 1.0)
        return (1 + steps / 10_000) ** -0.75

    return factor


_HEADS = Group("companion_./.*", rate=0.001, fade=_fade)
OPTIMIZERS.add(
    "dsn", GroupedSGD(groups=(Group(".*/bias", rate=2.0, decay=0.0), Group("classifier/.*", rate=0.1), _HEADS))
)
OPTIMIZERS.add("sgd-companions", GroupedSGD(groups=(_HEADS,)))


def _recipe(loss: str) -> Recipe:
    train = TrainConfig(
        batch_size=100,
        optimizer="dsn",
        learning_rate=0.025,
        # To 0.00125 after 100,000 steps of the second stage, which has 120,000, and to 0.0001 in the third.
        decay_steps=(_STAGE + 100_000, _STAGE + 120_000),
        decay_rates=(0.05, 0.08),
        loss=loss,
        companion_steps=_STAGE,
    )
    return Recipe(steps=_STAGE + 120_000 + 30_000, preprocessing="gcn", train=train)


BASELINES.add(
    "dsn",
    Baseline(
        title="Deeply Supervised Nets",
        source='Lee et al., "Deeply-Supervised Nets", AISTATS 2015',
        layers=9,
        module=DeeplySupervisedNet,
        in_training=functools.partial(DeeplySupervisedNet, companions=True),
        recipe=_recipe("squared-hinge"),
        recipe_cifar100=_recipe("cross-entropy"),
        common_optimizer="sgd-companions",
        published=Published(cifar10=0.920, cifar100=0.654),
        exact=(
            "layers, companion heads, pooling, dropout, initial weights",
            "squared hinge losses of equal weight, of the output and of each head; cross-entropy for CIFAR-100",
            "rates and decay of each group of parameters, momentum, batch size, the three stages",
        ),
        decided=(
            "contrast normalization to deviation 1, where the authors had a scale of [0, 1]",
            "padding of 4 pixels",
            "momentum goes on from one stage to the next",
            "under the common recipe, the heads keep a thousandth of the rate, and are trained to the end",
        ),
    ),
)
