"""Trains one given network, from scratch or from weights that it has, tests it and saves it.

    python -m experiments.retrain runs/digits-small/network/genome.json --dataset digits
    python -m experiments.retrain genome.json --dataset cifar10 --preset small --teacher none --seed 1
    python -m experiments.retrain --from runs/cifar100 --dataset cifar10 --preset small --teacher none

With --from RUN, it is the network of that run, and its weights are trained on: of images of another size, where the
layers take them, and of another number of classes, for which the classifier is new.

The settings are those of a search; with --budget, it takes as many steps as that pays for. The run folder, by default
that of the preset with the network's fingerprint behind it, then holds genome.json and the weights, as a search's does.
"""

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eigen_jax import search
from eigen_jax.errors import ConfigError, EigenError
from eigen_jax.networks import AnyNetwork, fingerprint
from eigen_jax.processor import ImageProcessor
from eigen_jax.resumable import Care
from eigen_jax.store.files import sha256
from eigen_jax.store.run_files import write_result
from experiments.command_line import Parser, absolute_path, parse
from experiments.commands import command, held_off, make_console
from experiments.networks import check_takes, of_images
from experiments.presets import PRESETS
from experiments.process import configure, load_data
from experiments.progress import BY_MIRROR_IMAGES, LiveBars, percent
from experiments.runner import check_same_images
from experiments.settings import Settings, SettingsError
from experiments.teacher import prepare_teacher, teacher_flops

_PROGRAM = "python -m experiments.retrain GENOME|--from RUN --dataset NAME"


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Trains the network that the command line names."""
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(add_help=False)
    parser.add_argument("GENOME", type=absolute_path, nargs="?")
    # Of the first word alone, because argparse would take the value of an option that it does not know for it.
    given, options = parser.parse_known_args(argv[:1])
    started = Parser(add_help=False)
    started.add_argument("--from", dest="run", type=absolute_path)
    source, options = started.parse_known_args([*options, *argv[1:]])
    settings = parse(options, program=_PROGRAM, about=(__doc__ or "").partition("\n")[0])
    if given.GENOME is None and source.run is None:
        raise SettingsError(f"the first argument is not a network's genome.json; {_PROGRAM} [--SETTING VALUE ...]")
    if given.GENOME is not None and source.run is not None:
        raise SettingsError(f"{given.GENOME} and --from {source.run} both name a network; leave one out")
    settings, initial = configure(settings), None
    network: AnyNetwork
    if source.run is None:
        network = search.read_genome(given.GENOME)
    else:
        network, initial = search.load_network(source.run)
    if settings.run_dir in [preset.run_dir.absolute() for preset in PRESETS[settings.data.name].values()]:
        # The preset's folder is that of the search, which often is where the network comes from.
        folder = settings.run_dir.with_name(f"{settings.run_dir.name}-{fingerprint(network)[:8]}")
        settings = dataclasses.replace(settings, run_dir=folder)
    if cause := retrain(settings, network, initial):
        raise EigenError(cause)


def retrain(
    settings: Settings, network: AnyNetwork, initial: Any = None, also: Mapping[str, str] | None = None
) -> str | None:
    """Trains a network from scratch, or goes on with a training; raises EigenError, Interrupted.

    With variables to start from, `initial`, it is of these images' shape, if its layers can be. It takes
    `final_steps`, or as many steps as the whole budget pays for. settings.json says `also` that of the run. Gives why
    the training diverged, which result.json then says as well; None if it did not.
    """
    dataset, config = load_data(settings), settings.search_config()
    described = settings.outcome() | {"dataset": dataset.name, "data_fingerprint": dataset.fingerprint, **(also or {})}
    # Before the teacher, which may take days.
    if initial is None:
        check_takes(network, dataset)
    else:
        network = of_images(network, dataset)
        described["started_from"] = _digest(initial)
    described["retrained"] = fingerprint(network)
    search.check_data(config, dataset)
    flops = teacher_flops(settings, dataset)
    price = search.price(network, config=config, teacher=flops)
    until = _steps(config, flops, price)
    check_same_images(settings, dataset)
    search.check_run_folder(settings.run_dir, described)
    console = make_console()
    with held_off() as should_stop:
        teacher = prepare_teacher(settings, dataset, console, should_stop)
        described["teacher_fingerprint"] = teacher.fingerprint if teacher else None
        with search.RunFolder.open(settings.run_dir, described, settings.notes()) as run, LiveBars(console) as bars:
            trained = search.train_network(
                jax.random.key(config.seed),
                network,
                dataset,
                run.final_checkpoints,
                config=config,
                until=until,
                initial=initial,
                teacher=teacher,
                care=Care(save_every=settings.machine.save_every, should_stop=should_stop),
                on_progress=functools.partial(bars.show_training, "training", until),
            )
            if trained.test:
                run.save_network(network, trained.variables, ImageProcessor.of(dataset))
            spent = search.sum_flops(flops.once, until * price)
            told = search.describe_training(network, trained, config=config, teacher=teacher, training_flops=spent)
            write_result(run.path, told)
    if trained.test is None:
        return trained.cause
    if trained.validation_accuracy is not None:
        print(f"validation accuracy  {percent(trained.validation_accuracy)} %")
    print(f"test accuracy        {percent(trained.test.accuracy)} %")
    if trained.test.mirrored_accuracy is not None:
        print(f"test accuracy        {percent(trained.test.mirrored_accuracy)} % {BY_MIRROR_IMAGES}")
    print(f"run folder           {settings.run_dir}")
    return None


def _steps(config: search.SearchConfig, flops: search.TeacherFlops, price: int) -> int:
    """As many as the config says, or as its whole budget pays for, a step's `price` being in training FLOPs."""
    budget = search.Budget.of(dataclasses.replace(config, final_steps=None), flops)
    until = budget.final_until(0, price) if budget else config.final_until
    if budget and not until:
        rule = "{budget} is {:.3g}, and {:.3g} training FLOPs are needed for the teacher and one step; raise it"
        raise search.BudgetError(search.SearchConfig, rule, config.budget, flops.once + price)
    if not until:
        raise ConfigError(search.SearchConfig, "{final_steps} is 0; it must be at least 1 to train a network")
    return until


def _digest(variables: Any) -> str:
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return sha256(part for path, leaf in leaves for part in (jax.tree_util.keystr(path), np.asarray(leaf)))


if __name__ == "__main__":
    sys.exit(main())
