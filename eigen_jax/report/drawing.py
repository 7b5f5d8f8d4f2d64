"""Drawings of networks: Figures 1 and 2 of the paper."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Outline

from eigen_jax.architecture import Architecture, count_flops, count_parameters
from eigen_jax.report.files import ReportError
from eigen_jax.report.layout import BOX_HEIGHT, BOX_WIDTH, LANE_PITCH, Grid, Group, block_groups, copy_groups, place
from eigen_jax.report.routing import PANEL_BOTTOM, PANEL_TOP, Geometry, Point, Wire, route
from eigen_jax.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, styled
from eigen_jax.report.tables import format_flops, format_parameters

# Kind of box to the colours of its face and its edge.
_BOXES = {
    "image": ("#FFFFFF", GREY),
    "conv": ("#D6E8F5", BLUE),
    "strided conv": ("#8FC3E6", BLUE),
    "pool": ("#FBDDA0", "#B37A00"),
    "concat": ("#BFE6D8", GREEN),
    "pooling": ("#FFFFFF", GREY),
    "classifier": ("#FFFFFF", GREY),
}
_LEGEND = {
    "conv": "convolution",
    "strided conv": "convolution, stride 2",
    "pool": "max pooling",
    "concat": "concatenation",
}

# By halvings of the image; past the last it begins anew.
_PANELS = ("#F0F0F0", "#FDF0E1", "#E9F3E4", "#F3E9F3", "#E4EEF7", "#FBF7D8")
_SKIPS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)
_CHAIN = "#4A4A4A"

_PAD = 0.08  # of a panel, to the left and right of its boxes
_CORNER = 0.06  # radius of a wire's bends
_HEAD, _FOOT = 0.5, 0.4  # heights of the title over a drawing, and of the legend under all
_TITLE = 0.34  # height of a title over several drawings
_EDGE = 0.12  # from the figure's edge to text
_HEAD_ADVANCE, _TITLE_ADVANCE, _TEXT_ADVANCE = 0.11, 0.095, 0.07  # of a character, at most on the average
_COPY_PANEL_TOP = 0.36  # room for a second line of label


@styled
def draw_architecture(architecture: Architecture, *, num_classes: int, title: str | None = None) -> Figure:
    """Draws the layers of a network and all edges between them (Figure 1).

    Columns of layers run from left to right and wrap into lines, so the picture grows with the
    network and its text does not shrink. A panel lies behind each block, the layers of one H x W.
    Skip connections have colours, one a source; a dot marks where a wire branches, and wires that
    cross without one do not meet. `save_figure` saves it.

    Args:
        architecture: the network, without layers too.
        num_classes: what the classifier tells apart.
        title: one line; without it, the picture tells the network's size alone.
    """
    grid = place(architecture, block_groups(architecture), num_classes=num_classes)
    drawing = grid, route(grid)
    return _draw_stacked([(drawing, _headline(title, architecture, num_classes))], names=("",))


@styled
def draw_duplication(
    before: Architecture,
    after: Architecture,
    *,
    num_classes: int,
    repeats: Sequence[int] | None = None,
    title: str | None = None,
) -> Figure:
    """Draws a network over the one that gene duplication made of it (Figure 2).

    The panels of a block and of its copies have one colour in both.

    Args:
        before: the network whose blocks were repeated.
        after: the network that came of it.
        num_classes: what the classifiers tell apart.
        repeats: how often each block stands in a row, by halvings of the image from none on; what is
            beyond its end stands once. With it, each copy has a panel of its own.
        title: one line over both.

    Raises:
        ReportError: the networks take different images, or a block stands less than once.
    """
    if before.input_shape != after.input_shape:
        raise ReportError(
            f"the networks take images of {before.input_shape} and {after.input_shape}"
            "; give a network and its duplicate"
        )
    if repeats is not None and any(times < 1 for times in repeats):
        raise ReportError(f"repeats is {tuple(repeats)}; each block stands at least once")
    drawings = []
    groups = block_groups(after) if repeats is None else copy_groups(before, after, repeats)
    for name, architecture, panels in (("Before", before, block_groups(before)), ("After", after, groups)):
        grid = place(architecture, panels, num_classes=num_classes)
        copies = any("\n" in group.label for group in panels)
        drawings.append(
            (
                (grid, route(grid, panel_top=_COPY_PANEL_TOP if copies else PANEL_TOP)),
                _headline(name, architecture, num_classes),
            )
        )
    return _draw_stacked(drawings, names=("before-", "after-"), title=title or "")


def _draw_stacked(
    drawings: Sequence[tuple[tuple[Grid, Geometry], tuple[str, str]]], names: Sequence[str], *, title: str = ""
) -> Figure:
    """The title over all, one drawing under another, all to one scale, and the legend under all."""
    kinds = {box.kind for (grid, _), _ in drawings for box in grid.boxes.values()}
    entries: list[tuple[str | None, str]] = [(kind, label) for kind, label in _LEGEND.items() if kind in kinds]
    if any(wire.skips for (_, geometry), _ in drawings for wire in geometry.wires):
        entries.append((None, "skip connection"))
    foot = _FOOT if entries else _EDGE
    texts = [max(_HEAD_ADVANCE * len(head), _TEXT_ADVANCE * len(size)) for _, (head, size) in drawings]
    texts.append(_TITLE_ADVANCE * len(title))
    legend = sum(_legend_width(label) for _, label in entries)
    width = max(*(geometry.width for (_, geometry), _ in drawings), *texts, legend) + _EDGE
    top = _TITLE if title else 0.0
    height = top + foot + sum(_HEAD + geometry.height for (_, geometry), _ in drawings)
    figure = Figure(figsize=(width, height))
    if title:
        _add_axes(figure, top=0.0, height=top).text(_EDGE, top - 0.04, title, fontsize=11, va="bottom")
    for ((grid, geometry), headline), name in zip(drawings, names, strict=True):
        top += _HEAD
        ax = _add_axes(figure, top=top, height=geometry.height)
        _draw_headline(ax, *headline)
        for number, group in enumerate(grid.groups):
            _draw_panels(ax, grid, geometry, number, group, name)
        _draw_wires(ax, geometry, name)
        _draw_boxes(ax, grid, geometry, name)
        top += geometry.height
    _draw_legend(_add_axes(figure, top=top, height=foot), entries)
    return figure


def _add_axes(figure: Figure, *, top: float, height: float) -> Axes:
    """Axes over the figure's whole width, in inches from their top left corner."""
    figure_width, figure_height = figure.get_size_inches()
    ax = figure.add_axes((0.0, 1 - (top + height) / figure_height, 1.0, height / figure_height))
    ax.set(xlim=(0, figure_width), ylim=(height, 0))
    ax.set_axis_off()
    return ax


def _headline(title: str | None, architecture: Architecture, num_classes: int) -> tuple[str, str]:
    layers = len(architecture.layers)
    parameters = format_parameters(count_parameters(architecture, num_classes=num_classes))
    flops = format_flops(count_flops(architecture, num_classes=num_classes))
    size = f"{layers} {'layer' if layers == 1 else 'layers'}, {parameters} parameters, {flops} FLOPs an image"
    return title or "", size


def _draw_headline(ax: Axes, title: str, size: str) -> None:
    if title:
        ax.text(_EDGE, -0.24, title, fontsize=11, fontweight="bold", va="bottom")
    ax.text(_EDGE, -0.04, size, fontsize=8.5, color=GREY, va="bottom")


def _draw_panels(ax: Axes, grid: Grid, geometry: Geometry, number: int, group: Group, name: str) -> None:
    """The panel behind a group, in each line that the group has columns in; the label in the first says whose."""
    for part, (line, (first, last)) in enumerate(grid.columns_of(number).items()):
        places = {box.place: geometry.corners[node][0] for node, box in grid.boxes.items() if box.line == line}
        left, right = places[first] - _PAD, places[last] + BOX_WIDTH + _PAD
        lanes = grid.lanes[line]
        top = geometry.line_tops[line] - geometry.panel_top
        bottom = geometry.line_tops[line] + BOX_HEIGHT + (lanes - 1) * LANE_PITCH + PANEL_BOTTOM
        panel = FancyBboxPatch(
            (left, top),
            right - left,
            bottom - top,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=_PANELS[group.block % len(_PANELS)],
            edgecolor="#C9C9C9",
            linewidth=0.6,
            zorder=0,
            gid=f"{name}panel-{number}-{part}",
        )
        ax.add_patch(panel)
        label = group.label if part == 0 else f"{group.label} …"
        ax.text(left + _PAD, top + 0.04, label, fontsize=7.5, color="#444444", va="top", linespacing=1.1, zorder=5)


def _draw_boxes(ax: Axes, grid: Grid, geometry: Geometry, name: str) -> None:
    for node, box in grid.boxes.items():
        x, y = geometry.corners[node]
        face, edge = _BOXES[box.kind]
        gid = f"{name}layer-{node}" if box.group is not None else f"{name}{box.kind}"
        _draw_box(ax, x, y, BOX_WIDTH, BOX_HEIGHT, face, edge, gid=gid)
        first, _, second = box.label.partition("\n")
        middle = y + BOX_HEIGHT / 2
        offset = 0.075 if second else 0.0
        ax.text(x + BOX_WIDTH / 2, middle - offset, first, fontsize=8, ha="center", va="center", zorder=5)
        if second:
            ax.text(
                x + BOX_WIDTH / 2,
                middle + 0.085,
                second,
                fontsize=7,
                ha="center",
                va="center",
                color="#333333",
                zorder=5,
            )


def _draw_box(
    ax: Axes, x: float, y: float, width: float, height: float, face: str, edge: str, gid: str | None = None
) -> None:
    style = "round,pad=0,rounding_size=0.05"
    ax.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle=style, facecolor=face, edgecolor=edge, linewidth=1, zorder=4, gid=gid
        )
    )


def _draw_wires(ax: Axes, geometry: Geometry, name: str) -> None:
    """Every edge; those of one source and colour run over one another, a casing keeps others apart."""
    colours = _skip_colours(geometry.wires)
    for number, wire in enumerate(geometry.wires):
        outline = _rounded(wire.points)
        colour = colours[wire.source] if wire.skips else _CHAIN
        zorder = 2.0 if wire.skips else 1.0
        arrow = FancyArrowPatch(
            path=outline,
            arrowstyle="-|>",
            mutation_scale=6,
            color=colour,
            linewidth=1.1,
            shrinkA=0,
            shrinkB=0,
            capstyle="butt",
            joinstyle="round",
            zorder=zorder,
            gid=f"{name}edge-{number}",
        )
        ax.add_patch(arrow)
    for (x, y), wire in _junctions(geometry.wires).items():
        colour = colours[wire.source] if wire.skips else _CHAIN
        ax.plot(x, y, marker="o", markersize=3.2, color=colour, zorder=3)


def _skip_colours(wires: Sequence[Wire]) -> dict[int, str]:
    """The colour of each source that skips, in turn along the network."""
    sources = dict.fromkeys(wire.source for wire in wires if wire.skips)
    return dict(zip(sorted(sources), itertools.cycle(_SKIPS)))


def _junctions(wires: Sequence[Wire]) -> dict[Point, Wire]:
    """Where wires of one source part, each with a wire that bends there: three ways lead from such a point."""
    by_source: dict[int, list[Wire]] = defaultdict(list)
    for wire in wires:
        by_source[wire.source].append(wire)
    found = {}
    for own in by_source.values():
        pieces = {piece for wire in own for piece in itertools.pairwise(wire.points)}
        bends = {point: wire for wire in own for point in wire.points[1:-1]}
        for point, wire in bends.items():
            if len({way for piece in pieces for way in _ways(point, *piece)}) > 2:
                found[point] = wire
    return found


def _ways(point: Point, start: Point, end: Point) -> list[tuple[int, int]]:
    """The directions, as signs of x and y, in which a horizontal or vertical piece leads away from a point on it."""
    along = 0 if start[1] == end[1] else 1
    if point[1 - along] != start[1 - along]:
        return []
    low, high = sorted((start[along], end[along]))
    signs = [sign for sign, leads in ((-1, low < point[along] <= high), (1, low <= point[along] < high)) if leads]
    return [(sign, 0) if along == 0 else (0, sign) for sign in signs]


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


def _draw_legend(ax: Axes, entries: Sequence[tuple[str | None, str]]) -> None:
    """A sample and its label for each kind of box; None is the wire that skips."""
    x, y = _EDGE, 0.13
    for kind, label in entries:
        if kind is None:
            ax.plot([x, x + 0.2], [y + 0.07] * 2, color=_SKIPS[0], linewidth=1.1)
        else:
            _draw_box(ax, x, y, 0.2, 0.14, *_BOXES[kind])
        ax.text(x + 0.26, y + 0.07, label, fontsize=8, va="center")
        x += _legend_width(label)


def _legend_width(label: str) -> float:
    return 0.44 + _TEXT_ADVANCE * len(label)
