"""Jobs of this generation and of later ones, with executors that take on new ones and with executors that do not."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from eigen_jax.executor import Outcome
from eigen_jax.search.jobs import Jobs, Task
from eigen_jax.store.run_files import Reference


def task(index: int, landmark: int = 0) -> Task:
    return Reference(generation=3, index=index), landmark


class Growing:
    """Runs jobs, here any values, in their order, those that are appended meanwhile as well."""

    def __init__(self) -> None:
        self.runs: list[list[Any]] = []

    def run(self, jobs: Sequence[Any], *, on_progress: Any = None) -> Iterator[tuple[int, Outcome]]:
        done: list[Any] = []
        self.runs.append(done)
        for position, job in enumerate(self.taken(jobs)):
            on_progress(position, 7, 0.5, 2.0)
            done.append(job)
            yield position, Outcome(cause=f"outcome of {job}")

    def taken(self, jobs: Sequence[Any]) -> Sequence[Any]:
        return jobs


class Fixed(Growing):
    """Runs what there is at its start."""

    def taken(self, jobs: Sequence[Any]) -> Sequence[Any]:
        return list(jobs)


class Backwards(Fixed):
    """Ends jobs in another order."""

    def run(self, jobs: Sequence[Any], *, on_progress: Any = None) -> Iterator[tuple[int, Outcome]]:
        yield from reversed(list(super().run(jobs, on_progress=on_progress)))


@pytest.mark.parametrize("executor", [Growing(), Fixed(), Backwards()], ids=lambda each: type(each).__name__)
def test_all_that_is_wanted_comes_once_and_what_is_submitted_meanwhile_as_well(executor):
    told: list[Task] = []
    jobs = Jobs(executor, lambda which, step, loss, rate: told.append(which))
    submitted: list[Any] = []

    def submit(which: Task) -> None:
        submitted.append(which)
        jobs.submit(which, f"job {which[0].index}")  # type: ignore[arg-type]

    for index in range(3):
        submit(task(index))
    assert task(1) in jobs
    came = []
    for which, outcome in jobs.outcomes([task(0), task(2)]):
        assert outcome.cause == f"outcome of job {which[0].index}"
        came.append(which)
        if len(came) == 1:
            submit(task(5))
    assert {task(0), task(2)} <= set(came)
    came += [which for which, _ in jobs.outcomes([each for each in submitted if each not in came])]
    assert sorted(came, key=str) == sorted(submitted, key=str)
    assert not any(each in jobs for each in submitted)
    assert sorted(told, key=str) == sorted(submitted, key=str)
    assert sorted(itertools.chain(*executor.runs)) == [f"job {index}" for index in (0, 1, 2, 5)]
    # Later ones begin a run of their own.
    submit(task(0, 1))
    assert [which for which, _ in jobs.outcomes([task(0, 1)])] == [task(0, 1)]


def test_what_is_not_wanted_waits():
    executor = Growing()
    jobs = Jobs(executor, lambda *_: None)
    for index in range(4):
        jobs.submit(task(index), f"job {index}")  # type: ignore[arg-type]
    assert [which for which, _ in jobs.outcomes([task(1)])] == [task(0), task(1)]
    assert executor.runs == [["job 0", "job 1"]]
    assert [which for which, _ in jobs.outcomes([])] == []
    assert [which for which, _ in jobs.outcomes([task(2)])] == [task(2)]
    assert executor.runs == [["job 0", "job 1", "job 2"]], "the same run goes on"
