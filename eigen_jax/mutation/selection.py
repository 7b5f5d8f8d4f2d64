"""Choosing among genes with scalars and bit sets, in forms that stay cheap when vmapped.

A set of genes is [W] uint32, gene i at bit i % 32 of word i // 32: to count it or find its n-th member is scalar work.
"""

import jax.numpy as jnp
from jax import Array, lax


def choose(flags, values) -> Array:
    """The value whose flag is set; the last one if none is. Cheaper than a gather, and fusible."""
    chosen = jnp.asarray(values[-1], None if isinstance(values[-1], Array) else jnp.int32)
    for flag, value in zip(reversed(flags[:-1]), reversed(values[:-1]), strict=True):
        chosen = jnp.where(flag, value, chosen)
    return chosen


def at(genes: Array, site: Array) -> Array:
    """genes[site], 0 where the site is no gene; as a masked sum, which fuses with what surrounds it."""
    here = jnp.arange(genes.shape[0], dtype=jnp.int32) == site
    return jnp.where(here, genes, 0).sum(dtype=genes.dtype)


def uniform_index(word: Array, count: Array) -> Array:
    """A uniform index below `count` (less than 2 ** 16) from 32 random bits; [] int32.

    The high half of a 48-bit product: biased by less than count / 2 ** 32.
    """
    count = jnp.asarray(count).astype(jnp.uint32)
    high, low = word >> 16, word & 0xFFFF
    return ((high * count + ((low * count) >> 16)) >> 16).astype(jnp.int32)


def or_along(words: Array, axes: tuple[int, ...]) -> Array:
    """The bitwise or of words, uint32, along axes."""
    return lax.reduce(words, jnp.uint32(0), lax.bitwise_or, axes)


def to_bits(flags: Array) -> Array:
    """Packs [G] bool into [W] uint32."""
    bit = jnp.uint32(1) << (jnp.arange(len(flags), dtype=jnp.uint32) & 31)
    bits = jnp.where(flags, bit, jnp.uint32(0))
    return jnp.stack([bits[start : start + 32].sum(dtype=jnp.uint32) for start in range(0, len(flags), 32)])


def count_bits(words: Array) -> Array:
    """The size of a set; [] int32."""
    return lax.population_count(words).sum(dtype=jnp.int32)


def last_bit(words: Array) -> Array:
    """The last gene of a set; [] int32, -1 if the set is empty."""
    offsets = 32 * jnp.arange(len(words), dtype=jnp.int32)
    return jnp.where(words > 0, offsets + 31 - lax.clz(words).astype(jnp.int32), -1).max()


def nth_bit(words: Array, rank: Array) -> Array:
    """The gene with `rank` set bits before it; [] int32, meaningless past the last."""
    counts = lax.population_count(words).astype(jnp.int32)
    before = jnp.cumsum(counts) - counts
    index = (before + counts <= rank).sum(dtype=jnp.int32)
    word, rank = at(words, index), rank - at(before, index)
    position = jnp.zeros((), jnp.uint32)
    for width in (16, 8, 4, 2, 1):
        low = lax.population_count((word >> position) & jnp.uint32((1 << width) - 1)).astype(jnp.int32)
        position = jnp.where(low <= rank, position + width, position)
        rank = jnp.where(low <= rank, rank - low, rank)
    return 32 * index + position.astype(jnp.int32)
