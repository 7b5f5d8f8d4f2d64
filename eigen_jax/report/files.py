"""What the report writes, and how: whole files or none; and what it says of input that it cannot use."""

import os
from pathlib import Path


class ReportError(ValueError):
    """Records, tables or folders that nothing can be drawn or told from."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file as a whole, and the folders that it lies in: what is killed here leaves the old one or the new one.

    Raises:
        ReportError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text file, in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())
