"""The journal of the generation under way: what its individuals measured so far, so that nothing is measured twice.

A file of JSON lines. The first one names the generation; each further one is an outcome at a
landmark, with a checksum. What a killed process left half-written, and whatever follows damage, is
dropped: it is measured again, and comes out the same. What cannot be had again, such as a failure that
depends on the moment, is lost with it at worst.
"""

import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

from eigen_jax.executor import Outcome
from eigen_jax.store import files
from eigen_jax.store.files import told_as
from eigen_jax.store.records import JSONError, convert, parse_json
from eigen_jax.store.run_files import RunFolderError
from eigen_jax.strategies.eigen import Phase

_SCHEMA_VERSION = 1


class Journal:
    """The journal of one generation."""

    def __init__(self, path: Path, *, generation: int, phase: Phase) -> None:
        """Begins a journal, or goes on with one of this generation; raises RunFolderError where that cannot be."""
        self.path = path
        header = json.dumps({"schema_version": _SCHEMA_VERSION, "generation": generation, "phase": phase.name.lower()})
        self.outcomes: dict[tuple[int, int], Outcome] = {}  # by individual and landmark
        kept = [header]
        with told_as(RunFolderError, path):
            # A byte that is no text damages its own line, not those before it; the last line was not finished.
            lines = path.read_bytes().decode(errors="replace").split("\n")[:-1] if path.exists() else []
            if lines[:1] == [header]:
                for line in lines[1:]:
                    if (entry := _parse(line)) is None:
                        break
                    self.outcomes[entry[0]] = entry[1]
                    kept.append(line)
            files.write(path, "".join(f"{line}\n" for line in kept))

    def add(self, index: int, landmark: int, outcome: Outcome) -> None:
        """Notes an outcome, and waits for the disk; raises a RunFolderError where that cannot be."""
        with told_as(RunFolderError, self.path):
            files.append(self.path, f"{_line(index, landmark, outcome)}\n".encode())
        self.outcomes[index, landmark] = outcome


def _line(index: int, landmark: int, outcome: Outcome) -> str:
    fields = {"index": index, "landmark": landmark, **dataclasses.asdict(outcome)}
    return json.dumps({**fields, "checksum": _checksum(fields)}, allow_nan=False)


def _checksum(fields: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(fields).encode()):08x}"


def _parse(line: str) -> tuple[tuple[int, int], Outcome] | None:
    """What a line tells; None if it is damaged."""
    try:
        fields = convert(parse_json(line), dict[str, Any])
        if fields.pop("checksum", None) != _checksum(fields):
            return None
        place = convert((fields.get("index"), fields.get("landmark")), tuple[int, int])
        return place, convert(fields, Outcome)
    except JSONError:
        return None
