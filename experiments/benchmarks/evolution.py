"""Rates of the evolution arm: mutation, and whole generations."""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

from eigen_jax.evolution import EvolutionConfig, evolution_step, initial_state
from eigen_jax.genome import GenomeSpec, minimal_genome
from eigen_jax.mutation import mutate
from experiments.benchmarks.machine import available_cores
from experiments.benchmarks.measuring import Row, measure

GROUP = "evolution"
MUTATION_STEPS = 100  # of every child, as in the paper's primary succession


def measure_mutation(*, spec: GenomeSpec, batches: Sequence[int], threads: Sequence[int], runs: int) -> Iterator[Row]:
    """Children of the global-pooling network, each batch split among some threads, a call for each."""
    parent = minimal_genome(spec)
    steps = jnp.asarray(MUTATION_STEPS, jnp.int32)
    breed = jax.jit(jax.vmap(functools.partial(mutate, spec=spec), (0, None, None)))
    for batch in batches:
        for count in threads:
            share = batch // count
            keys = [
                [jax.random.split(jax.random.key(run * count + thread), share) for thread in range(count)]
                for run in range(runs + 1)
            ]
            jax.block_until_ready(keys)
            with ThreadPoolExecutor(count) as pool:

                def work(run, pool=pool, keys=keys):
                    return list(pool.map(lambda part: jax.block_until_ready(breed(part, parent, steps)), keys[run]))

                method = f"batch {batch:,}, " + ("one call" if count == 1 else f"{count} threads of {share:,}")
                what = f"children of {MUTATION_STEPS} steps"
                yield measure(work, group=GROUP, what=what, method=method, amount=share * count, runs=runs)


def threads_to_try() -> tuple[int, ...]:
    """One, and one for each core."""
    return tuple(sorted({1, available_cores()}))


def measure_evolution(*, spec: GenomeSpec, config: EvolutionConfig, runs: int) -> Row:
    """Generations of the primary succession: extinction, selection, and new children."""
    calls = 20
    fitness = jnp.tile(jnp.linspace(0.1, 0.9, config.population_size, dtype=jnp.float32)[:, None], (1, 3))

    def work(run):
        state = initial_state(jax.random.key(run), spec=spec, config=config)
        for generation in range(1, calls):
            # Rising, so that the search does not saturate.
            state = evolution_step(
                jax.random.key(generation), state, fitness + 0.01 * generation, spec=spec, config=config
            )
        return state

    method = f"population {config.population_size}, {calls} generations"
    return measure(work, group=GROUP, what="evolution steps", method=method, amount=calls, runs=runs)
