"""The errors of eigen_jax share one base, so that a command needs to know of no other."""

import string
from collections.abc import Callable
from typing import Any

Naming = Callable[[Any, str], str]  # what a field of a config (None: a setting of a run) is called


class EigenError(ValueError):
    """Something that whoever calls can cause and mend: one line that says what is wrong and what to do."""

    def told(self, naming: Naming) -> str:
        """The line, with the settings that it names called as whoever reads it knows them."""
        return str(self)


class ConfigError(EigenError):
    """A setting that cannot be, by itself or for the data at hand."""

    def __init__(self, config: Any, text: str, *values: object) -> None:
        """Makes it of a text as of `str.format`: {field} is a field of the config, {} the next of the values.

        Without a config the text names settings of a run. Raises KeyError for what is no field of the config.
        """
        super().__init__(config, text, *values)
        if config is not None:
            self.told(lambda _, name: config.__dataclass_fields__[name].name)

    def told(self, naming: Naming) -> str:
        config, text, *values = self.args
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name}
        return text.format(*values, **{name: naming(config, name) for name in names})

    def __str__(self) -> str:
        return self.told(lambda _, name: name)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; the libraries' own may say pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip()[:300]
