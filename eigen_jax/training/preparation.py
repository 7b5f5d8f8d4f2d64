"""Compilation ahead of training, beside whatever goes on meanwhile."""

import jax
from flax import linen as nn
from jax import Array

from eigen_jax import platforms
from eigen_jax.data import Dataset
from eigen_jax.training.config import TrainConfig
from eigen_jax.training.devices import check_devices
from eigen_jax.training.evaluation import compile_evaluation
from eigen_jax.training.loop import compile_training, draw_batches, steps_of_calls
from eigen_jax.training.programs import Programs
from eigen_jax.training.step import Batch, Teacher, TrainState, compile_initializer


def batch_shapes(key: Array, dataset: Dataset, *, config: TrainConfig, teacher: Teacher | None = None) -> Batch:
    """The shapes and dtypes of a training step's batch: draws the first one, and asks the teacher about it.

    Args: as of `train_to`; any key will do.

    Raises:
        ConfigError: a batch is larger than the training set, or there are fewer devices than
            `config.devices`.
    """
    check_devices(config.devices)
    return jax.tree.map(_shape, next(draw_batches(key, dataset, 0, config=config, teacher=teacher)))


def prepare_training(
    key: Array,
    state: TrainState | None,
    dataset: Dataset,
    until: int,
    batch: Batch,
    *,
    network: nn.Module,
    config: TrainConfig,
    programs: Programs,
) -> None:
    """Compiles in the background what training to `until` and an evaluation there will ask for.

    Changes nothing but when it is compiled.

    Args:
        key: that of `init_state`; not used unless `state` is None.
        state: to train on from; None for an untrained network.
        dataset: its validation part will be evaluated.
        until: the landmark, in steps since the start of training.
        batch: the shapes of one, as of `batch_shapes`.
        network: the module.
        config: the settings.
        programs: where they will be asked for.
    """
    start = 0 if state is None else int(state.step)
    calls = set(steps_of_calls(start, until, steps_per_call=platforms.current().steps_per_call))
    shapes = None if state is None else jax.tree.map(_shape, state)
    images = dataset.validation_images

    def compile_all() -> None:
        """In the order of use."""
        known = shapes
        if known is None:
            height, width, channels = images.shape[1:]
            shape = (height, width, channels)
            initializer = compile_initializer(key, network=network, config=config, input_shape=shape, programs=programs)
            assert isinstance(initializer, jax.stages.Compiled), "in the background, all is compiled ahead"
            known = initializer.out_info
        compile_training(known, batch, calls, network=network, config=config, programs=programs)
        compile_evaluation(
            known.variables, images, network=network, batch_size=config.eval_batch_size, programs=programs
        )

    programs.in_background(compile_all)


def _shape(leaf: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
