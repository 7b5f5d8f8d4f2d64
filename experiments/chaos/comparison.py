"""Whether two runs came out the same, times apart, and whether they left nothing behind."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from eigen_jax import checkpoint, lineage, load_network
from eigen_jax.lineage import Individual, without_times
from experiments.chaos.phases import RUN, TEACHER, temporary_files

_SHOWN = 60  # characters of a value in a message


def first_difference(reference: Path, other: Path) -> str | None:
    """What a run differs in from the uninterrupted one, or has left behind; None where there is nothing.

    Args:
        reference: the folder of the uninterrupted run.
        other: that of the run in question.
    """
    try:
        return next(_differences(reference, other), None)
    except (OSError, ValueError) as error:  # all of the library's own errors are ValueErrors
        return " ".join(str(error).split())


def compare_individuals(expected: tuple[Individual, ...], found: tuple[Individual, ...]) -> Iterator[str]:
    """Yields the differences of two records, times apart."""
    for wanted, got in zip(expected, found, strict=False):
        yield from _compare_values(f"individual {wanted.generation}.{wanted.index}: ", *map(_fields, (wanted, got)))
    if len(expected) != len(found):
        yield f"the lineage has {len(found)} individuals, and {len(expected)} in the uninterrupted run"


def _fields(individual: Individual) -> dict[str, Any]:
    individual = without_times(individual)
    return {field.name: getattr(individual, field.name) for field in dataclasses.fields(individual)}


def _differences(reference: Path, other: Path) -> Iterator[str]:
    runs = reference / RUN, other / RUN
    yield from compare_individuals(*(lineage.read(run / "lineage.jsonl") for run in runs))
    results = [json.loads((run / "result.json").read_text()) | {"seconds": None} for run in runs]
    yield from _compare_values("result.json: ", *results)
    yield from _compare_networks(*runs)
    yield from _leftovers(reference, other)


def _compare_values(name: str, wanted: Any, got: Any) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(got, dict):
        separator = "" if name.endswith(": ") else "."
        for key in [*wanted, *(got.keys() - wanted.keys())]:
            yield from _compare_values(f"{name}{separator}{key}", wanted.get(key), got.get(key))
    elif wanted != got:
        yield f"{name} is {_show(got)}, and {_show(wanted)} in the uninterrupted run"


def _compare_networks(reference: Path, other: Path) -> Iterator[str]:
    (architecture, variables), (other_architecture, other_variables) = load_network(reference), load_network(other)
    if architecture != other_architecture:
        yield "the network found has another architecture than that of the uninterrupted run"
        return
    wanted, got = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (variables, other_variables))
    if wanted.keys() != got.keys():
        yield "the weights of the network found have other names than those of the uninterrupted run"
        return
    for path, leaf in wanted.items():
        if not checkpoint.is_same(leaf, got[path]):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            yield f"the weights {name} of the network found are not those of the uninterrupted run"


def _leftovers(reference: Path, other: Path) -> Iterator[str]:
    for part in (RUN, TEACHER):
        for path, _ in sorted(temporary_files(other / part)):
            yield f"{path} was left behind"
        wanted, got = ({path.name for path in (folder / part).glob("*")} for folder in (reference, other))
        for name in sorted(got - wanted):
            yield f"{other / part / name} was left behind"


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
