"""The mutation operators: those that follow from the layer kinds of a search space, and a fork's beside them.

Each kind can be inserted and removed, and each choice altered: of the paper's three kinds, the nine of Section 3.1.
Edges to insert on are those between layers, from the image, and from the sink into global pooling. A layer of two
inputs joins the edge with another, earlier layer that agrees with it. What read a removed layer reads its first input.

An operator is drawn as a *proposal*, a few scalars that say which gene to insert, remove or alter; one function
applies what follows from the kinds; shape inference accepts or rejects the result. What is rejected is redrawn.

Dimension letters: G genes, W words of 32 genes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from eigen_jax.genome import OPERATORS, Genome, GenomeSpec, Shapes
from eigen_jax.layer_kinds import KINDS, LayerKind
from eigen_jax.mutation.selection import at, choose, count_bits, last_bit, nth_bit, or_along, to_bits, uniform_index


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Derived:
    """What the operators that follow from the kinds do, in their order: insertions, removals, alterations."""

    kinds: tuple[LayerKind, ...]  # as the search space names them
    altered: tuple[str, ...]  # choices
    sites: tuple[frozenset[int], ...]  # codes of the layers that an operator draws one of; of insertions, beside edges
    sets: tuple[frozenset[int], ...]  # the different ones among them

    def alters(self, name: str) -> int:
        """The place of a choice's operator."""
        return 2 * len(self.kinds) + self.altered.index(name)


@functools.cache
def _derived(spec: GenomeSpec) -> _Derived:
    kinds = tuple(map(KINDS.find, spec.kinds))
    joins = frozenset(range(spec.first_join, 1 + len(spec.ops)))
    altered = tuple(dict.fromkeys(choice.name for kind in kinds for choice in kind.choices))
    several = [
        frozenset(code for code, kind in enumerate(spec.ops, 1) if len(spec.options[kind.name].get(name, ())) > 1)
        for name in altered
    ]
    sites = (*[joins] * len(kinds), *(frozenset({spec.code(kind.name)}) for kind in kinds), *several)
    return _Derived(kinds=kinds, altered=altered, sites=sites, sets=tuple(dict.fromkeys(sites)))


WORDS_A_DRAW = 3  # random 32-bit words: the operator, its site, the partner or the new value


@struct.dataclass
class Proposal:
    """One mutation, drawn but not applied. All scalars."""

    operator: Array  # int32, its place among `operator_names`
    insert: Array  # bool
    remove: Array  # bool
    prune: Array  # bool, removes a dead layer; no operator is applied
    site: Array  # int32, the gene to remove or alter, or the position to insert at
    source: Array  # int32, the input of an inserted layer, or what a removed one's readers read instead
    partner: Array  # int32, an inserted layer's second input, or UNUSED
    second: Array  # bool, the edge to insert on is its reader's second input
    value: Array  # int8, the new index of an altered choice
    sound: Array  # bool, False where no such mutation exists
    others: tuple[Any, ...] = ()  # what each operator that follows from no kind proposes, drawn or not


def find_sites(genome: Genome, spec: GenomeSpec) -> list[Array]:
    """The layers of each of `_Derived.sets`; [W] uint32 each."""
    return [to_bits(_is_among(genome.op, codes)) for codes in _derived(spec).sets]


def _is_among(op: Array, codes: frozenset[int]) -> Array:
    flags = [op == code for code in sorted(codes)]
    return functools.reduce(jnp.logical_or, flags) if flags else jnp.zeros(op.shape, bool)


def applicable(genome: Genome, shapes: Shapes, sites: list[Array], spec: GenomeSpec) -> list[Array]:
    """Which operators may have a site; [] bool each, in the order of `operator_names`."""
    derived = _derived(spec)
    room = genome.length < spec.capacity
    joinable = room
    if spec.first_join <= len(spec.ops):
        levels = jnp.where(genome.op != Genome.NONE, jnp.uint32(1) << shapes.level.astype(jnp.uint32), jnp.uint32(0))
        distinct_levels = count_bits(or_along(levels, (0,))[None])
        joinable = room & (genome.length > distinct_levels)
    inserts = [joinable if kind.inputs == 2 else room for kind in derived.kinds]
    found = dict(zip(derived.sets, (count_bits(site) > 0 for site in sites), strict=True))
    return [
        *inserts,
        *(found[codes] for codes in derived.sites[len(inserts) :]),
        *(OPERATORS.find(name).applicable(genome, shapes, spec=spec) for name in spec.operators),
    ]


def draw(words: Array, genome: Genome, shapes: Shapes, *, spec: GenomeSpec) -> Proposal:
    """Proposes to prune a dead layer if there is one, and otherwise an operator; `words`, [3] uint32, are random."""
    sites = find_sites(genome, spec)
    operator = _draw_operator(words[0], applicable(genome, shapes, sites, spec))
    return pruned(propose(operator, words, genome, shapes, sites, spec), last_unread(genome))


def read_shapes(shapes: Shapes, spec: GenomeSpec) -> Shapes:
    """What `draw` reads of a genome's shapes, which chains carry; None in place of the rest."""
    if spec.operators:
        return shapes
    width = shapes.width if any(kind.agree == "shape" for kind in spec.ops) else None
    return Shapes(level=shapes.level, width=width, parameters=None, flops=None, consistent=None)  # type: ignore[arg-type]


def _draw_operator(word: Array, applicable: list[Array]) -> Array:
    """Draws one of the applicable operators uniformly; [] int32."""
    passed = operator = jnp.zeros((), jnp.int32)
    rank = uniform_index(word, jnp.stack(applicable).sum(dtype=jnp.int32))
    for candidate, flag in enumerate(applicable):
        operator = jnp.where(flag & (passed == rank), candidate, operator)
        passed += flag.astype(jnp.int32)
    return operator


def propose(
    operator: Array, words: Array, genome: Genome, shapes: Shapes, sites: list[Array], spec: GenomeSpec
) -> Proposal:
    """Draws where and what for an operator that has a site."""
    derived, level, length = _derived(spec), shapes.level, genome.length
    kinds = derived.kinds
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    insert = operator < len(kinds)
    remove = ~insert & (operator < 2 * len(kinds))

    # Edges in order: every layer's first input, the edge into global pooling, the second inputs.
    set_of = _by_operator([derived.sets.index(codes) for codes in derived.sites], operator)
    layers = choose([set_of == place for place in range(len(derived.sets))], sites)
    drawn = uniform_index(words[1], jnp.where(insert, length + 1, 0) + count_bits(layers))
    second = insert & (drawn > length)
    site = jnp.where(insert & ~second, drawn, nth_bit(layers, jnp.where(insert, drawn - length - 1, drawn)))

    edge = jnp.where(second, genome.inputs[:, 1], genome.inputs[:, 0]).astype(jnp.int32)
    source = jnp.where(insert & (site == length), length - 1, at(edge, site))

    join = _is_among(operator, frozenset(place for place, kind in enumerate(kinds) if kind.inputs == 2))
    agree = (gene < site) & (level == at(level, source)) & (gene != source)
    if shapely := frozenset(place for place, kind in enumerate(kinds) if kind.agree == "shape"):
        agree &= (shapes.width == at(shapes.width, source)) | ~_is_among(operator, shapely)
    partners = to_bits(agree)
    partner = nth_bit(partners, uniform_index(words[2], count_bits(partners)))
    has_partner = (source >= 0) & (count_bits(partners) > 0)

    value = _draw_value(operator, words[2], genome, site, derived, spec)
    sound = jnp.where(join, has_partner, ~remove | _keeps_joins(genome, site, source, spec))
    return Proposal(
        operator=operator,
        insert=insert,
        remove=remove,
        prune=jnp.zeros((), bool),
        site=site,
        source=source,
        partner=jnp.where(join, partner, Genome.UNUSED),
        second=second,
        value=value,
        sound=sound | (operator >= len(derived.sites)) if spec.operators else sound,
        others=_propose_others(words[1:], genome, shapes, spec),
    )


def _propose_others(words: Array, genome: Genome, shapes: Shapes, spec: GenomeSpec) -> tuple[Any, ...]:
    return tuple(OPERATORS.find(name).propose(words, genome, shapes, spec=spec) for name in spec.operators)


def propose_nothing(genome: Genome, shapes: Shapes, *, spec: GenomeSpec) -> Proposal:
    """One that is not sound, in the form of those that are drawn for this genome."""
    others = _propose_others(jnp.zeros(WORDS_A_DRAW - 1, jnp.uint32), genome, shapes, spec)
    numbers = dict.fromkeys(("operator", "site", "source", "partner"), jnp.zeros((), jnp.int32))
    flags = dict.fromkeys(("insert", "remove", "prune", "second", "sound"), jnp.zeros((), bool))
    return Proposal(**numbers, **flags, value=jnp.zeros((), jnp.int8), others=others)


def _draw_value(
    operator: Array, word: Array, genome: Genome, site: Array, derived: _Derived, spec: GenomeSpec
) -> Array:
    """Another index of the choice that the operator alters at the site; [] int8, meaningless if it alters none."""
    if not derived.altered:
        return jnp.zeros((), jnp.int8)
    alterations = [operator == derived.alters(name) for name in derived.altered]
    op = functools.cache(lambda: at(genome.op, site))
    counts: list[Any] = []
    for name in derived.altered:
        by_code = {code: len(spec.options[kind.name].get(name, ())) for code, kind in enumerate(spec.ops, 1)}
        several = {code: count for code, count in by_code.items() if count > 1}
        if len(set(several.values())) > 1:
            counts.append(choose([op() == code for code in several], list(several.values())))
        else:
            counts.append(next(iter(several.values()), 1))
    options = choose(alterations, counts)
    current = at(choose(alterations, [genome.choices[name] for name in derived.altered]), site).astype(jnp.int32)
    shifted = current + 1 + uniform_index(word, options - 1)
    return jnp.where(shifted >= options, shifted - options, shifted).astype(jnp.int8)


def pruned(proposal: Proposal, site: Array) -> Proposal:
    """The removal of a layer that nothing reads instead of a proposal; the proposal itself where the site is -1."""
    prune = site >= 0
    return dataclasses.replace(
        proposal,
        insert=proposal.insert & ~prune,
        remove=proposal.remove | prune,
        prune=prune,
        site=jnp.where(prune, site, proposal.site),
        sound=proposal.sound | prune,
    )


def _keeps_joins(genome: Genome, site: Array, source: Array, spec: GenomeSpec) -> Array:
    """Whether every layer that joined `site` with another still joins two different layers if it reads `source`."""
    first, second = genome.inputs[:, 0].astype(jnp.int32), genome.inputs[:, 1].astype(jnp.int32)
    other_than_site = jnp.where(first == site, second, first)
    reads_site = (genome.op >= spec.first_join) & ((first == site) | (second == site))
    return ~(reads_site & ((source < 0) | (other_than_site == source))).any()


def apply(proposal: Proposal, genome: Genome, spec: GenomeSpec) -> Genome:
    """The genome with the proposed mutation; nothing is checked."""
    mutant, first = _apply_derived(proposal, genome, spec), len(_derived(spec).sites)
    for place, (name, proposed) in enumerate(zip(spec.operators, proposal.others, strict=True), start=first):
        applied = OPERATORS.find(name).apply(proposed, genome, spec=spec)
        other = jax.tree.map(lambda new, old: new.astype(old.dtype), applied, mutant)
        is_drawn = (proposal.operator == place) & ~proposal.prune
        mutant = jax.tree.map(functools.partial(jnp.where, is_drawn), other, mutant)
    return mutant


def _apply_derived(proposal: Proposal, genome: Genome, spec: GenomeSpec) -> Genome:
    """The genome with the proposed gene inserted, removed or altered."""
    derived = _derived(spec)
    gene = jnp.arange(genome.capacity, dtype=jnp.int32)
    insert, remove, site, operator = proposal.insert, proposal.remove, proposal.site, proposal.operator
    inserted = insert & (gene == site)
    altered = ~insert & ~remove & (gene == site)
    # What reads the sink is global pooling, so the layer that it reads instead ends the genome.
    shorter = jnp.where(site == genome.length - 1, proposal.source + 1, genome.length - 1)
    length = jnp.where(insert, genome.length + 1, jnp.where(remove, shorter, genome.length))
    live = gene < length

    def choice(name, indices):
        new = jnp.zeros((), indices.dtype)
        for place, kind in enumerate(derived.kinds):
            for default in (each for each in kind.choices if each.name == name):
                values = spec.options[kind.name][name]
                index = values.index(default.default) if default.default in values else 0
                new = jnp.where(operator == place, index, new).astype(indices.dtype)
        value = proposal.value.astype(indices.dtype)
        kept = jnp.where(altered & (operator == derived.alters(name)), value, _shift(indices, proposal))
        return jnp.where(live, jnp.where(inserted, new, kept), 0)

    code = _by_operator([spec.code(kind.name) for kind in derived.kinds], operator).astype(genome.op.dtype)
    op = jnp.where(inserted, code, _shift(genome.op, proposal))
    return Genome(
        op=jnp.where(live, op, jnp.asarray(Genome.NONE, op.dtype)),
        inputs=jnp.where(live[None], _rewire(genome.inputs.T, proposal), 0).T,
        length=length,
        **{name: choice(name, indices) for name, indices in genome.choices.items()},
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


def _by_operator(table: Sequence[int], operator: Array) -> Array:
    return choose([operator == index for index in range(len(table))], table)


def last_unread(genome: Genome) -> Array:
    """The last layer that nothing reads and that is not the sink; [] int32, -1 if there is none."""
    ought_to_be_read = to_bits(jnp.arange(genome.capacity, dtype=jnp.int32) < genome.length - 1)
    inputs = genome.inputs.astype(jnp.int32)
    live = (genome.op != Genome.NONE)[:, None]
    bit = jnp.uint32(1) << (inputs & 31).astype(jnp.uint32)
    words = [jnp.where(live & (inputs >> 5 == word), bit, jnp.uint32(0)) for word in range(len(ought_to_be_read))]
    return last_bit(ought_to_be_read & ~jnp.stack([or_along(word, (0, 1)) for word in words]))
