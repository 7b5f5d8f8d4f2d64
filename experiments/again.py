"""The command that makes a run again, from what its folder says of it."""

import contextlib
import functools
import io
import shlex
from typing import Any

from eigen_jax.baselines import BASELINES
from eigen_jax.data.types import DatasetName
from eigen_jax.errors import EigenError
from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import RunSettings, with_former_settings
from experiments.command_line import Change, parse
from experiments.presets import PRESETS
from experiments.recipes import with_recipe
from experiments.settings import FLAGS, Settings, flag


def command_of(run: RunSettings, *, genome: str | None = None) -> str | None:
    """The shortest command, of any preset, whose settings are those of a run; None where no command says them all.

    So it is where the run was started from Python, by another version with other settings, or with files of the user's
    own. `genome` is the network's of a training of one given network, whose place a hand-designed one's name takes.
    """
    dataset = run.settings.get("dataset")
    if dataset not in PRESETS or (genome is None) != ("retrained" not in run.settings):
        return None
    program, change = [dataset] if genome is None else ["retrain", genome, "--dataset", dataset], None
    if (name := str(run.settings.get("baseline"))) in BASELINES:
        recipe = str(run.settings.get("recipe"))
        program = ["baseline", name, "--dataset", dataset, "--recipe", recipe]
        change = functools.partial(with_recipe, network=name, recipe=recipe)
    starts = {preset: change(preset, start) if change else start for preset, start in PRESETS[dataset].items()}
    differing = {preset: _options(run, start) for preset, start in starts.items()}
    for preset, options in sorted(differing.items(), key=lambda each: len(each[1] or ())):
        words = ["--preset", preset, *(options or ())]
        if options is None or not _says(words, dataset, run, change):
            continue
        places = _places(run, starts[preset])
        return shlex.join(["python", "-m", f"experiments.{program[0]}", *program[1:], *words, *places])
    return None


def _options(run: RunSettings, start: Settings) -> list[str] | None:
    """What differs from a preset; None where the run does not say all."""
    told = as_json(start.outcome())
    then = with_former_settings(run.settings, told)
    if told.keys() - then.keys():
        return None
    changed = {name: then[name] for name, value in told.items() if then[name] != value}
    options = (_fitness(value) if name == "fitness" else _option(name, value) for name, value in changed.items())
    return [word for option in options for word in option]


def _says(words: list[str], dataset: DatasetName, run: RunSettings, change: Change | None) -> bool:
    """Whether a command line has the settings of a run."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            told = as_json(parse(words, program="", dataset=dataset, change=change).outcome())
        except (EigenError, SystemExit):
            return False
    return told == {name: value for name, value in with_former_settings(run.settings, told).items() if name in told}


def _places(run: RunSettings, start: Settings) -> list[str]:
    """The options of where things lie, and of how the machine is used where the preset uses it otherwise."""
    known = [each.name for each in FLAGS.values() if each.is_place]
    words = [word for name in known if run.folders.get(name) for word in _option(name, run.folders[name])]
    machine = run.machine if isinstance(run.machine, dict) else {}
    for name, value in machine.items():
        if value != as_json(getattr(start.machine, name, value)):
            words += _option(name, value)
    return words


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag(name) if value else flag(f"no_{name}")]
    values = value if isinstance(value, list) else [value]
    return [flag(name), *("none" if each is None else str(each) for each in values)]


def _fitness(name: str) -> list[str]:
    """The options of a fitness that a record has by its name, as `experiments.settings.FitnessConfig` has them."""
    fitness, _, limits = name.partition(" where ")
    options = ["--fitness", fitness]
    if fitness.startswith("accuracy - "):
        weight, _, cost = fitness.removeprefix("accuracy - ").removesuffix(")").partition(" * log10(")
        options = ["--fitness", f"accuracy-{cost}", "--penalty-weight", weight]
    return options + (["--limits", *limits.replace(" <= ", "=").split(" and ")] if limits else [])
