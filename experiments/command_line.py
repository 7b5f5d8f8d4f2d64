"""The command line: that of the settings, made by tyro from the library's configs, and small parsers beside it."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from eigen_jax.config import Config, Setting, settings_of, without_none
from eigen_jax.data.types import DatasetName
from experiments.presets import DEFAULT_PRESET, PRESETS
from experiments.screen import show
from experiments.settings import Settings, SettingsError, changed, flag_of

_ABOUT = "Searches network architectures from scratch by ecological succession (EIGEN, CVPR 2019)."


class Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit, and knows options by their whole names only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message.removeprefix('argument ')}; --help explains every setting")

    def print_help(self, file: Any = None) -> None:
        if file is not None:
            return super().print_help(file)
        # argparse's own says nothing where it cannot be written.
        show(self.format_help().removesuffix("\n"))


def parse(
    argv: Sequence[str], *, program: str, presets: Mapping[str, Settings], default: str, about: str = _ABOUT
) -> Settings:
    """The settings that a command line asks for: those of its preset, but for what it sets itself.

    Prints the help, or what is wrong with the command line, and raises SystemExit, as argparse does.

    Args:
        argv: the arguments, without the program's name.
        program: what the help calls the program.
        presets: by name.
        default: the preset where the command line names none.
        about: what the help says of the program.

    Raises:
        SettingsError: a preset that there is not, or a path that cannot be.
        ConfigError: a value that cannot be.
    """
    parser = Parser(add_help=False)
    parser.add_argument("--preset", default=default)
    given, rest = parser.parse_known_args(argv)
    preset = presets.get(given.preset)
    if preset is None:
        hint = did_you_mean(given.preset, presets)
        raise SettingsError(f"there is no preset {given.preset!r}; {hint}choose from {', '.join(presets)}")
    about += (
        f" The defaults are those of the preset {given.preset}; --preset NAME starts from another one:"
        f" {', '.join(presets)}."
    )
    help = io.StringIO()
    try:
        with contextlib.redirect_stdout(help):
            values: Any = tyro.cli(
                Settings, prog=program, description=about, args=rest, default=preset, registry=_REGISTRY
            )
    except SystemExit:
        if help.getvalue():
            show(help.getvalue().removesuffix("\n"))
        raise
    settings = changed(preset, values)
    settings.check()
    return dataclasses.replace(
        settings, run_dir=settings.run_dir.absolute(), teacher_dir=settings.teacher_dir.absolute()
    )


def parse_with_dataset(argv: Sequence[str], *, program: str, about: str) -> Settings:
    """The settings that a command line asks for, of the data set that it names with --dataset.

    Args:
        argv: the arguments, without the program's name.
        program: what the help calls the program, with its --dataset.
        about: what the help says of it.

    Raises:
        SettingsError, ConfigError: as `parse` does, or the data set is missing or none that there is.
    """
    parser = Parser(add_help=False)
    parser.add_argument("--dataset")
    given, rest = parser.parse_known_args(argv)
    names = get_args(DatasetName)
    if given.dataset is None and {"-h", "--help"} & set(rest):
        given.dataset = names[0]
    if given.dataset is None:
        raise SettingsError(f"--dataset is missing; choose from {', '.join(names)}")
    if given.dataset not in names:
        hint = did_you_mean(given.dataset, names)
        raise SettingsError(f"there is no data set {given.dataset!r}; {hint}choose from {', '.join(names)}")
    name: DatasetName = given.dataset
    return parse(rest, program=program, presets=PRESETS[name], default=DEFAULT_PRESET[name], about=about)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to put before a list of what is known; empty where nothing is like the word."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""


class _WrongValueError(argparse.ArgumentTypeError, ValueError):
    """A text that is no value, as both argparse and tyro know it."""


def positive(text: str) -> int:
    """The type of an option that takes a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise _WrongValueError(f"is {text!r}; it must be a whole number of at least 1")
    return int(text)


def absolute_path(text: str) -> Path:
    """The type of an option that takes a path, which is absolute from here on; a leading ~ is the home folder."""
    if not text:
        raise _WrongValueError("is empty; it must be a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise _WrongValueError(
            f"is {text!r}, and that home folder is not known; write the path out, or ./~ for a name that begins so"
        ) from None
    except FileNotFoundError:
        raise _WrongValueError(
            f"is {text!r}, and the folder that it starts from, where you are, is gone; go to another one"
        ) from None


def read_path(name: str, text: str) -> Path:
    """What `absolute_path` makes of an argument.

    Raises:
        SettingsError: it cannot be one; names it.
    """
    try:
        return absolute_path(text)
    except _WrongValueError as error:
        raise SettingsError(f"{name} {error}") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _WrongValueError(f"is {text!r}; it must be a whole number") from None


def _finite(text: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise _WrongValueError(f"is {text!r}; it must be a finite number")


_READERS: Mapping[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("N", _whole),
    float: ("X", _finite),
    str: ("TEXT", str),
    Path: ("PATH", absolute_path),
}
_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _value(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """How tyro reads numbers, texts and paths, which need not be given, and tuples of numbers."""
    kind = without_none(info.type)
    is_tuple = get_origin(kind) is tuple
    kind = get_args(kind)[0] if is_tuple else kind
    if kind not in _READERS:
        return None
    metavar, read = _READERS[kind]
    return PrimitiveConstructorSpec(
        nargs="*" if is_tuple else 1,
        metavar=f"[{metavar} ...]" if is_tuple else metavar,
        instance_from_str=lambda texts: tuple(map(read, texts)) if is_tuple else read(texts[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(each) for each in (value if is_tuple else [value])],
    )


@_REGISTRY.struct_rule
def _config(info: StructTypeInfo) -> StructConstructorSpec | None:
    """How tyro reads a config: as a dictionary of what has a flag, from which `changed` makes the config.

    Not the config itself, whose errors tyro would show with the names of the fields.
    """
    if not (isinstance(info.type, type) and issubclass(info.type, Config)):
        return None
    fields = []
    kind: Any
    for name, kind, known in settings_of(info.type):
        if isinstance(kind, type) and issubclass(kind, Config):
            # The name heads the part in the help; the flags have theirs without it.
            kind = Annotated[kind, tyro.conf.arg(name=name)]
        elif known.flag:
            flag = flag_of(info.type, name).removeprefix("--")
            kind = Annotated[kind, tyro.conf.arg(name=flag, prefix_name=False)]
        else:
            continue
        fields.append(StructFieldSpec(name, cast(Any, kind), getattr(info.default, name), _help(known)))
    return StructConstructorSpec(dict, tuple(fields))


def _help(known: Setting) -> str:
    return known.help if known.paper is None else f"{known.help} (paper: {known.paper})"
