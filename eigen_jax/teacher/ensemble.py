"""An ensemble of Flax modules as one teacher.

Dimension letters: N images of a data set, B of a batch, H x W x C an image, K classes.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array

from eigen_jax.store.files import sha256
from eigen_jax.teacher.config import TeacherError
from eigen_jax.training import Programs, accuracy, predict

PyTree = Any


@struct.dataclass
class Ensemble:
    """Networks whose logits are averaged; a `Teacher` that is asked anew for every image.

    Any Flax module that is called as `network.apply(variables, images, train=False)` and gives
    logits can be a member. Made by `make_ensemble`.
    """

    variables: tuple[PyTree, ...]  # of each member: what its `apply` takes
    networks: tuple[nn.Module, ...] = struct.field(pytree_node=False)  # hashable, equal by value
    fingerprint: str = struct.field(pytree_node=False)  # SHA-256, hexadecimal, of networks and variables

    def __call__(self, examples: Array, views: Array, images: Array) -> Array:
        """[B, K] float32 logits of images [B, H, W, C]; it does not matter whose views they are."""
        del examples, views
        return average_logits(self, images)


def make_ensemble(networks: Sequence[nn.Module], variables: Sequence[PyTree]) -> Ensemble:
    """Makes a teacher of trained networks.

    The fingerprint is of what the fields of the modules print as, and of every bit of the variables.

    Args:
        networks: the modules, at least one.
        variables: of each of them.

    Raises:
        TeacherError: no network, or not one set of variables for each.
    """
    if not networks or len(networks) != len(variables):
        raise TeacherError(f"{len(networks)} networks and {len(variables)} sets of variables; give one for each")

    def parts() -> Iterator[str | np.ndarray]:
        for network, tree in zip(networks, variables, strict=True):
            yield f"{type(network).__module__} {network!r}"
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                array = np.asarray(leaf)
                yield f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
                yield array

    return Ensemble(
        variables=jax.tree.map(jnp.asarray, tuple(variables)), networks=tuple(networks), fingerprint=sha256(parts())
    )


def count_trainable(variables: PyTree) -> int:
    """Trainable values of a network."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def average_logits(teacher: Ensemble, images: Array) -> Array:
    """[B, K] float32, the mean of the members' logits for images [B, H, W, C]."""
    members = zip(teacher.networks, teacher.variables, strict=True)
    return _mean([_member_logits(variables, images, network=network) for network, variables in members])


# A program of its own, which equal networks share, and so compiled once for all members.
@functools.partial(jax.jit, static_argnames="network")
def _member_logits(variables: PyTree, images: Array, *, network: nn.Module) -> Array:
    logits: Any = network.apply(variables, images, train=False)
    return logits.astype(jnp.float32)


@jax.jit
def _mean(logits: list[Array]) -> Array:
    return functools.reduce(jnp.add, logits) / len(logits)


def check_fits(teacher: Ensemble, *, image_shape: tuple[int, ...], num_classes: int) -> None:
    """Checks that a teacher can be asked about images of a data set; computes nothing.

    Args:
        teacher: the ensemble.
        image_shape: (H, W, C) of the images.
        num_classes: K.

    Raises:
        TeacherError: it takes other images, or gives other logits.
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    shown = " x ".join(map(str, image_shape))
    try:
        logits = jax.eval_shape(average_logits, teacher, images)
    except (flax.errors.FlaxError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TeacherError(f"the teacher does not take images of {shown}: {reason}") from None
    if logits.shape != (2, num_classes):
        raise TeacherError(
            f"the teacher gives {logits.shape[-1]} logits an image; the data have {num_classes} classes:"
            " choose a teacher of these data"
        )


def measure_accuracy(
    teacher: Ensemble, images: Array, labels: Array, *, batch_size: int, programs: Programs | None = None
) -> float:
    """The share of images, in [0, 1], whose largest mean logit is the true class's; exact.

    Args:
        teacher: the ensemble.
        images: [N, H, W, C] float32, at least one.
        labels: [N] int32.
        batch_size: images at a time.
        programs: see `predict`.
    """
    ask = functools.partial(predict, images=images, batch_size=batch_size, programs=programs)
    members = zip(teacher.networks, teacher.variables, strict=True)
    return accuracy(np.mean([ask(variables, network=network) for network, variables in members], axis=0), labels)
