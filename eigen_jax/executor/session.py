"""What runs jobs one after the other in one process: the data and the teacher, and what is kept between jobs."""

import dataclasses
import functools
import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax.architecture import count_flops, count_parameters
from eigen_jax.builder import build_network
from eigen_jax.clock import WorkClock
from eigen_jax.errors import ConfigError, EigenError, first_line
from eigen_jax.executor.interface import (
    Answer,
    Inheritance,
    Job,
    JobProgress,
    Outcome,
    Overdue,
    Progress,
    Refused,
    Stopped,
)
from eigen_jax.executor.pickling import unpack
from eigen_jax.fitness import Measurement
from eigen_jax.platforms import PlatformError, check_devices_are_there
from eigen_jax.resumable import Seconds, TimeLimitError, train_resumably
from eigen_jax.store import checkpoint
from eigen_jax.store.locks import ShouldStop, StoppedError, never
from eigen_jax.training import (
    Batch,
    Dataset,
    DivergedError,
    Programs,
    Teacher,
    TooLargeError,
    TrainConfig,
    Training,
    abstract_state,
)
from eigen_jax.training.evaluation import accuracy, evaluate, latency, mean_loss, predict_timed
from eigen_jax.training.loop import ProgressCallback, batch_shapes, prepare_training, training_memory
from eigen_jax.training.metrics import balanced_accuracy, confusion_matrix, macro_f1

_OWNER = re.compile(r"layer_\d+|classifier")

# A failure to compile and a lack of the device's memory are JAX's; a network can be too deep to be traced.
_FAILURES = (
    DivergedError,
    TooLargeError,
    TimeLimitError,
    jax.errors.JaxRuntimeError,
    MemoryError,
    RecursionError,
)


def run_job(
    job: Job,
    dataset: Dataset,
    *,
    teacher: Teacher | None = None,
    on_progress: ProgressCallback | None = None,
    clock: WorkClock | None = None,
    programs: Programs | None = None,
    batch: Batch | None = None,
) -> Outcome:
    """Trains in this process, on its first devices; see `train_resumably`. The validation part is measured.

    An individual that fails is an outcome. What is raised is no fault of the individual. Who knows the shapes of a
    batch, see `batch_shapes`, spares the teacher a question.

    Raises:
        StoppedError: it was asked to stop, and is saved.
        CheckpointError: training cannot be saved, the folder belongs to something else, or inherited weights are lost.
        ConfigError: a batch is larger than the training set, or devices are missing.
    """
    training = _training(job, dataset, teacher)
    if job.inheritance is not None and checkpoint.latest_step(job.folder) is None:
        made: dict[str, Any] = {"network": training.network, "config": job.config, "input_shape": training.input_shape}
        training = dataclasses.replace(training, initial=inherited(job.inheritance, abstract_state(**made).trained))
    clock, programs = clock or WorkClock(), programs or Programs()
    began = clock()
    how: dict[str, Any] = {"network": training.network, "programs": programs}
    size, counted = job.config.eval_batch_size, {"num_classes": dataset.num_classes}
    images, labels, tested = dataset.validation_images, dataset.validation_labels, None
    try:
        state, seconds = train_resumably(
            training, job.until, job.folder, care=job.care, on_progress=on_progress, clock=clock, programs=programs
        )
        batch = batch or batch_shapes(job.key, dataset, config=job.config, teacher=teacher)
        logits, batch_latency = predict_timed(state.variables, images, batch_size=size, **how)
        with clock.paused():  # latency takes none of the job's time
            of_one = latency(state.variables, images, **how) if job.timed else None
        memory = training_memory(training, state, job.until, batch, programs=programs)
        if job.tested:
            tested = evaluate(state, dataset.test_images, dataset.test_labels, batch_size=size, **how)
    except _FAILURES as error:
        return Outcome(cause=first_line(error), seconds=Seconds(training=clock() - began))
    matrix = confusion_matrix(logits, labels)
    measurement = Measurement(
        accuracy=accuracy(logits, labels),
        loss=mean_loss(logits, labels),
        parameters=count_parameters(job.architecture, **counted),
        flops=count_flops(job.architecture, **counted),
        latency=of_one,
        batch_latency=batch_latency,
        memory=memory,
        balanced_accuracy=balanced_accuracy(matrix),
        macro_f1=macro_f1(matrix),
    )
    return Outcome(measurement=measurement, test_accuracy=tested, seconds=seconds)


def _training(job: Job, dataset: Dataset, teacher: Teacher | None) -> Training:
    network = build_network(job.architecture, num_classes=dataset.num_classes, dtype=job.config.dtype)
    return Training(key=job.key, dataset=dataset, network=network, config=job.config, teacher=teacher)


def inherited(heir: Inheritance, drawn: Mapping[str, Mapping[str, Any]]) -> Any:
    """The variables that a network starts from, those of whole layers.

    `drawn` are the shapes of its own, "params" and "batch_stats": a layer of other shapes than its parent's stays as it
    was drawn. Raises CheckpointError where the parent's are lost.
    """
    saved = checkpoint.restore(heir.folder, "state")
    saved = saved.get("average") or saved  # as `TrainState.variables`, of a state without its optimizer's structure
    sources = {f"layer_{own}": f"layer_{source}" for own, source in enumerate(heir.layers) if source is not None}
    sources |= {"classifier": "classifier"} if heir.classifier else {}
    variables: dict[str, dict[str, Any]] = {collection: {} for collection in drawn}
    for own, source in sources.items():
        asked = {
            part: {name: shapes for name, shapes in modules.items() if _owner(name) == own}
            for part, modules in drawn.items()
        }
        given = {
            part: {name: (saved.get(part) or {}).get(source + name.removeprefix(own)) for name in modules}
            for part, modules in asked.items()
        }
        if _forms(given) == _forms(asked):
            for part, modules in given.items():
                variables[part] |= modules
    return variables


def _owner(name: str) -> str | None:
    """The layer that a module of a network belongs to, by the beginning of its name."""
    found = _OWNER.match(name)
    return found and found[0]


def _forms(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [leaf.shape for leaf in leaves]


class Session:
    """The jobs of one process, whose programs it holds."""

    def __init__(
        self, dataset: Dataset, teacher: Teacher | None, *, is_held: Callable[[], bool] = never, grace: float = 60.0
    ) -> None:
        self.dataset = dataset
        self.teacher = teacher
        self.is_held = is_held  # whether jobs are to hold still, such as while the driver is stopped
        self.grace = grace  # seconds of work beyond its bound that a job has to notice it, as after a compilation
        self.programs = Programs()
        self._shapes: dict[TrainConfig, Batch] = {}

    def prepare(self, job: Job) -> None:
        """Compiles in the background what a job will ask for; changes no outcome."""
        training, batch = _training(job, self.dataset, self.teacher), self._batch(job)
        of_one = (1,) if job.timed else ()
        prepare_training(training, job.until, batch, programs=self.programs, evaluated=of_one)

    def _batch(self, job: Job) -> Batch:
        if job.config not in self._shapes:
            self._shapes[job.config] = batch_shapes(job.key, self.dataset, config=job.config, teacher=self.teacher)
        return self._shapes[job.config]

    def run(
        self,
        job: Job,
        *,
        should_stop: ShouldStop,
        on_progress: ProgressCallback | None = None,
        on_overdue: Callable[[Overdue], None] = lambda overdue: None,
    ) -> Outcome:
        """See `run_job`; holds still where that is wanted, and calls `on_overdue` at most once, from another thread."""
        limit = math.inf if job.care.time_limit is None else job.care.time_limit

        def alarm(seconds: float) -> None:
            cause = f"training took more than {limit:g} s, and did not end by itself {self.grace:g} s later"
            on_overdue(Overdue(cause, seconds))

        def hold_or_stop() -> bool:
            clock.wait_while_held()
            return should_stop()

        job = dataclasses.replace(job, care=dataclasses.replace(job.care, should_stop=hold_or_stop))
        with WorkClock(is_held=self.is_held, alarm_at=limit + self.grace, alarm=alarm) as clock:
            kept: dict[str, Any] = {"teacher": self.teacher, "programs": self.programs, "batch": self._batch(job)}
            return run_job(job, self.dataset, on_progress=on_progress, clock=clock, **kept)

    def answer(self, packed: bytes, *, should_stop: ShouldStop, tell: Callable[[Progress | Overdue], None]) -> Answer:
        """Runs a job that was packed for a worker as `run` does; tells how far it is with `tell`, from any thread."""

        def on_progress(*told: Any) -> None:
            tell(Progress(*told))

        try:
            job = unpack(packed)
            self.prepare(job)
            return self.run(job, should_stop=should_stop, on_progress=on_progress, on_overdue=tell)
        except StoppedError:
            return Stopped()
        except FloatingPointError as error:
            traceback.print_exc()
            return Refused(f"{job.name}: {error}; the traceback in the worker's output says where")
        except ConfigError as error:
            return Refused(str(error), error)
        except (OSError, EigenError) as error:  # it cannot be unpacked; the disk is full or was taken away
            return Refused(first_line(error))
        except Exception as error:
            # A mistake of the program, not of the individual: it must be seen, and must not be bred around.
            traceback.print_exc()
            return Refused(f"a worker failed with {type(error).__name__}, whose traceback is in its output; report it")


class InlineExecutor:
    """An `Executor` without processes of its own: an individual that crashes its process takes the search along."""

    def __init__(self, dataset: Dataset, *, teacher: Teacher | None = None, should_stop: ShouldStop = never) -> None:
        self.session = Session(dataset, teacher)
        self.should_stop = should_stop  # whether to save the job and to leave

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops the compiled programs."""
        self.session.programs.close()

    def run(self, jobs: Sequence[Job], *, on_progress: JobProgress | None = None) -> Iterator[tuple[int, Outcome]]:
        """See `Executor`. While a job runs, the programs of the next one are compiled."""
        for position, job in enumerate(jobs):
            for coming in jobs[position : position + 2]:
                self.session.prepare(coming)
            told = None if on_progress is None else functools.partial(on_progress, position)
            yield position, self.session.run(job, should_stop=self.should_stop, on_progress=told)


def open_session(payload: Any, **options: Any) -> Session | Refused:
    """The session of a worker that was sent a data set and a teacher by `to_host`, if there is a device to work on."""
    try:
        check_devices_are_there()
    except PlatformError as error:
        return Refused(f"a worker cannot start: {error}")
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, payload)
    return Session(*arrays, **options)


def to_host(dataset: Dataset, teacher: Teacher | None) -> Any:
    """A data set and a teacher with NumPy arrays in place of JAX's, and all that a worker needs of them, to be sent."""
    sent = dataclasses.replace(dataset, preprocessor=None), teacher
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, sent)
