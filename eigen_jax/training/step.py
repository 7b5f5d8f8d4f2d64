"""One training step and what goes into it, as pure functions."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax import Array, lax

from eigen_jax.data import Dataset, Images, StreamedImages, apply_views, sample_views
from eigen_jax.errors import ConfigError
from eigen_jax.losses import LOSSES, mimicry_loss
from eigen_jax.training.config import TrainConfig, make_optimizer
from eigen_jax.training.programs import Programs, compiled

PyTree = Any

# An untrained network is drawn once, and optimising its random draws takes XLA longer than the whole training step.
_INITIAL_OPTIONS = {"xla_backend_optimization_level": 0}


@struct.dataclass
class TrainState:
    """A network in training, as a plain pytree of arrays. It holds no key and no function."""

    step: Array  # [] int32, steps taken
    params: PyTree  # the module's "params" collection, float32
    batch_stats: PyTree  # the module's "batch_stats" collection, float32; empty without batch normalisation
    opt_state: PyTree  # of the Optax optimizer

    @property
    def trained(self) -> dict[str, PyTree]:
        """What training goes on from."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `network.apply` takes, to be evaluated and saved."""
        return self.trained


@struct.dataclass
class AveragedState(TrainState):
    """A network in training whose `TrainConfig.averaging` is not 0.

    A class of its own, because Orbax would not restore a state from before into one with a field more, empty or not.
    """

    average: PyTree  # of `trained`, over the steps so far

    @property
    def variables(self) -> dict[str, PyTree]:
        """The average."""
        return self.average


@struct.dataclass
class Batch:
    """What one training step sees."""

    images: Array  # [B, H, W, C] float32, augmented
    labels: Array  # [B] int32
    examples: Array | None = None  # [B] int32, positions in the training set that it was drawn from
    views: Array | None = None  # [B] int32, how each was augmented; see `eigen_jax.data.augmentation`
    teacher_logits: Array | None = None  # [B, K] floating, of the same views; None: nobody is mimicked


class Teacher(Protocol):
    """Whom students mimic (Section 3.2): logits for any view of any training example."""

    @property
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of all that the logits depend on."""

    def __call__(self, examples: Array, views: Array, images: Array) -> Array:
        """The logits, [B, K] floating, of what a `Batch` has of the same names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained: all that weights depend on, but for the number of steps; see `train_to`."""

    key: Array  # of batches and views
    init_key: Array | None = None  # of the initial weights; None: `key`
    initial: PyTree | None = None  # variables to start from in their place, see `start_from`; None: none
    dataset: Dataset
    network: nn.Module
    config: TrainConfig
    teacher: Teacher | None = None

    @property
    def weights_key(self) -> Array:
        """Of the initial weights."""
        return self.key if self.init_key is None else self.init_key

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        _, height, width, channels = self.dataset.train_images.shape
        return height, width, channels


@struct.dataclass
class StepMetrics:
    """What one training step tells."""

    loss: Array  # [] float32, mean over the batch, before the update
    accuracy: Array  # [] float32, of the batch as augmented, before the update
    norm: Array  # [] float32, L2 norm of parameters and batch statistics after the update; not finite iff they diverged


def init_state(
    key: Array,
    *,
    network: nn.Module,
    config: TrainConfig,
    input_shape: tuple[int, int, int],
    programs: Programs | None = None,
) -> TrainState:
    """An untrained network for images of `input_shape` (H, W, C); the config tells the optimizer."""
    program = compile_initial(key, programs=programs, network=network, config=config, input_shape=input_shape)
    return program(key)


def start_from(state: TrainState, variables: PyTree, *, config: TrainConfig) -> TrainState:
    """An untrained state with the variables of another network where it has them in the same place and shape.

    What it does not have, such as a classifier of as many classes, stays as it was drawn.
    """
    others = dict(jax.tree_util.tree_flatten_with_path(variables)[0])

    def chosen(path: Any, leaf: Array) -> Array:
        other = others.get(path, leaf)
        return jnp.asarray(other, leaf.dtype) if jnp.shape(other) == leaf.shape else leaf

    trained = jax.tree_util.tree_map_with_path(chosen, state.trained)
    state = dataclasses.replace(state, **trained, opt_state=make_optimizer(config).init(trained["params"]))
    return dataclasses.replace(state, average=trained) if isinstance(state, AveragedState) else state


def abstract_state(*, network: nn.Module, config: TrainConfig, input_shape: tuple[int, int, int]) -> TrainState:
    """The shapes and dtypes of `init_state`'s result, to restore a checkpoint into; nothing is computed."""
    initialize = functools.partial(_initial_state, network=network, config=config, input_shape=input_shape)
    return jax.eval_shape(initialize, jax.random.key(0))


def compile_initial(key: Array, *, programs: Programs | None, **statics: Any) -> Callable:
    """The program of `init_state`, for its statics."""
    return compiled(_initial_state, (key,), programs=programs, options=_INITIAL_OPTIONS, **statics)


def _initial_state(
    key: Array, *, network: nn.Module, config: TrainConfig, input_shape: tuple[int, int, int]
) -> TrainState:
    variables = network.init(key, jnp.zeros((1, *input_shape), jnp.float32), train=False)
    params, batch_stats = variables.get("params", {}), variables.get("batch_stats", {})
    opt_state, step = make_optimizer(config).init(params), jnp.zeros((), jnp.int32)
    state = TrainState(step=step, params=params, batch_stats=batch_stats, opt_state=opt_state)
    return AveragedState(**vars(state), average=state.trained) if config.averaging else state


@functools.partial(jax.jit, static_argnames="num_examples")
def epoch_order(key: Array, epoch: int | Array, *, num_examples: int) -> Array:
    """[N] int32, the order in which an epoch visits the examples. `key` is that of `train_to`."""
    shuffle_key, _ = jax.random.split(key)
    return jax.random.permutation(jax.random.fold_in(shuffle_key, epoch), num_examples)


@functools.partial(jax.jit, static_argnames=("batch_size", "pad", "flip"))
def draw_batch(
    key: Array,
    step: int | Array,
    order: Array,
    images: Images,
    labels: Array,
    *,
    batch_size: int,
    pad: int,
    flip: bool,
) -> Batch:
    """The batch of one step, augmented. It depends on no network, so all share one program.

    The key is that of `train_to`, the order [N] the `epoch_order` of the epoch that the step lies in, whose last
    examples are dropped where they fill no batch; images [N, H, W, C] float32 and labels [N] int32 are all there are.
    """
    steps_per_epoch = order.shape[0] // batch_size
    examples = lax.dynamic_slice_in_dim(order, step % steps_per_epoch * batch_size, batch_size)
    return _augment(key, step, examples, images[examples], labels, pad=pad, flip=flip)


@functools.partial(jax.jit, static_argnames=("pad", "flip"))
def _augment(
    key: Array, step: int | Array, examples: Array, images: Array, labels: Array, *, pad: int, flip: bool
) -> Batch:
    """The batch of these examples, [B] positions in the labels [N], whose images are [B, H, W, C]."""
    _, view_key = jax.random.split(key)
    views = sample_views(jax.random.fold_in(view_key, step), examples, pad=pad, flip=flip)
    return Batch(images=apply_views(images, views, pad=pad), labels=labels[examples], examples=examples, views=views)


def draw_batches(
    key: Array, dataset: Dataset, step: int, *, config: TrainConfig, teacher: Teacher | None
) -> Iterator[Batch]:
    """The batches of `step` and all after it; an epoch's order is drawn once."""
    images, labels = dataset.train_images, dataset.train_labels
    if config.batch_size > len(images):
        rule = "{batch_size} is {}; the training set has only {} images"
        raise ConfigError(TrainConfig, rule, config.batch_size, len(images))
    steps_per_epoch = len(images) // config.batch_size
    augmented = {"pad": config.pad, "flip": config.flip}
    for epoch in itertools.count(step // steps_per_epoch):
        order = epoch_order(key, epoch, num_examples=len(images))
        steps = range(max(step, epoch * steps_per_epoch), (epoch + 1) * steps_per_epoch)
        if isinstance(images, StreamedImages):
            parts = np.asarray(order)[: steps_per_epoch * config.batch_size].reshape(steps_per_epoch, -1)
            coming = images.read_ahead(parts[each % steps_per_epoch] for each in steps)
            batches = (
                _augment(key, each, jnp.asarray(part), seen, labels, **augmented)
                for each, (part, seen) in zip(steps, coming, strict=True)
            )
        else:
            draw = functools.partial(draw_batch, batch_size=config.batch_size, **augmented)
            batches = (draw(key, each, order, images, labels) for each in steps)
        for batch in batches:
            if teacher is not None:
                batch = batch.replace(teacher_logits=teacher(batch.examples, batch.views, batch.images))
            yield batch


def train_step(
    state: TrainState, batch: Batch, *, network: nn.Module, config: TrainConfig, axis_name: str | None = None
) -> tuple[TrainState, StepMetrics]:
    """One step of the optimizer on the mean of the per-example losses; pure, for the caller to compile.

    The loss is that of the config, in `mimicry_loss` where the batch has a teacher's logits. The losses of companion
    heads, whose logits a network sows in "companions", are added to it in the first `config.companion_steps` steps.

    Where devices share the batch along a mapped axis, `batch` is a device's equal share, gradients and metrics are
    averaged over the axis (under `shard_map`, with `check_vma=False`), and the network must average its statistics.
    """
    steps = config.companion_steps
    mean_of_devices = (lambda tree: tree) if axis_name is None else functools.partial(lax.pmean, axis_name=axis_name)

    def losses(logits: Array) -> Array:
        loss = LOSSES.find(config.loss)
        if batch.teacher_logits is None:
            return loss(logits, batch.labels)
        mimicry: dict[str, Any] = {"weight": config.mimicry_weight, "temperature": config.temperature, "loss": loss}
        return mimicry_loss(logits, batch.labels, batch.teacher_logits, **mimicry)

    def mean_loss(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        rngs = {"dropout": _dropout_key(state.step, batch)}
        mutable = ["batch_stats", "companions"]
        logits, updated = network.apply(variables, batch.images, train=True, mutable=mutable, rngs=rngs)
        total, companions_count = losses(logits).mean(), True if steps is None else state.step < steps
        for companion in jax.tree.leaves(updated.get("companions", {})):
            total += jnp.where(companions_count, losses(companion).mean(), 0.0)
        return total, (logits, updated.get("batch_stats", {}))

    (loss, (logits, batch_stats)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = make_optimizer(config).update(mean_of_devices(gradients), state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = StepMetrics(
        loss=mean_of_devices(loss),
        accuracy=mean_of_devices((logits.argmax(axis=-1) == batch.labels).mean(dtype=jnp.float32)),
        norm=_norm((params, batch_stats)),
    )
    changes = {"step": state.step + 1, "params": params, "batch_stats": batch_stats, "opt_state": opt_state}
    following = dataclasses.replace(state, **changes)
    if isinstance(following, AveragedState):
        following = dataclasses.replace(following, average=_averaged(state, following, config.averaging))
    return following, metrics


def _dropout_key(step: Array, batch: Batch) -> Array:
    """A step's, a device's and a training's own: of the step, and of the examples, as the training's key drew them."""
    key = jax.random.fold_in(jax.random.key(0), step)
    return key if batch.examples is None else jax.random.fold_in(key, batch.examples.sum(dtype=jnp.int32))


def _averaged(before: TrainState, after: AveragedState, averaging: float) -> PyTree:
    """The average after a step. Early ones forget more, so that little is left of the untrained network."""
    kept = jnp.minimum(averaging, (1 + before.step) / (10 + before.step))
    return optax.incremental_update(after.trained, after.average, 1 - kept)


def _norm(tree: PyTree) -> Array:
    # Of one long vector: a sum for each of some hundred arrays would be a kernel each, to compile and to launch.
    return jnp.linalg.norm(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]))


def train_steps(
    state: TrainState, batches: Batch, *, network: nn.Module, config: TrainConfig, axis_name: str | None = None
) -> tuple[TrainState, StepMetrics]:
    """S steps of `train_step` in one program, on batches with a leading axis [S], as the metrics then have."""
    step = functools.partial(train_step, network=network, config=config, axis_name=axis_name)
    return lax.scan(step, state, batches)
