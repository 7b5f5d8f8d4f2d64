"""The command line: that of the settings, made by tyro from the library's configs, and small parsers beside it."""

import argparse
import contextlib
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin

import tyro
from tyro import constructors

from eigen_jax.config import Config, is_config, name_of, settings_of, takes_function, without_none
from eigen_jax.data import DataConfig, resolve
from eigen_jax.data.types import DatasetName
from eigen_jax.genome import OPERATORS
from eigen_jax.layer_kinds import KINDS
from eigen_jax.registry import Registry, check_there_is
from experiments.commands import make_console, show
from experiments.own import OwnFileError, is_own, load
from experiments.presets import DEFAULT_PRESET, PRESETS, default_preset
from experiments.progress import LiveBars
from experiments.settings import FLAGS, Settings, SettingsError, flag_of

C = TypeVar("C", bound=Config)
Change = Callable[[str, Settings], Settings]  # of a preset, which has a name

_ABOUT = "Searches network architectures from scratch by ecological succession (EIGEN, CVPR 2019)."


class Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit, and knows options by their whole names only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message.removeprefix('argument ')}; --help explains every setting")

    def print_help(self, file: Any = None) -> None:
        # argparse's own says nothing where it cannot be written.
        show(self.format_help().removesuffix("\n"))


def _registered(text: str, setting: str) -> str:
    """The name of a record in a file of the user's, which registers it."""
    table: Registry[Any] = OPERATORS if setting == "operators" else KINDS
    record = load(text, f"--{setting}")
    name = next((name for name, each in table.items() if each is record), None)
    if name is None:
        raise OwnFileError(f"--{setting}: {text} is no {table.what} that its file registers")
    return name


class _LoadKinds(argparse.Action):
    """Imports files of layer kinds, which register them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        for text in values:
            _registered(text, "kinds")


# The option of commands that read a network, for `add_argument`.
KINDS_OPTION: Mapping[str, Any] = {
    "nargs": "+", "action": _LoadKinds, "metavar": "FILE.py:NAME", "help": "kinds of layers of your own that it has"
}  # fmt: skip


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of commands that read the data of a run, see `experiments.evaluate.load_trained`."""
    add = parser.add_argument
    add("--data-dir", type=absolute_path, metavar="PATH", help="where the data are, if not where they were")
    add("--cache-dir", type=absolute_path, metavar="PATH", help="folder of what is kept between runs")
    add("--source", metavar="FILE.py:NAME", help="a source of your own that the run's images are from")


def parse(
    argv: Sequence[str] | None,
    *,
    program: str,
    about: str = _ABOUT,
    dataset: DatasetName | None = None,
    change: Change | None = None,
) -> Settings:
    """The settings that a command line asks for: those of its preset, but for what it sets itself.

    Without `argv` it is that of this process; without a data set, it names one with --dataset. `change` makes others of
    a preset and its name, from which the command line then starts. Shows the help, or a box that says what is wrong,
    and raises SystemExit, as argparse does; raises EigenError for what cannot be.
    """
    parser = Parser(add_help=False)
    parser.add_argument("--preset")
    if dataset is None:
        parser.add_argument("--dataset")
    given, rest = parser.parse_known_args(argv)
    if dataset is None:
        known = get_args(DatasetName)
        dataset = given.dataset or (None if {"-h", "--help"}.isdisjoint(rest) else known[0])
        if dataset is None:
            raise SettingsError(f"--dataset is missing; choose from {', '.join(known)}")
        check_there_is("data set", dataset, known)
    for option in (word.partition("=")[0] for word in rest if word.startswith("--")):
        if "_" in option:  # which tyro takes for a hyphen
            raise SettingsError(f"there is no setting {option!r}; did you mean {option.replace('_', '-')}?")
    presets, name = PRESETS[dataset], given.preset or default_preset(dataset)
    check_there_is("preset", name, presets)
    preset = change(name, presets[name]) if change else presets[name]
    # Nobody should start months of work by leaving a word out.
    is_spared = given.preset is None and name != DEFAULT_PRESET[dataset]
    why = f", since JAX finds no GPU ({DEFAULT_PRESET[dataset]}, where it finds one)" if is_spared else ""
    about += f" The defaults are those of the preset {name}{why};"
    about += f" --preset NAME starts from another one: {', '.join(presets)}."
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
    settings = _changed(preset, values)
    settings = _for_images(settings, is_batch_given="--batch-size" in {word.partition("=")[0] for word in rest})
    settings.check()
    if is_spared:
        print(f"Preset {name}{why}; --preset NAME chooses")
    run_dir, teacher_dir = settings.run_dir.absolute(), settings.teacher_dir.absolute()
    return dataclasses.replace(settings, run_dir=run_dir, teacher_dir=teacher_dir)


def read_images(data: DataConfig) -> DataConfig:
    """The data with what is known of images of one's own, which are read for it, with progress shown."""
    if data.name != "images":
        return data
    with LiveBars(make_console()) as bars:
        return resolve(data, lambda done, total: bars.show("reading images", done, total, f"{done:,} of {total:,}"))


def _for_images(settings: Settings, *, is_batch_given: bool) -> Settings:
    """The settings for images as they are found: a preset's batch is at most an eighth of those to train on."""
    settings = dataclasses.replace(settings, data=read_images(settings.data))
    found, train = settings.data.found, settings.search.train
    if found is None or is_batch_given or train.batch_size <= found.train // 8:
        return settings
    size = max(1, found.train // 8)
    size = max(1, size // settings.machine.devices) * settings.machine.devices
    train = dataclasses.replace(train, batch_size=size)
    return dataclasses.replace(settings, search=dataclasses.replace(settings.search, train=train))


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
        why = "that home folder is not known; write the path out, or ./~ for a name that begins so"
    except FileNotFoundError:
        why = "the folder that it starts from, where you are, is gone; go to another one"
    raise _WrongValueError(f"is {text!r}, and {why}")


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
    Any: ("NAME|FILE.py:NAME", str),  # of a function, which `_changed` loads where it is the user's own
}
_REGISTRY = constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _value(info: constructors.PrimitiveTypeInfo) -> constructors.PrimitiveConstructorSpec | None:
    """How tyro reads numbers, texts and paths, which need not be given, tuples of them, and names of functions.

    A number that need not be given, and that a preset gives, is taken back with "none".
    """
    kind = without_none(info.type)
    may_be_none = kind is not info.type and kind in (int, float)
    is_tuple = get_origin(kind) is tuple
    kind = get_args(kind)[0] if is_tuple else kind
    if kind not in _READERS:
        return None
    metavar, read = _READERS[kind]
    return constructors.PrimitiveConstructorSpec(
        nargs="*" if is_tuple else 1,
        metavar=f"[{metavar} ...]" if is_tuple else metavar,
        instance_from_str=lambda texts: (
            None if may_be_none and texts[0] == "none" else tuple(map(read, texts)) if is_tuple else read(texts[0])
        ),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(name_of(each)) for each in (value if is_tuple else [value])],
    )


@_REGISTRY.struct_rule
def _config(info: constructors.StructTypeInfo) -> constructors.StructConstructorSpec | None:
    """How tyro reads a config: as a dictionary of what has a flag, from which `_changed` makes the config.

    Not the config itself, whose errors tyro would show with the names of the fields.
    """
    if not is_config(info.type):
        return None
    fields = []
    for name, kind, known in settings_of(info.type):
        flag, help = FLAGS.get((info.type, name)), known.help
        if is_config(kind):
            argument = tyro.conf.arg(name=name)  # which heads the part in the help; flags have no prefix
        elif flag:
            argument = tyro.conf.arg(name=flag.name.replace("_", "-"), prefix_name=False)
            help += f" (paper: {known.paper})" if flag.is_of_outcome else ""
        else:
            continue
        annotated: Any = Annotated[Any if takes_function(kind) else kind, argument]
        fields.append(constructors.StructFieldSpec(name, annotated, getattr(info.default, name), help))
    return constructors.StructConstructorSpec(dict, tuple(fields))


def load_own(text: str, what: str) -> Any:
    """What FILE.py:NAME names; other names, of what there is already, as they are."""
    return load(text, what) if is_own(text) and not text.startswith("tfds:") else text


def _changed(config: C, values: Mapping[str, Any]) -> C:
    """A config with other values; those of its parts are dictionaries again, functions are loaded from their files."""
    changes = dict(values)
    for name, kind, _ in settings_of(type(config)):
        if isinstance(value := values.get(name), dict):
            changes[name] = _changed(getattr(config, name), value)
        elif takes_function(kind) and isinstance(value, str):
            changes[name] = load_own(value, flag_of(type(config), name))
        elif kind == tuple[str, ...] and isinstance(
            value, tuple
        ):  # of which some can be records of the user's own, registered by their files
            changes[name] = tuple(_registered(each, name) if is_own(each) else each for each in value)
    return dataclasses.replace(config, **changes)
