"""Compares variants of a search, or of the training of one network, over seeds.

    python -m experiments.compare --dataset cifar10 --preset small --teacher none --budget 2e13 --final-steps none \\
        --seeds 0 1 2 --variant "EIGEN" --variant "random search: --strategy random" --output runs/strategies
    python -m experiments.compare --network genome.json --dataset cifar10 --preset hour --budget 1e13 \\
        --variant "the recipe" --variant "without Nesterov: --no-nesterov" --output runs/recipe

A variant is a name and, behind a colon, the settings in which it differs from those that all share; the
first is what the others are compared with. Interrupted, the same command goes on. It writes OUTPUT.md and
OUTPUT.csv; the runs lie in OUTPUT/.
"""

import argparse
import dataclasses
import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET

from eigen_jax.architecture import Architecture, fingerprint
from eigen_jax.report import (
    Cell,
    Column,
    Measured,
    Table,
    Unit,
    gain,
    measured,
    provenance_notes,
    to_markdown,
    write_table,
)
from eigen_jax.search import read_genome
from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import RunResult, read_result, read_settings
from experiments.command_line import Parser, absolute_path, parse
from experiments.commands import command
from experiments.machine import describe_machine, describe_versions
from experiments.process import configure
from experiments.reproduce.output import check_writable
from experiments.reproduce.runs import is_finished
from experiments.retrain import retrain
from experiments.runner import search
from experiments.settings import Settings, SettingsError

_PROGRAM = "python -m experiments.compare"


class Variant(NamedTuple):
    name: str
    options: tuple[str, ...]  # of the command line, in which it differs

    @property
    def slug(self) -> str:
        """The name in the names of folders."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def read_variant(text: str) -> Variant:
    """A variant as the command line has it: NAME, or NAME: OPTIONS."""
    name, _, options = text.partition(":")
    if not name.strip():
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be a name, and behind a colon the settings that differ")
    try:
        return Variant(name.strip(), tuple(shlex.split(options)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is {text!r}; its settings cannot be read ({error})") from None


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Makes the runs that are missing, and the table."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = Parser(prog=_PROGRAM, add_help=False)
    parser.add_argument("--variant", type=read_variant, action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--network", type=absolute_path)
    parser.add_argument("--output", type=absolute_path)
    given, common = parser.parse_known_args(argv)
    if not {"-h", "--help"}.isdisjoint(common):
        parse(common, program=_PROGRAM, about=__doc__ or "")
    variants: list[Variant] = given.variant
    if given.output is None or len({each.slug for each in variants}) < max(2, len(variants)):
        raise SettingsError(
            "name --output and two or more variants, each once: --variant NAME --variant 'NAME: OPTIONS'"
        )
    planned = {
        variant.name: {seed: plan(variant, common, seed=seed, folder=given.output) for seed in given.seeds}
        for variant in variants
    }
    check_writable(given.output.parent)
    network = None if given.network is None else read_genome(given.network)
    trained = None if network is None else fingerprint(network)
    for settings in (each for by_seed in planned.values() for each in by_seed.values() if is_finished(each.run_dir)):
        then = read_settings(settings.run_dir)  # before any other is made
        now = as_json({**settings.outcome(), "retrained": trained})
        then.check_same(now, path=settings.run_dir, partly=True)
    for name, by_seed in planned.items():
        for seed, settings in by_seed.items():
            if not is_finished(settings.run_dir):
                print(f"\n{name}, seed {seed}", flush=True)
                make(settings, network)
    results = {
        name: {seed: read_result(settings.run_dir) for seed, settings in by_seed.items()}
        for name, by_seed in planned.items()
    }
    table = tell(results, variants, command=f"{_PROGRAM} {shlex.join(argv)}")
    paths = write_table(table, given.output)
    print(f"\n{to_markdown(table)}".rstrip())
    print("\n".join(f"wrote {path}" for path in paths))


def plan(variant: Variant, common: Sequence[str], *, seed: int, folder: Path) -> Settings:
    """The settings of a run of a variant, with its folder; raises EigenError for what cannot be."""
    given = *common, *variant.options
    for option, instead in (("--seed", "--seeds"), ("--run-dir", "--output")):
        if option in {word.partition("=")[0] for word in given}:
            raise SettingsError(f"{option} is for a single run; use {instead} here")
    settings = parse([*given, "--seed", str(seed)], program=_PROGRAM)
    return dataclasses.replace(settings, run_dir=folder / f"{variant.slug}-seed{seed}")


def make(settings: Settings, network: Architecture | None) -> None:
    """Searches, or trains the network, or goes on with it."""
    settings = configure(settings)
    if network is None:
        search(settings)
    else:
        retrain(settings, network)


def tell(results: Mapping[str, Mapping[int, RunResult]], variants: Sequence[Variant], *, command: str) -> Table:
    """The table of finished runs, by variant and seed."""
    first, rows, notes = _accuracies(results[variants[0].name]), [], []
    for variant in variants:
        difference = gain(_accuracies(results[variant.name]), first) if variant is not variants[0] else "the first"
        rows.append(_row(variant.name, difference, results[variant.name]))
        if isinstance(difference, Measured) and difference.deviation is not None:
            error = difference.deviation / math.sqrt(len(difference.values))
            told = f"{100 * difference.mean:+.2f} points, their standard error {100 * error:.2f}"
            notes.append(f"{variant.name}, against the first by seed: {told}")
        if variant.options:
            notes.append(f"{variant.name}: `{shlex.join(variant.options)}`")
    machine, made = describe_machine(), [each for by_seed in results.values() for each in by_seed.values()]
    searched = [each.seconds.search for each in made if isinstance(each.seconds.search, float)]
    provenance = provenance_notes(
        command=command,
        machine=f"{machine['cpu']}, {machine['cores']} cores, {machine['device']}",
        versions=describe_versions(),
        seeds=sorted(first),
        compute={
            "searches": math.fsum(searched),
            "final trainings": math.fsum(each.seconds.final or 0 for each in made),
        },
    )
    columns = (
        Column(heading="variant"),
        Column(heading="test accuracy", unit=Unit.ACCURACY),
        Column(heading="against the first", unit=Unit.GAIN),
        Column(heading="test accuracy, mirrored", unit=Unit.ACCURACY),
        Column(heading="networks trained", unit=Unit.COUNT),
        Column(heading="parameters", unit=Unit.PARAMETERS),
        Column(heading="FLOPs an image", unit=Unit.FLOPS),
        Column(heading="training FLOPs, T", unit=Unit.COUNT),
    )
    return Table(caption="Variants compared", columns=columns, rows=tuple(rows), notes=(*notes, *provenance))


def _accuracies(results: Mapping[int, RunResult]) -> dict[int, float | None]:
    return {seed: result.test_accuracy for seed, result in results.items()}


def _row(name: str, difference: Cell, results: Mapping[int, RunResult]) -> tuple[Cell, ...]:
    def each(value: Callable[[RunResult], Any]) -> Cell:
        return measured({seed: value(result) for seed, result in results.items()})

    return (
        name,
        measured(_accuracies(results)),
        difference,
        each(lambda result: result.mirrored_test_accuracy),
        each(lambda result: None if result.trained is UNSET else result.trained),
        each(lambda result: result.network and result.network.parameters),
        each(lambda result: result.network and result.network.flops),
        each(lambda result: result.training_flops and round(result.training_flops.total / 1e12, 2)),
    )


if __name__ == "__main__":
    sys.exit(main())
