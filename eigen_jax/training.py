"""Training to a landmark and evaluating, for any Flax linen module (Section 4.1).

The module is called as `network.apply(variables, images, train=...)` and gives logits [B, K]. It
is used as a static argument, so it must be hashable and equal by value, as linen modules with
hashable fields are.

Dimension letters: N images of a data set, B of a batch, H x W x C an image, K classes.

Every step is a function of (key, state, step number): batches and views are drawn with keys that
are folded from `key` and the step, and no key is kept. So training that stops at any step and goes
on from a saved state gives the same bits as training that never stopped.

A step is one compiled call, not the body of a `lax.scan`: XLA's CPU back end runs convolutions in
a loop body many times slower.
"""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array

from eigen_jax.data import Dataset, apply_views, sample_views
from eigen_jax.losses import cross_entropy

PyTree = Any
ProgressCallback = Callable[[int, float, float], None]  # step, mean loss, steps a second

# Steps between looks at the loss. A look waits for the device, so this also bounds how far the
# calls run ahead of it.
CHECK_EVERY = 50

# A compiled CPU program holds some 300 of a process's 65,530 memory maps, and a search compiles
# hundreds: only the newest are kept, where jit's own cache would keep them all. They must be enough
# for a generation, whose networks train in turns: two programs each, one to train, one to evaluate.
_COMPILED_KEPT = 48


class TrainConfigError(ValueError):
    """A training setting that cannot be, by itself or for the data at hand."""


class DivergedError(ArithmeticError):
    """The loss, a parameter or a batch statistic is no longer finite.

    Attributes:
        step: the step at which that was seen, at most `CHECK_EVERY` after it happened.
        loss: the mean loss of the steps since the look before.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(step, loss)
        self.step = step
        self.loss = loss

    def __str__(self) -> str:
        return f"training diverged by step {self.step}: the mean loss is {self.loss:g}; lower the learning rate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How networks are trained; static and hashable. The defaults are those of Section 4.1.

    Raises:
        TrainConfigError: a value that training cannot work with.
    """

    batch_size: int = 128  # images a step
    learning_rate: float = 0.1  # until the first of decay_steps
    decay_steps: tuple[int, ...] = (15_000, 20_000)  # steps from which the rate is lower, ascending
    decay_rate: float = 0.1  # what the rate is multiplied by at each
    momentum: float = 0.9
    weight_decay: float = 5e-4  # of all parameters, added to the gradient
    pad: int = 4  # pixels of zeros around an image before it is cropped; 0 for no cropping
    flip: bool = True  # mirror half of the images
    eval_batch_size: int = 1_000  # images at a time in evaluation

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_batch_size"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "decay_rate"):
            value = getattr(self, name)
            _require(name, value, math.isfinite(value) and value > 0, "finite and more than 0")
        _require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to less than 1")
        finite = math.isfinite(self.weight_decay)
        _require("weight_decay", self.weight_decay, finite and self.weight_decay >= 0, "finite and at least 0")
        _require("pad", self.pad, 0 <= self.pad <= 256, "from 0 to 256")
        ascending = all(a < b for a, b in zip((0, *self.decay_steps), self.decay_steps, strict=False))
        _require("decay_steps", self.decay_steps, ascending, "steps in ascending order, each at least 1")


def _require(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise TrainConfigError(f"{name} is {value}; it must be {what}")


@struct.dataclass
class TrainState:
    """A network in training, as a plain pytree of arrays. It holds no key and no function."""

    step: Array  # [] int32, steps taken
    params: PyTree  # the module's "params" collection, float32
    batch_stats: PyTree  # the module's "batch_stats" collection, float32; empty without batch normalisation
    opt_state: PyTree  # of the Optax optimizer

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `network.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@struct.dataclass
class Batch:
    """What one training step sees."""

    images: Array  # [B, H, W, C] float32, augmented
    labels: Array  # [B] int32


@struct.dataclass
class StepMetrics:
    """What one training step tells."""

    loss: Array  # [] float32, mean over the batch, before the update
    accuracy: Array  # [] float32, of the batch as augmented, before the update
    norm: Array  # [] float32, L2 norm of parameters and batch statistics after the update; not finite iff they diverged


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What one call of `train_to` did."""

    steps: int  # steps taken by this call
    loss: float  # mean over the last steps, at most `CHECK_EVERY` of them; NaN if no step was taken
    accuracy: float  # of the same steps' augmented batches, in [0, 1]; NaN if no step was taken
    compile_seconds: float  # 0.0 where the program was at hand
    train_seconds: float  # without compilation


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """The learning rate at each step: constant, times `decay_rate` from each of `decay_steps` on (Section 4.1)."""
    piecewise = optax.piecewise_constant_schedule(
        config.learning_rate, dict.fromkeys(config.decay_steps, config.decay_rate)
    )
    # Optax mixes the count with floats, which strict promotion refuses; float32 is exact to 2**24 steps.
    return lambda count: piecewise(jnp.asarray(count, jnp.float32))


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """SGD with plain momentum; weight decay joins the gradient before the momentum does (Section 4.1)."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(make_schedule(config), momentum=config.momentum),
    )


def init_state(key: Array, *, network: nn.Module, config: TrainConfig, input_shape: tuple[int, int, int]) -> TrainState:
    """An untrained network. Compiles a program of its own, so it cannot be traced; see `abstract_state`.

    Args:
        key: of the initial parameters.
        network: the module.
        config: tells the optimizer.
        input_shape: (H, W, C) of an image.
    """
    return _initializer(network, config, input_shape)(key)


def abstract_state(*, network: nn.Module, config: TrainConfig, input_shape: tuple[int, int, int]) -> TrainState:
    """The shapes and dtypes of `init_state`'s result, to restore a checkpoint into; nothing is computed."""
    initialize = functools.partial(_initial_state, network=network, config=config, input_shape=input_shape)
    return jax.eval_shape(initialize, jax.random.key(0))


def _initial_state(
    key: Array, *, network: nn.Module, config: TrainConfig, input_shape: tuple[int, int, int]
) -> TrainState:
    variables = network.init(key, jnp.zeros((1, *input_shape), jnp.float32), train=False)
    params = variables.get("params", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=make_optimizer(config).init(params),
    )


@functools.lru_cache(maxsize=_COMPILED_KEPT)
def _initializer(
    network: nn.Module, config: TrainConfig, input_shape: tuple[int, int, int]
) -> Callable[[Array], TrainState]:
    # The program runs once, and optimising its random draws takes XLA longer than the whole training step does.
    initialize = functools.partial(_initial_state, network=network, config=config, input_shape=input_shape)
    return jax.jit(initialize, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(jax.jit, static_argnames="num_examples")
def epoch_order(key: Array, epoch: int | Array, *, num_examples: int) -> Array:
    """[N] int32, the order in which an epoch visits the examples. `key` is that of `train_to`."""
    shuffle_key, _ = jax.random.split(key)
    return jax.random.permutation(jax.random.fold_in(shuffle_key, epoch), num_examples)


@functools.partial(jax.jit, static_argnames=("batch_size", "pad", "flip"))
def draw_batch(
    key: Array, step: int | Array, order: Array, images: Array, labels: Array, *, batch_size: int, pad: int, flip: bool
) -> Batch:
    """The batch of one step, augmented. It depends on no network, so all share one program.

    An epoch is the whole batches of `order`; the examples left over at its end are dropped.

    Args:
        key: that of `train_to`; the step's own is folded from it.
        step: the number of the step, from the start of training.
        order: [N] int32, `epoch_order` of the epoch that `step` lies in.
        images: [N, H, W, C] float32, the whole training set.
        labels: [N] int32.
        batch_size: B, at most N.
        pad: pixels around an image before it is cropped.
        flip: mirror half of the images.
    """
    _, view_key = jax.random.split(key)
    position = step % (order.shape[0] // batch_size) * batch_size
    examples = jax.lax.dynamic_slice_in_dim(order, position, batch_size)
    views = sample_views(jax.random.fold_in(view_key, step), examples, pad=pad, flip=flip)
    return Batch(images=apply_views(images[examples], views, pad=pad), labels=labels[examples])


def train_step(
    state: TrainState, batch: Batch, *, network: nn.Module, config: TrainConfig
) -> tuple[TrainState, StepMetrics]:
    """One step of SGD on the mean of the per-example losses; pure, for the caller to compile."""

    def mean_loss(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = network.apply(variables, batch.images, train=True, mutable=["batch_stats"])
        return cross_entropy(logits, batch.labels).mean(), (logits, updated.get("batch_stats", {}))

    (loss, (logits, batch_stats)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = make_optimizer(config).update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = StepMetrics(
        loss=loss,
        accuracy=(logits.argmax(axis=-1) == batch.labels).mean(dtype=jnp.float32),
        norm=optax.tree.norm((params, batch_stats)),
    )
    return TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state), metrics


def train_to(
    key: Array,
    state: TrainState,
    dataset: Dataset,
    until: int,
    *,
    network: nn.Module,
    config: TrainConfig,
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
    batches = _batches(key, dataset, start, config=config)
    first = next(batches)
    run_step = _compiled(train_step, (state, first), donate=(0,), network=network, config=config)

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


def _batches(key: Array, dataset: Dataset, step: int, *, config: TrainConfig) -> Iterator[Batch]:
    """The batches of `step` and all after it; an epoch's order is drawn once."""
    num_examples = dataset.train_images.shape[0]
    if config.batch_size > num_examples:
        raise TrainConfigError(f"batch_size is {config.batch_size}; the training set has only {num_examples} images")
    steps_per_epoch = num_examples // config.batch_size
    draw = functools.partial(draw_batch, batch_size=config.batch_size, pad=config.pad, flip=config.flip)
    for epoch in itertools.count(step // steps_per_epoch):
        order = epoch_order(key, epoch, num_examples=num_examples)
        while step < (epoch + 1) * steps_per_epoch:
            yield draw(key, step, order, dataset.train_images, dataset.train_labels)
            step += 1


def evaluate(state: TrainState, images: Array, labels: Array, *, network: nn.Module, batch_size: int) -> float:
    """The share of images, in [0, 1], whose largest logit is the true class's; exact.

    Batch normalisation uses its running averages. The last batch is padded, and the padding is
    not counted, so splits of all sizes share one program.

    Args:
        state: the network's.
        images: [N, H, W, C] float32.
        labels: [N] int32.
        network: the module.
        batch_size: images at a time.

    Raises:
        TrainConfigError: no images, or no batch.
    """
    num_examples = images.shape[0]
    if num_examples < 1 or batch_size < 1:
        raise TrainConfigError(f"{num_examples} images in batches of {batch_size}; both must be at least 1")
    correct = 0
    for start in range(0, num_examples, batch_size):
        batch = _padded_batch(images, labels, start, batch_size=batch_size)
        run_batch = _compiled(_count_correct, (state.variables, *batch), network=network)
        correct += int(run_batch(state.variables, *batch))  # waits, so that two large batches are never in memory
    return correct / num_examples


@functools.partial(jax.jit, static_argnames="batch_size")
def _padded_batch(images: Array, labels: Array, start: int | Array, *, batch_size: int) -> tuple[Array, Array]:
    """[B, H, W, C] images and [B] labels from `start` on; past the end, the last image with label -1."""
    examples = start + jnp.arange(batch_size)
    last = images.shape[0] - 1
    inside = jnp.minimum(examples, last)
    return images[inside], jnp.where(examples <= last, labels[inside], -1)


def _count_correct(variables: PyTree, images: Array, labels: Array, *, network: nn.Module) -> Array:
    """[] int32, how many images get their label. No class is -1, so padding counts as wrong."""
    logits: Any = network.apply(variables, images, train=False)
    return (logits.argmax(axis=-1) == labels).sum(dtype=jnp.int32)


def _check_metrics(step: int, metrics: list[StepMetrics]) -> tuple[float, float]:
    """Waits for the steps, and gives their mean loss and accuracy."""
    fetched = jax.device_get(metrics)
    loss = math.fsum(each.loss for each in fetched) / len(fetched)
    if not (math.isfinite(loss) and all(math.isfinite(each.norm) for each in fetched)):
        raise DivergedError(step, loss)
    return loss, math.fsum(each.accuracy for each in fetched) / len(fetched)


def _compiled(function: Callable, arguments: tuple, *, donate: tuple[int, ...] = (), **statics: Any) -> Callable:
    """The program of a pure function for arguments of these shapes on these devices, compiled once."""
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in leaves)
    return _compile(function, structure, shapes, donate, tuple(statics.items()))


@functools.lru_cache(maxsize=_COMPILED_KEPT)
def _compile(function: Callable, structure: Any, shapes: tuple, donate: tuple[int, ...], statics: tuple) -> Callable:
    # A partial of its own for each program: what jit remembers goes when the function goes.
    program = jax.jit(functools.partial(function, **dict(statics)), donate_argnums=donate)
    return program.lower(*jax.tree.unflatten(structure, shapes)).compile()
