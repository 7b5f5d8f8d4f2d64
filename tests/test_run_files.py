"""settings.json and result.json: as all runs so far have them, to the byte, and what of older ones is read."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from refusals import refuses

from eigen_jax.store.run_files import (
    Mimicry,
    NetworkSummary,
    OtherRunError,
    Reference,
    RunFlops,
    RunFolderError,
    RunResult,
    RunSeconds,
    RunSettings,
    read_result,
    read_settings,
    write_result,
    write_settings,
)

NETWORK: dict[str, Any] = {"fingerprint": "abc", "layers": 1, "parameters": 94, "flops": 2_500}
TRAINING = RunResult(
    final_validation_accuracy=None,
    test_accuracy=0.75,
    test_logits="0f",
    confusion=((3, 1), (0, 0)),
    network=NetworkSummary(**NETWORK),
    dtype="bfloat16",
    seconds=RunSeconds(final=2.5),
    mimicry=None,
)
SEARCH = RunResult(
    validation_accuracy=0.5,
    search_test_accuracy=0.25,
    test_accuracy=0.125,
    mirrored_test_accuracy=0.25,
    final_cause="it diverged",
    generations=4,
    trained=7,
    network=NetworkSummary(individual=Reference(generation=3, index=1), **NETWORK),
    seconds=RunSeconds(search=60.5, final=None),
    training_flops=RunFlops(teacher=2, search=10**15, final=3, total=10**15 + 5),
    mimicry=Mimicry(teacher="f", weight=0.9, temperature=5.0),
)
TRAINING_JSON = {
    "schema_version": 2,
    "final_validation_accuracy": None,
    "test_accuracy": 0.75,
    "mirrored_test_accuracy": None,
    "test_logits": "0f",
    "confusion": [[3, 1], [0, 0]],
    "final_cause": None,
    "network": NETWORK,
    "dtype": "bfloat16",
    "seconds": {"final": 2.5},
    "training_flops": None,
    "mimicry": None,
}
SEARCH_JSON = {
    "schema_version": 2,
    "validation_accuracy": 0.5,
    "search_test_accuracy": 0.25,
    "final_validation_accuracy": None,
    "test_accuracy": 0.125,
    "mirrored_test_accuracy": 0.25,
    "test_logits": None,
    "confusion": None,
    "final_cause": "it diverged",
    "generations": 4,
    "trained": 7,
    "network": {"individual": {"generation": 3, "index": 1}, **NETWORK},
    "dtype": "float32",
    "seconds": {"search": 60.5, "final": None},
    "training_flops": {"teacher": 2, "search": 1_000_000_000_000_000, "final": 3, "total": 1_000_000_000_000_005},
    "mimicry": {"teacher": "f", "weight": 0.9, "temperature": 5.0},
}


@pytest.mark.parametrize(("result", "content"), [(TRAINING, TRAINING_JSON), (SEARCH, SEARCH_JSON)])
def test_a_result_is_written_as_all_are_and_read_again(tmp_path: Path, result: RunResult, content: dict) -> None:
    write_result(tmp_path, result)
    assert (tmp_path / "result.json").read_text() == json.dumps(content, indent=2) + "\n"
    assert read_result(tmp_path) == result


def test_a_result_says_whether_it_is_of_a_search_and_what_that_found() -> None:
    assert (SEARCH.is_of_search, TRAINING.is_of_search) == (True, False)
    assert (SEARCH.found, TRAINING.found) == (Reference(generation=3, index=1), None)
    nothing = dataclasses.replace(SEARCH, network=None, validation_accuracy=None)
    assert (nothing.is_of_search, nothing.found) == (True, None)
    assert not dataclasses.replace(SEARCH, network=TRAINING.network).is_of_search


def test_settings_are_read_with_or_without_what_came_later(tmp_path: Path) -> None:
    write_settings(tmp_path, {"settings": {"seed": 1}})
    assert read_settings(tmp_path) == RunSettings(settings={"seed": 1})
    notes = {"folders": {"data_dir": None, "cache_dir": "/c"}, "machine": {"threads": 2}, "more": [1]}
    write_settings(tmp_path, {"settings": {}, **notes, "versions": {"jax": "0.10"}, "switches": {}})
    read = read_settings(tmp_path)
    assert (read.folders, read.machine, read.versions) == (notes["folders"], notes["machine"], {"jax": "0.10"})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"settings": ["seed"]}, "Expected `object`, got `array` - at `$.settings`"),
        ({"settings": {}, "folders": {"data_dir": 3}}, "Expected `str | null`, got `int` - at `$.folders[...]`"),
        ({"folders": {}}, "Object missing required field `settings`"),
    ],
)
def test_settings_of_another_form_are_damaged(tmp_path: Path, content: dict, reason: str) -> None:
    write_settings(tmp_path, content)
    advice = "put the run's own file back, or choose another folder"
    with refuses(RunFolderError, f"{tmp_path}/settings.json is damaged ({reason}); {advice}"):
        read_settings(tmp_path)


def test_differences_name_what_changed_alone() -> None:
    then, path = RunSettings(settings={"seed": 0, "t1": 5, "channels": [4]}), Path("run")
    then.check_same({"seed": 0, "t1": 5, "channels": [4], "dtype": "float32"}, path=path)
    then.check_same({"t1": 5}, path=path, partly=True)
    for now, partly, changes in (
        ({"seed": 1, "t1": 5}, False, "channels was [4] and is now None, seed was 0 and is now 1"),
        ({"seed": 1}, True, "seed was 0 and is now 1"),
        ({"dtype": "bfloat16"}, True, "dtype was 'float32' and is now 'bfloat16'"),
    ):
        with refuses(OtherRunError, f"run belongs to a run with other settings: {changes}; wait"):
            then.check_same(now, path=path, partly=partly, advice="wait")
