"""Chains of mutations, run for a whole batch at the cost of its genomes' live lengths.

Dimension letters: B individuals of a batch, G genes, O operators.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jax.custom_batching import custom_vmap

from eigen_jax.genome import Genome, GenomeSpec, Shapes, acceptable, infer_shapes, is_well_formed, operator_names
from eigen_jax.mutation.proposals import WORDS_A_DRAW, Proposal, apply, draw, propose_nothing, read_shapes

# A chain that so many draws in a row give nothing ends early: only bounds that leave hardly any network come near it.
MAX_REJECTIONS = 1_000


@struct.dataclass
class MutationTrace:
    """What a chain of mutations did."""

    counts: Array  # [O] int32, how often each of `operator_names(spec)` was applied


def mutate(key: Array, genome: Genome, steps: Array | int, *, spec: GenomeSpec) -> tuple[Genome, MutationTrace]:
    """Applies `steps` mutations, each drawn uniformly among the applicable operators (Section 3.1).

    An operator applies where it has a site. A draw that breaks a rule of the search space is redrawn and does not
    count. `steps`, [] int32, is data, so one trace serves every number. Under `vmap` a batch costs what its genomes'
    live lengths need, and every individual's result is the same as alone.

    Returns the child, valid for the spec, and which operators made it: fewer than `steps` only where the search space
    leaves nothing to apply (see `MAX_REJECTIONS`).
    """
    return _mutation_chain(spec)(key, genome, jnp.asarray(steps, jnp.int32))


@functools.cache
def _mutation_chain(spec: GenomeSpec):
    # Under vmap, `lax.while_loop` would select its whole state at every turn of every inner loop,
    # and no individual could see how long the batch's genomes are: so vmap is given its own rule.
    @custom_vmap
    def chain(key, genome, steps):
        batch = jax.tree.map(lambda leaf: leaf[None], (key, genome, steps))
        return jax.tree.map(lambda leaf: leaf[0], _mutate_batch(*batch, spec=spec))

    @chain.def_vmap
    def batched_chain(batch_size, batched, *arguments):
        def spread(leaf, is_batched):
            return leaf if is_batched else jnp.broadcast_to(leaf[None], (batch_size, *leaf.shape))

        result = _mutate_batch(*jax.tree.map(spread, arguments, tuple(batched)), spec=spec)
        return result, jax.tree.map(lambda _: True, result)

    return jax.jit(chain)


_BLOCK = 8  # draws between two looks at which individuals are done and whose genomes have outgrown the window
_STRAGGLERS = 8  # the share of a batch, 1 / _STRAGGLERS, that goes on apart once the rest is done


@struct.dataclass
class _Chain:
    """A batch of mutation chains under way."""

    genome: Genome  # [B, ...] int32, its inputs as [B, 2, G]
    shapes: Shapes  # [B, ...], what `draw` reads of the genomes'
    proposal: Proposal  # [B] each, drawn for `genome` and not applied yet
    left: Array  # [B] int32, operators still to apply
    counts: Array  # [B, O] int32
    rejections: Array  # [B] int32, in a row
    block: Array  # [B] int32, blocks of draws used up


def _mutate_batch(keys: Array, genomes: Genome, steps: Array, *, spec: GenomeSpec) -> tuple[Genome, MutationTrace]:
    """Runs a batch, [B, ...], in a window of its first genes until few chains go on; those run apart, in wider ones."""
    batch, zeros = len(steps), jnp.zeros_like(steps)
    inferred = jax.vmap(functools.partial(infer_shapes, spec=spec, bound=genomes.length.max()))(genomes)
    shapes = read_shapes(inferred, spec)
    # In one dtype throughout, the compiled loops are vectorised better than in several narrow ones.
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.int32), genomes)
    chain = _Chain(
        genome=_swap(wide),
        shapes=shapes,
        proposal=jax.vmap(functools.partial(propose_nothing, spec=spec))(wide, shapes),
        left=steps,
        counts=jnp.zeros((batch, len(operator_names(spec))), jnp.int32),
        rejections=zeros,
        block=zeros,
    )
    first, *wider = _windows(batch, spec.capacity)
    chain = _run(keys, chain, first, batch // _STRAGGLERS if wider else 0, spec)
    for window in [first, *wider] if wider else []:
        # The fewer, the wider the window: so a turn costs no more than a share of the batch's.
        chain = _run_stragglers(keys, chain, window, max(1, batch * first // (_STRAGGLERS * window)), spec)
    children = jax.tree.map(lambda leaf, given: leaf.astype(given.dtype), _swap(chain.genome), genomes)
    return children, MutationTrace(counts=chain.counts)


def _windows(batch: int, capacity: int) -> list[int]:
    """Lengths that genomes are cut to while they run; each is compiled apart, which a small batch does not win back."""
    narrower = (32, 128, 1024) if batch >= 64 else ()
    return [*(window for window in narrower if window < capacity), capacity]


def _runnable(chain: _Chain, window: int, spec: GenomeSpec) -> Array:
    """Which chains go on and cannot outgrow the window within a block; [B] bool."""
    going_on = ((chain.left > 0) | chain.proposal.prune) & (chain.rejections < MAX_REJECTIONS)
    return going_on & ((window == spec.capacity) | (chain.genome.length + _BLOCK <= window))


def _run_stragglers(keys: Array, chain: _Chain, window: int, few: int, spec: GenomeSpec) -> _Chain:
    """Runs the chains that go on in this window, `few` at a time."""

    def step(chain):
        lanes = jnp.argsort(~_runnable(chain, window, spec))[:few]
        part = jax.tree.map(lambda leaf: leaf[lanes], chain)
        part = _run(keys[lanes], part, window, 0, spec)
        return jax.tree.map(lambda whole, new: whole.at[lanes].set(new), chain, part)

    return lax.while_loop(lambda chain: _runnable(chain, window, spec).any(), step, chain)


def _run(keys: Array, chain: _Chain, window: int, few: int, spec: GenomeSpec) -> _Chain:
    """Runs the chains block by block, in a window of the genes, until at most `few` go on in it."""
    genes = chain.genome, chain.shapes
    genome, shapes = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else leaf[..., :window], genes)
    narrow = dataclasses.replace(chain, genome=genome, shapes=shapes)

    def step(carry):
        chain, running = carry
        chain = _run_block(keys, chain, running, spec)
        return chain, _runnable(chain, window, spec)

    start = narrow, _runnable(narrow, window, spec)
    narrow, _ = lax.while_loop(lambda carry: carry[1].sum(dtype=jnp.int32) > few, step, start)

    # Genes past the window belong to the chains that did not run in it.
    def paste(whole, part):
        return part if whole.shape == part.shape else whole.at[..., : part.shape[-1]].set(part)

    genome, shapes = jax.tree.map(paste, genes, (narrow.genome, narrow.shapes))
    return dataclasses.replace(narrow, genome=genome, shapes=shapes)


def _swap(genome: Genome) -> Genome:
    """Inputs as [2, G] between steps: a loop whose innermost axis is of length two is not vectorised. And back."""
    return genome.replace(inputs=jnp.swapaxes(genome.inputs, -1, -2))


def _run_block(keys: Array, chain: _Chain, running: Array, spec: GenomeSpec) -> _Chain:
    """Tries and draws `_BLOCK` mutations of every running chain."""

    of_block = jax.vmap(jax.random.fold_in)(keys, chain.block)
    words = jax.vmap(lambda key: jax.random.bits(key, (_BLOCK, WORDS_A_DRAW), jnp.uint32), out_axes=1)(of_block)

    # A proposal crosses from one turn of the loop to the next: XLA would otherwise recompute it,
    # scalar for scalar, at every gene that it is applied to.
    def step(turn, chain):
        chain = _try_proposals(chain, running, spec)
        drawn = jax.vmap(functools.partial(draw, spec=spec))(words[turn], _swap(chain.genome), chain.shapes)
        proposal = jax.tree.map(functools.partial(jnp.where, running), drawn, chain.proposal)
        return dataclasses.replace(chain, proposal=proposal)

    chain = lax.fori_loop(0, _BLOCK, step, chain)
    return dataclasses.replace(chain, block=chain.block + running.astype(jnp.int32))


def _try_proposals(chain: _Chain, running: Array, spec: GenomeSpec) -> _Chain:
    """Applies every running chain's proposal where the result is valid."""
    proposal = chain.proposal
    mutants = jax.vmap(functools.partial(apply, spec=spec))(proposal, _swap(chain.genome))
    longest = jnp.where(running, mutants.length, 0).max()
    shapes = jax.vmap(functools.partial(infer_shapes, spec=spec, bound=longest))(mutants)
    unfinished = running & ((chain.left > 0) | proposal.prune)
    accepted = unfinished & proposal.sound & acceptable(shapes, spec=spec)
    if spec.operators:  # which are not known to keep the form of a genome
        accepted &= jax.vmap(functools.partial(is_well_formed, spec=spec))(mutants)
    counted = accepted & ~proposal.prune
    operators = jnp.arange(len(operator_names(spec)), dtype=jnp.int32)[None]

    def keep(new, old):
        return jnp.where(jnp.expand_dims(accepted, range(1, new.ndim)), new, old)

    return dataclasses.replace(
        chain,
        genome=jax.tree.map(keep, _swap(mutants), chain.genome),
        shapes=jax.tree.map(keep, read_shapes(shapes, spec), chain.shapes),
        left=chain.left - counted.astype(jnp.int32),
        counts=chain.counts + ((operators == proposal.operator[:, None]) & counted[:, None]).astype(jnp.int32),
        # A chain that does not run keeps its count: reset, it would go on because others of its batch do.
        rejections=jnp.where(accepted, 0, chain.rejections + unfinished.astype(jnp.int32)),
    )
