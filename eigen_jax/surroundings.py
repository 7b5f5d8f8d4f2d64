"""What numbers depend on besides settings and data: versions, the device, the switches of JAX and of XLA."""

import importlib.metadata
import logging
import os
import platform
from collections.abc import Mapping

import jax

from eigen_jax.version import __version__

_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

# With another one of the first four all is drawn or computed otherwise, with another one of the rest it is rounded
# otherwise. A JAX that knows one of them no more does without.
_OPTIONS = (
    *("jax_default_prng_impl", "jax_threefry_partitionable", "jax_random_seed_offset", "jax_enable_x64"),
    *("jax_default_matmul_precision", "jax_allow_f16_reductions", "jax_softmax_custom_jvp"),
    *("jax_use_direct_linearize", "jax_disable_jit", "jax_disable_most_optimizations", "jax_optimization_level"),
    *("jax_exec_time_optimization_effort", "jax_memory_fitting_effort", "jax_memory_fitting_level"),
)
_TF32 = "NVIDIA_TF32_OVERRIDE"
_XLA_FLAGS = "XLA_FLAGS"

_logger = logging.getLogger(__name__)


def describe() -> dict[str, dict[str, str]]:
    """What a record is to say of this process: its "versions", and its "switches" by their variables."""
    versions = {"eigen_jax": __version__, "python": platform.python_version(), "platform": platform.platform()}
    versions |= {name: importlib.metadata.version(name) for name in _VERSIONED}
    versions["device"] = jax.devices()[0].device_kind
    simulated = "--xla_force_host_platform_device_count"  # which no number depends on
    flags = (flag for flag in os.environ.get(_XLA_FLAGS, "").split() if not flag.startswith(simulated))
    options = {name.upper(): "" if value is None else str(value) for name, value in _options(*_OPTIONS).items()}
    switches = {**options, _XLA_FLAGS: " ".join(flags), _TF32: os.environ.get(_TF32, "")}
    return {"versions": versions, "switches": switches}


def warn_of_others(then: Mapping[str, Mapping[str, str]], *, what: str) -> None:
    """Says that what goes on, `what`, may not become what it would have been where it was started.

    `then` is as `describe` gave it there; what it does not name, because it is older, is not compared.
    """
    changes = [
        f"{name} ({then[part][name] or 'unset'} then, {value or 'unset'} now)"
        for part, now in describe().items()
        for name, value in now.items()
        if then.get(part, {}).get(name, value) != value
    ]
    if changes:
        message = "the %s was started with another %s; what follows may differ from what it would be"
        _logger.warning(message, what, ", ".join(changes))


def environment() -> dict[str, str]:
    """The variables that let a process that is started with them compute as this one does."""
    options = _options(*_OPTIONS, "jax_debug_nans", "jax_debug_infs")
    return {name.upper(): str(value) for name, value in options.items() if value is not None}


def _options(*names: str) -> dict[str, object]:
    everywhere = jax.config.values
    # Only an attribute knows of a `with`, and not every option is one.
    return {name: getattr(jax.config, name, everywhere[name]) for name in names if name in everywhere}
