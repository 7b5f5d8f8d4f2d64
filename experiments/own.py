"""What users bring along in files of their own: a fitness, a strategy, layer kinds, an optimizer."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from eigen_jax.errors import EigenError, first_line


class OwnFileError(EigenError):
    """A file of the user's that is not there, fails, or lacks what is asked of it."""


def is_own(text: str) -> bool:
    """Whether a text names something in a file, as FILE.py:NAME does."""
    return ":" in text or text.endswith(".py")


def load(text: str, what: str) -> Any:
    """What FILE.py:NAME names; `what` is the option that asks for it, in messages.

    The file becomes the module of its stem, and its folder a place that modules are found in, here and in workers that
    are started from here, so that what it defines can be pickled. Raises OwnFileError.
    """
    place, _, name = text.rpartition(":")
    if not place.endswith(".py") or not name.isidentifier():
        raise OwnFileError(f"{what} is {text!r}; it must be FILE.py:NAME, as my_file.py:my_name")
    module = _import(Path(place).expanduser().absolute(), what)
    if not hasattr(module, name):
        names = ", ".join(each for each in vars(module) if not each.startswith("_")) or "nothing"
        raise OwnFileError(f"{what}: {place} has no {name!r}; it has {names}")
    return getattr(module, name)


def _import(path: Path, what: str) -> Any:
    if not path.is_file():
        raise OwnFileError(f"{what}: there is no file {path}; name one that is there")
    if not path.stem.isidentifier():
        raise OwnFileError(f"{what}: {path.name} can be no module; name the file with letters, digits and underscores")
    # Last, so that nothing in the folder hides a module of others.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    importlib.invalidate_caches()
    try:
        found = importlib.util.find_spec(path.stem)
        if found and found.origin and Path(found.origin).resolve() == path.resolve():
            return importlib.import_module(path.stem)
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {first_line(error)}"
        raise OwnFileError(f"{what}: {path} cannot be imported ({cause}); mend it") from None
    raise OwnFileError(f"{what}: {path.name} has the name of another module; give the file another one")
