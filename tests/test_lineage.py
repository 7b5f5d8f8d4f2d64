"""The record of a run: what is written is what is read, and a damaged file is told from a whole one."""

import binascii
import json
import math
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, Layer
from eigen_jax.lineage import Fate, Individual, Landmark, LineageError, Reference

IMAGE_ONLY = Architecture(input_shape=(8, 8, 1), layers=())
SMALL = Architecture(
    input_shape=(8, 8, 1),
    layers=(
        Layer(op="conv", inputs=(-1,), channels=16, kernel=3, stride=1),
        Layer(op="pool", inputs=(0,)),
        Layer(op="conv", inputs=(1,), channels=16, kernel=1, stride=1),
        Layer(op="concat", inputs=(2, 1)),
    ),
)


def make(generation: int = 0, index: int = 0, **fields: Any) -> Individual:
    defaults: dict[str, Any] = {
        "phase": "primary",
        "parent": None,
        "operators": {"insert_pool": 1, "insert_conv": 2},
        "architecture": SMALL,
        "parameters": 784,
        "flops": 12_345,
        "t1": Landmark(fitness=0.5, threshold=0.25),
        "fate": Fate.SURVIVED,
        "seconds_compiling": 1.5,
        "seconds_training": 2.25,
    }
    return Individual(generation=generation, index=index, **(defaults | fields))


counts = st.integers(0, 2**40)
fractions = st.none() | st.floats(allow_nan=False, allow_infinity=False)
references = st.builds(Reference, generation=counts, index=counts)
landmarks = st.builds(Landmark, fitness=fractions, threshold=fractions)
seconds = st.floats(0, 1e12)
makings = st.one_of(  # operators and repeats: by mutation, by duplication, or by neither
    st.tuples(st.none() | st.dictionaries(st.text(), counts), st.none()),
    st.tuples(st.none(), st.lists(st.integers(1, 2**40), min_size=1).map(tuple)),
)
individuals = st.builds(
    lambda fate, cause, making, **fields: Individual(
        fate=fate,
        cause=cause if fate is Fate.FAILED else None,
        operators=making[0],
        repeats=making[1],
        **fields,
    ),
    generation=counts,
    phase=st.text(min_size=1),
    index=counts,
    parent=st.none() | references,
    making=makings,
    architecture=st.sampled_from([IMAGE_ONLY, SMALL]),
    parameters=counts,
    flops=counts,
    t1=landmarks,
    t2=landmarks,
    t3=landmarks,
    test_accuracy=st.none() | st.floats(0, 1),
    fate=st.sampled_from(Fate),
    cause=st.text(min_size=1),
    same_as=st.none() | references,
    seconds_compiling=seconds,
    seconds_training=seconds,
)


@given(individuals)
def test_a_line_gives_its_individual_back(individual: Individual) -> None:
    line = lineage.to_line(individual)
    assert "\n" not in line
    assert line.isascii()
    assert lineage.from_line(line) == individual
    assert lineage.to_line(lineage.from_line(line)) == line


def test_the_line_is_the_documented_one() -> None:
    individual = make(
        3,
        1,
        parent=Reference(generation=2, index=5),
        t2=Landmark(fitness=0.625),
        fate=Fate.FAILED,
        cause="out of\nmemory",
    )
    line = lineage.to_line(individual)
    start, architecture = line.split(',"fingerprint":"')
    assert start == (
        '{"schema_version":3,"generation":3,"phase":"primary","index":1,"parent":{"generation":2,"index":5},'
        '"operators":{"insert_conv":2,"insert_pool":1},"repeats":null,"parameters":784,"flops":12345,'
        '"t1":{"fitness":0.5,"threshold":0.25},"t2":{"fitness":0.625,"threshold":null},'
        '"t3":{"fitness":null,"threshold":null},"test_accuracy":null,"fate":"failed",'
        '"cause":"out of\\nmemory","same_as":null,'
        '"seconds_compiling":1.5,"seconds_training":2.25'
    )
    assert '","architecture":{' in architecture
    assert [layer["op"] for layer in json.loads(line)["architecture"]["layers"]] == ["conv", "pool", "conv", "concat"]


def test_a_line_ends_with_the_checksum_of_all_that_it_says_but_the_seconds() -> None:
    line = lineage.to_line(make(seconds_compiling=1.5, seconds_training=2.25))
    sealed, checksum = line[: -len(',"checksum":"01234567"}')], line[-len('01234567"}') : -len('"}')]
    timeless = sealed.replace(
        '"seconds_compiling":1.5,"seconds_training":2.25', '"seconds_compiling":0.0,"seconds_training":0.0'
    )
    assert timeless != sealed
    assert checksum == format(binascii.crc32(timeless.encode() + b"}"), "08x")
    assert line == f'{sealed},"checksum":"{checksum}"}}'


def seconds_of(individual: Individual) -> tuple[float, float]:
    return individual.seconds_compiling, individual.seconds_training


def test_any_flipped_bit_is_told_but_for_one_that_makes_other_seconds(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    record = [make(0, 0, architecture=IMAGE_ONLY, t1=Landmark(fitness=1e-05), parent=None)]
    lineage.append(path, record)
    whole = path.read_bytes()
    undetected = 0
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            (read,) = lineage.read(path)
        except LineageError:
            continue
        assert lineage.without_times(read) == lineage.without_times(record[0])
        assert seconds_of(read) != seconds_of(record[0])
        undetected += 1
    assert undetected < 8 * len("1.52.25")


def old_line(individual: Individual) -> str:
    """The line of schema version 2, which had no checksum."""
    content = json.loads(lineage.to_line(individual)) | {"schema_version": 2}
    del content["checksum"]
    return json.dumps(content, separators=(",", ":"))


def test_a_record_that_began_without_checksums_goes_on_with_them(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    old, new = [make(0), make(1)], make(1, 0, flops=7)
    path.write_text("".join(old_line(individual) + "\n" for individual in old))
    assert lineage.read(path) == tuple(old)
    lineage.truncate(path, 1)
    lineage.append(path, [new])
    assert lineage.read(path) == (old[0], new)
    assert path.read_text() == f"{old_line(old[0])}\n{lineage.to_line(new)}\n"


def test_a_flipped_digit_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    lineage.append(path, [make(0), make(1)])
    path.write_bytes(path.read_bytes().replace(b'"generation":1,', b'"generation":9,'))
    with pytest.raises(
        LineageError, match=r"lineage\.jsonl, line 2: checksum is '\w{8}', and its content's is '\w{8}'"
    ):
        lineage.read(path)


def test_the_line_of_a_duplicate_is_the_documented_one() -> None:
    line = lineage.to_line(make(phase="duplication", operators=None, repeats=(1, 3), test_accuracy=0.625))
    assert '"operators":null,"repeats":[1,3],"parameters":784,' in line
    assert '"t3":{"fitness":null,"threshold":null},"test_accuracy":0.625,"fate":"survived",' in line
    assert lineage.from_line(line).repeats == (1, 3)


def test_the_order_in_which_operators_were_counted_does_not_show() -> None:
    one, other = make(operators={"a": 1, "b": 2}), make(operators={"b": 2, "a": 1})
    assert lineage.to_line(one) == lineage.to_line(other)


def test_only_the_seconds_are_left_out_of_a_comparison() -> None:
    slow, fast = make(seconds_compiling=9.0, seconds_training=8.0), make(seconds_compiling=0.1, seconds_training=0.2)
    assert slow != fast
    assert lineage.without_times(slow) == lineage.without_times(fast)
    assert lineage.without_times(slow) != lineage.without_times(make(flops=1))


@pytest.mark.parametrize("value", [math.nan, -math.inf, np.float32("nan"), jnp.float32(-jnp.inf), None])
def test_a_fitness_that_was_not_measured_is_none(value: Any) -> None:
    assert lineage.landmark(value, value) == Landmark(fitness=None, threshold=None)


@pytest.mark.parametrize("value", [0.25, np.float32(0.25), np.float64(0.25), jnp.float32(0.25)])
def test_a_scalar_of_any_library_becomes_a_number(value: Any) -> None:
    made = lineage.landmark(value, value)
    assert made == Landmark(fitness=0.25, threshold=0.25)
    assert type(made.fitness) is float


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generation": -1}, "generation is -1; it must be an integer of at least 0"),
        ({"index": True}, "index is True; it must be an integer of at least 0"),
        ({"parameters": 1.0}, "parameters is 1.0; it must be an integer of at least 0"),
        ({"phase": ""}, "phase is ''; it must be a name"),
        ({"operators": {"insert_conv": -2}}, "operators['insert_conv'] is -2; it must be an integer of at least 0"),
        ({"operators": None, "repeats": (1, 0)}, "repeats[1] is 0; it must be an integer of at least 1"),
        ({"operators": None, "repeats": (True,)}, "repeats[0] is True; it must be an integer of at least 1"),
        ({"operators": None, "repeats": ()}, "repeats is (); it must be a tuple of a count for each block"),
        ({"operators": None, "repeats": [1]}, "repeats is [1]; it must be a tuple of a count for each block"),
        ({"repeats": (1, 2)}, "operators and repeats are both given; an individual is made by one of them"),
        ({"test_accuracy": 62.2}, "test_accuracy is 62.2; it must be a finite number from 0 to 1"),
        ({"test_accuracy": -0.1}, "test_accuracy is -0.1; it must be a finite number from 0 to 1"),
        ({"test_accuracy": math.nan}, "test_accuracy is nan; it must be a finite number from 0 to 1"),
        ({"seconds_training": -1.0}, "seconds_training is -1.0; it must be a finite number from 0 to 1e+12"),
        ({"seconds_training": math.nan}, "seconds_training is nan; it must be a finite number from 0 to 1e+12"),
        ({"fate": "parent"}, "fate is 'parent'; it must be one of parent, survived, extinct_t1, extinct_t2, failed"),
        ({"fate": Fate.FAILED}, "cause is None; an individual that failed must say why"),
        ({"cause": "late"}, "cause is 'late'; it must be none where the fate is survived"),
    ],
)
def test_an_impossible_individual_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(LineageError) as caught:
        make(**fields)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "0.5", True, 10**400])
def test_a_landmark_holds_finite_numbers_only(value: Any) -> None:
    with pytest.raises(LineageError, match=r"^fitness is .*; it must be a finite number$"):
        Landmark(fitness=value)


def test_a_record_grows_by_generations_and_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    first, second = [make(0, 0), make(0, 1, fate=Fate.PARENT)], [make(1, 0, parent=Reference(generation=0, index=1))]
    lineage.append(path, first)
    lineage.append(path, second)
    assert lineage.read(path) == (*first, *second)
    assert lineage.read(path)[2].parent == lineage.read(path)[1].reference
    assert path.read_text() == "".join(lineage.to_line(individual) + "\n" for individual in first + second)


def test_a_cut_record_reads_as_its_whole_lines_and_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    record = [make(0, 0), make(1, 0), make(1, 1, architecture=IMAGE_ONLY)]
    lineage.append(path, record)
    whole = path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    # Every wait for the disk is slow, so: each line's ends and their neighbours, and a few places within.
    cuts = {0, *range(1, len(whole), 101), *(end + shift for end in ends for shift in (-2, -1, 0, 1))}
    for cut in sorted(cuts & set(range(len(whole) + 1))):
        path.write_bytes(whole[:cut])
        lines = sum(end <= cut for end in ends)
        assert lineage.read(path) == tuple(record[:lines])
        if lines:
            lineage.truncate(path, 1)
            lineage.append(path, record[1:])
            assert path.read_bytes() == whole


def test_appending_after_half_a_line_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    lineage.append(path, [make()])
    path.write_bytes(path.read_bytes()[:-1])
    before = path.read_bytes()
    with pytest.raises(LineageError, match=r"ends in the middle of a line; truncate it to its last whole generation$"):
        lineage.append(path, [make(1)])
    assert path.read_bytes() == before


def test_truncation_keeps_the_bytes_of_the_first_generations(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    lineage.append(path, [make(0, 0), make(0, 1)])
    kept = path.read_bytes()
    mode = path.stat().st_mode
    lineage.append(path, [make(1, 0)])
    lineage.append(path, [make(2, 0)])
    lineage.truncate(path, 1)
    assert path.read_bytes() == kept
    assert path.stat().st_mode == mode
    assert [entry.name for entry in tmp_path.iterdir()] == ["lineage.jsonl"]
    lineage.truncate(path, 0)
    assert path.read_bytes() == b""


def test_truncation_that_fails_leaves_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lineage.jsonl"
    lineage.append(path, [make(0), make(1)])
    before = path.read_bytes()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(LineageError, match=r"^cannot write .*lineage\.jsonl: No space left on device; "):
        lineage.truncate(path, 1)
    assert path.read_bytes() == before


def test_truncation_of_a_record_that_lacks_a_generation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    lineage.truncate(path, 0)
    assert not path.exists()
    lineage.append(path, [make(0), make(2)])
    with pytest.raises(LineageError, match="has no generation 1, and the search had finished 3; put back the file"):
        lineage.truncate(path, 3)
    with pytest.raises(LineageError, match=r"cannot read .*: No such file or directory; name the record of a run$"):
        lineage.truncate(tmp_path / "absent.jsonl", 1)


def test_a_folder_that_cannot_be_written_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "lineage.jsonl"
    with pytest.raises(LineageError) as caught:
        lineage.append(path, [make()])
    assert str(caught.value) == f"cannot write {path}: No such file or directory; choose a folder that can be written"


def changed(**fields: Any) -> str:
    """The line of an individual with some JSON fields replaced; `...` removes one."""
    content = json.loads(lineage.to_line(make())) | fields
    return json.dumps({name: value for name, value in content.items() if value is not ...})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the line is not JSON; the file is damaged"),
        ('{"schema_version":1', "the line is not JSON; the file is damaged"),
        ("[" * 100_000, "the line is not JSON; the file is damaged"),
        ("[]", "the line is not a JSON object; the file is damaged"),
        (changed(schema_version=1), "schema version is 1; this version of eigen_jax reads 2 and 3"),
        (changed(schema_version=True), "schema version is True; this version of eigen_jax reads 2 and 3"),
        (changed(schema_version=...), "schema version is None; this version of eigen_jax reads 2 and 3"),
        (changed(t2=...), "an individual lacks field 't2'"),
        (changed(colour=1), "an individual has an unknown field 'colour'"),
        (changed(generation="0"), "generation is '0'; it must be an integer of at least 0"),
        (changed(t1=0.5), "t1 is 0.5; it must be an object"),
        (changed(t1={"fitness": 0.5}), "t1 lacks field 'threshold'"),
        (
            changed(t1={"fitness": math.nan, "threshold": None}),
            "the line is not JSON; the file is damaged",
        ),
        (
            changed(parent={"generation": 1, "index": None}),
            "parent: index is None; it must be an integer of at least 0",
        ),
        (changed(same_as=3), "same_as is 3; it must be an object"),
        (changed(repeats=2), "repeats is 2; it must be an array or null"),
        (changed(repeats=[1.0]), "repeats[0] is 1.0; it must be an integer of at least 1"),
        (changed(test_accuracy="0.5"), "test_accuracy is '0.5'; it must be a finite number from 0 to 1"),
        (changed(operators=[]), "operators is []; it must be an object or null"),
        (
            changed(fate=["parent"]),
            "fate is ['parent']; it must be one of parent, survived, extinct_t1, extinct_t2, failed",
        ),
        (changed(cause="late"), "cause is 'late'; it must be none where the fate is survived"),
        (changed(checksum=...), "an individual lacks field 'checksum'"),
        (changed(schema_version=2), "an individual has an unknown field 'checksum'"),
        (changed(seconds_training=2.5), "the line is not spelt as it was written; the file is damaged"),
        (
            changed(fingerprint="0"),
            f"fingerprint is '0', and its architecture's is '{make().fingerprint}'",
        ),
    ],
)
def test_a_damaged_line_is_told_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "lineage.jsonl"
    lineage.append(path, [make()])
    with open(path, "a") as file:
        file.write(line + "\n")
    with pytest.raises(LineageError) as caught:
        lineage.read(path)
    assert str(caught.value) == f"{path}, line 2: {message}"


def test_a_damaged_architecture_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "lineage.jsonl"
    path.write_text(changed(architecture={}) + "\n")
    with pytest.raises(LineageError) as caught:
        lineage.read(path)
    assert str(caught.value).startswith(f"{path}, line 1: architecture: ")
    assert "\n" not in str(caught.value)
