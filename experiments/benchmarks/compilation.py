"""How long the training step of a network takes to compile."""

from eigen_jax.architecture import Architecture
from eigen_jax.training import ComputeDtype
from experiments.benchmarks.architectures import describe
from experiments.benchmarks.measuring import Row
from experiments.benchmarks.our_steps import compile_steps

GROUP = "compilation of a training step"


def measure_compilation(name: str, architecture: Architecture, *, dtype: ComputeDtype = "float32") -> Row:
    """Tracing and compiling, once: where the process has compiled this step before, what it took then.

    Args:
        name: of the network.
        architecture: the network.
        dtype: of the maps.
    """
    seconds = compile_steps(architecture, dtype, None).seconds
    values = {"seconds": seconds, "seconds_per_layer": seconds / len(architecture.layers)}
    return Row(group=GROUP, what=describe(name, architecture), method=f"ours {dtype}", values=values)
