"""Search spaces (Section 3.1): which layers and operators there are, and what bounds networks keep."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from eigen_jax.config import INT64_MAX, Config, setting
from eigen_jax.errors import ConfigError
from eigen_jax.layer_kinds import BUILT_IN, KINDS, Choice, LayerKind, check_kind
from eigen_jax.registry import Registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operator:
    """A mutation operator that follows from no kind of layer, by three functions: array code, of one genome.

    Its capacity may be less than the search space's, and an application adds one layer at most. What comes out is
    checked, and pruned: a genome that breaks a rule of the search space is drawn again, and does not count.
    """

    name: str
    applicable: Any = None  # (genome, shapes, *, spec) -> [] bool, whether it has a site
    propose: Any = None  # (words [2] uint32, genome, shapes, *, spec) -> pytree of scalars
    apply: Any = None  # (proposal, genome, *, spec) -> the mutant, a Genome


OPERATORS: Registry[Operator] = Registry("mutation operator")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenomeSpec(Config):
    """The search space (Section 3.1), whose bounds at least global pooling alone keeps.

    Raises ConfigError for a kind or an operator that there is not, or whose record is not whole or contradicts itself.
    """

    kinds: tuple[str, ...] = setting(
        ("conv", "concat", "pool"), "kinds of layers, in the order of their operators", paper="these", choices=127
    )
    operators: tuple[str, ...] = setting((), "mutation operators besides those of the layer kinds", paper="none")
    capacity: int = setting(  # G
        256, "the most layers of a network", paper="no limit stated", at_least=1, at_most=16_384
    )
    channels: tuple[int, ...] = setting(
        (16, 32, 48, 64, 96), "output channels of a convolution", paper="these", choices=127, at_least=1, at_most=4_096
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
        10_000_000_000, "the most floating-point operations on one image", paper="no limit stated", at_most=INT64_MAX
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
        for kind in self.ops:
            if kind.agree == "nothing":
                rule = "{!r} joins maps of any two sizes, which no genome does; leave it out"
                raise ConfigError(GenomeSpec, f"{{kinds}} is {{}}; {rule}", self.kinds, kind.name)
            # Tests hold the modules of the built-in kinds against their records; traced here, they look for devices.
            check_kind(kind, self.options[kind.name], builds=kind.name not in BUILT_IN)
        if all(kind.inputs == 2 for kind in self.ops):
            raise ConfigError(GenomeSpec, "{kinds} is {}; one kind at least must read the image", self.kinds)
        for name in self.operators:
            parts = ("applicable", "propose", "apply")
            if missing := [part for part in parts if not callable(getattr(OPERATORS.find(name), part))]:
                rule = "the mutation operator {!r} lacks {}; mend its record"
                raise ConfigError(None, rule, name, " and ".join(missing))
            if operator_names(self).count(name) > 1:
                raise ConfigError(GenomeSpec, "{operators} is {}; there are two operators {!r}", self.operators, name)

    @property
    def ops(self) -> tuple[LayerKind, ...]:
        """The kinds in the order of their codes in a genome, from 1; those of one input first."""
        return tuple(sorted(map(KINDS.find, self.kinds), key=lambda kind: kind.inputs))

    @functools.cached_property
    def first_join(self) -> int:
        """The code of the first kind that has two inputs; none where it is past the last kind."""
        return 1 + sum(kind.inputs == 1 for kind in self.ops)

    @functools.cached_property
    def options(self) -> Mapping[str, Mapping[str, tuple[Any, ...]]]:
        """The values that the indices of a choice stand for, by kind and by the name of the choice, sorted."""

        def values(choice: Choice) -> Any:
            return getattr(self, choice.values, None) if isinstance(choice.values, str) else choice.values

        return {kind.name: dict(sorted((each.name, values(each)) for each in kind.choices)) for kind in self.ops}

    @functools.cached_property
    def choice_names(self) -> tuple[str, ...]:
        """Of all kinds, sorted; the fields of `Genome` that hold indices."""
        return tuple(sorted({name for choices in self.options.values() for name in choices}))

    def code(self, kind: str) -> int:
        """What `Genome.op` has for a kind of this search space."""
        return 1 + [each.name for each in self.ops].index(kind)

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) at each level, from the image down to 1 x 1."""
        height, width, _ = self.input_shape
        levels = range(1 + (max(height, width) - 1).bit_length())
        return tuple((-(-height >> level), -(-width >> level)) for level in levels)  # each half of the last, rounded up

    @property
    def max_level(self) -> int:
        """The level of a 1 x 1 map, which cannot be halved again."""
        return len(self.sizes) - 1


def operator_names(spec: GenomeSpec) -> tuple[str, ...]:
    """The mutation operators in the order in which they are drawn and counted, [O]: first those of the kinds."""
    altered = dict.fromkeys(choice.name for kind in map(KINDS.find, spec.kinds) for choice in kind.choices)
    verbs = ("insert", spec.kinds), ("remove", spec.kinds), ("alter", altered)
    return *(f"{verb}_{name}" for verb, names in verbs for name in names), *spec.operators
