"""The nine mutation operators of Section 3.1.

Edges to insert on are those between layers, from the image, and from the sink into global pooling.
An inserted convolution has 3 x 3 kernels, 32 channels and stride 1; an inserted concatenation joins
the edge with another, earlier layer of the same map size. What read a removed layer reads its first
input. An altered choice is drawn among the others.

An operator is drawn as a *proposal*, a few scalars that say which gene to insert, remove or alter;
one function applies proposals of every kind; shape inference accepts or rejects the result. What
is rejected is redrawn, so a chain of n steps applies n operators.

Dimension letters: G genes, W words of 32 genes.
"""

import enum
import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from eigen_jax.genome import Genome, GenomeSpec, Op, choices
from eigen_jax.mutation.selection import at, choose, count_bits, last_bit, nth_bit, or_along, to_bits, uniform_index


class Operator(enum.IntEnum):
    """The mutation operators, in the order of Section 3.1."""

    INSERT_CONV = 0
    INSERT_CONCAT = 1
    INSERT_POOL = 2
    REMOVE_CONV = 3
    REMOVE_CONCAT = 4
    REMOVE_POOL = 5
    ALTER_CHANNELS = 6
    ALTER_STRIDE = 7
    ALTER_KERNEL = 8


def operator_names(spec: GenomeSpec) -> tuple[str, ...]:
    """The operators of a search space, in the order of what counts them."""
    del spec
    return tuple(operator.name.lower() for operator in Operator)


_OPS = (Op.CONV, Op.POOL, Op.CONCAT)
_INSERTED_OP = (Op.CONV, Op.CONCAT, Op.POOL)  # by operator, from INSERT_CONV on
_SITE_OP = (Op.CONCAT,) * 3 + (Op.CONV, Op.CONCAT, Op.POOL) + (Op.CONV,) * 3  # what the drawn gene is, by operator
_INSERTED = {"channels": 32, "kernel": 3, "stride": 1}  # of an inserted convolution
_ALTERED_BY = {"channels": Operator.ALTER_CHANNELS, "stride": Operator.ALTER_STRIDE, "kernel": Operator.ALTER_KERNEL}
WORDS_A_DRAW = 3  # random 32-bit words: the operator, its site, the partner or the new value


@struct.dataclass
class _Census:
    """What a genome has to offer to the operators, counted once a draw."""

    sites: list[Array]  # 3 x [W] uint32, the layers of each of `_OPS`
    counts: list[Array]  # 3 x [] int32, how many of them
    unread: Array  # [] int32, the last layer that nothing reads and that is not the sink; -1 if none


@struct.dataclass
class Proposal:
    """One mutation, drawn but not applied. All scalars."""

    operator: Array  # int32, an `Operator`
    insert: Array  # bool
    remove: Array  # bool
    prune: Array  # bool, removes a dead layer; no operator is applied
    site: Array  # int32, the gene to remove or alter, or the position to insert at
    source: Array  # int32, the input of an inserted layer, or what a removed one's readers read instead
    partner: Array  # int32, an inserted layer's second input, or UNUSED
    second: Array  # bool, the edge to insert on is its reader's second input
    value: Array  # int8, the new index of an altered choice
    sound: Array  # bool, False where no such mutation exists


def take_census(genome: Genome) -> _Census:
    """Counts a genome's layers, and finds one that is dead."""
    sites = [to_bits(genome.op == op) for op in _OPS]
    ought_to_be_read = to_bits(jnp.arange(genome.capacity, dtype=jnp.int32) < genome.length - 1)
    unread = last_bit(ought_to_be_read & ~_read_bits(genome, len(ought_to_be_read)))
    return _Census(sites=sites, counts=[count_bits(site) for site in sites], unread=unread)


def applicable(genome: Genome, level: Array, census: _Census, spec: GenomeSpec) -> list[Array]:
    """Which operators have a site at all; 9 x [] bool, in the order of `Operator`."""
    convs, pools, concats = (count > 0 for count in census.counts)
    room = genome.length < spec.capacity
    levels = jnp.where(genome.op != Op.NONE, jnp.uint32(1) << level.astype(jnp.uint32), jnp.uint32(0))
    distinct_levels = count_bits(or_along(levels, (0,))[None])
    return [
        *(room, room & (genome.length > distinct_levels), room),
        *(convs, concats, pools),
        *(convs & (len(choices(spec)[name]) > 1) for name in _ALTERED_BY),
    ]


def draw(words: Array, genome: Genome, level: Array, *, spec: GenomeSpec) -> Proposal:
    """Proposes to prune a dead layer if there is one, and an applicable operator otherwise; `level` as of `Shapes`."""
    census = take_census(genome)
    operator = _draw_operator(words[0], applicable(genome, level, census, spec))
    proposal = propose(operator, words, genome, level, census, spec)
    prune = census.unread >= 0
    return jax.tree.map(functools.partial(jnp.where, prune), propose_pruning(census.unread), proposal)


def _draw_operator(word: Array, applicable: list[Array]) -> Array:
    """Draws one of the applicable operators uniformly; [] int32."""
    passed = operator = jnp.zeros((), jnp.int32)
    rank = uniform_index(word, jnp.stack(applicable).sum(dtype=jnp.int32))
    for candidate, flag in enumerate(applicable):
        operator = jnp.where(flag & (passed == rank), candidate, operator)
        passed += flag.astype(jnp.int32)
    return operator


def propose(operator: Array, words: Array, genome: Genome, level: Array, census: _Census, spec: GenomeSpec) -> Proposal:
    """Draws where and what for an operator that has a site."""
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    length = genome.length
    insert = operator <= Operator.INSERT_POOL
    remove = ~insert & (operator <= Operator.REMOVE_POOL)

    # Edges in order: every layer's first input, the edge into global pooling, the second inputs.
    site_op = _by_operator(_SITE_OP, operator)
    of_site = [site_op == op for op in _OPS]
    sites = choose(of_site, census.sites)
    drawn = uniform_index(words[1], jnp.where(insert, length + 1, 0) + choose(of_site, census.counts))
    second = insert & (drawn > length)
    site = jnp.where(insert & ~second, drawn, nth_bit(sites, jnp.where(insert, drawn - length - 1, drawn)))

    edge = jnp.where(second, genome.inputs[:, 1], genome.inputs[:, 0]).astype(jnp.int32)
    source = jnp.where(insert & (site == length), length - 1, at(edge, site))

    concat = operator == Operator.INSERT_CONCAT
    partners = to_bits((gene < site) & (level == at(level, source)) & (gene != source))
    partner = nth_bit(partners, uniform_index(words[2], count_bits(partners)))
    has_partner = (source >= 0) & (count_bits(partners) > 0)

    alterations = [operator == alteration for alteration in _ALTERED_BY.values()]
    options = choose(alterations, [len(choices(spec)[name]) for name in _ALTERED_BY])
    current = at(choose(alterations, [getattr(genome, name) for name in _ALTERED_BY]), site).astype(jnp.int32)
    shifted = current + 1 + uniform_index(words[2], options - 1)
    return Proposal(
        operator=operator,
        insert=insert,
        remove=remove,
        prune=jnp.zeros((), bool),
        site=site,
        source=source,
        partner=jnp.where(concat, partner, Genome.UNUSED),
        second=second,
        value=jnp.where(shifted >= options, shifted - options, shifted).astype(jnp.int8),
        sound=jnp.where(concat, has_partner, ~remove | _keeps_concats(genome, site, source)),
    )


def propose_pruning(site: Array) -> Proposal:
    """The removal of a layer that nothing reads."""
    false, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    return Proposal(
        operator=zero,
        insert=false,
        remove=~false,
        prune=~false,
        site=site,
        source=zero,
        partner=zero,
        second=false,
        value=jnp.zeros((), jnp.int8),
        sound=~false,
    )


def _keeps_concats(genome: Genome, site: Array, source: Array) -> Array:
    """Whether every concatenation that read `site` still joins two different layers if it reads `source`."""
    first, second = genome.inputs[:, 0].astype(jnp.int32), genome.inputs[:, 1].astype(jnp.int32)
    other_than_site = jnp.where(first == site, second, first)
    reads_site = (genome.op == Op.CONCAT) & ((first == site) | (second == site))
    return ~(reads_site & ((source < 0) | (other_than_site == source))).any()


def apply(proposal: Proposal, genome: Genome, spec: GenomeSpec) -> Genome:
    """The genome with the proposed gene inserted, removed or altered; nothing is checked."""
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    insert, remove, site, operator = proposal.insert, proposal.remove, proposal.site, proposal.operator
    inserted = insert & (gene == site)
    altered = ~insert & ~remove & (gene == site)
    # What reads the sink is global pooling, so the layer that it reads instead ends the genome.
    shorter = jnp.where(site == genome.length - 1, proposal.source + 1, genome.length - 1)
    length = jnp.where(insert, genome.length + 1, jnp.where(remove, shorter, genome.length))
    live = gene < length

    def choice(name, values):
        indices = getattr(genome, name)
        # Where the search space lacks the paper's default, an inserted convolution has the first choice.
        default = values.index(_INSERTED[name]) if _INSERTED[name] in values else 0
        new = jnp.where(operator == Operator.INSERT_CONV, default, 0).astype(indices.dtype)
        value = proposal.value.astype(indices.dtype)
        kept = jnp.where(altered & (operator == _ALTERED_BY[name]), value, _shift(indices, proposal))
        return jnp.where(live, jnp.where(inserted, new, kept), 0)

    op = jnp.where(inserted, _by_operator(_INSERTED_OP, operator).astype(genome.op.dtype), _shift(genome.op, proposal))
    return Genome(
        op=jnp.where(live, op, jnp.asarray(Op.NONE, op.dtype)),
        inputs=jnp.where(live[None], _rewire(genome.inputs.T, proposal), 0).T,
        length=length,
        **{name: choice(name, values) for name, values in choices(spec).items()},
    )


def _shift(genes: Array, proposal: Proposal) -> Array:
    """[..., G] genes, moved to make room for an inserted one or to close up after a removed one."""
    gene = lax.broadcasted_iota(jnp.int32, genes.shape, genes.ndim - 1)
    zero, no_padding = jnp.zeros((), genes.dtype), [(0, 0, 0)] * (genes.ndim - 1)
    later = lax.pad(genes, zero, [*no_padding, (1, -1, 0)])
    earlier = lax.pad(genes, zero, [*no_padding, (-1, 1, 0)])
    closed_up = jnp.where(proposal.remove & (gene >= proposal.site), earlier, genes)
    return jnp.where(proposal.insert & (gene > proposal.site), later, closed_up)


def _rewire(inputs: Array, proposal: Proposal) -> Array:
    """[2, G] inputs, shifted and renumbered, with the edges that the proposal cuts or joins."""
    gene = jnp.arange(inputs.shape[1], dtype=jnp.int32)[None]
    slot = jnp.arange(2, dtype=jnp.int32)[:, None]
    insert, site = proposal.insert, proposal.site
    place = site.astype(inputs.dtype)
    new = jnp.stack([proposal.source, proposal.partner]).astype(inputs.dtype)

    shifted = _shift(inputs, proposal)
    opened = jnp.where(shifted >= place, shifted + 1, shifted)
    closed = jnp.where(shifted == place, new[0], jnp.where(shifted > place, shifted - 1, shifted))
    renumbered = jnp.where(insert, opened, jnp.where(proposal.remove, closed, shifted))
    reads_new = insert & (gene == site + 1) & (slot == proposal.second.astype(jnp.int32))
    return jnp.where(insert & (gene == site), new[:, None], jnp.where(reads_new, place, renumbered))


def _by_operator(table: tuple[int, ...], operator: Array) -> Array:
    return choose([operator == index for index in range(len(table))], list(table))


def _read_bits(genome: Genome, words: int) -> Array:
    """The genes that some layer reads; [W] uint32."""
    inputs = genome.inputs.astype(jnp.int32)
    live = (genome.op != Op.NONE)[:, None]
    bit = jnp.uint32(1) << (inputs & 31).astype(jnp.uint32)
    return jnp.stack(
        [or_along(jnp.where(live & (inputs >> 5 == word), bit, jnp.uint32(0)), (0, 1)) for word in range(words)]
    )
