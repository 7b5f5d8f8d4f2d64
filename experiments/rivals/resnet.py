"""A ResNet-20 (He et al. 2016, Section 4.2) in PyTorch, float32, trained as one would by hand, with a one-cycle rate.

    pip install -e '.[torch]'

It takes as many steps as fit into the time, by the pace that is measured first.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Part = tuple[np.ndarray, np.ndarray]  # images [N, H, W, C] float32 and labels [N] int32

_BATCH, _PAD, _PEAK_RATE = 128, 4, 0.2
_WARM_STEPS, _PACE_STEPS = 3, 20  # before those that are timed, and those
_SPARE = 0.03  # of the time, for what else the machine does


def run(train: Part, validation: Part, test: Part, *, seconds: float, seed: int) -> dict[str, Any]:
    """Measures the pace, trains and tests; the validation images have no use."""
    began = time.perf_counter()
    classes = int(test[1].max()) + 1
    torch.manual_seed(seed)
    for steps in (_WARM_STEPS, _PACE_STEPS):
        timed = time.perf_counter()
        train_network(resnet20(classes), Batches(train, seed), steps)
    pace, left = (time.perf_counter() - timed) / _PACE_STEPS, seconds - (time.perf_counter() - began)
    steps, network = max(2, int((1 - _SPARE) * left / pace)), resnet20(classes)
    train_network(network, Batches(train, seed), steps)
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


def train_network(network: nn.Module, batches: Batches, steps: int) -> None:
    """Nesterov SGD with a one-cycle rate (Smith and Topin 2018) over so many steps."""
    optimizer = torch.optim.SGD(network.parameters(), lr=_PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=steps)
    network.train()
    for _ in range(steps):
        images, labels = batches.next()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(network: nn.Module, part: Part) -> float:
    network.eval()
    images, labels = torch.from_numpy(part[0]).permute(0, 3, 1, 2), torch.from_numpy(part[1])
    predicted = torch.cat([network(batch).argmax(1) for batch in images.split(500)])
    return (predicted == labels).float().mean().item()
