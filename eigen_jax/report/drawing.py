"""Drawings of networks: Figures 1 and 2 of the paper."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Outline

from eigen_jax.architecture import Architecture, count_flops, count_parameters
from eigen_jax.layer_kinds import KINDS, Look
from eigen_jax.report.files import ReportError
from eigen_jax.report.layout import BOX_HEIGHT, BOX_WIDTH, Group, block_groups, copy_groups, place
from eigen_jax.report.routing import Geometry, Point, Wire
from eigen_jax.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, styled
from eigen_jax.report.tables import format_flops, format_parameters

_PANELS = ("#F0F0F0", "#FDF0E1", "#E9F3E4", "#F3E9F3", "#E4EEF7", "#FBF7D8")  # by halvings of the image, over and over
_SKIPS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)
CHAIN = "#4A4A4A"
_PAD = 0.08  # of a panel, to the left and right of its boxes
_CORNER = 0.06  # radius of a wire's bends
_HEAD, _FOOT = 0.5, 0.4  # heights of the title over a drawing, and of the legend under all
_TITLE = 0.34  # height of a title over several drawings
_EDGE = 0.12  # from the figure's edge to text
_HEAD_ADVANCE, _TITLE_ADVANCE, _TEXT_ADVANCE = 0.11, 0.095, 0.07  # of a character, at most on the average


class _Drawing:
    """One network, laid out, and what is written over it; `prefix` begins the names of its artists."""

    def __init__(
        self, architecture: Architecture, groups: Sequence[Group], *, num_classes: int, title: str, prefix: str = ""
    ):
        self.geometry = Geometry(place(architecture, groups, num_classes=num_classes))
        self.title, self.prefix = title, prefix
        layers = len(architecture.layers)
        parameters = format_parameters(count_parameters(architecture, num_classes=num_classes))
        flops = format_flops(count_flops(architecture, num_classes=num_classes))
        self.size = f"{layers} {'layer' if layers == 1 else 'layers'}, {parameters} parameters, {flops} FLOPs an image"


@styled
def draw_architecture(architecture: Architecture, *, num_classes: int, title: str = "") -> Figure:
    """Draws the layers of a network and all edges between them (Figure 1); `save_figure` saves it.

    The picture grows with the network and its text does not shrink. A panel lies behind each block, the layers of one
    H x W. Skip connections have colours, one a source; a dot marks where a wire branches. The title is one line.
    """
    return _draw_stacked([_Drawing(architecture, block_groups(architecture), num_classes=num_classes, title=title)])


@styled
def draw_duplication(
    before: Architecture, after: Architecture, *, num_classes: int, repeats: Sequence[int] = (), title: str = ""
) -> Figure:
    """Draws a network over the one that gene duplication made of it (Figure 2); `title` is one line over both.

    With `repeats` (how often each block stands in a row, by halvings of the image from none on; what is beyond its end
    stands once), each copy has a panel of its own. Raises ReportError where the networks take different images, or a
    block stands less than once.
    """
    if before.input_shape != after.input_shape:
        shapes = f"{before.input_shape} and {after.input_shape}"
        raise ReportError(f"the networks take images of {shapes}; give a network and its duplicate")
    if any(times < 1 for times in repeats):
        raise ReportError(f"repeats is {tuple(repeats)}; each block stands at least once")
    copies = copy_groups(before, after, repeats)
    upper = _Drawing(before, block_groups(before), num_classes=num_classes, title="Before", prefix="before-")
    lower = _Drawing(after, copies, num_classes=num_classes, title="After", prefix="after-")
    return _draw_stacked([upper, lower], title=title)


def _draw_stacked(drawings: Sequence[_Drawing], *, title: str = "") -> Figure:
    """The title over all, one drawing under another, all to one scale, and the legend under all."""
    entries: dict[str, Look | None] = _legend(drawings)
    if any(wire.skips for drawing in drawings for wire in drawing.geometry.wires):
        entries["skip connection"] = None
    foot = _FOOT if entries else _EDGE
    widths = [_TITLE_ADVANCE * len(title), sum(map(_legend_width, entries))]
    for each in drawings:
        widths += [each.geometry.width, _HEAD_ADVANCE * len(each.title), _TEXT_ADVANCE * len(each.size)]
    top = _TITLE if title else 0.0
    height = top + foot + sum(_HEAD + drawing.geometry.height for drawing in drawings)
    figure = Figure(figsize=(max(widths) + _EDGE, height))
    if title:
        _add_axes(figure, top=0.0, height=top).text(_EDGE, top - 0.04, title, fontsize=11, va="bottom")
    for drawing in drawings:
        top += _HEAD
        ax = _add_axes(figure, top=top, height=drawing.geometry.height)
        ax.text(_EDGE, -0.24, drawing.title, fontsize=11, fontweight="bold", va="bottom")
        ax.text(_EDGE, -0.04, drawing.size, fontsize=8.5, color=GREY, va="bottom")
        _draw_panels(ax, drawing)
        _draw_wires(ax, drawing)
        _draw_boxes(ax, drawing)
        top += drawing.geometry.height
    _draw_legend(_add_axes(figure, top=top, height=foot), entries)
    return figure


def _legend(drawings: Sequence[_Drawing]) -> dict[str, Look | None]:
    """What stands for boxes in the legend, in the order of the table of kinds."""
    kinds, boxes = list(KINDS), [box for drawing in drawings for box in drawing.geometry.grid.boxes.values()]
    looks = {(kinds.index(box.kind), box.look.legend): box.look for box in boxes if box.look.legend}
    return {legend: looks[place, legend] for place, legend in sorted(looks)}


def _add_axes(figure: Figure, *, top: float, height: float) -> Axes:
    """Axes over the figure's whole width, in inches from their top left corner."""
    figure_width, figure_height = figure.get_size_inches()
    ax = figure.add_axes((0.0, 1 - (top + height) / figure_height, 1.0, height / figure_height))
    ax.set(xlim=(0, figure_width), ylim=(height, 0))
    ax.set_axis_off()
    return ax


class Panel(NamedTuple):
    """What lies behind the boxes of a group in one line, in inches from the top left corner."""

    group: int
    part: int  # from 0, of the lines that the group has columns in
    left: float
    top: float
    right: float
    bottom: float
    colour: str
    label: str


def panels_of(geometry: Geometry) -> Iterator[Panel]:
    """A panel behind each group, in each line that the group has columns in; the label in the first says whose."""
    lefts: dict[tuple[int, int], list[float]] = defaultdict(list)
    for node, box in geometry.grid.boxes.items():
        if box.group is not None:
            lefts[box.group, box.line].append(geometry.corners[node][0])
    first_lines: dict[int, int] = {}
    for (number, line), own in sorted(lefts.items()):
        group, part = geometry.grid.groups[number], line - first_lines.setdefault(number, line)
        top, bottom = geometry.panels[line]
        label, colour = f"{group.label} …" if part else group.label, _PANELS[group.block % len(_PANELS)]
        yield Panel(number, part, min(own) - _PAD, top, max(own) + BOX_WIDTH + _PAD, bottom, colour, label)


def _draw_panels(ax: Axes, drawing: _Drawing) -> None:
    for number, part, left, top, right, bottom, colour, label in panels_of(drawing.geometry):
        panel = FancyBboxPatch((left, top), right - left, bottom - top, boxstyle="round,pad=0,rounding_size=0.08")
        panel.set(facecolor=colour, edgecolor="#C9C9C9", linewidth=0.6, zorder=0)
        panel.set_gid(f"{drawing.prefix}panel-{number}-{part}")
        ax.add_patch(panel)
        ax.text(left + _PAD, top + 0.04, label, fontsize=7.5, color="#444444", va="top", linespacing=1.1, zorder=5)


def _draw_boxes(ax: Axes, drawing: _Drawing) -> None:
    for node, box in drawing.geometry.grid.boxes.items():
        x, y = drawing.geometry.corners[node]
        name = box.kind if box.group is None else f"layer-{node}"
        _draw_box(ax, x, y, BOX_WIDTH, BOX_HEIGHT, box.look, gid=f"{drawing.prefix}{name}")
        first, _, second = box.look.label.partition("\n")
        centred: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 5}
        x, y = x + BOX_WIDTH / 2, y + BOX_HEIGHT / 2
        ax.text(x, y - (0.075 if second else 0.0), first, fontsize=8, **centred)
        ax.text(x, y + 0.085, second, fontsize=7, color="#333333", **centred)


def _draw_box(ax: Axes, x: float, y: float, width: float, height: float, look: Look, *, gid: str | None = None) -> None:
    box = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.05")
    box.set(facecolor=look.face, edgecolor=look.edge, linewidth=1, zorder=4, gid=gid)
    ax.add_patch(box)


def _draw_wires(ax: Axes, drawing: _Drawing) -> None:
    """Every edge; those of one source and colour run over one another."""
    wires = drawing.geometry.wires
    colours = skip_colours(wires)
    for number, wire in enumerate(wires):
        arrow = FancyArrowPatch(path=_rounded(wire.points), arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0)
        arrow.set(linewidth=1.1, capstyle="butt", joinstyle="round", gid=f"{drawing.prefix}edge-{number}")
        arrow.set(color=colours[wire.source] if wire.skips else CHAIN, zorder=2.0 if wire.skips else 1.0)
        ax.add_patch(arrow)
    for (x, y), wire in junctions(wires).items():
        ax.plot(x, y, marker="o", markersize=3.2, color=colours[wire.source] if wire.skips else CHAIN, zorder=3)


def skip_colours(wires: Sequence[Wire]) -> dict[int, str]:
    """The colour of the skipping wires of each source: in turn along the network."""
    return dict(zip(sorted({wire.source for wire in wires if wire.skips}), itertools.cycle(_SKIPS)))


def junctions(wires: Sequence[Wire]) -> dict[Point, Wire]:
    """Where wires of one source part, each with a wire that bends there: three ways lead from such a point."""
    found = {}
    for source in dict.fromkeys(wire.source for wire in wires):
        own = [wire for wire in wires if wire.source == source]
        pieces = {piece for wire in own for piece in itertools.pairwise(wire.points)}
        bends = {point: wire for wire in own for point in wire.points[1:-1]}
        for point, wire in bends.items():
            if len({way for piece in pieces for way in _ways(point, *piece)}) > 2:
                found[point] = wire
    return found


def _ways(point: Point, start: Point, end: Point) -> set[tuple[float, ...]]:
    """The directions, as signs of x and y, in which a horizontal or vertical piece leads away from a point on it."""
    is_on = all(min(ends) <= place <= max(ends) for place, *ends in zip(point, start, end, strict=True))
    return {tuple(np.sign(np.subtract(to, point))) for to in (start, end) if is_on and to != point}


def _rounded(points: Sequence[Point]) -> Outline:
    """A line of horizontal and vertical pieces with rounded bends."""
    vertices, codes = [points[0]], [Outline.MOVETO]
    for before, bend, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_towards(bend, before), bend, _towards(bend, after)]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    return Outline([*vertices, points[-1]], [*codes, Outline.LINETO])


def _towards(start: Point, end: Point) -> Point:
    """The point a bend's radius from one point on the way to another, at most half of the way."""
    distance = abs(end[0] - start[0]) + abs(end[1] - start[1])
    part = min(_CORNER, distance / 2) / distance
    return start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])


def _draw_legend(ax: Axes, entries: Mapping[str, Look | None]) -> None:
    """A sample and its label for each look of boxes, and for wires, which have none."""
    x, y = _EDGE, 0.13
    for label, look in entries.items():
        if look is None:
            ax.plot([x, x + 0.2], [y + 0.07] * 2, color=_SKIPS[0], linewidth=1.1)
        else:
            _draw_box(ax, x, y, 0.2, 0.14, look)
        ax.text(x + 0.26, y + 0.07, label, fontsize=8, va="center")
        x += _legend_width(label)


def _legend_width(label: str) -> float:
    return 0.44 + _TEXT_ADVANCE * len(label)
