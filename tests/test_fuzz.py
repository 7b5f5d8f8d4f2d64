"""Damaged files of a run: each gives a valid object or the project's own error, in one line.

Valid files are mutated as bytes (flipped bits; spans that are deleted, doubled or inserted; cuts) and
as JSON (any value replaced, keys dropped, added or doubled). `EXAMPLES` of each kind of file are really
tried, and both outcomes must occur.
"""

import argparse
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paper_runs import FakeMakers, save_teacher
from report_data import reached

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, ArchitectureError, Layer, from_json, to_json
from eigen_jax.data import DataConfig
from eigen_jax.errors import EigenError
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.report import read_record, read_result, summarise_phases
from eigen_jax.search import RunFolder, RunFolderError, check_run_folder, load_network, read_genome
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.teacher import TeacherError, read_teacher
from eigen_jax.teacher.record import TEACHER
from experiments import evaluate
from experiments.reproduce.runs import read_origin
from experiments.settings import Settings

OLDER = Path(__file__).parent / "older_runs"
EXAMPLES = max(400, 7 * settings().max_examples)  # of each of settings, genome and lineage; of genomes, few are read
FEW = max(200, 2 * settings().max_examples)  # of the others, of which fewer are read

NETWORK = Architecture(
    input_shape=(8, 8, 1),
    layers=(
        Layer(op="conv", inputs=(-1,), channels=16, kernel=3, stride=1),
        Layer(op="pool", inputs=(0,)),
        Layer(op="conv", inputs=(1,), channels=16, kernel=1, stride=1),
        Layer(op="concat", inputs=(2, 1)),
    ),
)
PLAIN = Architecture(input_shape=(8, 8, 1), layers=())

# JSON, or what is meant to be, to put in the place of a value.
VALUES = [
    *("null", "true", "false", "0", "-1", "1", "2", "3", "256", "0.5", "-0.0", "1.0", "1e-300", "1e308", "1e999"),
    *("4294967296", "-9223372036854775809", "9" * 299, "9" * 400, "9" * 5_000, "NaN", "Infinity", "-Infinity"),
    *('""', '"conv"', '"pool"', '"float32"', '"a\\nb"', '"\\u0000"', '"\\ud800"', '"\u2028"', f'"{"x" * 5_000}"'),
    *("[]", "{}", "[[]]", "[0, 0]", "[null]", '{"a": 1}', '{"a": 1, "a": 2}', '{"generation": 0, "index": 0}'),
    *("[" * 60 + "]" * 60, "[" * 900 + "]" * 900, "[" * 100_000, '{"a":' * 200 + "1" + "}" * 200, "", "nul"),
]

KEYS = ["a", "", "schema_version", "checksum", "op", "inputs", "seed", "a\nb", "\x00", "x" * 5_000]

PLACE = "place of the value"


def places(content: Any, at: tuple = ()) -> list[tuple]:
    """The paths of all values within a JSON value, its own first."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [at, *(place for name, part in parts for place in places(part, (*at, name)))]


@st.composite
def damaged_values(draw: st.DrawFn, text: str) -> str:
    """JSON of which one value is another one, or not there, or has a key more."""
    content = json.loads(text)
    at = draw(st.sampled_from(places(content)))
    holder: Any = {"": content}
    name: Any = ""
    inner = holder
    for step in at:
        inner, name = inner[name], step
    value = inner[name]
    change = draw(st.sampled_from(["replace", "replace", "replace", "drop", "add"]))
    if change == "drop" and at:
        del inner[name]
        return json.dumps(holder[""], separators=(",", ":"))
    if change == "add" and isinstance(value, dict):
        value[draw(st.sampled_from(KEYS))] = PLACE
    elif change == "add" and isinstance(value, list):
        value.insert(draw(st.integers(0, len(value))), PLACE)
    else:
        inner[name] = PLACE
    raw = draw(st.sampled_from(VALUES) | st.integers(-5, 5).map(str) | st.floats().map(str))
    return json.dumps(holder[""], separators=(",", ":")).replace(f'"{PLACE}"', raw)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with one to three places changed."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, max(len(changed) - 1, 0))), draw(st.integers(1, 40))
        change = draw(st.sampled_from(["flip", "delete", "double", "insert", "cut"]))
        if change == "flip" and changed:
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "delete":
            del changed[at : at + length]
        elif change == "double":
            changed[at:at] = changed[at : at + length]
        elif change == "insert":
            changed[at:at] = draw(st.binary(max_size=8) | st.sampled_from([b"\n", b'"', b"{", b"0", b"\xff"]))
        elif change == "cut":
            del changed[at:]
    return bytes(changed)


@st.composite
def damaged(draw: st.DrawFn, texts: Sequence[str]) -> bytes:
    """A file of several lines, or of one JSON value, damaged in one of the two ways."""
    text = draw(st.sampled_from(texts))
    if draw(st.booleans()):
        return draw(damaged_bytes(text.encode()))
    lines = text.splitlines(keepends=True) if text.startswith('{"') else [text]
    number = draw(st.integers(0, len(lines) - 1))
    line = lines[number]
    lines[number] = draw(damaged_values(line)) + "\n" * line.endswith("\n")
    return "".join(lines).encode()


def refusal_of(read: Callable[[], object], errors: tuple[type[ValueError], ...]) -> ValueError | None:
    """The error that a reader raises, if it is one of these; None where it reads."""
    try:
        read()
    except errors as error:
        return error
    return None


def try_all(
    texts: Sequence[str], check: Callable[[bytes], object], errors: tuple[type[ValueError], ...], count: int = EXAMPLES
) -> Counter[str]:
    """Tries `count` damaged ones of these files, and counts how many were read and how many refused.

    `check` reads a content, and checks what was read; it raises one of `errors`, the project's own, to refuse it.
    """
    outcomes: Counter[str] = Counter()

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged(texts))
    def run(content: bytes) -> None:
        refusal = refusal_of(lambda: check(content), errors)
        outcomes["read" if refusal is None else "refused"] += 1
        assert refusal is None or (len(str(refusal).splitlines()) == 1 and len(str(refusal)) < 1_000), str(refusal)

    for text in texts:
        check(text.encode())
    run()
    assert outcomes.total() >= count
    assert outcomes["refused"] > count // 10
    return outcomes


def test_genomes(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    path = tmp_path / "network" / "genome.json"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^[^\n]+$") as of_folder:  # there are no weights in any case
            load_network(tmp_path)
        is_sound = isinstance(of_folder.value, CheckpointError)
        assert is_sound or isinstance(of_folder.value, ArchitectureError)
        refusal = refusal_of(lambda: read_genome(path), (ArchitectureError, RunFolderError))
        assert (refusal is None) == is_sound
        read = from_json(content)
        assert from_json(to_json(read)) == read
        assert read_genome(path) == read

    assert try_all([to_json(NETWORK), to_json(PLAIN)], check, (ArchitectureError,))["read"] > 0


def individuals() -> list[Individual]:
    """Of all kinds: mutated, failed, duplicated, extinct, taken over."""
    common: dict[str, Any] = {"architecture": NETWORK, "parameters": 784, "flops": 12_345, "parents": ()}
    first, failed = Reference(generation=0, index=0), Fate.FAILED
    timed = {"loss": 1.5, "latency": 1e-5, "batch_latency": 0.25, "memory": 1_000}
    mutated = common | {"generation": 0, "phase": "primary", "operators": {"insert_conv": 2}}
    to_end = {"landmarks": reached(0.5, 0.5, 0.75, thresholds=(0.25, 0.25), **timed), "test_accuracy": 0.5}
    duplicate = common | {"generation": 1, "phase": "duplication", "operators": None, "repeats": (1, 2)}
    duplicate |= {"parents": (first, first)}
    return [
        Individual(**mutated | to_end, index=0, fate=Fate.PARENT, seconds_training=2.5),
        Individual(**mutated | {"architecture": PLAIN}, index=1, fate=failed, cause="out of\nmemory"),
        Individual(**duplicate, index=0, landmarks=reached(0.5, thresholds=(0.75,)), fate=Fate.EXTINCT, same_as=first),
    ]


def test_lineages(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    (tmp_path / "settings.json").touch()
    newest = "".join(f"{lineage.to_line(each)}\n" for each in individuals())
    texts = [newest, *((OLDER / f"schema-{version}.jsonl").read_text() for version in (2, 3))]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        read = lineage.read(path)
        for each in read:
            assert lineage.from_line(lineage.to_line(each)) == each
        if read:
            summarise_phases(read_record(tmp_path))
            lineage.truncate(path, read[-1].generation)
            lineage.append(path, read)

    assert try_all(texts, check, (EigenError,))["read"] > 0


def test_settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Warnings name what a file says, and pytest-xdist cannot pass on a surrogate among what is captured.
    caplog.set_level(logging.ERROR)
    chosen = {**Settings().outcome(), "dataset": "digits", "data_fingerprint": "0" * 64, "teacher_fingerprint": None}
    with RunFolder.open(tmp_path / "run", chosen, Settings().notes()) as run:
        path = run.path / "settings.json"
    text = path.read_text()
    short = {name: chosen[name] for name in ("dataset", "data_fingerprint", "seed", "channels", "dtype")}
    arguments = argparse.Namespace(data_dir=None, cache_dir=None, source=None)

    def open_run(names: dict[str, Any]) -> None:
        with RunFolder.open(run.path, names, {}):
            assert path.read_bytes() != b""

    readers: list[Callable[[], object]] = [
        lambda: check_run_folder(run.path, short),
        lambda: open_run(chosen),
        lambda: evaluate._read_settings(run.path, arguments),
        lambda: read_origin(dataclasses.replace(Settings(), run_dir=run.path)),
    ]
    errors = (EigenError,)
    outcomes: Counter[int] = Counter()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refusals = []
        for number, read in enumerate(readers):
            refusal = refusal_of(read, errors)
            if refusal is None:
                outcomes[number] += 1
            else:
                assert len(str(refusal).splitlines()) == 1, str(refusal)
                refusals.append(refusal)
            assert path.read_bytes() == content
        if refusals:
            raise refusals[0]

    try_all([text], check, errors)
    assert all(outcomes[number] > 1 for number in range(len(readers)))


def test_teachers(tmp_path: Path) -> None:
    save_teacher(tmp_path)

    def check(content: bytes) -> None:
        (tmp_path / "teacher.json").write_bytes(content)
        read = read_teacher(tmp_path)
        TEACHER.write(tmp_path, read)
        assert read_teacher(tmp_path) == read

    assert try_all([(tmp_path / "teacher.json").read_text()], check, (TeacherError,), FEW)["read"] > 0


def test_results(tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = DataConfig(name="digits", cache_dir=tmp_path)
    chosen = Settings(run_dir=run, teacher_dir=tmp_path / "teacher", data=data)
    FakeMakers(data_fingerprint="0").search(chosen)

    def check(content: bytes) -> None:
        (run / "result.json").write_bytes(content)
        read = read_result(run)
        assert read.found is None or read.found.index >= 0

    assert try_all([(run / "result.json").read_text()], check, (EigenError,), FEW)["read"] > 0
