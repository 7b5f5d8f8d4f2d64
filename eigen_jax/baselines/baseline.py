"""What is known of each hand-designed network of Table 1, in a table to which anybody can add.

A recipe is a difference from `TrainConfig`'s defaults; "published" are the figures that Table 1 prints.
"""

import dataclasses
from collections.abc import Callable

from flax import linen as nn

from eigen_jax.data.types import Preprocessing
from eigen_jax.registry import Registry
from eigen_jax.training import TrainConfig

CIFAR_IMAGES = 50_000  # which authors' epochs are of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the authors trained a network."""

    steps: int  # of the whole training
    preprocessing: Preprocessing
    train: TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What Table 1 prints of a network; None where it prints nothing."""

    cifar10: float  # test accuracy, a fraction
    cifar100: float
    parameters: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """A network that people designed. Its modules take (num_classes=, dtype=) and are called as all are trained."""

    title: str
    source: str  # where it comes from
    layers: int  # with weights, as its authors count them
    module: Callable[..., nn.Module]
    in_training: Callable[..., nn.Module] | None = None  # with what is dropped after it; None: nothing is
    recipe: Recipe
    recipe_cifar100: Recipe | None = None  # None: the same
    # Under a recipe that is common to all networks, in place of plain SGD.
    common_optimizer: str = "sgd"
    published: Published | None = None  # None: it is no row of the table
    exact: tuple[str, ...]  # what is as its source says
    decided: tuple[str, ...]  # what the sources at hand do not say, or what is another here, and how

    def recipe_for(self, dataset: str) -> Recipe:
        """The authors' recipe for a data set, by its name: that of CIFAR-10 for all but CIFAR-100."""
        return self.recipe_cifar100 or self.recipe if dataset == "cifar100" else self.recipe


BASELINES: Registry[Baseline] = Registry("baseline")


def epochs(count: float, batch_size: int) -> int:
    """Training steps in so many passes over all of CIFAR's training images, in whole batches."""
    return round(count * (CIFAR_IMAGES // batch_size))
