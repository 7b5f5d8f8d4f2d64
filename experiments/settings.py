"""The settings of an experiment: the library's configs, and what commands alone know."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

from eigen_jax.config import Config, is_config, name_of, part, setting, settings_of, without_none
from eigen_jax.data import DataConfig
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.fitness import Fitness, limit, num_objectives, parse_fitness
from eigen_jax.search import LOGS, SearchConfig, name_of_strategy
from eigen_jax.strategies import STRATEGIES, Strategy
from eigen_jax.teacher import TeacherConfig
from eigen_jax.training import TrainConfig
from experiments import own


class SettingsError(EigenError):
    """What a command line asks for does not exist or cannot be; the message names it as the command line does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine(Config):
    """How the machine is used. The outcome of a run does not depend on it, but for rounding and time limits."""

    executor: Literal["inline", "processes", "ray"] = setting(
        "processes",
        "where individuals are trained; processes: in worker processes of this machine, so that one that crashes"
        " takes nothing along; inline: in this process; ray: on a Ray cluster (an extra), which must see the run"
        " folder under the same path",
    )
    workers: int | None = setting(
        None, "individuals trained at a time; by default as many as the GPUs hold, two on a CPU", at_least=1
    )
    worker_cpus: float = setting(1.0, "CPUs that Ray sets aside for a worker", at_least=0)
    worker_gpus: float = setting(1.0, "GPUs of a worker, if there are any; 0.5: two share one and its memory", above=0)
    ray_address: str | None = setting(None, "address of the Ray cluster; by default the one at hand, or a new one here")
    threads: int | None = setting(
        None,
        "CPU threads of a process that trains, which the last bits of a result depend on; by default those that the"
        " run was started with, all cores for a new one",
        at_least=1,
    )
    devices: int = setting(1, "devices of a process that train a network together, each a part of a batch", at_least=1)
    device_memory: float = setting(
        0.25,
        "share of a device's memory, of the machine's on a CPU, for the images of all processes that use it, and for a"
        " teacher's logits; what needs more is streamed from the disk",
        at_least=0,
        at_most=1,
    )
    save_every: float = setting(60.0, "seconds between two saves of a network in training", at_least=0)
    time_limit: float | None = setting(
        None, "seconds that an individual may take, compiling included, before it is extinct", at_least=0
    )
    log: tuple[str, ...] = setting(
        (),
        "how a search is logged besides its record, in `logs` of the run folder; csv: curves.csv and lineage.csv;"
        " tensorboard: event files (an extra)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.worker_gpus > 1 and self.worker_gpus != int(self.worker_gpus):
            rule = "{worker_gpus} is {:g}; it must be a whole number, or a fraction of one"
            raise ConfigError(Machine, rule, self.worker_gpus)
        for name in self.log:
            LOGS.find(name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitnessConfig(Config):
    """What networks are selected by, as the command line says it; a run records what `load` gives, by its name."""

    fitness: str = setting(
        "accuracy",
        "what makes a network fit, of the validation images: a score (accuracy, balanced-accuracy, macro-f1);"
        " a cost, of which less is better (loss, parameters, flops, latency, batch_latency, memory); SCORE-COST: less a"
        " penalty; several with commas, for strategies that take several; FILE.py:NAME: a function of your own, of a"
        " measurement",
    )
    penalty_weight: float = setting(
        0.01, "what SCORE-COST takes from the score, a fraction, for every power of ten of the cost", at_least=0
    )
    limits: tuple[str, ...] = setting(
        (), "hard limits, COST=NUMBER each, in seconds, bytes or nats, as latency=0.002; who is over one is extinct"
    )

    def load(self) -> Fitness:
        """The fitness; raises ConfigError or OwnFileError for what is none."""
        if own.is_own(self.fitness):
            return limit(own.load(self.fitness, "--fitness"), self.limits)
        return parse_fitness(self.fitness, weight=self.penalty_weight, limits=self.limits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Config):
    """Everything that can be set of an experiment. The defaults are those of Section 4.1 for CIFAR."""

    run_dir: Path = setting(Path("runs/search"), "run folder: record, checkpoints, the network; continued if it exists")
    strategy: str = setting(
        "eigen", f"who breeds and selects: {', '.join(STRATEGIES)}, or your own, FILE.py:NAME", paper="eigen"
    )
    teacher: Literal["cache", "live", "none"] = setting(
        "cache",
        "cache: mimic logits computed once for every view of every image; live: ask the teacher at every step; none:"
        " no mimicry",
        paper="mimicry",
    )
    teacher_views: Literal["all", "center"] = setting(
        "all",
        "views of an image that the cache holds; all: the very crop that the student sees; center: the centre crop"
        " stands for all, flipped like the student's",
    )
    teacher_logits: Path | None = setting(None, "file of logits (.npy) to mimic in place of a trained teacher's")
    teacher_dir: Path = setting(Path("runs/teacher"), "folder of the trained teacher; trained first if it is not there")
    data: DataConfig = part(DataConfig, "What networks are trained and measured on.")
    search: SearchConfig = part(lambda: SearchConfig(final_steps=25_000), "The course of the search.")
    fitness: FitnessConfig = part(FitnessConfig, "What networks are selected by.")
    ensemble: TeacherConfig = part(TeacherConfig, "The teacher and its training.", flag="teacher_")
    machine: Machine = part(Machine, "How the machine is used.")

    def check(self) -> None:
        """Raises EigenError for what can be wrong between configs, and can be told before the data are loaded."""
        self.make_strategy()
        train = self.search_config().train
        if self.teacher != "none" and train.mimicry_weight == 0:
            raise ConfigError(TrainConfig, "{mimicry_weight} is 0, so nobody would be mimicked; use --teacher none")
        if self.teacher != "cache" and self.teacher_logits is not None:
            rule = "{teacher} is {!r}, and {teacher_logits} is a file; leave one out"
            raise ConfigError(Settings, rule, self.teacher)

    def search_config(self) -> SearchConfig:
        """What `run_search` takes, of these data and devices; raises ConfigError for what cannot be together."""
        shape, classes = self.data.image_shape, self.data.num_classes
        genome = dataclasses.replace(self.search.genome, input_shape=shape, num_classes=classes)
        genome = self.strategy_kind().space(genome)
        train = dataclasses.replace(self.search.train, devices=self.machine.devices)
        return dataclasses.replace(self.search, genome=genome, train=train)

    def teacher_config(self) -> TeacherConfig:
        """The teacher, who sees the same crops and flips as the students."""
        train = self.search.train
        return dataclasses.replace(self.ensemble, pad=train.pad, flip=train.flip, eval_batch_size=train.eval_batch_size)

    def outcome(self) -> dict[str, Any]:
        """The settings that a run's outcome depends on: neither places, which have fingerprints, nor the machine."""
        settings = {each.name: name_of(each.of(self)) for each in FLAGS.values() if each.is_of_outcome}
        return settings | {"fitness": name_of(self.fitness.load()), "strategy": name_of_strategy(self.strategy_kind())}

    def strategy_kind(self) -> type[Strategy]:
        """The class that `strategy` names; raises ConfigError or OwnFileError where there is none."""
        if not own.is_own(self.strategy):
            return STRATEGIES.find(self.strategy)
        kind = own.load(self.strategy, "--strategy")
        if not (isinstance(kind, type) and issubclass(kind, Strategy)):
            raise own.OwnFileError(f"--strategy: {self.strategy} is no class that derives from eigen_jax.Strategy")
        return kind

    def make_strategy(self) -> Strategy:
        """The strategy, for as many objectives as the fitness has; raises EigenError where there cannot be one."""
        config, objectives = self.search_config(), num_objectives(self.fitness.load())
        return self.strategy_kind()(spec=config.genome, config=config.evolution, objectives=objectives)

    def notes(self) -> dict[str, dict[str, Any]]:
        """The settings that it does not depend on: where things lie, and how the machine is used."""
        places = {each.name: each.of(self) for each in FLAGS.values() if each.is_place}
        places["cache_dir"] = self.data.cache_folder()
        folders = {name: None if place is None else str(place) for name, place in places.items()}
        return {"folders": folders, "machine": dataclasses.asdict(self.machine)}


@dataclasses.dataclass(frozen=True)
class Flag:
    """A setting of the command line."""

    name: str  # with underscores
    path: tuple[str, ...]  # the fields that lead to it from `Settings`
    is_place: bool  # whether it is a folder or a file
    is_of_outcome: bool  # whether it is told of a run by its own name, since the outcome depends on it

    def of(self, settings: Settings) -> Any:
        """Its value."""
        return functools.reduce(getattr, self.path, settings)


def _flags(config: type[Config], path: tuple[str, ...] = (), prefix: str = "") -> dict[tuple[type[Config], str], Flag]:
    flags: dict[tuple[type[Config], str], Flag] = {}
    for field, kind, known in settings_of(config):
        place = (*path, field)
        if is_config(kind):
            flags |= _flags(kind, place, known.flag if isinstance(known.flag, str) else "")
        elif known.flag:
            name = prefix + (field if known.flag is True else known.flag)
            is_place = without_none(kind) is Path
            flags[config, field] = Flag(name, place, is_place, not is_place and config not in (Machine, FitnessConfig))
    return flags


FLAGS = _flags(Settings)  # by config and field
_BY_NAME = {each.name: each for each in FLAGS.values()}


def flag(name: str) -> str:
    """How the command line names a setting."""
    return f"--{name.replace('_', '-')}"


def flag_of(config: Any, field: str) -> str:
    """What the command line calls a field of a config, or a setting of a run; other things as they are called."""
    known = FLAGS.get((config, field)) or _BY_NAME.get(field)
    return flag(known.name) if known else field
