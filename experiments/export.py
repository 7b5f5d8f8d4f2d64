"""Writes the network of a finished run for use elsewhere, into a new folder.

    python -m experiments.export runs/digits-small --to exported
    python -m experiments.export runs/digits-small --to exported-onnx --format onnx

flax: readable Python that needs flax and safetensors alone, with weights, preprocessing, class names and a command that
classifies pictures; stablehlo: a program of jax.export; onnx: for onnxruntime and others, needs the extra `export`. The
last two take pixels, preprocessing is inside.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from eigen_jax.export import ExportError, TrainedModel, write_flax, write_stablehlo
from eigen_jax.store import files
from experiments.command_line import KINDS_OPTION, Parser, absolute_path
from experiments.commands import command, show
from experiments.model_card import model_card
from experiments.trained import read_model

FORMATS = ("flax", "stablehlo", "onnx")


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Exports the network of the folder that the command line names."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python -m experiments.export", description=__doc__, formatter_class=raw)
    add = functools.partial(parser.add_argument, type=absolute_path)
    add("run_dir", help="folder of a run that has finished")
    add("--to", metavar="DIR", required=True, help="folder to make; there must be none yet")
    parser.add_argument("--format", choices=FORMATS, default="flax", help="what to write [flax]")
    parser.add_argument("--kinds", **KINDS_OPTION)
    arguments = parser.parse_args(argv)
    folder, format = arguments.to, arguments.format
    _check_is_free(folder)
    write = _writer(format)
    model, settings = read_model(arguments.run_dir)
    with files.told_as(ExportError, folder), files.making_folder(folder) as partial:
        write(partial, model)
        files.write(partial / "README.md", model_card(arguments.run_dir, model, settings, format))
        _check_is_free(folder)  # somebody may have made it meanwhile
    show(f"exported             {folder}")
    show("its README.md tells how it is used")


def _check_is_free(folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise ExportError(f"{folder} is there already; name another folder, or remove it first")


def _writer(format: str) -> Callable[[Path, TrainedModel], None]:
    if format == "flax":
        return write_flax
    if format == "stablehlo":
        return write_stablehlo
    try:
        # An extra, imported where it is asked for.
        from eigen_jax.export.onnx_graph import write_onnx
    except ImportError as error:
        told = f"--format onnx needs {error.name}, which is not installed"
        raise ExportError(f"{told}; .venv/bin/pip install -e '.[export]'") from None
    return write_onnx


if __name__ == "__main__":
    sys.exit(main())
