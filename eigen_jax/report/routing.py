"""How the edges of a drawing run: between the boxes, as the wires of a circuit.

A *gap* lies between two columns, and a *channel* over each line of columns. An edge to the next column of its line runs
in the gap between them. Every other edge goes into the gap behind its source, along a channel, and back into the gap
before its target; one that passes over whole lines takes the margin at their left. Tracks keep wires apart: edges from
one source share theirs, and those of two sources never lie on one another. No wire has to cross a box.
"""

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from eigen_jax.report.layout import BOX_HEIGHT, BOX_WIDTH, LANE_PITCH, Box, Grid

TRACK_PITCH = 0.075
GAP_LEFT, GAP_RIGHT = 0.13, 0.2  # of a gap, before its first track and after its last: room for an arrowhead
PANEL_BOTTOM = 0.12  # of a panel, under its boxes
CHANNEL_PAD = 0.1  # of a channel, over and under its tracks
_FIRST_PORT, _PORT_PITCH = 0.1, 0.065  # where wires enter a box, from the middle of its side

Point = tuple[float, float]
Net = tuple[int, bool]  # the source, and whether the edges skip columns: one colour, one trunk
Line = tuple[str, int]  # "gap", "channel" or "margin", and its number: wires run along it side by side, in tracks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wire:
    source: int  # nodes, as in `Box`
    target: int
    skips: bool  # does not lead to the next column
    points: tuple[Point, ...]  # horizontal and vertical pieces, from the source's right to the target's left


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

    `corners` are those of the boxes, by node; `panels` the y of the top and the bottom of the panels in each line;
    `wires` one an edge; `width` and `height` of all.
    """

    def __init__(self, grid: Grid):
        self.grid = grid
        # From the top, channels and lanes counted: that of each line's channel; its lanes follow.
        self._levels = list(itertools.accumulate((1 + lanes for lanes in grid.lanes), initial=0))
        edges = _edges(grid)
        places: dict[Line, dict[Net, list[int]]] = defaultdict(lambda: defaultdict(list))
        for edge in edges:
            for line, *ends in self._spans(edge):
                places[line][edge.net] += ends
        self._tracks = {line: _assign_tracks(nets) for line, nets in places.items()}
        self._measure(Counter({line: 1 + max(tracks.values()) for line, tracks in self._tracks.items()}))
        self.wires = [
            Wire(source=edge.before.node, target=edge.after.node, skips=edge.net[1], points=self._points(edge))
            for edge in edges
        ]

    def _spans(self, edge: _Edge) -> Iterator[tuple[Line, int, int]]:
        """The lines that an edge runs along, each with the two ends of its run.

        Gap n lies before place n of every line. Its tracks are those of all lines, since wires from
        the line over a channel and from the line under it meet there.
        """
        before, after, channel = edge.before, edge.after, edge.channel
        start, end = (self._levels[box.line] + 1 + box.lane for box in (before, after))
        if not edge.port:
            return
        if edge.is_next:
            yield ("gap", after.place), start, end
            return
        yield ("gap", before.place + 1), start, self._levels[channel]
        yield ("gap", after.place), end, self._levels[after.line]
        if channel == after.line:
            yield ("channel", channel), before.place + 1, after.place
            return
        yield ("channel", channel), before.place + 1, -1
        yield ("channel", after.line), after.place, -1
        yield ("margin", 0), channel, after.line

    def _measure(self, counts: Counter[Line]) -> None:
        """Where columns and lines start, now that the tracks are counted."""
        grid = self.grid
        x = self._margin_width = CHANNEL_PAD + counts["margin", 0] * TRACK_PITCH
        self._gap_starts, lefts = [], []
        for place in range(grid.columns + 1):
            gap = GAP_LEFT + max(counts["gap", place] - 1, 0) * TRACK_PITCH + GAP_RIGHT
            self._gap_starts.append(x)
            lefts.append(x + gap)
            x += gap + BOX_WIDTH
        self.width = x - BOX_WIDTH + CHANNEL_PAD
        # Over boxes, for the labels of panels, which have a second line where they are of copies.
        panel_top = 0.36 if any("\n" in group.label for group in grid.groups) else 0.24
        self._channel_bottoms, self.panels = [], []
        y = 0.0
        for line, lanes in enumerate(grid.lanes):
            y += 2 * CHANNEL_PAD + counts["channel", line] * TRACK_PITCH
            self._channel_bottoms.append(y - CHANNEL_PAD)
            top, y = y, y + panel_top + (BOX_HEIGHT + (lanes - 1) * LANE_PITCH + PANEL_BOTTOM)
            self.panels.append((top, y))
        self.height = y + CHANNEL_PAD
        self.corners = {
            node: (lefts[box.place], self.panels[box.line][0] + panel_top + box.lane * LANE_PITCH)
            for node, box in grid.boxes.items()
        }

    def _points(self, edge: _Edge) -> tuple[Point, ...]:
        """The course of an edge, without pieces of no length."""
        before, after, net, channel = edge.before, edge.after, edge.net, edge.channel
        (left, top), (end_left, end_top) = self.corners[before.node], self.corners[after.node]
        start = left + BOX_WIDTH, top + BOX_HEIGHT / 2
        end = end_left, end_top + BOX_HEIGHT / 2 + edge.port
        if not edge.port:
            return start, end
        x = self._gap_x(before.place + 1, net)
        if edge.is_next:
            return _tidy([start, (x, start[1]), (x, end[1]), end])
        end_x = self._gap_x(after.place, net)
        y, end_y = self._channel_y(channel, net), self._channel_y(after.line, net)
        middle: list[Point] = []
        if channel != after.line:
            margin_x = self._margin_width - (1 + self._tracks["margin", 0][net]) * TRACK_PITCH
            middle = [(margin_x, y), (margin_x, end_y)]
        return _tidy([start, (x, start[1]), (x, y), *middle, (end_x, end_y), (end_x, end[1]), end])

    def _gap_x(self, gap: int, net: Net) -> float:
        return self._gap_starts[gap] + GAP_LEFT + self._tracks["gap", gap][net] * TRACK_PITCH

    def _channel_y(self, channel: int, net: Net) -> float:
        return self._channel_bottoms[channel] - (0.5 + self._tracks["channel", channel][net]) * TRACK_PITCH


def _edges(grid: Grid) -> list[_Edge]:
    """All edges, each with a port of its own at its target: 0, where it runs straight, for the box before it alone."""
    edges = []
    taken: Counter[tuple[int, int]] = Counter()  # ports of a target over its middle (-1), there (0) and under it (1)
    for source, target in grid.edges:
        before, after = grid.boxes[source], grid.boxes[target]
        skips, same_line = after.column != before.column + 1, before.line == after.line
        is_next = same_line and not skips
        side = 1 if is_next and before.lane > after.lane else -1
        if is_next and before.lane == after.lane and not taken[target, 0]:
            side = 0
        port = side * (_FIRST_PORT + taken[target, side] * _PORT_PITCH)
        taken[target, side] += 1
        channel, net = before.line + (not same_line), (source, skips)
        edges.append(_Edge(before=before, after=after, net=net, is_next=is_next, channel=channel, port=port))
    return edges


def _assign_tracks(places: Mapping[Net, Sequence[int]]) -> dict[Net, int]:
    """The track of each net on a line, by the places it covers: the first free one, the shortest first: arcs nest."""
    spans = {net: (min(covered), max(covered)) for net, covered in places.items()}
    tracks: dict[Net, int] = {}
    for net, (first, last) in sorted(spans.items(), key=lambda item: (item[1][1] - item[1][0], item[0])):
        taken = {track for other, track in tracks.items() if spans[other][0] <= last and first <= spans[other][1]}
        tracks[net] = next(track for track in itertools.count() if track not in taken)
    return tracks


def _tidy(points: Sequence[Point]) -> tuple[Point, ...]:
    """Leaves out points that repeat the one before, or lie on the way between their neighbours."""
    kept: list[Point] = []
    for point in points:
        while len(kept) > 1 and (kept[-2][0] == kept[-1][0] == point[0] or kept[-2][1] == kept[-1][1] == point[1]):
            kept.pop()
        kept.append(point)
    return tuple(kept)
