"""The training loop."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from eigen_jax.data import Dataset
from eigen_jax.training.config import DivergedError, TrainConfig, TrainConfigError
from eigen_jax.training.programs import compiled
from eigen_jax.training.step import Batch, StepMetrics, Teacher, TrainState, draw_batch, epoch_order, train_step

ProgressCallback = Callable[[int, float, float], None]  # step, mean loss, steps a second

# Steps between looks at the loss. A look waits for the device, so this also bounds how far the
# calls run ahead of it.
CHECK_EVERY = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What one call of `train_to` did."""

    steps: int  # steps taken by this call
    loss: float  # mean over the last steps, at most `CHECK_EVERY` of them; NaN if no step was taken
    accuracy: float  # of the same steps' augmented batches, in [0, 1]; NaN if no step was taken
    compile_seconds: float  # 0.0 where the program was at hand
    train_seconds: float  # without compilation


def train_to(
    key: Array,
    state: TrainState,
    dataset: Dataset,
    until: int,
    *,
    network: nn.Module,
    config: TrainConfig,
    teacher: Teacher | None = None,
    on_progress: ProgressCallback | None = None,
) -> tuple[TrainState, TrainReport]:
    """Trains until `until` steps were taken in all; a state that is there already comes back as it is.

    Args:
        key: one for the whole training, the same at every landmark.
        state: left usable.
        dataset: its training part is used.
        until: the landmark, in steps since the start of training.
        network: the module.
        config: the settings.
        teacher: whom the network mimics; None for plain cross-entropy.
        on_progress: called every `CHECK_EVERY` steps and at the end, with the step, the mean
            loss since the call before, and the steps a second.

    Raises:
        TrainConfigError: a batch is larger than the training set.
        DivergedError: the loss, a parameter or a batch statistic is not finite.
    """
    start = int(state.step)
    if start >= until:
        return state, TrainReport(steps=0, loss=math.nan, accuracy=math.nan, compile_seconds=0.0, train_seconds=0.0)
    state = jax.tree.map(jnp.copy, state)  # the steps donate their state; the caller keeps the one that came in
    started = time.perf_counter()
    batches = _batches(key, dataset, start, config=config, teacher=teacher)
    first = next(batches)
    run_step = compiled(train_step, (state, first), donate=(0,), network=network, config=config)

    begun = looked = time.perf_counter()
    metrics: list[StepMetrics] = []
    for step, batch in zip(range(start + 1, until + 1), itertools.chain([first], batches), strict=False):
        state, step_metrics = run_step(state, batch)
        metrics.append(step_metrics)
        if step % CHECK_EVERY == 0 or step == until:
            loss, accuracy = _check_metrics(step, metrics)
            now = time.perf_counter()
            if on_progress is not None:
                on_progress(step, loss, len(metrics) / (now - looked))
            metrics, looked = [], now
    seconds = {"compile_seconds": begun - started, "train_seconds": looked - begun}
    return state, TrainReport(steps=until - start, loss=loss, accuracy=accuracy, **seconds)


def _batches(
    key: Array, dataset: Dataset, step: int, *, config: TrainConfig, teacher: Teacher | None
) -> Iterator[Batch]:
    """The batches of `step` and all after it; an epoch's order is drawn once."""
    num_examples = dataset.train_images.shape[0]
    if config.batch_size > num_examples:
        raise TrainConfigError(f"batch_size is {config.batch_size}; the training set has only {num_examples} images")
    steps_per_epoch = num_examples // config.batch_size
    draw = functools.partial(draw_batch, batch_size=config.batch_size, pad=config.pad, flip=config.flip)
    for epoch in itertools.count(step // steps_per_epoch):
        order = epoch_order(key, epoch, num_examples=num_examples)
        while step < (epoch + 1) * steps_per_epoch:
            batch = draw(key, step, order, dataset.train_images, dataset.train_labels)
            if teacher is not None:
                batch = batch.replace(teacher_logits=teacher(batch.examples, batch.views, batch.images))
            yield batch
            step += 1


def _check_metrics(step: int, metrics: list[StepMetrics]) -> tuple[float, float]:
    """Waits for the steps, and gives their mean loss and accuracy."""
    fetched = jax.device_get(metrics)
    loss = math.fsum(each.loss for each in fetched) / len(fetched)
    if not (math.isfinite(loss) and all(math.isfinite(each.norm) for each in fetched)):
        raise DivergedError(step, loss)
    return loss, math.fsum(each.accuracy for each in fetched) / len(fetched)
