"""The training loop, and compilation ahead of it."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from eigen_jax import platforms
from eigen_jax.data import Dataset
from eigen_jax.training.config import DivergedError, TooLargeError, TrainConfig
from eigen_jax.training.devices import check_devices, compile_call, spread_batches, spread_state
from eigen_jax.training.evaluation import compile_evaluation
from eigen_jax.training.programs import Programs, peak_bytes, shapes_of
from eigen_jax.training.step import Batch, StepMetrics, Teacher, Training, TrainState, compile_initial, draw_batches

ProgressCallback = Callable[[int, float, float], None]  # step, mean loss, steps a second

# Steps between looks at the loss. A look waits for the device, so this also bounds how far the calls run ahead of it.
CHECK_EVERY = 50

_SHARE = 0.85  # of the CPU's memory, that training may take; compilers, images and the system have the rest
_SHORTEST = 1e-6  # seconds; a clock of work can stand still between two looks


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What one call of `train_to` did."""

    steps: int  # steps taken by this call
    loss: float  # mean over the steps after the last look but one; NaN if no step was taken
    accuracy: float  # of the same steps' augmented batches, in [0, 1]; NaN if no step was taken
    compile_seconds: float  # that training waited for its `programs`; 0.0 where they were at hand
    train_seconds: float  # without that; without `programs`, compilation included


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
    pause: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    programs: Programs | None = None,
) -> tuple[TrainState, TrainReport]:
    """Trains until `until` steps were taken in all, or a pause; a state that is there already comes back as it is.

    Where `config.devices` share each batch, the state comes from one device and goes back to it. A module with
    batch statistics must then have a field `axis_name`, the mapped axis that they are averaged over.

    Args:
        key: one for the whole training, the same at every landmark.
        state: left usable.
        teacher: whom the network mimics; None for plain cross-entropy.
        on_progress: called at looks, every `CHECK_EVERY` steps (or the platform's steps of one call, where those
            are more) and at the end, with the step, the mean loss since the look before, and the steps a second.
        pause: asked after every call of a program whether to come back with the state as it is then; another
            call goes on from it to the same bits.
        clock: seconds from any fixed time on, which the report and the steps a second are told in.
        programs: of whoever trains many networks; by default, JAX remembers what it compiled.

    Raises:
        ConfigError: a batch is larger than the training set, devices are missing, or the module needs just one.
        DivergedError: the loss, a parameter or a batch statistic is not finite.
        TooLargeError: the CPU has not the memory that the `programs` plan to take; a GPU raises a JaxRuntimeError.
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
    how: dict[str, Any] = {"network": network, "config": config, "programs": programs}
    run = {steps: compile_call(state, first, steps, **how) for steps in set(calls)}
    _check_fits(run.values())

    looks = _Looks(start, clock, on_progress)
    inputs = _inputs(itertools.chain([first], batches), calls, devices=config.devices)
    following: Batch | None = next(inputs)
    for steps in calls:
        state, metrics = run[steps](state, following)
        following = next(inputs, None)  # drawn while the device trains
        step += steps
        paused = pause is not None and pause()
        looks.add(step, metrics, is_last=paused or step == until)
        if paused:
            break
    if config.devices > 1:
        state = jax.device_put(state, shardings)
    return state, looks.report(started)


class _Looks:
    """What training tells of itself: `metrics` are gathered, and looked at now and then."""

    def __init__(self, start: int, clock: Callable[[], float], on_progress: ProgressCallback | None) -> None:
        self.start = self.step = start
        self.clock = clock
        self.on_progress = on_progress
        self.begun = self.looked = clock()
        self.metrics: list[StepMetrics] = []
        self.loss = self.accuracy = math.nan

    def add(self, step: int, metrics: StepMetrics, *, is_last: bool) -> None:
        """Takes the metrics of the steps up to `step`, and looks where a look is due; raises `DivergedError`."""
        self.metrics.append(metrics)
        is_due = step // CHECK_EVERY > self.step // CHECK_EVERY
        self.step = step
        if not (is_due or is_last):
            return
        fetched = jax.device_get(self.metrics)  # waits for the steps
        losses = np.concatenate([np.ravel(each.loss) for each in fetched])
        accuracies = np.concatenate([np.ravel(each.accuracy) for each in fetched])
        self.loss = math.fsum(losses) / losses.size
        self.accuracy = math.fsum(accuracies) / accuracies.size
        if not (math.isfinite(self.loss) and all(np.isfinite(each.norm).all() for each in fetched)):
            raise DivergedError(self.step, self.loss)
        now = self.clock()
        if self.on_progress is not None:
            self.on_progress(self.step, self.loss, losses.size / max(now - self.looked, _SHORTEST))
        self.metrics, self.looked = [], now

    def report(self, started: float) -> TrainReport:
        """Of a training that waited for its programs from `started` on."""
        return TrainReport(
            steps=self.step - self.start,
            loss=self.loss,
            accuracy=self.accuracy,
            compile_seconds=self.begun - started,
            train_seconds=self.looked - self.begun,
        )


def _check_fits(programs: Iterable[Callable]) -> None:
    """Raises a TooLargeError on a CPU, where the system would kill the process without a word."""
    needed = max(peak_bytes(program) or 0 for program in programs)
    if jax.default_backend() == "cpu" and needed > _SHARE * (available := platforms.memory()):
        raise TooLargeError(needed, available)


def batch_shapes(key: Array, dataset: Dataset, *, config: TrainConfig, teacher: Teacher | None = None) -> Batch:
    """The shapes of a training step's batch: draws one, with any key, and asks the teacher; raises as `train_to`."""
    check_devices(config.devices)
    return shapes_of(next(draw_batches(key, dataset, 0, config=config, teacher=teacher)))


def training_memory(
    training: Training, state: TrainState, until: int, batch: Batch, *, programs: Programs
) -> int | None:
    """Bytes of a device that training until `until` steps holds at its peak; see `peak_bytes` and `batch_shapes`."""
    most = max(steps_of_calls(0, until, steps_per_call=platforms.current().steps_per_call))
    program = compile_call(state, batch, most, network=training.network, config=training.config, programs=programs)
    return peak_bytes(program)


def prepare_training(
    training: Training, until: int, batch: Batch, *, programs: Programs, evaluated: Sequence[int] = ()
) -> None:
    """Compiles in the background, in the order of use, what `init_state`, `train_to` and evaluations ask for.

    The batch is as of `batch_shapes`; `evaluated` are batch sizes of evaluations besides the config's.
    """
    calls = set(steps_of_calls(0, until, steps_per_call=platforms.current().steps_per_call))
    how: dict[str, Any] = {"network": training.network, "programs": programs}
    trained = how | {"config": training.config}

    def compile_all() -> None:
        initializer = compile_initial(training.weights_key, input_shape=training.input_shape, **trained)
        assert isinstance(initializer, jax.stages.Compiled), "in the background, all is compiled ahead"
        state = initializer.out_info
        for steps in calls:
            compile_call(state, batch, steps, **trained)
        for size in (training.config.eval_batch_size, *evaluated):
            compile_evaluation(state.variables, training.dataset.validation_images, batch_size=size, **how)

    programs.in_background(compile_all)


def steps_of_calls(start: int, until: int, *, steps_per_call: int) -> list[int]:
    """How many steps each call takes from `start` to `until`: `steps_per_call` or 1; chunks begin at its multiples."""
    calls, step = [], start
    while step < until:
        whole = step % steps_per_call == 0 and step + steps_per_call <= until
        calls.append(steps_per_call if whole else 1)
        step += calls[-1]
    return calls


def _inputs(batches: Iterator[Batch], calls: Sequence[int], *, devices: int) -> Iterator[Batch]:
    """What each call of a program takes: a batch, or several that are stacked, divided among the devices."""
    for steps in calls:
        taken = next(batches) if steps == 1 else _stack(list(itertools.islice(batches, steps)))
        yield spread_batches(taken, steps, devices=devices)


@jax.jit  # depends on no network, so all share one program
def _stack(batches: list[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
