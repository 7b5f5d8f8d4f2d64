"""Tables of what can be named, such as layer kinds, to which anybody can add."""

import difflib
from collections.abc import Iterable
from typing import TypeVar

from eigen_jax.errors import ConfigError

T = TypeVar("T")


class Registry(dict[str, T]):
    """Entries by name, in the order in which the files that define them add them, when they are imported."""

    def __init__(self, what: str) -> None:
        """Makes an empty table of `what` in messages, such as "layer kind"."""
        super().__init__()
        self.what = what

    def add(self, name: str, entry: T) -> T:
        """Adds an entry, and gives it; an equal one may be there. Raises ConfigError where another one is."""
        if self.setdefault(name, entry) != entry:
            raise ConfigError(None, f"there is another {self.what} {{!r}}; choose another name", name)
        return entry

    def find(self, name: str) -> T:
        """The entry of a name; raises ConfigError where there is none."""
        check_there_is(self.what, name, self)
        return self[name]


def check_there_is(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ConfigError, with the name that was meant or all that are known, for one that is not among them."""
    if name not in known:
        hint = "".join(f"did you mean {close}? " for close in difflib.get_close_matches(str(name), known, n=1))
        choose = f"choose from {', '.join(known)}" if list(known) else "import the file that registers it"
        raise ConfigError(None, f"there is no {what} {{!r}}; {{}}{{}}", name, hint, choose)
