"""Classifies pictures with the network that a run found or trained.

    python -m experiments.predict runs/digits-small picture.png another.jpg

A line a picture: the file, its class and the two next ones, with their probabilities. Pictures of any size and kind are
scaled and cropped to what the network takes.
"""

import argparse
import itertools
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from eigen_jax.data.pixels import to_pixels
from eigen_jax.errors import first_line
from eigen_jax.export import TrainedModel
from experiments.command_line import KINDS_OPTION, Parser, absolute_path
from experiments.commands import BAD_INPUT, command, show
from experiments.trained import read_model

_TOLD = 3  # classes of a picture, the most probable first
# What Pillow raises for a file that is no picture, or a damaged one.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Classifies the files that the command line names; each bad one gets a line, and the exit code tells of it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python -m experiments.predict", description=__doc__, formatter_class=raw)
    parser.add_argument("run_dir", type=absolute_path, help="folder of a run that has finished")
    parser.add_argument("files", metavar="FILE", nargs="+", help="pictures")
    parser.add_argument("--kinds", **KINDS_OPTION)
    arguments = parser.parse_args(argv)
    model, _ = read_model(arguments.run_dir)
    bad: list[str] = []
    given = _read(arguments.files, model.processor.image_shape, bad)
    while batch := list(itertools.islice(given, model.batch_size)):
        for path, logits in zip((path for path, _ in batch), _ask(model, batch), strict=True):
            show(_line(path, logits, model.processor.class_names))
    return BAD_INPUT if bad else 0


def _read(paths: Iterable[str], shape: tuple[int, int, int], bad: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The pixels of each picture; one that cannot be read is told on stderr and added to `bad`."""
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(Path(path).expanduser()) as image:
                    yield path, to_pixels(image, shape)
        except UnidentifiedImageError:
            _tell(path, "is no picture that Pillow knows", bad)
        except _DAMAGED as error:
            _tell(path, f"cannot be read ({getattr(error, 'strerror', None) or first_line(error)})", bad)


def _tell(path: str, problem: str, bad: list[str]) -> None:
    print(f"error: {path} {problem}; it is left out", file=sys.stderr)
    bad.append(path)


def _ask(model: TrainedModel, batch: list[tuple[str, np.ndarray]]) -> np.ndarray:
    return model.logits(np.stack([pixels for _, pixels in batch]), batch_size=len(batch))


def _line(path: str, logits: np.ndarray, names: Sequence[str]) -> str:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = exponentials / exponentials.sum()
    best = np.argsort(-probabilities, kind="stable")[:_TOLD]
    return "  ".join([path, *(f"{names[each]} {100 * probabilities[each]:.1f} %" for each in best)])


if __name__ == "__main__":
    sys.exit(main())
