"""Tables 1 to 5: what each says of finished runs. Numbers of one row are one a seed."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from eigen_jax.lineage import Individual
from eigen_jax.report import (
    NOT_MEASURED,
    NOTHING,
    Cell,
    Column,
    PhaseSummary,
    Shared,
    Table,
    Unit,
    gain,
    measured,
    paper_cell,
    paper_column,
)
from experiments.reproduce.published import is_comparable, published
from experiments.reproduce.runs import TEACHER_PARTS, Choice, Retraining, Search
from experiments.reproduce.study import Study

S = TypeVar("S")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What a row tells of, by seed."""

    title: str
    searches: Mapping[int, Search]
    networks: Mapping[int, Individual | None]  # of the searches
    phases: Mapping[int, Sequence[PhaseSummary] | None] = dataclasses.field(default_factory=dict)  # of the searches
    trainings: Mapping[int, Retraining | None] = dataclasses.field(default_factory=dict)  # of the networks


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What a column tells of each row."""

    column: Column
    cell: Callable[[Row], Cell]


# The numbers of a row, one a seed; None where the seed has none.
Numbers = Callable[[Row], Mapping[int, float | None]]


def table1(study: Study) -> Table:
    """EIGEN's test accuracy, parameters and compute on a data set.

    Compute is told apart: search, teacher, final training.

    Cost: a search a seed, and a teacher for all. The other experiments find these searches again.
    """
    return table_of_systems(study, [_row("EIGEN", study.eigen)])


def table_of_systems(study: Study, rows: Sequence[Row]) -> Table:
    """Table 1 of any systems, a row each."""
    quantities = (
        Quantity(Column(heading="data set"), lambda row: study.request.title),
        _accuracy("test accuracy", _of_searches(lambda search: search.result["test_accuracy"])),
        _PARAMETERS,
        *_COMPUTE,
        *_paper(study, "table1", columns=3),
    )
    notes = (
        "Test accuracy: of the network found, trained from scratch after the search (final training).",
        _SECONDS_NOTE,
        *_final_notes(rows),
    )
    return _table(f"Table 1: systems on {study.request.title}", "system", quantities, rows, notes)


def table2(study: Study) -> Table:
    """Primary succession alone against primary and secondary succession.

    The paper reports the accuracy when each succession has ended. Both are in the record of one search,
    with the networks trained and the compute until then.

    Cost: a search a seed, those of Table 1.
    """
    rows = []
    for title, phase in (("primary alone", "primary"), ("primary and secondary", "secondary")):
        searches = _row(title, study.eigen).searches
        phases = {seed: search.phases_until(phase) for seed, search in searches.items()}
        best = _each(phases, lambda until: until[-1].best)
        rows.append(Row(title=title, searches=searches, networks=best, phases=phases))
    test = _of_networks(lambda network: network.test_accuracy)
    quantities = (
        _accuracy("validation accuracy", _of_networks(lambda network: network.t3.fitness)),
        _accuracy("test accuracy", test),
        _gained(test, rows[0]),
        _PARAMETERS,
        _measured("networks trained", Unit.COUNT, _of_phases(lambda phase: phase.trained)),
        _measured("compute", Unit.SECONDS, _of_phases(lambda phase: phase.seconds)),
        *_paper(study, "table2"),
    )
    notes = (
        "Of the network that is best by validation when the succession ends, with the weights of the search.",
        "Networks trained and compute: from the start of the search on; compiling and training, without evaluation.",
    )
    title = f"Table 2: primary against secondary succession on {study.request.title}"
    return _table(title, "succession", quantities, rows, notes)


def table3(study: Study) -> Table:
    """EIGEN with mimicry against EIGEN without, all else the same.

    The paper reports the accuracy of both without gene duplication. So the best networks before
    duplication stand beside those found. Without mimicry means: neither in the search nor in the final
    training.

    Cost: the searches of Table 1, and one more a seed without a teacher.
    """
    rows = (
        _row("without mimicry", study.plain),
        _row("with mimicry", study.eigen),
    )

    def before_duplication(row: Row) -> Mapping[int, float | None]:
        networks = _each(row.searches, lambda search: search.chosen(Choice.BEFORE_DUPLICATION))
        return _each(networks, lambda network: network.test_accuracy)

    test = _of_searches(lambda search: search.result["test_accuracy"])
    quantities = (
        _accuracy("validation accuracy", _of_searches(lambda search: search.result["validation_accuracy"])),
        _accuracy("test accuracy before duplication, weights of the search", before_duplication),
        _accuracy(
            "test accuracy, weights of the search", _of_searches(lambda search: search.result["search_test_accuracy"])
        ),
        _accuracy("test accuracy, final training", test),
        _gained(test, rows[0]),
        _PARAMETERS,
        _measured("networks trained", Unit.COUNT, _of_searches(lambda search: search.result["trained"])),
        *_COMPUTE,
        *_paper(study, "table3"),
    )
    notes = (
        "Of the network found. Without mimicry: in the search and in the final training.",
        "Gained: after final training, each seed against its own.",
        "The paper compares without gene duplication: with ours before duplication.",
        _SECONDS_NOTE,
        *_final_notes(rows),
    )
    title = f"Table 3: with and without mimicry on {study.request.title}"
    return _table(title, "search", quantities, rows, notes)


def table4(study: Study) -> Table:
    """With and without gene duplication.

    The paper reports accuracy and parameters before duplication and after. Here stand the best network
    of both successions, the best duplicate even where it lost, and the network found; each is trained
    again from scratch, so that they are compared on equal terms.

    Cost: the searches of Table 1, and up to two final trainings a seed.
    """
    rows = [
        _row(title, study.eigen, choice, study.retrainings(choice, mimicry=True))
        for title, choice in (
            ("without duplication", Choice.BEFORE_DUPLICATION),
            ("the best duplicate", Choice.BEST_DUPLICATE),
            ("with duplication", Choice.FOUND),
        )
    ]
    test = _of_trainings(lambda training: training.result.test_accuracy)
    quantities = (
        _accuracy("validation accuracy", _of_networks(lambda network: network.t3.fitness)),
        _accuracy("test accuracy, weights of the search", _of_networks(lambda network: network.test_accuracy)),
        _accuracy("test accuracy, trained again", test),
        _gained(test, rows[0]),
        _PARAMETERS,
        _measured("layers", Unit.COUNT, _of_networks(lambda network: len(network.architecture.layers))),
        *_paper(study, "table4", columns=2),
    )
    notes = (
        "With duplication: the network found, a duplicate or not, as validation has it.",
        "Trained again: from scratch with mimicry, as long as the final training of a search; gained: by that.",
        _TRAINED_AGAIN_NOTE,
        *map(_describe_duplicates, rows[0].searches.values()),
        *_failure_notes(rows),
    )
    title = f"Table 4: with and without gene duplication on {study.request.title}"
    return _table(title, "network", quantities, rows, notes)


def table5(study: Study) -> Table:
    """The network found, trained from scratch with and without mimicry.

    The paper reports the test accuracy of the network found. Here each seed has its own network, and both
    trainings of it start from the same weights.

    Cost: the searches of Table 1, and two final trainings a seed.
    """
    rows = [
        _row(title, study.eigen, Choice.FOUND, study.retrainings(Choice.FOUND, mimicry=mimicry))
        for title, mimicry in (("without mimicry", False), ("with mimicry", True))
    ]
    test = _of_trainings(lambda training: training.result.test_accuracy)
    quantities = (
        _accuracy("validation accuracy", _of_trainings(lambda training: training.result.final_validation_accuracy)),
        _accuracy("test accuracy", test),
        _gained(test, rows[0]),
        _PARAMETERS,
        _measured("training", Unit.SECONDS, _of_trainings(lambda training: training.result.seconds.final)),
        *_paper(study, "table5"),
    )
    notes = (
        "One network a seed, that of EIGEN's search, trained twice from the same initial weights.",
        _TRAINED_AGAIN_NOTE,
        *_failure_notes(rows),
    )
    title = f"Table 5: the network found, trained with and without mimicry, on {study.request.title}"
    return _table(title, "training of the network found", quantities, rows, notes)


def _table(
    caption: str, subject: str, quantities: Sequence[Quantity], rows: Sequence[Row], notes: tuple[str, ...]
) -> Table:
    """A table whose first column, under the heading `subject`, holds the rows' titles."""
    return Table(
        caption=caption,
        columns=(Column(heading=subject), *(quantity.column for quantity in quantities)),
        rows=tuple((row.title, *(quantity.cell(row) for quantity in quantities)) for row in rows),
        notes=notes,
    )


def _row(
    title: str,
    searches: Sequence[Search],
    choice: Choice = Choice.FOUND,
    trainings: Sequence[Retraining] = (),
) -> Row:
    return Row(
        title=title,
        searches={search.seed: search for search in searches},
        networks={search.seed: search.chosen(choice) for search in searches},
        trainings={training.seed: training if training.network else None for training in trainings},
    )


def _each(items: Mapping[int, T | None], what: Callable[[T], S | None]) -> dict[int, S | None]:
    return {seed: None if item is None else what(item) for seed, item in items.items()}


def _of_searches(number: Callable[[Search], float | None]) -> Numbers:
    return lambda row: _each(row.searches, number)


def _of_networks(number: Callable[[Individual], float | None]) -> Numbers:
    return lambda row: _each(row.networks, number)


def _of_trainings(number: Callable[[Retraining], float | None]) -> Numbers:
    return lambda row: _each(row.trainings, number)


def _of_phases(number: Callable[[PhaseSummary], float]) -> Numbers:
    return lambda row: _each(row.phases, lambda phases: sum(map(number, phases)))


def _measured(heading: str, unit: Unit, numbers: Numbers, *, absent: str = NOT_MEASURED) -> Quantity:
    return Quantity(Column(heading=heading, unit=unit), lambda row: measured(numbers(row), absent=absent))


def _accuracy(heading: str, numbers: Numbers) -> Quantity:
    return _measured(heading, Unit.ACCURACY, numbers)


def _gained(numbers: Numbers, first: Row) -> Quantity:
    """What a row gained on the first, which gained nothing."""
    column = Column(heading="test accuracy gained", unit=Unit.GAIN)
    return Quantity(column, lambda row: "" if row is first else gain(numbers(row), numbers(first)))


def _shared(part: str) -> Quantity:
    """Seconds of a part of the work on a teacher, which was done once, however many runs mimic it."""

    def cell(row: Row) -> Cell:
        parts = [search.teacher_seconds[part] for search in row.searches.values() if part in search.teacher_seconds]
        if not parts:
            return NOTHING
        return next((Shared(value=seconds) for seconds in parts if seconds is not None), NOT_MEASURED)

    return Quantity(Column(heading=part, unit=Unit.SECONDS), cell)


def _paper(study: Study, table: str, *, columns: int = 1) -> list[Quantity]:
    """What the paper's table has for each row: the first columns of `_QUOTED`."""
    request = study.request
    paper = "CIFAR-100" if request.dataset == "cifar100" else "CIFAR-10"
    comparable = is_comparable(request, study.data)

    def cell(row: Row, place: int) -> Cell:
        return paper_cell(published(table, row.title, request.dataset)[place], comparable=comparable)

    return [
        Quantity(paper_column(heading, unit, dataset=paper), functools.partial(cell, place=place))
        for place, (heading, unit) in enumerate(_QUOTED[:columns])
    ]


# The fields of `Published`.
_QUOTED = (
    ("test accuracy", Unit.ACCURACY),
    ("parameters", Unit.PARAMETERS),
    ("compute of one P100", Unit.SECONDS),
)
_PARAMETERS = _measured("parameters", Unit.PARAMETERS, _of_networks(lambda network: network.parameters))
_COMPUTE = (
    _measured("search", Unit.SECONDS, _of_searches(lambda search: search.seconds["search"])),
    *map(_shared, TEACHER_PARTS),
    _measured(
        "final training", Unit.SECONDS, _of_searches(lambda search: search.seconds["final training"]), absent=NOTHING
    ),
)

_SECONDS_NOTE = (
    "Search, teacher and final training: compiling and training, one after another, without evaluation; the"
    " teacher's logits: computing and storing them."
)
_TRAINED_AGAIN_NOTE = (
    "Trained again with initial weights of their own, so the accuracies differ from those of the search's final"
    " training (Tables 1 and 3)."
)


def _final_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Says where a test accuracy is not that of a final training."""
    for search in (search for row in rows for search in row.searches.values()):
        label = search.label
        if search.found is None:
            yield f"{label}: no network survived all landmarks."
        elif search.settings.final_steps == 0:
            yield f"{label}: without final training, the weights of the search were tested."
        elif cause := search.result.get("final_cause"):
            yield f"{label}: the final training failed ({cause}), the weights of the search were tested."


def _failure_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Says which trainings have no accuracy, each once."""
    trainings = [training for row in rows for training in row.trainings.values() if training is not None]
    for training in {training.folder: training for training in trainings}.values():
        if (cause := training.result.final_cause) is not None:
            yield f"{training.label}: the training failed ({cause}), so it has no accuracy."


def _describe_duplicates(search: Search) -> str:
    """How duplication went in a search."""
    duplicates, best, found = search.duplicates, search.best_duplicate, search.found
    count = f"{len(duplicates)} {'duplicate' if len(duplicates) == 1 else 'duplicates'}"
    start = f"Seed {search.seed}: {count}"
    if best is None or found is None:
        return f"{start}, none was measured."
    to_end = sum(each.t3.fitness is not None for each in duplicates)
    repeats = "-".join(map(str, best.repeats or ()))
    outcome = "is the network found" if found.reference == best.reference else "is not the network found"
    if best.t3.fitness is None:
        outcome += f": it went extinct at {'T1' if best.t2.fitness is None else 'T2'}"
    return (
        f"{start}, {to_end} trained to the end; the best, {best.generation}.{best.index},"
        f" repeats its parent's blocks {repeats} times and {outcome}."
    )
