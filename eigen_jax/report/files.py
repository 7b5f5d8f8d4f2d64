"""What the report writes, and how: whole files or none; and what it says of input that it cannot use."""

from collections.abc import Mapping
from pathlib import Path

from eigen_jax.errors import EigenError
from eigen_jax.store import files


class ReportError(EigenError):
    """Records, tables or folders that nothing can be drawn or told from."""


def write_files(stem: Path, contents: Mapping[str, bytes | str]) -> tuple[Path, ...]:
    """Writes files, by ending, beside one `stem`, whose folder is made, and gives their paths; raises ReportError."""
    paths = {stem.with_name(f"{stem.name}{ending}"): content for ending, content in contents.items()}
    for path, content in paths.items():
        with files.told_as(ReportError, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, content)
    return tuple(paths)
