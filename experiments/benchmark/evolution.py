"""Rates of the evolution arm: mutation, and whole generations."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

from eigen_jax.evolution import EvolutionConfig, evolution_step, initial_state
from eigen_jax.genome import GenomeSpec
from experiments.benchmark.measuring import Plan, Progress, Row, rate_row
from experiments.benchmark.networks import breeder
from experiments.machine import cores

GROUP = "evolution"
MUTATION_STEPS = 100  # of every child, as in the paper's primary succession
GENERATIONS = 20
SPEC = GenomeSpec()


def measure_evolution(plan: Plan, progress: Progress) -> Iterator[Row]:
    """Mutation, in one call and in one for each core; and generations."""
    progress("mutation")
    for batch in plan.mutation_batches:
        for threads in sorted({cores() if plan.quick else 1, cores()}):
            yield mutation_rate(batch, threads=threads, runs=plan.runs)
    progress("evolution steps")
    yield evolution_rate(runs=plan.runs)


def mutation_rate(batch: int, *, threads: int, runs: int) -> Row:
    """Children of the global-pooling network, a batch split among some threads, a call for each."""
    breed = breeder(SPEC, steps=MUTATION_STEPS)
    share = batch // threads
    keys = [list(jax.random.split(jax.random.key(run), (threads, share))) for run in range(runs + 1)]
    jax.block_until_ready(keys)
    with ThreadPoolExecutor(threads) as pool:
        return rate_row(
            lambda run: list(pool.map(lambda part: jax.block_until_ready(breed(part)), keys[run])),
            group=GROUP,
            what=f"children of {MUTATION_STEPS} steps",
            method=f"batch {batch:,}, " + ("one call" if threads == 1 else f"{threads} threads of {share:,}"),
            amount=share * threads,
            runs=runs,
        )


def evolution_rate(*, runs: int) -> Row:
    """Generations of the primary succession: extinction, selection, and new children."""
    config = EvolutionConfig()
    fitness = jnp.tile(jnp.linspace(0.1, 0.9, config.population_size, dtype=jnp.float32)[:, None], (1, 3))

    def work(run):
        state = initial_state(jax.random.key(run), spec=SPEC, config=config)
        for generation in range(1, GENERATIONS):
            # Rising, so that the search does not saturate.
            risen = fitness + 0.01 * generation
            state = evolution_step(jax.random.key(generation), state, risen, spec=SPEC, config=config)
        return state

    method = f"population {config.population_size}, {GENERATIONS} generations"
    return rate_row(work, group=GROUP, what="evolution steps", method=method, amount=GENERATIONS, runs=runs)
