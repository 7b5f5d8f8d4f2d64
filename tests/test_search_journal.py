"""The journal of a run: what it gives back, and what it drops."""

import dataclasses
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from report_data import measured

from eigen_jax.executor import Outcome
from eigen_jax.fitness import Measurement
from eigen_jax.resumable import Seconds
from eigen_jax.search import RunFolderError
from eigen_jax.search.journal import Entry, Journal
from eigen_jax.store.run_files import Reference

WHOLE = measured(0.1 + 0.2, loss=1 / 3, latency=1e-7, batch_latency=0.2, memory=9)
HALF, THIRD = (Outcome(measurement=measured(accuracy)) for accuracy in (0.5, 1 / 3))


def entry(index: int, landmark: int, outcome: Outcome = HALF, *, generation: int = 4, network: str = "af95") -> Entry:
    place = Reference(generation=generation, index=index)
    return Entry(individual=place, fingerprint=network, landmark=landmark, outcome=outcome)


ENTRIES = [
    entry(0, 0, Outcome(measurement=WHOLE, seconds=Seconds(compiling=1.25, training=1e-7))),
    entry(3, 0, Outcome(cause='the mean loss is nan; ä " \\ {')),
    entry(0, 1, dataclasses.replace(HALF, seconds=Seconds(compiling=1.25, training=123456.789))),
    entry(0, 2, dataclasses.replace(THIRD, test_accuracy=0.7)),
    entry(0, 0, generation=5),  # trained ahead
]
COUNTS = st.integers(0, 2**40)
TIMES = st.floats(0, 1e12)
MEASUREMENTS = st.builds(
    Measurement,
    accuracy=st.floats(0, 1),
    loss=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    parameters=COUNTS,
    flops=COUNTS,
    latency=st.none() | TIMES,
    batch_latency=st.none() | TIMES,
    memory=st.none() | COUNTS,
)


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """All the entries as a journal notes them."""
    journal = Journal(tmp_path_factory.mktemp("journal") / "generation.jsonl")
    for each in ENTRIES:
        journal.add(each)
    return journal.path.read_bytes()


@pytest.fixture
def path(tmp_path, content) -> Path:
    """A journal with all the entries."""
    (tmp_path / "generation.jsonl").write_bytes(content)
    return tmp_path / "generation.jsonl"


def test_a_journal_gives_back_what_was_noted_to_the_bit_and_goes_on_after_it(path, content):
    journal = Journal(path)
    assert journal.entries == ENTRIES
    assert path.read_bytes() == content
    assert content.count(b"\n") == 1 + len(ENTRIES)
    journal.add(entry(9, 0))
    for each in (journal, Journal(path)):
        assert each.entries == [*ENTRIES, entry(9, 0)]


def test_an_outcome_is_found_by_the_individual_its_network_and_the_landmark(path):
    journal = Journal(path)
    for each in ENTRIES:
        assert journal.find(each.individual, each.fingerprint, each.landmark) == each.outcome
    place = Reference(generation=4, index=0)
    assert journal.find(place, "0000", 0) is None
    assert journal.find(place, "af95", 3) is None
    assert journal.find(Reference(generation=5, index=3), "af95", 0) is None
    journal.add(other := entry(3, 0, network="0000"))
    assert journal.find(other.individual, "0000", 0) == other.outcome
    assert journal.find(other.individual, "af95", 0) == ENTRIES[1].outcome


@hypothesis.given(
    measurement=st.none() | MEASUREMENTS,
    test_accuracy=st.none() | st.floats(0, 1),
    cause=st.none() | st.text(max_size=20),
    seconds=st.builds(Seconds, compiling=TIMES, training=TIMES),
)
def test_any_outcome_comes_back(tmp_path_factory, **fields):
    path, noted = tmp_path_factory.mktemp("journal") / "generation.jsonl", entry(1, 2, Outcome(**fields))
    assert Journal(path).entries == []
    Journal(path).add(noted)
    assert Journal(path).entries == [noted]


def test_what_is_not_kept_is_dropped_and_an_empty_journal_is_no_file(path):
    journal = Journal(path)
    journal.forget(before=5)
    for each in (journal, Journal(path)):
        assert each.entries == ENTRIES[-1:]
    assert path.read_bytes().count(b"\n") == 2
    journal.forget(before=6)
    assert not path.exists()
    journal.add(ENTRIES[0])
    assert Journal(path).entries == ENTRIES[:1]


@pytest.mark.parametrize(
    "header",
    [b'{"schema_version": 1, "generation": 4, "phase": "primary"}', b'{"schema_version": 3}', b'{"schema_version":2}'],
)
def test_a_journal_of_another_version_is_dropped(path, content, header):
    _, *lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join([header + b"\n", *lines]))
    journal = Journal(path)
    assert journal.entries == []
    assert not path.exists()
    journal.add(ENTRIES[0])
    assert Journal(path).entries == ENTRIES[:1]


def test_a_journal_that_was_cut_anywhere_has_the_lines_before_and_goes_on_after_them(path, content):
    ends = [position + 1 for position, byte in enumerate(content) if byte == ord("\n")]
    cuts = {*range(0, len(content), 29), *(end + shift for end in ends for shift in (-1, 0, 1))}
    for cut in cuts & set(range(len(content) + 1)):
        path.write_bytes(content[:cut])
        whole = max(0, content[:cut].count(b"\n") - 1)
        journal = Journal(path)
        assert journal.entries == ENTRIES[:whole]
        assert (path.read_bytes() if path.exists() else b"") == content[: ends[whole] if whole else 0]
        journal.add(entry(7, 0))
        assert Journal(path).entries == [*ENTRIES[:whole], entry(7, 0)]


@hypothesis.settings(max_examples=2 * hypothesis.settings().max_examples)
@hypothesis.given(data=st.data())
def test_a_flipped_bit_drops_its_line_and_what_follows(tmp_path_factory, content, data):
    """A bit may also lead to another way to write the same: then nothing is lost, and nothing else is there."""
    position = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("journal") / "generation.jsonl"
    path.write_bytes(damaged)
    entries = Journal(path).entries
    before = content[:position].count(b"\n") - 1  # intact lines but for the first, which names the schema version
    if entries != ENTRIES:
        assert entries == ENTRIES[: max(0, before)]
    assert Journal(path).entries == entries, "what was kept is sound"


def test_a_line_that_is_something_else_or_has_a_flipped_bit_in_a_value_drops_what_follows_alone(path, content):
    lines = content.splitlines(keepends=True)
    others = [b"", b"null", b"[]", b"7", b"{}", b'{"checksum": "00000000"}', b"\xff\xfe", b"[" * 100_000]
    for name in ("accuracy", "checksum", "index", "cause", "seconds", "latency", "fingerprint", "landmark"):
        damaged = bytearray(lines[1].rstrip())
        damaged[damaged.index(f'"{name}": '.encode()) + len(name) + 5] ^= 1
        others.append(bytes(damaged))
    for line in others:
        path.write_bytes(b"".join([*lines[:3], line + b"\n", *lines[3:]]))
        assert Journal(path).entries == ENTRIES[:2], line


def test_a_place_that_cannot_be_read_or_written_gets_one_line(tmp_path, path):
    advice = "choose a folder that can be written"
    with pytest.raises(RunFolderError, match=rf"\A[^\n]*: Is a directory; {advice}\Z"):
        Journal(tmp_path)
    for place, line in (
        (Path("/proc/generation.jsonl"), "[^\n]*"),
        (tmp_path / "missing" / "generation.jsonl", "No such file or directory"),
    ):
        journal = Journal(place)
        with pytest.raises(RunFolderError, match=rf"\A[^\n]*: {line}; {advice}\Z"):
            journal.add(ENTRIES[0])
        assert journal.entries == []
