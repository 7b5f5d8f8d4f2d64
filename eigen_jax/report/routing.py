"""How the edges of a drawing run: between the boxes, as the wires of a circuit.

A *gap* lies between two columns, and a *channel* over each line of columns. An edge to the next
column of its line runs in the gap between them. Every other edge goes into the gap behind its
source, along a channel, and back into the gap before its target; one that passes over whole lines
takes the margin at their left. Tracks keep wires apart: edges from one source share theirs, and
those of two sources never lie on one another. No wire has to cross a box.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from eigen_jax.report.layout import BOX_HEIGHT, BOX_WIDTH, LANE_PITCH, Grid

TRACK_PITCH = 0.075
GAP_LEFT, GAP_RIGHT = 0.13, 0.2  # of a gap, before its first track and after its last: room for an arrowhead
PANEL_TOP, PANEL_BOTTOM = 0.24, 0.12  # of a panel, over and under its boxes
CHANNEL_PAD = 0.1  # of a channel, over and under its tracks
_FIRST_PORT, _PORT_PITCH = 0.1, 0.065  # where wires enter a box, from the middle of its side

Point = tuple[float, float]
Net = tuple[int, bool]  # the source, and whether the edges skip columns: one colour, one trunk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wire:
    """One edge."""

    source: int  # nodes, as in `Box`
    target: int
    skips: bool  # does not lead to the next column
    points: tuple[Point, ...]  # horizontal and vertical pieces, from the source's right to the target's left


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where everything lies, in inches from the top left corner."""

    width: float
    height: float
    corners: Mapping[int, Point]  # node to the top left corner of its box
    wires: tuple[Wire, ...]
    line_tops: tuple[float, ...]  # y of the boxes in each line's first lane
    panel_top: float  # room over them, within their panels


@dataclasses.dataclass
class _Tracks:
    """Intervals asked for on lines that run side by side, and the track that each got."""

    asked: dict[Hashable, dict[Net, tuple[int, int]]] = dataclasses.field(default_factory=lambda: defaultdict(dict))
    given: dict[tuple[Hashable, Net], int] = dataclasses.field(default_factory=dict)
    counts: dict[Hashable, int] = dataclasses.field(default_factory=lambda: defaultdict(int))

    def ask(self, where: Hashable, net: Net, *places: int) -> None:
        """Widens what a net covers here by these places."""
        first, last = self.asked[where].get(net, (places[0], places[0]))
        self.asked[where][net] = min(first, *places), max(last, *places)

    def assign(self) -> None:
        """Gives every interval the first track that is free along it, the shortest first, so that arcs nest."""
        for where, nets in self.asked.items():
            taken: list[list[tuple[int, int]]] = []
            for net, (first, last) in sorted(nets.items(), key=lambda item: (item[1][1] - item[1][0], item[0])):
                free = (
                    track
                    for track, intervals in enumerate(taken)
                    if all(last < other_first or other_last < first for other_first, other_last in intervals)
                )
                track = next(free, len(taken))
                if track == len(taken):
                    taken.append([])
                taken[track].append((first, last))
                self.given[where, net] = track
            self.counts[where] = len(taken)


def route(grid: Grid, *, panel_top: float = PANEL_TOP) -> Geometry:
    """Places the boxes of a grid and the wires between them.

    Args:
        grid: the boxes.
        panel_top: the room over the boxes of a line for the labels of panels.
    """
    return _Router(grid, panel_top).route()


class _Router:
    """The steps of `route`: who runs where, on which track, and so how wide gaps and channels are."""

    def __init__(self, grid: Grid, panel_top: float):
        self.grid, self.panel_top = grid, panel_top
        self.gaps, self.channels, self.margin = _Tracks(), _Tracks(), _Tracks()
        self.ports = _ports(grid)
        # From the top, channels and lanes counted: that of each line's channel; its lanes follow.
        self.levels = list(itertools.accumulate((1 + lanes for lanes in grid.lanes), initial=0))

    def route(self) -> Geometry:
        for (source, target), port in zip(self.grid.edges, self.ports, strict=True):
            if port:
                self._ask(source, target)
        for tracks in (self.gaps, self.channels, self.margin):
            tracks.assign()
        self._measure()
        wires = tuple(
            Wire(source=source, target=target, skips=self._net(source, target)[1], points=self._points(number))
            for number, (source, target) in enumerate(self.grid.edges)
        )
        corners = {
            node: (self._left(box.place), self._top(box.line, box.lane)) for node, box in self.grid.boxes.items()
        }
        return Geometry(
            width=self.width,
            height=self.height,
            corners=corners,
            wires=wires,
            line_tops=tuple(self.line_tops),
            panel_top=self.panel_top,
        )

    def _net(self, source: int, target: int) -> Net:
        return source, self.grid.boxes[target].column != self.grid.boxes[source].column + 1

    def _is_within_gap(self, source: int, target: int) -> bool:
        before, after = self.grid.boxes[source], self.grid.boxes[target]
        return before.line == after.line and after.column == before.column + 1

    def _ask(self, source: int, target: int) -> None:
        """Asks for the tracks that an edge needs.

        Gap n lies before place n of every line. Its tracks are those of all lines, since wires from
        the line over a channel and from the line under it meet there.
        """
        before, after, net = self.grid.boxes[source], self.grid.boxes[target], self._net(source, target)
        gap, target_gap = before.place + 1, after.place
        start, end = self.levels[before.line] + 1 + before.lane, self.levels[after.line] + 1 + after.lane
        if self._is_within_gap(source, target):
            self.gaps.ask(gap, net, start, end)
            return
        same_line = before.line == after.line
        channel = before.line if same_line else before.line + 1
        self.gaps.ask(gap, net, start, self.levels[channel])
        self.gaps.ask(target_gap, net, end, self.levels[after.line])
        if channel == after.line:
            self.channels.ask(channel, net, before.place + 1, after.place)
            return
        self.channels.ask(channel, net, before.place + 1, -1)
        self.channels.ask(after.line, net, after.place, -1)
        self.margin.ask(0, net, channel, after.line)

    def _measure(self) -> None:
        """Where columns and lines start, now that the tracks of gaps and channels are counted."""
        tracks = [self.gaps.counts[place] for place in range(self.grid.columns + 1)]
        widths = [GAP_LEFT + max(count - 1, 0) * TRACK_PITCH + GAP_RIGHT for count in tracks]
        self.margin_width = CHANNEL_PAD + self.margin.counts[0] * TRACK_PITCH
        self.gap_starts = []
        x = self.margin_width
        for width in widths:
            self.gap_starts.append(x)
            x += width + BOX_WIDTH
        self.gap_widths = widths
        self.width = x - BOX_WIDTH + CHANNEL_PAD
        self.line_tops, self.channel_bottoms = [], []
        y = 0.0
        for line, lanes in enumerate(self.grid.lanes):
            y += 2 * CHANNEL_PAD + self.channels.counts[line] * TRACK_PITCH
            self.channel_bottoms.append(y - CHANNEL_PAD)
            y += self.panel_top
            self.line_tops.append(y)
            y += BOX_HEIGHT + (lanes - 1) * LANE_PITCH + PANEL_BOTTOM
        self.height = y + CHANNEL_PAD

    def _points(self, number: int) -> tuple[Point, ...]:
        """The course of an edge, without pieces of no length."""
        source, target = self.grid.edges[number]
        before, after, net = self.grid.boxes[source], self.grid.boxes[target], self._net(source, target)
        start = self._left(before.place) + BOX_WIDTH, self._top(before.line, before.lane) + BOX_HEIGHT / 2
        end = self._left(after.place), self._top(after.line, after.lane) + BOX_HEIGHT / 2 + self.ports[number]
        if not self.ports[number]:
            return start, end
        x = self._gap_x(before.place + 1, net)
        if self._is_within_gap(source, target):
            return _tidy([start, (x, start[1]), (x, end[1]), end])
        end_x = self._gap_x(after.place, net)
        channel = before.line if before.line == after.line else before.line + 1
        y, end_y = self._channel_y(channel, net), self._channel_y(after.line, net)
        middle: list[Point] = []
        if channel != after.line:
            margin_x = self.margin_width - (1 + self.margin.given[0, net]) * TRACK_PITCH
            middle = [(margin_x, y), (margin_x, end_y)]
        return _tidy([start, (x, start[1]), (x, y), *middle, (end_x, end_y), (end_x, end[1]), end])

    def _left(self, place: int) -> float:
        return self.gap_starts[place] + self.gap_widths[place]

    def _top(self, line: int, lane: int) -> float:
        return self.line_tops[line] + lane * LANE_PITCH

    def _gap_x(self, gap: int, net: Net) -> float:
        return self.gap_starts[gap] + GAP_LEFT + self.gaps.given[gap, net] * TRACK_PITCH

    def _channel_y(self, channel: int, net: Net) -> float:
        return self.channel_bottoms[channel] - (0.5 + self.channels.given[channel, net]) * TRACK_PITCH


def _ports(grid: Grid) -> list[float]:
    """Where each edge enters its target, from the middle of the box's left side, downwards.

    An edge from the box before it runs straight, at 0, and no other enters there: what leaves that
    box never lies on what enters this one.
    """
    ports = []
    above: dict[int, int] = defaultdict(int)
    below: dict[int, int] = defaultdict(int)
    straight: set[int] = set()
    for source, target in grid.edges:
        before, after = grid.boxes[source], grid.boxes[target]
        is_next = before.line == after.line and after.column == before.column + 1
        if is_next and before.lane == after.lane and target not in straight:
            straight.add(target)
            ports.append(0.0)
        elif is_next and before.lane > after.lane:
            ports.append(_FIRST_PORT + below[target] * _PORT_PITCH)
            below[target] += 1
        else:
            ports.append(-_FIRST_PORT - above[target] * _PORT_PITCH)
            above[target] += 1
    return ports


def _tidy(points: Sequence[Point]) -> tuple[Point, ...]:
    """Leaves out points that repeat the one before, or lie on the way between their neighbours."""
    kept: list[Point] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        while len(kept) > 1 and (kept[-2][0] == kept[-1][0] == point[0] or kept[-2][1] == kept[-1][1] == point[1]):
            kept.pop()
        kept.append(point)
    return tuple(kept)
