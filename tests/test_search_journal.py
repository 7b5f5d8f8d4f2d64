"""The journal of a generation: what it gives back, and what it drops."""

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from executor_data import measured

from eigen_jax.executor import Outcome
from eigen_jax.resumable import Seconds
from eigen_jax.search import RunFolderError
from eigen_jax.search.journal import Journal
from eigen_jax.strategies.eigen import Phase

OUTCOMES: dict[tuple[int, int], Outcome] = {
    (0, 0): Outcome(measurement=measured(0.1 + 0.2), seconds=Seconds(compiling=1.25, training=1e-7)),
    (3, 0): Outcome(measurement=None, cause='the mean loss is nan; ä " \\ {', seconds=Seconds()),
    (0, 1): Outcome(measurement=measured(0.5), seconds=Seconds(compiling=1.25, training=20.0)),
    (0, 2): Outcome(
        measurement=measured(1 / 3), test_accuracy=0.7, seconds=Seconds(compiling=1.5, training=123456.789)
    ),
}
SECONDS = st.floats(0, allow_infinity=False)


def open_journal(path: Path, generation: int = 4, phase: Phase = Phase.PRIMARY) -> Journal:
    return Journal(path, generation=generation, phase=phase)


def as_text(outcomes: dict[tuple[int, int], Outcome]) -> list[tuple[tuple[int, int], str]]:
    """Outcomes that can be compared where they hold what is not a number; in their order."""
    return [(place, repr(outcome)) for place, outcome in outcomes.items()]


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """All the outcomes as a journal notes them."""
    journal = open_journal(tmp_path_factory.mktemp("journal") / "generation.jsonl")
    for (index, landmark), outcome in OUTCOMES.items():
        journal.add(index, landmark, outcome)
    return journal.path.read_bytes()


@pytest.fixture
def path(tmp_path, content) -> Path:
    """A journal with all the outcomes."""
    (tmp_path / "generation.jsonl").write_bytes(content)
    return tmp_path / "generation.jsonl"


def test_a_journal_gives_back_what_was_noted_to_the_bit_and_goes_on_after_it(path, content):
    journal = open_journal(path)
    assert as_text(journal.outcomes) == as_text(OUTCOMES)
    assert journal.outcomes[3, 0].measurement is None
    assert path.read_bytes() == content
    assert content.count(b"\n") == 1 + len(OUTCOMES)
    journal.add(9, 0, Outcome(measurement=measured(0.25)))
    for each in (journal, open_journal(path)):
        assert as_text(each.outcomes) == [*as_text(OUTCOMES), ((9, 0), repr(Outcome(measurement=measured(0.25))))]


@hypothesis.given(
    measurement=st.none() | st.builds(measured, st.floats(0, 1)),
    test_accuracy=st.none() | st.floats(0, 1),
    cause=st.none() | st.text(max_size=20),
    seconds=st.builds(Seconds, compiling=SECONDS, training=SECONDS),
)
def test_any_outcome_comes_back(tmp_path_factory, **fields):
    path, outcome = tmp_path_factory.mktemp("journal") / "generation.jsonl", Outcome(**fields)
    assert open_journal(path).outcomes == {}
    open_journal(path).add(1, 2, outcome)
    assert as_text(open_journal(path).outcomes) == [((1, 2), repr(outcome))]


@pytest.mark.parametrize(("generation", "phase"), [(5, Phase.PRIMARY), (4, Phase.SECONDARY), (0, Phase.DUPLICATION)])
def test_the_journal_of_another_generation_is_replaced(path, generation, phase):
    assert open_journal(path, generation, phase).outcomes == {}
    assert path.read_bytes().count(b"\n") == 1
    assert open_journal(path).outcomes == {}


def test_a_journal_that_was_cut_anywhere_has_the_lines_before_and_goes_on_after_them(path, content):
    ends = [position + 1 for position, byte in enumerate(content) if byte == ord("\n")]
    cuts = {*range(0, len(content), 29), *(end + shift for end in ends for shift in (-1, 0, 1))}
    for cut in cuts & set(range(len(content) + 1)):
        path.write_bytes(content[:cut])
        whole = max(0, content[:cut].count(b"\n") - 1)
        journal = open_journal(path)
        assert as_text(journal.outcomes) == as_text(OUTCOMES)[:whole]
        assert path.read_bytes() == content[: ends[whole]]
        journal.add(7, 0, Outcome(measurement=measured(0.25)))
        assert len(open_journal(path).outcomes) == whole + 1


@hypothesis.settings(max_examples=2 * hypothesis.settings().max_examples)
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


def test_a_line_that_is_something_else_or_has_a_flipped_bit_in_a_value_drops_what_follows_alone(path, content):
    lines = content.splitlines(keepends=True)
    others = [b"", b"null", b"[]", b"7", b"{}", b'{"checksum": "00000000"}', b"\xff\xfe", b"[" * 100_000]
    for name in ("accuracy", "checksum", "index", "cause", "seconds"):
        damaged = bytearray(lines[1].rstrip())
        damaged[damaged.index(f'"{name}": '.encode()) + len(name) + 5] ^= 1
        others.append(bytes(damaged))
    for line in others:
        path.write_bytes(b"".join([*lines[:3], line + b"\n", *lines[3:]]))
        assert as_text(open_journal(path).outcomes) == as_text(OUTCOMES)[:2], line


def test_a_place_that_cannot_be_written_gets_one_line(tmp_path):
    for place, line in (
        (Path("/proc/generation.jsonl"), "[^\n]*"),
        (tmp_path / "missing" / "generation.jsonl", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(RunFolderError, match=rf"\A[^\n]*: {line}; choose a folder that can be written\Z"):
            open_journal(place)
