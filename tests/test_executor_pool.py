"""Jobs among workers that are no processes but scripts, under a clock of their own."""

import collections
import contextlib
import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import pytest
from executor_data import make_job, measured

from eigen_jax.errors import ConfigError
from eigen_jax.executor import ExecutorError, Job, Outcome, PoolExecutor, pool
from eigen_jax.executor.interface import Died, Message, Overdue, Progress, Ready, Refused, Stopped
from eigen_jax.resumable import Seconds
from eigen_jax.store.locks import StoppedError
from eigen_jax.training import TrainConfig

KILLED = Died("was killed by SIGKILL")
LOST = Died("exited with code 1")


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


def number_of(job: Job) -> int:
    return int(job.name.partition(".")[2])


def outcome_of(job: Job) -> Outcome:
    return Outcome(measurement=measured(number_of(job) / 100), seconds=Seconds(training=number_of(job) / 100))


def good(*before: Act) -> Script:
    """All jobs end well, after something."""
    return lambda job, attempt: [*before, outcome_of(job)]


def idle(job: Job, attempt: int) -> Sequence[Act]:
    """All jobs take for ever."""
    return []


GOOD = good()


def but(number: int, *acts: Act, attempts: int = 1_000, others: Script = GOOD) -> Script:
    """One job goes another way than the others at its first attempts."""
    return lambda job, attempt: acts if number_of(job) == number and attempt < attempts else others(job, attempt)


@dataclasses.dataclass(eq=False)
class FakeWorker:
    """Does what the script says."""

    workers: "FakeWorkers"
    slot: int
    acts: collections.deque[Act]
    job: Job | None = None
    alive: bool = True
    wakes: float = 0.0
    was_asked_to_stop: bool = False
    runs: list[str] = dataclasses.field(default_factory=list)
    prepared: list[str] = dataclasses.field(default_factory=list)

    def submit(self, job: Job) -> None:
        assert self.alive
        assert self.job is None, "a worker has one job at a time"
        self.job = job
        self.runs.append(job.name)
        if any(isinstance(act, Died) for act in self.acts):
            return  # it does not come to it
        attempt = self.workers.attempts[number_of(job)]
        self.workers.attempts[number_of(job)] += 1
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
        if isinstance(act, Outcome | Stopped | Refused):
            self.job = None
        if isinstance(act, Died):
            self.kill()
        return act


@dataclasses.dataclass
class FakeWorkers:
    """A place for scripted workers. Each call of `messages` lets one of them act, drawn at random."""

    size: int
    script: Script = GOOD
    starting: Sequence[Sequence[Act]] = ((Ready(),),)  # of each worker, over and over
    stopping: Sequence[Act] = (Stopped(),)
    random: Random = dataclasses.field(default_factory=lambda: Random(0))
    now: float = 0.0
    started: list[FakeWorker] = dataclasses.field(default_factory=list)
    attempts: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    saves: dict[Path, int] = dataclasses.field(default_factory=dict)
    is_closed: bool = False

    def start(self, slot: int) -> FakeWorker:
        assert all(not each.alive for each in self.started if each.slot == slot), "a place has one worker"
        assert 0 <= slot < self.size
        acts = self.starting[len(self.started) % len(self.starting)]
        self.started.append(FakeWorker(self, slot, collections.deque(acts)))
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


@contextlib.contextmanager
def opened(workers: FakeWorkers, **rest) -> Iterator[PoolExecutor]:
    """An executor, with the scripts' saves in place of those on disk."""
    with mock.patch.object(pool.checkpoint, "latest_step", workers.saves.get):
        try:
            with PoolExecutor(workers, **rest) as executor:
                yield executor
        finally:
            assert workers.is_closed
            assert not any(worker.alive for worker in workers.started)


def run(workers: FakeWorkers, jobs: Sequence[Job], **rest) -> list[tuple[int, Outcome]]:
    with opened(workers, **rest) as executor:
        return list(executor.run(jobs))


def all_good(jobs: Sequence[Job]) -> dict[int, Outcome]:
    return {position: outcome_of(job) for position, job in enumerate(jobs)}


def gaining(gains: list[list[int]], saves: dict[Path, int]) -> Script:
    """At each attempt in turn, a job gets so many steps further and dies; after these, it ends."""

    def script(job: Job, attempt: int) -> Sequence[Act]:
        gained = gains[number_of(job)]
        if attempt >= len(gained):
            return good(Progress(job.until, 0.5, 1.0))(job, attempt)
        start = saves.get(job.folder, 0)
        steps = range(start + 1, start + gained[attempt] + 1)
        return [act for step in steps for act in (Progress(step, 0.5, 1.0), Saves(step))] + [KILLED]

    return script


def attempts_until_given_up(gains: list[int], retries: int) -> int | None:
    """After how many attempts so many deaths and one more have followed without a step between them."""
    deaths = 0
    for attempt, gain in enumerate(gains, 1):
        deaths = 1 if gain else deaths + 1
        if deaths > retries:
            return attempt
    return None


@hypothesis.settings(max_examples=3 * hypothesis.settings().max_examples // 2)
@hypothesis.given(
    gains=st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=6),
    size=st.integers(1, 4),
    retries=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
@hypothesis.example(gains=[[], [0] * 9, [], [0] * 3, []], size=2, retries=3, seed=0)
@hypothesis.example(gains=[[1] * 20], size=2, retries=3, seed=0)
@hypothesis.example(gains=[[0, 0, 0, 4, 0, 0]], size=1, retries=3, seed=0)  # three deaths at the start, three at step 4
@hypothesis.example(gains=[[0, 0, 0, 4, 0, 0, 0]], size=1, retries=3, seed=0)
def test_every_job_has_exactly_one_outcome_and_it_is_its_own(gains, size, retries, seed):
    """Whatever the others do, in whichever order workers act and die."""
    jobs = make_jobs(len(gains))
    workers = FakeWorkers(size, random=Random(seed))
    workers.script = gaining(gains, workers.saves)
    outcomes = run(workers, jobs, **({} if retries == 3 else {"retries": retries}))
    assert sorted(position for position, _ in outcomes) == list(range(len(jobs)))
    assert len(workers.started) <= size + sum(map(len, gains))
    for position, outcome in outcomes:
        given_up = attempts_until_given_up(gains[position], retries)
        assert workers.attempts[position] == (given_up or len(gains[position]) + 1)
        if given_up is None:
            assert outcome == outcome_of(jobs[position])
        else:
            died = f"its worker died {retries + 1} times at one place: the last one was killed by SIGKILL"
            assert (outcome.measurement, outcome.cause) == (None, died)


def test_outcomes_and_progress_come_with_the_position_of_the_job_as_they_happen():
    def script(job: Job, attempt: int) -> Sequence[Act]:
        number = number_of(job)
        return good(Progress(1, 0.5, 2.0), Takes(30 - 10 * number), Progress(2, number, 3.0))(job, attempt)

    told = []
    with opened(FakeWorkers(3, script)) as executor:
        outcomes = executor.run(make_jobs(3), on_progress=lambda *what: told.append(what))
        assert [position for position, _ in outcomes] == [2, 1, 0]
    assert sorted(told[:3]) == [(each, 1, 0.5, 2.0) for each in range(3)]
    assert told[3:] == [(each, 2, each, 3.0) for each in (2, 1, 0)]


def test_jobs_that_come_while_others_run_are_taken_on_as_soon_as_there_is_room():
    """Whoever iterates adds a job for each of the first five outcomes; the last is on its way all the time."""
    workers = FakeWorkers(2, but(0, Takes(100), outcome_of(make_jobs(1)[0]), others=good(Takes(10))))
    coming, ended = make_jobs(8), []
    jobs = coming[:3]
    with opened(workers) as executor:
        for position, outcome in executor.run(jobs):
            assert outcome == outcome_of(jobs[position])
            ended.append((position, workers.now // 10 * 10))
            if len(ended) <= 5:
                jobs.append(coming[len(jobs)])
    assert [when for _, when in ended] == [10, 20, 30, 40, 50, 60, 70, 100]
    assert sorted(position for position, _ in ended[:7]) == [1, 2, 3, 4, 5, 6, 7]
    assert len(workers.started) == 2


@pytest.mark.parametrize("seed", [2, 5, 35])
def test_a_job_goes_to_the_worker_that_has_its_programs(seed):
    workers, jobs = FakeWorkers(3, random=Random(seed)), make_jobs(9)
    with opened(workers) as executor:
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
    workers = FakeWorkers(2, good(Takes(1)))
    run(workers, make_jobs(8))
    for worker in workers.started:
        assert worker.prepared
        assert worker.prepared[:3] == worker.runs[1:4]


def test_no_more_workers_are_started_than_there_are_jobs_and_they_stay_for_the_next_ones_unless_they_die():
    jobs = make_jobs(2)
    dying = but(0, outcome_of(jobs[0]), KILLED, others=good(Takes(5)))
    for script, started in ((GOOD, 2), (dying, 3)):
        workers = FakeWorkers(5, script)
        with opened(workers) as executor:
            assert list(executor.run([])) == []
            for _ in range(2):
                assert dict(executor.run(jobs)) == all_good(jobs)
        assert len(workers.started) == started
        assert set(workers.attempts.values()) == {2}


@pytest.mark.parametrize(
    ("workers", "line", "most"),
    [
        (
            FakeWorkers(2, starting=[[LOST]]),
            r"workers end before they are ready \(the last one exited with code 1\); s",
            4,
        ),
        (FakeWorkers(2, but(2, Refused("the disk is full; free some space"))), "the disk is full; free some space$", 2),
    ],
    ids=["workers that do not start", "what a worker refuses"],
)
def test_what_no_job_is_to_blame_for_ends_all_with_one_line(workers, line, most):
    with pytest.raises(ExecutorError, match=f"^{line}"):
        run(workers, make_jobs(5))
    assert len(workers.started) <= most
    assert workers.attempts[2] <= 1


def test_a_setting_that_a_worker_refuses_keeps_its_name():
    error = ConfigError(TrainConfig, "{devices} is {}", 3)
    with pytest.raises(ConfigError) as raised:
        run(FakeWorkers(2, but(2, Refused(str(error), pickle.loads(pickle.dumps(error))))), make_jobs(5))
    assert raised.value.told(lambda _, name: f"--{name}") == "--devices is 3"


def test_some_starts_may_fail_and_count_for_no_job():
    workers, jobs = FakeWorkers(1, but(1, KILLED, attempts=1), starting=[[LOST], [LOST], [Ready()]]), make_jobs(3)
    assert dict(run(workers, jobs, retries=1)) == all_good(jobs)
    assert len(workers.started) == 6


def test_a_job_that_does_not_notice_its_time_fails_for_good_and_its_worker_is_replaced():
    overdue = Overdue("training took more than 100 s, and did not end by itself 60 s later", 160.5)
    jobs = make_jobs(4)
    workers = FakeWorkers(2, but(0, overdue, others=good(Takes(50))))
    outcomes = dict(run(workers, jobs))
    assert outcomes.pop(0).cause == overdue.cause
    assert outcomes == {each: outcome_of(jobs[each]) for each in (1, 2, 3)}
    assert workers.attempts[0] == 1
    assert len(workers.started) == 3


def test_what_an_overdue_job_took_is_recorded():
    (outcome,) = dict(run(FakeWorkers(1, but(0, Overdue("late", 160.5))), make_jobs(1))).values()
    assert outcome.measurement is None
    assert outcome.seconds == Seconds(training=160.5)


@pytest.mark.parametrize(
    ("stopping", "takes"),
    [
        ([Takes(30), Saves(4), Stopped()], 30),  # it is waited for until all have saved
        ([], 120),  # but not for ever
        ([Outcome(measurement=measured(0.5))], 0),
        ([KILLED], 0),
        ([Refused("the disk is full")], 0),
    ],
)
@pytest.mark.parametrize("at", [0, 50])
def test_a_stop_asks_all_workers_and_waits_until_they_have_saved(stopping, takes, at):
    workers = FakeWorkers(3, idle, stopping=stopping)
    with pytest.raises(StoppedError):
        run(workers, make_jobs(5), should_stop=lambda: workers.now >= at)
    assert len(workers.started) == (3 if at else 0)
    assert all(worker.was_asked_to_stop for worker in workers.started)
    assert list(workers.saves.values()) == [4] * len(workers.started) * (takes == 30)
    assert at + takes * bool(at) <= round(workers.now, 6) < at + takes * bool(at) + 5
    assert list(workers.attempts.values()) == [1] * len(workers.started)


def test_jobs_that_nobody_waits_for_any_more_are_not_taken_for_others():
    workers = FakeWorkers(2, script=good(Takes(5.0)))
    jobs, others = make_jobs(3), [make_job(Path("/nowhere"), number, until=10) for number in (11, 12, 13)]
    with opened(workers) as executor:
        abandoned = executor.run(jobs)
        next(abandoned)
        abandoned.close()  # type: ignore[attr-defined]
        assert dict(executor.run(others)) == all_good(others)
