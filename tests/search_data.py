"""Searches with pretended training, for tests of all that is around it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax.architecture import fingerprint
from eigen_jax.builder import build_network
from eigen_jax.executor import Job, Outcome, session
from eigen_jax.fitness import Measurement
from eigen_jax.resumable import Seconds
from eigen_jax.store import checkpoint
from eigen_jax.training import abstract_state


class Pretence:
    """Stands for training, by a fitness made of the architecture; keeps what it was asked for.

    A network is named by its fingerprint and the landmark.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.trained: list[tuple[str, int]] = []
        self.prepared: list[list[tuple[str, int]]] = [[]]  # before each training, and after the last
        self.keys: dict[str, bytes] = {}  # of the individuals
        self.fails: Callable[[Job], bool] = lambda job: False
        self.afterwards: Callable[[Job], None] = lambda job: None
        patch.setattr(session, "run_job", self.run)
        patch.setattr(session.Session, "prepare", lambda _, job: self.prepare(job))

    def prepare(self, job):
        self.prepared[-1].append((fingerprint(job.architecture), job.until))

    def run(self, job, dataset, *, on_progress, **_):
        name = fingerprint(job.architecture)
        self.trained.append((name, job.until))
        self.prepared.append([])
        key = np.asarray(jax.random.key_data(job.key)).tobytes()
        assert self.keys.setdefault(job.name, key) == key, "it is the same at all landmarks"
        if on_progress is not None:
            on_progress(job.until, 2.5, 100.0)
        seconds = Seconds(compiling=0.5, training=0.25)
        if self.fails(job):
            return Outcome(cause="it broke", seconds=seconds)
        accuracy = (int(name[:6], 16) % 1000 + job.until) / 1010
        if job.tested and checkpoint.latest_step(job.folder) is None:
            network = build_network(job.architecture, num_classes=dataset.num_classes)
            shapes = abstract_state(network=network, config=job.config, input_shape=job.architecture.input_shape)
            value = int(jax.random.key_data(job.key)[-1]) % 100
            state = jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), shapes)
            checkpoint.save(job.folder, job.until, {"state": state})
        self.afterwards(job)
        measurement = Measurement(accuracy=accuracy, parameters=1, flops=1)
        return Outcome(measurement=measurement, test_accuracy=accuracy / 2 if job.tested else None, seconds=seconds)
