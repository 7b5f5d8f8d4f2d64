"""The errors of eigen_jax share one base, so that a command needs to know of no other."""

import string
from collections.abc import Callable, Mapping
from typing import Any

Naming = Callable[[type | None, str], str]  # what a field of a config (None: of a run's settings) is called


class EigenError(ValueError):
    """Something that whoever calls can cause and mend: one line that says what is wrong and what to do."""

    def told(self, naming: Naming) -> str:
        """The line, with the settings that it names called as whoever reads it knows them."""
        return str(self)


class ConfigError(EigenError):
    """A setting that cannot be, by itself or for the data at hand."""

    def __init__(self, config: type | None, text: str, *values: object) -> None:
        """Makes it.

        Args:
            config: the dataclass whose fields the text names; None: it names settings of a run, whichever they are.
            text: of `str.format`: {field} is the name of a setting, {} the next of the values.
            values: what stands in place of each {}.

        Raises:
            KeyError: the text names something that is no field.
        """
        super().__init__(config, text, *values)
        self.told(lambda _, name: name)

    def told(self, naming: Naming) -> str:
        config, text, *values = self.args
        return string.Formatter().vformat(text, values, _Names(config, naming))

    def __str__(self) -> str:
        return self.told(lambda _, name: name)


def was_and_is(changes: Mapping[str, tuple[object, object]]) -> tuple[str, list[object]]:
    """The text and the values with which a `ConfigError` says what settings were and are now.

    Args:
        changes: by the name of a setting; what cannot be one is told as it is.
    """
    texts, values = [], list[object]()
    for name, then_and_now in changes.items():
        is_setting = name.isidentifier()
        texts.append(f"{{{name if is_setting else ''}}} was {{}} and is now {{}}")
        values += then_and_now if is_setting else (name, *then_and_now)
    return ", ".join(texts), values


class _Names(dict[str, Any]):
    """What stands in a text in place of the name of a setting."""

    def __init__(self, config: type | None, naming: Naming) -> None:
        super().__init__()
        self.config = config
        self.naming = naming

    def __missing__(self, name: str) -> str:
        if self.config is not None and name not in self.config.__dataclass_fields__:  # type: ignore[attr-defined]
            raise KeyError(f"{name} is no field of {self.config.__name__}")
        return self.naming(self.config, name)
