"""The hand-designed networks in PyTorch, written from their descriptions, and weights that are carried over to them.

Dropout is left out. `names` tell which variables of Flax each layer has; maps are [B, C, H, W].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Named(nn.Module):
    """A network whose layers have the names of Flax's variables."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, nn.Module] = {}

    def add(self, name: str, layer: nn.Module) -> nn.Module:
        self.add_module(name, layer)
        self.names[name] = layer
        return layer

    def __getitem__(self, name: str) -> nn.Module:
        return self.names[name]


class Maxout(Named):
    """Three convolutions, of which two pieces compete, and a dense layer, of which five do."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.add("h0", nn.Conv2d(3, 2 * 96, 8, padding=4))
        self.add("h1", nn.Conv2d(96, 2 * 192, 8, padding=3))
        self.add("h2", nn.Conv2d(192, 2 * 192, 5, padding=3))
        self.add("h3", nn.Linear(4_800, 5 * 500))
        self.add("classifier", nn.Linear(500, classes))

    def forward(self, x: Tensor) -> Tensor:
        for name, pool in (("h0", 4), ("h1", 4), ("h2", 2)):
            x = self[name](x).unflatten(1, (-1, 2)).amax(2)
            x = functional.max_pool2d(x, pool, 2, ceil_mode=True)
        assert x.shape[1:] == (192, 5, 5)
        x = self["h3"](x.flatten(1)).unflatten(1, (-1, 5)).amax(2)
        return self["classifier"](x)


class NetworkInNetwork(Named):
    """Blocks of a convolution and two of 1 x 1. With `heads`, the logits of a Deeply-Supervised Net and theirs."""

    def __init__(self, classes: int, *, heads: bool = False) -> None:
        super().__init__()
        self.heads = heads
        blocks = ((3, 5, (160, 96)), (96, 5, (192, 192)), (192, 3, (192, classes)))
        for number, (read, kernel, (first, second)) in enumerate(blocks, 1):
            self.add(f"conv_{number}", nn.Conv2d(read, 192, kernel, padding=kernel // 2))
            self.add(f"mlp_{number}_1", nn.Conv2d(192, first, 1))
            self.add(f"mlp_{number}_2" if number < 3 else "classifier", nn.Conv2d(first, second, 1))
        for number, size in enumerate((196_608, 49_152, 12_288) if heads else (), 1):
            self.add(f"companion_{number}", nn.Linear(size, classes))

    def forward(self, x: Tensor) -> Any:
        companions = []
        for number in (1, 2, 3):
            x = self[f"conv_{number}"](x)
            if self.heads:
                companions.append(self[f"companion_{number}"](x.flatten(1)))
            x = functional.relu(self[f"mlp_{number}_1"](functional.relu(x)))
            x = self[f"mlp_{number}_2" if number < 3 else "classifier"](x)
            if number < 3:
                x = functional.max_pool2d(functional.relu(x), 3, 2, ceil_mode=True)
        assert x.shape[2:] == (8, 8)
        return (x.mean((2, 3)), *companions) if self.heads else functional.relu(x).mean((2, 3))


class AllCNN(Named):
    def __init__(self, classes: int) -> None:
        super().__init__()
        shapes = [(3, 96, 3, 1, 1), (96, 96, 3, 1, 1), (96, 96, 3, 2, 1)]
        shapes += [(96, 192, 3, 1, 1), (192, 192, 3, 1, 1), (192, 192, 3, 2, 1), (192, 192, 3, 1, 0)]
        shapes += [(192, 192, 1, 1, 0), (192, classes, 1, 1, 0)]
        for number, shape in enumerate(shapes, 1):
            self.add(f"conv_{number}" if number < 9 else "classifier", nn.Conv2d(*shape))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.names.values():
            x = functional.relu(layer(x))
        assert x.shape[2:] == (6, 6)
        return x.mean((2, 3))


class Highway(Named):
    def __init__(self, classes: int) -> None:
        super().__init__()
        read = 3
        for stage, (width, depth) in enumerate(((32, 4), (80, 5), (128, 5)), 1):
            self.add(f"conv_{stage}", nn.Conv2d(read, width, 3, padding=1))
            for number in range(1, depth + 1):
                for part in ("plain", "gate"):
                    self.add(f"highway_{stage}_{number}_{part}", nn.Conv2d(width, width, 3, padding=1))
            read = width
        self.add("conv_4", nn.Conv2d(128, 100, 1))
        self.add("classifier", nn.Linear(100, classes))

    def forward(self, x: Tensor) -> Tensor:
        for stage, depth in ((1, 4), (2, 5), (3, 5)):
            x = functional.relu(self[f"conv_{stage}"](x))
            for number in range(1, depth + 1):
                plain = functional.relu(self[f"highway_{stage}_{number}_plain"](x))
                gate = torch.sigmoid(self[f"highway_{stage}_{number}_gate"](x))
                x = plain * gate + x * (1 - gate)
            if stage < 3:
                x = functional.max_pool2d(x, 2, 2)
        x = functional.relu(self["conv_4"](x))
        assert x.shape[2:] == (8, 8)
        return self["classifier"](x.mean((2, 3)))


class ResNet(Named):
    def __init__(self, classes: int, *, blocks: int) -> None:
        super().__init__()
        self.blocks = [(stage, block) for stage in (1, 2, 3) for block in range(1, blocks + 1)]
        self.add("stem", nn.Conv2d(3, 16, 3, padding=1, bias=False))
        self.add("stem_norm", nn.BatchNorm2d(16))
        read = 16
        for stage, block in self.blocks:
            width, name = 8 * 2**stage, f"block_{stage}_{block}"
            self.add(f"{name}_conv_1", nn.Conv2d(read, width, 3, 1 if read == width else 2, padding=1, bias=False))
            self.add(f"{name}_norm_1", nn.BatchNorm2d(width))
            self.add(f"{name}_conv_2", nn.Conv2d(width, width, 3, padding=1, bias=False))
            self.add(f"{name}_norm_2", nn.BatchNorm2d(width))
            read = width
        self.add("classifier", nn.Linear(64, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self["stem_norm"](self["stem"](x)))
        for stage, block in self.blocks:
            name = f"block_{stage}_{block}"
            y = functional.relu(self[f"{name}_norm_1"](self[f"{name}_conv_1"](x)))
            y = self[f"{name}_norm_2"](self[f"{name}_conv_2"](y))
            if y.shape != x.shape:
                x = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1)
            x = functional.relu(x + y)
        assert x.shape[1:] == (64, 8, 8)
        return self["classifier"](x.mean((2, 3)))


class DenseNet(Named):
    """DenseNet-BC, of three blocks of (depth - 4) / 6 bottlenecks."""

    def __init__(self, classes: int, *, depth: int, growth: int) -> None:
        super().__init__()
        self.layers = (depth - 4) // 6
        width = 2 * growth
        self.add("stem", nn.Conv2d(3, width, 3, padding=1, bias=False))
        for block in range(3):
            if block:
                self.add(f"transition_{block - 1}_norm", nn.BatchNorm2d(width))
                self.add(f"transition_{block - 1}_conv", nn.Conv2d(width, width // 2, 1, bias=False))
                width //= 2
            for layer in range(self.layers):
                name = f"block_{block}_{layer}"
                self.add(f"{name}_norm_1", nn.BatchNorm2d(width))
                self.add(f"{name}_conv_1", nn.Conv2d(width, 4 * growth, 1, bias=False))
                self.add(f"{name}_norm_2", nn.BatchNorm2d(4 * growth))
                self.add(f"{name}_conv_2", nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False))
                width += growth
        self.add("norm", nn.BatchNorm2d(width))
        self.add("classifier", nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self["stem"](x)
        for block in range(3):
            if block:
                x = functional.relu(self[f"transition_{block - 1}_norm"](x))
                x = functional.avg_pool2d(self[f"transition_{block - 1}_conv"](x), 2)
            for layer in range(self.layers):
                name = f"block_{block}_{layer}"
                y = self[f"{name}_conv_1"](functional.relu(self[f"{name}_norm_1"](x)))
                x = torch.cat([x, self[f"{name}_conv_2"](functional.relu(self[f"{name}_norm_2"](y)))], 1)
        x = functional.relu(self["norm"](x))
        assert x.shape[2:] == (8, 8)
        return self["classifier"](x.mean((2, 3)))


def squared_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """One class against all others, the mean over the batch of the sum over classes."""
    signs = 2 * functional.one_hot(labels, logits.shape[1]) - 1
    return functional.relu(1 - signs * logits).square().sum(1).mean()


def carry(network: Named, variables: Mapping[str, Any]) -> None:
    """Gives a network the variables of Flax, in float64."""
    network.double()
    assert network.names.keys() == variables["params"].keys()
    for name, layer in network.names.items():
        own, stats = variables["params"][name], variables["batch_stats"].get(name, {})
        target = layer.state_dict()
        given = {"weight": as_torch(own.get("kernel", own.get("scale")), target["weight"])}
        given |= {"bias": own["bias"]} if "bias" in own else {}
        given |= {"running_mean": stats["mean"], "running_var": stats["var"]} if stats else {}
        state = {key: torch.tensor(np.asarray(value, np.float64)) for key, value in given.items()}
        assert target.keys() - {"num_batches_tracked"} == state.keys(), name
        layer.load_state_dict({**target, **state})


def as_torch(kernel: Any, target: Tensor) -> np.ndarray:
    """A kernel or a scale of Flax in PyTorch's order of dimensions; what read flat maps had [H, W, C] of them."""
    kernel = np.asarray(kernel)
    if kernel.ndim == 4:
        return kernel.transpose(3, 2, 0, 1)
    if kernel.ndim == 2:
        channels = {4_800: 192, 196_608: 192, 49_152: 192, 12_288: 192}.get(len(kernel), len(kernel))
        side = round((len(kernel) / channels) ** 0.5)
        kernel = kernel.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(-1, len(kernel))
    assert kernel.shape == target.shape
    return kernel
