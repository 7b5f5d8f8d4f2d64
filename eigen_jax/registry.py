"""Tables of what can be named, such as layer kinds, to which anybody can add."""

import difflib
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
        if name not in self:
            hint = "".join(f"did you mean {close}? " for close in difflib.get_close_matches(str(name), self, n=1))
            rule = f"there is no {self.what} {{!r}}; {{}}choose from {{}}"
            raise ConfigError(None, rule, name, hint, ", ".join(self))
        return self[name]
