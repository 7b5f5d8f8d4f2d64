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

from eigen_jax.errors import first_line
from eigen_jax.store.files import sha256
from eigen_jax.teacher.config import TeacherError

PyTree = Any


@struct.dataclass
class Ensemble:
    """Networks whose logits are averaged; a `Teacher` that is asked anew for every image. See `make_ensemble`."""

    variables: tuple[PyTree, ...]  # of each member: what its `apply` takes
    networks: tuple[nn.Module, ...] = struct.field(pytree_node=False)  # hashable, equal by value
    fingerprint: str = struct.field(pytree_node=False)  # SHA-256, hexadecimal, of networks and variables

    def __call__(self, examples: Array, views: Array, images: Array) -> Array:
        """[B, K] float32 logits of images [B, H, W, C]; it does not matter whose views they are."""
        del examples, views
        return average_logits(self, images)


def make_ensemble(networks: Sequence[nn.Module], variables: Sequence[PyTree]) -> Ensemble:
    """Makes a teacher of trained networks; raises TeacherError where there are none, or not variables for each.

    They are called as `network.apply(variables, images, train=False)` and give logits. The fingerprint is of what the
    fields of the modules print as, and of every bit of the variables.
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

    return Ensemble(jax.tree.map(jnp.asarray, tuple(variables)), tuple(networks), sha256(parts()))


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
    """Raises TeacherError where a teacher takes other images, (H, W, C), or gives other logits; computes nothing."""
    try:
        logits = jax.eval_shape(average_logits, teacher, jax.ShapeDtypeStruct((2, *image_shape), jnp.float32))
    except (flax.errors.FlaxError, TypeError, ValueError) as error:
        shown = " x ".join(map(str, image_shape))
        raise TeacherError(f"the teacher does not take images of {shown}: {first_line(error)}") from None
    if logits.shape != (2, num_classes):
        problem = f"the teacher gives {logits.shape[-1]} logits an image; the data have {num_classes} classes"
        raise TeacherError(f"{problem}: choose a teacher of these data")
