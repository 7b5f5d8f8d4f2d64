"""What every module knows of a kind of layer: one record a kind, in a table to which anybody can add.

Nothing else names a kind, so a new one is one file that makes a record and registers it; whoever imports the file can
name the kind in `GenomeSpec.kinds`, which refuses a record that is not whole or contradicts itself.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from eigen_jax.registry import Registry

Number = Any  # an int, or an int32 or float32 scalar of JAX: what a record computes is written once for both
Values = Any  # the values of a layer's choices, as attributes: `values.kernel`
Size = tuple[int, int]  # H, W of a map
Shape = tuple[int, int, int]  # H, W, C


@dataclasses.dataclass(frozen=True)
class Choice:
    """Something that a layer of a kind can have in several values. Kinds may share its name with other values."""

    name: str
    values: tuple[Any, ...] | str  # JSON scalars; or the field of `GenomeSpec` that holds them
    _: dataclasses.KW_ONLY
    default: Any = None  # of an inserted layer; None, or what a field lacks: the first value
    accepted: Sequence[Any] = ()  # what any search space may have; empty: the values
    rule: str = ""  # the accepted values in words

    def refusal(self, value: Any) -> str | None:
        """What a value must be that it is not, in words."""
        accepted = self.accepted or self.values
        # A Boolean, or a float, that is equal to an accepted integer is another value in JSON.
        if value in accepted and type(accepted[accepted.index(value)]) is type(value):
            return None
        return self.rule or f"one of {', '.join(map(repr, accepted))}"


# Of every kind of convolution that has its own width.
CHANNELS = Choice("channels", "channels", default=32, accepted=range(1, 4097), rule="an integer from 1 to 4096")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """How a layer is shown."""

    text: str  # in a listing, of at most 34 characters
    label: str  # of its box in a drawing; one or two lines
    legend: str | None = None  # of all boxes of these colours; None: none
    face: str = "#FFFFFF"
    edge: str = "#6B6B6B"


def first_width(widths: Sequence[Number], values: Values) -> Number:
    """That of the first input."""
    return widths[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerKind:
    """A kind of layer. `widths` are the channels of its inputs, one or two, as `widths_of` tells them.

    A fork's functions belong at the level of a module, since jobs carry its records to their workers by reference.
    """

    name: str
    inputs: int = 1  # or 2: a layer that joins two earlier layers, none of them the image
    # What two inputs must have in common: "size" (H x W), "shape" (H x W and width), or "nothing", of which genomes
    # have none; None: there is one input.
    agree: str | None = None
    choices: tuple[Choice, ...] = ()
    # Whether the output has half the height and width, rounded up; or the choice whose value divides them, rounded up,
    # which is 1 or 2 in a search space.
    halves: bool | str = False
    flattens: bool = False  # whether it reads its one input as one pixel of H x W x C channels; the output is 1 x 1
    width: Callable[[Sequence[Number], Values], Number] = first_width  # channels of the output
    parameters: Callable[[Sequence[Number], Values], Number] | None = None  # trainable values; None: no layer has any
    # (taps, widths, values) -> of one image: 2 a multiply-add of convolutions on real pixels, nothing else; None: 0.
    flops: Callable[[int, Sequence[Number], Values], Number] | None = None
    taps: Callable[[Size, Values], int] | None = None  # of an input's H x W, on the host; None: the output's area
    # (inputs, values, norm=, name=) -> output: [B, H, W, C] maps of one floating dtype. It is called within a compact
    # Flax module, in which `name` is the layer's own, and imports Flax itself: the evolution arm does without.
    # `norm(name=)` makes a module of batch normalisation and ReLU.
    layer: Any = None
    look: Any = None  # (values, width) -> Look
    # How an export says it; None: networks that have it are exported as StableHLO alone.
    # (names of inputs, values, width, name of the layer) -> a Python expression, see `eigen_jax.export.flax_source`.
    code: Callable[[Sequence[str], Values, int, str], str] | None = None
    # (graph, names of inputs, values, name of the layer) -> the name of the output, see `eigen_jax.export.onnx_graph`.
    onnx: Callable[[Any, Sequence[str], Values, str], str] | None = None

    @property
    def choice_names(self) -> tuple[str, ...]:
        """Of its choices, sorted."""
        return tuple(sorted(choice.name for choice in self.choices))

    def divisor(self, values: Values) -> int:
        """What a layer of these values divides height and width by."""
        return getattr(values, self.halves) if isinstance(self.halves, str) else 1 + self.halves

    def output_size(self, size: Size, values: Values) -> Size:
        """H and W of the output, of those of the first input."""
        by = self.divisor(values)
        return (1, 1) if self.flattens else (-(-size[0] // by), -(-size[1] // by))

    def widths_of(self, shapes: Sequence[Shape]) -> tuple[int, ...]:
        """The `widths` that its functions take, of inputs of these H, W, C."""
        return tuple(math.prod(shape) if self.flattens else shape[2] for shape in shapes)

    def count_taps(self, size: Size, values: Values) -> int:
        """What `flops` counts with, for an input of H x W."""
        return self.taps(size, values) if self.taps else math.prod(self.output_size(size, values))


KINDS: Registry[LayerKind] = Registry("layer kind")


def register(kind: LayerKind) -> LayerKind:
    """Adds a kind to the table, and gives it; raises ConfigError where there is another of its name."""
    return KINDS.add(kind.name, kind)


def valid_taps(size: Sequence[int], kernel: int, stride: int) -> int:
    """Kernel taps that fall on an H x W map, not on the padding, summed over the outputs of a SAME convolution."""
    total = 1
    for side in size:
        outputs = -(-side // stride)
        padding = max((outputs - 1) * stride + kernel - side, 0)
        starts = range(-(padding // 2), outputs * stride - padding // 2, stride)
        total *= sum(min(start + kernel, side) - max(start, 0) for start in starts)
    return total
