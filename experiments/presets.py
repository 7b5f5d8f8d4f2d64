"""The presets of each data set: differences from the defaults of `Settings`, which are the paper's.

paper   Section 4.1 exactly (for the digits: its schedule and population)
small   all of the method, made small: about half an hour on two cores
smoke   a first look in minutes
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eigen_jax.data.types import DatasetName
from experiments.settings import Settings

_CIFAR: dict[str, dict[str, Any]] = {
    "paper": {},
    "small": {
        "preprocessing": "standardize",
        "validation_size": 500,
        "eval_batch_size": 500,
        "batch_size": 64,
        "learning_rate": 0.1,
        "decay_steps": (250, 340),
        "t1": 80,
        "t2": 200,
        "t3": 120,
        "final_steps": 1_000,
        "teacher_members": 1,
        "teacher_depth": 16,
        "teacher_growth": 16,
        "teacher_stem_stride": 2,
        "teacher_epochs": 30,
        "teacher_views": "center",
        "population": 6,
        "p": 3,
        "q": 2,
        "primary_steps": 30,
        "secondary_steps": 8,
        "saturation_gain": 0.005,
        "saturation_window": 3,
        "max_primary_generations": 4,
        "max_secondary_generations": 2,
        "capacity": 64,
        "max_parameters": 500_000,
        "max_flops": 30_000_000,
    },
    "smoke": {
        "preprocessing": "standardize",
        "validation_size": 500,
        "eval_batch_size": 500,
        "batch_size": 64,
        "learning_rate": 0.05,
        "decay_steps": (140, 180),
        "t1": 40,
        "t2": 80,
        "t3": 80,
        "final_steps": 200,
        "teacher_members": 1,
        "teacher_depth": 10,
        "teacher_growth": 8,
        "teacher_epochs": 2,
        "teacher_views": "center",
        "population": 5,
        "p": 2,
        "q": 1,
        "primary_steps": 20,
        "secondary_steps": 5,
        "max_primary_generations": 2,
        "max_secondary_generations": 2,
        "capacity": 64,
        "max_parameters": 300_000,
        "max_flops": 20_000_000,
    },
}

# Mirrored digits are no digits, and 8 x 8 pixels bear no large shift.
_DIGITS_DATA: dict[str, Any] = {
    "validation_size": 237,
    "eval_batch_size": 240,
    "preprocessing": "standardize",
    "pad": 1,
    "flip": False,
}

_DIGITS: dict[str, dict[str, Any]] = {
    "paper": _DIGITS_DATA,
    "small": _DIGITS_DATA
    | {
        "batch_size": 64,
        "learning_rate": 0.05,
        "decay_steps": (350, 480),
        "t1": 60,
        "t2": 190,
        "t3": 300,
        "final_steps": 550,
        "teacher_members": 2,
        "teacher_depth": 16,
        "teacher_growth": 12,
        "teacher_epochs": 30,
        "population": 6,
        "p": 3,
        "q": 2,
        "primary_steps": 30,
        "secondary_steps": 8,
        "saturation_gain": 0.002,
        "saturation_window": 2,
        "max_primary_generations": 2,
        "max_secondary_generations": 1,
        "capacity": 64,
        "max_parameters": 100_000,
        "max_flops": 4_000_000,
    },
    "smoke": _DIGITS_DATA
    | {
        "batch_size": 64,
        "learning_rate": 0.05,
        "decay_steps": (36, 48),
        "t1": 20,
        "t2": 20,
        "t3": 20,
        "final_steps": 60,
        "teacher_members": 1,
        "teacher_depth": 10,
        "teacher_growth": 8,
        "teacher_epochs": 4,
        "population": 4,
        "p": 2,
        "q": 1,
        "primary_steps": 20,
        "secondary_steps": 5,
        "max_primary_generations": 2,
        "max_secondary_generations": 1,
        "capacity": 32,
        "max_parameters": 50_000,
        "max_flops": 2_000_000,
    },
}


def _presets(name: DatasetName, differences: Mapping[str, Mapping[str, Any]]) -> dict[str, Settings]:
    return {
        preset: Settings(
            run_dir=Path("runs") / f"{name}-{preset}",
            teacher_dir=Path("runs") / f"{name}-{preset}-teacher",
            **difference,
        )
        for preset, difference in differences.items()
    }


PRESETS: dict[DatasetName, dict[str, Settings]] = {
    "cifar10": _presets("cifar10", _CIFAR),
    "cifar100": _presets("cifar100", _CIFAR),
    "digits": _presets("digits", _DIGITS),
}

DEFAULT_PRESET: dict[DatasetName, str] = {"cifar10": "paper", "cifar100": "paper", "digits": "small"}
