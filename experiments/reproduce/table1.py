"""Table 1: all systems of the paper under one protocol, and a page that says what each row is worth."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
from msgspec import UNSET

from eigen_jax import report
from eigen_jax.baselines import BASELINES
from eigen_jax.networks import NamedNetwork, abstract_variables, count_flops, count_parameters
from eigen_jax.report import Cell, Column, Counted, Table, Unit
from eigen_jax.search import BarrenSearchError, BudgetError, training_flops
from eigen_jax.teacher import DenseNet, TeacherConfig, forward_flops
from eigen_jax.training import TooLargeError
from experiments.recipes import COMMON, OWN, RECIPES
from experiments.reproduce import systems
from experiments.reproduce.runs import Choice, HandDesigned, Search, Study, is_finished
from experiments.reproduce.systems import SEARCHES, TEACHER, System
from experiments.settings import Settings

NOT_RUN = "not run"
_AS_COMMON = "as common"
_NOT_PRINTED = "not in the paper"
_REFUSED = {
    BudgetError: "budget too small",
    TooLargeError: "memory too small",
    BarrenSearchError: "nothing survived",
}

_Runs = Sequence[Search | HandDesigned]


def table1(study: Study) -> Table:
    """All systems of Table 1, and random search and aging evolution, under one protocol.

    Each has the same budget of training FLOPs for everything: a search with its final training, or the training of a
    hand-designed network, by its own recipe and by one that all share. Without --budget, it is about what EIGEN takes.
    --only makes the runs of some systems, --recipes those of one recipe; whatever has finished is told of, and what was
    not run says so. A second page, table1-systems.md, says what of each row is exact, and what decided.
    Cost: 14 networks and searches by a recipe or two, for each seed; and a teacher for EIGEN.
    """
    compared = systems.systems(study)
    budget = f"{systems.budget(study.request.settings):.3g} training FLOPs"
    dataset = "CIFAR-100" if study.request.settings.data.name == "cifar100" else "CIFAR-10"
    columns = (
        Column(heading="system"),
        Column(heading=f"published: test accuracy on {dataset}", unit=Unit.ACCURACY),
        Column(heading="ours: test accuracy, own recipe", unit=Unit.ACCURACY),
        Column(heading="ours: test accuracy, common recipe", unit=Unit.ACCURACY),
        Column(heading="published: parameters", unit=Unit.PARAMETERS),
        Column(heading="published: compute"),
        Column(heading="parameters, counted", unit=Unit.PARAMETERS),
        Column(heading="FLOPs of one image", unit=Unit.FLOPS),
        Column(heading="latency of one image", unit=Unit.LATENCY),
        Column(heading="training FLOPs in all", unit=Unit.FLOPS),
        Column(heading="time", unit=Unit.SECONDS),
    )
    return Table(
        caption=f"Table 1: systems on {study.request.title}, each within {budget}",
        columns=columns,
        rows=tuple(_row(study, each) for each in compared),
        notes=(*_notes(study.request.settings), *_failures(compared)),
    )


def describe_printed() -> str:
    """What the paper's table prints of searches and teacher, a line each; for the help."""
    lines = []
    for known in (*SEARCHES.values(), TEACHER):
        told = [
            ", ".join(filter(None, (f"{100 * accuracy:.1f} %", _described(parameters), compute))) + f" on {dataset}"
            for dataset, (accuracy, parameters, compute) in (("CIFAR-10", known.cifar10), ("CIFAR-100", known.cifar100))
            if accuracy is not None
        ]
        if told:
            lines.append(f"The paper, {known.title}: {'; '.join(told)}.")
    return "\n".join(lines)


def describe_systems(study: Study) -> str:
    """The second page: of each row what it is, what is exact, what is decided, and the command that makes it."""
    parts = [f"**The systems of Table 1 on {study.request.title}**"]
    lists = "What is exact is as the sources say; what is decided, they do not say, or it is another here."
    parts.append(f"The table is [table1.md](table1.md). {lists}")
    for system in systems.systems(study):
        lines = [f"## {system.title}", system.about]
        for head, items in (("Exact", system.exact), ("Decided", system.decided)):
            if items:
                lines.append("\n".join((f"{head}:\n", *(f"- {item}" for item in items))))
        if system.name:
            lines.append(f"Own recipe: {system.own}.")
            lines.append(f"```\n{study.request.command('table1', system.name)}\n```")
        else:
            lines.append("It is not trained for this table: figures are the paper's, parameters and FLOPs counted.")
        parts.append("\n\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _described(parameters: float | None) -> str:
    return "" if parameters is None else f"{report.format_parameters(parameters)} parameters"


def _row(study: Study, system: System) -> tuple[Cell, ...]:
    printed = system.printed
    runs = {recipe: [run for run in system.runs.get(recipe, ()) if is_finished(run.folder)] for recipe in RECIPES}
    told = runs[COMMON] or runs[OWN]  # of which all but the accuracy by its own recipe is
    alike = system.name and system.runs[OWN] is system.runs[COMMON]
    return (
        system.title,
        _quoted(printed.accuracy),
        _AS_COMMON if alike else _accuracy(study, system, OWN),
        _accuracy(study, system, COMMON),
        _quoted(printed.parameters),
        printed.compute or _NOT_PRINTED,
        *_size(study, system, told),
        _measured(told, _latency),
        _measured(told, lambda run: None if (flops := run.result.training_flops) is None else flops.total),
        _measured(told, _seconds),
    )


def _quoted(value: float | None) -> Cell:
    return report.paper_cell(value, comparable=True)


def _accuracy(study: Study, system: System, recipe: str) -> Cell:
    """The cell of a recipe; where nothing has finished, why."""
    runs, why = system.runs.get(recipe, ()), NOT_RUN
    for run in runs:
        if run.folder in study.refused:
            why = _REFUSED[type(study.refused[run.folder])]
        elif isinstance(run, HandDesigned) and _is_too_dear(run):
            why = _REFUSED[BudgetError]
    return _measured([run for run in runs if is_finished(run.folder)], lambda run: run.result.test_accuracy, why)


def _is_too_dear(run: HandDesigned) -> bool:
    """Whether the budget does not pay for one step, which needs no attempt, and no teacher."""
    search = run.settings.search
    *_, flops = _count(run.network, run.settings.data.num_classes)
    return search.budget is not None and training_flops(flops, search.train.batch_size) > search.budget


def _measured(runs: _Runs, of: Callable[[Search | HandDesigned], float | None], absent: str = NOT_RUN) -> Cell:
    """The cell of a number of finished runs; `absent` where there is none."""
    return report.measured({run.seed: of(run) for run in runs}) if runs else absent


def _size(study: Study, system: System, told: _Runs) -> Iterator[Cell]:
    """Parameters and FLOPs: of the networks found, or counted where there is one network."""
    data = study.request.settings.data
    if not system.name or system.network is not None:
        network, classes = system.network, data.num_classes
        counts = _count(network, classes)[:2] if network else _count_teacher(data.image_shape, classes)
        yield from (Counted(value=count) for count in counts)
        return
    yield _measured(told, lambda run: None if (found := run.result.network) is None else found.parameters)
    yield _measured(told, lambda run: None if (found := run.result.network) is None else found.flops)


@functools.cache
def _count(network: NamedNetwork, num_classes: int) -> tuple[int, int, int]:
    """Parameters, FLOPs of one image's forward pass, and those in training."""
    parameters, flops = (count(network, num_classes=num_classes) for count in (count_parameters, count_flops))
    is_same = BASELINES.find(network.name).in_training is None  # the largest take seconds to count
    return parameters, flops, flops if is_same else count_flops(network, num_classes=num_classes, in_training=True)


@functools.cache
def _count_teacher(image_shape: tuple[int, int, int], num_classes: int) -> tuple[int, int]:
    """Those of the paper's teacher, all members together."""
    config = TeacherConfig()
    member = DenseNet(num_classes=num_classes, depth=config.depth, growth=config.growth)
    leaves = jax.tree.leaves(abstract_variables(member, image_shape)["params"])
    parameters = config.members * sum(math.prod(leaf.shape) for leaf in leaves)
    return parameters, forward_flops(config, image_shape, num_classes)


def _latency(run: Search | HandDesigned) -> float | None:
    """Of the network found, when its training in the search had ended; of another, when its training had."""
    if isinstance(run, HandDesigned):
        return run.origin.machine.latency if run.origin.machine else None
    found = run.chosen(Choice.FOUND)
    measurement = found.landmarks[-1].measurement if found and found.landmarks else None
    return measurement.latency if measurement else None


def _seconds(run: Search | HandDesigned) -> float:
    search, final = run.result.seconds.search, run.result.seconds.final
    return (0.0 if search is UNSET else search) + (final or 0.0)


def _notes(settings: Settings) -> tuple[str, ...]:
    given = "" if settings.search.budget is not None else ", about what EIGEN takes with these settings"
    return (
        f"Budget: {systems.budget(settings):.3g} training FLOPs{given}, at most, for everything of a run: a search with"
        " its final training, or the training of a hand-designed network.",
        "Common recipe: the settings' optimizer, rate, schedule, batches and augmentation, and no mimicry; the final"
        " training of a search is as long as the settings say, so that not all of a budget may be spent.",
        "Own recipe: of hand-designed networks their authors', stretched to the budget, on validation images as"
        " well; of searches as [table1-systems.md](table1-systems.md) says.",
        "Published: what the paper prints, of other training, other budgets and, row by row, other protocols.",
        "Parameters, FLOPs, latency, training FLOPs and time are of the common recipe, where that was not run of the"
        " own; those of hand-designed networks are counted, those of searches are of the networks found.",
        "Time: compiling and training, one after another, without evaluation and without a teacher.",
    )


def _failures(compared: Iterable[System]) -> Iterator[str]:
    """Says which runs have no accuracy of the training that they ended with."""
    all_runs = (run for system in compared for runs in system.runs.values() for run in runs)
    for run in {run.folder: run for run in all_runs if is_finished(run.folder)}.values():
        if run.result.network is None:
            yield f"{run.label}: no network survived all landmarks."
        elif cause := run.result.final_cause:
            then = "the weights of the search were tested" if isinstance(run, Search) else "so it has no accuracy"
            yield f"{run.label}: the training failed ({cause}), {then}."
