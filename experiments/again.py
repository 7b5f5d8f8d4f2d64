"""The command that makes a run again, from what its folder says of it."""

import contextlib
import io
import shlex
from collections.abc import Mapping
from typing import Any

from eigen_jax.data.types import DatasetName
from eigen_jax.errors import EigenError
from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import RunSettings, with_former_settings
from experiments.command_line import parse
from experiments.presets import PRESETS
from experiments.settings import FLAGS, flag


def command_of(run: RunSettings, *, genome: str | None = None) -> str | None:
    """The shortest command, of any preset, whose settings are those of a run; None where no command says them all.

    So it is where the run was started from Python, by another version with other settings, or with files of the user's
    own. `genome` is the network's of a training of one given network.
    """
    dataset = run.settings.get("dataset")
    if dataset not in PRESETS or (genome is None) != ("retrained" not in run.settings):
        return None
    commands = [_spelt(run, dataset, preset, genome) for preset in PRESETS[dataset]]
    return min(filter(None, commands), key=len, default=None)


def _spelt(run: RunSettings, dataset: DatasetName, preset: str, genome: str | None) -> str | None:
    start = PRESETS[dataset][preset]
    then = with_former_settings(run.settings, as_json(start.outcome()))
    told = as_json(start.outcome())
    options = ["--preset", preset]
    for name, value in told.items():
        if name not in then:
            return None
        if then[name] != value:
            options += _fitness(then[name]) if name == "fitness" else _option(name, then[name])
    if not _says(options, dataset, then, told):
        return None
    options += _places(run.folders)
    machine = run.machine if isinstance(run.machine, dict) else {}
    for name, value in machine.items():
        if value != as_json(getattr(start.machine, name, value)):
            options += _option(name, value)
    if genome is not None:
        return shlex.join(["python", "-m", "experiments.retrain", genome, "--dataset", dataset, *options])
    return shlex.join(["python", "-m", f"experiments.{dataset}", *options])


def _says(options: list[str], dataset: DatasetName, then: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether a command line has the settings of a run."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            settings = parse(options, program="", dataset=dataset)
        except (EigenError, SystemExit):
            return False
    return as_json(settings.outcome()) == {name: then[name] for name in told}


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


def _places(folders: Mapping[str, Any]) -> list[str]:
    known = [each.name for each in FLAGS.values() if each.is_place]
    return [word for name in known if folders.get(name) for word in (flag(name), folders[name])]
