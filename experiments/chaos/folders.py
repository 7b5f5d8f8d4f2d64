"""What lies in the folder of a run: where the run stands, what is half-written, in what it differs from another."""

import contextlib
import dataclasses
import enum
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from eigen_jax import lineage, load_network
from eigen_jax.lineage import Individual, without_times
from eigen_jax.store import checkpoint
from eigen_jax.store.files import PARTIAL
from eigen_jax.store.records import changes

RUN, TEACHER = "run", "teacher"  # names in the folder of one run
COMPILED = "compiled"  # name in the cache folder


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


def phase_of(folder: Path, *, phases: Sequence[str] = ()) -> Phase:
    """The phase that a run is in, told by what lies on disk; `phases` are those of the generations of an equal run."""
    run, teacher = folder / RUN, folder / TEACHER / "teacher.json"
    if not (run / "settings.json").exists():
        if not teacher.exists():
            return Phase.START
        return Phase.TEACHER if _read_object(teacher).get("ensemble") is None else Phase.LOGITS
    if (run / "result.json").exists():
        return Phase.ENDED
    in_training: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        in_training = os.listdir(run / "individuals")
    under_way = max((int(name.partition("-")[0]) for name in in_training), default=len(phases))
    if under_way < len(phases):
        return Phase(phases[under_way])
    # Where the last generation is not known, final training is told from its checkpoints alone.
    is_last = _read_object(run / "lineage.jsonl", line=-1).get("generation") == len(phases) - 1
    return Phase.FINAL if is_last or (run / "final").exists() else Phase.BETWEEN


def phases_of(folder: Path) -> tuple[str, ...]:
    return tuple({each.generation: each.phase for each in lineage.read(folder / RUN / "lineage.jsonl")}.values())


def _read_object(path: Path, *, line: int | None = None) -> dict[str, Any]:
    """The JSON object that a file is, or one of the lines of it that end; an empty one where there is none."""
    with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
        text = path.read_text(errors="replace")
        content = json.loads(text if line is None else text.split("\n")[:-1][line])
        return content if isinstance(content, dict) else {}
    return {}


def temporary_files(*folders: Path) -> frozenset[tuple[Path, int]]:
    """What lies under hidden or partial names, as writers leave it in the middle of their work.

    The time in ns at which it last changed tells what an earlier process left from what is being written.
    """
    found = set()
    for place, inner, names in itertools.chain(*map(os.walk, folders)):
        if "manifest.json" in names:  # a whole checkpoint
            inner.clear()
            continue
        hidden = {name for name in (*inner, *names) if name.startswith(".") and not name.endswith(".lock")}
        hidden |= {name for name in (*inner, *names) if name.endswith(PARTIAL)}
        for path in (Path(place, name) for name in hidden):
            with contextlib.suppress(FileNotFoundError):
                found.add((path, path.lstat().st_ctime_ns))
        inner[:] = set(inner) - hidden - {COMPILED}  # which is JAX's to write
    return frozenset(found)


def first_difference(reference: Path, other: Path) -> str | None:
    """What the run in another folder differs in from the uninterrupted one, times apart, or has left behind."""
    try:
        return next(_differences(reference, other), None)
    except (OSError, ValueError) as error:  # all of the library's own errors are ValueErrors
        return " ".join(str(error).split())


def _differences(reference: Path, other: Path) -> Iterator[str]:
    runs = reference / RUN, other / RUN
    yield from compare_individuals(*(lineage.read(run / "lineage.jsonl") for run in runs))
    results = [json.loads((run / "result.json").read_text()) | {"seconds": None} for run in runs]
    yield from _changes("result.json", *results)
    yield from _compare_networks(*runs)
    for part in (RUN, TEACHER):
        wanted, got = ({path.name for path in (folder / part).glob("*")} for folder in (reference, other))
        left = {other / part / name for name in got - wanted} | {path for path, _ in temporary_files(other / part)}
        for path in sorted(left):
            yield f"{path} was left behind"


def compare_individuals(expected: tuple[Individual, ...], found: tuple[Individual, ...]) -> Iterator[str]:
    for wanted, got in zip(expected, found, strict=False):
        pair = (dataclasses.asdict(without_times(each)) for each in (wanted, got))
        yield from _changes(f"individual {wanted.reference}", *pair)
    if len(expected) != len(found):
        yield f"the lineage has {len(found)} individuals, and {len(expected)} in the uninterrupted run"


def _changes(name: str, wanted: Mapping[str, Any], got: Mapping[str, Any]) -> Iterator[str]:
    for field in sorted(wanted.keys() | got.keys()):
        if wanted.get(field) != got.get(field):
            _, (was, now) = changes(wanted, got, [field])
            yield f"{name}: {field} is {now}, and {was} in the uninterrupted run"


def _compare_networks(reference: Path, other: Path) -> Iterator[str]:
    (architecture, variables), (other_architecture, other_variables) = load_network(reference), load_network(other)
    if architecture != other_architecture:
        yield "the network found has another architecture than that of the uninterrupted run"
        return
    wanted, got = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (variables, other_variables))
    for path in wanted | got:
        if path not in wanted or path not in got or not checkpoint.is_same(wanted[path], got[path]):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            yield f"the weights {name} of the network found are not those of the uninterrupted run"
