"""Where and how individuals are trained: a job in, an outcome out.

A job says everything that its outcome depends on, so an outcome does not depend on where or in
which order jobs ran. A job that fails says why; it never takes the search with it.
"""

import dataclasses
import math
import time

import jax
from jax import Array

from eigen_jax.architecture import Architecture
from eigen_jax.builder import Network, build_network
from eigen_jax.training import (
    Batch,
    Dataset,
    DivergedError,
    ProgressCallback,
    Teacher,
    TrainConfig,
    TrainState,
    evaluate,
    init_state,
    prepare_training,
    train_to,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Training of one network up to a landmark, and its evaluation there."""

    key: Array  # of the individual, the same at all its landmarks
    architecture: Architecture
    until: int  # the landmark, in steps since the start of training
    config: TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job."""

    fitness: float  # validation accuracy, a fraction; NaN if the job failed
    state: TrainState | None  # to train on from; None if the job failed
    cause: str | None  # why it failed, in one line; None if it did not
    compile_seconds: float  # that it waited for its programs; initialisation included, which is nearly all compilation
    train_seconds: float  # training steps, without compilation and evaluation


def run_job(
    job: Job,
    state: TrainState | None,
    dataset: Dataset,
    *,
    teacher: Teacher | None = None,
    on_progress: ProgressCallback | None = None,
) -> Outcome:
    """Trains in this process, on the default device.

    Args:
        job: what to train.
        state: of the same individual at an earlier landmark; None to start.
        dataset: its training part is trained on, its validation part gives the fitness.
        teacher: whom the network mimics; None for plain cross-entropy.
        on_progress: see `train_to`.
    """
    network = _network(job, dataset)
    started = time.perf_counter()
    try:
        if state is None:
            state = init_state(job.key, network=network, config=job.config, input_shape=job.architecture.input_shape)
            jax.block_until_ready(state)
        initialized = time.perf_counter()
        state, report = train_to(
            job.key,
            state,
            dataset,
            job.until,
            network=network,
            config=job.config,
            teacher=teacher,
            on_progress=on_progress,
        )
        fitness = evaluate(
            state,
            dataset.validation_images,
            dataset.validation_labels,
            network=network,
            batch_size=job.config.eval_batch_size,
        )
    except (DivergedError, jax.errors.JaxRuntimeError) as error:
        # A failure to compile and a lack of memory are runtime errors of JAX.
        return Outcome(
            fitness=math.nan,
            state=None,
            cause=_one_line(error),
            compile_seconds=0.0,
            train_seconds=time.perf_counter() - started,
        )
    return Outcome(
        fitness=fitness,
        state=state,
        cause=None,
        compile_seconds=initialized - started + report.compile_seconds,
        train_seconds=report.train_seconds,
    )


def prepare_job(job: Job, state: TrainState | None, dataset: Dataset, batch: Batch) -> None:
    """Compiles in the background what `run_job` will ask for; changes no outcome.

    Args:
        job: what will be trained.
        state: as of `run_job`.
        dataset: as of `run_job`.
        batch: the shapes of one, as of `batch_shapes` for the dataset, the job's config and the teacher.
    """
    network = _network(job, dataset)
    prepare_training(job.key, state, dataset, job.until, batch, network=network, config=job.config)


def _network(job: Job, dataset: Dataset) -> Network:
    return build_network(job.architecture, num_classes=dataset.num_classes, dtype=job.config.dtype)


def _one_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
