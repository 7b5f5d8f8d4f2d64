"""Tables 2 to 5: what each says of finished runs, and what the paper reports (Ren et al., CVPR 2019).

Numbers of one row are one a seed. The docstring of each table is what the help says of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from eigen_jax import report
from eigen_jax.data.types import DatasetName
from eigen_jax.lineage import Individual
from eigen_jax.report import NOT_MEASURED, NOTHING, Cell, Column, Table, Unit
from eigen_jax.store.run_files import RunResult
from experiments.reproduce.runs import TEACHER_PARTS, Choice, Retraining, Search, Study, describe_repeats

T = TypeVar("T")
Values = Mapping[int, float | None]  # seed to number; None where the seed has none


class Published(NamedTuple):
    """A row of a table of the paper, on one data set; None where the table does not say it."""

    test_accuracy: float | None = None  # a fraction
    parameters: float | None = None


# By the table of the paper and the row of ours that it stands beside: on CIFAR-10 and on CIFAR-100.
_ROWS = {
    ("table2", "primary alone"): (Published(93.3 / 100), Published(74.7 / 100)),
    ("table2", "primary and secondary"): (Published(93.7 / 100), Published(76.9 / 100)),
    # Both without gene duplication.
    ("table3", "without mimicry"): (Published(92.4 / 100), Published(74.8 / 100)),
    ("table3", "with mimicry"): (Published(93.7 / 100), Published(76.9 / 100)),
    ("table4", "without duplication"): (Published(0.937, 1.2e6), Published(0.769, 6.1e6)),
    ("table4", "with duplication"): (Published(0.946, 2.6e6), Published(0.781, 11.8e6)),
    ("table5", "without mimicry"): (Published(93.3 / 100), Published(73.9 / 100)),
    ("table5", "with mimicry"): (Published(94.6 / 100), Published(78.1 / 100)),
}


def published(table: str, row: str, dataset: DatasetName) -> Published:
    """What the paper's table, such as "table2", has on a data set for a row of ours; empty where it has no such row."""
    both = dict(zip(("cifar10", "cifar100"), _ROWS.get((table, row), ()), strict=False))
    return both.get(dataset, Published())


def describe_published(table: str) -> str:
    """What the paper's table reports on CIFAR-10 and CIFAR-100, a line a row; empty for a figure."""
    return "\n".join(
        f"The paper, {row}: {_describe(cifar10)} on CIFAR-10; {_describe(cifar100)} on CIFAR-100."
        for (name, row), (cifar10, cifar100) in _ROWS.items()
        if name == table
    )


def _describe(row: Published) -> str:
    texts = (("{:.1f} %", 100), ("{:.1f} M parameters", 1e-6))
    told = zip(texts, row, strict=True)
    return ", ".join(text.format(scale * value) for (text, scale), value in told if value is not None)


class Entry(NamedTuple):
    heading: str
    unit: Unit
    value: Values | Cell  # numbers by seed, of which a gain is that on the first row; or the cell as it is


Rows = dict[str, list[Entry]]  # by title, all with the same columns


def table2(study: Study) -> Table:
    """Primary succession alone against primary and secondary succession.

    The paper reports the accuracy when each succession has ended. Both are in the record of one search,
    with the networks trained and the compute until then.
    Cost: a search a seed, and a teacher for all. The other experiments but Table 1 find these searches again.
    """
    rows: Rows = {}
    for title, name in (("primary alone", "primary"), ("primary and secondary", "secondary")):
        until = {search.seed: search.phases_until(name) for search in study.eigen}
        best = _each(until, lambda phases: phases[-1].best)
        rows[title] = [
            _accuracy("validation accuracy", _each(best, lambda network: network.accuracy)),
            *_compared("test accuracy", _each(best, lambda network: network.test_accuracy)),
            _parameters(best),
            Entry("networks trained", Unit.COUNT, _each(until, lambda phases: sum(each.trained for each in phases))),
            Entry("compute", Unit.SECONDS, _each(until, lambda phases: sum(each.seconds for each in phases))),
        ]
    notes = (
        "Of the network that is best by validation when the succession ends, with the weights of the search.",
        "Networks trained and compute: from the start of the search on; compiling and training, without evaluation.",
    )
    return _table(study, 2, "primary against secondary succession", "succession", rows, notes)


def table3(study: Study) -> Table:
    """EIGEN with mimicry against EIGEN without, all else the same.

    Without mimicry means: neither in the search nor in the final training. The paper reports the accuracy
    of both without gene duplication, so the best networks before duplication stand beside those found.
    Cost: the searches of Table 2, and one more a seed without a teacher.
    """
    rows: Rows = {}
    for title, searches in (("without mimicry", study.plain), ("with mimicry", study.eigen)):
        results = {search.seed: search.result for search in searches}
        earlier = _each(_chosen(searches, Choice.BEFORE_DUPLICATION), lambda network: network.test_accuracy)
        rows[title] = [
            _accuracy("validation accuracy", _each(results, lambda result: result.validation_accuracy)),
            _accuracy("test accuracy before duplication, weights of the search", earlier),
            _accuracy(_SEARCHED, _each(results, lambda result: result.search_test_accuracy)),
            *_compared("test accuracy, final training", _each(results, lambda result: result.test_accuracy)),
            _parameters(_chosen(searches, Choice.FOUND)),
            Entry("networks trained", Unit.COUNT, _each(results, lambda result: result.trained)),
            *_compute(searches),
        ]
    notes = (
        "Of the network found. Without mimicry: in the search and in the final training.",
        "Gained: after final training, each seed against its own.",
        "The paper compares without gene duplication: with ours before duplication.",
        _SECONDS_NOTE,
        *_final_notes((*study.plain, *study.eigen)),
    )
    return _table(study, 3, "with and without mimicry", "search", rows, notes)


def table4(study: Study) -> Table:
    """With and without gene duplication.

    The paper reports accuracy and parameters before duplication and after. Here stand the best network
    of both successions, the best duplicate even where it lost, and the network found; each is trained
    again from scratch, so that they are compared on equal terms.
    Cost: the searches of Table 2, and up to two final trainings a seed.
    """
    rows: Rows = {}
    choices = {
        "without duplication": Choice.BEFORE_DUPLICATION,
        "the best duplicate": Choice.BEST_DUPLICATE,
        "with duplication": Choice.FOUND,
    }
    for title, choice in choices.items():
        networks, again = _chosen(study.eigen, choice), _trained_again(study, choice, mimicry=True)
        rows[title] = [
            _accuracy("validation accuracy", _each(networks, lambda network: network.accuracy)),
            _accuracy(_SEARCHED, _each(networks, lambda network: network.test_accuracy)),
            *_compared("test accuracy, trained again", _each(again, lambda result: result.test_accuracy)),
            _parameters(networks),
            Entry("layers", Unit.COUNT, _each(networks, lambda network: len(network.architecture.layers))),
        ]
    notes = (
        "With duplication: the network found, a duplicate or not, as validation has it.",
        "Trained again: from scratch with mimicry, as long as the final training of a search; gained: by that.",
        _TRAINED_AGAIN_NOTE,
        *map(_describe_duplicates, study.eigen),
        *_failure_notes(study.retrainings(*choices.values())),
    )
    return _table(study, 4, "with and without gene duplication", "network", rows, notes, of_paper=2)


def table5(study: Study) -> Table:
    """The network found, trained from scratch with and without mimicry.

    The paper reports the test accuracy of the network found. Here each seed has its own network, and both
    trainings of it start from the same weights.
    Cost: the searches of Table 2, and two final trainings a seed.
    """
    rows: Rows = {}
    for title, mimicry in (("without mimicry", False), ("with mimicry", True)):
        again = _trained_again(study, Choice.FOUND, mimicry=mimicry)
        rows[title] = [
            _accuracy("validation accuracy", _each(again, lambda result: result.final_validation_accuracy)),
            *_compared("test accuracy", _each(again, lambda result: result.test_accuracy)),
            _parameters(_chosen(study.eigen, Choice.FOUND)),
            Entry("training", Unit.SECONDS, _each(again, lambda result: result.seconds.final)),
        ]
    notes = (
        "One network a seed, that of EIGEN's search, trained twice from the same initial weights.",
        _TRAINED_AGAIN_NOTE,
        *_failure_notes(study.retrainings(Choice.FOUND, mimicry=(False, True))),
    )
    about = "the network found, trained with and without mimicry,"
    return _table(study, 5, about, "training of the network found", rows, notes)


_SEARCHED = "test accuracy, weights of the search"
_SECONDS_NOTE = (
    "Search, teacher and final training: compiling and training, one after another, without evaluation; the"
    " teacher's logits: computing and storing them."
)
_TRAINED_AGAIN_NOTE = (
    "Trained again with initial weights of their own, so the accuracies differ from those of the search's final"
    " training (Table 3)."
)


def _table(
    study: Study, number: int, about: str, subject: str, rows: Rows, notes: tuple[str, ...], *, of_paper: int = 1
) -> Table:
    """A table of rows under the heading `subject`, of ours and then of the first `of_paper` columns of the paper."""
    rows = {title: [*own, *_paper(study, f"table{number}", title)[:of_paper]] for title, own in rows.items()}
    first = next(iter(rows.values()))
    return Table(
        caption=f"Table {number}: {about} on {study.request.title}",
        columns=(Column(heading=subject), *(Column(heading=each.heading, unit=each.unit) for each in first)),
        rows=tuple((title, *map(_cell, entries, first)) for title, entries in rows.items()),
        notes=notes,
    )


def _cell(entry: Entry, first: Entry) -> Cell:
    """The cell of an entry; `first` is that of the first row, which gained nothing."""
    if entry.unit is Unit.GAIN and isinstance(entry.value, Mapping) and isinstance(first.value, Mapping):
        return "" if entry is first else report.gain(entry.value, first.value)
    return report.measured(entry.value) if isinstance(entry.value, Mapping) else entry.value


def _each(items: Mapping[int, T | None], of: Callable[[T], Any]) -> dict[int, Any]:
    return {seed: None if item is None else of(item) for seed, item in items.items()}


def _chosen(searches: Iterable[Search], choice: Choice) -> dict[int, Individual | None]:
    return {search.seed: search.chosen(choice) for search in searches}


def _trained_again(study: Study, choice: Choice, *, mimicry: bool) -> dict[int, RunResult | None]:
    trainings = study.retrainings(choice, mimicry=(mimicry,))
    return {training.seed: training.result if training.network else None for training in trainings}


def _accuracy(heading: str, accuracies: Values) -> Entry:
    return Entry(heading, Unit.ACCURACY, accuracies)


def _compared(heading: str, accuracies: Values) -> tuple[Entry, Entry]:
    return _accuracy(heading, accuracies), Entry("test accuracy gained", Unit.GAIN, accuracies)


def _parameters(networks: Mapping[int, Individual | None]) -> Entry:
    return Entry("parameters", Unit.PARAMETERS, _each(networks, lambda network: network.parameters))


def _compute(searches: Iterable[Search]) -> Iterator[Entry]:
    """Of searches, apart from one another; the work on a teacher was done once, however many runs mimic it."""
    results = {search.seed: search.result for search in searches}
    yield Entry("search", Unit.SECONDS, _each(results, lambda result: result.seconds.search))
    for part in TEACHER_PARTS:
        shared = [search.teacher_seconds[part] for search in searches if part in search.teacher_seconds]
        known = (report.Shared(value=seconds) for seconds in shared if seconds is not None)
        yield Entry(part, Unit.SECONDS, next(known, NOT_MEASURED) if shared else NOTHING)
    final = _each(results, lambda result: result.seconds.final)
    yield Entry("final training", Unit.SECONDS, report.measured(final, absent=NOTHING))


def _paper(study: Study, table: str, row: str) -> list[Entry]:
    """What the paper's table has for a row: accuracy and parameters."""
    dataset, entries = study.request.settings.data.name, []
    units = {"test accuracy": Unit.ACCURACY, "parameters": Unit.PARAMETERS}
    for (quantity, unit), value in zip(units.items(), published(table, row, dataset), strict=True):
        heading = f"{quantity}, paper ({'CIFAR-100' if dataset == 'cifar100' else 'CIFAR-10'}, paper's schedule)"
        entries.append(Entry(heading, unit, report.paper_cell(value, comparable=study.is_papers)))
    return entries


def _final_notes(searches: Iterable[Search]) -> Iterator[str]:
    """Says where a test accuracy is not that of a final training."""
    for search in searches:
        if search.result.found is None:
            yield f"{search.label}: no network survived all landmarks."
        elif search.settings.search.final_until == 0:
            yield f"{search.label}: without final training, the weights of the search were tested."
        elif cause := search.result.final_cause:
            yield f"{search.label}: the final training failed ({cause}), the weights of the search were tested."


def _failure_notes(trainings: Iterable[Retraining]) -> Iterator[str]:
    """Says which trainings have no accuracy, each once."""
    for training in {each.folder: each for each in trainings if each.folder}.values():
        if cause := training.result.final_cause:
            yield f"{training.label}: the training failed ({cause}), so it has no accuracy."


def _describe_duplicates(search: Search) -> str:
    duplicates, best, found = search.duplicates, search.chosen(Choice.BEST_DUPLICATE), search.result.found
    start = f"Seed {search.seed}: {len(duplicates)} {'duplicate' if len(duplicates) == 1 else 'duplicates'}"
    if best is None or found is None:
        return f"{start}, none was measured."
    to_end = sum(each.accuracy is not None for each in duplicates)
    outcome = "is the network found" if found == best.reference else "is not the network found"
    if best.accuracy is None:
        outcome += f": it went extinct at T{len(best.landmarks)}"
    return (
        f"{start}, {to_end} trained to the end; the best, {best.reference},"
        f" repeats its parent's blocks {describe_repeats(best)} times and {outcome}."
    )
