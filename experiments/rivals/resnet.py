"""A ResNet-20 (He et al. 2016, Section 4.2) in PyTorch, float32, trained as one would by hand.

    pip install -e '.[torch]'

The one-cycle rate (Smith and Topin 2018) follows the time that has passed, so that it ends with the time whatever the
pace is, and the number of epochs follows from both.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Part = tuple[np.ndarray, np.ndarray]  # images [N, H, W, C] float32 and labels [N] int32

_BATCH, _PAD = 128, 4
_PEAK_RATE, _RISE = 0.2, 0.3  # the highest rate, and the part of the time that leads to it


def run(train: Part, validation: Part, test: Part, *, seconds: float, seed: int) -> dict[str, Any]:
    """Trains and tests; the validation images have no use."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    network = resnet20(int(test[1].max()) + 1)
    steps = train_network(network, Batches(train, seed), began, seconds)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "test_accuracy": accuracy(network, test),
        "parameters": sum(each.numel() for each in network.parameters()),
        "epochs": round(steps * _BATCH / len(train[1]), 2),
        "version": torch.__version__,
    }


class Block(nn.Module):
    def __init__(self, read: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, channels - read
        self.first = nn.Conv2d(read, channels, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[1](self.second(functional.relu(self.norms[0](self.first(x)))))
        # Option A of the paper: a shortcut without parameters.
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(shortcut, (0, 0, 0, 0, 0, self.added)))


def resnet20(classes: int) -> nn.Module:
    """Images [B, 3, H, W], channels last in memory, to logits [B, K]."""
    shapes = [(16, 16, 1)] * 3 + [(16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(*stem, *(Block(*shape) for shape in shapes), *head).to(memory_format=torch.channels_last)


class Batches:
    """Endless batches of shuffled, cropped and mirrored images, [B, C, H, W], and their labels, [B]."""

    def __init__(self, part: Part, seed: int) -> None:
        self.size, self.generator = part[0].shape[1], torch.Generator().manual_seed(seed)
        around = (0, 0, _PAD, _PAD, _PAD, _PAD)
        self.images, self.labels = functional.pad(torch.from_numpy(part[0]), around), torch.from_numpy(part[1]).long()
        self.order = torch.empty(0, dtype=torch.long)

    def next(self) -> tuple[Tensor, Tensor]:
        if len(self.order) < _BATCH:
            self.order = torch.cat((self.order, torch.randperm(len(self.labels), generator=self.generator)))
        chosen, self.order = self.order[:_BATCH], self.order[_BATCH:]
        down, across = torch.randint(2 * _PAD + 1, (2, len(chosen), 1), generator=self.generator)
        rows, columns = down + torch.arange(self.size), across + torch.arange(self.size)
        images = self.images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        mirrored = torch.rand(len(chosen), 1, 1, 1, generator=self.generator) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
        return images.contiguous(memory_format=torch.channels_last), self.labels[chosen]


def train_network(network: nn.Module, batches: Batches, began: float, seconds: float) -> int:
    """Takes steps of Nesterov SGD until the time since `began` is over, and gives how many."""
    optimizer = torch.optim.SGD(network.parameters(), lr=_PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    network.train()
    steps = 0
    while (passed := (time.perf_counter() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = _PEAK_RATE * min(passed / _RISE, (1 - passed) / (1 - _RISE))
        images, labels = batches.next()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        steps += 1
    return steps


@torch.no_grad()
def accuracy(network: nn.Module, part: Part) -> float:
    network.eval()
    images, labels = torch.from_numpy(part[0]).permute(0, 3, 1, 2), torch.from_numpy(part[1])
    predicted = torch.cat([network(batch).argmax(1) for batch in images.split(500)])
    return (predicted == labels).float().mean().item()
