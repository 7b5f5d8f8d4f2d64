"""Whether two runs came out the same, times apart, and whether they left nothing behind."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from eigen_jax import lineage, load_network
from eigen_jax.lineage import Individual, without_times
from eigen_jax.store import checkpoint
from experiments.disturbance.phases import RUN, TEACHER, temporary_files

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
        wanted, got = without_times(wanted), without_times(got)
        for field in dataclasses.fields(Individual):
            one, two = getattr(wanted, field.name), getattr(got, field.name)
            if one != two:
                name = f"{wanted.generation}.{wanted.index}"
                yield f"individual {name}: {field.name} is {_show(two)}, and {_show(one)} in the uninterrupted run"
    if len(expected) != len(found):
        yield f"the lineage has {len(found)} individuals, and {len(expected)} in the uninterrupted run"


def _differences(reference: Path, other: Path) -> Iterator[str]:
    records = [lineage.read(folder / RUN / "lineage.jsonl") for folder in (reference, other)]
    yield from compare_individuals(*records)
    results = [json.loads((folder / RUN / "result.json").read_text()) for folder in (reference, other)]
    for result in results:
        result.pop("seconds", None)
    yield from _compare_values("result.json: ", *results)
    yield from _compare_networks(reference / RUN, other / RUN)
    yield from _leftovers(reference, other)


def _compare_values(name: str, wanted: Any, got: Any) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(got, dict):
        separator = "" if name.endswith(": ") else "."
        for key in sorted(wanted.keys() | got.keys()):
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
        if extra := sorted(got - wanted):
            yield f"{other / part / extra[0]} was left behind"


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
