"""Figures 1 to 4: pictures of finished runs, and the numbers that they show.

The docstring of each figure is what the help says of it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from eigen_jax import report
from eigen_jax.architecture import Architecture, count_parameters, layer_shapes
from eigen_jax.lineage import Individual
from eigen_jax.report import ReportError
from eigen_jax.report.figures import PANELS
from experiments.reproduce.runs import Choice, Run, Search, Study, describe_repeats

_CURVE = ("statistic", "seed", "generation")  # columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    figure: Figure
    caption: str  # one line
    numbers: Mapping[str, str]  # ending of the file's name, such as "" or "-networks", to CSV
    notes: tuple[str, ...] = ()
    runs: tuple[Run, ...] | None = None  # that it shows; None: all that its experiment needs


def figure1(study: Study) -> Picture:
    """A drawing of the network found with the first seed, its layers and blocks. Cost: the first search of Table 2."""
    search = study.eigen[0]
    found, classes = search.chosen(Choice.FOUND), study.request.settings.data.num_classes
    if found is None:
        raise ReportError(f"{search.label} found no network to draw; its result.json says so")
    drawn = f"network found on {study.request.title}, seed {search.seed}"
    return Picture(
        figure=report.draw_architecture(found.architecture, num_classes=classes, title=f"The {drawn}"),
        caption=f"Figure 1: the {drawn}",
        numbers={"": _layers_csv({"found": found.architecture})},
        notes=(_describe(found, classes),),
    )


def figure2(study: Study) -> Picture:
    """A network before and after gene duplication.

    It is the best duplicate of the first seed that has one, over the network whose blocks it repeats; the
    text beside it says whether it is the network found. Without any duplicate, within the bounds on size,
    nothing is drawn, and the exit code is 2.
    Cost: the searches of Table 2.
    """
    duplicates = [(search, best) for search in study.eigen if (best := search.chosen(Choice.BEST_DUPLICATE))]
    if not duplicates:
        none = f"no search of seeds {', '.join(map(str, study.request.seeds))} measured a duplicate"
        why = "within the bounds on size, no block could be repeated"
        raise ReportError(f"{none}, so there is none to draw: {why}")
    search, duplicate = duplicates[0]
    assert duplicate.parent is not None, "a duplicate repeats the blocks of an individual"
    parent = report.find_individual(search.individuals, duplicate.parent)
    is_found = duplicate == search.chosen(Choice.FOUND)
    on, classes = study.request.title, study.request.settings.data.num_classes
    title = f"Gene duplication on {on}, seed {search.seed}, blocks repeated {describe_repeats(duplicate)} times:"
    title += f" {'the network found' if is_found else 'the best duplicate, not the network found'}"
    networks = parent.architecture, duplicate.architecture
    which = "the network found." if is_found else "the best duplicate; the network found is another one."
    return Picture(
        figure=report.draw_duplication(*networks, repeats=duplicate.repeats or (), num_classes=classes, title=title),
        caption=f"Figure 2: a network found on {on} before and after gene duplication, seed {search.seed}",
        numbers={"": _layers_csv(dict(zip(("before", "after"), networks, strict=True)))},
        notes=(f"Before: {_describe(parent, classes)}", f"After: {_describe(duplicate, classes)}", f"After is {which}"),
        runs=(search,),
    )


def figure3(study: Study) -> Picture:
    """How the step size of the primary succession changes how fast it gets better.

    The paper compares step sizes, the most mutations a child, of 1, 2, 10 and 100, and of 50, 100 and
    200: the best test accuracy a generation, mean and one standard deviation over five experiments.
    Cost: a primary succession a step size and seed, 18 for three seeds.
    """
    request = study.request
    curves = {
        size: [_best_curve(search, lambda best: best.accuracy) for search in searches]
        for size, searches in study.step_sizes.items()
    }
    rows = [(size, *row) for size, of_seeds in curves.items() for row in _curve_rows(of_seeds, request.seeds)]
    title = f"Primary succession on {request.title}"
    return Picture(
        figure=report.plot_step_sizes(curves, panels=_panels(request.step_sizes), title=title),
        caption=f"Figure 3: step sizes of the primary succession on {request.title}, mean and one standard deviation",
        numbers={"": report.csv_text([("step_size", *_CURVE, "best_validation_accuracy"), *rows])},
        notes=(
            "Primary succession alone, never ended by saturation, without final training.",
            f"Step sizes: {', '.join(map(str, request.step_sizes))}",
            f"Generations of each search: {request.generations}",
            "Accuracies are those of the best so far on validation images.",
        ),
    )


def figure4(study: Study) -> Picture:
    """A search, generation by generation.

    The paper shows the best test accuracy a generation, the parameters of every individual as dots, and where
    the primary succession ends. Here the best is the best by validation, so its test accuracy can fall.
    Cost: the searches of Table 2.
    """
    searches, title = study.eigen, study.request.title
    curves = [_best_curve(search, lambda best: best.test_accuracy) for search in searches]
    columns = ("seed", "generation", "index", "phase", "parameters", "validation_accuracy", "test_accuracy", "fate")
    networks: list[tuple[Any, ...]] = [columns]
    for search in searches:
        for each in search.individuals:
            made = (search.seed, each.generation, each.index, each.phase, each.parameters)
            networks.append((*made, each.accuracy, each.test_accuracy, each.fate.value))
    return Picture(
        figure=report.plot_progress([search.individuals for search in searches], title=f"EIGEN on {title}"),
        caption=f"Figure 4: the search on {title}, generation by generation",
        numbers={
            "": report.csv_text([(*_CURVE, "best_test_accuracy"), *_curve_rows(curves, study.request.seeds)]),
            "-networks": report.csv_text(networks),
        },
        notes=(
            "Test accuracy is that of the individual that is best so far by validation, with the weights of the"
            " search; selection does not see it.",
            "A search that ended before others stays at its last value in the mean.",
            "Dots of one generation stand side by side, a place a seed.",
        ),
    )


def _layers_csv(networks: Mapping[str, Architecture]) -> str:
    """The layers of networks, a line each; inputs are layers' numbers, -1 the image."""
    choices = sorted({name for each in networks.values() for layer in each.layers for name, _ in layer.values})
    rows = []
    for name, architecture in networks.items():
        for number, (layer, shape) in enumerate(zip(architecture.layers, layer_shapes(architecture), strict=True)):
            values = (getattr(layer, choice) for choice in choices)
            rows.append((name, number, layer.op, " ".join(map(str, layer.inputs)), *values, *shape))
    return report.csv_text([("network", "layer", "op", "inputs", *choices, "height", "width", "maps"), *rows])


def _best_curve(search: Search, number: Callable[[Individual], float | None]) -> list[float | None]:
    """Of the best so far, a value a generation."""
    return [None if best is None else number(best) for best in report.best_so_far(search.individuals)]


def _curve_rows(curves: Sequence[Sequence[float | None]], seeds: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Values of each seed a generation, then their mean and standard deviation (n - 1), as `_CURVE` has them."""
    for seed, curve in zip(seeds, curves, strict=True):
        for generation, value in enumerate(curve):
            yield "value", seed, generation, value
    for statistic, values in zip(("mean", "sd"), report.mean_and_deviation(curves), strict=True):
        for generation, value in enumerate(values.tolist()):
            if value == value:  # not NaN: a seed has no value yet, or there is one seed
                yield statistic, None, generation, value


def _panels(sizes: Sequence[int]) -> Sequence[Sequence[int]]:
    """The paper's two panels; one of all sizes where some are in neither, or a panel would compare less than two."""
    is_papers = set(sizes) <= set(itertools.chain(*PANELS))
    compares = all(len(set(panel) & set(sizes)) >= 2 for panel in PANELS)
    return PANELS if is_papers and compares else (tuple(sorted(sizes)),)


def _describe(individual: Individual, classes: int) -> str:
    size = f"{len(individual.architecture.layers)} layers"
    size += f", {count_parameters(individual.architecture, num_classes=classes):,} parameters"
    repeats = f", blocks repeated {describe_repeats(individual)} times" if individual.repeats else ""
    return f"individual {individual.reference}, {size}{repeats}."
