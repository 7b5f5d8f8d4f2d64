"""Plots of what searches did: Figures 3 and 4 of the paper, and what accuracy costs.

A generation's best accuracy never falls, as here it is that of the best so far. A search that ended
before others stays at its last value, so that a mean is over the same seeds at every generation.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from eigen_jax.fitness import OBJECTIVES, Measurement
from eigen_jax.lineage import Individual
from eigen_jax.report.files import ReportError
from eigen_jax.report.style import BLUE, GREEN, GREY, LINE_COLOURS, ORANGE, SKY, VERMILION, styled
from eigen_jax.report.summary import best_so_far, summarise_phases
from eigen_jax.report.tables import format_flops, format_parameters

Curve = Sequence[float | None]  # by generation; None or a number that is not finite stands for no value

PANELS = ((1, 2, 10, 100), (50, 100, 200))  # the step sizes of Figure 3, left and right

# Name and colour; of other phases their own name and grey.
PHASES = {
    "primary": ("primary succession", ORANGE),
    "secondary": ("secondary succession", GREEN),
    "duplication": ("gene duplication", VERMILION),
}

# The axis of a measurement: its label, and how its ticks are written where it is logarithmic.
_AXES: dict[str, tuple[str, Callable[[float], str] | None]] = {
    "accuracy": ("validation accuracy, %", None),
    "loss": ("validation loss, nats", None),
    "parameters": ("parameters", format_parameters),
    "flops": ("FLOPs", format_flops),
    "latency": ("latency of an image, s", "{:g}".format),
    "batch_latency": ("latency of a batch, s", "{:g}".format),
    "memory": ("memory, bytes", format_flops),
}


def mean_and_deviation(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation (n - 1) over seeds, generation by generation; float64, of the longest curve.

    Both are NaN where a seed has no value, and the deviation is where there is one seed. Raises ReportError where there
    is no curve, or an empty one.
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

    `curves` are, by step size, the best-so-far validation accuracy of each seed, a fraction. Lines are means, bands
    one standard deviation to either side. Step sizes without curves are left out, and so are panels without any;
    raises ReportError where none is left, or a list of curves is empty.
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


@styled
def plot_pareto(
    measurements: Sequence[Measurement],
    *,
    objectives: tuple[str, str] = ("accuracy", "parameters"),
    found: Measurement | None = None,
    title: str = "",
) -> Figure:
    """What a search could have: each network at two measurements, up and across, and those that none dominates.

    The line is the best that is there up to each cost. Networks that lack one of the two are left out; raises
    ReportError where that leaves none, and ConfigError for what is no measurement.
    """
    scales = [100.0 if name == "accuracy" else 1.0 for name in objectives]
    signs = np.array([OBJECTIVES.find(name) for name in objectives])
    rows = [[getattr(each, name) for name in objectives] for each in measurements]
    points = np.array([row for row in rows if None not in row], float).reshape(-1, 2) * scales
    if not len(points):
        raise ReportError(f"no network was measured at {' and '.join(objectives)}; choose other measurements")
    front = points[pareto_front(points * signs)]
    front = front[np.argsort(front[:, 1], kind="stable")]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.scatter(points[:, 1], points[:, 0], s=16, color=SKY, linewidths=0, label="networks, trained to the end")
    style = "steps-post" if signs[1] < 0 else "steps-pre"
    ax.plot(front[:, 1], front[:, 0], color=BLUE, drawstyle=style, marker="o", markersize=4, label="Pareto front")
    if found is not None:
        y, x = (getattr(found, name) * scale for name, scale in zip(objectives, scales, strict=True))
        ax.scatter([x], [y], s=110, marker="*", color=VERMILION, zorder=3, label="the network found")
    _scale(ax.yaxis, ax.set_yscale, objectives[0])
    _scale(ax.xaxis, ax.set_xscale, objectives[1])
    figure.legend(loc="outside lower center", ncols=3)
    ax.set_title(title)
    return figure


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Which of the points, [N, M], more is better, none is as good as in all and better than in one; [N] bool.

    Points that are not finite are not on the front.
    """
    finite = np.isfinite(points).all(axis=1)
    points = np.where(finite[:, None], points, -np.inf)
    as_good = (points[:, None] >= points).all(axis=-1)  # [i, j]: i is in all as good as j
    dominates = as_good & ~as_good.T
    return finite & ~dominates.any(axis=0)


def _scale(axis: Axis, set_scale: Callable[[str], None], name: str) -> None:
    label, written = _AXES[name]
    axis.set_label_text(label)
    if written is not None:
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: written(value))
        axis.set_minor_formatter("")


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
        name, colour = PHASES.get(phase, (phase, GREY))
        places, parameters = zip(*((x, each.parameters) for x, each in placed if each.phase == phase), strict=True)
        ax.scatter(places, parameters, s=13, color=colour, alpha=0.65, linewidths=0, label=f"parameters, {name}")
    _scale(ax.yaxis, ax.set_yscale, "parameters")
    ax.spines["right"].set_visible(True)
    ax.grid(False)


def _plot_boundaries(ax: Axes, runs: Sequence[Sequence[Individual]]) -> None:
    """Lines where phases end: between the last generation of one and the first of the next."""
    phases = [phase for run in runs for phase in summarise_phases(run)[:-1]]
    told: set[str] = set()
    for phase, last in dict.fromkeys((each.phase, each.individuals[-1].generation) for each in phases):
        name, colour = PHASES.get(phase, (phase, GREY))
        label = None if phase in told else f"{name} ends"
        ax.axvline(last + 0.5, color=colour, linestyle="--", linewidth=1.3, label=label)
        told.add(phase)
