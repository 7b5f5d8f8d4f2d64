"""JSON that is sound or one error, and the files whose content is a dataclass."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from refusals import refuses

from eigen_jax.errors import EigenError
from eigen_jax.store.records import Count, JSONError, RecordFile, changes, convert, parse_json, read_json, to_fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"\xff\xfe", "it is no text in UTF-8"),
        ('"\xe9"'.encode("latin-1"), "it is no text in UTF-8"),
        ("{}".encode("utf-16"), "it is no text in UTF-8"),
        (b"[" * 100_000, "its arrays and objects are too deep in one another"),
        (b"[" * 66 + b"]" * 66, "its arrays and objects are too deep in one another"),
        (b'{"a":' * 66 + b"1" + b"}" * 66, "its arrays and objects are too deep in one another"),
        (b"[NaN]", "it holds NaN, which is no finite number"),
        (b"-Infinity", "it holds -Infinity, which is no finite number"),
        (b"[1e999]", "it holds 1e999, which is no finite number"),
        (b"9" * 301, "it holds an integer of 301 digits"),
        (b"9" * 10_000, "it holds an integer of 10,000 digits"),
        (b'{"a":1,"b":2,"a":1}', "it holds an object with one key twice"),
    ],
)
def test_unsound_json_is_one_error(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(text)
    with refuses(JSONError, message):
        read_json(tmp_path / "file")


def test_sound_json_is_read() -> None:
    assert parse_json(b"[" * 65 + b"]" * 65) == json.loads("[" * 65 + "]" * 65)
    assert float(parse_json("9" * 300)) == 1e300
    assert parse_json('{"a": [1, -2.5e3, true, null, "\\u00e9"]}') == {"a": [1, -2500.0, True, None, "é"]}


class SpoonError(EigenError):
    """Of the spoons below."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bowl:
    depth: Count = 1

    def __post_init__(self) -> None:
        if self.depth == 13:
            raise SpoonError("depth is 13; it must be another one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spoon:
    length: float
    bowls: tuple[Bowl, ...] = ()


SPOONS = RecordFile(name="spoon.json", place="drawer", kind=Spoon, schema_version=3, error=SpoonError, advice="buy one")
EXACT_SPOONS = dataclasses.replace(SPOONS, is_exact=True)
SPOON = Spoon(length=2.5, bowls=(Bowl(depth=2),))


@pytest.mark.parametrize("spoons", [SPOONS, EXACT_SPOONS])
def test_a_record_that_was_written_is_read_and_defaults_stand_for_what_is_missing(
    tmp_path: Path, spoons: RecordFile[Spoon]
) -> None:
    path = tmp_path / "spoon.json"
    spoons.write(tmp_path, SPOON)
    assert json.loads(path.read_text()) == {"schema_version": 3, "length": 2.5, "bowls": [{"depth": 2}]}
    assert spoons.read(tmp_path) == SPOON
    path.write_text('{"length": 2, "bowls": [{}], "schema_version": 3}')
    assert spoons.read(tmp_path) == Spoon(length=2.0, bowls=(Bowl(),))
    assert to_fields(spoons.read(tmp_path)) == {"length": 2.0, "bowls": ({"depth": 1},)}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "{} is damaged (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); buy one"),
        ("[]", "{} is damaged (Expected `object`, got `array`); buy one"),
        ("{}", "{} has schema version None; this version of eigen_jax reads 3"),
        ('{"schema_version": true}', "{} has schema version True; this version of eigen_jax reads 3"),
        ('{"schema_version": 3}', "{} is damaged (Object missing required field `length`); buy one"),
        (
            '{"schema_version": 3, "length": 1, "bowls": [{}, {"depth": -1}]}',
            "{} is damaged (Expected `int` >= 0 - at `$.bowls[1].depth`); buy one",
        ),
        (
            '{"schema_version": 3, "length": 1, "bowls": [{"depth": 13}]}',
            "{} is damaged (depth is 13; it must be another one - at `$.bowls[0]`); buy one",
        ),
    ],
)
def test_a_damaged_record_gets_one_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "spoon.json"
    path.write_text(text)
    with refuses(SpoonError, line.format(path)):
        SPOONS.read(tmp_path)


def test_a_missing_record_and_unknown_fields_of_an_exact_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spoon.json"
    with refuses(SpoonError, f"cannot read {path}: No such file or directory; buy one"):
        SPOONS.read(tmp_path)
    for more in ({"colour": 1}, {"bowls": [{"colour": 1}]}):
        SPOONS.write(tmp_path, {"length": 1.0, **more})
        assert SPOONS.read(tmp_path).length == 1.0
        with refuses(SpoonError, f"{path} is damaged (it has unknown fields); buy one"):
            EXACT_SPOONS.read(tmp_path)
    with refuses(
        SpoonError,
        f"cannot write {tmp_path}/no/spoon.json: No such file or directory; choose a folder that can be written",
    ):
        SPOONS.write(tmp_path / "no", {})


@pytest.mark.parametrize(
    ("content", "kind"), [(True, int), (1.0, int), ("1", float), (1, bool), ("x" * 5_000, Count), (10**400, float)]
)
def test_nothing_is_made_of_another_type(content: Any, kind: type) -> None:
    with pytest.raises(JSONError, match=r"^[^\n]{1,200}$"):
        convert(content, kind)


def test_changes_are_told_in_short() -> None:
    then, now = {"a": 1, "b": "x" * 99, "c\n": 0, "d": [0] * 99}, {"a": 2, "b": "y", "c\n": 1, "d": None}
    text, values = changes(then, now, now)
    assert text == ", ".join(f"{{{name}}} was {{}} and is now {{}}" for name in ("a", "b", "", "d"))
    assert values[:4] == ["1", "2", "'xxxxxxxxxxxxxxxxxxxxxxxx...'", "'y'"]
    assert values[4:7] == ["'c\\n'", "0", "1"]
    assert all(len(value) <= 203 and value.isprintable() for value in values)
    long = {"x" * 5_000: 1}
    assert changes(long, {}, long) == ("{} was {} and is now {}", ["x" * 200, "1", "None"])
    assert changes(then, then, then) == ("", [])
