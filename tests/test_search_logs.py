"""Logs of searches: what stands in them, that no point stands there twice, and what is said of damaged ones."""

import contextlib
import csv
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from executor_data import CONFIG as TRAIN
from executor_data import make_dataset
from refusals import refuses
from report_data import individual
from search_data import Pretence

from eigen_jax import lineage
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Individual, Reference
from eigen_jax.search import LOGS, Log, LogError, Observers, SearchConfig, SearchObserver, run_search
from eigen_jax.search.logs import describe
from eigen_jax.strategies import EvolutionConfig

BRIEF: dict[str, Any] = {"max_primary_generations": 2, "max_secondary_generations": 1}
EVOLUTION = EvolutionConfig(population_size=3, primary_steps=6, first_rank=2, second_rank=1, **BRIEF)
SPEC = GenomeSpec(capacity=6, input_shape=(4, 4, 1), num_classes=2, channels=(4, 8), max_flops=50_000)
CONFIG = SearchConfig(seed=1, t1=2, t2=2, t3=2, final_steps=0, genome=SPEC, evolution=EVOLUTION, train=TRAIN)
Point = tuple[str, str, int]


class Killed(BaseException):
    """What a search is ended by."""


def opened(run: Path) -> tuple[Log, ...]:
    """Logs of all kinds that can be kept here."""
    kinds = LOGS if importlib.util.find_spec("tensorboardX") else ["csv"]
    return tuple(LOGS.find(kind)(run) for kind in kinds)


def points_of_csv(run: Path) -> list[tuple[Point, float]]:
    """All points in a log: what of, which quantity, the step, the value."""
    with (run / "logs" / "curves.csv").open(encoding="utf-8") as file:
        return [((r["of"], r["quantity"], int(r["step"])), float(r["value"])) for r in csv.DictReader(file)]


def events(run: Path) -> Iterator[tuple[str, int, Any]]:
    """What each value in the event files is of, its step and itself."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2", reason="an extra: pip install 'eigen_jax[tensorboard]'")
    for path in (run / "logs").glob("tensorboard/*/events.*"):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event, content = proto.Event.FromString(content[12 : 12 + length]), content[16 + length :]
            yield from ((path.parent.name, event.step, value) for value in event.summary.value)


def points_of_events(run: Path) -> list[tuple[Point, float]]:
    return [((of, v.tag, step), v.simple_value) for of, step, v in events(run) if v.HasField("simple_value")]


def expected(individuals: tuple[Individual, ...]) -> dict[Point, float]:
    """The points of a pretended search, by its record."""
    told: dict[Point, float] = {}
    for each in individuals:
        of = str(each.reference)
        for number, landmark in enumerate(each.landmarks):
            step = 2 * (number + 1)
            if landmark.measurement is not None and landmark.fitness is not None:
                told[of, "validation_accuracy", step] = landmark.measurement.accuracy
                told[of, "fitness", step] = landmark.fitness[0]
            if each.same_as is None:
                told[of, "training_loss", step] = 2.5
    best = 0.0
    for generation in {each.generation for each in individuals}:
        own = [each for each in individuals if each.generation == generation]
        best = max([best, *(each.end.fitness[0] for each in own if each.end and each.end.fitness)])
        told["search", "best_fitness", generation] = best
        told["search", "extinct", generation] = sum(each.fate == "extinct" for each in own)
        told["search", "failed", generation] = sum(each.fate == "failed" for each in own)
        told["search", "training_flops", generation] = sum(each.training_flops or 0 for each in own)
        for number in (0, 1):
            levels = [each.landmarks[number].threshold for each in own if len(each.landmarks) > number]
            if levels and levels[0] is not None:
                told["search", f"threshold_t{number + 1}", generation] = levels[0]
    return told


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Point, float]]:
    """The folder of a search that was killed twice and went on, with all logs, and the points that stand in them."""
    run, dataset = tmp_path_factory.mktemp("search") / "run", make_dataset()
    with pytest.MonkeyPatch.context() as patch:
        pretended = Pretence(patch)

        def kill(job: Any) -> None:
            if len(pretended.trained) in (4, 8):
                raise Killed

        pretended.afterwards = kill
        for _ in range(2):
            with contextlib.ExitStack() as stack, pytest.raises(Killed):
                run_search(CONFIG, dataset, run, observer=Observers(*map(stack.enter_context, opened(run))))
            for path in (run / "logs").glob("*.csv"):  # what a killed writer leaves
                path.write_bytes(path.read_bytes() + b"0.1,fit")
        with contextlib.ExitStack() as stack:
            result = run_search(CONFIG, dataset, run, observer=Observers(*map(stack.enter_context, opened(run))))
    assert len(pretended.trained) > 8
    assert result.test_accuracy is not None
    end = {("search", "test_accuracy", result.generations): result.test_accuracy}
    return run, expected(lineage.read(run / "lineage.jsonl")) | end


@pytest.mark.parametrize("points", [points_of_csv, points_of_events], ids=["csv", "tensorboard"])
def test_every_point_of_a_search_that_went_on_is_logged_once(points, interrupted):
    run, wanted = interrupted
    found = points(run)
    assert len(dict(found)) == len(found)
    assert dict(found) == {point: pytest.approx(value, rel=1e-6) for point, value in wanted.items()}


def test_every_individual_of_a_search_that_went_on_is_logged_once(interrupted):
    run, _ = interrupted
    rows = [describe(each) for each in lineage.read(run / "lineage.jsonl")]
    with (run / "logs" / "lineage.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    tables = [(step, v.tensor.string_val[0].decode()) for _, step, v in events(run) if v.HasField("tensor")]
    assert sorted(step for step, _ in tables) == list(range(rows[-1]["generation"] + 1))
    for step, table in tables:
        names = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
        assert names == [row["individual"] for row in rows if row["generation"] == step]


def test_a_lineage_that_was_written_in_part_is_completed(tmp_path):
    path, generation = tmp_path / "logs" / "lineage.csv", [individual(0, i, "primary", 0.5) for i in range(3)]
    for _ in range(2):
        log = LOGS.find("csv")(tmp_path)
        log.search_started(generation=0, landmarks=(100,))
        log.generation_ended(individuals=generation, best_fitness=0.5, parent=None)
        if whole := path.read_bytes():
            path.write_bytes(whole[: whole.rfind(b"0.1") + 10])
    log = LOGS.find("csv")(tmp_path)
    log.search_started(generation=0, landmarks=(100,))
    log.generation_ended(individuals=generation, best_fitness=0.5, parent=None)
    assert path.read_bytes() == whole
    assert whole.count(b"\n") == 4


def test_what_is_no_number_is_not_logged(tmp_path):
    log = LOGS.find("csv")(tmp_path)
    log.search_started(generation=0, landmarks=(2,))
    for step, value in ((1, float("nan")), (2, 0.5), (2, 0.75), (1, 0.25), (3, None)):
        log.note("0.0", "fitness", step, value)
    assert (tmp_path / "logs" / "curves.csv").read_text() == "of,quantity,step,value\n0.0,fitness,2,0.5\n"


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "of,quantity,step,value\n0.0,fitness,x,1\n", "of,quantity\n1\n"])
def test_what_is_no_log_is_left_as_it_is(content, tmp_path):
    path = tmp_path / "logs" / "curves.csv"
    path.parent.mkdir()
    path.write_text(content)
    with refuses(LogError, f"{path} is damaged, or no log of this version; remove it, and what follows is logged"):
        LOGS.find("csv")(tmp_path).search_started(generation=0, landmarks=(2,))
    assert path.read_text() == content


def test_without_tensorboardx_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    line = "tensorboardX is not installed; install the extra: pip install 'eigen_jax[tensorboard]'"
    with refuses(LogError, line):
        LOGS.find("tensorboard")(tmp_path)


def test_several_observers_are_told_of_everything_in_order():
    told = []

    class Told(SearchObserver):
        def __init__(self, name: str) -> None:
            self.name = name

        def search_started(self, **what: Any) -> None:
            told.append((self.name, what))

        def final_training_progress(self, **what: Any) -> None:
            told.append((self.name, what))

    both = Observers(Told("a"), Told("b"))
    both.search_started(generation=1, landmarks=(2,))
    both.final_training_progress(step=1, loss=2.0, steps_per_second=3.0)
    both.individuals_extinct(landmark=0, individuals=(), threshold=None)
    started, progress = {"generation": 1, "landmarks": (2,)}, {"step": 1, "loss": 2.0, "steps_per_second": 3.0}
    assert told == [("a", started), ("b", started), ("a", progress), ("b", progress)]


def test_an_individual_is_a_row():
    parents, operators = (Reference(generation=0, index=2),), {"b": 2, "a": 1, "c": 0}
    row = describe(individual(1, 0, "primary", 0.5, parents=parents, operators=operators))
    told = {"individual": "1.0", "parents": "0.2", "operators": "a:1 b:2", "repeats": "", "fate": "survived"}
    assert told.items() <= row.items()
    assert (row["accuracy"], row["fitness"], row["seconds"], row["layers"]) == (0.5, "0.5", 11.5, 0)
