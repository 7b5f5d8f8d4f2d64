"""Plots of what searches did: Figures 3 and 4 of the paper.

A generation's best accuracy never falls, as here it is that of the best so far. A search that ended
before others stays at its last value, so that a mean is over the same seeds at every generation.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eigen_jax.lineage import Individual
from eigen_jax.report.files import ReportError
from eigen_jax.report.style import BLUE, GREEN, GREY, LINE_COLOURS, ORANGE, VERMILION, styled
from eigen_jax.report.summary import best_so_far, summarise_phases
from eigen_jax.report.tables import format_parameters

Curve = Sequence[float | None]  # by generation; None or a number that is not finite stands for no value

PANELS = ((1, 2, 10, 100), (50, 100, 200))  # the step sizes of Figure 3, left and right

# Name and colour; of other phases their own name and grey.
_PHASES = {
    "primary": ("primary succession", ORANGE),
    "secondary": ("secondary succession", GREEN),
    "duplication": ("gene duplication", VERMILION),
}


def mean_and_deviation(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation (n - 1) over seeds, generation by generation; float64, of the longest curve.

    A shorter curve stays at its last value. The mean is NaN where a seed has no value, and the deviation there as
    well, and throughout where there is one seed. Raises ReportError where there is no curve, or an empty one.
    """
    if not curves or not all(len(curve) for curve in curves):
        raise ReportError("there is no curve, or one without generations; give a value a generation for each seed")
    length = max(map(len, curves))
    values = np.array([[*curve, *[curve[-1]] * (length - len(curve))] for curve in curves], float)
    values[~np.isfinite(values)] = np.nan
    deviation = values.std(axis=0, ddof=1) if len(curves) > 1 else np.full(length, np.nan)
    return values.mean(axis=0), deviation


@styled
def plot_step_sizes(
    curves: Mapping[int, Sequence[Curve]], *, panels: Sequence[Sequence[int]] = PANELS, title: str = ""
) -> Figure:
    """Figure 3: how fast searches get better with the number of mutations a child.

    `curves` are, by step size, the best-so-far validation accuracy of each seed, a fraction. Lines are means
    over seeds, bands one standard deviation to either side. `panels` are step sizes, each of one colour in all
    panels. Step sizes without curves are left out, and so is a panel without any; raises ReportError where no
    panel is left, or a list of curves is empty.
    """
    shown = [present for panel in panels if (present := [size for size in panel if size in curves])]
    if not shown:
        sizes = ", ".join(map(str, curves)) or "none"
        raise ReportError(f"no panel shows any of the step sizes that there are ({sizes}); choose other panels")
    colours = dict(zip(dict.fromkeys(itertools.chain(*panels)), itertools.cycle(LINE_COLOURS)))
    lines = {}
    figure = Figure(figsize=(4.2 * len(shown) + 1.2, 3.6), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for ax, panel in zip(axes, shown, strict=True):
        for size in panel:
            seeds = len(curves[size])
            label = f"{size} ({seeds} {'seed' if seeds == 1 else 'seeds'})"
            lines[size] = _plot_mean(ax, curves[size], colour=colours[size], label=label)
    axes[0].set_ylabel("best validation accuracy, %")
    figure.legend(handles=[lines[size] for size in sorted(lines)], title="step size", loc="outside right center")
    if title:
        figure.suptitle(title)
    return figure


@styled
def plot_progress(runs: Sequence[Sequence[Individual]], *, title: str = "") -> Figure:
    """Figure 4: the test accuracy of the best by validation and the size of every network, by generation.

    The best is the individual that is best so far by validation, so its test accuracy can fall; several runs, given
    by their records, have mean and one standard deviation. Dots are individuals, each run's a little beside its
    generation. Vertical lines stand where phases end. Raises ReportError without a run, or a run's individuals.
    """
    if not runs or not all(runs):
        raise ReportError("there is no record, or one without individuals; give the record of each run")
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    # The second axes lie over the first: the dots over the band, which would hide them.
    ax = figure.subplots()
    sizes = ax.twinx()
    _plot_sizes(sizes, runs)
    _plot_boundaries(ax, runs)
    curves = [[best.test_accuracy if best else None for best in best_so_far(run)] for run in runs]
    label = "test accuracy of the best by validation" + (f", mean ± sd, n = {len(runs)}" if len(runs) > 1 else "")
    _plot_mean(ax, curves, colour=BLUE, label=label, marker="o")
    if np.isnan(mean_and_deviation(curves)[0]).all():
        ax.text(0.5, 0.5, "no test accuracy was recorded", transform=ax.transAxes, ha="center", color=GREY)
    ax.set_ylabel("test accuracy, %", color=BLUE)
    ax.grid(False, axis="x")
    handles = [*ax.get_legend_handles_labels()[0], *sizes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, columnspacing=1.2)
    ax.set_title(title)
    return figure


def _plot_mean(ax: Axes, curves: Sequence[Curve], *, colour: str, label: str, marker: str | None = None) -> Line2D:
    """The mean of curves of fractions, in %, and the band of one standard deviation."""
    mean, deviation = (100 * part for part in mean_and_deviation(curves))
    generations = np.arange(len(mean))
    (line,) = ax.plot(generations, mean, color=colour, label=label, marker=marker, markersize=4)
    if len(curves) > 1:
        ax.fill_between(generations, mean - deviation, mean + deviation, color=colour, alpha=0.18, linewidth=0)
    ax.set_xlabel("generation")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return line


def _plot_sizes(ax: Axes, runs: Sequence[Sequence[Individual]]) -> None:
    """The parameters of every individual, coloured by phase, runs side by side."""
    # The dots of a generation take 0.4 of its width.
    offsets = 0.4 * (np.arange(len(runs)) - (len(runs) - 1) / 2) / len(runs)
    placed = [(each.generation + offset, each) for run, offset in zip(runs, offsets, strict=True) for each in run]
    for phase in dict.fromkeys(each.phase for _, each in placed):
        name, colour = _PHASES.get(phase, (phase, GREY))
        places, parameters = zip(*((x, each.parameters) for x, each in placed if each.phase == phase), strict=True)
        ax.scatter(places, parameters, s=13, color=colour, alpha=0.65, linewidths=0, label=f"parameters, {name}")
    ax.set_yscale("log")
    ax.set_ylabel("parameters")
    ax.yaxis.set_major_formatter(lambda value, _: format_parameters(value))
    ax.yaxis.set_minor_formatter("")
    ax.spines["right"].set_visible(True)
    ax.grid(False)


def _plot_boundaries(ax: Axes, runs: Sequence[Sequence[Individual]]) -> None:
    """Lines where phases end: between the last generation of one and the first of the next."""
    phases = [phase for run in runs for phase in summarise_phases(run)[:-1]]
    told: set[str] = set()
    for phase, last in dict.fromkeys((each.phase, each.individuals[-1].generation) for each in phases):
        name, colour = _PHASES.get(phase, (phase, GREY))
        label = None if phase in told else f"{name} ends"
        ax.axvline(last + 0.5, color=colour, linestyle="--", linewidth=1.3, label=label)
        told.add(phase)
