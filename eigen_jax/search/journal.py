"""The journal: what individuals measured that the record does not hold yet, so that nothing is measured twice.

A file of JSON lines, each an outcome of an individual at a landmark, with a checksum; the first one names the schema
version. What a killed process left half-written, and whatever follows damage, is dropped: it is measured again, and
comes out the same. What cannot be had again, such as a failure that depends on the moment, is lost with it at worst.
"""

import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

from eigen_jax.executor import Outcome
from eigen_jax.store import files
from eigen_jax.store.records import JSONError, convert, parse_json
from eigen_jax.store.run_files import Reference, RunFolderError

_HEADER = json.dumps({"schema_version": 2}) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """What one line tells."""

    individual: Reference
    fingerprint: str  # of what is trained: after a failure that came out otherwise, another one can have its place
    landmark: int
    outcome: Outcome


class Journal:
    def __init__(self, path: Path) -> None:
        """Begins a journal, or goes on with one, without damage; raises RunFolderError where that cannot be."""
        self.path = path
        self.entries: list[Entry] = []
        with files.told_as(RunFolderError, path):
            # A byte that is no text damages its own line, not those before it; the last line was not finished.
            text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        for line in text.removeprefix(_HEADER).split("\n")[:-1] if text.startswith(_HEADER) else []:
            if (entry := _parse(line)) is None:
                break
            self.entries.append(entry)
        self.forget(before=0)

    def find(self, individual: Reference, fingerprint: str, landmark: int) -> Outcome | None:
        """The outcome of an individual at a landmark; None where it has none yet."""
        wanted = (individual, fingerprint, landmark)
        entries = (each for each in self.entries if (each.individual, each.fingerprint, each.landmark) == wanted)
        return next((each.outcome for each in entries), None)

    def add(self, entry: Entry) -> None:
        """Notes an outcome, and waits for the disk; raises a RunFolderError where that cannot be."""
        header = "" if self.entries else _HEADER
        with files.told_as(RunFolderError, self.path):
            files.append(self.path, f"{header}{_line(entry)}".encode())
        self.entries.append(entry)

    def forget(self, *, before: int) -> None:
        """Drops the entries of generations `before` one, and the file with the last; may raise a RunFolderError."""
        self.entries = [entry for entry in self.entries if entry.individual.generation >= before]
        with files.told_as(RunFolderError, self.path):
            if self.entries:
                files.write(self.path, "".join([_HEADER, *map(_line, self.entries)]))
            else:
                self.path.unlink(missing_ok=True)


def _line(entry: Entry) -> str:
    fields = dataclasses.asdict(entry)
    return json.dumps({**fields, "checksum": _checksum(fields)}, allow_nan=False) + "\n"


def _checksum(fields: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(fields).encode()):08x}"


def _parse(line: str) -> Entry | None:
    """What a line tells; None if it is damaged."""
    try:
        fields = convert(parse_json(line), dict[str, Any])
        return convert(fields, Entry) if fields.pop("checksum", None) == _checksum(fields) else None
    except JSONError:
        return None
