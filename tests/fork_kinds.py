"""A fork's file: a kind of layer with a choice of strings and one of fractions, and an operator that follows from none.

Importing it registers both, as a user's own file does.
"""

import jax.numpy as jnp

from eigen_jax.genome import OPERATORS, Operator
from eigen_jax.layer_kinds import Choice, LayerKind, Look, register
from eigen_jax.mutation.selection import uniform_index


def _parameters(widths, values):
    return widths[0] if values.activation == "scaled" else 0 * widths[0]


def _layer(inputs, values, *, norm, name):
    from flax import linen as nn

    class Activation(nn.Module):
        """The function of each pixel, scaled by channel or not."""

        @nn.compact
        def __call__(self, x):
            if values.activation == "tanh":
                return jnp.tanh(values.slope * x)
            scale = self.param("scale", nn.initializers.constant(values.slope), x.shape[-1:], jnp.float32)
            return x * scale[None, None, None].astype(x.dtype)

    del norm
    return Activation(name=name)(*inputs)


def _look(values, width):
    return Look(text=values.activation, label=f"{values.activation}\n{width}")


register(
    LayerKind(
        name="activation",
        choices=(Choice("activation", ("tanh", "scaled")), Choice("slope", (0.5, 1.0, 2.0), default=1.0)),
        parameters=_parameters,
        layer=_layer,
        look=_look,
    )
)


def _can_swap(genome, shapes, *, spec):
    del shapes, spec
    return genome.length >= 2


def _propose_swap(words, genome, shapes, *, spec):
    del shapes, spec
    return {"first": uniform_index(words[0], jnp.maximum(genome.length - 1, 1))}


def _swap(proposal, genome, *, spec):
    """Two neighbours change places: each gets what the other is, and keeps what it reads."""
    del spec
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    first = proposal["first"]
    taken = jnp.where(gene == first, first + 1, jnp.where(gene == first + 1, first, gene))
    return genome.replace(op=genome.op[taken], **{name: indices[taken] for name, indices in genome.choices.items()})


OPERATORS.add("swap", Operator(name="swap", applicable=_can_swap, propose=_propose_swap, apply=_swap))
