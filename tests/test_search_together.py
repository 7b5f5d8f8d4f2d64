"""Searches beside other work of their process: each leaves the others, and what their caller compiled, alone."""

import dataclasses
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from executor_data import CONFIG as TRAIN
from executor_data import SHAPE, make_dataset

from eigen_jax.data import Dataset
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Individual, read, without_times
from eigen_jax.search import SearchConfig, run_search
from eigen_jax.strategies import EvolutionConfig

CONFIG = SearchConfig(
    t1=1,
    t2=1,
    t3=1,
    final_steps=2,
    genome=GenomeSpec(capacity=3, input_shape=SHAPE, num_classes=2, channels=(2, 4)),
    evolution=EvolutionConfig(
        population_size=2,
        primary_steps=4,
        first_rank=2,
        second_rank=2,
        max_primary_generations=2,
        max_secondary_generations=0,
        max_duplication_generations=0,
    ),
    train=TRAIN,
)
SEEDS = (0, 1)
TRACED: list[int] = []


@pytest.fixture(scope="module")
def noise() -> Dataset:
    return make_dataset(noise=3.0)


def search(noise: Dataset, folder: Path, seed: int) -> tuple[list[Individual], str | None]:
    """The record of a search, but for times, and the digest of what the final network says of the test images."""
    result = run_search(dataclasses.replace(CONFIG, seed=seed), noise, folder)
    return [without_times(each) for each in read(folder / "lineage.jsonl")], result.test_logits


@jax.jit
def caller_owned(array: jax.Array) -> jax.Array:
    TRACED.append(1)
    return jnp.tanh(array) * 2


@pytest.fixture(scope="module")
def alone(noise, tmp_path_factory) -> list[tuple[list[Individual], str | None]]:
    """The records of a search of each seed, one after the other, between two calls of a program of the caller's."""
    array = jnp.arange(3.0)
    caller_owned(array)
    records = [search(noise, tmp_path_factory.mktemp("alone"), seed) for seed in SEEDS]
    gc.collect()
    caller_owned(array)
    return records


def test_a_program_that_the_caller_compiled_is_not_compiled_again_after_searches(alone):
    assert TRACED == [1]


def test_no_thread_is_left_of_a_search(alone):
    assert "compilation" not in {thread.name for thread in threading.enumerate()}


def test_two_searches_at_once_end_as_each_alone(noise, alone, tmp_path):
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(2) as threads:
        searches = [threads.submit(search, noise, tmp_path / str(seed), seed) for seed in SEEDS]
        assert [each.result(timeout=300) for each in searches] == alone


def test_a_search_after_others_ends_as_one_alone(noise, alone, tmp_path):
    assert search(noise, tmp_path, SEEDS[0]) == alone[0]
