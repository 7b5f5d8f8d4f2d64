"""The journal of a generation: what it gives back, and what it drops."""

import errno
import math
import os
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from eigen_jax import files
from eigen_jax.evolution import Phase
from eigen_jax.executor import Outcome
from eigen_jax.resumable import Seconds
from eigen_jax.search import RunFolderError
from eigen_jax.search.journal import Journal

OUTCOMES: dict[tuple[int, int], Outcome] = {
    (0, 0): Outcome(fitness=0.1 + 0.2, seconds=Seconds(compiling=1.25, training=1e-7)),
    (3, 0): Outcome(fitness=math.nan, cause='the mean loss is nan; ä " \\ {', seconds=Seconds()),
    (0, 1): Outcome(fitness=0.5, seconds=Seconds(compiling=1.25, training=20.0)),
    (0, 2): Outcome(fitness=1 / 3, test_accuracy=0.7, seconds=Seconds(compiling=1.5, training=123456.789)),
}


_SECONDS = st.floats(0, allow_infinity=False)


def open_journal(path: Path, generation: int = 4, phase: Phase = Phase.PRIMARY) -> Journal:
    return Journal(path, generation=generation, phase=phase)


def write(path: Path) -> bytes:
    """Writes a journal with all the outcomes, and gives its content."""
    journal = open_journal(path)
    for (index, landmark), outcome in OUTCOMES.items():
        journal.add(index, landmark, outcome)
    return path.read_bytes()


def as_text(outcomes: dict[tuple[int, int], Outcome]) -> list[tuple[tuple[int, int], str]]:
    """Outcomes that can be compared where they hold what is not a number; in their order."""
    return [(place, repr(outcome)) for place, outcome in outcomes.items()]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "generation.jsonl"


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    return write(tmp_path_factory.mktemp("journal") / "generation.jsonl")


# --- Round trips ------------------------------------------------------------------------------


def test_a_journal_gives_back_what_was_noted_to_the_bit(path):
    before = write(path)
    journal = open_journal(path)
    assert as_text(journal.outcomes) == as_text(OUTCOMES)
    assert math.isnan(journal.outcomes[3, 0].fitness)
    assert path.read_bytes() == before
    assert before.count(b"\n") == 1 + len(OUTCOMES)


def test_a_journal_knows_what_it_noted_itself(path):
    journal = open_journal(path)
    assert journal.outcomes == {}
    journal.add(2, 1, Outcome(fitness=0.25))
    assert journal.outcomes == {(2, 1): Outcome(fitness=0.25)}


def test_a_journal_goes_on_after_what_was_noted(path):
    write(path)
    open_journal(path).add(9, 0, Outcome(fitness=0.25))
    assert as_text(open_journal(path).outcomes) == [*as_text(OUTCOMES), ((9, 0), repr(Outcome(fitness=0.25)))]


@hypothesis.given(
    fitness=st.floats(0, 1) | st.just(math.nan),
    test_accuracy=st.none() | st.floats(0, 1),
    cause=st.none() | st.text(max_size=20),
    seconds=st.builds(Seconds, compiling=_SECONDS, training=_SECONDS),
)
def test_any_outcome_comes_back(tmp_path_factory, fitness, test_accuracy, cause, seconds):
    path = tmp_path_factory.mktemp("journal") / "generation.jsonl"
    outcome = Outcome(fitness=fitness, test_accuracy=test_accuracy, cause=cause, seconds=seconds)
    open_journal(path).add(1, 2, outcome)
    assert as_text(open_journal(path).outcomes) == [((1, 2), repr(outcome))]


@pytest.mark.parametrize(("generation", "phase"), [(5, Phase.PRIMARY), (4, Phase.SECONDARY), (0, Phase.DUPLICATION)])
def test_the_journal_of_another_generation_is_replaced(path, generation, phase):
    write(path)
    assert open_journal(path, generation, phase).outcomes == {}
    assert path.read_bytes().count(b"\n") == 1
    assert open_journal(path).outcomes == {}


# --- Damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 30, -1])
def test_a_line_that_was_not_finished_is_dropped_and_overwritten(path, left):
    whole = write(path)
    line = b'{"index": 7, "landmark": 0}'
    path.write_bytes(whole + line[: left if left >= 0 else len(line)])
    journal = open_journal(path)
    assert as_text(journal.outcomes) == as_text(OUTCOMES)
    assert path.read_bytes() == whole
    journal.add(7, 0, Outcome(fitness=0.25))
    assert len(open_journal(path).outcomes) == len(OUTCOMES) + 1


@hypothesis.settings(max_examples=60)
@hypothesis.given(length=st.integers(0, 10_000))
def test_a_journal_that_was_cut_anywhere_has_the_lines_before(tmp_path_factory, content, length):
    path = tmp_path_factory.mktemp("journal") / "generation.jsonl"
    path.write_bytes(content[:length])
    whole = max(0, content[:length].count(b"\n") - 1)
    assert as_text(open_journal(path).outcomes) == as_text(OUTCOMES)[:whole]


@hypothesis.settings(max_examples=200)
@hypothesis.given(data=st.data())
def test_a_flipped_bit_drops_its_line_and_what_follows(tmp_path_factory, content, data):
    """A bit may also lead to another way to write the same: then nothing is lost, and nothing else is there."""
    position = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("journal") / "generation.jsonl"
    path.write_bytes(damaged)
    outcomes = as_text(open_journal(path).outcomes)
    before = content[:position].count(b"\n") - 1  # intact lines but for the first, which names the generation
    if outcomes != as_text(OUTCOMES):
        assert outcomes == as_text(OUTCOMES)[: max(0, before)]
    assert as_text(open_journal(path).outcomes) == outcomes, "what was kept is sound"


@pytest.mark.parametrize("position", ["fitness", "checksum", "index", "cause", "seconds"])
def test_a_flipped_bit_in_a_value_is_seen(path, content, position):
    """In the first line of outcomes: all are dropped."""
    start = content.index(b"\n")
    damaged = bytearray(content)
    damaged[content.index(f'"{position}": '.encode(), start) + len(position) + 5] ^= 1
    path.write_bytes(damaged)
    assert open_journal(path).outcomes == {}


@pytest.mark.parametrize(
    "line", [b"", b"null", b"[]", b"7", b"{}", b'{"checksum": "00000000"}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_line_that_is_something_else_drops_what_follows_alone(path, content, line):
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line + b"\n", *lines[3:]]))
    assert as_text(open_journal(path).outcomes) == as_text(OUTCOMES)[:2]


# --- Folders ----------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_gets_one_line(tmp_path):
    for path in (Path("/proc/generation.jsonl"), tmp_path / "missing" / "generation.jsonl"):
        with pytest.raises(RunFolderError, match="choose one that can be written") as caught:
            open_journal(path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_folder_in_the_journals_place_gets_one_line(path):
    path.mkdir()
    with pytest.raises(RunFolderError, match="Is a directory"):
        open_journal(path)


def test_a_full_disk_gets_one_line_and_what_was_noted_stays(path, monkeypatch):
    write(path)
    journal = open_journal(path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(RunFolderError, match="No space left on device; free some space there"):
            journal.add(7, 0, Outcome(fitness=0.25))
    assert as_text(open_journal(path).outcomes) == as_text(OUTCOMES)
