"""Tables of what can be named, such as layer kinds, to which anybody can add."""

import difflib
from collections.abc import Iterator
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
        if name not in self._entries:
            hint = "".join(f"did you mean {close}? " for close in difflib.get_close_matches(str(name), self, n=1))
            rule = f"there is no {self.what} {{!r}}; {{}}choose from {{}}"
            raise ConfigError(None, rule, name, hint, ", ".join(self._entries))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Its names, in the order in which they were added."""
        return iter(self._entries)
