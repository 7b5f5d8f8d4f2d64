"""What a command line asks of the paper's experiments: data set, settings, seeds, folders."""

import argparse
import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from eigen_jax.data.types import DatasetName
from eigen_jax.search.folder import FORMER_SETTINGS
from experiments.command_line import Parser, absolute_path, parse
from experiments.presets import DEFAULT_PRESET, PRESETS
from experiments.settings import Settings, SettingsError, flag

STEP_SIZES = (1, 2, 10, 50, 100, 200)  # of Figure 3, both of its panels
GENERATIONS = 20  # of a search of Figure 3, where the preset does not end earlier

_RUNS_DIR = Path("runs/paper")
_RESULTS = Path("experiments/results")

# What a run gets from its plan, and what the command line says in place of it.
_PLANNED = {"seed": "--seeds", "run_dir": "--runs-dir"}

# What a trained teacher depends on besides the data set.
_OF_TEACHER = (
    "validation_size",
    "split_seed",
    "preprocessing",
    "pad",
    "flip",
    "teacher_members",
    "teacher_depth",
    "teacher_growth",
    "teacher_stem_stride",
    "teacher_epochs",
    "teacher_batch_size",
    "teacher_learning_rate",
    "teacher_dtype",
    "teacher_seed",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A command line of the paper's experiments."""

    dataset: DatasetName
    preset: str
    settings: Settings  # of every run, up to what its plan changes
    seeds: tuple[int, ...]
    runs_dir: Path  # the runs' folders lie in it
    output: Path  # the folder of tables and pictures
    draw_only: bool  # whether only runs that have finished are told of, and none is made
    step_sizes: tuple[int, ...]  # of Figure 3
    generations: int  # of each search of Figure 3
    arguments: tuple[str, ...]  # the command line, without what follows here, --only and --draw-only
    figure3_arguments: tuple[str, ...]  # what it says of Figure 3 alone

    @property
    def is_changed(self) -> bool:
        """Whether a setting that outcomes depend on is not the preset's."""
        return _is_changed(self.settings, PRESETS[self.dataset][self.preset])

    def command(self, experiment: str) -> str:
        """The command that makes one experiment's table or figure."""
        own = self.figure3_arguments if experiment == "figure3" else ()
        return f"python -m experiments.{experiment} {shlex.join((*self.arguments, *own))}"


def read_request(
    argv: Sequence[str], *, program: str, about: str, experiments: Sequence[str]
) -> tuple[Request, tuple[str, ...]]:
    """Reads a command line.

    Prints the help and raises SystemExit where that is asked for.

    Args:
        argv: the arguments, without the program's name.
        program: what the help calls the program.
        about: what the help says of it.
        experiments: the names that the program can make; `--only` chooses where there are several.

    Returns:
        The request, and the names of the experiments asked for, in the program's order.

    Raises:
        SettingsError: an option or a value that cannot be.
    """
    parser = _build_parser(program, about, experiments)
    given, rest = parser.parse_known_args(argv)
    dataset = _chosen("--dataset", given.dataset, get_args(DatasetName))
    preset = given.preset or DEFAULT_PRESET[dataset]
    settings = _settings(dataset, preset, rest, program=program, runs_dir=given.runs_dir)
    seeds = tuple(sorted(_distinct("--seeds", given.seeds, least=0)))
    for seed in seeds:
        dataclasses.replace(settings.search, seed=seed)  # which checks it
    output = given.output
    if output is None:
        own = digest({**settings.outcome(), "teacher_logits": settings.teacher_logits})
        key = f"-{own}" if _is_changed(settings, PRESETS[dataset][preset]) else ""
        output = _RESULTS / f"{dataset}-{preset}{key}"
    request = Request(
        dataset=dataset,
        preset=preset,
        settings=settings,
        seeds=seeds,
        runs_dir=given.runs_dir,
        output=output,
        draw_only=given.draw_only,
        step_sizes=_distinct("--step-sizes", _given(given, "step_sizes", STEP_SIZES), least=1),
        generations=_generations(_given(given, "generations", None), settings),
        arguments=_arguments(given, dataset=dataset, preset=preset, seeds=seeds, rest=rest),
        figure3_arguments=_figure3_arguments(given),
    )
    only = _given(given, "only", None)
    asked = experiments if only is None else [_chosen("--only", name, experiments) for name in only]
    return request, tuple(name for name in experiments if name in asked)


def digest(values: Mapping[str, Any]) -> str:
    """Eight characters that tell one set of settings from another.

    A setting that older runs do not name counts only where it is not what it was in them, so that their folders
    keep their names.
    """
    named = {name: value for name, value in values.items() if (name, value) not in FORMER_SETTINGS.items()}
    text = json.dumps(named, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _build_parser(program: str, about: str, experiments: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(
        prog=program,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every setting can be changed, as in --t1 500; `python -m experiments.cifar10 --help` shows them.",
    )
    parser.add_argument("--dataset", metavar="NAME", help=f"one of {', '.join(get_args(DatasetName))}")
    parser.add_argument("--preset", metavar="NAME", help="the settings to start from: paper, small or smoke")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], metavar="N", help="a run for each [0]")
    parser.add_argument(
        "--runs-dir",
        type=absolute_path,
        default=str(_RUNS_DIR),
        metavar="PATH",
        help=f"folder of all runs [{_RUNS_DIR}]",
    )
    parser.add_argument(
        "--output",
        type=absolute_path,
        metavar="PATH",
        help=f"folder of tables and pictures [{_RESULTS}/DATASET-PRESET]",
    )
    parser.add_argument(
        "--draw-only", action="store_true", help="make no run: tell of those that have finished, or say what is missing"
    )
    if len(experiments) > 1:
        parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(experiments)}")
    if "figure3" in experiments:
        parser.add_argument("--step-sizes", nargs="*", type=int, metavar="M", help="of Figure 3 [1 2 10 50 100 200]")
        parser.add_argument(
            "--generations",
            type=int,
            metavar="N",
            help=f"of each search of Figure 3 [the preset's of primary succession, at most {GENERATIONS}]",
        )
    return parser


def _arguments(given: argparse.Namespace, *, dataset: str, preset: str, seeds: Sequence[int], rest: Sequence[str]):
    """The command line in one order, with what decides the outcome written out."""
    words = ["--dataset", dataset, "--preset", preset, "--seeds", *map(str, seeds)]
    if given.runs_dir != _RUNS_DIR.absolute():
        words += ["--runs-dir", _shown(given.runs_dir)]
    if given.output is not None:
        words += ["--output", _shown(given.output)]
    return (*words, *rest)


def _shown(path: Path) -> str:
    """A path from where the command is given, so that a published command holds nobody's home folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _is_changed(settings: Settings, preset: Settings) -> bool:
    # Of the places that settings name, the logits' alone decides the outcome and has no settings of its own.
    return settings.outcome() != preset.outcome() or settings.teacher_logits is not None


def _settings(dataset: DatasetName, preset: str, argv: Sequence[str], *, program: str, runs_dir: Path) -> Settings:
    """The settings of a preset, but for what the command line sets; the teacher has its own folder."""
    settings = parse(["--preset", preset, *argv], program=program, dataset=dataset)
    for name, instead in _PLANNED.items():
        if _is_typed(name, argv):
            raise SettingsError(f"{flag(name)} is for a single search; use {instead} here")
    if _is_typed("teacher_dir", argv):
        return settings
    key = digest({name: settings.outcome()[name] for name in _OF_TEACHER})
    return dataclasses.replace(settings, teacher_dir=runs_dir / f"{dataset}-{preset}-teacher-{key}")


def _is_typed(name: str, argv: Sequence[str]) -> bool:
    return any(word.partition("=")[0] == flag(name) for word in argv)


def _figure3_arguments(given: argparse.Namespace) -> tuple[str, ...]:
    words: list[str] = []
    if (sizes := _given(given, "step_sizes", None)) is not None:
        words += ["--step-sizes", *map(str, sizes)]
    if (generations := _given(given, "generations", None)) is not None:
        words += ["--generations", str(generations)]
    return tuple(words)


def _given(given: argparse.Namespace, name: str, default: Any) -> Any:
    """The value of an option that not every program has; the default where it was not given."""
    value = getattr(given, name, None)
    return default if value is None else value


def _chosen(option: str, value: str | None, known: Sequence[str]) -> Any:
    if value is None:
        raise SettingsError(f"{option} is missing; choose from {', '.join(known)}")
    if value not in known:
        raise SettingsError(f"{option} is {value!r}; choose from {', '.join(known)}")
    return value


def _distinct(option: str, values: Sequence[int], *, least: int) -> tuple[int, ...]:
    if not values:
        raise SettingsError(f"{option} is empty; give at least one number")
    for value in values:
        if value < least:
            raise SettingsError(f"{option} has {value}; each must be at least {least}")
        if values.count(value) > 1:
            raise SettingsError(f"{option} has {value} twice; give each once")
    return tuple(values)


def _generations(asked: int | None, settings: Settings) -> int:
    if asked is not None and asked < 1:
        raise SettingsError(f"--generations is {asked}; it must be at least 1")
    return asked or min(settings.search.evolution.max_primary_generations, GENERATIONS)
