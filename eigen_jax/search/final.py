"""Training of one network from scratch to the end, and its test: the last phase of a search, or all of a run."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from jax import Array

from eigen_jax.data import Dataset, join_validation, mirror
from eigen_jax.errors import EigenError, first_line
from eigen_jax.networks import AnyNetwork, abstract_variables, build_network
from eigen_jax.resumable import Care, train_resumably
from eigen_jax.search.config import SearchConfig
from eigen_jax.store.files import sha256
from eigen_jax.training import (
    DivergedError,
    Programs,
    ProgressCallback,
    Teacher,
    Training,
    accuracy,
    confusion_matrix,
    predict,
)

PyTree = Any


class FinalTrainingError(EigenError):
    """A network cannot be trained to its end on this machine as it is now."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a network makes of the test images."""

    accuracy: float  # a fraction
    mirrored_accuracy: float | None = None  # of the mean of the logits of an image and of its mirror image
    logits_digest: str  # SHA-256, hexadecimal, of every bit of its logits [N, K] float32
    confusion: tuple[tuple[int, ...], ...]  # [K, K], see `confusion_matrix`


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network at the end of its training; all but `cause` and `seconds` are None where it diverged."""

    variables: PyTree = None  # "params" and "batch_stats", without what is dropped at test
    validation_accuracy: float | None = None  # a fraction; None as well where the validation images were trained on
    test: Evaluation | None = None
    cause: str | None = None  # why it diverged, as it would again
    seconds: float  # of training and compiling, in all processes that had a part in it; where it diverged, in this one


def train_network(
    key: Array,
    description: AnyNetwork,
    dataset: Dataset,
    checkpoints: Path,
    *,
    config: SearchConfig,
    until: int | None = None,
    initial: PyTree | None = None,
    teacher: Teacher | None = None,
    care: Care | None = None,
    on_progress: ProgressCallback | None = None,
    programs: Programs | None = None,
) -> TrainedNetwork:
    """Trains a network for so many steps, saved on the way; the test images are seen once, after them.

    Args:
        key: of the initial weights, the batches and the views.
        initial: variables to start from, see `eigen_jax.training.start_from`; by default, from scratch.
        until: the steps; by default `config.final_until`.
        checkpoints: a folder of this training's own; one that was interrupted goes on from there.
        care: when to save and when to stop; its time limit is of individuals alone.
        programs: where compiled programs are held; by default until the return.

    Raises:
        StoppedError: it was asked to stop, and is saved.
        FinalTrainingError: it failed for a reason that can pass, such as a lack of memory.
        ConfigError: a batch is larger than the training set, or devices are missing.
        TooLargeError: the CPU has not the memory that it takes.
        CheckpointError: a checkpoint cannot be written, or is of another network.
    """
    until = config.final_until if until is None else until
    train, began = config.final_train(until), time.perf_counter()
    joined = config.final_on == "train+validation"
    trained_on = join_validation(dataset) if joined else dataset
    build = functools.partial(build_network, description, num_classes=dataset.num_classes, dtype=train.dtype)
    network, whole = build(), build(in_training=True)
    training = Training(key=key, initial=initial, dataset=trained_on, network=whole, config=train, teacher=teacher)
    care, programs = dataclasses.replace(care or Care(), time_limit=None), programs or Programs()
    how: dict[str, Any] = {"batch_size": train.eval_batch_size, "programs": programs}
    try:
        state, seconds = train_resumably(
            training, until, checkpoints, care=care, on_progress=on_progress, programs=programs
        )
        variables = state.variables if whole == network else _part(state.variables, network, training.input_shape)
        validation_accuracy = None
        if not joined:
            logits = predict(variables, dataset.validation_images, network=network, **how)
            validation_accuracy = accuracy(logits, dataset.validation_labels)
        test = evaluate_network(network, variables, dataset, mirrored=train.flip, **how)
    except DivergedError as error:
        return TrainedNetwork(cause=str(error), seconds=time.perf_counter() - began)
    except jax.errors.JaxRuntimeError as error:
        raise FinalTrainingError(
            f"the network cannot be trained on ({first_line(error)}); free the device's memory, and go on with the"
            " same command"
        ) from None
    return TrainedNetwork(
        variables=variables, validation_accuracy=validation_accuracy, test=test, seconds=seconds.total
    )


def _part(variables: PyTree, network: nn.Module, input_shape: tuple[int, int, int]) -> PyTree:
    """Those of a network's variables, in nested dictionaries, that it has at test."""

    def chosen(wanted: Any, given: Any) -> Any:
        return {name: chosen(wanted[name], given[name]) for name in wanted} if isinstance(wanted, dict) else given

    return chosen(abstract_variables(network, input_shape), variables)


def evaluate_network(
    network: nn.Module,
    variables: PyTree,
    dataset: Dataset,
    *,
    batch_size: int,
    mirrored: bool = False,
    programs: Programs | None = None,
) -> Evaluation:
    """Measures a trained network on the test images; another dtype or batch size gives other bits; see `predict`.

    `mirrored` asks for that accuracy as well: where mirror images were trained on, it is a network's with test-time
    augmentation.
    """
    predicted = functools.partial(predict, variables, network=network, batch_size=batch_size, programs=programs)
    images, labels = dataset.test_images, dataset.test_labels
    logits = predicted(images)
    return Evaluation(
        accuracy=accuracy(logits, labels),
        mirrored_accuracy=accuracy(logits + predicted(mirror(images)), labels) if mirrored else None,
        logits_digest=sha256([logits]),
        confusion=tuple(map(tuple, confusion_matrix(logits, labels).tolist())),
    )
