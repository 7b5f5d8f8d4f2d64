"""Figures 1 to 4: pictures of finished runs, and the numbers that they show."""

import csv
import dataclasses
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from eigen_jax.architecture import Architecture, Layer, count_parameters, layer_shapes
from eigen_jax.data.types import DatasetName
from eigen_jax.lineage import Individual
from eigen_jax.report import (
    ReportError,
    best_so_far,
    draw_architecture,
    draw_duplication,
    find_individual,
    mean_and_deviation,
    plot_progress,
    plot_step_sizes,
)
from eigen_jax.report.figures import PANELS
from experiments.paper.plans import Plan, eigen_searches, step_size_searches
from experiments.paper.published import DATASET_TITLES
from experiments.paper.records import SearchRecord
from experiments.paper.request import Request
from experiments.paper.running import Runs

NUM_CLASSES: Mapping[DatasetName, int] = {"cifar10": 10, "cifar100": 100, "digits": 10}

_CURVE_COLUMNS = ("statistic", "seed", "generation")
_SHAPE = ("height", "width", "maps")  # of what a layer puts out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure, and the numbers that it shows."""

    figure: Figure
    caption: str  # one line
    numbers: Mapping[str, str]  # ending of the file's name, such as "" or "-networks", to CSV
    notes: tuple[str, ...] = ()
    plans: tuple[Plan, ...] | None = None  # of the runs that it shows; None: all that its experiment needs


def figure1(request: Request, runs: Runs) -> Picture:
    """Figure 1: the network found with the first seed."""
    record = runs.search(eigen_searches(request)[0])
    found = record.found
    if found is None:
        raise ReportError(f"{record.plan.label} found no network to draw; its result.json says so")
    data = DATASET_TITLES[request.dataset]
    figure = draw_architecture(
        found.architecture,
        num_classes=NUM_CLASSES[request.dataset],
        title=f"The network found on {data}, seed {record.plan.seed}",
    )
    return Picture(
        figure=figure,
        caption=f"Figure 1: the network found on {data}, seed {record.plan.seed}",
        numbers={"": layers_csv({"found": found.architecture})},
        notes=(_describe(found, request),),
    )


def figure2(request: Request, runs: Runs) -> Picture:
    """Figure 2: the best duplicate of the first seed that has one, and the network whose blocks it repeats."""
    record, duplicate = _first_duplicate(request, runs)
    assert duplicate.parent is not None, "a duplicate repeats the blocks of an individual"
    parent = find_individual(record.individuals, duplicate.parent)
    is_found = record.found is not None and record.found.reference == duplicate.reference
    data = DATASET_TITLES[request.dataset]
    repeats = "-".join(map(str, duplicate.repeats or ()))
    figure = draw_duplication(
        parent.architecture,
        duplicate.architecture,
        num_classes=NUM_CLASSES[request.dataset],
        repeats=duplicate.repeats,
        title=f"Gene duplication on {data}, seed {record.plan.seed}, blocks repeated {repeats} times:"
        f" {'the network found' if is_found else 'the best duplicate, not the network found'}",
    )
    return Picture(
        figure=figure,
        caption=f"Figure 2: a network found on {data} before and after gene duplication, seed {record.plan.seed}",
        numbers={"": layers_csv({"before": parent.architecture, "after": duplicate.architecture})},
        notes=(
            f"Before: {_describe(parent, request)}",
            f"After: {_describe(duplicate, request)}",
            "After is the network found."
            if is_found
            else "After is the best duplicate; the network found is another one.",
        ),
        plans=(record.plan,),
    )


def figure3(request: Request, runs: Runs) -> Picture:
    """Figure 3: how fast primary succession gets better with the most mutation steps a child."""
    curves: dict[int, list[list[float | None]]] = {}
    for size in request.step_sizes:
        records = [runs.search(plan) for plan in step_size_searches(request, size)]
        curves[size] = [
            [None if best is None else best.t3.fitness for best in best_so_far(record.individuals)]
            for record in records
        ]
    data = DATASET_TITLES[request.dataset]
    rows = []
    for size, of_seeds in curves.items():
        own = {"step_size": size}
        rows += [own | row for row in _curve_rows(of_seeds, request.seeds, name="best_validation_accuracy")]
    title = f"Primary succession on {data}"
    return Picture(
        figure=plot_step_sizes(curves, panels=_panels(request.step_sizes), title=title),
        caption=f"Figure 3: step sizes of the primary succession on {data}, mean and one standard deviation",
        numbers={"": to_csv(rows, columns=("step_size", *_CURVE_COLUMNS, "best_validation_accuracy"))},
        notes=(
            "Primary succession alone, never ended by saturation, without final training.",
            f"Step sizes: {', '.join(map(str, request.step_sizes))}",
            f"Generations of each search: {request.generations}",
            "Accuracies are those of the best so far on validation images.",
        ),
    )


def figure4(request: Request, runs: Runs) -> Picture:
    """Figure 4: the test accuracy of the best by validation, and every individual's parameters, by generation."""
    records = [runs.search(plan) for plan in eigen_searches(request)]
    curves = [
        [None if best is None else best.test_accuracy for best in best_so_far(record.individuals)] for record in records
    ]
    rows = _curve_rows(curves, request.seeds, name="best_test_accuracy")
    data = DATASET_TITLES[request.dataset]
    networks = [
        {
            "seed": record.plan.seed,
            "generation": each.generation,
            "index": each.index,
            "phase": each.phase,
            "parameters": each.parameters,
            "validation_accuracy": each.t3.fitness,
            "test_accuracy": each.test_accuracy,
            "fate": each.fate.value,
        }
        for record in records
        for each in record.individuals
    ]
    return Picture(
        figure=plot_progress([record.individuals for record in records], title=f"EIGEN on {data}"),
        caption=f"Figure 4: the search on {data}, generation by generation",
        numbers={
            "": to_csv(rows, columns=(*_CURVE_COLUMNS, "best_test_accuracy")),
            "-networks": to_csv(networks, columns=tuple(networks[0])),
        },
        notes=(
            "Test accuracy is that of the individual that is best so far by validation, with the weights of the"
            " search; selection does not see it.",
            "A search that ended before others stays at its last value in the mean.",
            "Dots of one generation stand side by side, a place a seed.",
        ),
    )


def layers_csv(networks: Mapping[str, Architecture]) -> str:
    """The layers of networks, a line each; inputs are layers' numbers, -1 the image."""
    rows = []
    for name, architecture in networks.items():
        for number, (layer, shape) in enumerate(zip(architecture.layers, layer_shapes(architecture), strict=True)):
            rows.append(
                {
                    "network": name,
                    "layer": number,
                    **dataclasses.asdict(layer),
                    "inputs": " ".join(map(str, layer.inputs)),
                    **dict(zip(_SHAPE, shape, strict=True)),
                }
            )
    fields = tuple(field.name for field in dataclasses.fields(Layer))
    return to_csv(rows, columns=("network", "layer", *fields, *_SHAPE))


def to_csv(rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str]) -> str:
    """Rows as CSV, numbers in full, what is None left empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _curve_rows(
    curves: Sequence[Sequence[float | None]], seeds: Sequence[int], *, name: str
) -> Iterable[dict[str, Any]]:
    """Values of each seed a generation, then their mean and standard deviation (n - 1)."""
    for seed, curve in zip(seeds, curves, strict=True):
        for generation, value in enumerate(curve):
            yield {"statistic": "value", "seed": seed, "generation": generation, name: value}
    for statistic, values in zip(("mean", "sd"), mean_and_deviation(curves), strict=True):
        for generation, value in enumerate(values.tolist()):
            if value == value:  # not NaN: a seed has no value yet, or there is one seed
                yield {"statistic": statistic, "seed": None, "generation": generation, name: value}


def _panels(sizes: Sequence[int]) -> Sequence[Sequence[int]]:
    """The paper's two panels; one of all sizes where some are in neither, or a panel would compare less than two."""
    is_papers = set(sizes) <= set(itertools.chain(*PANELS))
    compares = all(len(set(panel) & set(sizes)) >= 2 for panel in PANELS)
    return PANELS if is_papers and compares else (tuple(sorted(sizes)),)


def _first_duplicate(request: Request, runs: Runs) -> tuple[SearchRecord, Individual]:
    for plan in eigen_searches(request):
        record = runs.search(plan)
        if record.best_duplicate is not None:
            return record, record.best_duplicate
    raise ReportError(
        f"no search of seeds {', '.join(map(str, request.seeds))} measured a duplicate, so there is none to draw:"
        " within the bounds on size, no block could be repeated"
    )


def _describe(individual: Individual, request: Request) -> str:
    parameters = count_parameters(individual.architecture, num_classes=NUM_CLASSES[request.dataset])
    repeats = f", blocks repeated {'-'.join(map(str, individual.repeats))} times" if individual.repeats else ""
    return (
        f"individual {individual.generation}.{individual.index}, {len(individual.architecture.layers)} layers,"
        f" {parameters:,} parameters{repeats}."
    )
