"""Gives a rival a time on the same images: ResNet-20 in PyTorch, or AutoKeras's ImageClassifier.

    python -m experiments.rivals resnet --data-dir PATH --seconds 1800
    python -m experiments.rivals autokeras --data-dir PATH --seconds 1800

What each needs installed stands in its file, beside this one.
The images are ours, split and standardised as `--preprocessing standardize` does. Prints test accuracy, parameters,
peak resident memory and seconds as JSON; loading and the test take no part of the time. Ours for as long is
`python -m experiments.cifar10 --preset evening --budget F`, with F chosen by the time left that it shows after its
first generations.
"""

import importlib
import importlib.util
import json
import resource
import sys
from collections.abc import Sequence

from eigen_jax.data import DataConfig
from eigen_jax.data.loading import read_raw
from eigen_jax.data.preprocessing import standardize, stratified_split
from experiments.command_line import Parser, absolute_path, positive
from experiments.commands import command, show
from experiments.machine import describe_machine
from experiments.settings import SettingsError

_PACKAGES = {"resnet": "torch", "autokeras": "autokeras"}
_KIB = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of `ru_maxrss`


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Loads the images, lets the rival search or train, and prints what came out."""
    parser = Parser(prog="python -m experiments.rivals", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rival", choices=_PACKAGES)
    parser.add_argument("--dataset", choices=("cifar10", "cifar100"), default="cifar10", help="[cifar10]")
    parser.add_argument("--data-dir", type=absolute_path, help="folder in the official layout [downloads]")
    parser.add_argument("--seconds", type=positive, default=1_800, help="wall time to search and train in [1800]")
    parser.add_argument("--images", type=positive, help="only the first so many training images [all]")
    parser.add_argument("--seed", type=positive, default=1, help="[1]")
    given = parser.parse_args(argv)
    if importlib.util.find_spec(package := _PACKAGES[given.rival]) is None:
        raise SettingsError(f"{package} is not installed; experiments/rivals/{given.rival}.py says how")
    config = DataConfig(name=given.dataset, data_dir=given.data_dir)
    raw, size = read_raw(config), config.validation_size
    labels, classes = raw.train_labels, len(raw.class_names)
    kept, held_out = stratified_split(labels, size, num_classes=classes, seed=config.split_seed)
    kept = kept[: given.images]
    images = standardize(raw.train_images[kept], raw.train_images[held_out], raw.test_images)
    parts = zip(images, (labels[kept], labels[held_out], raw.test_labels), strict=True)
    rival = importlib.import_module(f"experiments.rivals.{given.rival}")
    told = {"rival": given.rival, "images": len(kept), **rival.run(*parts, seconds=given.seconds, seed=given.seed)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB / 2**20
    show(json.dumps({**told, "peak_mib": round(peak), **describe_machine()}))


if __name__ == "__main__":
    sys.exit(main())
