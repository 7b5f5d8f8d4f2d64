"""What runs jobs one after the other in one process: the data and the teacher, and what is kept between jobs."""

import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eigen_jax.checkpoint import CheckpointError
from eigen_jax.executor.interface import Finished, Refused, Stopped
from eigen_jax.executor.jobs import Job, Outcome, prepare_job, run_job
from eigen_jax.resumable import ShouldStop, StoppedError
from eigen_jax.training import (
    Batch,
    Dataset,
    ProgressCallback,
    Teacher,
    TrainConfig,
    TrainConfigError,
    batch_shapes,
)

# No fault of an individual: the disk is full or was taken away, or a setting does not fit the machine.
_REFUSALS = (OSError, CheckpointError, TrainConfigError)


class Session:
    """The jobs of one process."""

    def __init__(self, dataset: Dataset, teacher: Teacher | None) -> None:
        self.dataset = dataset
        self.teacher = teacher
        self._shapes: dict[TrainConfig, Batch] = {}

    def prepare(self, job: Job) -> None:
        """Compiles in the background what a job will ask for."""
        if job.config not in self._shapes:
            self._shapes[job.config] = batch_shapes(job.key, self.dataset, config=job.config, teacher=self.teacher)
        prepare_job(job, self.dataset, self._shapes[job.config])

    def run(self, job: Job, *, should_stop: ShouldStop, on_progress: ProgressCallback | None) -> Outcome:
        """See `run_job`."""
        return run_job(job, self.dataset, teacher=self.teacher, should_stop=should_stop, on_progress=on_progress)

    def answer(
        self, job: Job, *, should_stop: ShouldStop, on_progress: ProgressCallback
    ) -> Finished | Stopped | Refused:
        """Runs a job, and tells what a worker tells of it."""
        try:
            self.prepare(job)
            return Finished(self.run(job, should_stop=should_stop, on_progress=on_progress))
        except StoppedError:
            return Stopped()
        except _REFUSALS as error:
            return Refused(" ".join(str(error).split())[:500])
        except Exception as error:
            # A mistake of the program, not of the individual: it must be seen, and must not be bred around.
            traceback.print_exc()
            return Refused(f"a worker failed with {type(error).__name__}, whose traceback is in its output; report it")


def to_host(tree: Any) -> Any:
    """A pytree with NumPy arrays in place of JAX's, to be sent to another process."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def to_device(tree: Any) -> Any:
    """A pytree with JAX's arrays, on the default device, in place of NumPy's."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)
