"""Summaries of runs: against records whose numbers were counted by hand; and folders that are none."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from report_data import individual, reached

from eigen_jax import lineage
from eigen_jax.errors import EigenError
from eigen_jax.lineage import Fate, Landmark, Reference
from eigen_jax.report import (
    ReportError,
    best_so_far,
    find_individual,
    fittest,
    read_record,
    read_result,
    summarise_phases,
)
from eigen_jax.store.records import to_fields

RECORD = (
    individual(0, 0, "primary", None),
    individual(0, 1, "primary", None, fate=Fate.FAILED, cause="NaN", seconds_training=2.0),
    individual(1, 0, "primary", 0.5),
    individual(1, 1, "primary", 0.75, fate=Fate.PARENT),
    individual(2, 0, "secondary", 0.75, fate=Fate.PARENT),
    individual(2, 1, "secondary", 0.5, same_as=Reference(generation=1, index=0), seconds_training=0.0),
    individual(3, 0, "duplication", None, landmarks=reached(0.9, 0.9, thresholds=(0.1, 0.95))),
    individual(3, 1, "duplication", 0.875, fate=Fate.PARENT),
)


def test_phases_are_summed_up_as_by_hand() -> None:
    phases = primary, secondary, duplication = summarise_phases(RECORD)
    assert [each.phase for each in phases] == ["primary", "secondary", "duplication"]
    assert [each.individuals for each in phases] == [RECORD[:4], RECORD[4:6], RECORD[6:]]
    assert (primary.trained, secondary.trained) == (4, 1)
    assert (primary.seconds, secondary.seconds) == (38.0, 13.0)
    # Of equals the earlier is the best, so secondary succession added nothing.
    assert (primary.best, secondary.best, duplication.best) == (RECORD[3], RECORD[3], RECORD[7])


def test_a_phase_without_survivors_has_the_best_of_those_before() -> None:
    *_, duplication = summarise_phases(RECORD[:7])
    assert duplication.best == RECORD[3]
    assert summarise_phases(RECORD[:2])[0].best is None
    assert summarise_phases(()) == ()


def test_individuals_are_found() -> None:
    assert find_individual(RECORD, Reference(generation=2, index=1)) is RECORD[5]
    with pytest.raises(ReportError, match=r"no individual 9\.1"):
        find_individual(RECORD, Reference(generation=9, index=1))


def test_the_best_so_far_never_gets_worse() -> None:
    assert best_so_far(RECORD) == (None, RECORD[3], RECORD[3], RECORD[7])
    assert fittest(reversed(RECORD[:6])) == RECORD[4]


def test_the_best_is_the_fittest_not_the_most_accurate() -> None:
    accurate, fit = (
        individual(1, index, "primary", None, landmarks=valued(accuracy, fitness), fate=Fate.SURVIVED)
        for index, (accuracy, fitness) in enumerate([(0.9, (-3.0, 5.0)), (0.5, (-2.0, -5.0))])
    )
    record = (RECORD[0], accurate, fit)
    assert best_so_far(record) == (None, fit)
    assert [phase.best for phase in summarise_phases(record)] == [fit]
    assert fit.accuracy == 0.5


def valued(accuracy: float, fitness: tuple[float, ...]) -> tuple[Landmark, ...]:
    (landmark,) = reached(accuracy)
    return (dataclasses.replace(landmark, fitness=fitness),)


RESULT: dict[str, Any] = {
    "schema_version": 2,
    "validation_accuracy": 0.875,
    "search_test_accuracy": 0.75,
    "test_accuracy": 0.8125,
    "generations": 4,
    "trained": 7,
    "network": {
        "individual": {"generation": 3, "index": 1},
        "fingerprint": RECORD[7].fingerprint,
        "layers": 0,
        "parameters": 20,
        "flops": 20,
    },
    "seconds": {"search": 60.5, "final": 12},
    "mimicry": {"teacher": "abc", "weight": 0.9, "temperature": 5.0},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run."""
    (tmp_path / "settings.json").write_text("{}")
    lineage.append(tmp_path / "lineage.jsonl", RECORD)
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"network": None, "validation_accuracy": None, "test_accuracy": None},
        {"mimicry": None},
        {"seconds": {"search": 60.5, "final": None}},
        {"a later field": 1},
    ],
)
def test_a_finished_run_is_read_and_what_it_may_lack_is_none(run: Path, change: dict) -> None:
    (run / "result.json").write_text(json.dumps(RESULT | change))
    read, others = to_fields(read_result(run)), {"schema_version", "a later field"}
    assert {name: read[name] for name in RESULT.keys() - others} == {
        name: value for name, value in (RESULT | change).items() if name not in others
    }
    assert (read["dtype"], read["test_logits"], read["final_cause"]) == ("float32", None, None)
    assert read_record(str(run)) == RECORD


def said_by(reader, folder: Path) -> str:
    with pytest.raises(EigenError) as caught:
        reader(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("reader", [read_result, read_record])
def test_a_folder_of_no_run_is_told_of(reader, tmp_path: Path) -> None:
    assert "is no folder" in said_by(reader, tmp_path / "absent")
    assert "no run folder: it has no lineage.jsonl" in said_by(reader, tmp_path)
    (tmp_path / "lineage.jsonl").write_text("")
    assert "no run folder: it has no settings.json" in said_by(reader, tmp_path)


def test_a_run_that_has_not_finished_is_told_of(run: Path) -> None:
    (run / "result.json").unlink()
    assert "not finished" in said_by(read_result, run)
    assert read_record(run) == RECORD
    (run / "lineage.jsonl").write_text("")
    assert "no generation" in said_by(read_record, run)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is damaged (Expecting property name"),
        ("", "is damaged (Expecting value"),
        ("[]", "Expected `object`, got `array`"),
        (json.dumps(RESULT | {"schema_version": 1}), "schema version 1"),
        (
            json.dumps({name: value for name, value in RESULT.items() if name != "trained"}),
            "does not tell all",
        ),
        (json.dumps(RESULT | {"generations": 1.5}), "Expected `int`, got `float` - at `$.generations`"),
        (json.dumps(RESULT | {"generations": True}), "Expected `int`, got `bool` - at `$.generations`"),
        (json.dumps(RESULT | {"generations": -1}), "Expected `int` >= 0 - at `$.generations`"),
        (json.dumps(RESULT | {"test_accuracy": float("nan")}), "it holds NaN, which is no finite number"),
        (json.dumps(RESULT | {"seconds": None}), "got `null` - at `$.seconds`"),
        (json.dumps(RESULT | {"network": {"layers": 1}}), "required field `fingerprint` - at `$.network`"),
        (
            json.dumps(RESULT | {"network": RESULT["network"] | {"individual": 3}}),
            "`int` - at `$.network.individual`",
        ),
        (json.dumps(RESULT | {"mimicry": RESULT["mimicry"] | {"weight": "0.9"}}), "got `str` - at `$.mimicry.weight`"),
    ],
)
def test_a_damaged_result_is_told_of(run: Path, text: str, part: str) -> None:
    (run / "result.json").write_text(text)
    message = said_by(read_result, run)
    assert str(run) in message
    assert "result.json" in message
    assert part in message


def test_a_damaged_record_is_told_of(run: Path) -> None:
    with open(run / "lineage.jsonl", "a") as file:
        file.write("{}\n")
    assert "line 9" in said_by(read_record, run)
