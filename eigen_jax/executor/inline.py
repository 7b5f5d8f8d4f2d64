"""Jobs one after the other in this process."""

import functools
from collections.abc import Iterator, Sequence

from eigen_jax.executor.interface import JobProgress
from eigen_jax.executor.jobs import Job, Outcome
from eigen_jax.executor.session import Session
from eigen_jax.store.locks import ShouldStop, never
from eigen_jax.training import Dataset, Teacher


class InlineExecutor:
    """An `Executor` without processes of its own: an individual that crashes its process takes the search along."""

    def __init__(self, dataset: Dataset, *, teacher: Teacher | None = None, should_stop: ShouldStop = never) -> None:
        """Makes it.

        Args:
            dataset: what networks are trained on and measured with.
            teacher: whom they mimic.
            should_stop: whether to save the job under way and to leave.
        """
        self.session = Session(dataset, teacher)
        self.should_stop = should_stop

    def run(self, jobs: Sequence[Job], *, on_progress: JobProgress | None = None) -> Iterator[tuple[int, Outcome]]:
        """See `Executor`. While a job runs, the programs of the next one are compiled."""
        for position, job in enumerate(jobs):
            for coming in jobs[position : position + 2]:
                self.session.prepare(coming)
            told = None if on_progress is None else functools.partial(on_progress, position)
            yield position, self.session.run(job, should_stop=self.should_stop, on_progress=told)
