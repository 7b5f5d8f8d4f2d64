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
from collections.abc import Hashable, Sequence

from eigen_jax.report.layout import BOX_HEIGHT, BOX_WIDTH, LANE_PITCH, Box, Grid

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


class _Tracks:
    """Lines that wires run along side by side, and the track that each net got on each."""

    def __init__(self) -> None:
        self.asked: dict[Hashable, dict[Net, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.given: dict[tuple[Hashable, Net], int] = {}
        self.counts: dict[Hashable, int] = defaultdict(int)

    def ask(self, line: Hashable, net: Net, *places: int) -> None:
        """Has a net cover these places of a line."""
        self.asked[line][net] += places

    def assign(self) -> None:
        """Gives every net the first track that is free along it, the shortest first, so that arcs nest."""
        for line, nets in self.asked.items():
            spans = [(max(places) - min(places), net, min(places), max(places)) for net, places in nets.items()]
            taken: list[list[tuple[int, int]]] = []
            for _, net, first, last in sorted(spans):
                free = (all(last < start or end < first for start, end in others) for others in taken)
                track = next((track for track, is_free in enumerate(free) if is_free), len(taken))
                if track == len(taken):
                    taken.append([])
                taken[track].append((first, last))
                self.given[line, net] = track
            self.counts[line] = len(taken)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Edge:
    """One edge of a grid, and how it runs."""

    before: Box
    after: Box
    net: Net
    is_next: bool  # to the next column of its line, within one gap
    channel: int  # otherwise, over which line it leaves its gap
    port: float  # where it enters, from the middle of the box's left side, downwards; at 0 it runs straight


class Geometry:
    """Where the boxes of a grid and the wires between them lie, in inches from the top left corner.

    Attributes:
        width, height: of all.
        corners: node to the top left corner of its box.
        wires: one an edge.
        line_tops: y of the boxes in each line's first lane.
        panel_top: room over them, for the labels of panels.
    """

    def __init__(self, grid: Grid, *, panel_top: float = PANEL_TOP):
        self.panel_top = panel_top
        # From the top, channels and lanes counted: that of each line's channel; its lanes follow.
        self._levels = list(itertools.accumulate((1 + lanes for lanes in grid.lanes), initial=0))
        self._gaps, self._channels, self._margin = _Tracks(), _Tracks(), _Tracks()
        edges = _edges(grid)
        for edge in edges:
            if edge.port:
                self._ask(edge)
        for tracks in (self._gaps, self._channels, self._margin):
            tracks.assign()
        self._measure(grid)
        self.corners = {node: (self._left(box), self._top(box)) for node, box in grid.boxes.items()}
        self.wires = [
            Wire(source=edge.before.node, target=edge.after.node, skips=edge.net[1], points=self._points(edge))
            for edge in edges
        ]

    def _ask(self, edge: _Edge) -> None:
        """Asks for the tracks that an edge needs.

        Gap n lies before place n of every line. Its tracks are those of all lines, since wires from
        the line over a channel and from the line under it meet there.
        """
        before, after, net, channel = edge.before, edge.after, edge.net, edge.channel
        start, end = (self._levels[box.line] + 1 + box.lane for box in (before, after))
        if edge.is_next:
            self._gaps.ask(after.place, net, start, end)
            return
        self._gaps.ask(before.place + 1, net, start, self._levels[channel])
        self._gaps.ask(after.place, net, end, self._levels[after.line])
        if channel == after.line:
            self._channels.ask(channel, net, before.place + 1, after.place)
            return
        self._channels.ask(channel, net, before.place + 1, -1)
        self._channels.ask(after.line, net, after.place, -1)
        self._margin.ask(0, net, channel, after.line)

    def _measure(self, grid: Grid) -> None:
        """Where columns and lines start, now that the tracks of gaps and channels are counted."""
        self._margin_width = CHANNEL_PAD + self._margin.counts[0] * TRACK_PITCH
        self._gap_starts, self._lefts = [], []
        x = self._margin_width
        for place in range(grid.columns + 1):
            gap = GAP_LEFT + max(self._gaps.counts[place] - 1, 0) * TRACK_PITCH + GAP_RIGHT
            self._gap_starts.append(x)
            self._lefts.append(x + gap)
            x += gap + BOX_WIDTH
        self.width = x - BOX_WIDTH + CHANNEL_PAD
        self.line_tops, self._channel_bottoms = [], []
        y = 0.0
        for line, lanes in enumerate(grid.lanes):
            y += 2 * CHANNEL_PAD + self._channels.counts[line] * TRACK_PITCH
            self._channel_bottoms.append(y - CHANNEL_PAD)
            y += self.panel_top
            self.line_tops.append(y)
            y += BOX_HEIGHT + (lanes - 1) * LANE_PITCH + PANEL_BOTTOM
        self.height = y + CHANNEL_PAD

    def _points(self, edge: _Edge) -> tuple[Point, ...]:
        """The course of an edge, without pieces of no length."""
        before, after, net, channel = edge.before, edge.after, edge.net, edge.channel
        start = self._left(before) + BOX_WIDTH, self._top(before) + BOX_HEIGHT / 2
        end = self._left(after), self._top(after) + BOX_HEIGHT / 2 + edge.port
        if not edge.port:
            return start, end
        x = self._gap_x(before.place + 1, net)
        if edge.is_next:
            return _tidy([start, (x, start[1]), (x, end[1]), end])
        end_x = self._gap_x(after.place, net)
        y, end_y = self._channel_y(channel, net), self._channel_y(after.line, net)
        middle: list[Point] = []
        if channel != after.line:
            margin_x = self._margin_width - (1 + self._margin.given[0, net]) * TRACK_PITCH
            middle = [(margin_x, y), (margin_x, end_y)]
        return _tidy([start, (x, start[1]), (x, y), *middle, (end_x, end_y), (end_x, end[1]), end])

    def _left(self, box: Box) -> float:
        return self._lefts[box.place]

    def _top(self, box: Box) -> float:
        return self.line_tops[box.line] + box.lane * LANE_PITCH

    def _gap_x(self, gap: int, net: Net) -> float:
        return self._gap_starts[gap] + GAP_LEFT + self._gaps.given[gap, net] * TRACK_PITCH

    def _channel_y(self, channel: int, net: Net) -> float:
        return self._channel_bottoms[channel] - (0.5 + self._channels.given[channel, net]) * TRACK_PITCH


def _edges(grid: Grid) -> list[_Edge]:
    """All edges, each with a port of its own at its target.

    An edge from the box before it runs straight, at 0, and no other enters there: what leaves that
    box never lies on what enters this one.
    """
    edges = []
    above: dict[int, int] = defaultdict(int)
    below: dict[int, int] = defaultdict(int)
    straight: set[int] = set()
    for source, target in grid.edges:
        before, after = grid.boxes[source], grid.boxes[target]
        skips, same_line = after.column != before.column + 1, before.line == after.line
        is_next = same_line and not skips
        if is_next and before.lane == after.lane and target not in straight:
            straight.add(target)
            port = 0.0
        elif is_next and before.lane > after.lane:
            port = _FIRST_PORT + below[target] * _PORT_PITCH
            below[target] += 1
        else:
            port = -_FIRST_PORT - above[target] * _PORT_PITCH
            above[target] += 1
        channel = before.line if same_line else before.line + 1
        net = source, skips
        edges.append(_Edge(before=before, after=after, net=net, is_next=is_next, channel=channel, port=port))
    return edges


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
