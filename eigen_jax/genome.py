"""Genomes: network architectures as immutable arrays, and shape inference on them.

Dimension letters, here and in every module that handles genomes:

    G  genes of capacity (`GenomeSpec.capacity`)
    L  halvings of the image, from 0 (full size) to `GenomeSpec.max_level` (1 x 1)

A genome is a directed acyclic graph of layers in topological order. A layer's map size is fully
told by its *level*, the number of times that the image was halved on the way to it: every
stride-2 convolution and every pool uses SAME padding, so each halves to ceil(size / 2).
"""

import dataclasses
import enum
import functools
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from eigen_jax.config import INT64_MAX, Config, setting
from eigen_jax.errors import ConfigError


class Op(enum.IntEnum):
    """What a gene is. `NONE` marks the dead genes past the end of a genome."""

    NONE = 0
    CONV = 1
    POOL = 2
    CONCAT = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenomeSpec(Config):
    """The search space (Section 3.1), whose bounds at least global pooling alone keeps."""

    capacity: int = setting(  # G
        256, "the most layers of a network", paper="no limit stated", at_least=1, at_most=16_384
    )
    channels: tuple[int, ...] = setting(
        (16, 32, 48, 64, 96),
        "output channels a convolution may have",
        paper="these",
        choices=127,
        at_least=1,
        at_most=4_096,
    )
    kernels: tuple[int, ...] = setting(
        (1, 3), "kernel sides of a convolution, pixels", paper="these", choices=127, at_least=1, at_most=31
    )
    strides: tuple[int, ...] = setting(
        (1, 2), "strides of a convolution, pixels", paper="these", choices=127, at_least=1, at_most=2
    )
    input_shape: tuple[int, int, int] = setting((32, 32, 3), "H, W and C of an image", at_least=1, flag=False)
    num_classes: int = setting(10, "classes to tell apart", at_least=1, flag=False)
    max_parameters: int = setting(
        20_000_000, "the most trainable values of a network", paper="no limit stated", at_most=INT64_MAX
    )
    max_flops: int = setting(
        10_000_000_000,
        "the most floating-point operations of a network on one image",
        paper="no limit stated",
        at_most=INT64_MAX,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(kernel % 2 for kernel in self.kernels):
            raise ConfigError(GenomeSpec, "{kernels} is {}; it must be odd numbers", self.kernels)
        if len(self.input_shape) != 3:
            raise ConfigError(GenomeSpec, "{input_shape} is {}; it must be three sizes (H, W, C)", self.input_shape)
        # The bounds admit at least the classifier of the network that the search starts from.
        features, classes = self.input_shape[2], self.num_classes
        for name, least in (("max_parameters", (features + 1) * classes), ("max_flops", 2 * features * classes)):
            if (bound := getattr(self, name)) < least:
                rule = "it must be at least {}, for the classifier alone"
                raise ConfigError(GenomeSpec, f"{{{name}}} is {{}}; {rule}", bound, least)

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) at each level, from the image down to 1 x 1."""
        height, width, _ = self.input_shape
        sizes = [(height, width)]
        while sizes[-1] != (1, 1):
            height, width = -(-height // 2), -(-width // 2)
            sizes.append((height, width))
        return tuple(sizes)

    @property
    def max_level(self) -> int:
        """The level of a 1 x 1 map, which cannot be halved again."""
        return len(self.sizes) - 1


def choices(spec: GenomeSpec) -> dict[str, tuple[int, ...]]:
    """The values that the indices of a convolution stand for, by the field of `Genome`."""
    return {"channels": spec.channels, "kernel": spec.kernels, "stride": spec.strides}


@struct.dataclass
class Genome:
    """A network as arrays: a directed acyclic graph of layers in topological order.

    Gene i is live iff i < length, and dead genes are all zero. The last live gene is the one
    sink, which every live gene reaches: global average pooling and the classifier follow it and are not
    genes. Length 0 is the paper's starting network, global pooling alone. A concatenation joins two
    layers of one map size, and no 1 x 1 map is halved.
    """

    IMAGE: ClassVar[int] = -1  # as an input: the network's input image
    UNUSED: ClassVar[int] = -2  # as a second input: this layer has one input only

    op: Array  # [G] int8, an `Op`
    inputs: Array  # [G, 2] int16, gene positions, each less than the gene's own; IMAGE; UNUSED
    channels: Array  # [G] int8, index into spec.channels; 0 unless a convolution
    kernel: Array  # [G] int8, index into spec.kernels; 0 unless a convolution
    stride: Array  # [G] int8, index into spec.strides; 0 unless a convolution
    length: Array  # [] int32, live genes

    @property
    def capacity(self) -> int:
        """G."""
        return self.op.shape[-1]


def minimal_genome(spec: GenomeSpec) -> Genome:
    """The network that the search starts from: global average pooling alone (Section 3.1)."""
    genes, inputs = jnp.zeros(spec.capacity, jnp.int8), jnp.zeros((spec.capacity, 2), jnp.int16)
    return Genome(op=genes, inputs=inputs, channels=genes, kernel=genes, stride=genes, length=jnp.zeros((), jnp.int32))


def valid_taps(size: Sequence[int], kernel: int, stride: int) -> int:
    """Kernel taps that fall on an H x W map, summed over the outputs of a SAME convolution.

    Taps on the padding multiply zeros; neither XLA's cost analysis nor `flops` here counts them.
    """
    total = 1
    for side in size:
        outputs = -(-side // stride)
        padding = max((outputs - 1) * stride + kernel - side, 0)
        starts = range(-(padding // 2), outputs * stride - padding // 2, stride)
        total *= sum(min(start + kernel, side) - max(start, 0) for start in starts)
    return total


@struct.dataclass
class Shapes:
    """What every layer of a genome puts out, and what the network costs."""

    level: Array  # [G] int8, halvings of the image; 0 for dead genes
    width: Array  # [G] int32, channels; 0 for dead genes
    parameters: Array  # [] float32, classifier included
    flops: Array  # [] float32, of one image's forward pass: convolutions and classifier, 2 a multiply-add
    consistent: Array  # [] bool: no 1 x 1 map is halved, no map is over 2 ** 20 wide, concatenations join equal sizes


# Widths saturate past this, where costs would no longer be told exactly: such a map is inconsistent.
_WIDEST = 1 << 20

_LEVEL_BITS = 5  # sizes up to 2 ** 31 halve to 1 in as many steps
_LEVEL_MASK = (1 << _LEVEL_BITS) - 1


def infer_shapes(genome: Genome, *, spec: GenomeSpec, bound: Array | None = None) -> Shapes:
    """Infers map sizes, widths and costs in one pass along the genes; jit- and vmap-able.

    `bound`, [] int32, tells how many genes to visit, at least the genome's length; by default, all. One
    for a whole vmapped batch makes the pass cost what the longest genome needs.
    """
    channels = jnp.asarray(spec.channels, jnp.int32)
    areas = jnp.asarray([kernel * kernel for kernel in spec.kernels], jnp.int32)
    halvings = jnp.asarray([stride == 2 for stride in spec.strides], jnp.int32)
    # [L + 1, kernels, strides], by the level of the input.
    table = [[[valid_taps(size, k, s) for s in spec.strides] for k in spec.kernels] for size in spec.sizes]
    taps = jnp.asarray(np.array(table), jnp.float32)

    # Level and width share a word, the image's in row 0, so that both inputs cost a single lookup.
    def visit(gene, carry):
        words, parameters, flops, consistent = carry
        sources = jnp.maximum(genome.inputs[gene].astype(jnp.int32) + 1, 0)
        first, second = words[sources]
        level_in, width_in = first & _LEVEL_MASK, first >> _LEVEL_BITS
        op, live = genome.op[gene], gene < genome.length
        conv, concat = op == Op.CONV, op == Op.CONCAT
        kernel, stride = genome.kernel[gene], genome.stride[gene]
        filters = channels[genome.channels[gene]]
        level = level_in + jnp.where(conv, halvings[stride], (op == Op.POOL).astype(jnp.int32))
        width = jnp.where(conv, filters, width_in + jnp.where(concat, second >> _LEVEL_BITS, 0))
        joinable = ~concat | (level_in == second & _LEVEL_MASK)
        consistent &= ~live | (level <= spec.max_level) & (width <= _WIDEST) & joinable
        fan = jnp.where(conv, width_in.astype(jnp.float32) * filters.astype(jnp.float32), 0)
        parameters += fan * areas[kernel].astype(jnp.float32) + jnp.where(conv, 2 * filters, 0).astype(jnp.float32)
        flops += 2 * fan * taps[jnp.minimum(level_in, spec.max_level), kernel, stride]
        word = (jnp.minimum(width, _WIDEST) << _LEVEL_BITS) | jnp.minimum(level, _LEVEL_MASK)
        return words.at[gene + 1].set(jnp.where(live, word, 0)), parameters, flops, consistent

    image = spec.input_shape[2] << _LEVEL_BITS
    words = jnp.zeros(genome.capacity + 1, jnp.int32).at[0].set(image)
    start = words, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32), jnp.ones((), bool)
    stop = genome.capacity if bound is None else bound
    words, parameters, flops, consistent = lax.fori_loop(0, stop, visit, start)
    features = (words[genome.length] >> _LEVEL_BITS).astype(jnp.float32)
    return Shapes(
        level=(words[1:] & _LEVEL_MASK).astype(jnp.int8),
        width=words[1:] >> _LEVEL_BITS,
        parameters=parameters + (features + 1) * spec.num_classes,
        flops=flops + 2 * features * spec.num_classes,
        consistent=consistent,
    )


def acceptable(shapes: Shapes, *, spec: GenomeSpec) -> Array:
    """Whether a network is consistent and within the bounds, [] bool; none whose exact cost is over one passes."""
    few = shapes.parameters <= _rounded_down(spec.max_parameters, spec)
    return shapes.consistent & few & (shapes.flops <= _rounded_down(spec.max_flops, spec))


def _rounded_down(bound: int, spec: GenomeSpec) -> float:
    # Integers below 2 ** 24 are exact in float32, and 2 ** 24 itself is what 2 ** 24 + 1 rounds to;
    # from there on each of a gene's two roundings can lose 2 ** -24 of the sum.
    return float(bound) if bound < 1 << 24 else bound * (1 - 2 * (spec.capacity + 2) * 2.0**-24)
