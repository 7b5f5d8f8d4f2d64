"""Trains a ResNet-20 (He et al. 2016, Section 4.2) in PyTorch for a given time, float32, with a one-cycle rate.

    pip install -e '.[torch]'
    python -m experiments.rivals.resnet --data-dir PATH --seconds 1800

It is the network that somebody designed, trained as one would by hand: as many steps as fit, by the pace that is
measured first. Prints test accuracy, parameters, memory and seconds as JSON; loading and the test take no part of the
time.
"""

import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.commands import command
from experiments.rivals.common import Part, load_parts, read_arguments, tell

_BATCH, _PAD, _PEAK_RATE = 128, 4, 0.2
_PACE_STEPS = 20  # that are timed
_SPARE = 0.03  # of the time, for what else the machine does


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


def resnet20(colours: int, classes: int) -> nn.Module:
    shapes = [(16, 16, 1)] * 3 + [(16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    stem = [nn.Conv2d(colours, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(*stem, *(Block(*shape) for shape in shapes), *head).to(memory_format=torch.channels_last)


class Batches:
    """Endless batches of shuffled, cropped and mirrored images, [B, C, H, W], channels last."""

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
        return torch.where(mirrored, images.flip(3), images).contiguous(memory_format=torch.channels_last), self.labels[
            chosen
        ]


def train(network: nn.Module, batches: Batches, steps: int) -> None:
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
    right = [
        (network(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500), strict=True)
    ]
    return sum(right) / len(labels)


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Measures the pace, trains and tests."""
    arguments = read_arguments("experiments.rivals.resnet", (__doc__ or "").partition("\n")[0], argv)
    data, _, test = load_parts(arguments)
    colours, classes = data[0].shape[3], int(test[1].max()) + 1
    began = time.perf_counter()
    torch.manual_seed(arguments.seed)
    train(resnet20(colours, classes), Batches(data, arguments.seed), 3)  # which the first calls make slow
    timed = time.perf_counter()
    train(resnet20(colours, classes), Batches(data, arguments.seed), _PACE_STEPS)
    now = time.perf_counter()
    pace, left = (now - timed) / _PACE_STEPS, arguments.seconds - (now - began)
    steps = max(2, int((1 - _SPARE) * left / pace))
    network = resnet20(colours, classes)
    train(network, Batches(data, arguments.seed), steps)
    seconds = time.perf_counter() - began
    tell(
        rival="ResNet-20, PyTorch",
        test_accuracy=accuracy(network, test),
        parameters=sum(each.numel() for each in network.parameters()),
        seconds=round(seconds, 1),
        epochs=round(steps * _BATCH / len(data[1]), 2),
        images=len(data[1]),
        version=torch.__version__,
    )


if __name__ == "__main__":
    sys.exit(main())
