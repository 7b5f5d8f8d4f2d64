"""Genomes: network architectures as immutable arrays."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from eigen_jax.genome.spec import GenomeSpec


@jax.tree_util.register_pytree_with_keys_class
class Genome:
    """A network as arrays: a directed acyclic graph of layers in topological order. Immutable.

    Gene i is live iff i < length, and dead genes are all zero. The last live gene is the one sink, which every live
    gene reaches: global average pooling and the classifier follow it and are not genes. A layer of two inputs joins
    two layers that agree; no 1 x 1 map is halved.

    Each choice of the search space is a field by its name, such as `kernel`: [G] int8, indices of the values that
    the gene's kind has for it; 0 where it has no such choice.
    """

    IMAGE: ClassVar[int] = -1  # as an input: the network's input image
    UNUSED: ClassVar[int] = -2  # as a second input: this layer has one input only
    NONE: ClassVar[int] = 0  # as an op: a dead gene

    op: Array  # [G] int8, 1 + the kind's place in `GenomeSpec.ops`
    inputs: Array  # [G, 2] int16, gene positions, each less than the gene's own; IMAGE; UNUSED
    length: Array  # [] int32, live genes

    def __init__(self, *, op: Any, inputs: Any, length: Any, **choices: Any) -> None:
        """Holds what it is given; the order of the leaves is op, inputs, choices by name, length."""
        self.__dict__.update({"op": op, "inputs": inputs, **dict(sorted(choices.items())), "length": length})

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a genome of {', '.join(self.__dict__)} has no {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to {name} of a genome; use replace")

    def __repr__(self) -> str:
        return f"Genome({self.__dict__})"

    @property
    def choices(self) -> dict[str, Any]:
        """The fields of its choices, by name."""
        return {name: value for name, value in self.__dict__.items() if name not in ("op", "inputs", "length")}

    @property
    def capacity(self) -> int:  # G
        return self.op.shape[-1]

    def replace(self, **changes: Any) -> "Genome":
        """The genome with other values of these fields; raises TypeError for one that it has not."""
        if unknown := changes.keys() - self.__dict__.keys():
            raise TypeError(f"a genome of {', '.join(self.__dict__)} has no {', '.join(sorted(unknown))}")
        return Genome(**{**self.__dict__, **changes})

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        return [(jax.tree_util.GetAttrKey(name), leaf) for name, leaf in self.__dict__.items()], tuple(self.__dict__)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], leaves: Any) -> "Genome":
        return cls(**dict(zip(names, leaves, strict=True)))


def minimal_genome(spec: GenomeSpec) -> Genome:
    """The network that the search starts from: global average pooling alone (Section 3.1)."""
    genes, inputs = jnp.zeros(spec.capacity, jnp.int8), jnp.zeros((spec.capacity, 2), jnp.int16)
    choices = dict.fromkeys(spec.choice_names, genes)
    return Genome(op=genes, inputs=inputs, length=jnp.zeros((), jnp.int32), **choices)


def is_well_formed(genome: Genome, *, spec: GenomeSpec) -> Array:
    """Whether the arrays are a graph of layers of the search space, [] bool; not whether sizes agree or bounds hold."""
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    first, second = genome.inputs[:, 0].astype(jnp.int32), genome.inputs[:, 1].astype(jnp.int32)
    live, joins = gene < genome.length, genome.op >= spec.first_join
    first_is_layer = (first >= jnp.where(joins, 0, Genome.IMAGE)) & (first < gene)
    second_fits = jnp.where(joins, (second >= 0) & (second < gene), second == Genome.UNUSED)
    layers = (genome.op > Genome.NONE) & (genome.op <= len(spec.ops)) & first_is_layer & second_fits
    empty = (genome.op == Genome.NONE) & (genome.inputs == 0).all(axis=1)
    for name, index in genome.choices.items():
        counts = [1, *(len(spec.options[kind.name].get(name, (0,))) for kind in spec.ops)]
        layers &= (index >= 0) & (index < jnp.asarray(counts, jnp.int32)[jnp.clip(genome.op, 0, len(spec.ops))])
        empty &= index == 0
    return (genome.length >= 0) & (genome.length <= genome.capacity) & jnp.where(live, layers, empty).all()


def canonical(genome: Genome) -> Genome:
    """The genome with its genes in depth-first post-order from the sink, inputs in order, as an `Architecture` is kept.

    So two genomes of one search space are equal networks exactly where their canonical forms are equal arrays.
    """
    capacity, sources = genome.capacity, genome.inputs.astype(jnp.int32)

    def step(carry):
        path, depth, place, placed = carry
        gene = path[depth]
        pending = (sources[gene] >= 0) & (place[sources[gene]] == capacity)
        waits = pending.any()
        path = path.at[depth + 1].set(jnp.where(pending[0], *sources[gene]), mode="drop")
        place = place.at[jnp.where(waits, capacity, gene)].set(placed, mode="drop")
        return path, depth + jnp.where(waits, 1, -1), place, placed + (~waits).astype(jnp.int32)

    path = jnp.zeros(capacity, jnp.int32).at[0].set(genome.length - 1)
    # Dead genes have no place: they are dropped, and what is left is zero.
    nowhere, zero = jnp.full(capacity, capacity, jnp.int32), jnp.int32(0)
    start = path, jnp.where(genome.length > 0, 0, -1), nowhere, zero
    place = lax.while_loop(lambda carry: carry[1] >= 0, step, start)[2]
    inputs = jnp.where(sources >= 0, place[sources], sources).astype(genome.inputs.dtype)
    fields = {"op": genome.op, "inputs": inputs, **genome.choices}
    moved = {name: jnp.zeros_like(field).at[place].set(field, mode="drop") for name, field in fields.items()}
    return genome.replace(**moved)
