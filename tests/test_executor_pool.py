"""Jobs among workers that are no processes but scripts, under a clock of their own."""

import collections
import dataclasses
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import pytest
from executor_data import make_job

from eigen_jax.executor import ExecutorError, Job, Outcome, PoolExecutor, pool
from eigen_jax.executor.interface import Died, Finished, Message, Progress, Ready, Refused, Stopped
from eigen_jax.lineage import LineageError
from eigen_jax.resumable import Seconds, StoppedError

KILLED = Died("was killed by SIGKILL")


@dataclasses.dataclass(frozen=True)
class Saves:
    """What a worker does without a word: it saves its job."""

    step: int


@dataclasses.dataclass(frozen=True)
class Takes:
    """Nothing happens for so many seconds."""

    seconds: float


Act = Message | Saves | Takes
Script = Callable[[Job, int], Sequence[Act]]  # what a worker does with a job, at which of its attempts, from 0


def fitness_of(job: Job) -> float:
    return int(job.name.partition(".")[2]) / 100


def outcome_of(job: Job) -> Outcome:
    return Outcome(fitness=fitness_of(job), seconds=Seconds(training=fitness_of(job)))


def good(job: Job, attempt: int) -> Sequence[Act]:
    return [Finished(outcome_of(job))]


class FakeWorker:
    """Does what the script says."""

    def __init__(self, workers: "FakeWorkers", slot: int) -> None:
        self.workers = workers
        self.slot = slot
        self.acts: collections.deque[Act] = collections.deque(workers.starting)
        self.job: Job | None = None
        self.alive = True
        self.wakes = 0.0
        self.runs: list[str] = []
        self.prepared: list[str] = []
        self.was_asked_to_stop = False

    def submit(self, job: Job) -> None:
        assert self.alive
        assert self.job is None, "a worker has one job at a time"
        self.job = job
        self.runs.append(job.name)
        if any(isinstance(act, Died) for act in self.acts):
            return  # it does not come to it
        attempt = self.workers.attempts[job.name]
        self.workers.attempts[job.name] += 1
        self.acts.extend(self.workers.script(job, attempt))

    def prepare(self, job: Job) -> None:
        assert self.alive
        self.prepared.append(job.name)

    def stop(self) -> None:
        assert self.alive
        self.was_asked_to_stop = True
        self.acts.extend(self.workers.stopping)

    def kill(self) -> None:
        self.alive = False
        self.acts.clear()

    def act(self) -> Message | None:
        """Its next act; None if that says nothing."""
        act = self.acts.popleft()
        if isinstance(act, Saves):
            assert self.job is not None
            self.workers.saves[self.job.folder] = act.step
            return None
        if isinstance(act, Takes):
            self.wakes = self.workers.now + act.seconds
            return None
        if isinstance(act, Finished | Stopped | Refused):
            self.job = None
        if isinstance(act, Died):
            self.kill()
        return act


class FakeWorkers:
    """A place for scripted workers. Each call of `messages` lets one of them act, drawn at random."""

    def __init__(
        self,
        size: int,
        script: Script = good,
        *,
        starting: Sequence[Act] = (Ready(),),
        stopping: Sequence[Act] = (Stopped(),),
        seed: int = 0,
    ) -> None:
        self.size = size
        self.script = script
        self.starting = starting
        self.stopping = stopping
        self.random = random.Random(seed)
        self.now = 0.0
        self.started: list[FakeWorker] = []
        self.attempts: collections.Counter[str] = collections.Counter()
        self.saves: dict[Path, int] = {}
        self.is_closed = False

    def start(self, slot: int) -> FakeWorker:
        assert all(not each.alive for each in self.started if each.slot == slot), "a place has one worker"
        assert 0 <= slot < self.size
        self.started.append(FakeWorker(self, slot))
        return self.started[-1]

    def messages(self, workers: Sequence[FakeWorker], timeout: float) -> list[tuple[FakeWorker, Message]]:
        assert all(worker.alive for worker in workers)
        assert self.now < 10_000, "the pool waits for nothing"
        awake = [worker for worker in workers if worker.acts and worker.wakes <= self.now]
        if not awake:
            self.now += timeout
            return []
        worker = self.random.choice(awake)
        message = worker.act()
        return [] if message is None else [(worker, message)]

    def close(self) -> None:
        self.is_closed = True


def make_jobs(count: int, **rest) -> list[Job]:
    return [make_job(Path("/nowhere"), number, until=10, **rest) for number in range(count)]


def run(workers: FakeWorkers, jobs: Sequence[Job], **rest) -> list[tuple[int, Outcome]]:
    """All outcomes, with the scripts' saves in place of those on disk."""
    with (
        mock.patch.object(pool.checkpoint, "latest_step", workers.saves.get),
        PoolExecutor(workers, clock=lambda: workers.now, **rest) as executor,
    ):
        outcomes = list(executor.run(jobs))
    assert not any(worker.alive for worker in workers.started)
    return outcomes


# --- Every job once ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_every_job_has_its_outcome_once_whichever_worker_is_first(size, seed):
    workers = FakeWorkers(size, seed=seed)
    jobs = make_jobs(7)
    outcomes = run(workers, jobs)
    assert sorted(position for position, _ in outcomes) == list(range(7))
    assert all(outcome == outcome_of(jobs[position]) for position, outcome in outcomes)
    assert set(workers.attempts.values()) == {1}
    assert 1 <= len(workers.started) <= size
    assert workers.is_closed
    assert not any(worker.alive for worker in workers.started)


def test_outcomes_come_as_jobs_end():
    def script(job: Job, attempt: int) -> Sequence[Act]:
        return [Takes({"0.0": 30, "0.1": 20, "0.2": 10}[job.name]), *good(job, attempt)]

    assert [position for position, _ in run(FakeWorkers(3, script), make_jobs(3))] == [2, 1, 0]


def test_no_more_workers_are_started_than_there_are_jobs():
    workers = FakeWorkers(5)
    run(workers, make_jobs(2))
    assert len(workers.started) == 2
    assert run(FakeWorkers(5), []) == []


def test_progress_is_told_with_the_position_of_the_job():
    def script(job: Job, attempt: int) -> Sequence[Act]:
        return [Progress(1, 0.5, 2.0), Progress(2, fitness_of(job), 3.0), *good(job, attempt)]

    workers, told = FakeWorkers(2, script), []
    with PoolExecutor(workers, clock=lambda: workers.now) as executor:
        list(executor.run(make_jobs(3), on_progress=lambda *what: told.append(what)))
    assert sorted(told) == sorted((each, *rest) for each in range(3) for rest in ((1, 0.5, 2.0), (2, each / 100, 3.0)))


def test_workers_stay_for_the_next_jobs():
    workers = FakeWorkers(2)
    with PoolExecutor(workers, clock=lambda: workers.now) as executor:
        for _ in range(3):
            assert len(list(executor.run(make_jobs(4)))) == 4
    assert len(workers.started) == 2


def test_a_job_goes_to_the_worker_that_has_its_programs():
    workers = FakeWorkers(3, seed=5)
    jobs = make_jobs(9)
    with PoolExecutor(workers, clock=lambda: workers.now) as executor:
        list(executor.run(jobs))
        first = {name: worker for worker in workers.started for name in worker.runs}
        for worker in workers.started:
            worker.runs.clear()
        list(executor.run([jobs[0], jobs[4], jobs[8]]))
    ran = {name: worker for worker in workers.started for name in worker.runs}
    # Where two of them were at one worker, the other takes one over rather than be idle.
    homes = {first[name] for name in ran}
    assert sum(first[name] is ran[name] for name in ran) == len(homes)


def test_a_worker_runs_next_what_it_was_told_to_prepare():
    workers = FakeWorkers(2, lambda job, attempt: [Takes(1), *good(job, attempt)])
    run(workers, make_jobs(8))
    for worker in workers.started:
        assert worker.prepared
        assert worker.prepared[:3] == worker.runs[1:4]


# --- Workers that die -------------------------------------------------------------------------


def dies(times: int, *before: Act) -> Script:
    """Job 1's worker dies at its first attempts."""

    def script(job: Job, attempt: int) -> Sequence[Act]:
        return [*before, KILLED] if job.name == "0.1" and attempt < times else good(job, attempt)

    return script


@pytest.mark.parametrize("times", [1, pool.RETRIES])
def test_a_job_whose_worker_died_is_tried_again_and_nobody_else_is(times):
    workers, jobs = FakeWorkers(2, dies(times)), make_jobs(5)
    outcomes = run(workers, jobs)
    assert dict(outcomes) == {position: outcome_of(job) for position, job in enumerate(jobs)}
    assert len(outcomes) == 5
    assert workers.attempts == {"0.0": 1, "0.1": times + 1, "0.2": 1, "0.3": 1, "0.4": 1}


def test_a_job_whose_workers_always_die_has_failed_with_its_cause_and_costs_nobody_else_anything():
    workers, jobs = FakeWorkers(2, dies(1_000)), make_jobs(5)
    outcomes = dict(run(workers, jobs))
    failed = outcomes.pop(1)
    assert math.isnan(failed.fitness)
    assert failed.cause == "its worker died 4 times at one place: the last one was killed by SIGKILL"
    assert outcomes == {position: outcome_of(job) for position, job in enumerate(jobs) if position != 1}
    assert workers.attempts == {"0.0": 1, "0.1": pool.RETRIES + 1, "0.2": 1, "0.3": 1, "0.4": 1}


def test_a_job_that_gets_further_each_time_is_not_given_up():
    def script(job: Job, attempt: int) -> Sequence[Act]:
        return [Saves(attempt), KILLED] if attempt < 20 else good(job, attempt)

    assert [outcome.cause for _, outcome in run(FakeWorkers(2, script), make_jobs(1))] == [None]


def test_deaths_are_counted_anew_after_a_save():
    """Three deaths at the start, three at step 4, and an end; or four there, and failure."""

    def script(last: int) -> Script:
        return lambda job, attempt: (
            [*([Saves(4)] if attempt == 3 else []), KILLED] if attempt < 3 + last else good(job, attempt)
        )

    workers = FakeWorkers(1, script(3))
    assert [outcome.cause for _, outcome in run(workers, make_jobs(1))] == [None]
    assert workers.attempts["0.0"] == 7
    workers = FakeWorkers(1, script(4))
    (_, outcome), *_ = run(workers, make_jobs(1))
    assert outcome.cause is not None
    assert workers.attempts["0.0"] == 7


@pytest.mark.parametrize("retries", [0, 1])
def test_how_often_it_is_tried_again_can_be_said(retries):
    workers = FakeWorkers(1, dies(1_000))
    run(workers, make_jobs(2), retries=retries)
    assert workers.attempts["0.1"] == retries + 1


def test_a_worker_that_dies_with_nothing_to_do_is_replaced():
    def script(job: Job, attempt: int) -> Sequence[Act]:
        return [*good(job, attempt), KILLED] if job.name == "0.0" else [Takes(5), *good(job, attempt)]

    workers, jobs = FakeWorkers(2, script), make_jobs(2)
    with PoolExecutor(workers, clock=lambda: workers.now) as executor:
        for _ in range(2):
            assert dict(executor.run(jobs)) == {position: outcome_of(job) for position, job in enumerate(jobs)}
    assert set(workers.attempts.values()) == {2}


# --- What no individual is to blame for -------------------------------------------------------


def test_workers_that_do_not_start_get_one_line_and_fail_no_individual():
    workers = FakeWorkers(2, starting=[Died("exited with code 1")])
    with pytest.raises(
        ExecutorError, match=r"^workers end before they are ready \(the last one exited with code 1\); see"
    ):
        run(workers, make_jobs(3))
    assert len(workers.started) <= pool.STARTS + 1
    assert not any(worker.alive for worker in workers.started)


def test_some_starts_may_fail_and_count_for_no_job():
    starts: Iterator[list[Any]] = iter([[Died("exited with code 1")], [Died("exited with code 1")], [Ready()]] * 3)
    workers = FakeWorkers(1, dies(1))
    start = workers.start

    def starting(slot: int) -> FakeWorker:
        workers.starting = next(starts)
        return start(slot)

    workers.start = starting  # type: ignore[method-assign]
    jobs = make_jobs(3)
    assert dict(run(workers, jobs, retries=1)) == {position: outcome_of(job) for position, job in enumerate(jobs)}
    assert len(workers.started) == 6


def test_what_a_worker_refuses_is_told_to_the_user():
    def script(job: Job, attempt: int) -> Sequence[Act]:
        return [Refused("the disk is full; free some space")] if job.name == "0.2" else good(job, attempt)

    workers = FakeWorkers(2, script)
    with pytest.raises(ExecutorError, match=r"^the disk is full; free some space$"):
        run(workers, make_jobs(5))
    assert workers.attempts["0.2"] == 1
    assert not any(worker.alive for worker in workers.started)


# --- Time -------------------------------------------------------------------------------------


def test_a_job_that_does_not_notice_its_time_is_killed_after_a_grace():
    def script(job: Job, attempt: int) -> Sequence[Act]:
        return [Takes(5_000)] if job.name == "0.0" else [Takes(50), *good(job, attempt)]

    workers = FakeWorkers(2, script)
    outcomes = dict(run(workers, make_jobs(4, time_limit=100.0), grace=20.0))
    assert outcomes[0].cause == "training took more than 100 s, and did not end by itself 20 s later"
    assert 120 < outcomes[0].seconds.total < 121
    assert 120 < workers.now < 175
    assert [outcomes[position].cause for position in (1, 2, 3)] == [None] * 3
    assert workers.attempts["0.0"] == 1


def test_a_job_that_ends_within_the_grace_has_its_own_outcome():
    workers = FakeWorkers(1, lambda job, attempt: [Takes(119), *good(job, attempt)])
    assert [outcome.cause for _, outcome in run(workers, make_jobs(1, time_limit=100.0), grace=20.0)] == [None]


def test_the_time_that_a_worker_takes_to_start_is_not_its_jobs():
    workers = FakeWorkers(1, lambda job, attempt: [Takes(90), *good(job, attempt)], starting=[Takes(500), Ready()])
    assert [outcome.cause for _, outcome in run(workers, make_jobs(2, time_limit=100.0), grace=0.0)] == [None] * 2


def test_without_a_limit_a_job_may_take_long():
    workers = FakeWorkers(1, lambda job, attempt: [Takes(5_000), *good(job, attempt)])
    assert [outcome.cause for _, outcome in run(workers, make_jobs(1))] == [None]


# --- Stopping ---------------------------------------------------------------------------------


def stop_after(workers: FakeWorkers, seconds: float) -> Callable[[], bool]:
    return lambda: workers.now >= seconds


def test_a_stop_asks_all_workers_and_waits_until_they_have_saved():
    workers = FakeWorkers(3, lambda job, attempt: [], stopping=[Takes(30), Saves(4), Stopped()])
    with pytest.raises(StoppedError):
        run(workers, make_jobs(5), should_stop=stop_after(workers, 50))
    assert len(workers.started) == 3
    assert all(worker.was_asked_to_stop for worker in workers.started)
    assert list(workers.saves.values()) == [4, 4, 4]
    assert 80 <= workers.now < 85
    assert set(workers.attempts.values()) == {1}
    assert len(workers.attempts) == 3


@pytest.mark.parametrize("last", [Finished(Outcome(fitness=0.5)), KILLED, Refused("the disk is full")])
def test_a_stop_takes_workers_that_end_otherwise(last):
    workers = FakeWorkers(2, lambda job, attempt: [], stopping=[last])
    with pytest.raises(StoppedError):
        run(workers, make_jobs(2), should_stop=stop_after(workers, 5))
    assert workers.now < 6


def test_a_stop_does_not_wait_for_ever():
    workers = FakeWorkers(2, lambda job, attempt: [], stopping=[])
    with pytest.raises(StoppedError):
        run(workers, make_jobs(2), should_stop=stop_after(workers, 5))
    assert 120 <= workers.now < 130
    assert not any(worker.alive for worker in workers.started)


def test_who_stops_before_the_start_starts_nothing():
    workers = FakeWorkers(2)
    with pytest.raises(StoppedError):
        run(workers, make_jobs(2), should_stop=lambda: True)
    assert workers.started == []


def test_closing_ends_all_workers_even_after_an_error_of_whoever_asks():
    workers = FakeWorkers(3, lambda job, attempt: good(job, attempt) if job.name == "0.0" else [])

    def search() -> None:
        with PoolExecutor(workers, clock=lambda: workers.now) as executor:
            for _ in executor.run(make_jobs(3)):
                raise LineageError("the lineage cannot be written")

    with pytest.raises(LineageError):
        search()
    assert len(workers.started) == 3
    assert not any(worker.alive for worker in workers.started)
    assert workers.is_closed


# --- Any interleaving -------------------------------------------------------------------------


def gaining(gains: dict[str, list[int]], saves: dict[Path, int]) -> Script:
    """At each attempt in turn, a job gets so many steps further and dies; after these, it ends."""

    def script(job: Job, attempt: int) -> Sequence[Act]:
        if attempt >= len(gains[job.name]):
            return [Progress(job.until, 0.5, 1.0), *good(job, attempt)]
        start = saves.get(job.folder, 0)
        steps = range(start + 1, start + gains[job.name][attempt] + 1)
        return [act for step in steps for act in (Progress(step, 0.5, 1.0), Saves(step))] + [KILLED]

    return script


def is_given_up(gains: list[int], retries: int) -> bool:
    """Whether so many deaths and one more follow without a step between them."""
    deaths = 0
    for gain in gains:
        deaths = 1 if gain else deaths + 1
        if deaths > retries:
            return True
    return False


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    gains=st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=6),
    size=st.integers(1, 4),
    retries=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_every_job_has_exactly_one_outcome_and_it_is_its_own(gains, size, retries, seed):
    """Whatever the others do, in whichever order workers act and die."""
    jobs = make_jobs(len(gains))
    by_name = {job.name: each for job, each in zip(jobs, gains, strict=True)}
    workers = FakeWorkers(size, seed=seed)
    workers.script = gaining(by_name, workers.saves)
    outcomes = run(workers, jobs, retries=retries)
    assert sorted(position for position, _ in outcomes) == list(range(len(jobs)))
    for position, outcome in outcomes:
        if is_given_up(gains[position], retries):
            assert outcome.cause is not None
            assert math.isnan(outcome.fitness)
        else:
            assert outcome == outcome_of(jobs[position])
            assert workers.attempts[jobs[position].name] == len(gains[position]) + 1
    assert not any(worker.alive for worker in workers.started)
