"""Trains one given network from scratch, tests it and saves it.

    python -m experiments.retrain runs/digits-small/network/genome.json --dataset digits
    python -m experiments.retrain genome.json --dataset cifar10 --preset small --teacher none --seed 1

The settings are those of a search: --final-steps says how long, --teacher whom the network mimics,
--final-on which images it is trained on. The run folder, by default that of the preset with the
network's fingerprint behind it, then holds genome.json and the weights, as a search's does, for
`experiments.evaluate`.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from eigen_jax.architecture import Architecture, fingerprint
from eigen_jax.data import Dataset, load_dataset
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.resumable import Care
from eigen_jax.search import (
    RunFolder,
    SearchConfig,
    check_data,
    check_run_folder,
    describe_training,
    read_genome,
    train_network,
)
from eigen_jax.store.run_files import write_result
from eigen_jax.training import DivergedError
from experiments.command_line import parse, read_path
from experiments.interruption import held_off
from experiments.mimicry import prepare_teacher
from experiments.networks import check_takes
from experiments.presets import PRESETS
from experiments.progress import TrainingBar, percent
from experiments.runner import configure, run_command
from experiments.screen import make_console
from experiments.settings import Settings, SettingsError

_ABOUT = (__doc__ or "").partition("\n")[0]
_PROGRAM = "python -m experiments.retrain GENOME --dataset NAME"


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the network that the command line names; returns the exit code, see `run_command`."""
    argv = sys.argv[1:] if argv is None else argv

    def command() -> None:
        # First, because argparse would take the value of an option that it does not know for it.
        named = [] if not argv or argv[0].startswith("-") else [read_path("GENOME", argv[0])]
        settings = parse(argv[len(named) :], program=_PROGRAM, about=_ABOUT)
        if not named:
            raise SettingsError(f"the first argument is not a network's genome.json; {_PROGRAM} [--SETTING VALUE ...]")
        settings = configure(settings)
        architecture = read_genome(named[0])
        if settings.run_dir in [preset.run_dir.absolute() for preset in PRESETS[settings.data.name].values()]:
            # The preset's folder is that of the search, which often is where the network comes from.
            folder = settings.run_dir.with_name(f"{settings.run_dir.name}-{fingerprint(architecture)[:8]}")
            settings = dataclasses.replace(settings, run_dir=folder)
        if cause := retrain(settings, architecture):
            raise EigenError(cause)

    return run_command(command)


def retrain(settings: Settings, architecture: Architecture) -> str | None:
    """Trains a network from scratch for `settings.final_steps`, or goes on with a training that was interrupted.

    Returns:
        Why the training diverged, which result.json then says as well; None if it did not.

    Raises:
        EigenError, Interrupted.
    """
    dataset, config = load_dataset(settings.data), settings.search_config()
    described = _described(settings, architecture, dataset)
    # Before the teacher, which may take days.
    check_takes(architecture, dataset)
    check_data(config, dataset)
    if not config.final_until:
        raise ConfigError(SearchConfig, "{final_steps} is 0; it must be at least 1 to train a network")
    check_run_folder(settings.run_dir, described)
    console = make_console()
    with held_off() as should_stop:
        teacher = prepare_teacher(settings, dataset, console, should_stop)
        described["teacher_fingerprint"] = teacher.fingerprint if teacher else None
        describe = functools.partial(describe_training, architecture, config=config, teacher=teacher)
        with (
            RunFolder.open(settings.run_dir, described, settings.notes()) as run,
            TrainingBar(console, until=config.final_until) as bar,
        ):
            began = time.perf_counter()
            try:
                trained = train_network(
                    jax.random.key(config.seed),
                    architecture,
                    dataset,
                    run.final_checkpoints,
                    config=config,
                    teacher=teacher,
                    care=Care(save_every=settings.machine.save_every, should_stop=should_stop),
                    on_progress=bar.show,
                )
            except DivergedError as error:
                write_result(run.path, describe(None, cause=str(error), seconds=time.perf_counter() - began))
                return str(error)
            run.save_network(architecture, trained.variables)
            write_result(run.path, describe(trained, seconds=trained.seconds))
    _tell(settings.run_dir, trained.test.accuracy, trained.validation_accuracy)
    return None


def _described(settings: Settings, architecture: Architecture, dataset: Dataset) -> dict[str, Any]:
    """What settings.json says, up to the teacher."""
    return {
        **settings.outcome(),
        "dataset": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "retrained": fingerprint(architecture),
    }


def _tell(folder: Path, test: float, validation: float | None) -> None:
    if validation is not None:
        print(f"validation accuracy  {percent(validation)} %")
    print(f"test accuracy        {percent(test)} %")
    print(f"run folder           {folder}")


if __name__ == "__main__":
    sys.exit(main())
