"""The presets of each data set: differences from the defaults of the configs, which are the paper's.

paper     Section 4.1 exactly (for the digits: its schedule and population)
evening   CIFAR: the best network of an evening on two cores
hour      CIFAR, images: that of an hour or so
small     all of the method, made small: about half an hour on two cores; of images, without a teacher: minutes
smoke     a first look in minutes
gpu       CIFAR: the best network of five minutes on one large GPU
"""

from dataclasses import replace
from pathlib import Path

from eigen_jax.data import DataConfig
from eigen_jax.data.types import DatasetName
from eigen_jax.genome import GenomeSpec
from eigen_jax.platforms import finds_gpu
from eigen_jax.search import SearchConfig
from eigen_jax.strategies import EvolutionConfig
from eigen_jax.teacher import TeacherConfig
from eigen_jax.training import TrainConfig
from experiments.settings import Machine, Settings

DEFAULT_PRESET: dict[DatasetName, str] = {
    "cifar10": "paper",
    "cifar100": "paper",
    "digits": "small",
    "images": "small",
}

_FEW = EvolutionConfig(population_size=6, first_rank=3, second_rank=2, primary_steps=30, secondary_steps=8)
_SMOKE = EvolutionConfig(first_rank=2, second_rank=1, primary_steps=20, secondary_steps=5, max_primary_generations=2)

_CIFAR_DATA = DataConfig(validation_size=500, preprocessing="standardize")
_CIFAR_TRAIN = TrainConfig(batch_size=64, eval_batch_size=500)
_SMALL_TEACHER = TeacherConfig(members=1, depth=16, growth=16, stem_stride=2, epochs=30)
_EVENING = Settings(
    teacher="none",
    data=DataConfig(preprocessing="standardize"),
    search=SearchConfig(
        t1=200,
        t2=300,
        t3=1_500,
        budget=7e14,
        final_share=0.6,
        final_on="train+validation",
        train=TrainConfig(
            batch_size=64,
            eval_batch_size=125,
            learning_rate=0.15,
            schedule="one-cycle",
            decay_steps=(2_000,),
            nesterov=True,
            averaging=0.95,
            pad=2,
        ),
        # The budget ends a succession, not its saturation.
        evolution=EvolutionConfig(
            elitism=True,
            redraws=16,
            min_flops_share=0.5,
            candidates=6,
            saturation_gain=0.0,
            secondary_from=0.01,  # after one generation: leaps from a good parent found nothing better
            duplication_from=0.85,
            extinguish_duplicates=True,
        ),
        # A bound on FLOPs then leaves room for layers that are wide where maps are small, as good networks are.
        genome=GenomeSpec(capacity=64, channels=(64, 96, 128, 192), max_flops=100_000_000),
    ),
    ensemble=_SMALL_TEACHER,  # of whoever asks for one
)
_CIFAR = {
    "paper": Settings(),
    "evening": _EVENING,
    "hour": replace(
        _EVENING,
        search=replace(
            _EVENING.search,
            t1=120,
            t2=200,
            t3=1_000,
            budget=2.3e14,
            train=replace(_EVENING.search.train, decay_steps=(1_320,)),
            genome=replace(_EVENING.search.genome, max_flops=50_000_000),
        ),
    ),
    "small": Settings(
        teacher_views="center",
        data=_CIFAR_DATA,
        search=replace(
            SearchConfig(t1=80, t2=200, t3=120, final_steps=1_000),
            train=replace(_CIFAR_TRAIN, learning_rate=0.1, decay_steps=(250, 340)),
            evolution=replace(
                _FEW, saturation_gain=0.005, saturation_window=3, max_primary_generations=4, max_secondary_generations=2
            ),
            genome=GenomeSpec(capacity=64, max_parameters=500_000, max_flops=30_000_000),
        ),
        ensemble=_SMALL_TEACHER,
    ),
    "smoke": Settings(
        teacher_views="center",
        data=_CIFAR_DATA,
        search=replace(
            SearchConfig(t1=40, t2=80, t3=80, final_steps=200),
            train=replace(_CIFAR_TRAIN, learning_rate=0.05, decay_steps=(140, 180)),
            evolution=replace(_SMOKE, population_size=5, max_secondary_generations=2),
            genome=GenomeSpec(capacity=64, max_parameters=300_000, max_flops=20_000_000),
        ),
        ensemble=TeacherConfig(members=1, depth=10, growth=8, epochs=2),
    ),
    # A program takes 50 steps there, so landmarks are multiples of it: others need a second one for what is left over.
    "gpu": replace(
        _EVENING,
        search=replace(
            _EVENING.search,
            t1=100,
            t2=100,
            t3=200,
            budget=3e15,
            train=replace(
                _EVENING.search.train,
                batch_size=256,
                # Convolutions of training, whose fastest ways are known by then: others would be tried anew.
                eval_batch_size=256,
                learning_rate=0.4,
                decay_steps=(400,),
                dtype="bfloat16",
            ),
            evolution=replace(_EVENING.search.evolution, population_size=12, first_rank=6),
            genome=replace(_EVENING.search.genome, max_flops=200_000_000),
        ),
        # Compiling takes more of the time than training, and cores while the GPU is another's.
        # One that hangs in XLA, which was seen, must not hold the search up.
        machine=Machine(worker_gpus=1 / 12, time_limit=300.0),
    ),
}

_DIGITS_DATA = DataConfig(name="digits", validation_size=237, preprocessing="standardize")
# Mirrored digits are no digits, and 8 x 8 pixels bear no large shift.
_DIGITS_PAPER = TrainConfig(eval_batch_size=240, pad=1, flip=False)
_DIGITS_TRAIN = replace(_DIGITS_PAPER, batch_size=64, learning_rate=0.05)
_DIGITS = {
    "paper": Settings(data=_DIGITS_DATA, search=SearchConfig(final_steps=25_000, train=_DIGITS_PAPER)),
    "small": Settings(
        data=_DIGITS_DATA,
        search=replace(
            SearchConfig(t1=60, t2=190, t3=300, final_steps=550),
            train=replace(_DIGITS_TRAIN, decay_steps=(350, 480)),
            evolution=replace(
                _FEW, saturation_gain=0.002, saturation_window=2, max_primary_generations=2, max_secondary_generations=1
            ),
            genome=GenomeSpec(capacity=64, max_parameters=100_000, max_flops=4_000_000),
        ),
        ensemble=TeacherConfig(members=2, depth=16, growth=12, epochs=30),
    ),
    "smoke": Settings(
        data=_DIGITS_DATA,
        search=replace(
            SearchConfig(t1=20, t2=20, t3=20, final_steps=60),
            train=replace(_DIGITS_TRAIN, decay_steps=(36, 48)),
            evolution=replace(_SMOKE, population_size=4, max_secondary_generations=1),
            genome=GenomeSpec(capacity=32, max_parameters=50_000, max_flops=2_000_000),
        ),
        ensemble=TeacherConfig(members=1, depth=10, growth=8, epochs=4),
    ),
}

# Sets of hundreds of pictures, of up to 64 x 64 pixels: what is small there is the set, so networks are, too.
_IMAGES_SMALL = replace(
    _EVENING,
    data=DataConfig(name="images", preprocessing="standardize", validation_size=None),
    search=replace(
        _EVENING.search,
        t1=80,
        t2=120,
        t3=300,
        budget=1.5e13,
        final_share=0.35,
        train=replace(_EVENING.search.train, batch_size=32, eval_batch_size=100, decay_steps=(500,), pad=4),
        evolution=replace(_EVENING.search.evolution, population_size=6, first_rank=3, second_rank=2),
        genome=GenomeSpec(capacity=64, channels=(16, 32, 64, 96), max_flops=30_000_000),
    ),
)
_IMAGES = {
    "hour": replace(
        _IMAGES_SMALL,
        search=replace(
            _IMAGES_SMALL.search,
            t1=150,
            t2=250,
            t3=600,
            budget=2e14,
            train=replace(_IMAGES_SMALL.search.train, decay_steps=(1_000,)),
            evolution=_EVENING.search.evolution,
            genome=replace(_IMAGES_SMALL.search.genome, channels=(32, 64, 96, 128), max_flops=60_000_000),
        ),
    ),
    "small": _IMAGES_SMALL,
    "smoke": replace(
        _IMAGES_SMALL,
        search=replace(
            _IMAGES_SMALL.search,
            t1=20,
            t2=20,
            t3=40,
            budget=1e12,
            train=replace(_IMAGES_SMALL.search.train, decay_steps=(80,)),
            genome=replace(_IMAGES_SMALL.search.genome, max_flops=10_000_000),
        ),
    ),
}

_BY_DATA: dict[DatasetName, dict[str, Settings]] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "digits": _DIGITS,
    "images": _IMAGES,
}
PRESETS = {
    name: {
        preset: replace(
            settings,
            run_dir=Path("runs") / f"{name}-{preset}",
            teacher_dir=Path("runs") / f"{name}-{preset}-teacher",
            data=replace(settings.data, name=name),
        )
        for preset, settings in presets.items()
    }
    for name, presets in _BY_DATA.items()
}


def default_preset(dataset: DatasetName) -> str:
    """The preset where none is named: without a GPU, none that takes months."""
    named = DEFAULT_PRESET[dataset]
    return "evening" if named == "paper" and not finds_gpu() else named
