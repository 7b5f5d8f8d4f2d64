"""What the rivals share: our images, split and standardised as ours are, a time limit, and one line of JSON."""

import json
import resource
import sys
from argparse import Namespace
from collections.abc import Sequence

import numpy as np

from eigen_jax.data import DataConfig
from eigen_jax.data.loading import read_raw
from eigen_jax.data.preprocessing import standardize, stratified_split
from experiments.command_line import Parser, absolute_path, positive
from experiments.commands import show
from experiments.machine import describe_machine

Part = tuple[np.ndarray, np.ndarray]  # images [N, H, W, C] float32 and labels [N] int32

_KIB = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of `ru_maxrss`


def read_arguments(program: str, about: str, argv: Sequence[str] | None) -> Namespace:
    parser = Parser(prog=f"python -m {program}", description=about)
    parser.add_argument("--dataset", choices=("cifar10", "cifar100", "digits"), default="cifar10", help="[cifar10]")
    parser.add_argument("--data-dir", type=absolute_path, help="folder in the official layout [downloads]")
    parser.add_argument("--seconds", type=positive, default=1_800, help="wall time to search and train in [1800]")
    parser.add_argument("--images", type=positive, help="only the first so many training images [all]")
    parser.add_argument("--validation-size", type=positive, default=5_000, help="images held out, as ours are [5000]")
    parser.add_argument("--seed", type=positive, default=1, help="[1]")
    return parser.parse_args(argv)


def load_parts(arguments: Namespace) -> tuple[Part, Part, Part]:
    """The training, validation and test images, as `--preprocessing standardize` gives them; raises EigenError."""
    raw = read_raw(DataConfig(name=arguments.dataset, data_dir=arguments.data_dir))
    labels, classes = raw.train_labels, len(raw.class_names)
    kept, held_out = stratified_split(labels, arguments.validation_size, num_classes=classes, seed=0)
    kept = kept[: arguments.images]
    images = standardize(raw.train_images[kept], raw.train_images[held_out], raw.test_images)
    train, validation, test = zip(images, (labels[kept], labels[held_out], raw.test_labels), strict=True)
    return train, validation, test


def tell(**measured: object) -> None:
    """Prints what was measured, the peak resident memory of this process with it, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / 2**20
    show(json.dumps({**measured, "peak_mib": round(peak), **describe_machine()}))
