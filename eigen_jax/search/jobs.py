"""Jobs under way, of this generation and of later ones: an executor that always has something to do."""

from collections.abc import Callable, Iterable, Iterator

from eigen_jax.executor import Executor, Job, Outcome
from eigen_jax.store.run_files import Reference

Task = tuple[Reference, int]  # an individual on its way to a landmark

TaskProgress = Callable[[Task, int, float, float], None]  # step, mean loss, steps a second


class Jobs:
    """What an executor was given to do and has not done yet."""

    def __init__(self, executor: Executor, on_progress: TaskProgress) -> None:
        """Makes it; `on_progress` is called while outcomes are waited for."""
        self._executor, self._on_progress = executor, on_progress
        self._waiting: dict[Task, Job] = {}
        # Of the run of the executor that is under way, which takes on what is appended.
        self._stream: Iterator[tuple[int, Outcome]] | None = None
        self._tasks: list[Task] = []
        self._jobs: list[Job] = []

    def __contains__(self, task: Task) -> bool:
        return task in self._waiting

    def submit(self, task: Task, job: Job) -> None:
        self._waiting[task] = job
        self._tasks.append(task)
        self._jobs.append(job)

    def outcomes(self, wanted: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Outcomes as they come, of whatever was submitted, until all that are wanted have come."""
        missing = set(wanted)
        while missing:
            if self._stream is None:
                self._tasks, self._jobs = list(self._waiting), list(self._waiting.values())
                self._stream = self._executor.run(self._jobs, on_progress=self._told)
            answer = next(self._stream, None)
            if answer is None:  # an executor may have run only what there was at its start
                self._stream = None
                continue
            position, outcome = answer
            task = self._tasks[position]
            del self._waiting[task]
            missing.discard(task)
            yield task, outcome
        if not self._waiting and self._stream is not None:
            next(self._stream, None)  # lets the executor end its run
            self._stream = None

    def _told(self, position: int, step: int, loss: float, steps_per_second: float) -> None:
        self._on_progress(self._tasks[position], step, loss, steps_per_second)
