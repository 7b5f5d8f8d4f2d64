"""Gene duplication (Section 3.3): networks that repeat whole blocks of their parent.

A block is all layers of one map size, so of one level; the layer that shrinks the map opens its block. A block is
repeated in series. In a copy a layer whose choice halves the map, as a strided convolution, does not, and one of a
kind that always does, as a pool, is left out: it stands for what the copy reads. Every edge that enters a copy from
outside comes from the output of the copy before it, its last layer in the genome's order. What reads a layer of the
block from outside, the classifier included, reads that layer's last copy. Layers that no longer reach the sink are
pruned, and widths follow from the new inputs.

Dimension letters: G genes, L halvings of the image, N combinations of repeats.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from eigen_jax.genome import Genome, GenomeSpec, acceptable, infer_shapes

MAX_CANDIDATES = 4_096  # a genome's combinations are enumerated where they are no more; of more, so many are drawn
_CHUNK = 16  # combinations that are tried at a time


@struct.dataclass
class Blocks:
    """The blocks of a genome, whatever their repeats."""

    level: Array  # [G] int32, of a gene's block; meaningless for dead genes
    members: Array  # [L + 1, G] bool, live genes by block
    output: Array  # [L + 1] int32, the last layer of a block; meaningless if it is empty
    left_out: Array  # [G] bool, genes that copies leave out: those of a kind that always halves
    copied_output: Array  # [L + 1] int32, the last layer of a block that copies have
    repeatable: Array  # [L + 1] bool, a copy of the block has layers, and the search space has values for them


@struct.dataclass
class _Layout:
    """Where the layers of the repeated blocks lie, in the order of block, copy and gene.

    A block has three parts: its original, the copies between, which are all alike, and its last copy, of which the
    last two are empty where it stands once.
    """

    repeats: Array  # [L + 1] int32
    blocks: Blocks
    kept: Array  # [3, G] bool, genes whose layer in the part reaches the sink
    rank: Array  # [3, G] int32, kept layers of the same block and part before this one
    size: Array  # [3, L + 1] int32, kept layers of a part, or of each copy between
    start: Array  # [3, L + 1] int32, position of the part's first layer
    length: Array  # [] int32

    def position(self, gene: Array, copy: Array) -> Array:
        """Of a layer's copy, the original being copy 0; any shape."""
        level = self.blocks.level[gene]
        part = jnp.where(copy == 0, 0, jnp.where(copy == self.repeats[level] - 1, 2, 1))
        earlier_copies = jnp.where(part == 1, copy - 1, 0) * self.size[1, level]
        return self.start[part, level] + earlier_copies + self.rank[part, gene]

    def output(self, level: Array, copy: Array) -> Array:
        """The position of the last layer of a block's copy; any shape."""
        last = jnp.where(copy == 0, self.blocks.output[level], self.blocks.copied_output[level])
        return self.position(last, copy)


def duplicate(key: Array, genome: Genome, *, spec: GenomeSpec, max_repeats: int = 3) -> Genome:
    """The first of `duplicates`; the genome as it was where no combination is found."""
    genomes, _ = duplicates(key, genome, count=1, spec=spec, max_repeats=max_repeats)
    return jax.tree.map(lambda leaf: leaf[0], genomes)


def duplicates(
    key: Array, genome: Genome, *, count: int, spec: GenomeSpec, max_repeats: int = 3
) -> tuple[Genome, Array]:
    """Repeats blocks by different combinations, drawn uniformly among those that fit, without replacement.

    A combination is how often each block stands, from 1 to `max_repeats`; once each is none. All are tried before
    fewer than `count` are given, unless they are more than `MAX_CANDIDATES`: then so many draws are tried.

    Returns the children, [count, ...], valid for the spec, and their repeats, [count, L + 1] int32. Where fewer
    combinations are found, the last children are the genome itself, with repeats of 1.
    """
    blocks = find_blocks(genome, spec=spec)
    candidates, number = _draw_candidates(key, blocks.repeatable, max_repeats)
    chunk = min(_CHUNK, len(candidates))

    def unfinished(carry):
        _, _, found, tried = carry
        return (found < count) & (tried < number)

    def try_chunk(carry):
        children, repeats, found, tried = carry
        turn = tried + jnp.arange(chunk, dtype=jnp.int32)
        drawn = candidates[turn % len(candidates)]
        made, valid = jax.vmap(functools.partial(repeat_blocks, genome, blocks, spec=spec))(drawn)
        valid &= turn < number
        rank = found + jnp.cumsum(valid, dtype=jnp.int32) - 1
        slot = jnp.where(valid, rank, count)  # past the end, as are ranks of `count` and more: dropped
        children = jax.tree.map(lambda whole, new: whole.at[slot].set(new, mode="drop"), children, made)
        repeats = repeats.at[slot].set(drawn, mode="drop")
        return children, repeats, found + valid.sum(dtype=jnp.int32), tried + chunk

    unchanged = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), genome)
    once, zero = jnp.ones((count, spec.max_level + 1), jnp.int32), jnp.zeros((), jnp.int32)
    return lax.while_loop(unfinished, try_chunk, (unchanged, once, zero, zero))[:2]


def _draw_candidates(key: Array, repeatable: Array, max_repeats: int) -> tuple[Array, Array]:
    """Different combinations in a random order, [N, L + 1] int32, and how many of the first are ones."""
    levels = len(repeatable)
    size = min(MAX_CANDIDATES, max_repeats**levels)
    # Powers past the size are as good as the size: no index reaches them.
    powers = jnp.asarray([min(max_repeats**exponent, size + 1) for exponent in range(levels + 1)], jnp.int32)
    total = powers[repeatable.sum(dtype=jnp.int32)]
    place = jnp.cumsum(repeatable, dtype=jnp.int32) - repeatable.astype(jnp.int32)
    index = jnp.arange(size, dtype=jnp.int32)
    digits = index[:, None] // powers[place][None] % max_repeats
    different = index < total
    key_digits, key_order = jax.random.split(key)
    if max_repeats**levels > size:
        drawn = jax.random.randint(key_digits, digits.shape, 0, max_repeats, jnp.int32)
        digits = jnp.where(total > size, drawn, digits)
    digits = jnp.where(repeatable[None], digits, 0)
    if max_repeats**levels > size:
        firsts = jnp.unique(digits, axis=0, return_index=True, size=size)[1]
        different &= (total <= size) | jnp.zeros(size, bool).at[firsts].set(True)
    different &= (digits > 0).any(axis=1)
    order = jnp.lexsort((jax.random.bits(key_order, (size,), jnp.uint32), ~different))
    return digits[order] + 1, different.sum(dtype=jnp.int32)


def find_blocks(genome: Genome, *, spec: GenomeSpec) -> Blocks:
    """The blocks of a genome, [G] genes; jit- and vmap-able."""
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    level = infer_shapes(genome, spec=spec).level.astype(jnp.int32)
    levels = jnp.arange(spec.max_level + 1, dtype=jnp.int32)
    members = (level[None] == levels[:, None]) & (gene < genome.length)[None]
    left_out = jnp.zeros(genome.capacity, bool)
    repeatable = jnp.ones(len(levels), bool)
    for code, kind in enumerate(spec.ops, start=1):
        if kind.halves is True:
            left_out |= genome.op == code
        elif isinstance(kind.halves, str) and 1 not in spec.options[kind.name][kind.halves]:
            repeatable &= ~(members & (genome.op == code)[None]).any(axis=1)
    copied = members & ~left_out[None]
    repeatable &= copied.any(axis=1)
    return Blocks(
        level=level,
        members=members,
        left_out=left_out,
        output=jnp.where(members, gene[None], 0).max(axis=1),
        copied_output=jnp.where(copied, gene[None], 0).max(axis=1),
        repeatable=repeatable,
    )


def repeat_blocks(genome: Genome, blocks: Blocks, repeats: Array, *, spec: GenomeSpec) -> tuple[Genome, Array]:
    """Repeats the blocks of a genome, each level's as often as `repeats`, [L + 1] int32, tells; jit- and vmap-able.

    Returns the genome, as it was where there is no such network within the capacity and the bounds, and [] bool,
    whether there is: there is none where a block that cannot be repeated, or is empty, has repeats other than 1.
    """
    possible = ((repeats == 1) | ((repeats > 1) & blocks.repeatable)).all()
    # Every copy has a layer at least, so more copies than genes are too many however many they are.
    layout = _lay_out(genome, blocks, jnp.clip(repeats, 1, genome.capacity + 2))
    child = _build(genome, layout, spec)
    valid = possible & (layout.length <= genome.capacity) & acceptable(infer_shapes(child, spec=spec), spec=spec)
    changed = valid & (repeats > 1).any()
    return jax.tree.map(functools.partial(jnp.where, changed), child, genome), valid


def _lay_out(genome: Genome, blocks: Blocks, repeats: Array) -> _Layout:
    once = (repeats == 1)[blocks.level]
    original, between, last = _needed(genome, blocks, repeats)
    copied = ~once & ~blocks.left_out
    kept = jnp.stack([jnp.where(once, last, original), between & copied, last & copied])
    counted = jnp.cumsum(kept[:, None] & blocks.members[None], axis=-1, dtype=jnp.int32)  # [3, L + 1, G]
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    size = counted[:, :, -1]
    times = jnp.stack([jnp.ones_like(repeats), jnp.maximum(repeats - 2, 0), jnp.minimum(repeats - 1, 1)])
    whole = (size * times).T.reshape(-1)  # by level, then part
    ends = jnp.cumsum(whole, dtype=jnp.int32)
    return _Layout(
        repeats=repeats,
        blocks=blocks,
        kept=kept,
        rank=counted[:, blocks.level, gene] - 1,
        size=size,
        start=(ends - whole).reshape(-1, 3).T,
        length=ends[-1],
    )


def _needed(genome: Genome, blocks: Blocks, repeats: Array) -> Array:
    """[3, G] bool: who reaches the sink in a block's original, copies between and last copy, as a lone block is."""
    gene, level = jnp.arange(genome.capacity, dtype=jnp.int32), blocks.level
    repeated = (repeats > 1)[level]
    ends = gene == blocks.output[level], gene == blocks.copied_output[level], gene == genome.length - 1
    needed = jnp.stack(ends, axis=1)

    def visit(step, needed):
        reader = genome.capacity - 1 - step
        original, _, last = needed[reader]
        outside = jnp.stack([jnp.zeros((), bool), jnp.zeros((), bool), jnp.where(repeated[reader], original, last)])
        for slot in range(2):
            source = genome.inputs[reader, slot].astype(jnp.int32)
            is_gene = (reader < genome.length) & (source >= 0)
            read = needed[source] | jnp.where(level[source] == level[reader], needed[reader], outside)
            # What is no gene is sent past the end, where `drop` loses it.
            needed = needed.at[jnp.where(is_gene, source, genome.capacity)].set(read, mode="drop")
        return needed

    return lax.fori_loop(0, genome.capacity, visit, needed).T


def _build(genome: Genome, layout: _Layout, spec: GenomeSpec) -> Genome:
    """The genome of a layout, cut off at the capacity."""
    origin, copy = _origins(layout, genome.capacity)
    live = jnp.arange(genome.capacity, dtype=jnp.int32) < layout.length
    inputs = _wire(genome, layout, origin, copy).astype(genome.inputs.dtype)
    choices = {name: indices[origin] for name, indices in genome.choices.items()}
    for code, kind in enumerate(spec.ops, start=1):
        if isinstance(kind.halves, str) and 1 in (values := spec.options[kind.name][kind.halves]):
            indices = choices[kind.halves]
            shrinks = (copy > 0) & (genome.op[origin] == code)
            choices[kind.halves] = jnp.where(shrinks, jnp.asarray(values.index(1), indices.dtype), indices)
    return Genome(
        op=jnp.where(live, genome.op[origin], 0),
        inputs=jnp.where(live[:, None], inputs, 0),
        length=jnp.minimum(layout.length, genome.capacity),
        **{name: jnp.where(live, indices, 0) for name, indices in choices.items()},
    )


def _origins(layout: _Layout, capacity: int) -> tuple[Array, Array]:
    """The gene that every position has its layer from, and the number of the copy; [G] int32 each."""
    levels = len(layout.repeats)
    gene = jnp.arange(capacity, dtype=jnp.int32)
    part = jnp.arange(3, dtype=jnp.int32)[:, None]
    # A row for each level and part, in the order of their positions, with the genes kept in it.
    row = jnp.where(layout.kept, layout.blocks.level[None] * 3 + part, 3 * levels)
    table = jnp.zeros((3 * levels, capacity), jnp.int32)
    table = table.at[row, layout.rank].set(jnp.broadcast_to(gene, row.shape), mode="drop")

    start, size = layout.start.T.reshape(-1), jnp.maximum(layout.size.T.reshape(-1), 1)
    # Parts of no layers start where the next one does, which is the one to find.
    row = jnp.searchsorted(start, gene, side="right", method="compare_all").astype(jnp.int32) - 1
    within = gene - start[row]
    origin = table[row, within % size[row]]
    last = layout.repeats[row // 3] - 1
    copy = jnp.where(row % 3 == 0, 0, jnp.where(row % 3 == 1, 1 + within // size[row], last))
    return origin, copy


def _wire(genome: Genome, layout: _Layout, origin: Array, copy: Array) -> Array:
    """The inputs of every position; [G, 2] int32."""
    source = genome.inputs[origin].astype(jnp.int32)
    level, is_left_out = layout.blocks.level, layout.blocks.left_out
    own_level, copy = level[origin][:, None], copy[:, None]
    inside = (source >= 0) & (level[source] == own_level)
    enters = (copy > 0) & (~inside | is_left_out[source])
    source_copy = jnp.where(inside, copy, layout.repeats[level[source]] - 1)
    left_out = (source_copy > 0) & is_left_out[source]
    read = jnp.where(left_out, layout.output(level[source], source_copy - 1), layout.position(source, source_copy))
    wired = jnp.where(enters, layout.output(own_level, copy - 1), jnp.where(source == Genome.IMAGE, source, read))
    return jnp.where(source == Genome.UNUSED, source, wired)
