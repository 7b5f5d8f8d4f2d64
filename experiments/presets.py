"""The presets of each data set: differences from the defaults of the configs, which are the paper's.

paper   Section 4.1 exactly (for the digits: its schedule and population)
small   all of the method, made small: about half an hour on two cores
smoke   a first look in minutes
"""

from pathlib import Path

from eigen_jax.data import DataConfig
from eigen_jax.data.types import DatasetName
from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.search import SearchConfig
from eigen_jax.teacher import TeacherConfig
from eigen_jax.training import TrainConfig
from experiments.settings import Settings, TeacherViews

DEFAULT_PRESET: dict[DatasetName, str] = {"cifar10": "paper", "cifar100": "paper", "digits": "small"}

_CIFAR_SMALL = SearchConfig(
    t1=80,
    t2=200,
    t3=120,
    final_steps=1_000,
    train=TrainConfig(batch_size=64, learning_rate=0.1, decay_steps=(250, 340), eval_batch_size=500),
    evolution=EvolutionConfig(
        population_size=6,
        first_rank=3,
        second_rank=2,
        primary_steps=30,
        secondary_steps=8,
        saturation_gain=0.005,
        saturation_window=3,
        max_primary_generations=4,
        max_secondary_generations=2,
    ),
    genome=GenomeSpec(capacity=64, max_parameters=500_000, max_flops=30_000_000),
)

_CIFAR_SMOKE = SearchConfig(
    t1=40,
    t2=80,
    t3=80,
    final_steps=200,
    train=TrainConfig(batch_size=64, learning_rate=0.05, decay_steps=(140, 180), eval_batch_size=500),
    evolution=EvolutionConfig(
        population_size=5,
        first_rank=2,
        second_rank=1,
        primary_steps=20,
        secondary_steps=5,
        max_primary_generations=2,
        max_secondary_generations=2,
    ),
    genome=GenomeSpec(capacity=64, max_parameters=300_000, max_flops=20_000_000),
)

# Mirrored digits are no digits, and 8 x 8 pixels bear no large shift.
_DIGITS_PAPER = SearchConfig(final_steps=25_000, train=TrainConfig(eval_batch_size=240, pad=1, flip=False))

_DIGITS_SMALL = SearchConfig(
    t1=60,
    t2=190,
    t3=300,
    final_steps=550,
    train=TrainConfig(
        batch_size=64, learning_rate=0.05, decay_steps=(350, 480), eval_batch_size=240, pad=1, flip=False
    ),
    evolution=EvolutionConfig(
        population_size=6,
        first_rank=3,
        second_rank=2,
        primary_steps=30,
        secondary_steps=8,
        saturation_gain=0.002,
        saturation_window=2,
        max_primary_generations=2,
        max_secondary_generations=1,
    ),
    genome=GenomeSpec(capacity=64, max_parameters=100_000, max_flops=4_000_000),
)

_DIGITS_SMOKE = SearchConfig(
    t1=20,
    t2=20,
    t3=20,
    final_steps=60,
    train=TrainConfig(batch_size=64, learning_rate=0.05, decay_steps=(36, 48), eval_batch_size=240, pad=1, flip=False),
    evolution=EvolutionConfig(
        population_size=4,
        first_rank=2,
        second_rank=1,
        primary_steps=20,
        secondary_steps=5,
        max_primary_generations=2,
        max_secondary_generations=1,
    ),
    genome=GenomeSpec(capacity=32, max_parameters=50_000, max_flops=2_000_000),
)


def _preset(
    name: DatasetName, preset: str, search: SearchConfig, ensemble: TeacherConfig, views: TeacherViews = "all"
) -> Settings:
    data = DataConfig(name=name)
    if name == "digits":
        data = DataConfig(name=name, validation_size=237, preprocessing="standardize")
    elif preset != "paper":
        data = DataConfig(name=name, validation_size=500, preprocessing="standardize")
    return Settings(
        run_dir=Path("runs") / f"{name}-{preset}",
        teacher_dir=Path("runs") / f"{name}-{preset}-teacher",
        teacher_views=views,
        data=data,
        search=search,
        ensemble=ensemble,
    )


def _cifar(name: DatasetName) -> dict[str, Settings]:
    small = TeacherConfig(members=1, depth=16, growth=16, stem_stride=2, epochs=30)
    smoke = TeacherConfig(members=1, depth=10, growth=8, epochs=2)
    return {
        "paper": _preset(name, "paper", SearchConfig(final_steps=25_000), TeacherConfig()),
        "small": _preset(name, "small", _CIFAR_SMALL, small, "center"),
        "smoke": _preset(name, "smoke", _CIFAR_SMOKE, smoke, "center"),
    }


PRESETS: dict[DatasetName, dict[str, Settings]] = {
    "cifar10": _cifar("cifar10"),
    "cifar100": _cifar("cifar100"),
    "digits": {
        "paper": _preset("digits", "paper", _DIGITS_PAPER, TeacherConfig()),
        "small": _preset("digits", "small", _DIGITS_SMALL, TeacherConfig(members=2, depth=16, growth=12, epochs=30)),
        "smoke": _preset("digits", "smoke", _DIGITS_SMOKE, TeacherConfig(members=1, depth=10, growth=8, epochs=4)),
    },
}
