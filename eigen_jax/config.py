"""Settings, said once: the fields of frozen dataclasses, with default, bounds, help and the paper's value.

A config is a dataclass that derives from `Config`. Each of its fields is a `setting`, or a `part`: another
config. It checks its values when it is made; the command line is made of the same fields.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import math
import numbers
import operator
import types
from collections.abc import Callable
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

from eigen_jax.errors import ConfigError

T = TypeVar("T")

SEED_MAX = 2**32 - 1
INT64_MAX = 2**63 - 1
_INT32_MAX = 2**31 - 1  # which counts are on the device

_NUMBERS: dict[Any, tuple[Any, str]] = {
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a finite number"),
    bool: (bool, "True or False"),
    str: (str, "text"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of a field besides its type and its default."""

    help: str  # what it is, with its unit
    paper: str = "not stated"  # what the paper has
    at_least: float | None = None  # bounds of a number, or of each number of a tuple
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: int | None = None  # the most values of a tuple, which are then all different, and at least one
    flag: str | bool = True  # on the command line: False: none; True: as the field is called; of a part: a prefix

    def range_without(self, value: Any) -> str | None:
        """The bounds in words, where a number is out of them."""
        bounds: list[tuple[str, Callable[[Any, Any], bool], float | None]] = [
            ("at least", operator.ge, self.at_least),
            ("more than", operator.gt, self.above),
            ("at most", operator.le, self.at_most),
            ("less than", operator.lt, self.below),
        ]
        if all(bound is None or holds(value, bound) for _, holds, bound in bounds):
            return None
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:,} to {self.at_most:,}"
        return " and ".join(f"{word} {bound:,}" for word, _, bound in bounds if bound is not None)


def setting(default: T, help: str, **known: Any) -> T:
    """A field of a config, with its default and what a `Setting` holds."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help=help, **known)})


def part(make: Callable[[], T], help: str, **known: Any) -> T:
    """A field of a config that is a config itself; `make` makes its default."""
    return dataclasses.field(default_factory=make, metadata={"setting": Setting(help=help, **known)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs; static and hashable.

    Raises:
        ConfigError: a value of another type than its field, or out of its bounds.
    """

    def __post_init__(self) -> None:
        for name, kind, known in settings_of(type(self)):
            value = getattr(self, name)
            if problem := _problem(value, kind, known):
                shown = repr(value) if isinstance(value, str) else str(value)
                raise ConfigError(type(self), f"{{{name}}} is {{}}; {problem}", shown)


def settings_of(config: type[Config]) -> tuple[tuple[str, Any, Setting], ...]:
    """The name, the type and the `Setting` of each field of a config."""
    kinds = get_type_hints(config)
    return tuple((field.name, kinds[field.name], field.metadata["setting"]) for field in dataclasses.fields(config))


def is_config(kind: Any) -> TypeGuard[type[Config]]:
    """Whether a type is that of a config, as the types of parts are."""
    return isinstance(kind, type) and issubclass(kind, Config)


def without_none(kind: Any) -> Any:
    """The X of X | None; any other type as it is."""
    return get_args(kind)[0] if _is_union(kind) and types.NoneType in get_args(kind) else kind


def takes_function(kind: Any) -> bool:
    """Whether a type is that of a setting which is a name, or a function of the user's own: str | Callable."""
    return _is_union(kind) and any(get_origin(each) is Callable for each in get_args(kind))


def name_of(value: Any) -> Any:
    """What a record calls a function, a class or a callable object: another name is another one. Other values stay.

    That of a user's has the start of the SHA-256 of its file, or of its source where it is in none, unless its class
    has a `__str__` that says it all. What a function closes over is not told: a setting is to be a field of a frozen
    dataclass that can be called.
    """
    if not callable(value):
        return value
    if isinstance(value, functools.partial):
        return f"{name_of(value.func)} with {value.args} {value.keywords}"
    made_of: Any = value if hasattr(value, "__qualname__") else type(value)
    if made_of.__str__ is not object.__str__ and made_of is not value:
        return str(value)
    is_instance = dataclasses.is_dataclass(value) and made_of is not value
    name = f"{made_of.__module__}:{value if is_instance else made_of.__qualname__}"
    with contextlib.suppress(OSError, TypeError):
        module: Any = inspect.getmodule(made_of)
        source = inspect.getsource(module if hasattr(module, "__file__") else made_of)
        return f"{name} {hashlib.sha256(source.encode()).hexdigest()[:12]}"
    return name


def describe(config: Config) -> dict[str, Any]:
    """The values of a config by their fields, parts as dictionaries of theirs, functions by `name_of`."""
    values = {name: getattr(config, name) for name, _, _ in settings_of(type(config))}
    return {name: describe(v) if isinstance(v, Config) else name_of(v) for name, v in values.items()}


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _problem(value: Any, kind: Any, known: Setting) -> str | None:
    """What a value must be that it is not."""
    if value is None and kind is not without_none(kind):
        return None
    kind = without_none(kind)
    if takes_function(kind):
        return None if isinstance(value, str) or callable(value) else "it must be a name or a function"
    if get_origin(kind) is Literal:
        return None if value in get_args(kind) else f"it must be one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            return "it must be a tuple"
        if known.choices and not 1 <= len(set(value)) == len(value) <= known.choices:
            return f"it must be 1 to {known.choices} different values"
        problems = (_problem(each, get_args(kind)[0], known) for each in value)
        return next((f"{problem}, each" for problem in problems if problem), None)
    if kind not in _NUMBERS:
        return None
    accepted, words = _NUMBERS[kind]
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool) or not is_finite:
        return f"it must be {words}"
    if bounds := known.range_without(value):
        return f"it must be {bounds}"
    return f"it must be at most {_INT32_MAX:,}" if kind is int and not known.at_most and value > _INT32_MAX else None
