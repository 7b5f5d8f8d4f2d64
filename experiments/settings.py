"""The settings of an experiment: one flat dataclass, and what the library is configured with from it."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from eigen_jax.data import DataConfig, DataError, Dataset, default_cache_dir
from eigen_jax.data.types import DatasetName, Preprocessing
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.search import Care, FinalOn, SearchConfig
from eigen_jax.training import ComputeDtype, TrainConfig

ExecutorKind = Literal["inline", "processes", "ray"]
TeacherKind = Literal["cache", "live", "none"]
TeacherViews = Literal["all", "center"]


class SettingsError(EigenError):
    """A setting that does not exist or cannot be; the message names it as the command line does."""


@dataclasses.dataclass(frozen=True)
class Help:
    """What the command line's help says of a setting."""

    group: str  # the heading that it stands under
    text: str  # what it is, its unit, and the paper's value


# Settings that have another name in the library than on the command line.
_LIBRARY_NAMES = {"population": "population_size", "p": "first_rank", "q": "second_rank"}

# The outcome of a run depends on what lies in these places, which has a fingerprint, not on where they are.
_FOLDERS = ("run_dir", "data_dir", "cache_dir", "teacher_dir", "teacher_logits")

# Nor does it depend on where and how carefully it is computed, but for the rounding of float32 and time limits.
_MACHINE = (
    "executor",
    "workers",
    "worker_cpus",
    "worker_gpus",
    "ray_address",
    "threads",
    "devices",
    "save_every",
    "time_limit",
)

# What the images of each data set are, for the checks that can be made before they are loaded.
_IMAGES: dict[DatasetName, Any] = {
    "cifar10": {"input_shape": (32, 32, 3), "num_classes": 10},
    "cifar100": {"input_shape": (32, 32, 3), "num_classes": 100},
    "digits": {"input_shape": (8, 8, 1), "num_classes": 10},
}

# Counts are int32 on the device, but for these.
_INT32_MAX = 2**31 - 1
_LEAST = {"workers": 1, "worker_cpus": 0, "threads": 1, "save_every": 0, "time_limit": 0}
_LARGE = ("seed", "split_seed", "teacher_seed", "max_parameters", "max_flops")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set of an experiment. The defaults are those of Section 4.1 for CIFAR.

    `Help` of each field says what it is, its unit, and the paper's value.
    """

    run_dir: Annotated[
        Path, Help("run", "run folder: record, checkpoints, the network found; continued if it exists")
    ] = Path("runs/search")
    seed: Annotated[int, Help("run", "seed of the whole search, from 0 to 2**32 - 1 (paper: not stated)")] = 0
    reevaluate: Annotated[
        bool, Help("run", "train again architectures that the run has evaluated before (paper: not stated)")
    ] = False

    executor: Annotated[
        ExecutorKind,
        Help(
            "machine",
            "where individuals are trained; processes: in worker processes of this machine, so that one that crashes"
            " takes nothing along; inline: in this process; ray: on a Ray cluster (an extra), which must see the run"
            " folder under the same path",
        ),
    ] = "processes"
    workers: Annotated[
        int | None,
        Help("machine", "individuals trained at a time; by default as many as the GPUs hold, two on a CPU"),
    ] = None
    worker_cpus: Annotated[float, Help("machine", "CPUs that Ray sets aside for a worker")] = 1.0
    worker_gpus: Annotated[
        float,
        Help("machine", "GPUs of a worker, where there are any; 0.5: two share one, and its memory"),
    ] = 1.0
    ray_address: Annotated[
        str | None, Help("machine", "address of the Ray cluster; by default the one at hand, or a new one here")
    ] = None
    threads: Annotated[
        int | None,
        Help(
            "machine",
            "CPU threads of a process that trains, which the last bits of a result depend on; by default those that"
            " the run was started with, all cores for a new one",
        ),
    ] = None
    devices: Annotated[
        int,
        Help("machine", "devices of a process that train one network together, each on its part of every batch"),
    ] = 1
    save_every: Annotated[float, Help("machine", "seconds between two saves of a network in training")] = 60.0
    time_limit: Annotated[
        float | None,
        Help("machine", "seconds that an individual may take, compiling included, before it is extinct"),
    ] = None

    data_dir: Annotated[
        Path | None,
        Help(
            "data",
            "folder or archive in the official 'python version' layout; without it CIFAR is downloaded by"
            " tensorflow-datasets",
        ),
    ] = None
    cache_dir: Annotated[
        Path | None,
        Help(
            "data",
            "folder of what is kept between runs: data sets, compiled programs; by default"
            " $XDG_CACHE_HOME/eigen_jax, else ~/.cache/eigen_jax",
        ),
    ] = None
    validation_size: Annotated[int, Help("data", "training images held out to measure fitness (paper: not stated)")] = (
        5_000
    )
    split_seed: Annotated[int, Help("data", "seed that draws the images held out (paper: not stated)")] = 0
    preprocessing: Annotated[
        Preprocessing,
        Help(
            "data",
            "gcn_zca: global contrast normalization and ZCA whitening; standardize: mean 0 and deviation 1 a"
            " channel (paper: gcn_zca)",
        ),
    ] = "gcn_zca"
    pad: Annotated[int, Help("data", "pixels of padding before a random crop; 0: no crop (paper: not stated)")] = 4
    flip: Annotated[bool, Help("data", "mirror half of the training images (paper: not stated)")] = True

    t1: Annotated[int, Help("training", "T1: training steps to the first landmark (paper: 5,000)")] = 5_000
    t2: Annotated[int, Help("training", "T2: further steps to the second landmark (paper: 15,000)")] = 15_000
    t3: Annotated[int, Help("training", "T3: further steps to the end (paper: 5,000)")] = 5_000
    batch_size: Annotated[int, Help("training", "images a training step (paper: 128)")] = 128
    learning_rate: Annotated[float, Help("training", "learning rate at the start (paper: 0.1)")] = 0.1
    decay_steps: Annotated[
        tuple[int, ...],
        Help(
            "training",
            "training steps, counted from the start, from which the rate is lower (paper: 15,000 and 20,000)",
        ),
    ] = (15_000, 20_000)
    decay_rate: Annotated[float, Help("training", "what the rate is multiplied by at each of them (paper: 0.1)")] = 0.1
    momentum: Annotated[float, Help("training", "momentum of SGD (paper: 0.9)")] = 0.9
    weight_decay: Annotated[float, Help("training", "weight decay of all parameters (paper: 0.0005)")] = 5e-4
    eval_batch_size: Annotated[int, Help("training", "images at a time in evaluation (paper: not stated)")] = 1_000
    dtype: Annotated[
        ComputeDtype,
        Help(
            "training",
            "what convolutions compute and maps are kept in; weights, normalization, logits and loss are float32 in any"
            " case; bfloat16 is for GPUs, and slower on CPUs (paper: not stated, presumably float32)",
        ),
    ] = "float32"

    final_steps: Annotated[
        int,
        Help(
            "final training",
            "training steps of the network found, from scratch, with the learning rate's schedule stretched to them;"
            " 0: the weights of the search are tested (paper: not stated)",
        ),
    ] = 25_000
    final_on: Annotated[FinalOn, Help("final training", "the images that it is trained on (paper: not stated)")] = (
        "train"
    )

    teacher: Annotated[
        TeacherKind,
        Help(
            "mimicry",
            "cache: mimic logits computed once for every view of every image; live: ask the teacher at every step;"
            " none: no mimicry (paper: mimicry)",
        ),
    ] = "cache"
    mimicry_weight: Annotated[
        float, Help("mimicry", "alpha of Eq. 3: the teacher's share of the loss, from 0 to 1 (paper: 0.9)")
    ] = 0.9
    temperature: Annotated[float, Help("mimicry", "T of Eq. 3, which softens both predictions (paper: 5)")] = 5.0
    teacher_views: Annotated[
        TeacherViews,
        Help(
            "mimicry",
            "views of an image that the cache holds; all: the very crop that the student sees; center: the centre crop"
            " stands for all, flipped like the student's (paper: not stated)",
        ),
    ] = "all"
    teacher_logits: Annotated[
        Path | None, Help("mimicry", "file of logits (.npy) to mimic in place of a trained teacher's")
    ] = None
    teacher_dir: Annotated[
        Path, Help("teacher", "folder of the trained teacher; trained first if it is not there yet")
    ] = Path("runs/teacher")
    teacher_members: Annotated[int, Help("teacher", "networks whose logits are averaged (paper: 4)")] = 4
    teacher_depth: Annotated[int, Help("teacher", "layers of each Wide-DenseNet-BC (paper: 40)")] = 40
    teacher_growth: Annotated[int, Help("teacher", "channels that each of its layers adds (paper: 60)")] = 60
    teacher_stem_stride: Annotated[
        int,
        Help(
            "teacher",
            "stride of its first convolution, 1 or 2; 2 takes a quarter of the time (paper: not stated; DenseNet's: 1)",
        ),
    ] = 1
    teacher_epochs: Annotated[
        int, Help("teacher", "passes over the training images (paper: not stated; DenseNet's: 300)")
    ] = 300
    teacher_batch_size: Annotated[
        int, Help("teacher", "images a training step (paper: not stated; DenseNet's: 64)")
    ] = 64
    teacher_learning_rate: Annotated[
        float, Help("teacher", "learning rate at the start (paper: not stated; DenseNet's: 0.1)")
    ] = 0.1
    teacher_dtype: Annotated[
        ComputeDtype,
        Help(
            "teacher",
            "what --dtype is, of the teacher, in training and wherever it is asked (paper: not stated, presumably"
            " float32)",
        ),
    ] = "float32"
    teacher_seed: Annotated[int, Help("teacher", "seed of all members, from 0 to 2**32 - 1 (paper: not stated)")] = 0

    population: Annotated[int, Help("evolution", "individuals a generation (paper: 10)")] = 10
    primary_steps: Annotated[
        int, Help("evolution", "m: the most mutation steps a child in the primary succession (paper: 100)")
    ] = 100
    secondary_steps: Annotated[int, Help("evolution", "m in the secondary succession (paper: 10)")] = 10
    p: Annotated[
        int,
        Help("evolution", "p of Eq. 1: the p-th best at T1 sets the threshold there (paper: 5)"),
    ] = 5
    q: Annotated[
        int,
        Help("evolution", "q of Eq. 2: the q-th best at T2 sets the threshold there (paper: 2)"),
    ] = 2
    elitism: Annotated[
        bool, Help("evolution", "a parent gives way only to a fitter child (paper: no, Algorithm 1)")
    ] = False
    saturation_gain: Annotated[
        float,
        Help(
            "evolution",
            "a succession ends when the best accuracy, a fraction, gains less than this over the window"
            " (paper: not stated)",
        ),
    ] = 0.001
    saturation_window: Annotated[int, Help("evolution", "the window, in generations (paper: not stated)")] = 5
    max_primary_generations: Annotated[
        int, Help("evolution", "the most generations of the primary succession (paper: no limit stated)")
    ] = 1_000
    max_secondary_generations: Annotated[
        int, Help("evolution", "the most generations of the secondary succession (paper: no limit stated)")
    ] = 1_000

    max_duplication_generations: Annotated[
        int, Help("evolution", "the most generations of gene duplication; 0: none (paper: not stated)")
    ] = 1
    max_repeats: Annotated[
        int, Help("evolution", "the most times that a block stands in a row after duplication (paper: not stated)")
    ] = 3
    extinguish_duplicates: Annotated[
        bool,
        Help(
            "evolution", "apply the thresholds to duplicates, who are else all trained to the end (paper: not stated)"
        ),
    ] = False

    capacity: Annotated[int, Help("search space", "the most layers of a network (paper: no limit stated)")] = 256
    channels: Annotated[
        tuple[int, ...], Help("search space", "output channels a convolution may have (paper: these)")
    ] = (16, 32, 48, 64, 96)
    kernels: Annotated[
        tuple[int, ...], Help("search space", "kernel sides of a convolution, pixels (paper: these)")
    ] = (1, 3)
    strides: Annotated[tuple[int, ...], Help("search space", "strides of a convolution, pixels (paper: these)")] = (
        1,
        2,
    )
    max_parameters: Annotated[
        int, Help("search space", "the most trainable values of a network (paper: no limit stated)")
    ] = 20_000_000
    max_flops: Annotated[
        int,
        Help("search space", "the most floating-point operations of a network on one image (paper: no limit stated)"),
    ] = 10_000_000_000

    def check(self, name: DatasetName) -> None:
        """Checks all that can be checked before the data are loaded.

        Raises:
            SettingsError: a value that cannot be.
        """
        for setting, value in dataclasses.asdict(self).items():
            largest = max(value, default=0) if isinstance(value, tuple) else value
            if isinstance(largest, int) and setting not in _LARGE and largest > _INT32_MAX:
                raise SettingsError(f"{flag(setting)} is {largest}; it must be at most {_INT32_MAX}")
        for setting, least in _LEAST.items():
            value = getattr(self, setting)
            if value is not None and not value >= least:
                raise SettingsError(f"{flag(setting)} is {value}; it must be at least {least:g}")
        if self.worker_gpus <= 0 or (self.worker_gpus > 1 and self.worker_gpus != int(self.worker_gpus)):
            raise SettingsError(
                f"--worker-gpus is {self.worker_gpus:g}; it must be a whole number, or a fraction of one"
            )
        self.data_config(name)
        self._search_config(**_IMAGES[name])

    def data_config(self, name: DatasetName) -> DataConfig:
        """What `load_dataset` takes.

        Raises:
            SettingsError: a value that no data set can be made with.
        """
        with _errors_name_flags():
            return DataConfig(name=name, **self._shared_with(DataConfig))

    def search_config(self, dataset: Dataset) -> SearchConfig:
        """What `run_search` takes, for the images and classes of a data set.

        Raises:
            SettingsError: a value that cannot be.
        """
        _, height, width, channels = dataset.train_images.shape
        return self._search_config(input_shape=(height, width, channels), num_classes=dataset.num_classes)

    def outcome(self) -> dict[str, Any]:
        """The settings that a run's outcome depends on."""
        elsewhere = _FOLDERS + _MACHINE
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in elsewhere}

    def cache_folder(self) -> Path:
        """The folder of what is kept between runs.

        Raises:
            DataError: none is given, and there is no default one.
        """
        return self.cache_dir or default_cache_dir()

    def notes(self) -> dict[str, dict[str, Any]]:
        """The settings that it does not depend on: where things lie, and how the machine is used."""
        places = {name: getattr(self, name) for name in _FOLDERS} | {"cache_dir": self.cache_folder()}
        return {
            "folders": {name: None if place is None else str(place) for name, place in places.items()},
            "machine": {name: getattr(self, name) for name in _MACHINE},
        }

    def care(self) -> Care:
        """How individuals are looked after."""
        return Care(save_every=self.save_every, time_limit=self.time_limit)

    def _search_config(self, *, input_shape: tuple[int, int, int], num_classes: int) -> SearchConfig:
        with _errors_name_flags():
            genome = GenomeSpec(**self._shared_with(GenomeSpec), input_shape=input_shape, num_classes=num_classes)
            evolution = EvolutionConfig(**self._shared_with(EvolutionConfig))
            train = TrainConfig(**self._shared_with(TrainConfig))
            return SearchConfig(**self._shared_with(SearchConfig), genome=genome, evolution=evolution, train=train)

    def _shared_with(self, config: type) -> dict[str, Any]:
        """The settings that are fields of one of the library's configurations."""
        theirs = {field.name for field in dataclasses.fields(config)}
        ours = {_LIBRARY_NAMES.get(field.name, field.name): field.name for field in dataclasses.fields(self)}
        return {name: getattr(self, ours[name]) for name in theirs & ours.keys()}


def flag(name: str) -> str:
    """How the command line names a setting."""
    return f"--{name.replace('_', '-')}"


def with_flags(message: str) -> str:
    """An error message of the library, with its settings named as on the command line.

    Only a name that the message gives a value is replaced, so that a path or a word that looks like
    a setting stays.
    """
    return _VALUED_NAME.sub(lambda found: flag(_SETTING_OF[found["name"]]), message)


@contextlib.contextmanager
def _errors_name_flags() -> Iterator[None]:
    try:
        yield
    except (DataError, ConfigError) as error:
        raise SettingsError(with_flags(str(error))) from None


_SETTING_OF = {field.name: field.name for field in dataclasses.fields(Settings)} | {
    theirs: ours for ours, theirs in _LIBRARY_NAMES.items()
}
_VALUED_NAME = re.compile(
    rf"(?:(?<=^)|(?<= ))(?P<name>{'|'.join(_SETTING_OF)})(?: \(\w\))?(?=(?:, which)? (?:is|was) )"
)
