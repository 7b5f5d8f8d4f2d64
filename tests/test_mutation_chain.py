"""Chains of mutations: what comes out is valid, whatever the batch, and drawn as plain Python draws it."""

import hashlib
from collections import Counter
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import mutation_checks as checks
import numpy as np
import pytest
import reference_mutation as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation_checks import CHAINS, SPEC, as_genome, assert_equal, jit, p_value, pick, stack, tally
from reference_mutation import Network, concat, conv, networks, pool

from eigen_jax.architecture import decode, fingerprint
from eigen_jax.genome import Genome, GenomeSpec, Shapes
from eigen_jax.mutation import MutationTrace, mutate


@partial(jit, static_argnames="spec")
def run(keys: jax.Array, genomes: Genome, steps: jax.Array, *, spec: GenomeSpec) -> tuple[Genome, MutationTrace]:
    return jax.vmap(partial(mutate, spec=spec))(keys, genomes, steps)


def straight(length: int, spec: GenomeSpec) -> Network:
    """A valid network of this length: pools to 1 x 1, then narrow convolutions."""
    return tuple(pool(i - 1) if i < spec.max_level else conv(i - 1) for i in range(length))


class Batch(NamedTuple):
    spec: GenomeSpec
    keys: jax.Array
    genomes: Genome
    steps: np.ndarray
    children: Genome
    trace: MutationTrace
    valid: np.ndarray
    shapes: Shapes


def run_batch(spec: GenomeSpec, seed: int, genomes: Genome, steps: np.ndarray) -> Batch:
    keys = jax.random.split(jax.random.key(seed), len(steps))
    children, trace = run(keys, genomes, steps, spec=spec)
    return Batch(spec, keys, genomes, steps, *jax.device_get((children, trace, *checks.check(children, spec=spec))))


# Batches of 64 and more are run in windows of 32 genes, of 128 if there are as many, and of the capacity.
@pytest.fixture(
    scope="module", params=[(SPEC, 64), pytest.param((CHAINS, 200), marks=pytest.mark.slow)], ids=["small", "large"]
)
def chains(request) -> list[Batch]:
    """Three batches of chains, each from the children of the one before.

    The first starts from global pooling alone, but for its first genomes: they are longer than
    each of the windows that a batch is run in, or fill the genome, and their steps differ.
    """
    spec, size = request.param
    most = spec.capacity
    lengths = [0, 31, 33, most - 33, most - 30, most, 20] + [0] * (size - 7)
    genomes, steps = stack([as_genome(straight(length, spec), spec=spec) for length in lengths]), np.full(size, 100)
    steps[[2, *range(8, 14)]] = 0, 1, 2, 7, 8, 9, 250
    batches = [run_batch(spec, 0, genomes, steps.astype(np.int32))]
    for seed in (1, 2):
        batches.append(run_batch(spec, seed, batches[-1].children, np.full(size, 100, np.int32)))
    return batches


def check_batch(batch: Batch, *built: int) -> None:
    """That each child is valid, within the bounds, of as many operators as asked, and some are built as told."""
    assert np.all(batch.valid)
    assert np.all(batch.shapes.parameters <= batch.spec.max_parameters)
    assert np.all(batch.shapes.flops <= batch.spec.max_flops)
    np.testing.assert_array_equal(batch.trace.counts.sum(axis=1), batch.steps)
    assert np.all(batch.trace.counts.sum(axis=0) > 0)
    for index in built:
        checks.assert_built_as_told(pick(batch.children, index), pick(batch.shapes, index), batch.spec)


def test_children_of_many_chains_are_valid_and_built_as_told_and_no_steps_change_nothing(chains):
    (index,) = np.flatnonzero(chains[0].steps == 0)
    checks.assert_same_arrays(pick(chains[0].genomes, index), pick(chains[0].children, index))
    for batch in chains:
        check_batch(batch, 1, 3, *range(50, 54))
        inserted, removed = batch.trace.counts[:, :3].sum(axis=1), batch.trace.counts[:, 3:6].sum(axis=1)
        # Removing a concatenation may prune layers that no operator removed.
        assert np.all(batch.children.length - batch.genomes.length <= inserted - removed)
    # The bounds were felt.
    assert batch.shapes.parameters.max() > 0.85 * batch.spec.max_parameters
    assert batch.shapes.flops.max() > 0.85 * batch.spec.max_flops


@pytest.mark.slow
def test_children_stay_valid_over_as_many_chains_as_asked(chains, pytestconfig):
    """In turn from global pooling and from genomes evolved so far: `pytest --chains 100000` checks so many."""
    spec, _, evolved, steps, *_ = chains[-1]
    ancestors = stack([as_genome((), spec=spec)] * len(steps))
    for seed in range(3, 3 + -(-pytestconfig.getoption("chains") // len(steps))):
        batch = run_batch(spec, seed, evolved if seed % 2 else ancestors, steps)
        check_batch(batch, *np.random.default_rng(seed).choice(len(steps), 4, replace=False).tolist())
        evolved = batch.children if seed % 2 else evolved


def test_an_individual_gives_the_same_child_alone_and_in_nested_batches(chains):
    whole = chains[0]
    alone = jit(partial(mutate, spec=whole.spec))
    for index in (*range(14), -1):
        child = alone(whole.keys[index], pick(whole.genomes, index), whole.steps[index])
        assert_equal(child, pick((whole.children, whole.trace), index))
    # So do nested vmaps and raw keys.
    arguments = pick((jax.random.key_data(whole.keys), whole.genomes, whole.steps), slice(14))
    pairs = jax.tree.map(lambda leaf: leaf.reshape(2, 7, *leaf.shape[1:]), arguments)
    nested = jit(jax.vmap(jax.vmap(partial(mutate, spec=whole.spec))))(*pairs)
    flat = jax.tree.map(lambda leaf: leaf.reshape(14, *leaf.shape[2:]), nested)
    assert_equal(flat, pick((whole.children, whole.trace), slice(14)))


@pytest.mark.slow
def test_a_third_of_a_batch_gives_the_same_children(chains):
    whole, third = chains[0], slice(len(chains[0].steps) // 3)
    part = run(*pick((whole.keys, whole.genomes, whole.steps), third), spec=whole.spec)
    assert_equal(part, pick((whole.children, whole.trace), third))


def test_the_same_keys_give_the_same_children_and_others_do_not(chains):
    first = chains[0]
    again, other = (run_batch(first.spec, seed, first.genomes, first.steps) for seed in (0, 3))
    assert_equal(again.children, first.children)
    assert not np.array_equal(first.trace.counts, other.trace.counts)
    # Nor do the individuals of one batch share their draws.
    assert len({counts.tobytes() for counts in first.trace.counts[14:]}) > 0.7 * len(first.steps)


BATCH = 64  # as the small batches, whose program is taken


def after_steps(network: Network, steps: int, *, seed: int) -> Counter[tuple[int, Network]]:
    """How often so many steps gave each (the operator that was drawn most, network)."""
    keys, genomes = jax.random.split(jax.random.key(seed), BATCH), stack([as_genome(network)] * BATCH)
    children, trace = jax.device_get(run(keys, genomes, np.full(BATCH, steps, np.int32), spec=SPEC))
    assert np.all(trace.counts.sum(axis=1) == steps)
    return tally(children, trace.counts.argmax(axis=1))


def one_step(network: Network, *, rounds: int) -> Counter[tuple[int, Network]]:
    return sum((after_steps(network, 1, seed=seed) for seed in range(rounds)), Counter())


def one_step_reference(network: Network) -> dict[tuple[int, Network], Fraction]:
    """Its distribution: operators equally likely, and a draw that is refused drawn again."""
    valid = {
        (place, child): probability
        for place, operator in enumerate(reference.OPERATORS)
        for child, probability in reference.outcomes(network, operator, spec=SPEC).items()
        if child is not None
    }
    return {outcome: probability / sum(valid.values()) for outcome, probability in valid.items()}


def test_operators_are_drawn_uniformly_among_the_applicable():
    # All nine apply; of three, some draws are refused.
    network = (conv(), conv(0, channels=1), concat(1, 0), pool(2), conv(3))
    expected = one_step_reference(network)
    drawn = one_step(network, rounds=40)
    assert drawn.total() == 2_560
    assert {operator for operator, _ in expected} == set(range(9))
    assert p_value(drawn, expected) > 1e-3


@settings(max_examples=settings().max_examples * 2 // 5)
@given(network=networks(spec=SPEC).filter(partial(reference.obeys, spec=SPEC)), seed=st.integers(0, 1_000))
def test_a_step_draws_as_its_plain_python_transcription_and_exact_bounds_hold_after_many(network, seed):
    assert p_value(one_step(network, rounds=2), one_step_reference(network)) > 1e-9
    assert all(reference.obeys(child, spec=SPEC) for _, child in after_steps(network, 60, seed=seed))


def test_chains_that_find_nothing_to_apply_end_each_on_its_own():
    # An inserted convolution has 16 channels, over the bound; one with a single channel is within
    # it and can be removed, and then there is nothing left to do.
    spec = GenomeSpec(
        capacity=2, channels=(16, 1), kernels=(1,), strides=(1,), input_shape=(1, 1, 1), num_classes=1, max_parameters=9
    )
    stuck, removable = as_genome((), spec=spec), as_genome((conv(channels=1),), spec=spec)
    keys = jax.random.split(jax.random.key(5), 2)
    children, trace = run(keys, stack([stuck, removable]), np.full(2, 5, np.int32), spec=spec)
    np.testing.assert_array_equal(trace.counts, [[0] * 9, [0, 0, 0, 1, 0, 0, 0, 0, 0]])
    assert_equal(children, stack([stuck, stuck]))


def test_children_of_the_papers_space_are_those_of_before_there_was_a_table_of_kinds():
    """SHA-256 of 64 children and what made them, by the version whose nine operators were written out."""
    keys, steps = jax.random.split(jax.random.key(7), 64), np.resize(np.array([100, 30], np.int32), 64)
    bred = jax.device_get(run(keys, stack([as_genome(())] * 64), steps, spec=SPEC))
    arrays = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(bred))
    assert hashlib.sha256(arrays).hexdigest() == "1df3bff8868c3e3fa76aea3f1ecb447788def6081fcf608bac03d340c037cf91"
    fingerprints = "".join(fingerprint(decode(pick(bred[0], index), spec=SPEC)) for index in range(50))
    expected = "ef19c8d2a4593d15c10337010cc589523441d1ee0f2a18b8891b9c6d265c3a27"
    assert hashlib.sha256(fingerprints.encode()).hexdigest() == expected
