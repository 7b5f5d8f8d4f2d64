"""How much of a search's wall time is training steps."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from eigen_jax import lineage
from eigen_jax.data import load_dataset
from eigen_jax.lineage import Individual
from eigen_jax.search import RunFolderError, run_search
from experiments.benchmarks.measuring import Row
from experiments.presets import PRESETS
from experiments.settings import Settings

GROUP = "time of a search"


def search_settings(*, quick: bool) -> Settings:
    """A search on the digits, without a teacher, duplication or final training.

    It is short in generations, not in training steps: each individual is trained for about as long
    as in a search that is meant.
    """
    small = PRESETS["digits"]["small"]
    evolution = dataclasses.replace(
        small.search.evolution,
        population_size=3 if quick else 4,
        first_rank=2,
        second_rank=1,
        max_primary_generations=1 if quick else 2,
        max_secondary_generations=0,
        max_duplication_generations=0,
    )
    t2, t3 = (500, 500) if quick else (1_500, 2_000)
    search = dataclasses.replace(small.search, t1=500, t2=t2, t3=t3, final_steps=0, evolution=evolution)
    return dataclasses.replace(small, teacher="none", search=search)


def measure_search(settings: Settings) -> Row:
    """Searches on the digits, in a folder that is then removed.

    The wall time is that of `run_search`: breeding, compiling, training, evaluating, saving, recording.
    """
    dataset = load_dataset(settings.data)
    config = settings.search_config()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run_search(config, dataset, folder)
        wall = time.perf_counter() - began
        individuals = lineage.read(Path(folder) / "lineage.jsonl")
    steps = f"{config.landmarks[-1]:,} steps an individual"
    return share_row(individuals, wall, what="search on the digits", method=steps)


def measure_folder(folder: Path) -> Row:
    """The same of a finished run, from what it left.

    A run folder records no wall time. The search itself lasted from the writing of settings.json, its first
    file, to that of the last generation in lineage.jsonl, told by the files' times; the final
    training comes after it and is not counted. A run that was interrupted counts its pause as well.

    Raises:
        LineageError: the folder has no record of a run, or a damaged one.
        RunFolderError: the run has not finished, or its files are copies that tell no times.
    """
    record, settings = folder / "lineage.jsonl", folder / "settings.json"
    individuals = lineage.read(record)
    if not (folder / "result.json").exists() or not settings.exists():
        raise RunFolderError(f"{folder} is no folder of a finished run; name one with settings.json and result.json")
    wall = record.stat().st_mtime - settings.stat().st_mtime
    if wall <= 0 or wall < _seconds(individuals)[0]:
        raise RunFolderError(
            f"the files in {folder} were written within {max(wall, 0):.0f} s, less than their run trained for, so they"
            " are copies and tell no wall time; name the original folder"
        )
    method = "wall time: from settings.json to the last line of lineage.jsonl"
    return share_row(individuals, wall, what=str(folder), method=method)


def share_row(individuals: Sequence[Individual], wall: float, *, what: str, method: str) -> Row:
    """The shares of training and of waiting for compilation in a search.

    Args:
        individuals: its record.
        wall: seconds that it took.
        what: the search.
        method: how it was run, or how its time is known.
    """
    training, compiling = _seconds(individuals)
    values = {
        "seconds": wall,
        "share_training": training / wall,
        "share_compiling": compiling / wall,
        "trained": sum(individual.same_as is None for individual in individuals),
    }
    return Row(group=GROUP, what=what, method=method, values=values)


def _seconds(individuals: Sequence[Individual]) -> tuple[float, float]:
    """In training steps, and waiting for compilation."""
    return (
        math.fsum(individual.seconds_training for individual in individuals),
        math.fsum(individual.seconds_compiling for individual in individuals),
    )
