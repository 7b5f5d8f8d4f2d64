"""What `ours` is measured against, by the same names, written as a PyTorch user would; needs PyTorch.

Dimension letters: B images, C x H x W their maps (in memory H, W, C: channels last), K classes.
"""

import functools
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from eigen_jax.architecture import IMAGE, Architecture, Layer, layer_shapes
from eigen_jax.errors import first_line
from eigen_jax.training import Batch, ComputeDtype
from experiments.benchmark import ours
from experiments.benchmark.measuring import NotMeasured, Work
from experiments.benchmark.ours import NUM_CLASSES
from experiments.machine import cores, has_gpu


def set_up() -> None:
    """Sets PyTorch up for this machine; raises `NotMeasured` where it cannot use the GPU that JAX uses."""
    if has_gpu() and not torch.cuda.is_available():
        raise NotMeasured("this PyTorch sees no GPU; install the build of it for CUDA")
    torch.set_num_threads(cores())
    torch.backends.cudnn.benchmark = True


def training_steps(architecture: Architecture, dtype: ComputeDtype, steps: int, *, compiles: bool = False) -> Work:
    """The same training as ours, channels last, in float32 or, by autocast, in bfloat16: so many steps in a call."""
    start, batch = ours.untrained(architecture)
    network: Any = TorchNetwork(architecture, num_classes=NUM_CLASSES)
    copy_variables(network, start.variables)
    network = network.to(device=_device(), memory_format=torch.channels_last).train()
    images, labels = (tensor.to(_device()) for tensor in as_tensors(batch))
    rates = {"momentum": ours.CONFIG.momentum, "weight_decay": ours.CONFIG.weight_decay}
    optimizer = torch.optim.SGD(network.parameters(), lr=ours.CONFIG.learning_rate, **rates)
    if compiles:
        from torch._inductor import config as inductor

        # Kernels that an earlier run left on disk would hide what compilation costs.
        inductor.force_disable_caches = True
        warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")
        network = torch.compile(network)

    def work() -> float:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(_device(), dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
        return loss.item()

    def told() -> float:
        try:
            return work()
        except Exception as error:  # torch.compile raises many kinds: no C++ compiler, an operation it cannot lower
            raise NotMeasured(f"torch.compile failed: {first_line(error)}") from None

    return told if compiles else work


def product(size: int, dtype: ComputeDtype) -> Work:
    factor = torch.randn(size, size, device=_device()).to(getattr(torch, dtype))
    return _waited(lambda: torch.matmul(factor, factor))


def convolution(alone: Architecture, part: str, batch: int, dtype: ComputeDtype) -> Work:
    module: Any = nn.Sequential(*_same_conv(alone.layers[0], alone.input_shape))
    module = module.to(_device(), getattr(torch, dtype), memory_format=torch.channels_last)
    x = _noise((batch, *alone.input_shape), dtype)
    if part == "forward":
        return _waited(torch.no_grad()(lambda: module(x)))
    x.requires_grad_(part == "input gradient")
    module.requires_grad_(part == "kernel gradient")
    y, inputs = module(x), [x] if part == "input gradient" else list(module.parameters())
    gradient = torch.ones_like(y)
    return _waited(lambda: torch.autograd.grad(y, inputs, gradient, retain_graph=True))


def norm(shape: tuple[int, ...], dtype: ComputeDtype) -> Work:
    return _forward_and_backward(nn.Sequential(nn.BatchNorm2d(shape[-1]), nn.ReLU()).to(_device()), shape, dtype)


def pool(shape: tuple[int, ...], dtype: ComputeDtype) -> Work:
    return _forward_and_backward(nn.MaxPool2d(2, ceil_mode=True), shape, dtype)


def _forward_and_backward(module: Any, shape: tuple[int, ...], dtype: ComputeDtype) -> Work:
    x = _noise(shape, dtype).requires_grad_()
    gradient = torch.randn_like(module(x).detach())
    return _waited(lambda: torch.autograd.grad(module(x), [x, *module.parameters()], gradient))


def _device() -> str:
    return "cuda" if has_gpu() else "cpu"


def _noise(shape: tuple[int, ...], dtype: ComputeDtype) -> Any:
    """Maps of a shape [B, H, W, C] as PyTorch has them, whose order it shows as [B, C, H, W]."""
    return torch.randn(shape, device=_device(), dtype=getattr(torch, dtype)).permute(0, 3, 1, 2)


def _waited(work: Work) -> Work:
    def waited() -> None:
        work()
        if has_gpu():
            torch.cuda.synchronize()

    return waited


class TorchNetwork(nn.Module):
    """The same network as ours, but for running statistics, since PyTorch averages the unbiased variance."""

    def __init__(self, architecture: Architecture, *, num_classes: int) -> None:
        super().__init__()
        self.inputs = [layer.inputs for layer in architecture.layers]
        shapes = {IMAGE: architecture.input_shape, **dict(enumerate(layer_shapes(architecture)))}
        self.layers = nn.ModuleList(_layer(layer, shapes[layer.inputs[0]]) for layer in architecture.layers)
        self.classifier = nn.Linear(shapes[len(self.layers) - 1][2], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K]."""
        maps = {IMAGE: images}
        for position, (layer, inputs) in enumerate(zip(self.layers, self.inputs, strict=True)):
            maps[position] = layer(*(maps[source] for source in inputs))
        return self.classifier(maps[len(self.layers) - 1].mean(dim=(2, 3)))


class Concat(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat((first, second), dim=1)


def _layer(layer: Layer, input_shape: tuple[int, int, int]) -> nn.Module:
    if layer.op == "conv":
        return nn.Sequential(*_same_conv(layer, input_shape), nn.BatchNorm2d(layer.channels), nn.ReLU())
    return nn.MaxPool2d(2, ceil_mode=True) if layer.op == "pool" else Concat()


def _same_conv(layer: Layer, input_shape: tuple[int, int, int]) -> list[nn.Module]:
    """Convolution without bias; an odd pixel of padding goes to the right and to the bottom, as in XLA."""

    height, width, read = input_shape
    # What is padded in all: each of the ceil(pixels / stride) outputs reads a window.
    down, across = (
        max((-(-pixels // layer.stride) - 1) * layer.stride + layer.kernel - pixels, 0) for pixels in (height, width)
    )
    conv = functools.partial(nn.Conv2d, read, layer.channels, layer.kernel, layer.stride, bias=False)
    if down % 2 == across % 2 == 0:
        return [conv(padding=(down // 2, across // 2))]
    return [nn.ZeroPad2d((across // 2, across - across // 2, down // 2, down - down // 2)), conv()]


@torch.no_grad()
def copy_variables(network: TorchNetwork, variables: Any) -> None:
    """Gives a network the weights and running statistics of ours, "params" and "batch_stats" of Flax."""
    params, statistics = variables["params"], variables.get("batch_stats", {})
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    for position, layer in enumerate(network.layers):
        if isinstance(layer, nn.Sequential):
            ours = params[f"layer_{position}"]
            norm = ours["norm"] | statistics[f"layer_{position}"]["norm"]
            # Ours is [K, K, C, D], PyTorch's [D, C, K, K].
            layer[-3].weight.copy_(_tensor(ours["conv"]["kernel"]).permute(3, 2, 0, 1))
            for theirs, name in names.items():
                getattr(layer[-2], theirs).copy_(_tensor(norm[name]))
    network.classifier.weight.copy_(_tensor(params["classifier"]["kernel"]).T)
    network.classifier.bias.copy_(_tensor(params["classifier"]["bias"]))


def as_tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    """The images, [B, H, W, C], as [B, C, H, W], channels last in memory, and the labels, [B]."""
    return _tensor(batch.images).permute(0, 3, 1, 2), _tensor(batch.labels).long()


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))
