"""Plots: the lines hold the means and fronts that were computed apart, the dots every individual."""

import xml.etree.ElementTree as ET
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report_data import individual

from eigen_jax.errors import ConfigError
from eigen_jax.fitness import Measurement
from eigen_jax.lineage import Individual
from eigen_jax.report import (
    ReportError,
    mean_and_deviation,
    pareto_front,
    plot_pareto,
    plot_progress,
    plot_step_sizes,
    save_figure,
)

CURVES: dict[int, list[list[float | None]]] = {
    1: [[0.1, 0.2, 0.2], [0.2, 0.4, 0.6]],
    100: [[0.3, 0.5, 0.9], [0.5, 0.5]],
    50: [[0.25, 0.5]],
}


def record(tested: tuple[float, ...], parameters: int) -> list[Individual]:
    """Three generations, the last one fitter only in its second run: best so far by validation 0.5, 0.7, 0.7."""
    found: list[Individual] = []
    for generation, (phase, fitness) in enumerate((("primary", 0.5), ("primary", 0.7), ("secondary", 0.6))):
        best = individual(generation, 0, phase, fitness, test_accuracy=tested[generation], parameters=parameters)
        found += [best, individual(generation, 1, phase, None, parameters=parameters + 1)]
    return found


def line(ax: Axes, start: str) -> np.ndarray:
    (found,) = [each for each in ax.get_lines() if str(each.get_label()).startswith(start)]
    return np.asarray(found.get_ydata(), float)


def band(ax: Axes) -> np.ndarray:
    """[generations, 2], the lower and the upper edge of the first band."""
    vertices = np.asarray(ax.collections[0].get_paths()[0].vertices)
    return np.array([[ys.min(), ys.max()] for x in range(3) if len(ys := vertices[vertices[:, 0] == x, 1])])


def accuracy_axes(figure: Figure) -> Axes:
    (found,) = [ax for ax in figure.axes if ax.get_ylabel().startswith("test accuracy")]
    return found


def test_mean_and_deviation_are_of_each_generation_over_seeds() -> None:
    mean, deviation = mean_and_deviation(CURVES[100])
    np.testing.assert_allclose(mean, [0.4, 0.5, 0.7])
    # Half the squared differences from the mean, twice, over n - 1 = 1: 0.1 * sqrt(2), 0, 0.2 * sqrt(2).
    np.testing.assert_allclose(deviation, [0.1 * 2**0.5, 0, 0.2 * 2**0.5], atol=1e-15)


def test_what_a_seed_lacks_is_a_gap_and_no_curve_is_refused() -> None:
    mean, deviation = mean_and_deviation([[None, 0.5], [float("-inf"), 0.7], [0.2, 0.6]])
    np.testing.assert_allclose(mean, [np.nan, 0.6])
    np.testing.assert_allclose(deviation, [np.nan, 0.1])
    assert np.isnan(mean_and_deviation([[0.5]])[1]).all()
    nothing: tuple[list[list[float | None]], ...] = ([], [[]], [[0.5], []])
    for curves in nothing:
        with pytest.raises(ReportError, match="no curve"):
            mean_and_deviation(curves)


def test_step_sizes_are_means_and_bands_in_two_panels() -> None:
    left, right = plot_step_sizes(CURVES).axes
    assert [len(ax.get_lines()) for ax in (left, right)] == [2, 2]
    np.testing.assert_allclose(line(left, "1 ("), [15, 30, 40])
    np.testing.assert_allclose(line(left, "100 ("), [40, 50, 70])
    np.testing.assert_allclose(line(right, "100 ("), [40, 50, 70])
    np.testing.assert_allclose(line(right, "50 ("), [25, 50])
    mean, spread = np.array([15, 30, 40]), 100 * np.array([0.05, 0.1, 0.2]) * 2**0.5
    np.testing.assert_allclose(band(left), np.stack([mean - spread, mean + spread], -1))
    # One seed has no band.
    assert len(left.collections) == 2
    assert len(right.collections) == 1
    colours = [
        next(each.get_color() for each in ax.get_lines() if "100" in str(each.get_label())) for ax in (left, right)
    ]
    assert colours[0] == colours[1]


def test_step_sizes_without_a_panel_are_refused() -> None:
    with pytest.raises(ReportError, match=r"\(7\)"):
        plot_step_sizes({7: [[0.5]]})
    assert len(plot_step_sizes({1: [[0.5]]}).axes) == 1
    assert len(plot_step_sizes({7: [[0.5]]}, panels=[[7]]).axes) == 1


def test_progress_is_the_test_accuracy_of_the_best_by_validation() -> None:
    ax = accuracy_axes(plot_progress([record((0.4, 0.65, 0.9), 100)]))
    # The third generation is worse by validation, so what it has by test does not count.
    np.testing.assert_allclose(line(ax, "test accuracy of the best by validation"), [40, 65, 65])
    assert not ax.collections


def test_sizes_of_less_than_a_power_of_ten_have_numbers_beside_them() -> None:
    figure = plot_progress([record((0.4, 0.65, 0.9), 2_000)])
    figure.draw_without_rendering()
    (sizes,) = [each for each in figure.axes if each.get_ylabel() == "parameters"]
    (low, high), ticks = sizes.get_ylim(), sizes.yaxis.get_major_ticks()
    assert any(low <= tick.get_loc() <= high and tick.label2.get_text() for tick in ticks)


def test_several_seeds_give_mean_and_band_and_every_dot() -> None:
    runs = [record((0.4, 0.65, 0.9), 100), record((0.5, 0.75, 0.8), 1_000)]
    figure = plot_progress(runs, title="digits")
    ax = accuracy_axes(figure)
    np.testing.assert_allclose(line(ax, "test accuracy of the best by validation, mean ± sd, n = 2"), [45, 70, 70])
    mean, spread = np.array([45, 70, 70]), 100 * np.array([0.05, 0.05, 0.05]) * 2**0.5
    np.testing.assert_allclose(band(ax), np.stack([mean - spread, mean + spread], -1))
    (sizes,) = [each for each in figure.axes if each.get_ylabel() == "parameters"]
    assert sizes.get_yscale() == "log"
    dots = np.concatenate([np.asarray(each.get_offsets()) for each in sizes.collections])
    # A fifth of a generation apart, the middle of the two at the generation itself.
    expected = [
        (each.generation + aside, each.parameters) for run, aside in zip(runs, (-0.1, 0.1), strict=True) for each in run
    ]
    np.testing.assert_allclose(sorted(map(tuple, dots.tolist())), sorted(expected))
    # The dots lie over the band, and the lines across are those of the accuracy.
    assert figure.axes.index(sizes) > figure.axes.index(ax)
    lines = [axis.get_gridlines()[0].get_visible() for axis in (ax.yaxis, ax.xaxis, sizes.yaxis, sizes.xaxis)]
    assert lines == [True, False, False, False]
    # One run's primary succession ends where the other's does: one line, between generations 1 and 2.
    ends = [each for each in ax.get_lines() if str(each.get_label()).endswith("ends")]
    assert [np.asarray(each.get_xdata()).tolist() for each in ends] == [[1.5, 1.5]]


def test_progress_without_test_accuracy_says_so_and_without_record_is_refused() -> None:
    figure = plot_progress([[individual(0, 0, "primary", None)]])
    assert [text.get_text() for text in accuracy_axes(figure).texts] == ["no test accuracy was recorded"]
    nothing: tuple[list[list[Individual]], ...] = ([], [[]])
    for runs in nothing:
        with pytest.raises(ReportError, match="no record"):
            plot_progress(runs)


COORDINATES = st.integers(0, 4).map(float) | st.sampled_from([np.nan, np.inf, -np.inf])


@hypothesis.given(st.integers(1, 3).flatmap(lambda m: st.lists(st.lists(COORDINATES, min_size=m, max_size=m))))
def test_on_the_front_are_those_that_none_dominates(rows: list[list[float]]) -> None:
    """By the definition, point by point; few values, so that many are equal."""
    finite = [row for row in rows if np.isfinite(row).all()]

    def is_dominated(row: list[float]) -> bool:
        return any(all(a >= b for a, b in zip(other, row, strict=True)) and other != row for other in finite)

    front = pareto_front(np.array(rows, float).reshape(len(rows), len(rows[0]) if rows else 2))
    assert front.tolist() == [row in finite and not is_dominated(row) for row in rows]


def size(accuracy: float, parameters: int, **rest: float) -> Measurement:
    return Measurement(accuracy=accuracy, parameters=parameters, flops=10 * parameters, **rest)  # type: ignore[arg-type]


SIZES = [size(0.9, 900), size(0.5, 100), size(0.4, 300), size(0.7, 300), size(0.9, 901)]


def test_the_front_is_the_best_up_to_each_cost() -> None:
    (ax,) = plot_pareto(SIZES, found=SIZES[0], title="digits").axes
    (front,) = ax.get_lines()
    assert np.asarray(front.get_xydata()).tolist() == [[100, 50], [300, 70], [900, 90]]
    assert front.get_drawstyle() == "steps-post"
    dots, star = (np.asarray(each.get_offsets()).tolist() for each in ax.collections)
    assert dots == [[each.parameters, 100 * each.accuracy] for each in SIZES]
    assert star == [[900, 90]]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("parameters", "validation accuracy, %", "digits")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")


def test_any_two_measurements_have_a_front_of_those_that_have_both() -> None:
    some = [*SIZES, size(0.5, 1, latency=0.25), size(0.75, 1, latency=0.5), size(0.6, 1, latency=1.0)]
    (ax,) = plot_pareto(some, objectives=("latency", "accuracy")).axes
    (front,), (dots,) = ax.get_lines(), ax.collections
    assert np.asarray(front.get_xydata()).tolist() == [[50, 0.25], [75, 0.5]]
    assert front.get_drawstyle() == "steps-pre"
    assert len(np.asarray(dots.get_offsets())) == 3
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    with pytest.raises(ReportError, match=r"^no network was measured at accuracy and memory; choose others?"):
        plot_pareto(some, objectives=("accuracy", "memory"))
    with pytest.raises(ReportError, match="no network"):
        plot_pareto([])
    with pytest.raises(ConfigError, match="there is no measurement 'size'"):
        plot_pareto(some, objectives=("accuracy", "size"))


def test_plots_are_saved_and_leave_matplotlibs_settings_alone(tmp_path: Path) -> None:
    before = dict(rcParams)
    _, svg = save_figure(plot_progress([record((0.4, 0.65, 0.9), 100)], title="digits, seed 0"), tmp_path / "progress")
    assert dict(rcParams) == before
    texts = {element.text for element in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"generation", "parameters", "digits, seed 0", "primary succession ends"} <= texts
