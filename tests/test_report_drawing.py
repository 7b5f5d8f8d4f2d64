"""Drawings of networks: every layer and edge once, no box on another, no wire through a box or along another."""

import functools
import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from layer_data import concat, conv, network, pool
from matplotlib.figure import Figure
from strategies import without_dead

from eigen_jax.architecture import IMAGE, Architecture, Layer
from eigen_jax.report import ReportError, draw_architecture, draw_duplication, save_figure
from eigen_jax.report.layout import BOX_HEIGHT, BOX_WIDTH, Grid, block_groups, copy_groups, place
from eigen_jax.report.routing import Geometry


def random_network(seed: int, length: int) -> Architecture:
    """A network of about so many layers, with branches, skips of all lengths and up to four halvings."""
    rng = np.random.default_rng(seed)
    layers, sizes = [conv(IMAGE)], [32]
    while len(layers) < length:
        near = int(rng.integers(max(0, len(layers) - 4), len(layers)))
        equal = [position for position, size in enumerate(sizes) if size == sizes[near]]
        kind = rng.random()
        if kind < 0.45 and len(equal) > 1:
            layers.append(concat(near, int(rng.choice(equal))))
            sizes.append(sizes[near])
        elif kind > 0.97 and sizes[near] > 2:
            layers.append(pool(near) if rng.random() < 0.5 else conv(near, stride=2))
            sizes.append(sizes[near] // 2)
        else:
            layers.append(conv(near, channels=int(rng.choice([16, 96])), kernel=int(rng.choice([1, 3]))))
            sizes.append(sizes[near])
    return network(*without_dead(layers))


SKIPPING = network(conv(-1), conv(0, 32), concat(1, 0), pool(2), conv(3, 64), concat(4, 3), conv(5, 96, 1, 2))
NETWORKS = {
    "global pooling alone": network(),
    "one layer": network(conv(-1)),
    "skips": SKIPPING,
    "the same layer twice": network(conv(-1), concat(0, 0), conv(1)),
    "two branches that halve": network(conv(-1), pool(0), conv(0, stride=2), concat(1, 2)),
    "other kinds": network(
        conv(),
        Layer(op="depthwise", inputs=(0,), kernel=5),
        Layer(op="add", inputs=(0, 1)),
        Layer(op="average_pool", inputs=(2,)),
        pool(2),
        concat(3, 4),
    ),
    "kinds of other searches": network(
        Layer(op="plain_conv", inputs=(-1,), channels=100, kernel=31, activation="sigmoid"),
        Layer(op="vertex", inputs=(0,), activation="norm_relu"),
        Layer(op="linear_conv", inputs=(1,), channels=4096, kernel_height=31, kernel_width=1, stride=2),
        Layer(op="add_resized", inputs=(1, 2)),  # which enlarges
        Layer(op="vertex", inputs=(3,), activation="linear"),
        Layer(op="linear_conv", inputs=(4,), channels=64, kernel_height=3, kernel_width=3, stride=1),
        Layer(op="pool_any", inputs=(5,), side=5),
        Layer(op="add_resized", inputs=(6, 2)),
        Layer(op="pool3", inputs=(7,)),
        Layer(op="pool_any", inputs=(8,), side=1),
        Layer(op="dropout", inputs=(9,), rate=0.37),
        Layer(op="dense", inputs=(10,), units=4096, activation="sigmoid"),
    ),
    "a chain of 150": network(*(conv(source) for source in range(-1, 149))),
    **{f"random {length}, {seed}": random_network(seed, length) for length in (12, 60, 220) for seed in range(4)},
}


@functools.cache
def laid_out(architecture: Architecture) -> tuple[Grid, Geometry]:
    grid = place(architecture, block_groups(architecture), num_classes=10)
    return grid, Geometry(grid)


def segments(geometry: Geometry):
    """(source, target, (x0, y0), (x1, y1)) of every straight piece of every wire."""
    for wire in geometry.wires:
        for start, end in itertools.pairwise(wire.points):
            yield wire.source, wire.target, start, end


@pytest.fixture(params=NETWORKS, scope="module")
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return NETWORKS[request.param]


def test_every_layer_has_a_box_and_every_input_a_wire_and_columns_follow_them(architecture: Architecture) -> None:
    grid, geometry = laid_out(architecture)
    count = len(architecture.layers)
    assert sorted(grid.boxes) == list(range(-1, count + 2))
    edges = [(source, node) for node, layer in enumerate(architecture.layers) for source in layer.inputs]
    edges += [(count - 1, count), (count, count + 1)]
    assert sorted((wire.source, wire.target) for wire in geometry.wires) == sorted(edges)
    assert all(grid.boxes[source].column < grid.boxes[target].column for source, target in grid.edges)
    assert all(box.column == box.line * grid.columns + box.place for box in grid.boxes.values())


def test_no_box_lies_on_another_or_beyond_the_edge(architecture: Architecture) -> None:
    _, geometry = laid_out(architecture)
    corners = np.array(list(geometry.corners.values()))
    apart = np.abs(corners[:, None] - corners[None]) >= np.array([BOX_WIDTH, BOX_HEIGHT])
    assert (apart.any(-1) | np.eye(len(corners), dtype=bool)).all()
    assert (corners >= 0).all()
    assert (corners + np.array([BOX_WIDTH, BOX_HEIGHT]) <= [geometry.width, geometry.height]).all()


def test_wires_run_from_box_to_box_and_through_none(architecture: Architecture) -> None:
    _, geometry = laid_out(architecture)
    for wire in geometry.wires:
        (x, y), (end_x, end_y) = wire.points[0], wire.points[-1]
        left, top = geometry.corners[wire.source]
        assert x == pytest.approx(left + BOX_WIDTH)
        assert y == pytest.approx(top + BOX_HEIGHT / 2)
        left, top = geometry.corners[wire.target]
        assert end_x == pytest.approx(left)
        assert top < end_y < top + BOX_HEIGHT
    low = np.array(list(geometry.corners.values())) + 1e-9
    high = low + np.array([BOX_WIDTH - 2e-9, BOX_HEIGHT - 2e-9])
    for source, target, start, end in segments(geometry):
        assert start[0] == end[0] or start[1] == end[1]
        first, last = np.minimum(start, end), np.maximum(start, end)
        inside = ((first < high) & (last > low)).all(-1)
        assert not inside.any(), (source, target)
        assert min(first) >= 0
        assert last[0] <= geometry.width
        assert last[1] <= geometry.height


def test_wires_of_two_sources_never_run_along_one_another(architecture: Architecture) -> None:
    _, geometry = laid_out(architecture)
    pieces = {(source, min(ends), max(ends)) for source, _, *ends in segments(geometry)}
    for along, across in ((0, 1), (1, 0)):
        lines: dict[float, list[tuple[float, float, int]]] = {}
        for source, start, end in pieces:
            if start[across] == end[across]:
                lines.setdefault(round(start[across], 6), []).append((start[along], end[along], source))
        for line in lines.values():
            for (start, end, source), (other_start, other_end, other) in itertools.combinations(line, 2):
                assert source == other or min(end, other_end) <= max(start, other_start) + 1e-9


def test_a_small_network_is_placed_as_by_hand() -> None:
    grid, geometry = laid_out(SKIPPING)
    assert [(group.label, group.block, group.layers) for group in grid.groups] == [
        ("32 \N{MULTIPLICATION SIGN} 32", 0, (0, 1, 2)),
        ("16 \N{MULTIPLICATION SIGN} 16", 1, (3, 4, 5)),
        ("8 \N{MULTIPLICATION SIGN} 8", 2, (6,)),
    ]
    assert [grid.boxes[node].column for node in range(-1, 9)] == list(range(10))
    assert [grid.boxes[node].look.label.split("\n") for node in (-1, 0, 2, 3, 6, 7, 8)] == [
        ["image", "32 \N{MULTIPLICATION SIGN} 32 \N{MULTIPLICATION SIGN} 3"],
        ["3\N{MULTIPLICATION SIGN}3, 48"],
        ["concat", "80"],
        ["max pool", "2\N{MULTIPLICATION SIGN}2"],
        ["1\N{MULTIPLICATION SIGN}1, 96", "stride 2"],
        ["global", "pooling"],
        ["classifier", "10 classes"],
    ]
    assert {(wire.source, wire.target) for wire in geometry.wires if wire.skips} == {(0, 2), (3, 5)}


def test_a_layer_that_enlarges_what_it_reads_stands_behind_it_in_a_block_of_its_own() -> None:
    groups = block_groups(NETWORKS["kinds of other searches"])
    assert [(group.label.replace(" \N{MULTIPLICATION SIGN} ", "x"), group.block) for group in groups] == [
        *(("32x32", 0), ("16x16", 1), ("32x32", 0), ("7x7", 3), ("4x4", 3), ("1x1", 5)),
    ]
    assert [len(group.layers) for group in groups] == [2, 1, 3, 2, 3, 1]


def test_lines_are_of_about_equal_length() -> None:
    chain, _ = laid_out(network(*(conv(source) for source in range(-1, 59))))
    # 63 columns, of which at most 1.35 times the square root stand in a line.
    assert (chain.columns, len(chain.lanes)) == (11, 6)


def test_parallel_branches_stand_in_lanes() -> None:
    grid, _ = laid_out(network(conv(-1), conv(0), conv(1), conv(0, 16), conv(3, 16), concat(2, 4)))
    columns_and_lanes = {(grid.boxes[node].column, grid.boxes[node].lane) for node in range(6)}
    assert columns_and_lanes == {(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0)}
    lanes = {node: grid.boxes[node].lane for node in range(6)}
    assert all(lanes[source] == lanes[target] for source, target in grid.edges if {source, target} in ({1, 2}, {3, 4}))


def gids(figure: Figure, pattern: str) -> list[str]:
    found = {artist.get_gid() or "" for ax in figure.axes for artist in ax.get_children()}
    return sorted(gid for gid in found if re.fullmatch(pattern, gid))


def test_a_drawing_has_an_artist_for_each_layer_edge_and_panel(architecture: Architecture) -> None:
    figure = draw_architecture(architecture, num_classes=10)
    grid, geometry = laid_out(architecture)
    assert len(gids(figure, r"layer-\d+")) == len(architecture.layers)
    assert gids(figure, "image|pooling|classifier") == ["classifier", "image", "pooling"]
    assert len(gids(figure, r"edge-\d+")) == len(geometry.wires)
    parts = {(box.group, box.line) for box in grid.boxes.values() if box.group is not None}
    assert len(gids(figure, r"panel-\d+-\d+")) == len(parts)


@pytest.mark.parametrize("name", ["random 60, 1", "kinds of other searches"])
def test_labels_lie_within_their_boxes_and_on_no_other_label(name: str) -> None:
    figure = draw_architecture(NETWORKS[name], num_classes=100, title="A title")
    figure.draw_without_rendering()
    extents = [text.get_window_extent() for ax in figure.axes for text in ax.texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(extents, 2))
    boxes = [
        patch.get_window_extent()
        for patch in figure.axes[0].patches
        if re.fullmatch(r"layer-\d+|image|pooling|classifier", patch.get_gid() or "")
    ]

    def contains(box, extent) -> bool:
        return box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1

    within = [extent for extent in extents if any(contains(box, extent) for box in boxes)]
    touching = [extent for extent in extents if any(box.overlaps(extent) for box in boxes)]
    assert len(within) == len(touching) >= len(boxes)
    assert all(extent.x0 >= 0 and extent.x1 <= figure.bbox.width for extent in extents)


def test_no_wire_runs_through_a_label() -> None:
    architecture = NETWORKS["random 220, 0"]
    figure = draw_architecture(architecture, num_classes=10)
    figure.draw_without_rendering()
    ax = figure.axes[0]
    inverse = ax.transData.inverted()
    boxes = np.array([inverse.transform(text.get_window_extent()) for text in ax.texts])
    low, high = boxes.min(1), boxes.max(1)
    for source, target, start, end in segments(laid_out(architecture)[1]):
        first, last = np.minimum(start, end), np.maximum(start, end)
        assert not ((first < high) & (last > low)).all(-1).any(), (source, target)


def test_an_svg_is_xml_with_the_labels_as_text_and_the_same_bytes_again(tmp_path: Path) -> None:
    figures = [draw_architecture(SKIPPING, num_classes=7, title="runs/$x$ & <y>") for _ in range(2)]
    (png, svg), (again_png, again_svg) = (save_figure(figure, tmp_path / f"a{n}") for n, figure in enumerate(figures))
    texts = {element.text for element in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"concat", "stride 2", "7 classes", "max pooling", "runs/$x$ & <y>"} <= texts
    assert svg.read_bytes() == again_svg.read_bytes()
    assert png.read_bytes() == again_png.read_bytes()
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a0.png", "a0.svg", "a1.png", "a1.svg"]


def test_the_legend_has_each_kind_in_the_order_of_the_table() -> None:
    def legend(architecture: Architecture) -> list[str]:
        return [text.get_text() for text in draw_architecture(architecture, num_classes=7).axes[-1].texts]

    paper = ["convolution", "convolution, stride 2", "max pooling", "concatenation", "skip connection"]
    assert legend(SKIPPING) == paper
    others = ["addition", "depthwise convolution", "average pooling", "skip connection"]
    assert legend(NETWORKS["other kinds"]) == ["convolution", "max pooling", "concatenation", *others]
    assert legend(NETWORKS["kinds of other searches"]) == [
        *("dense", "dropout", "plain convolution", "max pooling", "linear convolution", "linear convolution, strided"),
        *("batch normalisation, ReLU", "identity", "addition, resized", "skip connection"),
    ]


# Blocks of 32 x 32 (a, b, a + b) and 16 x 16 (pool, c, c + pool), as of SKIPPING without its last layer.
BEFORE = network(conv(-1), conv(0, 32), concat(1, 0), pool(2), conv(3, 64), concat(4, 3))
# The first block twice; the second three times: in its copies the pool is what they read.
AFTER = network(
    *(conv(-1), conv(0, 32), concat(1, 0)),
    *(conv(2), conv(3, 32), concat(4, 3)),
    *(pool(5), conv(6, 64), concat(7, 6)),
    *(conv(8, 64), concat(9, 8)),
    *(conv(10, 64), concat(11, 10)),
)


@pytest.mark.parametrize(
    ("repeats", "labels", "sizes"),
    [
        ((2, 3), ["1 of 2", "2 of 2", "1 of 3", "2 of 3", "3 of 3"], (3, 3, 3, 2, 2)),
        *((repeats, ["", ""], (6, 7)) for repeats in ((1, 1), (), (3, 1), (4, 1), (5, 4))),
    ],
)
def test_copies_of_a_block_come_apart_as_by_hand_or_stay_one(repeats, labels, sizes) -> None:
    groups = copy_groups(BEFORE, AFTER, repeats)
    assert [group.label.partition("\n")[2] for group in groups] == labels
    ends = [0, *itertools.accumulate(sizes)]
    assert [group.layers for group in groups] == [tuple(range(*pair)) for pair in itertools.pairwise(ends)]
    assert [group.block for group in groups] == [int(group.layers[0] > 5) for group in groups]


def test_a_duplication_shows_both_networks_and_copies_in_their_blocks_colour() -> None:
    figure = draw_duplication(BEFORE, AFTER, num_classes=10, repeats=(2, 3, 1, 1, 1, 1))
    assert len(gids(figure, r"before-layer-\d+")) == 6
    assert len(gids(figure, r"after-layer-\d+")) == 13
    patches = [patch for ax in figure.axes for patch in ax.patches]
    (first, second), after = (
        [patch.get_facecolor() for patch in patches if re.fullmatch(rf"{name}-panel-\d+-0", patch.get_gid() or "")]
        for name in ("before", "after")
    )
    assert first != second
    assert after == [first, first, second, second, second]


def test_networks_that_are_no_duplication_are_refused() -> None:
    with pytest.raises(ReportError, match=r"\(32, 32, 3\) and \(8, 8, 1\)"):
        draw_duplication(BEFORE, network(input_shape=(8, 8, 1)), num_classes=10)
    with pytest.raises(ReportError, match="repeats is"):
        draw_duplication(BEFORE, AFTER, num_classes=10, repeats=(0, 1))
