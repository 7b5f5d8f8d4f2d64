"""A job in, an outcome out: how one individual is trained to a landmark, wherever that happens."""

import dataclasses
import math
from pathlib import Path

import jax
from jax import Array

from eigen_jax.architecture import Architecture
from eigen_jax.builder import Network, build_network
from eigen_jax.clock import WorkClock
from eigen_jax.resumable import (
    SAVE_EVERY,
    Seconds,
    TimeLimitError,
    train_resumably,
)
from eigen_jax.store.locks import ShouldStop, never
from eigen_jax.training import (
    Batch,
    Dataset,
    DivergedError,
    ProgressCallback,
    Teacher,
    TrainConfig,
    evaluate,
    prepare_training,
)

# A failure to compile and a lack of the device's memory are runtime errors of JAX; a network can be
# too deep to be traced.
_FAILURES = (DivergedError, TimeLimitError, jax.errors.JaxRuntimeError, MemoryError, RecursionError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Training of one network up to a landmark, and its evaluation there: all that the outcome depends on.

    It goes on from what its folder holds, which changes when it ends, not what comes out.
    """

    name: str  # of the individual, in messages
    key: Array  # of the individual, the same at all its landmarks
    architecture: Architecture
    until: int  # the landmark, in steps since the start of training
    config: TrainConfig
    folder: Path  # absolute; where the individual's training is saved, the same at all its landmarks
    tested: bool = False  # whether the test images are looked at as well
    save_every: float = SAVE_EVERY  # seconds between two saves
    time_limit: float | None = None  # seconds that training and compiling may take, from the start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job."""

    fitness: float  # validation accuracy, a fraction; NaN if the job failed
    test_accuracy: float | None = None  # a fraction; None if the job failed, or was not to be tested
    cause: str | None = None  # why it failed, in one line; None if it did not
    seconds: Seconds = dataclasses.field(default_factory=Seconds)  # since the start of training, without evaluation


def run_job(
    job: Job,
    dataset: Dataset,
    *,
    teacher: Teacher | None = None,
    should_stop: ShouldStop = never,
    on_progress: ProgressCallback | None = None,
    clock: WorkClock | None = None,
) -> Outcome:
    """Trains in this process, on its first devices.

    An individual that fails is an outcome. What is raised is no fault of the individual.

    Args:
        job: what to train.
        dataset: its training part is trained on, its validation part gives the fitness.
        teacher: whom the network mimics; None for plain cross-entropy.
        should_stop: asked after every call of a program.
        on_progress: see `train_to`.
        clock: of the process's work, which times are told in; a new one by default.

    Raises:
        StoppedError: it was asked to stop, and is saved.
        CheckpointError: training cannot be saved, or the folder belongs to something else.
        ConfigError: a batch is larger than the training set, or devices are missing.
    """
    network = _network(job, dataset)
    clock = clock or WorkClock()
    began = clock()
    try:
        state, seconds = train_resumably(
            job.key,
            dataset,
            job.until,
            job.folder,
            network=network,
            config=job.config,
            teacher=teacher,
            save_every=job.save_every,
            time_limit=job.time_limit,
            should_stop=should_stop,
            on_progress=on_progress,
            clock=clock,
        )
        parts = [(dataset.validation_images, dataset.validation_labels)]
        if job.tested:
            parts.append((dataset.test_images, dataset.test_labels))
        accuracies = [
            evaluate(state, images, labels, network=network, batch_size=job.config.eval_batch_size)
            for images, labels in parts
        ]
    except _FAILURES as error:
        return failed(_one_line(error), Seconds(training=clock() - began))
    return Outcome(fitness=accuracies[0], test_accuracy=accuracies[1] if job.tested else None, seconds=seconds)


def failed(cause: str, seconds: Seconds) -> Outcome:
    """The outcome of a job that failed."""
    return Outcome(fitness=math.nan, cause=cause, seconds=seconds)


def prepare_job(job: Job, dataset: Dataset, batch: Batch) -> None:
    """Compiles in the background what `run_job` will ask for; changes no outcome.

    Args:
        job: what will be trained.
        dataset: as of `run_job`.
        batch: the shapes of one, as of `batch_shapes` for the dataset, the job's config and the teacher.
    """
    prepare_training(job.key, None, dataset, job.until, batch, network=_network(job, dataset), config=job.config)


def _network(job: Job, dataset: Dataset) -> Network:
    return build_network(job.architecture, num_classes=dataset.num_classes, dtype=job.config.dtype)


def _one_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
