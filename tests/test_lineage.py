"""The record of a run: what is written is what is read, and a damaged file is told from a whole one."""

import binascii
import json
import math
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses

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
DAMAGED = "the line is damaged: "
NOT_AS_WRITTEN = f"{DAMAGED}it is not as it was written"

TEXT: Any = "0.5"


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lineage.jsonl"


counts = st.integers(0, 2**40)
fractions = st.none() | st.floats(allow_nan=False, allow_infinity=False)
references = st.builds(Reference, generation=counts, index=counts)
landmarks = st.builds(Landmark, fitness=fractions, threshold=fractions)
makings = st.one_of(  # operators and repeats: by mutation, by duplication, or by neither
    st.tuples(st.none() | st.dictionaries(st.text(), counts), st.none()),
    st.tuples(st.none(), st.lists(st.integers(1, 2**40), min_size=1).map(tuple)),
)
individuals = st.builds(
    lambda fate, cause, making, **fields: Individual(
        fate=fate, cause=cause if fate is Fate.FAILED else None, operators=making[0], repeats=making[1], **fields
    ),
    making=makings,
    phase=st.text(min_size=1),
    architecture=st.sampled_from([IMAGE_ONLY, SMALL]),
    test_accuracy=st.none() | st.floats(0, 1),
    fate=st.sampled_from(Fate),
    cause=st.text(min_size=1),
    **dict.fromkeys(("generation", "index", "parameters", "flops"), counts),
    **dict.fromkeys(("t1", "t2", "t3"), landmarks),
    **dict.fromkeys(("parent", "same_as"), st.none() | references),
    **dict.fromkeys(("seconds_compiling", "seconds_training"), st.floats(0, 1e12)),
)


@given(individuals)
def test_a_line_gives_its_individual_back(individual: Individual) -> None:
    line = lineage.to_line(individual)
    assert "\n" not in line
    assert line.isascii()
    assert lineage.from_line(line) == individual
    assert lineage.to_line(lineage.from_line(line)) == line


def test_the_line_is_the_documented_one_and_ends_with_the_checksum_of_all_but_the_seconds() -> None:
    fields = {"t2": Landmark(fitness=0.625), "fate": Fate.FAILED, "cause": "out of\nmemory"}
    line = lineage.to_line(make(3, 1, parent=Reference(generation=2, index=5), **fields))
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
    duplicate = lineage.to_line(make(phase="duplication", operators=None, repeats=(1, 3), test_accuracy=0.625))
    assert '"operators":null,"repeats":[1,3],"parameters":784,' in duplicate
    assert '"t3":{"fitness":null,"threshold":null},"test_accuracy":0.625,"fate":"survived",' in duplicate
    sealed, checksum = line[: -len(',"checksum":"01234567"}')], line[-len('01234567"}') : -len('"}')]
    timeless = sealed.replace('_compiling":1.5,', '_compiling":0.0,').replace('_training":2.25', '_training":0.0')
    assert len(timeless) == len(sealed) - 1, "2.25 is one longer than 0.0"
    assert checksum == format(binascii.crc32(timeless.encode() + b"}"), "08x")
    assert line == f'{sealed},"checksum":"{checksum}"}}'


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_any_flipped_bit_is_told_but_for_one_that_makes_other_seconds(path: Path, every: int) -> None:
    record = make(0, 0, architecture=IMAGE_ONLY, t1=Landmark(fitness=1e-05), parent=None)
    lineage.append(path, [record])
    whole = path.read_bytes()
    undetected = 0
    for position in range(0, 8 * len(whole), every):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            (read,) = lineage.read(path)
        except LineageError:
            continue
        assert lineage.without_times(read) == lineage.without_times(record)
        assert read != record
        undetected += 1
    assert undetected < 8 * len("1.52.25") / every


def test_a_record_that_began_without_checksums_goes_on_with_them(path: Path) -> None:
    old, new = [make(0), make(1)], make(1, 0, flops=7)
    contents = [json.loads(lineage.to_line(individual)) | {"schema_version": 2} for individual in old]
    assert all(content.pop("checksum") for content in contents), "which that version had not"
    lines = [json.dumps(content, separators=(",", ":")) + "\n" for content in contents]
    path.write_text("".join(lines))
    assert lineage.read(path) == tuple(old)
    lineage.truncate(path, 1)
    lineage.append(path, [new])
    assert lineage.read(path) == (old[0], new)
    assert path.read_text() == f"{lines[0]}{lineage.to_line(new)}\n"


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        *((value, None) for value in (math.nan, -math.inf, np.float32("nan"), jnp.float32(-jnp.inf), None)),
        *((value, 0.25) for value in (0.25, np.float32(0.25), np.float64(0.25), jnp.float32(0.25))),
        *((value, 0.1) for value in (0.1, np.float32(0.1))),
    ],
)
def test_a_scalar_of_any_library_becomes_a_number_and_what_was_not_measured_none(value: Any, recorded: Any) -> None:
    made = lineage.landmark(value, value)
    assert made == Landmark(fitness=recorded, threshold=recorded)
    assert type(made.fitness) is type(recorded)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generation": -1}, "Expected `int` >= 0 - at `$.generation`"),
        ({"index": True}, "Expected `int`, got `bool` - at `$.index`"),
        ({"parameters": 1.0}, "Expected `int`, got `float` - at `$.parameters`"),
        ({"phase": ""}, "Expected `str` of length >= 1 - at `$.phase`"),
        ({"operators": {"insert_conv": -2}}, "Expected `int` >= 0 - at `$.operators[...]`"),
        ({"operators": None, "repeats": (1, 0)}, "Expected `int` >= 1 - at `$.repeats[1]`"),
        ({"operators": None, "repeats": (True,)}, "Expected `int`, got `bool` - at `$.repeats[0]`"),
        ({"operators": None, "repeats": ()}, "Expected `array` of length >= 1 - at `$.repeats`"),
        ({"test_accuracy": 62.2}, "Expected `float` <= 1.0 - at `$.test_accuracy`"),
        ({"test_accuracy": -0.1}, "Expected `float` >= 0.0 - at `$.test_accuracy`"),
        ({"test_accuracy": math.nan}, "Out of range float values are not JSON compliant"),
        ({"seconds_training": -1.0}, "Expected `float` >= 0.0 - at `$.seconds_training`"),
        ({"seconds_training": 1e13}, "Expected `float` <= 1000000000000.0 - at `$.seconds_training`"),
        ({"fate": "lost"}, "Invalid enum value 'lost' - at `$.fate`"),
        ({"t1": Landmark(fitness=math.nan)}, "Out of range float values are not JSON compliant"),
        ({"t1": Landmark(threshold=-math.inf)}, "Out of range float values are not JSON compliant"),
        ({"t2": Landmark(fitness=TEXT)}, "Expected `float | null`, got `str` - at `$.t2.fitness`"),
        ({"t3": Landmark(fitness=True)}, "Expected `float | null`, got `bool` - at `$.t3.fitness`"),
        ({"t3": Landmark(fitness=10**400)}, "it holds an integer of 401 digits"),
    ],
)
def test_an_impossible_individual_is_not_recorded(path: Path, fields: dict[str, Any], message: str) -> None:
    lineage.append(path, [make(0)])
    before = path.read_bytes()
    with pytest.raises(LineageError, match=rf"^individual [^\n]+ cannot be recorded: [^\n]*{re.escape(message)}"):
        lineage.append(path, [make(1), make(**fields)])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"repeats": (1, 2)}, "operators and repeats are both given; an individual is made by one of them"),
        ({"fate": Fate.FAILED}, "cause is None; an individual that failed must say why"),
        ({"cause": "late"}, "cause is 'late'; it must be none where the fate is survived"),
    ],
)
def test_an_individual_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with refuses(LineageError, message):
        make(**fields)


def test_a_record_grows_and_is_cut_by_generations(path: Path) -> None:
    first = [make(0, 0), make(0, 1, fate=Fate.PARENT)]
    second, third = [make(1, 0, parent=Reference(generation=0, index=1))], [make(2, 0)]
    for individuals in (first, second, third):
        lineage.append(path, individuals)
    mode = path.stat().st_mode
    assert lineage.read(path) == (*first, *second, *third)
    assert lineage.read(path)[2].parent == lineage.read(path)[1].reference
    for generations, kept in ((3, first + second + third), (2, first + second), (1, first), (0, [])):
        lineage.truncate(path, generations)
        assert path.read_text() == "".join(lineage.to_line(individual) + "\n" for individual in kept)
    assert path.stat().st_mode == mode
    assert [entry.name for entry in path.parent.iterdir()] == ["lineage.jsonl"]


def test_a_cut_record_reads_as_its_whole_lines_and_can_go_on(path: Path) -> None:
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


def test_what_cannot_be_cut_or_appended_to_is_refused_and_as_it_was(path: Path) -> None:
    lineage.truncate(path, 0)
    assert not path.exists()
    with refuses(LineageError, f"cannot read {path}: No such file or directory; name the record of a run"):
        lineage.truncate(path, 1)
    lineage.append(path, [make(0), make(2)])
    advice = "put back the file that belongs to this run, or start a new run folder"
    with refuses(LineageError, f"{path} has no generation 1, and the search had finished 3; {advice}"):
        lineage.truncate(path, 3)
    path.write_bytes(path.read_bytes()[:-1])
    before = path.read_bytes()
    with refuses(LineageError, f"{path} ends in the middle of a line; truncate it to its last whole generation"):
        lineage.append(path, [make(1)])
    assert path.read_bytes() == before
    path = path.parent / "absent" / path.name
    with refuses(LineageError, f"cannot write {path}: No such file or directory; choose a folder that can be written"):
        lineage.append(path, [make()])


NO_ARCHITECTURE = "an architecture lacks {0}; it must have {0}".format("schema_version, input_shape, layers")


def changed(**fields: Any) -> str:
    """The line of an individual with some JSON fields replaced; `...` removes one."""
    content = json.loads(lineage.to_line(make())) | fields
    return json.dumps({name: value for name, value in content.items() if value is not ...})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", f"{DAMAGED}Expecting value: line 1 column 1 (char 0)"),
        ('{"schema_version":1', f"{DAMAGED}Expecting ',' delimiter: line 1 column 20 (char 19)"),
        ("[" * 100_000, f"{DAMAGED}its arrays and objects are too deep in one another"),
        ("[]", f"{DAMAGED}Expected `object`, got `array`"),
        (changed(schema_version=1), "schema version is 1; this version of eigen_jax reads 2 and 3"),
        (changed(schema_version=True), "schema version is True; this version of eigen_jax reads 2 and 3"),
        (changed(schema_version=...), "schema version is None; this version of eigen_jax reads 2 and 3"),
        (changed(t2=...), NOT_AS_WRITTEN),
        (changed(colour=1), NOT_AS_WRITTEN),
        (changed(generation="0"), f"{DAMAGED}Expected `int`, got `str` - at `$.generation`"),
        (changed(t1=0.5), f"{DAMAGED}Expected `object`, got `float` - at `$.t1`"),
        (changed(t1={"fitness": 0.5}), NOT_AS_WRITTEN),
        (changed(t1={"fitness": math.nan, "threshold": None}), f"{DAMAGED}it holds NaN, which is no finite number"),
        (
            changed(parent={"generation": 1, "index": {}}),
            f"{DAMAGED}Expected `int`, got `object` - at `$.parent.index`",
        ),
        (changed(same_as=3), f"{DAMAGED}Expected `object | null`, got `int` - at `$.same_as`"),
        (changed(repeats=2), f"{DAMAGED}Expected `array | null`, got `int` - at `$.repeats`"),
        (changed(repeats=[1.0]), f"{DAMAGED}Expected `int`, got `float` - at `$.repeats[0]`"),
        (
            changed(test_accuracy="0.5"),
            f"{DAMAGED}Expected `float | null`, got `str` - at `$.test_accuracy`",
        ),
        (changed(operators=[]), f"{DAMAGED}Expected `object | null`, got `array` - at `$.operators`"),
        (changed(fate=["parent"]), f"{DAMAGED}Expected `str`, got `array` - at `$.fate`"),
        (changed(cause="late"), f"{DAMAGED}cause is 'late'; it must be none where the fate is survived"),
        (changed(checksum=...), NOT_AS_WRITTEN),
        (changed(checksum="0"), NOT_AS_WRITTEN),
        (changed(schema_version=2), NOT_AS_WRITTEN),
        (changed(seconds_training=2.5), NOT_AS_WRITTEN),
        (changed(fingerprint="0"), NOT_AS_WRITTEN),
        (changed(architecture={}), f"architecture: {NO_ARCHITECTURE}"),
    ],
)
def test_a_damaged_line_is_told_with_its_place(path: Path, line: str, message: str) -> None:
    lineage.append(path, [make()])
    with open(path, "a") as file:
        file.write(line + "\n")
    with refuses(LineageError, f"{path}, line 2: {message}"):
        lineage.read(path)
