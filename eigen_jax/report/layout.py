"""Where the boxes of a drawing lie: layers in columns, columns in lines, as words in a text.

A block's layers stand in columns by rank, the longest path from the block's first layers; layers of one rank stand in
lanes, one under the other. Columns wrap into lines. Lengths are inches; y grows downwards.
"""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from eigen_jax.architecture import IMAGE, Architecture, Layer, layer_shapes
from eigen_jax.layer_kinds import KINDS, Look

BOX_WIDTH, BOX_HEIGHT = 0.78, 0.42
LANE_PITCH = BOX_HEIGHT + 0.2
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Layers that are drawn as one panel: a block, or one copy of it."""

    label: str
    block: int  # halvings of the image, rounded up: blocks of one size have one colour
    layers: tuple[int, ...]  # positions in the architecture, each after its inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """One layer, or the image, the global pooling or the classifier."""

    node: int  # a layer's position; IMAGE; the number of layers for the pooling, one more for the classifier
    kind: str  # of its layer; or "image", "pooling" or "classifier"
    look: Look
    group: int | None  # which of the groups; None: outside of all
    column: int  # among all columns of the drawing
    line: int
    place: int  # of the column within its line
    lane: int  # from the top of the line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """All boxes, and how many lanes each line has."""

    boxes: Mapping[int, Box]  # node to box
    edges: tuple[tuple[int, int], ...]  # (node, node that reads it), one an input
    groups: tuple[Group, ...]
    lanes: tuple[int, ...]  # of each line
    columns: int  # of the longest line


def block_groups(architecture: Architecture) -> tuple[Group, ...]:
    """The blocks of a network, largest maps first: all layers of one H x W each.

    A layer that enlarges what it reads, and what comes after it, are of blocks of their own, behind the others.
    """
    shapes = (*layer_shapes(architecture), architecture.input_shape)  # the image's is at IMAGE

    def order(position: int) -> tuple[int, ...]:
        height, width, _ = shapes[position]
        return -height * width, -height, -width

    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    enlarged = {IMAGE: 0}  # how often what a layer shows was enlarged
    for position, layer in enumerate(architecture.layers):
        enlarged[position] = max(enlarged[read] + (order(read) > order(position)) for read in layer.inputs)
        members[enlarged[position], *order(position)].append(position)
    groups = []
    for _, layers in sorted(members.items()):
        height, width, _ = shapes[layers[0]]
        block = _halvings(architecture.input_shape, height, width)
        groups.append(Group(label=f"{height} {TIMES} {width}", block=block, layers=tuple(layers)))
    return tuple(groups)


def _halvings(image: Sequence[int], height: int, width: int) -> int:
    """The fewest halvings that make an image no larger than this."""
    return next(n for n in itertools.count() if -(-image[0] >> n) <= height and -(-image[1] >> n) <= width)


def copy_groups(before: Architecture, after: Architecture, repeats: Sequence[int]) -> tuple[Group, ...]:
    """The blocks of a network that came by duplication, a group for each copy of a block.

    `repeats`: see `draw_duplication`. A block that does not come apart into so many copies stays one group.
    """
    originals = {group.block: group for group in block_groups(before)}
    groups = []
    for group in block_groups(after):
        times = repeats[group.block] if group.block < len(repeats) else 1
        parts = [group.layers]
        if group.block in originals:
            original = [before.layers[position] for position in originals[group.block].layers]
            parts = _split_copies(original, after.layers, group.layers, times)
        for number, layers in enumerate(parts, start=1):
            label = f"{group.label}\n{number} of {len(parts)}" if len(parts) > 1 else group.label
            groups.append(dataclasses.replace(group, label=label, layers=layers))
    return tuple(groups)


def place(architecture: Architecture, groups: Sequence[Group], *, num_classes: int) -> Grid:
    """Puts every layer into a line, a column and a lane; each group comes after those that it reads."""
    layers = architecture.layers
    pooling, classifier = len(layers), len(layers) + 1
    sink = len(layers) - 1 if layers else IMAGE
    edges = [(source, node) for node, layer in enumerate(layers) for source in layer.inputs]
    edges += [(sink, pooling), (pooling, classifier)]
    columns: list[tuple[int | None, dict[int, int]]] = [(None, {IMAGE: 0})]  # group, node to lane
    columns += [(number, lanes) for number, group in enumerate(groups) for lanes in _columns_of(layers, group)]
    columns += [(None, {pooling: 0}), (None, {classifier: 0})]
    # Lines of about equal length, in a drawing about as wide as high: of 9 to 13 columns where there are so many.
    most = min(max(math.ceil(1.35 * math.sqrt(len(columns))), 9), 13)
    per_line = math.ceil(len(columns) / math.ceil(len(columns) / most))
    looks = _looks(architecture, num_classes)
    boxes = {}
    heights: dict[int, int] = defaultdict(int)
    for column, (owner, lanes) in enumerate(columns):
        line, within = divmod(column, per_line)
        heights[line] = max(heights[line], 1 + max(lanes.values()))
        for node, lane in lanes.items():
            kind, look = looks[node]
            where = {"column": column, "line": line, "place": within, "lane": lane}
            boxes[node] = Box(node=node, kind=kind, look=look, group=owner, **where)
    line_lanes = tuple(heights.values())
    return Grid(boxes=boxes, edges=tuple(edges), groups=tuple(groups), lanes=line_lanes, columns=per_line)


def _split_copies(
    original: Sequence[Layer], layers: Sequence[Layer], block: tuple[int, ...], times: int
) -> list[tuple[int, ...]]:
    """The copies of a block, in order, or all of its layers in one where they do not come apart.

    Layers of a copy follow one another in the canonical order. The last copy has all but the pools, those that always
    halve; those before lack what only layers outside of the block read, and the first has its pools too.
    """
    pools = sum(KINDS.find(layer.op).halves is True for layer in original)
    last = len(original) - pools
    for kept_pools in range(pools, -1, -1) if times > 1 and last else ():
        size, remainder = divmod(len(block) - last - kept_pools, times - 1)
        ends = itertools.accumulate([size + kept_pools, *[size] * (times - 2), last], initial=0)
        parts = [block[start:end] for start, end in itertools.pairwise(ends)]
        if size >= 1 and not remainder and _is_in_series(layers, parts):
            return parts
    return [block]


def _is_in_series(layers: Sequence[Layer], parts: Sequence[tuple[int, ...]]) -> bool:
    """Whether each part reads, of the parts before it, only the last layer of the one before."""
    earlier: set[int] = set()
    for before, part in itertools.pairwise(parts):
        earlier.update(before)
        if {source for position in part for source in layers[position].inputs} & earlier != {before[-1]}:
            return False
    return True


def _columns_of(layers: Sequence[Layer], group: Group) -> list[dict[int, int]]:
    """The columns of a group by rank, each from layer to lane, of which one longest path keeps the top one."""
    ranks: dict[int, int] = {}
    for position in group.layers:
        ranks[position] = 1 + max((ranks[source] for source in layers[position].inputs if source in ranks), default=-1)
    end: int | None = max(group.layers, key=lambda position: (ranks[position], position))
    spine = set()
    while end is not None:
        spine.add(end)
        end = next((source for source in layers[end].inputs if ranks.get(source) == ranks[end] - 1), None)
    columns: list[dict[int, int]] = [{}]  # the first one is before the group
    for rank in range(1 + max(ranks.values())):
        members = [position for position in group.layers if ranks[position] == rank]
        # The lanes of what a layer reads in the column before: to stay in one is to be drawn straight.
        before = columns[-1]
        wanted = {each: [before[read] for read in layers[each].inputs if before.get(read)] for each in members}
        column: dict[int, int] = {}
        for position in sorted(members, key=lambda position: (position not in spine, not wanted[position], position)):
            free = [lane for lane in range(1, len(members) + 1) if lane not in column.values()]
            straight = (lane for lane in wanted[position] if lane in free)
            column[position] = 0 if position in spine else next(straight, free[0])
        columns.append(column)
    return columns[1:]


def _looks(architecture: Architecture, num_classes: int) -> dict[int, tuple[str, Look]]:
    """Node to the kind and the look of its box."""
    height, width, depth = architecture.input_shape
    looks = {IMAGE: ("image", Look(text="", label=f"image\n{height} {TIMES} {width} {TIMES} {depth}"))}
    for position, (layer, shape) in enumerate(zip(architecture.layers, layer_shapes(architecture), strict=True)):
        looks[position] = layer.op, KINDS.find(layer.op).look(layer, shape[2])
    pooling = len(architecture.layers)
    looks[pooling] = "pooling", Look(text="", label="global\npooling")
    return looks | {pooling + 1: ("classifier", Look(text="", label=f"classifier\n{num_classes} classes"))}
