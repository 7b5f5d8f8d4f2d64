"""Training of one network from scratch to the end, and its test: the last phase of a search, or all of a run."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from eigen_jax import checkpoint
from eigen_jax.architecture import Architecture
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset, join_validation
from eigen_jax.search.config import SearchConfig
from eigen_jax.training import (
    ComputeDtype,
    ProgressCallback,
    Teacher,
    TrainConfig,
    TrainReport,
    TrainState,
    abstract_state,
    accuracy,
    evaluate,
    init_state,
    predict,
    train_to,
)

PyTree = Any

SAVE_EVERY = 60.0  # seconds between two saves, which come between parts of this many ...
_PART = 100  # ... training steps


class FinalTrainingError(ValueError):
    """A network cannot be trained to its end on this machine as it is now."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a network makes of the test images."""

    accuracy: float  # a fraction
    logits_digest: str  # see `digest_logits`


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network at the end of its training."""

    variables: PyTree  # "params" and "batch_stats"
    validation_accuracy: float | None  # a fraction; None where the validation images were trained on
    test: Evaluation
    seconds: float  # of training and compiling, in all processes that had a part in it


def train_network(
    key: Array,
    architecture: Architecture,
    dataset: Dataset,
    checkpoints: Path,
    *,
    config: SearchConfig,
    teacher: Teacher | None = None,
    on_progress: ProgressCallback | None = None,
) -> TrainedNetwork:
    """Trains a network for `config.final_until` steps, saved every `SAVE_EVERY` seconds, and tests it.

    The test images are seen once, after the last step.

    Args:
        key: of the initial weights, the batches and the views.
        architecture: the network.
        dataset: `config.final_on` says which part of it is trained on.
        checkpoints: a folder of this training's own; one that was interrupted goes on from there.
        config: the schedule, and how long.
        teacher: whom it mimics. Where the validation images are trained on, the teacher must know
            them as the examples that follow the training images.
        on_progress: see `train_to`.

    Raises:
        DivergedError: the training diverged, as it would again.
        FinalTrainingError: it failed for a reason that can pass, such as a lack of memory.
        TrainConfigError: a batch is larger than the training set.
        CheckpointError: a checkpoint cannot be written, or is of another network.
    """
    joined = config.final_on == "train+validation"
    training_set = join_validation(dataset) if joined else dataset
    train = config.final_train
    network = build_network(architecture, num_classes=dataset.num_classes, dtype=train.dtype)
    state, seconds = _resume(key, architecture, checkpoints, network=network, train=train)
    advance = functools.partial(train_to, network=network, config=train, teacher=teacher, on_progress=on_progress)
    state, seconds = _train_on(
        key, state, training_set, checkpoints, advance, until=config.final_until, seconds=seconds
    )
    validation_accuracy = None
    if not joined:
        images, labels = dataset.validation_images, dataset.validation_labels
        validation_accuracy = evaluate(state, images, labels, network=network, batch_size=train.eval_batch_size)
    return TrainedNetwork(
        variables=state.variables,
        validation_accuracy=validation_accuracy,
        test=evaluate_network(
            architecture, state.variables, dataset, batch_size=train.eval_batch_size, dtype=train.dtype
        ),
        seconds=seconds,
    )


def _train_on(
    key: Array,
    state: TrainState,
    training_set: Dataset,
    checkpoints: Path,
    advance: Callable[..., tuple[TrainState, TrainReport]],
    *,
    until: int,
    seconds: float,
) -> tuple[TrainState, float]:
    """Trains from a state to the end with saves on the way; `advance` is `train_to` for this network.

    Gives the state and the seconds, of which `seconds` were spent before.
    """
    saved = time.perf_counter()
    while (step := int(state.step)) < until:
        part = min(until, (step // _PART + 1) * _PART)
        began = time.perf_counter()
        try:
            state, _ = advance(key, state, training_set, part)
        except jax.errors.JaxRuntimeError as error:
            raise FinalTrainingError(
                f"the network cannot be trained on ({(str(error).splitlines() or ['no reason given'])[0][:300]});"
                " free the device's memory, and go on with the same command"
            ) from None
        now = time.perf_counter()
        seconds += now - began
        if now - saved >= SAVE_EVERY or part == until:
            checkpoint.save(checkpoints, part, {"state": state, "seconds": {"seconds": seconds}})
            saved = now
    return state, seconds


def evaluate_network(
    architecture: Architecture, variables: PyTree, dataset: Dataset, *, batch_size: int, dtype: ComputeDtype
) -> Evaluation:
    """Measures a trained network on the test images.

    Args:
        architecture: the network.
        variables: "params" and "batch_stats".
        dataset: its test part is used.
        batch_size: images at a time; another one can change the last bits of the logits.
        dtype: of the maps, the one that the network was trained in; another one changes the logits.
    """
    network = build_network(architecture, num_classes=dataset.num_classes, dtype=dtype)
    logits = predict(variables, dataset.test_images, network=network, batch_size=batch_size)
    return Evaluation(accuracy=accuracy(logits, dataset.test_labels), logits_digest=digest_logits(logits))


def digest_logits(logits: np.ndarray) -> str:
    """SHA-256, hexadecimal, of every bit of logits [N, K] float32: equal only where all of them are."""
    return hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()


def _resume(
    key: Array, architecture: Architecture, checkpoints: Path, *, network: Any, train: TrainConfig
) -> tuple[TrainState, float]:
    """The state to go on from, and the seconds that it took so far."""
    shape = architecture.input_shape
    step = checkpoint.latest_step(checkpoints)
    if step is None:
        began = time.perf_counter()
        state = jax.block_until_ready(init_state(key, network=network, config=train, input_shape=shape))
        return state, time.perf_counter() - began
    abstract = abstract_state(network=network, config=train, input_shape=shape)
    state = checkpoint.restore(checkpoints, "state", step=step, abstract=abstract)
    return state, float(checkpoint.restore(checkpoints, "seconds", step=step)["seconds"])
