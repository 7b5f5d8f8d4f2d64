"""One network trained on one device of this process or on several, data parallel.

The semantics are those of `jax.pmap`: every device runs the same program on its part of the batch, the state is
replicated, and gradients, metrics and batch statistics are averaged over a named axis. But `jit` and `shard_map` are
used, so that programs are compiled ahead and held like all others. Nothing but rounding depends on the number of
devices: batches are drawn on one device, and only then divided.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eigen_jax import platforms
from eigen_jax.errors import ConfigError
from eigen_jax.training.config import TrainConfig
from eigen_jax.training.programs import Programs, compiled, shapes_of
from eigen_jax.training.step import Batch, PyTree, StepMetrics, TrainState, train_step, train_steps

AXIS = "devices"  # that a batch is divided along

_REPLICATED = PartitionSpec()


def check_devices(devices: int) -> None:
    """Raises `ConfigError` where this process has fewer devices."""
    present = jax.local_device_count()
    if devices > present:
        rule = "{devices} is {}; this process has only {}: ask for at most {}"
        raise ConfigError(TrainConfig, rule, devices, present, present)


def spread_state(state: TrainState, *, devices: int) -> TrainState:
    """A copy of the state on each device, for programs that overwrite it; the one that came in stays usable."""
    # `jnp.copy` would compile a program for every new shape, and JAX would keep them all.
    state = jax.device_put(state, may_alias=False)
    # Replication shares memory with what it copies, whatever `may_alias` says; so it is given a copy.
    return state if devices == 1 else jax.device_put(state, NamedSharding(_mesh(devices), _REPLICATED))


def spread_batches(batches: Batch, steps: int, *, devices: int) -> Batch:
    """What one call takes, divided among the devices: a batch, or `steps` of them along a leading axis."""
    return batches if devices == 1 else jax.device_put(batches, NamedSharding(_mesh(devices), _divided(steps)))


def compile_call(
    state: TrainState, batch: Batch, steps: int, *, network: nn.Module, config: TrainConfig, programs: Programs | None
) -> Callable:
    """The program of a call of so many steps on `config.devices`; it overwrites its state.

    State and batch, of one step, may be shapes; for several devices, they may be on any. Raises ConfigError where
    there are fewer devices, or the module cannot average batch statistics over them.
    """
    batches = batch if steps == 1 else shapes_of(batch, steps)
    platform = platforms.current()
    options = platform.compiler_options
    if config.devices > 1:
        options = {**options, **platform.sharing_options}
        mesh = _mesh(config.devices)
        state = shapes_of(state, sharding=NamedSharding(mesh, _REPLICATED))
        batches = shapes_of(batches, sharding=NamedSharding(mesh, _divided(steps)))
        network = _with_axis(network, state.batch_stats)
    how: dict[str, Any] = {"programs": programs, "options": options, "donate": (0,)}
    return compiled(_train, (state, batches), steps=steps, network=network, config=config, **how)


def _train(
    state: TrainState, batches: Batch, *, steps: int, network: nn.Module, config: TrainConfig
) -> tuple[TrainState, StepMetrics]:
    function: Callable = train_step if steps == 1 else train_steps
    if config.devices == 1:
        return function(state, batches, network=network, config=config)
    # As in `pmap`, values carry no types that say whether devices agree on them. With such types, gradients of
    # replicated parameters would be summed over the devices unasked, and layers that state theirs had to say so.
    mapped = jax.shard_map(
        functools.partial(function, network=network, config=config, axis_name=AXIS),
        mesh=_mesh(config.devices),
        in_specs=(_REPLICATED, _divided(steps)),
        out_specs=_REPLICATED,
        check_vma=False,
    )
    return mapped(state, batches)


def _mesh(devices: int) -> Mesh:
    check_devices(devices)
    return Mesh(np.array(jax.local_devices()[:devices]), (AXIS,))


def _divided(steps: int) -> PartitionSpec:
    return PartitionSpec(AXIS) if steps == 1 else PartitionSpec(None, AXIS)


def _with_axis(network: nn.Module, batch_stats: PyTree) -> nn.Module:
    """The module, averaging its batch statistics over the devices, where it has any."""
    if "axis_name" in {field.name for field in dataclasses.fields(network)}:
        return network.clone(axis_name=AXIS)
    if jax.tree.leaves(batch_stats):
        rule = "{} has batch statistics and no field axis_name to average them over devices: train it on 1 device"
        raise ConfigError(None, rule, type(network).__name__)
    return network
