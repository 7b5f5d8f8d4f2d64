"""The training loop."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence

import jax
import numpy as np
from flax import linen as nn
from jax import Array

from eigen_jax import platforms
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.training.config import DivergedError, TrainConfig
from eigen_jax.training.devices import compile_for_devices, gather_state, spread_batches, spread_state
from eigen_jax.training.programs import compiled
from eigen_jax.training.step import (
    Batch,
    StepMetrics,
    Teacher,
    TrainState,
    draw_batch,
    epoch_order,
    stack_batches,
    train_step,
    train_steps,
)

ProgressCallback = Callable[[int, float, float], None]  # step, mean loss, steps a second
Pause = Callable[[], bool]  # whether training is to come back before its landmark

# Steps between looks at the loss. A look waits for the device, so this also bounds how far the
# calls run ahead of it.
CHECK_EVERY = 50

_SHORTEST = 1e-6  # seconds; a clock of work can stand still between two looks


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What one call of `train_to` did."""

    steps: int  # steps taken by this call
    loss: float  # mean over the steps after the last look but one; NaN if no step was taken
    accuracy: float  # of the same steps' augmented batches, in [0, 1]; NaN if no step was taken
    compile_seconds: float  # that training waited for its programs; 0.0 where they were at hand
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
    pause: Pause | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[TrainState, TrainReport]:
    """Trains until `until` steps were taken in all, or a pause; a state that is there already comes back as it is.

    Where `config.devices` is more than 1, so many devices share each batch. The state comes from one
    device and goes back to it, so nothing else has to know.

    Args:
        key: one for the whole training, the same at every landmark.
        state: left usable.
        dataset: its training part is used.
        until: the landmark, in steps since the start of training.
        network: the module. To be trained on several devices, one with batch statistics must have a
            field `axis_name`, the mapped axis that they are averaged over.
        config: the settings.
        teacher: whom the network mimics; None for plain cross-entropy.
        on_progress: called at looks, every `CHECK_EVERY` steps (or the platform's steps of one call,
            where those are more) and at the end, with the step, the mean loss since the look before,
            and the steps a second.
        pause: asked after every call of a program. Where it says so, the state comes back as it is
            then, to be saved, say; another call goes on from it to the same bits.
        clock: seconds from any fixed time on, which the report and the steps a second are told in.

    Raises:
        ConfigError: a batch is larger than the training set, there are fewer devices than
            `config.devices`, or the module cannot be trained on several.
        DivergedError: the loss, a parameter or a batch statistic is not finite.
    """
    start = step = int(state.step)
    if start >= until:
        return state, TrainReport(steps=0, loss=math.nan, accuracy=math.nan, compile_seconds=0.0, train_seconds=0.0)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    state = spread_state(state, devices=config.devices)
    started = clock()
    calls = steps_of_calls(start, until, steps_per_call=platforms.current().steps_per_call)
    batches = draw_batches(key, dataset, start, config=config, teacher=teacher)
    first = next(batches)
    programs = compile_training(state, first, set(calls), network=network, config=config)

    begun = looked = clock()
    inputs = _inputs(itertools.chain([first], batches), calls, devices=config.devices)
    following: Batch | None = next(inputs)
    metrics: list[StepMetrics] = []
    for steps in calls:
        state, call_metrics = programs[steps](state, following)
        metrics.append(call_metrics)
        following = next(inputs, None)  # drawn while the device trains
        step += steps
        paused = pause is not None and pause()
        if step // CHECK_EVERY > (step - steps) // CHECK_EVERY or step == until or paused:
            count, loss, accuracy = _check_metrics(step, metrics)
            now = clock()
            if on_progress is not None:
                on_progress(step, loss, count / max(now - looked, _SHORTEST))
            metrics, looked = [], now
        if paused:
            break
    seconds = {"compile_seconds": begun - started, "train_seconds": looked - begun}
    state = gather_state(state, shardings, devices=config.devices)
    return state, TrainReport(steps=step - start, loss=loss, accuracy=accuracy, **seconds)


def steps_of_calls(start: int, until: int, *, steps_per_call: int) -> list[int]:
    """How many steps each call takes from `start` to `until`: `steps_per_call` or 1.

    Where a chunk begins depends on the number of the step alone, so that training which stops
    between chunks and goes on calls the same programs as training that never stopped.
    """
    calls, step = [], start
    while step < until:
        whole = step % steps_per_call == 0 and step + steps_per_call <= until
        calls.append(steps_per_call if whole else 1)
        step += calls[-1]
    return calls


def draw_batches(
    key: Array, dataset: Dataset, step: int, *, config: TrainConfig, teacher: Teacher | None
) -> Iterator[Batch]:
    """The batches of `step` and all after it; an epoch's order is drawn once."""
    num_examples = dataset.train_images.shape[0]
    if config.batch_size > num_examples:
        rule = "{batch_size} is {}; the training set has only {} images"
        raise ConfigError(TrainConfig, rule, config.batch_size, num_examples)
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


def compile_training(
    state: TrainState, batch: Batch, calls: Collection[int], *, network: nn.Module, config: TrainConfig
) -> dict[int, Callable]:
    """The programs of `train_to`, by the steps that one call takes; they donate their state.

    Args:
        state: the network's, or its shapes; on one device, or where `config.devices` are more, on any.
        batch: one step's, or its shapes; on one device.
        calls: the numbers of steps to take in one call.
        network: the module.
        config: the settings.
    """
    programs = {}
    for steps in calls:
        batches = batch if steps == 1 else jax.tree.map(functools.partial(_stacked, steps), batch)
        if config.devices > 1:
            programs[steps] = compile_for_devices(state, batches, steps, network=network, config=config)
        else:
            function: Callable = train_step if steps == 1 else train_steps
            programs[steps] = compiled(function, (state, batches), donate=(0,), network=network, config=config)
    return programs


def _stacked(steps: int, leaf: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((steps, *leaf.shape), leaf.dtype, sharding=leaf.sharding)


def _inputs(batches: Iterator[Batch], calls: Sequence[int], *, devices: int) -> Iterator[Batch]:
    """What each call of a program takes: a batch, or several that are stacked, divided among the devices."""
    for steps in calls:
        taken = next(batches) if steps == 1 else stack_batches(list(itertools.islice(batches, steps)))
        yield spread_batches(taken, steps, devices=devices)


def _check_metrics(step: int, metrics: list[StepMetrics]) -> tuple[int, float, float]:
    """Waits for the steps, and gives their number, mean loss and mean accuracy."""
    fetched = jax.device_get(metrics)
    losses = np.concatenate([np.ravel(each.loss) for each in fetched])
    accuracies = np.concatenate([np.ravel(each.accuracy) for each in fetched])
    loss = math.fsum(losses) / losses.size
    if not (math.isfinite(loss) and all(np.isfinite(each.norm).all() for each in fetched)):
        raise DivergedError(step, loss)
    return losses.size, loss, math.fsum(accuracies) / accuracies.size
