"""The search space and the nine operators again, in plain Python: the model that the arrays are held against.

Nothing here is shared with `eigen_jax` but the numbering of layers and operators. A network is a
tuple of genes, in the order of a genome. Costs are counted tap by tap, and an operator's outcomes
are enumerated, each with the probability that it is drawn.
"""

import functools
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from strategies import architectures, renumbered, topological_orders

from eigen_jax.architecture import Layer
from eigen_jax.genome import Genome, GenomeSpec

IMAGE, UNUSED = -1, -2
NONE, CONV, POOL, CONCAT = range(4)  # codes of genes in the paper's search space
INSERTS = ("insert_conv", "insert_concat", "insert_pool")
REMOVES = {"remove_conv": CONV, "remove_concat": CONCAT, "remove_pool": POOL}
OPERATORS = (*INSERTS, *REMOVES, "alter_channels", "alter_stride", "alter_kernel")  # in the order of Section 3.1


class Gene(NamedTuple):
    op: int
    inputs: tuple[int, int]
    channels: int = 0  # this and the next two index the spec's choices
    kernel: int = 0
    stride: int = 0


Network = tuple[Gene, ...]
CONV_FIELDS = ("channels", "kernel", "stride")


class Measures(NamedTuple):
    sizes: tuple[tuple[int, int], ...]  # (H, W) of every layer
    widths: tuple[int, ...]
    parameters: int
    flops: int


def conv(source: int = IMAGE, **choices: int) -> Gene:
    return Gene(CONV, (source, UNUSED), **choices)


def pool(source: int = IMAGE) -> Gene:
    return Gene(POOL, (source, UNUSED))


def concat(first: int, second: int) -> Gene:
    return Gene(CONCAT, (first, second))


# Convolutions have 16 channels, 1 x 1 kernels and stride 1 but for what the name says, in the tests' search spaces.
CHOICES: dict[str, dict[str, int]] = {"conv": {}, "wide": {"channels": 1}, "wider": {"channels": 2}}
CHOICES |= {"conv3": {"kernel": 1}, "strided": {"stride": 1}, "new": {"channels": 1, "kernel": 1}}
KINDS: dict[str, Callable[..., Gene]] = {kind: functools.partial(conv, **each) for kind, each in CHOICES.items()}
KINDS |= {"pool": pool, "concat": concat}


def read(text: str) -> Network:
    """The network of genes such as `conv`, which reads the one before, `pool 0`, `conv -1` and `concat 1 0`."""
    genes = [gene.split() for gene in text.split(",") if gene]
    return tuple(KINDS[kind](*map(int, sources or [str(place - 1)])) for place, (kind, *sources) in enumerate(genes))


def to_genome(network: Network, *, capacity: int) -> Genome:
    """The genome, of NumPy arrays, with the network's genes in the order given."""
    fields = {name: np.zeros(capacity, np.int8) for name in ("op", *CONV_FIELDS)}
    inputs = np.zeros((capacity, 2), np.int16)
    for position, gene in enumerate(network):
        inputs[position] = gene.inputs
        for name, values in fields.items():
            values[position] = getattr(gene, name)
    return Genome(inputs=inputs, length=np.asarray(len(network), np.int32), **fields)


def to_network(genome: Genome) -> Network:
    """The live genes of one genome, of NumPy or JAX arrays."""
    fields = (genome.op, genome.inputs, genome.channels, genome.kernel, genome.stride)
    rows = zip(*(np.asarray(field)[: int(genome.length)].tolist() for field in fields), strict=True)
    return tuple(Gene(op, tuple(inputs), *indices) for op, inputs, *indices in rows)


def of_layers(layers: tuple[Layer, ...], *, spec: GenomeSpec) -> Network:
    """The network of an architecture's layers, in their order."""

    def gene(layer: Layer) -> Gene:
        if layer.op != "conv":
            return pool(*layer.inputs) if layer.op == "pool" else concat(*layer.inputs)
        choices = zip(CONV_FIELDS, (spec.channels, spec.kernels, spec.strides), strict=True)
        return conv(*layer.inputs, **{name: values.index(getattr(layer, name)) for name, values in choices})

    return tuple(map(gene, layers))


@st.composite
def networks(draw: st.DrawFn, *, spec: GenomeSpec, max_layers: int = 10) -> Network:
    """Networks with their genes in any topological order, within the spec's bounds or not."""
    layers = draw(architectures(spec=spec, max_layers=max_layers)).layers
    return of_layers(renumbered(layers, draw(topological_orders(layers))), spec=spec)


@functools.cache
def taps_on_map(size: int, kernel: int, stride: int) -> int:
    """Kernel taps that meet the map, over all outputs of a 1-D SAME convolution: each one is visited."""
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    places = (output * stride - before + tap for output in range(outputs) for tap in range(kernel))
    return sum(0 <= place < size for place in places)


def measure(network: Network, *, spec: GenomeSpec) -> Measures | None:
    """Sizes and exact costs; None where a 1 x 1 map is halved or a concatenation joins different sizes."""
    height, width, channels = spec.input_shape
    sizes, widths = {IMAGE: (height, width)}, {IMAGE: channels}
    parameters = flops = 0
    for position, gene in enumerate(network):
        first, second = gene.inputs
        height, width = sizes[first]
        strided = gene.op == POOL or (gene.op == CONV and spec.strides[gene.stride] == 2)
        if (strided and (height, width) == (1, 1)) or (gene.op == CONCAT and sizes[first] != sizes[second]):
            return None
        widths[position] = widths[first]
        if gene.op == CONV:
            kernel, stride = spec.kernels[gene.kernel], spec.strides[gene.stride]
            taps = taps_on_map(height, kernel, stride) * taps_on_map(width, kernel, stride)
            widths[position] = spec.channels[gene.channels]
            parameters += kernel * kernel * widths[first] * widths[position] + 2 * widths[position]
            flops += 2 * taps * widths[first] * widths[position]
        elif gene.op == CONCAT:
            widths[position] += widths[second]
        sizes[position] = ((height + 1) // 2, (width + 1) // 2) if strided else (height, width)
    features = widths[len(network) - 1]
    del sizes[IMAGE], widths[IMAGE]
    parameters, flops = parameters + (features + 1) * spec.num_classes, flops + 2 * features * spec.num_classes
    return Measures(tuple(sizes.values()), tuple(widths.values()), parameters, flops)


def obeys(network: Network, *, spec: GenomeSpec) -> bool:
    """Whether the network's sizes fit, and its exact costs are within the bounds."""
    measures = measure(network, spec=spec)
    return measures is not None and measures.parameters <= spec.max_parameters and measures.flops <= spec.max_flops


def outcomes(network: Network, operator: str, *, spec: GenomeSpec) -> dict[Network | None, Fraction]:
    """What the operator makes of a network, with probabilities; None stands for a refusal."""
    probabilities: dict[Network | None, Fraction] = defaultdict(Fraction)
    for child, probability in _draws(network, operator, spec):
        probabilities[child if child is not None and obeys(child, spec=spec) else None] += probability
    return dict(probabilities) or {None: Fraction(1)}


def _draws(network: Network, operator: str, spec: GenomeSpec):
    """(child, probability) of every draw; a child of None is a draw that the rules rule out."""
    if operator in INSERTS:
        if len(network) < spec.capacity:
            # (position of the reader, which of its inputs); the last one is global pooling's, None.
            inner = [(i, n) for i, gene in enumerate(network) for n in (0, 1) if gene.inputs[n] != UNUSED]
            edges = [*inner, (len(network), None)]
            for edge in edges:
                genes = list(_inserted(network, operator, *edge, spec))
                for gene in genes:
                    yield gene and _insert(network, gene, *edge), Fraction(1, len(edges) * len(genes))
        return
    op = REMOVES.get(operator, CONV)
    sites = [position for position, gene in enumerate(network) if gene.op == op]
    for site in sites:
        if operator in REMOVES:
            yield _remove(network, site), Fraction(1, len(sites))
            continue
        field = operator.removeprefix("alter_")
        choices = dict(zip(CONV_FIELDS, (spec.channels, spec.kernels, spec.strides), strict=True))[field]
        others = [index for index in range(len(choices)) if index != getattr(network[site], field)]
        for index in others:
            altered = network[site]._replace(**{field: index})  # type: ignore[arg-type]
            yield (*network[:site], altered, *network[site + 1 :]), Fraction(1, len(sites) * len(others))


def _inserted(network: Network, operator: str, reader: int, which: int | None, spec: GenomeSpec):
    """The genes that may be drawn for an edge, equally likely; None where there is none."""
    source = len(network) - 1 if which is None else network[reader].inputs[which]
    if operator == "insert_pool":
        yield pool(source)
    elif operator == "insert_conv":
        defaults = zip((spec.channels, spec.kernels, spec.strides), (32, 3, 1), strict=True)
        yield Gene(CONV, (source, UNUSED), *(c.index(v) if v in c else 0 for c, v in defaults))
    else:
        measures = measure(network, spec=spec)
        assert measures is not None
        sizes, earlier = measures.sizes, range(reader if source >= 0 else 0)
        partners = [other for other in earlier if other != source and sizes[other] == sizes[source]]
        yield from map(functools.partial(concat, source), partners) if partners else [None]


def _insert(network: Network, gene: Gene, reader: int, which: int | None) -> Network:
    """Puts a gene right before the reader, which then reads it; later positions move up by one."""
    moved = [g._replace(inputs=tuple(s + (s >= reader) for s in g.inputs)) for g in network]  # type: ignore[arg-type]
    if which is not None:
        inputs = list(moved[reader].inputs)
        inputs[which] = reader
        moved[reader] = moved[reader]._replace(inputs=(inputs[0], inputs[1]))
    return (*moved[:reader], gene, *moved[reader:])


def _remove(network: Network, site: int) -> Network | None:
    """Joins the readers of a layer to its first input, and drops what no longer reaches the sink."""
    source = network[site].inputs[0]
    rewired = list(network)
    for position, gene in enumerate(network):
        first, second = (source if read == site else read for read in gene.inputs)
        if gene.op == CONCAT and site in gene.inputs:
            becomes_equal = first == second and gene.inputs[0] != gene.inputs[1]
            if IMAGE in (first, second) or becomes_equal:
                return None
        rewired[position] = gene._replace(inputs=(first, second))
    sink = source if site == len(network) - 1 else len(network) - 1
    return pruned(rewired, sink)


def pruned(genes: list[Gene], sink: int) -> Network:
    """The genes that the sink depends on, renumbered."""
    needed, ahead = set(), [sink]
    while ahead:
        position = ahead.pop()
        if position >= 0 and position not in needed:
            needed.add(position)
            ahead += genes[position].inputs
    new = {IMAGE: IMAGE, UNUSED: UNUSED} | {old: position for position, old in enumerate(sorted(needed))}
    live = [genes[old] for old in sorted(needed)]
    return tuple(gene._replace(inputs=(new[gene.inputs[0]], new[gene.inputs[1]])) for gene in live)
