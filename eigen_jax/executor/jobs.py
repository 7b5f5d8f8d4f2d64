"""A job in, an outcome out: how one individual is trained to a landmark, wherever that happens."""

import dataclasses
import math
from pathlib import Path

import jax
from jax import Array

from eigen_jax.architecture import Architecture
from eigen_jax.builder import build_network
from eigen_jax.clock import WorkClock
from eigen_jax.errors import first_line
from eigen_jax.resumable import Care, Seconds, TimeLimitError, train_resumably
from eigen_jax.training import (
    Batch,
    Dataset,
    DivergedError,
    Programs,
    ProgressCallback,
    Teacher,
    TrainConfig,
    Training,
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
    care: Care = dataclasses.field(default_factory=Care)  # where it is run, an executor lets it ask its own should_stop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job, and the one place where a fitness stands until it is recorded."""

    fitness: float  # validation accuracy, a fraction; NaN if the job failed
    test_accuracy: float | None = None  # a fraction; None if the job failed, or was not to be tested
    cause: str | None = None  # why it failed, in one line; None if it did not
    seconds: Seconds = dataclasses.field(default_factory=Seconds)  # since the start of training, without evaluation


def run_job(
    job: Job,
    dataset: Dataset,
    *,
    teacher: Teacher | None = None,
    on_progress: ProgressCallback | None = None,
    clock: WorkClock | None = None,
    programs: Programs | None = None,
) -> Outcome:
    """Trains in this process, on its first devices; see `train_resumably`. The validation part gives the fitness.

    An individual that fails is an outcome. What is raised is no fault of the individual.

    Raises:
        StoppedError: it was asked to stop, and is saved.
        CheckpointError: training cannot be saved, or the folder belongs to something else.
        ConfigError: a batch is larger than the training set, or devices are missing.
    """
    training = _training(job, dataset, teacher)
    clock = clock or WorkClock()
    began = clock()
    parts = [(dataset.validation_images, dataset.validation_labels)]
    if job.tested:
        parts.append((dataset.test_images, dataset.test_labels))
    try:
        state, seconds = train_resumably(
            training, job.until, job.folder, care=job.care, on_progress=on_progress, clock=clock, programs=programs
        )
        accuracies = [
            evaluate(state, *part, network=training.network, batch_size=job.config.eval_batch_size, programs=programs)
            for part in parts
        ]
    except _FAILURES as error:
        return failed(first_line(error), Seconds(training=clock() - began))
    return Outcome(fitness=accuracies[0], test_accuracy=accuracies[1] if job.tested else None, seconds=seconds)


def failed(cause: str, seconds: Seconds) -> Outcome:
    """The outcome of a job that failed."""
    return Outcome(fitness=math.nan, cause=cause, seconds=seconds)


def prepare_job(job: Job, dataset: Dataset, batch: Batch, *, programs: Programs) -> None:
    """Compiles in the background what `run_job` will ask for; changes no outcome. `batch` is as of `batch_shapes`."""
    prepare_training(_training(job, dataset, None), None, job.until, batch, programs=programs)


def _training(job: Job, dataset: Dataset, teacher: Teacher | None) -> Training:
    network = build_network(job.architecture, num_classes=dataset.num_classes, dtype=job.config.dtype)
    return Training(key=job.key, dataset=dataset, network=network, config=job.config, teacher=teacher)
