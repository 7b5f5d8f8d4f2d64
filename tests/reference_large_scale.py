"""The DNA of Large-Scale Evolution and its operators in plain Python, as the docstring of the strategy tells them."""

import itertools
import random
from collections import Counter
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from eigen_jax.architecture import IMAGE, Layer
from eigen_jax.genome import GenomeSpec
from eigen_jax.strategies import NONE
from eigen_jax.strategies.large_scale import Dna

TIGHT = GenomeSpec(capacity=7, input_shape=(6, 4, 2), num_classes=3, max_parameters=400, max_flops=6_000)


class Conv(NamedTuple):
    """A convolution."""

    channels: int
    stride: int
    height: int
    width: int


class Edge(NamedTuple):
    """An edge of the backbone, and the vertex that it leads to."""

    conv: Conv | None  # None: an identity
    activates: bool
    number: int


class Net(NamedTuple):
    """What a DNA says but for rate and weights, without arrays."""

    edges: tuple[Edge, ...]
    skips: tuple[tuple[int, int], ...]  # sorted

    def width(self, vertex: int) -> int:
        """The channels of a vertex."""
        return next((conv.channels for conv, *_ in reversed(self.edges[:vertex]) if conv), TIGHT.input_shape[2])


def read(dna: Dna) -> Net:
    """The network of one DNA, which is checked to be clean arrays."""
    length = int(dna.length)
    assert not np.any(dna.edges[length:])
    assert ((dna.skips == NONE).all(axis=1) | ((dna.skips >= 0) & (dna.skips <= length)).all(axis=1)).all()
    edges = []
    for channels, stride, height, width, activates, number in dna.edges[:length].tolist():
        assert channels or not (stride or height or width)
        conv = Conv(channels, 2**stride, 2 * height + 1, 2 * width + 1) if channels else None
        edges.append(Edge(conv, bool(activates), number))
    return Net(tuple(edges), tuple(sorted((a, b) for a, b in dna.skips.tolist() if a != NONE)))


def write(net: Net) -> Dna:
    """The DNA of a network."""
    edges: Any = np.zeros((TIGHT.capacity, 6), np.int32)
    skips: Any = np.full((TIGHT.capacity, 2), NONE, np.int32)
    for place, (conv, activates, number) in enumerate(net.edges):
        if conv:
            edges[place, :4] = conv.channels, conv.stride.bit_length() - 1, conv.height // 2, conv.width // 2
        edges[place, 4:] = activates, number
    skips[: len(net.skips)] = np.reshape(net.skips, (-1, 2))
    counts = {"length": len(net.edges), "inserted": max([0, *(edge.number for edge in net.edges)]), "base": 5}
    scalars: dict[str, Any] = {name: np.asarray(count, np.int32) for name, count in counts.items()}
    scalars["learning_rate"] = np.asarray(0.25, np.float32)
    return Dna(edges=edges, skips=skips, **scalars)


def draw_net(seed: int, *, edges: int) -> Net:
    """One of so many edges, whether it fits or not."""
    rng = random.Random(seed)

    def conv() -> Conv:
        return Conv(rng.choice([1, 2, 3, 5, 4_096]), rng.choice([1, 2, 1_024]), *rng.choices([1, 3, 5, 7, 31], k=2))

    numbers = rng.sample(range(1, 30), edges)
    backbone = tuple(Edge(conv() if rng.random() < 0.7 else None, rng.random() < 0.5, n) for n in numbers)
    pairs = list(itertools.combinations(range(edges + 1), 2))
    return Net(backbone, tuple(sorted(rng.choices(pairs, k=rng.randint(1, 5)))) if pairs else ())


def outcomes(net: Net, operator: str) -> dict[Net, Fraction]:
    """What an operator can make of a network, and how probable each is; nothing where it does not apply."""
    found: Counter[Net] = Counter()
    convs = [place for place, edge in enumerate(net.edges) if edge.conv]

    def with_conv(place: int, **change: int) -> Net:
        edge = net.edges[place]
        assert edge.conv is not None
        new = edge._replace(conv=edge.conv._replace(**change))
        return net._replace(edges=(*net.edges[:place], new, *net.edges[place + 1 :]))

    if operator in ("identity", "reset_weights", "alter_learning_rate"):
        found[net] += 1
    elif operator.startswith("insert"):
        sites = range(len(net.edges) + 1 if len(net.edges) < TIGHT.capacity else 0)
        for site, stride, activates in itertools.product(sites, (1, 2), (False, True)):
            conv = Conv(net.width(site), stride, 3, 3) if operator == "insert_convolution" else None
            new = Edge(conv, activates, max([0, *(edge.number for edge in net.edges)]) + 1)
            skips = tuple((a + (a > site), b + (b > site)) for a, b in net.skips)
            found[Net((*net.edges[:site], new, *net.edges[site:]), tuple(sorted(skips)))] += 1
    elif operator == "remove_convolution":
        for place in convs:  # between vertices `place` and `place` + 1, which become one
            moved = ((a - (a > place), b - (b > place)) for a, b in net.skips)
            rest = net.edges[:place] + net.edges[place + 1 :]
            found[Net(rest, tuple(sorted((a, b) for a, b in moved if a != b)))] += 1
    elif operator == "add_skip":
        if len(net.skips) < TIGHT.capacity:
            for pair in itertools.combinations(range(len(net.edges) + 1), 2):
                found[net._replace(skips=tuple(sorted((*net.skips, pair))))] += 1
    elif operator == "remove_skip":
        for place in range(len(net.skips)):
            found[net._replace(skips=net.skips[:place] + net.skips[place + 1 :])] += 1
    else:
        shares: dict[Net, Fraction] = {}
        for place in convs:
            for name, values in values_of(net.edges[place].conv, operator).items():
                for value in values:
                    shares[with_conv(place, **{name: value})] = Fraction(1, len(values))
        return normalised(shares)
    return normalised({each: Fraction(count) for each, count in found.items()})


def values_of(conv: Conv | None, operator: str) -> dict[str, list[int]]:
    """What the fields of a convolution can become."""
    assert conv is not None
    if operator == "alter_stride":
        return {"stride": [new for new in (conv.stride // 2, conv.stride * 2) if 1 <= new <= 1_024]}
    if operator == "alter_number_of_channels":
        c = conv.channels
        return {"channels": [new for new in range(1, 4_097) if c <= 2 * new and new <= 2 * c and new != c]}
    assert operator == "filter_size"
    values = {}
    for name in ("height", "width"):
        k, odd = getattr(conv, name), range(1, 32, 2)
        least = max((new for new in odd if 2 * new <= k), default=1)
        most = min((new for new in odd if new >= 2 * k), default=31)
        values[name] = [new for new in odd if least <= new <= most and new != k]
    return values


def normalised(shares: dict[Net, Fraction]) -> dict[Net, Fraction]:
    total = sum(shares.values())
    return {net: share / total for net, share in shares.items()}


def layers_of(net: Net) -> tuple[Layer, ...]:
    """The layers that a network is to have, one vertex after the other."""
    layers: list[Layer] = []

    def put(op: str, *inputs: int, **choices: Any) -> int:
        layers.append(Layer(op=op, inputs=inputs, **choices))
        return len(layers) - 1

    vertices = {0: put("vertex", IMAGE, activation="linear") if net.skips else IMAGE}
    for vertex, (conv, activates, _) in enumerate(net.edges, start=1):
        total = vertices[vertex - 1]
        if conv:
            sides = {"kernel_height": conv.height, "kernel_width": conv.width}
            total = put("linear_conv", total, channels=conv.channels, stride=conv.stride, **sides)
        for source, target in net.skips:
            total = put("add_resized", total, vertices[source]) if target == vertex else total
        vertices[vertex] = put("vertex", total, activation="norm_relu") if activates else total
    return tuple(layers)


def fits(net: Net) -> bool:
    """Whether the search space has a network, with multiply-adds on padding counted."""
    (height, width, channels), flops, parameters = TIGHT.input_shape, 0, 0
    for conv, activates, _ in net.edges:
        if conv:
            if conv.stride > 1 and height == width == 1:
                return False
            height, width = -(-height // conv.stride), -(-width // conv.stride)
            weights = channels * conv.channels * conv.height * conv.width
            flops, parameters, channels = flops + 2 * weights * height * width, parameters + weights, conv.channels
        parameters += 2 * channels * activates
    classifier = channels * TIGHT.num_classes
    is_small = flops + 2 * classifier <= TIGHT.max_flops and parameters + classifier + 3 <= TIGHT.max_parameters
    return is_small and len(layers_of(net)) <= TIGHT.capacity
