"""The check of a record, when a search space is made of it: that it is whole, and that its parts say the same."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from eigen_jax.errors import ConfigError, first_line
from eigen_jax.layer_kinds.kind import Choice, LayerKind, Look, Values, as_values, lacking

_RESERVED = {"op", "inputs", "length", "values", "replace", "capacity", "choices", "IMAGE", "UNUSED", "schema_version"}
_MOST_VALUES = 127  # which genes index as int8
_SIZE, _WIDTHS = (5, 4), (3, 5)  # of the maps that modules are tried on
_WIDEST = 1 << 20  # of the maps of any network


def check_kind(name: str, kind: Any, options: Mapping[str, Any], *, builds: bool) -> None:
    """Raises ConfigError, in one line, for a record that lacks something or contradicts itself.

    `options` are the values of its choices in the search space, by name. With `builds`, its module is traced, once a
    process for each record and values, for the shape of its output and the number of its parameters.
    """
    problem = next(_of_form(name, kind, options), None)
    if problem is None:
        values = tuple(sorted(options.items()))
        problem = _of_functions(kind, values) or (_of_module(kind, values) if builds else None)
    if problem is not None:
        raise ConfigError(None, "the layer kind {!r} {}; mend its record", name, problem)


def _of_form(name: str, kind: Any, options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the fields by themselves; what is asked for last takes the rest to be right."""
    if not isinstance(kind, LayerKind):
        yield f"is {kind!r}, no LayerKind"
    if kind.name != name or not _is_name(name):
        yield f"has name {kind.name!r}; it must be that of its entry, of letters, digits and underscores"
    if missing := [part for part in ("layer", "look") if getattr(kind, part) in (lacking, None)]:
        yield f"lacks {' and '.join(missing)}"
    for part in ("width", "parameters", "flops", "taps", "layer", "look"):
        if not callable(function := getattr(kind, part)) and (part == "width" or function is not None):
            yield f"has {part} {function!r}, which cannot be called"
    if (kind.inputs, kind.agree) not in ((1, None), (2, "size"), (2, "shape")) or kind.inputs is True:
        given = f"inputs {kind.inputs!r} and agree {kind.agree!r}"
        yield f"has {given}; they must be 1 and None, or 2 and 'size' or 'shape'"
    if not isinstance(kind.choices, tuple) or not all(isinstance(choice, Choice) for choice in kind.choices):
        yield f"has choices {kind.choices!r}; they must be a tuple of Choice"
    for choice in kind.choices:
        yield from _of_choice(choice, options.get(choice.name))
    if len(options) < len(kind.choices):
        yield "has two choices of one name"
    halves, own = kind.halves, options.get(kind.halves, (None,)) if isinstance(kind.halves, str) else ()
    if not isinstance(halves, bool) and not (own and set(map(repr, own)) <= {"1", "2"}):
        yield f"has halves {halves!r}; it must be True, False, or a choice of its own of the values 1 and 2 alone"


def _of_choice(choice: Choice, values: Any) -> Iterator[str]:
    if not _is_name(choice.name) or choice.name in _RESERVED:
        yield f"has a choice {choice.name!r}; choose another name, of letters, digits and underscores"
    what = f"has {choice.name} {values!r}"
    if not isinstance(values, tuple) or not all(map(_is_scalar, values)):
        yield f"{what}; it must be a tuple of numbers or strings, or name one of GenomeSpec"
    if not 1 <= len(set(values)) == len(values) <= _MOST_VALUES:
        yield f"{what}; it must be 1 to {_MOST_VALUES} different values"
    if not isinstance(choice.values, str) and choice.default is not None and choice.default not in values:
        yield f"{what}, and the default {choice.default!r} is not among them"
    if wrong := [(value, rule) for value in values if (rule := choice.refusal(value))]:
        yield f"has {choice.name} {wrong[0][0]!r}; it must be {wrong[0][1]}"


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and not name.startswith("_")


def _is_scalar(value: Any) -> bool:
    """Whether JSON gives a value back as it is."""
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


Options = tuple[tuple[str, tuple[Any, ...]], ...]  # of each choice, hashable


@functools.lru_cache(maxsize=256)
def _of_functions(kind: LayerKind, options: Options) -> str | None:
    """What is wrong with what the functions give, for the extreme values of its choices and of its inputs' widths."""
    for values, shown in _extremes(options):
        for width in (1, _WIDEST):
            widths = (width,) * kind.inputs
            told = {"width": (widths, values), "parameters": (widths, values), "flops": (1, widths, values)}
            for name, arguments in {**told, "count_taps": (_SIZE, values)}.items():
                if (function := getattr(kind, name)) is None:
                    continue
                number, error = _tried(function, *arguments)
                least, most = (1, 1 << 30) if name == "width" else (0, 1 << 60)
                if error or type(number) is not int or not least <= number <= most:
                    what = f"raises {error}" if error else f"gives {number!r}, no whole number from {least} to {most:,}"
                    name = name.removeprefix("count_")
                    return f"has a function {name} that {what}, for inputs of {width:,} channels and {shown}"
        if problem := _of_tracing(kind, values):
            return f"has a function {problem} as array code, for {shown}"
        look, error = _tried(kind.look, values, 1)
        if error or not isinstance(look, Look):
            return f"has a function look that {f'raises {error}' if error else f'gives {look!r}, no Look'}, for {shown}"
    return None


def _of_tracing(kind: LayerKind, values: Values) -> str | None:
    """What is wrong with the functions as array code, in which numbers are scalars of one dtype."""

    def trace(function: Callable[..., Any], numbers: Mapping[str, Any], *sizes: Any) -> Any:
        return jnp.asarray(function(*sizes, as_values({**vars(values), **numbers})))

    for name, dtype in (("width", jnp.int32), ("parameters", jnp.float32), ("flops", jnp.float32)):
        number, real = jax.ShapeDtypeStruct((), dtype), jax.ShapeDtypeStruct((), jnp.float32)
        known = {each: value for each, value in vars(values).items() if is_numeric(value)}
        numbers = {each: real if isinstance(value, float) else number for each, value in known.items()}
        sizes = (number,) * (name == "flops"), (number,) * kind.inputs
        if function := getattr(kind, name):
            told, error = _tried(jax.eval_shape, functools.partial(trace, function), numbers, *sizes[0], sizes[1])
            if error or told.shape != ():
                return f"{name} that {f'raises {error}' if error else f'gives the shape {told.shape}'}"
    return None


@functools.lru_cache(maxsize=256)
def _of_module(kind: LayerKind, options: Options) -> str | None:
    """What the module of a kind has that its record says otherwise, on a small map."""
    from flax import linen as nn

    from eigen_jax.layers import BatchNormRelu

    class Alone(nn.Module):
        """One layer, within a network that is nothing else."""

        @nn.compact
        def __call__(self, inputs):
            norm = functools.partial(BatchNormRelu, use_running_average=True)
            return kind.layer(inputs, values, norm=norm, name="layer_0")

    key = jax.eval_shape(lambda: jax.random.key(0))
    widths = {"size": _WIDTHS, "shape": _WIDTHS[:1] * 2}.get(kind.agree or "", _WIDTHS[:1])
    maps = [jax.ShapeDtypeStruct((1, *_SIZE, width), jnp.bfloat16) for width in widths]
    for values, shown in _extremes(options):
        built, error = _tried(jax.eval_shape, Alone().init_with_output, key, maps)
        if error:
            return f"has a layer that raises {error}, for {shown}"
        output, variables = built
        shape = (1, *kind.output_size(_SIZE, values), kind.width(widths, values))
        ought = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
        if (given := jax.tree.map(str, output)) != str(ought):
            return f"has a layer that gives {given} where its record says {ought}, for {shown}"
        count = sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))
        told = 0 if kind.parameters is None else kind.parameters(widths, values)
        if count != told:
            return f"has a layer of {count:,} parameters where its record says {told:,}, for {shown}"
    return None


def _extremes(options: Options) -> Iterator[tuple[Values, str]]:
    """The smallest and the largest value of each choice, and every one that is no number, in all combinations."""
    ends = [tuple(dict.fromkeys((min(each), max(each)))) if all(map(is_numeric, each)) else each for _, each in options]
    for combination in itertools.product(*ends):
        values = dict(zip(dict(options), combination, strict=True))
        yield as_values(values), ", ".join(f"{name} {value!r}" for name, value in values.items()) or "no choices"


def is_numeric(value: Any) -> bool:
    """Whether array code takes a value as a number: neither a string nor a Boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tried(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """What a function of a fork's gives, and what it raises instead, in one line."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, f"{type(error).__name__}: {first_line(error)}"
