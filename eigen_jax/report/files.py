"""What the report writes, and how: whole files or none; and what it says of input that it cannot use."""

from pathlib import Path

from eigen_jax.errors import EigenError
from eigen_jax.store import files


class ReportError(EigenError):
    """Records, tables or folders that nothing can be drawn or told from."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file as a whole, and the folders that it lies in: what is killed here leaves the old one or the new one.

    Raises:
        ReportError: it cannot be written.
    """
    with files.told_as(ReportError, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, content)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())
