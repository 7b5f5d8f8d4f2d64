"""Networks of the search space in PyTorch, which ours are measured against; needs PyTorch.

Dimension letters: B images, C x H x W their maps (in memory H, W, C: channels last), K classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from eigen_jax.architecture import IMAGE, Architecture, layer_shapes

PyTree = Any


class TorchNetwork(nn.Module):
    """The same network as `eigen_jax.builder.build_network` makes, written as a PyTorch user would.

    Logits and gradients are equal to ours; running statistics are not quite, because PyTorch
    averages the unbiased variance.
    """

    def __init__(self, architecture: Architecture, *, num_classes: int) -> None:
        super().__init__()
        self.inputs = [layer.inputs for layer in architecture.layers]
        shapes = {IMAGE: architecture.input_shape, **dict(enumerate(layer_shapes(architecture)))}
        self.layers = nn.ModuleList()
        for layer in architecture.layers:
            if layer.op == "conv":
                read = shapes[layer.inputs[0]]
                self.layers.append(TorchConvLayer(read, layer.channels, layer.kernel, layer.stride))
            elif layer.op == "pool":
                self.layers.append(nn.MaxPool2d(2, ceil_mode=True))
            else:
                self.layers.append(Concat())
        self.classifier = nn.Linear(shapes[len(self.layers) - 1][2], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to logits [B, K]."""
        maps = {IMAGE: images}
        for position, (layer, inputs) in enumerate(zip(self.layers, self.inputs, strict=True)):
            maps[position] = layer(*(maps[source] for source in inputs))
        return self.classifier(maps[len(self.layers) - 1].mean(dim=(2, 3)))


class TorchConvLayer(nn.Module):
    """Convolution without bias and with SAME padding, batch normalisation, ReLU."""

    def __init__(self, input_shape: tuple[int, int, int], channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        height, width, read = input_shape
        self.conv = SameConv((height, width), read, channels, kernel, stride)
        self.norm = nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, channels, ceil(H / stride), ceil(W / stride)]."""
        return functional.relu(self.norm(self.conv(x)))


class SameConv(nn.Module):
    """Convolution without bias; an odd pixel of padding goes to the right and to the bottom, as in XLA."""

    def __init__(self, size: tuple[int, int], read: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        (top, bottom), (left, right) = (_padding(pixels, kernel, stride) for pixels in size)
        even = (top, left) == (bottom, right)
        self.uneven = None if even else (left, right, top, bottom)
        self.conv = nn.Conv2d(read, channels, kernel, stride, padding=(top, left) if even else 0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, channels, ceil(H / stride), ceil(W / stride)]."""
        return self.conv(x if self.uneven is None else functional.pad(x, self.uneven))


class Concat(nn.Module):
    """Joins the channels of two maps."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two of [B, C, H, W]."""
        return torch.cat((first, second), dim=1)


@torch.no_grad()
def copy_variables(network: TorchNetwork, variables: PyTree) -> None:
    """Gives a network the weights and running statistics of ours, "params" and "batch_stats" of Flax."""
    params, statistics = variables["params"], variables.get("batch_stats", {})
    for position, layer in enumerate(network.layers):
        if isinstance(layer, TorchConvLayer):
            name = f"layer_{position}"
            # Ours is [K, K, C, D], PyTorch's [D, C, K, K].
            layer.conv.conv.weight.copy_(_tensor(params[name]["conv"]["kernel"]).permute(3, 2, 0, 1))
            layer.norm.weight.copy_(_tensor(params[name]["norm"]["scale"]))
            layer.norm.bias.copy_(_tensor(params[name]["norm"]["bias"]))
            running = {"mean": layer.norm.running_mean, "var": layer.norm.running_var}
            for statistic, values in running.items():
                assert values is not None, "the layer was made with running statistics"
                values.copy_(_tensor(statistics[name]["norm"][statistic]))
    network.classifier.weight.copy_(_tensor(params["classifier"]["kernel"]).T)
    network.classifier.bias.copy_(_tensor(params["classifier"]["bias"]))


def as_images(images: Any) -> Tensor:
    """[B, H, W, C] of JAX or NumPy to [B, C, H, W], channels last in memory."""
    return _tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


def _padding(pixels: int, kernel: int, stride: int) -> tuple[int, int]:
    """SAME padding of one dimension: before, after."""
    total = max((-(-pixels // stride) - 1) * stride + kernel - pixels, 0)
    return total // 2, total - total // 2
