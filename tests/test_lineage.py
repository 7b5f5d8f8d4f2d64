"""The record of a run: what is written is what is read, and a damaged file is told from a whole one."""

import binascii
import dataclasses
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
from report_data import reached

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, Layer
from eigen_jax.fitness import Measurement
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
OLDER = Path(__file__).parent / "older_runs"
FIRST = Reference(generation=0, index=0)
HALF = Measurement(
    accuracy=0.5, loss=1.25, parameters=784, flops=12_345, latency=1e-05, batch_latency=0.25, memory=4_096,
    balanced_accuracy=0.375, macro_f1=0.25,
)  # fmt: skip

TEXT: Any = "0.5"


def make(generation: int = 0, index: int = 0, **fields: Any) -> Individual:
    defaults: dict[str, Any] = {
        "phase": "primary",
        "parents": (),
        "operators": {"insert_pool": 1, "insert_conv": 2},
        "architecture": SMALL,
        "parameters": 784,
        "flops": 12_345,
        "landmarks": (Landmark(step=60, measurement=HALF, fitness=(0.5, -784.0), threshold=0.25),),
        "fate": Fate.SURVIVED,
        "seconds_compiling": 1.5,
        "seconds_training": 2.25,
    }
    return Individual(generation=generation, index=index, **(defaults | fields))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lineage.jsonl"


counts = st.integers(0, 2**40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
seconds = st.floats(0, 1e12)
references = st.builds(Reference, generation=counts, index=counts)
measurements = st.builds(
    Measurement,
    accuracy=st.floats(0, 1),
    loss=st.none() | numbers,
    **dict.fromkeys(("parameters", "flops"), counts),
    memory=st.none() | counts,
    **dict.fromkeys(("latency", "batch_latency"), st.none() | seconds),
)
landmarks = st.builds(
    Landmark,
    step=st.none() | counts,
    measurement=st.none() | measurements,
    fitness=st.none() | st.lists(numbers).map(tuple),
    threshold=st.none() | numbers,
)
ends = st.builds(Landmark, measurement=measurements, fitness=st.none() | st.lists(numbers).map(tuple))
makings = st.one_of(  # operators and repeats: by mutation, by duplication, or by neither
    st.tuples(st.none() | st.dictionaries(st.text(), counts), st.none()),
    st.tuples(st.none(), st.lists(st.integers(1, 2**40), min_size=1).map(tuple)),
)
individuals = st.builds(
    lambda fate, cause, making, before, end, **fields: Individual(
        fate=fate,
        cause=cause if fate is Fate.FAILED else None,
        operators=making[0],
        repeats=making[1],
        landmarks=tuple(before) if fate is Fate.FAILED else (*before, end),
        **fields,
    ),
    making=makings,
    before=st.lists(landmarks, max_size=3),
    end=ends,
    parents=st.lists(references, max_size=3).map(tuple),
    phase=st.text(min_size=1),
    architecture=st.sampled_from([IMAGE_ONLY, SMALL]),
    test_accuracy=st.none() | st.floats(0, 1),
    fate=st.sampled_from(Fate),
    cause=st.text(min_size=1),
    **dict.fromkeys(("generation", "index", "parameters", "flops"), counts),
    same_as=st.none() | references,
    **dict.fromkeys(("seconds_compiling", "seconds_training"), seconds),
)


@given(individuals)
def test_a_line_gives_its_individual_back(individual: Individual) -> None:
    line = lineage.to_line(individual)
    assert "\n" not in line
    assert line.isascii()
    assert lineage.from_line(line) == individual
    assert lineage.to_line(lineage.from_line(line)) == line


def test_the_line_is_the_documented_one_and_ends_with_the_checksum_of_all_but_the_times() -> None:
    landmarks = (*make().landmarks, Landmark(step=180))
    fields = {"landmarks": landmarks, "fate": Fate.FAILED, "cause": "out of\nmemory"}
    line = lineage.to_line(make(3, 1, parents=(Reference(generation=2, index=5), FIRST), **fields))
    start, architecture = line.split(',"fingerprint":"')
    assert start == (
        '{"schema_version":6,"generation":3,"phase":"primary","index":1,'
        '"parents":[{"generation":2,"index":5},{"generation":0,"index":0}],'
        '"operators":{"insert_conv":2,"insert_pool":1},"repeats":null,"training":{},"identities":null,'
        '"parameters":784,"flops":12345,'
        '"landmarks":[{"step":60,"measurement":{"accuracy":0.5,"loss":1.25,"parameters":784,"flops":12345,'
        '"latency":1e-05,"batch_latency":0.25,"memory":4096,"balanced_accuracy":0.375,"macro_f1":0.25},'
        '"fitness":[0.5,-784.0],"threshold":0.25},'
        '{"step":180,"measurement":null,"fitness":null,"threshold":null}],"test_accuracy":null,"fate":"failed",'
        '"cause":"out of\\nmemory","same_as":null,"training_flops":null,'
        '"seconds_compiling":1.5,"seconds_training":2.25'
    )
    assert '","architecture":{' in architecture
    assert [layer["op"] for layer in json.loads(line)["architecture"]["layers"]] == ["conv", "pool", "conv", "concat"]
    duplicate = lineage.to_line(make(phase="duplication", operators=None, repeats=(1, 3), test_accuracy=0.625))
    assert '"operators":null,"repeats":[1,3],"training":{},' in duplicate
    heir = lineage.to_line(make(training={"learning_rate": 0.025, "optimizer": "adam"}, identities=(3, 1, 4, 1, 5)))
    assert '"training":{"learning_rate":0.025,"optimizer":"adam"},"identities":[3,1,4,1,5],"parameters"' in heir
    assert '"threshold":0.25}],"test_accuracy":0.625,"fate":"survived",' in duplicate
    sealed, checksum = line[: -len(',"checksum":"01234567"}')], line[-len('01234567"}') : -len('"}')]
    timeless = sealed.replace('_compiling":1.5,', '_compiling":0.0,').replace('_training":2.25', '_training":0.0')
    times = '"latency":1e-05,"batch_latency":0.25,"memory":4096'
    timeless = timeless.replace(times, '"latency":null,"batch_latency":null,"memory":null')
    assert len(timeless) == len(sealed) - 2, "2.25 is one longer than 0.0, and 1e-05 than null"
    assert checksum == format(binascii.crc32(timeless.encode() + b"}"), "08x")
    assert line == f'{sealed},"checksum":"{checksum}"}}'


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("line", "times"),
    [
        (lineage.to_line(make(architecture=IMAGE_ONLY)), "1.5 2.25 1e-05 0.25"),
        ((OLDER / "schema-3.jsonl").read_text().splitlines()[1], "1.5 2.25"),
    ],
    ids=["newest", "schema 3"],
)
def test_any_flipped_bit_is_told_but_for_one_that_makes_another_time(path, line, times, every) -> None:
    record, whole = lineage.from_line(line), f"{line}\n".encode()
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
    assert 0 < undetected < 8 * len(times.replace(" ", "")) / every


def older_record() -> list[Individual]:
    """What `older_runs/schema-2.jsonl` and `schema-3.jsonl` say, as by hand."""
    nan = {"fate": Fate.FAILED, "cause": "the loss is nan"}
    extinct = {"fate": Fate.EXTINCT}
    taken = {"same_as": Reference(generation=0, index=2), "seconds_compiling": 0.0, "seconds_training": 0.0}
    duplicate = {"operators": None, "repeats": (1, 2)}
    small = {"architecture": SMALL, "parameters": 784, "flops": 12_345}

    def was(generation: int, index: int, *accuracies: float | None, thresholds=(), **fields: Any) -> Individual:
        fields = {"architecture": IMAGE_ONLY, "parameters": 20, "flops": 20} | fields
        sizes = {name: fields[name] for name in ("parameters", "flops")}
        landmarks = [dataclasses.replace(e, step=None) for e in reached(*accuracies, thresholds=thresholds, **sizes)]
        return make(generation, index, landmarks=tuple(landmarks), **fields)

    return [
        was(0, 0, 0.5, 0.625, 0.75, thresholds=(0.25, 0.5), test_accuracy=0.7, fate=Fate.PARENT, **small),
        was(0, 1, 0.5, 0.5, 0.625, thresholds=(0.25, 0.5), test_accuracy=0.6),
        was(0, 2, 0.125, thresholds=(0.25,), **extinct),
        was(0, 3, 0.25, 0.375, thresholds=(0.25, 0.5), **extinct),
        was(0, 4, None, thresholds=(0.25,), fate=Fate.FAILED, cause="out of\nmemory"),
        was(0, 5, 0.25, None, thresholds=(0.25, 0.5), **nan),
        was(0, 6, 0.25, 0.5, thresholds=(0.25, 0.5), **nan),
        was(1, 0, phase="secondary", parents=(FIRST,), **nan),
        was(1, 1, 0.125, thresholds=(0.5,), phase="secondary", parents=(FIRST,), **extinct, **taken),
        was(2, 0, 0.1, 0.2, 0.3, phase="duplication", parents=(FIRST,), test_accuracy=0.4, **duplicate),
    ]


@pytest.mark.parametrize("version", [2, 3])
def test_records_of_earlier_versions_are_read_and_go_on_in_the_newest(path: Path, version: int) -> None:
    text = (OLDER / f"schema-{version}.jsonl").read_text()
    path.write_text(text)
    assert lineage.read(path) == tuple(older_record())
    lineage.truncate(path, 2)
    lineage.append(path, [new := make(2, 0)])
    assert lineage.read(path) == (*older_record()[:-1], new)
    *lines, last = text.splitlines(keepends=True)
    assert f'"schema_version":{version},' in last
    assert path.read_text() == f"{''.join(lines)}{lineage.to_line(new)}\n"


def without_scores(individual: Individual) -> Individual:
    """As it is told where accuracy was the one score."""
    first, *rest = individual.landmarks
    first = dataclasses.replace(first, measurement=dataclasses.replace(HALF, balanced_accuracy=None, macro_f1=None))
    return dataclasses.replace(individual, landmarks=(first, *rest))


def test_a_line_of_before_there_were_other_scores_is_read() -> None:
    line = lineage.to_line(without_scores(make())).replace(',"balanced_accuracy":null,"macro_f1":null', "")
    content, _ = line.split(',"checksum":"')
    timeless = re.sub(r'(latency|memory)":[^,}]*', r'\1":null', content)
    timeless = re.sub(r'(seconds_\w+)":[^,}]*', r'\1":0.0', timeless)
    older = f'{content},"checksum":"{binascii.crc32(timeless.encode() + b"}"):08x}"}}'
    assert lineage.from_line(older) == without_scores(make())


def test_a_record_of_schema_version_4_does_not_tell_training_flops(path: Path) -> None:
    text = (OLDER / "schema-4.jsonl").read_text()
    path.write_text(text)
    failed = {"landmarks": (*make().landmarks, Landmark(step=180)), "fate": Fate.FAILED, "cause": "out of\nmemory"}
    parents = Reference(generation=2, index=5), FIRST
    made = make(), make(0, 1, same_as=FIRST), make(3, 1, parents=parents, **failed)
    older = tuple(map(without_scores, made))
    assert lineage.read(path) == older
    assert [each.training_flops for each in older] == [None] * 3
    lineage.append(path, [new := make(4, training_flops=2**60)])
    assert lineage.read(path) == (*older, new)
    assert path.read_text() == f"{text}{lineage.to_line(new)}\n"
    assert '"same_as":null,"training_flops":1152921504606846976,"seconds_compiling":1.5' in lineage.to_line(new)
    path.write_text(text.replace('"schema_version":4', '"schema_version":5'))
    with refuses(LineageError, f"{path}, line 1: {DAMAGED}it has or lacks ['training_flops']"):
        lineage.read(path)


def test_a_record_of_schema_version_5_is_of_those_who_inherit_nothing(path: Path) -> None:
    text = (OLDER / "schema-5.jsonl").read_text()
    path.write_text(text)
    failed = {"landmarks": (*make().landmarks, Landmark(step=180)), "fate": Fate.FAILED, "cause": "out of\nmemory"}
    parents = Reference(generation=2, index=5), FIRST
    older = make(training_flops=2**40), make(0, 1, same_as=FIRST, training_flops=0)
    assert lineage.read(path) == (*older, make(3, 1, parents=parents, training_flops=7, **failed))
    path.write_text(text.replace('"schema_version":5', '"schema_version":6'))
    with refuses(LineageError, f"{path}, line 1: {DAMAGED}it has or lacks ['identities', 'training']"):
        lineage.read(path)


@pytest.mark.parametrize(
    ("version", "old", "new", "message"),
    [
        (2, '"t2":{"fitness":0.5,"threshold":0.5},', "", f"{DAMAGED}it has or lacks ['t2']"),
        (2, '"parent":null,', "", f"{DAMAGED}it has or lacks ['parent']"),
        (2, '"parent":null,', '"parent":null,"landmarks":[],', f"{DAMAGED}it has or lacks ['landmarks']"),
        (2, '"parent":null,', '"parent":null,"colour":1,', f"{DAMAGED}it has or lacks ['colour']"),
        (2, '"repeats":null,', "", f"{DAMAGED}it has or lacks ['repeats']"),
        (2, '"t2":{"fitness":0.5,', '"t2":{', f"{DAMAGED}Object missing required field `fitness` - at `$[1]`"),
        (2, '"fitness":0.625', '"fitness":"a"', f"{DAMAGED}Expected `float | null`, got `str` - at `$[2].fitness`"),
        (2, "af9552fb", "af9552fa", NOT_AS_WRITTEN),
        (3, '"schema_version":3', '"schema_version":2', NOT_AS_WRITTEN),
        (3, '"schema_version":3', '"schema_version":4', f"{DAMAGED}it has or lacks ['landmarks', 'parent', "),
        (3, '"schema_version":3', '"schema_version":5', f"{DAMAGED}it has or lacks ['landmarks', 'parent', "),
        (3, '"fitness":0.625', '"fitness":0.626', NOT_AS_WRITTEN),
        (3, '"fitness":0.625', '"fitness":6.25e-1', NOT_AS_WRITTEN),
        (3, '"phase":"primary"', '"phase":"primari"', NOT_AS_WRITTEN),
    ],
)
def test_a_damaged_line_of_an_earlier_version_is_told(version: int, old: str, new: str, message: str) -> None:
    line = (OLDER / f"schema-{version}.jsonl").read_text().splitlines()[1]
    assert line.count(old) == 1
    with pytest.raises(LineageError, match=rf"\A{re.escape(message)}[^\n]*\Z"):
        lineage.from_line(line.replace(old, new))


def test_the_oldest_lines_may_be_spelt_in_any_way() -> None:
    line = (OLDER / "schema-2.jsonl").read_text().splitlines()[1]
    assert lineage.from_line(line.replace('"fitness":0.625', '"fitness": 6.25E-1')) == older_record()[1]


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        *((value, None) for value in (math.nan, -math.inf, np.float32("nan"), jnp.float32(-jnp.inf))),
        *((value, 0.25) for value in (0.25, np.float32(0.25), np.float64(0.25), jnp.float32(0.25))),
        *((value, 0.1) for value in (0.1, np.float32(0.1))),
        (-3.0000000001, -3.0),
        *((value, None) for value in (1e39, -1e300)),  # which no float32 can hold
    ],
)
def test_a_scalar_of_any_library_becomes_a_number_and_what_is_not_finite_none(value: Any, recorded: Any) -> None:
    made = lineage.exact(value)
    assert made == recorded
    assert type(made) is type(recorded)


@given(numbers)
def test_the_number_recorded_is_the_same_float32(value: float) -> None:
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    made = lineage.exact(value)
    assert (made is None) == (not np.isfinite(rounded))
    assert made is None or np.float32(made).tobytes() == rounded.tobytes()


TIMELESS = dataclasses.replace(HALF, latency=None, batch_latency=None, memory=None)


@pytest.mark.parametrize("name", [*(each.name for each in dataclasses.fields(Measurement)), "compiling", "training"])
def test_times_and_memory_alone_are_outside_the_checksum_and_are_left_out(name: str) -> None:
    is_time = name in ("latency", "batch_latency", "memory", "compiling", "training")
    fields: dict[str, Any] = {f"seconds_{name}": 7.0}
    if name not in ("compiling", "training"):
        change: dict[str, Any] = {name: 0.75 if isinstance(getattr(HALF, name), float) else 7}
        other = dataclasses.replace(HALF, **change)
        fields = {"landmarks": (dataclasses.replace(make().landmarks[0], measurement=other),)}
    one, two = make(), make(**fields)
    assert one != two
    checksums = {lineage.to_line(each)[-len('"checksum":"01234567"}') :] for each in (one, two)}
    assert len(checksums) == (1 if is_time else 2)
    assert (lineage.without_times(one) == lineage.without_times(two)) == is_time


def test_an_individual_without_times_has_all_else() -> None:
    operators = {"latency": 3, "seconds_training": 2}  # names that a user's operators may have
    made = make(2, 3, parents=(FIRST,), operators=operators, test_accuracy=0.5, same_as=FIRST)
    landmark = dataclasses.replace(made.landmarks[0], measurement=TIMELESS)
    timeless = dataclasses.replace(made, landmarks=(landmark,), seconds_compiling=0.0, seconds_training=0.0)
    assert lineage.without_times(made) == timeless
    assert lineage.from_line(lineage.to_line(made)) == made


def test_the_end_of_an_individual_is_the_last_landmark_that_it_survived() -> None:
    *_, last = landmarks = reached(0.5, 0.25)
    for fate in (Fate.SURVIVED, Fate.PARENT):
        survivor = make(landmarks=landmarks, fate=fate, parents=(Reference(generation=3, index=1), FIRST))
        assert (survivor.end, survivor.accuracy) == (last, 0.25)
        assert survivor.parent == Reference(generation=3, index=1)
    for fields in ({"fate": Fate.EXTINCT}, {"fate": Fate.FAILED, "cause": "late"}):
        lost = make(landmarks=landmarks, **fields)
        assert (lost.end, lost.accuracy, lost.parent) == (None, None, None)


def test_the_fittest_is_who_has_the_highest_first_objective_at_the_end() -> None:
    def valued(index: int, *fitness: float, **fields: Any) -> Individual:
        end = Landmark(step=60, measurement=HALF, fitness=fitness or None)
        return make(0, index, landmarks=(*reached(0.9), end), **fields)

    worst, best, equal = valued(0, -3.0, 9.0), valued(1, -1.5, -1.0), valued(2, -1.5, 2.0)
    unmeasured, extinct = valued(3), valued(4, 7.0, fate=Fate.EXTINCT)
    for order in ([worst, best, equal], [None, extinct, best, unmeasured, equal]):
        assert lineage.fittest(order) is best
    assert lineage.fittest([equal, best]) is equal
    for none in ([], [None], [unmeasured, extinct]):
        assert lineage.fittest(none) is None


def landmark(**fields: Any) -> dict[str, Any]:
    """The landmarks of an individual, one, with some fields of it or of its measurement replaced."""
    own = {name: fields.pop(name) for name in ("step", "fitness", "threshold") if name in fields}
    measurement = dataclasses.replace(HALF, **fields)
    return {"landmarks": (dataclasses.replace(make().landmarks[0], measurement=measurement, **own),)}


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
        ({"parents": (3,)}, "Expected `object`, got `int` - at `$.parents[0]`"),
        (landmark(fitness=(0.5, math.nan)), "Out of range float values are not JSON compliant"),
        (landmark(threshold=-math.inf), "Out of range float values are not JSON compliant"),
        (landmark(fitness=(TEXT,)), "Expected `float`, got `str` - at `$.landmarks[0].fitness[0]`"),
        (landmark(fitness=(0.5, True)), "Expected `float`, got `bool` - at `$.landmarks[0].fitness[1]`"),
        (landmark(fitness=(10**400,)), "it holds an integer of 401 digits"),
        (landmark(step=-1), "Expected `int` >= 0 - at `$.landmarks[0].step`"),
        (landmark(accuracy=62.2), "Expected `float` <= 1.0 - at `$.landmarks[0].measurement.accuracy`"),
        (landmark(latency=-1.0), "Expected `float` >= 0.0 - at `$.landmarks[0].measurement.latency`"),
        (landmark(memory=0.5), "Expected `int | null`, got `float` - at `$.landmarks[0].measurement.memory`"),
        (landmark(loss=math.inf), "Out of range float values are not JSON compliant"),
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
        ({"landmarks": ()}, "the last landmark has no measurement; it must have one where the fate is survived"),
        (
            {"landmarks": reached(0.5, None), "fate": Fate.EXTINCT},
            "the last landmark has no measurement; it must have one where the fate is extinct",
        ),
    ],
)
def test_an_individual_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with refuses(LineageError, message):
        make(**fields)


def test_a_record_grows_and_is_cut_by_generations(path: Path) -> None:
    first = [make(0, 0), make(0, 1, fate=Fate.PARENT)]
    second, third = [make(1, 0, parents=(Reference(generation=0, index=1),))], [make(2, 0)]
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


SIZES = {"parameters": 20, "flops": 20}


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
        (changed(schema_version=1), "schema version is 1; this version of eigen_jax reads 2 to 6"),
        (changed(schema_version=True), "schema version is True; this version of eigen_jax reads 2 to 6"),
        (changed(schema_version=...), "schema version is None; this version of eigen_jax reads 2 to 6"),
        (changed(landmarks=...), f"{DAMAGED}it has or lacks ['landmarks']"),
        (changed(colour=1), f"{DAMAGED}it has or lacks ['colour']"),
        (changed(schema_version=2), f"{DAMAGED}it has or lacks ['landmarks', 'parent', 'parents', 't1', 't2', 't3']"),
        (changed(generation="0"), f"{DAMAGED}Expected `int`, got `str` - at `$.generation`"),
        (changed(landmarks=[0.5]), f"{DAMAGED}Expected `object`, got `float` - at `$.landmarks[0]`"),
        (changed(landmarks=[{"measurement": SIZES | {"accuracy": 0.5}}]), NOT_AS_WRITTEN),
        (changed(landmarks=[{"fitness": [math.nan]}]), f"{DAMAGED}it holds NaN, which is no finite number"),
        (
            changed(parents=[{"generation": 1, "index": {}}]),
            f"{DAMAGED}Expected `int`, got `object` - at `$.parents[0].index`",
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
