"""The errors of eigen_jax share one base, so that a command needs to know of no other."""


class EigenError(ValueError):
    """Something that whoever calls can cause and mend: one line that says what is wrong and what to do."""


class ConfigError(EigenError):
    """A setting that cannot be, by itself or for the data at hand."""


def first_line(error: Exception) -> str:
    """What an error says, in one line; the libraries' own may say pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
