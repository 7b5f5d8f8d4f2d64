"""Chains of mutations: what comes out is valid, whatever the batch, and drawn as plain Python draws it."""

import dataclasses
from collections import Counter
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_mutation as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import SPEC, as_genome, assert_equal, assert_same_arrays, jit, p_value, pick, stack, tally
from reference_mutation import Network, concat, conv, networks, pool

from eigen_jax.architecture import count_flops, count_parameters, decode, layer_shapes
from eigen_jax.builder import build_network
from eigen_jax.genome import Genome, GenomeSpec, infer_shapes, is_valid
from eigen_jax.mutation import MutationTrace, Operator, mutate

# Windows of 32, 128 and 160 genes where the batch is large; bounds that hold most children down.
CHAINS = GenomeSpec(capacity=160, max_parameters=150_000, max_flops=20_000_000)
TRACES: Counter[tuple[int, GenomeSpec]] = Counter()


@partial(jit, static_argnames="spec")
def run(keys: jax.Array, genomes: Genome, steps: jax.Array, *, spec: GenomeSpec) -> tuple[Genome, MutationTrace]:
    TRACES[len(steps), spec] += 1
    return jax.vmap(partial(mutate, spec=spec))(keys, genomes, steps)


@partial(jit, static_argnames="spec")
def check(genomes: Genome, *, spec: GenomeSpec):
    """Validity, [B] bool, and shapes, for a batch."""
    return jax.vmap(partial(is_valid, spec=spec))(genomes), jax.vmap(partial(infer_shapes, spec=spec))(genomes)


def straight(length: int) -> Network:
    """A valid network of this length: pools to 1 x 1, then narrow convolutions."""
    return tuple(pool(i - 1) if i < 5 else conv(i - 1) for i in range(length))


@dataclasses.dataclass(frozen=True)
class Batch:
    keys: jax.Array
    genomes: Genome
    steps: jax.Array
    children: Genome
    trace: MutationTrace


def run_batch(seed: int, genomes: Genome, steps: jax.Array) -> Batch:
    keys = jax.random.split(jax.random.key(seed), len(steps))
    children, trace = run(keys, genomes, steps, spec=CHAINS)
    return Batch(keys, genomes, steps, children, trace)


@pytest.fixture(scope="module")
def chains() -> list[Batch]:
    """3 x 700 chains, each batch from the children of the one before.

    The first starts from global pooling alone, but for its first genomes: they are longer than
    each of the windows that a batch is run in, or fill the genome, and their steps differ.
    """
    lengths = [0, 31, 33, 127, 130, 160, 100] + [0] * 693
    genomes = stack([as_genome(straight(length), spec=CHAINS) for length in lengths])
    steps = (
        jnp.full(700, 100, jnp.int32)
        .at[jnp.asarray([2, *range(8, 14)])]
        .set(jnp.asarray([0, 1, 2, 7, 8, 9, 250], jnp.int32))
    )
    first = run_batch(0, genomes, jnp.asarray(steps, jnp.int32))
    second = run_batch(1, first.children, jnp.full(700, 100, jnp.int32))
    return [first, second, run_batch(2, second.children, jnp.full(700, 100, jnp.int32))]


def test_children_of_many_chains_are_valid(chains):
    for batch in chains:
        valid, shapes = check(batch.children, spec=CHAINS)
        assert np.all(valid)
        assert np.all(np.asarray(shapes.parameters) <= CHAINS.max_parameters)
        assert np.all(np.asarray(shapes.flops) <= CHAINS.max_flops)
    # The bounds were felt.
    assert float(shapes.parameters.max()) > 0.9 * CHAINS.max_parameters
    assert float(shapes.flops.max()) > 0.9 * CHAINS.max_flops


def test_a_chain_applies_as_many_operators_as_asked_and_each_of_the_nine(chains):
    for batch in chains:
        np.testing.assert_array_equal(batch.trace.counts.sum(axis=1), batch.steps)
        assert np.all(batch.trace.counts.sum(axis=0) > 0)
        inserted, removed = batch.trace.counts[:, :3].sum(axis=1), batch.trace.counts[:, 3:6].sum(axis=1)
        # Removing a concatenation may prune layers that no operator removed.
        assert np.all(batch.children.length - batch.genomes.length <= inserted - removed)


def test_networks_of_children_have_the_shapes_that_genomes_tell(chains):
    for batch in chains:
        _, shapes = jax.device_get(check(batch.children, spec=CHAINS))
        children = jax.device_get(batch.children)
        for index in (0, 1, 3, *range(100, 111)):
            assert_built_as_told(pick(children, index), pick(shapes, index), CHAINS)


def test_children_stay_valid_over_as_many_chains_as_asked(chains, pytestconfig):
    """In turn from global pooling and from genomes evolved so far: `pytest --chains 100000` checks so many."""
    ancestors = stack([as_genome((), spec=CHAINS)] * 700)
    evolved = chains[-1].children
    for seed in range(3, 3 + -(-pytestconfig.getoption("chains") // 700)):
        batch = run_batch(seed, evolved if seed % 2 else ancestors, jnp.full(700, 100, jnp.int32))
        valid, shapes = jax.device_get(check(batch.children, spec=CHAINS))
        assert np.all(valid)
        assert np.all(batch.trace.counts.sum(axis=1) == 100)
        assert np.all(batch.trace.counts.sum(axis=0) > 0)
        children = jax.device_get(batch.children)
        for index in np.random.default_rng(seed).choice(700, 4, replace=False).tolist():
            assert_built_as_told(pick(children, index), pick(shapes, index), CHAINS)
        evolved = batch.children if seed % 2 else evolved


def assert_built_as_told(genome: Genome, shapes, spec: GenomeSpec) -> None:
    architecture = decode(genome, spec=spec)
    live = int(genome.length)
    told = [(*spec.sizes[level], width) for level, width in zip(shapes.level[:live], shapes.width[:live], strict=True)]
    assert Counter(told) == Counter(layer_shapes(architecture))

    module = build_network(architecture, num_classes=spec.num_classes)
    images = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
    apply = partial(module.init_with_output, train=False, capture_intermediates=True, mutable=True)
    logits, variables = jax.eval_shape(apply, jax.random.key(0), images)
    assert logits.shape == (1, spec.num_classes)
    convolutions = [shape for shape, op in zip(told, genome.op[:live], strict=True) if op == reference.Op.CONV]
    built = [
        outputs["__call__"][0].shape[1:]
        for name, outputs in variables.get("intermediates", {}).items()
        if name.startswith("layer_")
    ]
    assert Counter(convolutions) == Counter(built)

    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters == count_parameters(architecture, num_classes=spec.num_classes) == shapes.parameters
    assert count_flops(architecture, num_classes=spec.num_classes) == shapes.flops
    assert parameters <= spec.max_parameters
    assert shapes.flops <= spec.max_flops


@pytest.mark.parametrize("size", [7, 64])
def test_a_smaller_batch_gives_the_same_children(chains, size):
    whole = chains[0]
    part = run(*jax.tree.map(lambda leaf: leaf[:size], (whole.keys, whole.genomes, whole.steps)), spec=CHAINS)
    assert_equal(part, jax.tree.map(lambda leaf: leaf[:size], (whole.children, whole.trace)))


def test_an_individual_gives_the_same_child_alone(chains):
    alone = jit(partial(mutate, spec=CHAINS))
    whole = chains[0]
    for index in (*range(14), 699):
        child = alone(whole.keys[index], pick(whole.genomes, index), whole.steps[index])
        assert_equal(child, pick((whole.children, whole.trace), index))


def test_no_steps_change_nothing(chains):
    for batch in chains:
        for index in np.flatnonzero(batch.steps == 0).tolist():
            assert_same_arrays(pick(batch.genomes, index), pick(batch.children, index))
    assert np.any(chains[0].steps == 0)


def test_the_same_keys_give_the_same_children_and_others_do_not(chains):
    first, second = chains[0], run_batch(0, chains[0].genomes, chains[0].steps)
    assert_equal(first.children, second.children)
    other = run_batch(3, first.genomes, first.steps)
    assert not np.array_equal(first.trace.counts, other.trace.counts)
    # Nor do the individuals of one batch share their draws.
    assert len({counts.tobytes() for counts in np.asarray(first.trace.counts[14:])}) > 600


def test_the_number_of_steps_is_data(chains):
    run_batch(4, chains[0].genomes, jnp.arange(700, dtype=jnp.int32) % 5)
    assert TRACES[700, CHAINS] == 1


# One step against the transcription: in small batches, whose genomes are in one window.

BATCH = 48


def one_step(network: Network, *, rounds: int) -> Counter[tuple[Operator, Network]]:
    """How often one step gave each (operator, network)."""
    genomes = stack([as_genome(network)] * BATCH)
    drawn: Counter[tuple[Operator, Network]] = Counter()
    for seed in range(rounds):
        keys = jax.random.split(jax.random.key(seed), BATCH)
        children, trace = jax.device_get(run(keys, genomes, jnp.ones(BATCH, jnp.int32), spec=SPEC))
        assert np.all(trace.counts.sum(axis=1) == 1)
        drawn += tally(children, trace.counts.argmax(axis=1))
    return drawn


def one_step_reference(network: Network) -> dict[tuple[Operator, Network], Fraction]:
    """Its distribution: operators equally likely, and a draw that is refused drawn again."""
    valid = {
        (operator, child): probability
        for operator in Operator
        for child, probability in reference.outcomes(network, operator, spec=SPEC).items()
        if child is not None
    }
    return {outcome: probability / sum(valid.values()) for outcome, probability in valid.items()}


def test_operators_are_drawn_uniformly_among_the_applicable():
    # All nine apply; of three, some draws are refused.
    network = (conv(), conv(0, channels=1), concat(1, 0), pool(2), conv(3))
    expected = one_step_reference(network)
    drawn = one_step(network, rounds=84)
    assert drawn.total() == 4_032
    assert p_value(drawn, expected) > 1e-3

    def by_operator(outcomes):
        return {o: sum(value for (operator, _), value in outcomes.items() if operator == o) for o in Operator}

    assert min(by_operator(expected).values()) > 0
    assert p_value(Counter(by_operator(drawn)), by_operator(expected)) > 1e-3


@settings(max_examples=40)
@given(network=networks(spec=SPEC).filter(partial(reference.obeys, spec=SPEC)))
def test_a_step_draws_as_its_plain_python_transcription(network):
    assert p_value(one_step(network, rounds=2), one_step_reference(network)) > 1e-9


@settings(max_examples=40)
@given(network=networks(spec=SPEC).filter(partial(reference.obeys, spec=SPEC)), seed=st.integers(0, 1_000))
def test_exact_bounds_hold_after_many_steps(network, seed):
    keys = jax.random.split(jax.random.key(seed), BATCH)
    genomes = stack([as_genome(network)] * BATCH)
    children, trace = jax.device_get(run(keys, genomes, jnp.full(BATCH, 60, jnp.int32), spec=SPEC))
    assert np.all(trace.counts.sum(axis=1) == 60)
    assert all(reference.obeys(child, spec=SPEC) for _, child in tally(children, np.zeros(BATCH, np.int32)))


# The ends of the search space.


def test_chains_that_find_nothing_to_apply_end_each_on_its_own():
    # An inserted convolution has 16 channels, over the bound; one with a single channel is within
    # it and can be removed, and then there is nothing left to do.
    spec = GenomeSpec(
        capacity=2, channels=(16, 1), kernels=(1,), strides=(1,), input_shape=(1, 1, 1), num_classes=1, max_parameters=9
    )
    stuck, removable = as_genome((), spec=spec), as_genome((conv(channels=1),), spec=spec)
    keys = jax.random.split(jax.random.key(5), 2)
    children, trace = run(keys, stack([stuck, removable]), jnp.full(2, 5, jnp.int32), spec=spec)
    np.testing.assert_array_equal(trace.counts, [[0] * 9, [0, 0, 0, 1, 0, 0, 0, 0, 0]])
    assert_equal(children, stack([stuck, stuck]))


def test_nested_vmap_and_raw_keys_give_the_same_children():
    spec = GenomeSpec(capacity=6, input_shape=(4, 4, 1))
    raw = jax.random.split(jax.random.PRNGKey(7), 6)
    diamond = (conv(), conv(0), conv(0, channels=2), concat(1, 2))
    parents: list[Network] = [(), (conv(),), diamond, (pool(),), (), (conv(), pool(0))]
    genomes = stack([as_genome(network, spec=spec) for network in parents])
    steps = jnp.asarray([3, 0, 12, 30, 100, 1], jnp.int32)
    flat = run(jax.random.wrap_key_data(raw), genomes, steps, spec=spec)
    nested = jit(jax.vmap(jax.vmap(partial(mutate, spec=spec))))
    pairs = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), (raw, genomes, steps))
    assert_equal(nested(*pairs), jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), flat))
    np.testing.assert_array_equal(flat[1].counts.sum(axis=1), steps)
