"""The check of a record, when a search space is made of it: that it is whole, and that its parts say the same."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from eigen_jax.errors import ConfigError, first_line
from eigen_jax.layer_kinds.kind import LayerKind, Look, Values

_RESERVED = {"op", "inputs", "length", "values", "replace", "capacity", "choices", "IMAGE", "UNUSED", "schema_version"}
_MOST_VALUES = 127  # which genes index as int8
# H, W, C of the maps that modules are tried on.
_MAPS = {
    None: ((5, 4, 3),),
    "size": ((5, 4, 3), (5, 4, 5)),
    "shape": ((5, 4, 3), (5, 4, 3)),
    "nothing": ((5, 4, 3), (2, 7, 5)),
}
_WIDEST = 1 << 20  # of the maps of any network


def check_kind(kind: LayerKind, options: Mapping[str, Any], *, builds: bool) -> None:
    """Raises ConfigError, in one line, for a record that lacks something or contradicts itself.

    `options` are the values of its choices in the search space, by name. With `builds`, its module is traced, once a
    process for each record and values, for the shape of its output and the number of its parameters.
    """
    try:
        problem = next(_of_form(kind, options), None) or _of_parts(kind, tuple(sorted(options.items())), builds)
    except Exception as error:  # where something is of another type
        problem = f"is no sound record ({type(error).__name__}: {first_line(error)})"
    if problem is not None:
        raise ConfigError(None, "the layer kind {!r} {}; mend its record", kind.name, problem)


def _of_form(kind: LayerKind, options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the fields by themselves."""
    if not kind.name.isidentifier():
        yield "needs another name, of letters, digits and underscores"
    if missing := [part for part in ("width", "layer", "look") if not callable(getattr(kind, part))]:
        yield f"lacks {' and '.join(missing)}"
    if (kind.inputs, kind.agree) not in ((1, None), (2, "size"), (2, "shape"), (2, "nothing")):
        given = f"inputs {kind.inputs!r} and agree {kind.agree!r}"
        yield f"has {given}; they must be 1 and None, or 2 and 'size', 'shape' or 'nothing'"
    if kind.flattens is not False and (kind.flattens is not True or kind.inputs != 1 or kind.halves is not False):
        yield f"has flattens {kind.flattens!r}; it must be True or False, and False where it has two inputs or halves"
    for choice in kind.choices:
        values = options[choice.name]
        what = f"has {choice.name} {values!r}"
        if choice.name in _RESERVED or not choice.name.isidentifier():
            yield f"has a choice {choice.name!r}; choose another name, of letters, digits and underscores"
        if not isinstance(values, tuple) or not all(isinstance(value, str) or math.isfinite(value) for value in values):
            yield f"{what}; it must be a tuple of numbers or strings, or name one of GenomeSpec"
        if not 1 <= len(set(values)) == len(values) <= _MOST_VALUES:
            yield f"{what}; it must be 1 to {_MOST_VALUES} different values"
        if not isinstance(choice.values, str) and choice.default is not None and choice.default not in values:
            yield f"{what}, and the default {choice.default!r} is not among them"
        if wrong := [(value, rule) for value in values if (rule := choice.refusal(value))]:
            yield "has {} {!r}; it must be {}".format(choice.name, *wrong[0])
    if len(options) < len(kind.choices):
        yield "has two choices of one name"
    if not isinstance(kind.halves, bool) and not {*map(repr, options.get(kind.halves, "?"))} <= {"1", "2"}:
        yield f"has halves {kind.halves!r}; it must be True, False, or a choice of its own of the values 1 and 2 alone"


@functools.lru_cache(maxsize=256)
def _of_parts(kind: LayerKind, options: tuple[tuple[str, tuple[Any, ...]], ...], builds: bool) -> str | None:
    """What is wrong with what its functions give, for the extreme values of its choices and of its inputs' widths."""
    # The smallest and the largest value of each choice, and every one that is no number, in all combinations.
    ends = [{min(each), max(each)} if all(map(is_numeric, each)) else each for _, each in options]
    for combination in itertools.product(*ends):
        chosen = dict(zip(dict(options), combination, strict=True))
        for part, call, is_right, rule in _probes(kind, SimpleNamespace(**chosen), builds):
            try:
                problem = None if is_right(given := call()) else f"gives {given}, {rule}"
            except Exception as error:
                problem = f"raises {type(error).__name__}: {first_line(error)}"
            if problem:
                shown = ", ".join(f"{name} {value!r}" for name, value in chosen.items()) or "no choices"
                return f"has a {part} that {problem}, for {shown}"
    return None


Probe = tuple[str, Callable[[], Any], Callable[[Any], bool], str]


def _probes(kind: LayerKind, values: Values, builds: bool) -> Iterator[Probe]:
    """Calls of each part, whether what they give is right, and what it is otherwise."""
    for part, sizes in (("width", ()), ("parameters", ()), ("flops", (1,))):
        numbers, dtype = (range(1, 1 << 30), jnp.int32) if part == "width" else (range(1 << 60), jnp.float32)
        if function := getattr(kind, part):
            for width in (1, _WIDEST):
                call = functools.partial(function, *sizes, (width,) * kind.inputs, values)
                yield f"function {part}", call, *_whole(numbers)
            call = functools.partial(_traced, function, dtype, sizes, kind.inputs, values)
            yield f"function {part}", call, lambda shape: shape == (), "the shape of no scalar, as array code"
    maps = _MAPS[kind.agree]
    yield "function taps", lambda: kind.count_taps(maps[0][:2], values), *_whole(range(1 << 60))
    yield "function look", lambda: kind.look(values, 1), lambda look: isinstance(look, Look), "no Look"
    if builds:
        widths = kind.widths_of(maps)
        parameters = kind.parameters(widths, values) if kind.parameters else 0
        shape = (1, *kind.output_size(maps[0][:2], values), kind.width(widths, values))
        ought = f"{shape} bfloat16 and {parameters:,} parameters"
        yield "layer", lambda: _built(kind, values), lambda given: given == ought, f"where its record says {ought}"


def _whole(numbers: range) -> tuple[Callable[[Any], bool], str]:
    rule = f"no whole number from {numbers.start} to {numbers.stop:,}"
    return lambda number: type(number) is int and number in numbers, rule


def _traced(function: Any, dtype: Any, sizes: tuple[int, ...], inputs: int, values: Values) -> tuple[int, ...]:
    """The shape that a function gives as array code, in which numbers are scalars of one dtype."""
    scalar, real = jax.ShapeDtypeStruct((), dtype), jax.ShapeDtypeStruct((), jnp.float32)
    known = {name: value for name, value in vars(values).items() if is_numeric(value)}
    numbers = {name: real if isinstance(value, float) else scalar for name, value in known.items()}

    def trace(numbers: Mapping[str, Any], *arguments: Any) -> Any:
        return jnp.asarray(function(*arguments, SimpleNamespace(**{**vars(values), **numbers})))

    return jax.eval_shape(trace, numbers, *[scalar] * len(sizes), (scalar,) * inputs).shape


def _built(kind: LayerKind, values: Values) -> str:
    """What the module of a kind makes of a small map, and the number of its parameters."""
    from flax import linen as nn

    from eigen_jax.layers import BatchNormRelu

    class Alone(nn.Module):
        """One layer, within a network that is nothing else."""

        train: bool = False

        @nn.compact
        def __call__(self, inputs):
            norm = functools.partial(BatchNormRelu, use_running_average=not self.train)
            return kind.layer(inputs, values, norm=norm, name="layer_0")

    maps = [jax.ShapeDtypeStruct((1, *shape), jnp.bfloat16) for shape in _MAPS[kind.agree]]
    output, variables = jax.eval_shape(lambda maps: Alone().init_with_output(jax.random.key(0), maps), maps)
    # In training, random numbers are at hand for dropout alone.
    train = functools.partial(Alone(train=True).apply, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    jax.eval_shape(train, variables, maps)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))
    return f"{output.shape} {output.dtype} and {count:,} parameters"


def is_numeric(value: Any) -> bool:
    """Whether array code takes a value as a number: neither a string nor a Boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)
