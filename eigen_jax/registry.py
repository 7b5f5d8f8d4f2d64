"""Tables of what can be named, such as layer kinds, to which anybody can add."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from eigen_jax.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries by name. The file that defines an entry adds it when it is imported."""

    def __init__(self, what: str) -> None:
        """Makes an empty table of `what` in messages, such as "layer kind"."""
        self.what = what
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Adds an entry, and gives it; an equal one may be there. Raises ConfigError where another one is."""
        if self._entries.setdefault(name, entry) != entry:
            raise ConfigError(None, f"there is another {self.what} {{!r}}; choose another name", name)
        return entry

    def find(self, name: str) -> T:
        """The entry of a name; raises ConfigError where there is none."""
        check_there_is(self.what, name, self)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Its names, in the order in which they were added."""
        return iter(self._entries)


def check_there_is(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ConfigError, with the name that was meant or all that are known, for one that is not among them."""
    if name not in known:
        hint = "".join(f"did you mean {close}? " for close in difflib.get_close_matches(str(name), known, n=1))
        choose = f"choose from {', '.join(known)}" if list(known) else "import the file that registers it"
        raise ConfigError(None, f"there is no {what} {{!r}}; {{}}{{}}", name, hint, choose)
