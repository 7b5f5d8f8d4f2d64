"""The command line of an experiment, made from the fields of `Settings`.

argparse, because it can be told to raise: every mistake ends as a `SettingsError` of one line.
"""

import argparse
import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from eigen_jax.data.types import DatasetName
from experiments.presets import DEFAULT_PRESET, PRESETS
from experiments.screen import show
from experiments.settings import Help, Settings, SettingsError, flag

_TYPES = get_type_hints(Settings)
_HELP: dict[str, Help] = {
    name: kind.__metadata__[0] for name, kind in get_type_hints(Settings, include_extras=True).items()
}
_ABOUT = "Searches network architectures from scratch by ecological succession (EIGEN, CVPR 2019)."
_WANTED = {int: "a whole number", float: "a finite number"}


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

    Prints the help and raises SystemExit where that is asked for.

    Args:
        argv: the arguments, without the program's name.
        program: what the help calls the program.
        presets: by name.
        default: the preset where the command line names none.
        about: what the help says of the program.

    Raises:
        SettingsError: a preset or a setting that does not exist, or a value of a wrong type.
    """
    given, unknown = _build_parser(program, presets, default, about).parse_known_args(argv)
    if unknown:
        _refuse(unknown)
    arguments = vars(given)
    preset = arguments.pop("preset", default)
    if preset not in presets:
        raise SettingsError(
            f"there is no preset {preset!r}; {did_you_mean(preset, presets)}choose from {', '.join(presets)}"
        )
    if arguments.pop("help", False):
        _build_parser(program, presets, preset, about).print_help()
        raise SystemExit(0)
    values = {name: _convert(flag(name), text, _TYPES[name]) for name, text in arguments.items()}
    places = {name: place.absolute() for name, place in vars(presets[preset]).items() if isinstance(place, Path)}
    return dataclasses.replace(presets[preset], **(places | values))


def parse_with_dataset(argv: Sequence[str], *, program: str, about: str) -> tuple[DatasetName, Settings]:
    """The data set that a command line names with --dataset, and the settings that it asks for.

    Args:
        argv: the arguments, without the program's name.
        program: what the help calls the program, with its --dataset.
        about: what the help says of it.

    Raises:
        SettingsError: as `parse` does, or the data set is missing or none that there is.
    """
    parser = Parser(add_help=False)
    parser.add_argument("--dataset")
    given, rest = parser.parse_known_args(argv)
    names = get_args(DatasetName)
    if given.dataset not in names:
        if {"-h", "--help"} & set(rest):
            given.dataset = names[0]
        elif given.dataset is None:
            raise SettingsError(f"--dataset is missing; choose from {', '.join(names)}")
        else:
            hint = did_you_mean(given.dataset, names)
            raise SettingsError(f"there is no data set {given.dataset!r}; {hint}choose from {', '.join(names)}")
    name: DatasetName = given.dataset
    return name, parse(rest, program=program, presets=PRESETS[name], default=DEFAULT_PRESET[name], about=about)


def positive(text: str) -> int:
    """The type of an option that takes a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be a whole number of at least 1")
    return int(text)


def absolute_path(text: str) -> Path:
    """The type of an option that takes a path, which is absolute from here on; a leading ~ is the home folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; it must be a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise argparse.ArgumentTypeError(
            f"is {text!r}, and that home folder is not known; write the path out, or ./~ for a name that begins so"
        ) from None
    except FileNotFoundError:
        raise argparse.ArgumentTypeError(
            f"is {text!r}, and the folder that it starts from, where you are, is gone; go to another one"
        ) from None


def read_path(name: str, text: str) -> Path:
    """What `absolute_path` makes of an argument.

    Raises:
        SettingsError: it cannot be one; names it.
    """
    try:
        return absolute_path(text)
    except argparse.ArgumentTypeError as error:
        raise SettingsError(f"{name} {error}") from None


def _build_parser(program: str, presets: Mapping[str, Settings], preset: str, about: str) -> argparse.ArgumentParser:
    """A parser that keeps values as text, and only those that are given; its help shows those of `preset`."""
    parser = Parser(
        prog=program,
        description=about,
        epilog=f"The values in brackets are those of the preset {preset!r}; with --preset, --help shows another's.",
        add_help=False,
        argument_default=argparse.SUPPRESS,
        usage=f"{program} [--preset {{{','.join(presets)}}}] [--SETTING VALUE ...]",
    )
    groups: dict[str, Any] = {"run": parser.add_argument_group("run")}
    groups["run"].add_argument("-h", "--help", action="store_true", help="show this and exit")
    groups["run"].add_argument(
        "--preset", metavar="NAME", help=f"the settings to start from: {', '.join(presets)} [{preset}]"
    )
    for name, help in _HELP.items():
        if help.group not in groups:
            groups[help.group] = parser.add_argument_group(help.group)
        text = f"{help.text} [{_show(getattr(presets[preset], name))}]"
        groups[help.group].add_argument(flag(name), **_syntax(_TYPES[name]), help=text.replace("%", "%%"))
    return parser


def _syntax(kind: Any) -> dict[str, Any]:
    """How the values of a type are written."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"metavar": "{" + ",".join(get_args(kind)) + "}"}
    if get_origin(kind) is tuple:
        return {"metavar": "N", "nargs": "*"}
    if get_origin(kind) in (Union, types.UnionType):
        kind = get_args(kind)[0]
    return {"metavar": {int: "N", float: "X", str: "TEXT"}.get(kind, "PATH")}


def _convert(flag: str, text: Any, kind: Any) -> Any:
    """The value that the text of an option stands for.

    Args:
        flag: the option.
        text: what argparse made of it: text, a list of it, or a bool.
        kind: the type of the setting.

    Raises:
        SettingsError: the text is no value of the type.
    """
    if kind is bool:
        return text
    if get_origin(kind) is tuple:
        return tuple(_convert(flag, each, get_args(kind)[0]) for each in text)
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            known = ", ".join(get_args(kind))
            raise SettingsError(f"{flag} is {text!r}; {did_you_mean(text, get_args(kind))}choose from {known}")
        return text
    if get_origin(kind) in (Union, types.UnionType):
        kind = get_args(kind)[0]
    if kind is Path:
        return read_path(flag, text)
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{flag} is {text!r}; it must be {_WANTED[kind]}")
    return value


def _show(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(_show, value)) or "none"
    return str(value)


def _refuse(unknown: Sequence[str]) -> NoReturn:
    argument = next((each for each in unknown if each.startswith("-")), unknown[0]).partition("=")[0]
    if not argument.startswith("-"):
        raise SettingsError(f"{argument!r} belongs to no setting; --help shows them all")
    negated = [f"no_{name}" for name, kind in _TYPES.items() if kind is bool]
    # Compared without the dashes, which would make short names all look alike.
    word = argument.lstrip("-").replace("-", "_")
    close = difflib.get_close_matches(word, ["preset", *_TYPES, *negated], n=1)
    hint = f"did you mean {flag(close[0])}? " if close else ""
    raise SettingsError(f"there is no setting {argument!r}; {hint}--help shows them all")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names what a word is close to, with a space behind it; empty where it is close to nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""
