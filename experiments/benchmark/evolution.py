"""Rates of the evolution arm: mutation, and whole generations."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

from eigen_jax.genome import GenomeSpec
from eigen_jax.strategies.eigen import EvolutionConfig, EvolutionState, evolution_step, initial_state
from experiments.benchmark.measuring import Plan, Progress, Row, rate_row
from experiments.benchmark.networks import breeder
from experiments.machine import cores

MUTATION_STEPS = 100  # of every child, as in the paper's primary succession
GENERATIONS = 20
SPEC, CONFIG = GenomeSpec(), EvolutionConfig()


def measure_evolution(plan: Plan, progress: Progress) -> Iterator[Row]:
    """Mutation, in one call and in one for each core; and generations."""
    rate = functools.partial(rate_row, group="evolution", runs=plan.runs)
    progress("mutation")
    for batch in plan.mutation_batches:
        for threads in sorted({cores() if plan.quick else 1, cores()}):
            share = batch // threads
            method = f"batch {batch:,}, " + ("one call" if threads == 1 else f"{threads} threads of {share:,}")
            with ThreadPoolExecutor(threads) as pool:
                work = _breeding(pool, threads, share, runs=1 + plan.runs)
                yield rate(work, what=f"children of {MUTATION_STEPS} steps", method=method, amount=share * threads)
    progress("evolution steps")
    method = f"population {CONFIG.population_size}, {GENERATIONS} generations"
    fitness = jnp.tile(jnp.linspace(0.1, 0.9, CONFIG.population_size, dtype=jnp.float32)[:, None], (1, 3))
    yield rate(functools.partial(_generations, fitness), what="evolution steps", method=method, amount=GENERATIONS)


def _breeding(pool: ThreadPoolExecutor, threads: int, share: int, *, runs: int) -> Callable[[int], object]:
    """Children of the global-pooling network, of other keys in each run: a share of them in each thread, in a call."""
    breed = breeder(SPEC, steps=MUTATION_STEPS)
    keys = [list(jax.random.split(jax.random.key(run), (threads, share))) for run in range(runs)]
    jax.block_until_ready(keys)
    return lambda run: list(pool.map(lambda part: jax.block_until_ready(breed(part)), keys[run]))


def _generations(fitness: jax.Array, run: int) -> EvolutionState:
    """Generations of the primary succession, of rising fitness, so that the search does not saturate."""
    state = initial_state(jax.random.key(run), spec=SPEC, config=CONFIG)
    for generation in range(1, GENERATIONS):
        risen = fitness + 0.01 * generation
        state = evolution_step(jax.random.key(generation), state, risen, spec=SPEC, config=CONFIG)
    return state
