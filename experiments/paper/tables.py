"""Tables 1 to 5: what each says of finished runs. Numbers of one row are one a seed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from eigen_jax.data.types import DatasetName
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
from experiments.paper.plans import Choice, eigen_searches, plain_searches, retrainings
from experiments.paper.published import DATASET_TITLES, is_comparable, published
from experiments.paper.records import TEACHER_PARTS, SearchRecord, TrainingRecord
from experiments.paper.request import Request
from experiments.paper.running import Runs

Values = Mapping[int, float | None]  # seed to number; None where the seed has none


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """A row of Table 1: a system on a data set, one number a seed; empty where nothing was measured."""

    name: str
    dataset: DatasetName
    test_accuracy: Values  # fractions
    parameters: Values
    search_seconds: Values
    teacher_seconds: Mapping[str, Cell]  # "teacher" (its training) and "logits", of the teacher that all seeds share
    final_seconds: Values
    published: Mapping[str, Cell]  # the paper's test_accuracy, parameters and seconds, or why they are left out


def table1(request: Request, runs: Runs) -> Table:
    """Table 1: EIGEN's accuracy, size and cost on a data set. Other systems' rows come beside it."""
    table = table_of_systems(request, [_eigen_system(request, runs)])
    return dataclasses.replace(table, notes=(*table.notes, *_final_notes(_records(request, runs))))


def table_of_systems(request: Request, systems: Sequence[System]) -> Table:
    """Table 1 of any systems."""
    title = DATASET_TITLES[request.dataset]
    columns = (
        Column(heading="system"),
        Column(heading="data set"),
        Column(heading="test accuracy", unit=Unit.ACCURACY),
        Column(heading="parameters", unit=Unit.PARAMETERS),
        Column(heading="search", unit=Unit.SECONDS),
        *(Column(heading=heading, unit=Unit.SECONDS) for heading in TEACHER_PARTS.values()),
        Column(heading="final training", unit=Unit.SECONDS),
        *_paper_columns(request, *_PUBLISHED),
    )
    rows = tuple(
        (
            system.name,
            DATASET_TITLES[system.dataset],
            measured(system.test_accuracy),
            measured(system.parameters),
            measured(system.search_seconds),
            *(system.teacher_seconds[part] for part in TEACHER_PARTS),
            measured(system.final_seconds, absent=NOTHING),
            *(system.published[name] for name in _PUBLISHED),
        )
        for system in systems
    )
    notes = (
        "Test accuracy: of the network found, trained from scratch after the search (final training).",
        _SECONDS_NOTE,
    )
    return Table(caption=f"Table 1: systems on {title}", columns=columns, rows=rows, notes=notes)


def table2(request: Request, runs: Runs) -> Table:
    """Table 2: the best network when the primary succession has ended, and when the secondary has."""
    records = _records(request, runs)
    rows = []
    baseline: Values | None = None
    for title, name in (("primary alone", "primary"), ("primary and secondary", "secondary")):
        phases = {record.plan.seed: record.phase(name) for record in records}
        best = {seed: None if phase is None else phase.best for seed, phase in phases.items()}
        test = _of(best, lambda each: each.test_accuracy)
        rows.append(
            (
                title,
                measured(_of(best, lambda each: each.t3.fitness)),
                measured(test),
                _gain(test, baseline),
                measured(_of(best, lambda each: each.parameters)),
                measured(_up_to(name, records, lambda phase: phase.trained)),
                measured(_up_to(name, records, lambda phase: phase.seconds)),
                *_paper_cells(request, runs, "table2", title, "test_accuracy"),
            )
        )
        baseline = baseline or test
    columns = (
        Column(heading="succession"),
        Column(heading="validation accuracy", unit=Unit.ACCURACY),
        Column(heading="test accuracy", unit=Unit.ACCURACY),
        Column(heading="test accuracy gained", unit=Unit.GAIN),
        Column(heading="parameters", unit=Unit.PARAMETERS),
        Column(heading="networks trained", unit=Unit.COUNT),
        Column(heading="compute", unit=Unit.SECONDS),
        *_paper_columns(request, "test_accuracy"),
    )
    notes = (
        "Of the network that is best by validation when the succession ends, with the weights of the search.",
        "Networks trained and compute: from the start of the search on; compiling and training, without evaluation.",
    )
    title = f"Table 2: primary against secondary succession on {DATASET_TITLES[request.dataset]}"
    return Table(caption=title, columns=columns, rows=tuple(rows), notes=notes)


def table3(request: Request, runs: Runs) -> Table:
    """Table 3: EIGEN with mimicry against EIGEN without, all else the same."""
    rows = []
    baseline: Values | None = None
    final_notes: tuple[str, ...] = ()
    for title, plans in (
        ("without mimicry", plain_searches(request)),
        ("with mimicry", eigen_searches(request)),
    ):
        records = [runs.search(plan) for plan in plans]
        before = {record.plan.seed: record.chosen(Choice.BEFORE_DUPLICATION) for record in records}
        test = _result(records, "test_accuracy")
        final_notes += _final_notes(records)
        rows.append(
            (
                title,
                measured(_result(records, "validation_accuracy")),
                measured(_of(before, lambda each: each.test_accuracy)),
                measured(_result(records, "search_test_accuracy")),
                measured(test),
                _gain(test, baseline),
                measured(_of({record.plan.seed: record.found for record in records}, lambda each: each.parameters)),
                measured(_result(records, "trained")),
                measured(_seconds(records, "search")),
                *(_shared_seconds(records, part) for part in TEACHER_PARTS),
                measured(_seconds(records, "final training"), absent=NOTHING),
                *_paper_cells(request, runs, "table3", title, "test_accuracy"),
            )
        )
        baseline = baseline or test
    columns = (
        Column(heading="search"),
        Column(heading="validation accuracy", unit=Unit.ACCURACY),
        Column(heading="test accuracy before duplication, weights of the search", unit=Unit.ACCURACY),
        Column(heading="test accuracy, weights of the search", unit=Unit.ACCURACY),
        Column(heading="test accuracy, final training", unit=Unit.ACCURACY),
        Column(heading="test accuracy gained", unit=Unit.GAIN),
        Column(heading="parameters", unit=Unit.PARAMETERS),
        Column(heading="networks trained", unit=Unit.COUNT),
        Column(heading="search", unit=Unit.SECONDS),
        *(Column(heading=heading, unit=Unit.SECONDS) for heading in TEACHER_PARTS.values()),
        Column(heading="final training", unit=Unit.SECONDS),
        *_paper_columns(request, "test_accuracy"),
    )
    notes = (
        "Of the network found. Without mimicry: in the search and in the final training.",
        "Gained: after final training, each seed against its own.",
        "The paper compares without gene duplication: with ours before duplication.",
        _SECONDS_NOTE,
        *final_notes,
    )
    title = f"Table 3: with and without mimicry on {DATASET_TITLES[request.dataset]}"
    return Table(caption=title, columns=columns, rows=tuple(rows), notes=notes)


def table4(request: Request, runs: Runs) -> Table:
    """Table 4: the best network before duplication, the best duplicate, and the network found."""
    records = _records(request, runs)
    rows = []
    trained: list[TrainingRecord | None] = []
    baseline: Values | None = None
    for title, choice in (
        ("without duplication", Choice.BEFORE_DUPLICATION),
        ("the best duplicate", Choice.BEST_DUPLICATE),
        ("with duplication", Choice.FOUND),
    ):
        chosen = {record.plan.seed: record.chosen(choice) for record in records}
        trainings = {plan.seed: runs.training(plan) for plan in retrainings(request, choice, mimicry=True)}
        trained += trainings.values()
        test = {seed: None if each is None else each.test_accuracy for seed, each in trainings.items()}
        rows.append(
            (
                title,
                measured(_of(chosen, lambda each: each.t3.fitness)),
                measured(_of(chosen, lambda each: each.test_accuracy)),
                measured(test),
                _gain(test, baseline),
                measured(_of(chosen, lambda each: each.parameters)),
                measured(_of(chosen, lambda each: len(each.architecture.layers))),
                *_paper_cells(request, runs, "table4", title, "test_accuracy", "parameters"),
            )
        )
        baseline = baseline or test
    columns = (
        Column(heading="network"),
        Column(heading="validation accuracy", unit=Unit.ACCURACY),
        Column(heading="test accuracy, weights of the search", unit=Unit.ACCURACY),
        Column(heading="test accuracy, trained again", unit=Unit.ACCURACY),
        Column(heading="test accuracy gained", unit=Unit.GAIN),
        Column(heading="parameters", unit=Unit.PARAMETERS),
        Column(heading="layers", unit=Unit.COUNT),
        *_paper_columns(request, "test_accuracy", "parameters"),
    )
    notes = (
        "With duplication: the network found, a duplicate or not, as validation has it.",
        "Trained again: from scratch with mimicry, as long as the final training of a search; gained: by that.",
        _TRAINED_AGAIN_NOTE,
        *map(_describe_duplicates, records),
        *_failure_notes(trained),
    )
    title = f"Table 4: with and without gene duplication on {DATASET_TITLES[request.dataset]}"
    return Table(caption=title, columns=columns, rows=tuple(rows), notes=notes)


def table5(request: Request, runs: Runs) -> Table:
    """Table 5: the network found, trained from scratch with mimicry and without."""
    rows = []
    all_trainings: list[TrainingRecord | None] = []
    baseline: Values | None = None
    found = {record.plan.seed: record.found for record in _records(request, runs)}
    for title, mimicry in (("without mimicry", False), ("with mimicry", True)):
        trainings = [runs.training(plan) for plan in retrainings(request, Choice.FOUND, mimicry=mimicry)]
        all_trainings += trainings
        trained = dict(zip(request.seeds, trainings, strict=True))
        test = {seed: None if each is None else each.test_accuracy for seed, each in trained.items()}
        validation = {seed: None if each is None else each.validation_accuracy for seed, each in trained.items()}
        seconds = {seed: None if each is None else each.seconds for seed, each in trained.items()}
        rows.append(
            (
                title,
                measured(validation),
                measured(test),
                _gain(test, baseline),
                measured(_of(found, lambda each: each.parameters)),
                measured(seconds),
                *_paper_cells(request, runs, "table5", title, "test_accuracy"),
            )
        )
        baseline = baseline or test
    columns = (
        Column(heading="training of the network found"),
        Column(heading="validation accuracy", unit=Unit.ACCURACY),
        Column(heading="test accuracy", unit=Unit.ACCURACY),
        Column(heading="test accuracy gained", unit=Unit.GAIN),
        Column(heading="parameters", unit=Unit.PARAMETERS),
        Column(heading="training", unit=Unit.SECONDS),
        *_paper_columns(request, "test_accuracy"),
    )
    notes = (
        "One network a seed, that of EIGEN's search, trained twice from the same initial weights.",
        _TRAINED_AGAIN_NOTE,
        *_failure_notes(all_trainings),
    )
    title = f"Table 5: the network found, trained with and without mimicry, on {DATASET_TITLES[request.dataset]}"
    return Table(caption=title, columns=columns, rows=tuple(rows), notes=notes)


_SECONDS_NOTE = (
    "Search, teacher and final training: compiling and training, one after another, without evaluation; the"
    " teacher's logits: computing and storing them."
)
_TRAINED_AGAIN_NOTE = (
    "Trained again with initial weights of their own, so the accuracies differ from those of the search's final"
    " training (Tables 1 and 3)."
)


def _eigen_system(request: Request, runs: Runs) -> System:
    records = _records(request, runs)
    return System(
        name="EIGEN",
        dataset=request.dataset,
        test_accuracy=_result(records, "test_accuracy"),
        parameters=_of({record.plan.seed: record.found for record in records}, lambda each: each.parameters),
        search_seconds=_seconds(records, "search"),
        teacher_seconds={part: _shared_seconds(records, part) for part in TEACHER_PARTS},
        final_seconds=_seconds(records, "final training"),
        published=dict(zip(_PUBLISHED, _paper_cells(request, runs, "table1", "EIGEN", *_PUBLISHED), strict=True)),
    )


# What the paper's tables have, by the field of `Published`: the column and its unit.
_PUBLISHED = {
    "test_accuracy": ("test accuracy", Unit.ACCURACY),
    "parameters": ("parameters", Unit.PARAMETERS),
    "seconds": ("compute of one P100", Unit.SECONDS),
}


def _paper_columns(request: Request, *fields: str) -> tuple[Column, ...]:
    paper = "CIFAR-100" if request.dataset == "cifar100" else "CIFAR-10"
    return tuple(paper_column(*_PUBLISHED[field], dataset=paper) for field in fields)


def _paper_cells(request: Request, runs: Runs, table: str, row: str, *fields: str) -> tuple[Cell, ...]:
    """What the paper has for a row of a table, in the cells of `_paper_columns`."""
    found, comparable = published(table, row, request.dataset), is_comparable(request, runs.facts)
    return tuple(paper_cell(getattr(found, field), comparable=comparable) for field in fields)


def _records(request: Request, runs: Runs) -> list[SearchRecord]:
    return [runs.search(plan) for plan in eigen_searches(request)]


def _result(records: Sequence[SearchRecord], name: str) -> Values:
    return {record.plan.seed: record.result[name] for record in records}


def _seconds(records: Sequence[SearchRecord], part: str) -> Values:
    return {record.plan.seed: record.seconds[part] for record in records}


def _shared_seconds(records: Sequence[SearchRecord], part: str) -> Cell:
    """Of a part of the work on a teacher, which was done once, however many runs mimic it."""
    parts = [record.teacher_seconds[part] for record in records if part in record.teacher_seconds]
    if not parts:
        return NOTHING
    return next((Shared(value=seconds) for seconds in parts if seconds is not None), NOT_MEASURED)


def _of(chosen: Mapping[int, Individual | None], number: Callable[[Individual], float | None]) -> Values:
    return {seed: None if each is None else number(each) for seed, each in chosen.items()}


def _up_to(name: str, records: Sequence[SearchRecord], number: Callable[[PhaseSummary], float]) -> Values:
    """Sums over the phases of each search, from its start until this one has ended."""
    sums: dict[int, float | None] = {}
    for record in records:
        names = [phase.phase for phase in record.phases]
        own = record.phases[: names.index(name) + 1] if name in names else ()
        sums[record.plan.seed] = sum(map(number, own)) if own else None
    return sums


def _gain(values: Values, baseline: Values | None) -> Cell:
    """What a row gained on the first, which gained nothing."""
    return "" if baseline is None else gain(values, baseline)


def _final_notes(records: Sequence[SearchRecord]) -> tuple[str, ...]:
    """Says where a test accuracy is not that of a final training."""
    notes = []
    for record in records:
        if record.found is None:
            notes.append(f"{record.plan.label}: no network survived all landmarks.")
        elif record.plan.settings.search.final_until == 0:
            notes.append(f"{record.plan.label}: without final training, the weights of the search were tested.")
        elif cause := record.result.get("final_cause"):
            notes.append(
                f"{record.plan.label}: the final training failed ({cause}), the weights of the search were tested."
            )
    return tuple(notes)


def _failure_notes(trainings: Sequence[TrainingRecord | None]) -> tuple[str, ...]:
    """Says which trainings have no accuracy, each once."""
    failed = {each.folder: each for each in trainings if each is not None and each.final_cause is not None}
    return tuple(
        f"{each.plan.label}: the training failed ({each.final_cause}), so it has no accuracy."
        for each in failed.values()
    )


def _describe_duplicates(record: SearchRecord) -> str:
    """How duplication went in a search."""
    duplicates, best, found = record.duplicates, record.best_duplicate, record.found
    count = f"{len(duplicates)} {'duplicate' if len(duplicates) == 1 else 'duplicates'}"
    start = f"Seed {record.plan.seed}: {count}"
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
