"""Training steps in PyTorch, for timing; needs PyTorch only when a step is made."""

import functools
import importlib.util
import types
import warnings
from typing import Any

from eigen_jax.architecture import Architecture
from eigen_jax.training import Batch, ComputeDtype, TrainConfig, TrainState
from experiments.benchmarks.architectures import NUM_CLASSES
from experiments.benchmarks.machine import available_cores, has_gpu
from experiments.benchmarks.measuring import NotMeasured, Work, one_line


def require_torch() -> types.ModuleType:
    """PyTorch, set up for this machine.

    Raises:
        NotMeasured: it is not installed, or cannot use the GPU that JAX uses.
    """
    if importlib.util.find_spec("torch") is None:
        raise NotMeasured("PyTorch is not installed; pip install -e '.[torch]'")
    import torch

    if has_gpu() and not torch.cuda.is_available():
        raise NotMeasured("this PyTorch sees no GPU; install the build of it for CUDA")
    torch.set_num_threads(available_cores())
    torch.backends.cudnn.benchmark = True
    return torch


def torch_device() -> str:
    """The device that JAX uses, too."""
    return "cuda" if has_gpu() else "cpu"


def synchronize() -> None:
    """Waits for the device."""
    if has_gpu():
        import torch

        torch.cuda.synchronize()


def make_step(
    architecture: Architecture,
    start: TrainState,
    batch: Batch,
    *,
    config: TrainConfig,
    dtype: ComputeDtype,
    compiles: bool,
    steps: int,
) -> Work:
    """The training steps of `eigen_jax.training.train_step`, channels last.

    Args:
        architecture: the network.
        start: the weights.
        batch: the images and labels of every step.
        config: the optimizer.
        dtype: float32, or bfloat16 by autocast.
        compiles: through `torch.compile`.
        steps: of one call, whose last loss is then fetched.

    Raises:
        NotMeasured: there is no PyTorch; or, when first called, `torch.compile` fails.
    """
    torch = require_torch()
    from experiments.benchmarks.torch_network import TorchNetwork, as_images, copy_variables

    device = torch_device()
    network: Any = TorchNetwork(architecture, num_classes=NUM_CLASSES)
    copy_variables(network, start.variables)
    network = network.to(device=device, memory_format=torch.channels_last).train()
    images = as_images(batch.images).to(device)
    labels = as_labels(batch.labels, device=device)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    if compiles:
        from torch._inductor import config as inductor

        # Kernels that an earlier run left on disk would hide what compilation costs.
        inductor.force_disable_caches = True
        warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")
        network = torch.compile(network)

    def work() -> float:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = torch.nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
        return loss.item()

    return functools.partial(_told, work) if compiles else work


def as_labels(labels: Any, *, device: str) -> Any:
    """[B] labels of JAX as PyTorch's."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(labels)).long().to(device)


def _told(work: Work) -> float:
    try:
        return work()
    except Exception as error:  # torch.compile raises many kinds: no C++ compiler, an operation it cannot lower
        raise NotMeasured(f"torch.compile failed: {one_line(error)}") from None
