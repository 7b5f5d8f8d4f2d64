"""What a command line asks for: data set, settings, seeds, folders."""

import argparse
import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from eigen_jax.data import DataConfig
from eigen_jax.data.types import DatasetName
from eigen_jax.registry import check_there_is
from eigen_jax.store.files import sha256
from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import FORMER_SETTINGS
from eigen_jax.teacher import TeacherConfig
from experiments.command_line import Parser, absolute_path, parse, positive
from experiments.presets import DEFAULT_PRESET, PRESETS
from experiments.recipes import RECIPES
from experiments.settings import FLAGS, Settings, SettingsError

STEP_SIZES = (1, 2, 10, 50, 100, 200)  # of Figure 3, both of its panels
GENERATIONS = 20  # of a search of Figure 3, where the preset does not end earlier

_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "digits", "images": "own images"}
_PROGRAM = "python -m experiments.reproduce"
_RUNS_DIR = Path("runs/paper")
_RESULTS = Path("experiments/results")
# What a trained teacher, and so its folder, depends on besides the data set, as `Settings.outcome` names it.
_OF_TEACHER = {each.name for (config, _), each in FLAGS.items() if config in (DataConfig, TeacherConfig)}
_OF_TEACHER |= {"pad", "flip"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A command line, but for the names of tables and figures."""

    title: str  # what people call the data set
    preset: str
    settings: Settings  # of every run, up to what its plan changes
    is_changed: bool  # whether a setting that outcomes depend on is not the preset's
    seeds: tuple[int, ...]
    runs_dir: Path  # the runs' folders lie in it
    output: Path  # the folder of tables and pictures
    draw_only: bool  # whether only runs that have finished are told of, and none is made
    step_sizes: tuple[int, ...]  # of Figure 3
    generations: int  # of each search of Figure 3
    only: tuple[str, ...]  # the systems of Table 1 of which runs are made; none: all
    recipes: tuple[str, ...]  # of Table 1, by which runs are made
    arguments: tuple[str, ...]  # in one order, with what decides the outcome written out, without --draw-only

    def command(self, experiment: str, *only: str) -> str:
        """That of an experiment; of Table 1, with the runs of some systems alone, by default of those asked for."""
        chosen = ["--only", *systems] if (systems := only or self.only) else []
        chosen += ["--recipes", *self.recipes] if self.recipes != tuple(RECIPES) else []
        return f"{_PROGRAM} {experiment} {shlex.join([*self.arguments, *chosen])}"


def read_request(argv: Sequence[str], *, about: str) -> Request:
    """Reads a command line without the names; shows the help, which says `about`, where that is asked for."""
    given, rest = _build_parser(about).parse_known_args(argv)
    typed = {word.partition("=")[0] for word in rest}
    for option, instead in (("--seed", "--seeds"), ("--run-dir", "--runs-dir")):
        if option in typed:
            raise SettingsError(f"{option} is for a single search; use {instead} here")
    # The paper's own experiment, where another preset is not asked for.
    wanted = {"dataset": given.dataset, "preset": given.preset or DEFAULT_PRESET.get(given.dataset)}
    choice = [f"--{name}={value}" for name, value in wanted.items() if value is not None]
    settings = parse([*choice, *rest], program=_PROGRAM, about=about)
    dataset, outcome = settings.data.name, settings.outcome()
    preset, runs_dir = given.preset or DEFAULT_PRESET[dataset], given.runs_dir or _RUNS_DIR.absolute()
    if "--teacher-dir" not in typed:
        key = digest({name: value for name, value in outcome.items() if name in _OF_TEACHER})
        settings = dataclasses.replace(settings, teacher_dir=runs_dir / f"{dataset}-{preset}-teacher-{key}")
    for recipe in given.recipes:
        check_there_is("recipe", recipe, RECIPES)
    seeds = tuple(sorted(_distinct("--seeds", given.seeds)))
    for seed in seeds:
        dataclasses.replace(settings.search, seed=seed)  # which checks it
    # Of the places that settings name, the logits' alone decides the outcome and has no settings of its own.
    is_changed = outcome != PRESETS[dataset][preset].outcome() or settings.teacher_logits is not None
    own = f"-{digest({**outcome, 'teacher_logits': settings.teacher_logits})}" if is_changed else ""
    arguments = ["--dataset", dataset, "--preset", preset, "--seeds", *map(str, seeds)]
    for name in ("runs_dir", "output", "step_sizes", "generations"):
        if (value := getattr(given, name)) is not None:
            words = value if isinstance(value, list) else [value]
            arguments += [f"--{name.replace('_', '-')}", *map(_shown, words)]
    return Request(
        title=_TITLES[dataset],
        preset=preset,
        settings=settings,
        is_changed=is_changed,
        seeds=seeds,
        runs_dir=runs_dir,
        output=given.output or _RESULTS / f"{dataset}-{preset}{own}",
        draw_only=given.draw_only,
        step_sizes=STEP_SIZES if given.step_sizes is None else _distinct("--step-sizes", given.step_sizes),
        only=tuple(dict.fromkeys(given.only)),
        recipes=tuple(recipe for recipe in RECIPES if recipe in given.recipes),
        generations=given.generations or min(settings.search.evolution.max_primary_generations, GENERATIONS),
        arguments=(*arguments, *rest),
    )


def digest(values: Mapping[str, Any]) -> str:
    """Eight characters that tell one set of settings from another."""
    # A setting that older runs do not name counts where it is not what it was in them: their folders keep their names.
    named = {name: value for name, value in as_json(values).items() if (name, value) not in FORMER_SETTINGS.items()}
    return sha256([json.dumps(named, sort_keys=True)])[:8]


def _build_parser(about: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} [NAME ...] --dataset NAME [--OPTION VALUE ...] [--SETTING VALUE ...]",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every setting can be changed, as in --t1 500; `python -m experiments.cifar10 --help` shows them.",
    )
    add = parser.add_argument
    add("--dataset", metavar="NAME", help=f"one of {', '.join(get_args(DatasetName))}")
    add("--preset", metavar="NAME", help="the settings to start from: paper, small or smoke")
    add("--seeds", nargs="*", type=int, default=[0], metavar="N", help="a run for each [0]")
    add("--runs-dir", type=absolute_path, metavar="PATH", help=f"folder of runs [{_RUNS_DIR}]")
    add("--output", type=absolute_path, metavar="PATH", help=f"of tables and pictures [{_RESULTS}/DATASET-PRESET]")
    add("--draw-only", action="store_true", help="make no run: tell of the finished ones, or say what is missing")
    add("--step-sizes", nargs="*", type=positive, metavar="M", help=f"of Figure 3 [{' '.join(map(str, STEP_SIZES))}]")
    generations = f"of each search of Figure 3 [the preset's of primary succession, at most {GENERATIONS}]"
    add("--generations", type=positive, metavar="N", help=generations)
    add("--only", nargs="+", default=[], metavar="NAME", help="of Table 1: make the runs of these systems alone")
    recipes = f"of Table 1: the recipes by which runs are made [{' '.join(RECIPES)}]"
    add("--recipes", nargs="+", default=list(RECIPES), metavar="NAME", help=recipes)
    return parser


def _shown(value: Path | int) -> str:
    """A path from where the command is given, so that a published command holds nobody's home folder."""
    if isinstance(value, Path) and value.is_relative_to(Path.cwd()):
        value = value.relative_to(Path.cwd())
    return str(value)


def _distinct(option: str, values: Sequence[int]) -> tuple[int, ...]:
    if not values:
        raise SettingsError(f"{option} is empty; give at least one number")
    for value in values:
        if values.count(value) > 1:
            raise SettingsError(f"{option} has {value} twice; give each once")
    return tuple(values)
