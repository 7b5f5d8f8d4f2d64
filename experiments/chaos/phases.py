"""Where a search stands, told by what lies on disk and by nothing else."""

import enum
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RUN, TEACHER = "run", "teacher"  # names in the folder of one run
COMPILED = "compiled"  # name in the cache folder

_MANIFEST = "manifest.json"  # of a checkpoint, which has its name when all of it is written


class Phase(enum.StrEnum):
    """What a run is in the middle of, in the order of a run."""

    START = "start-up, data"
    TEACHER = "teacher"
    LOGITS = "teacher's logits"
    BETWEEN = "between generations"  # no generation is under way, and more of them follow
    PRIMARY = "primary"
    SECONDARY = "secondary"
    DUPLICATION = "duplication"
    FINAL = "final training"
    ENDED = "after the result"


_GENERATIONS = {phase.value: phase for phase in (Phase.PRIMARY, Phase.SECONDARY, Phase.DUPLICATION)}


def phase_of(folder: Path, *, last_generation: int | None = None) -> Phase:
    """The phase that a run is in; its process may be at work meanwhile.

    Args:
        folder: of the run; its record lies in `RUN`, its teacher in `TEACHER`.
        last_generation: the number of the last generation, where it is known. Without it, final
            training is told from its checkpoints alone.
    """
    run, teacher = folder / RUN, folder / TEACHER / "teacher.json"
    if not (run / "settings.json").exists():
        if not teacher.exists():
            return Phase.START
        return Phase.LOGITS if _read_object(teacher.read_text()).get("ensemble") is not None else Phase.TEACHER
    if (run / "result.json").exists():
        return Phase.ENDED
    name = _read_object(_finished_lines(run / "generation.jsonl")[0]).get("phase")
    if name in _GENERATIONS:
        return _GENERATIONS[name]
    recorded = recorded_generation(folder)
    is_last = recorded is not None and recorded == last_generation
    return Phase.FINAL if is_last or (run / "final").exists() else Phase.BETWEEN


def recorded_generation(folder: Path) -> int | None:
    """The newest generation in a run's record; None where there is none yet."""
    generation = _read_object(_finished_lines(folder / RUN / "lineage.jsonl")[-1]).get("generation")
    return generation if isinstance(generation, int) else None


def temporary_files(*folders: Path) -> frozenset[tuple[Path, int]]:
    """What lies under hidden or partial names, as writers leave it in the middle of their work.

    Args:
        folders: are searched, but for whole checkpoints and compiled programs, which are JAX's to write.

    Returns:
        The path of each, with the time in ns at which it last changed: one that an earlier process
        left, and that nobody touched, is equal to what it was before.
    """
    return frozenset(found for folder in folders for found in _temporary(folder))


def _temporary(folder: str | Path) -> Iterator[tuple[Path, int]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):  # gone since it was listed
        return
    if any(entry.name == _MANIFEST for entry in entries):
        return
    for entry in entries:
        is_hidden = entry.name.startswith(".") and not entry.name.endswith(".lock")
        if is_hidden or entry.name.endswith(".partial"):
            try:
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_ctime_ns
            except FileNotFoundError:
                continue
        elif entry.is_dir(follow_symlinks=False) and entry.name != COMPILED:
            yield from _temporary(entry.path)


def _read_object(text: str) -> dict[str, Any]:
    """The object that a text of JSON describes; an empty one where it describes none."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _finished_lines(path: Path) -> list[str]:
    """The lines that end; one empty line where there is none, or no file."""
    try:
        return path.read_text(errors="replace").split("\n")[:-1] or [""]
    except FileNotFoundError:
        return [""]
