"""Writes a page that shows a run, or several beside each other: one HTML file that needs no network.

    python -m experiments.report runs/digits-small                    # runs/digits-small/report.html
    python -m experiments.report runs/seed-0 runs/seed-1 --output both.html
    python -m experiments.report runs/digits-small --serve            # at http://localhost:8000, following the search

It works while a search runs, too, and shows what is recorded by then.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eigen_jax import lineage, report
from eigen_jax.data import PixelImages, read_raw
from eigen_jax.errors import EigenError
from eigen_jax.processor import has_processor, load_processor
from eigen_jax.report.page import Run, find_mistakes, make_comparison, make_page
from eigen_jax.search import read_genome
from eigen_jax.store import files
from eigen_jax.store.run_files import SETTINGS, read_result, read_settings
from eigen_jax.training import confusion_matrix
from experiments.again import command_of
from experiments.command_line import KINDS_OPTION, Parser, absolute_path, add_data_options
from experiments.commands import command, show
from experiments.evaluate import load_trained
from experiments.serving import serve
from experiments.settings import flag_of

# The files of a run that change while it goes on.
_SHOWN = ("settings.json", "lineage.jsonl", "result.json")


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page, and names it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python -m experiments.report", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("runs", type=absolute_path, nargs="+", metavar="RUN", help="folder of a run, finished or not")
    place = parser.add_mutually_exclusive_group().add_argument
    place("--output", type=absolute_path, metavar="FILE", help="the page [RUN/report.html; several: report.html here]")
    place("--serve", action="store_true", help="show it on localhost instead, and follow the runs while they search")
    add_data_options(parser)
    add("--kinds", **KINDS_OPTION)
    given = parser.parse_args(argv)
    if given.serve:
        return serve(lambda: _make(given), lambda: _version(given.runs))
    page = _make(given)
    output = given.output or (given.runs[0] if len(given.runs) == 1 else Path.cwd()) / "report.html"
    with files.told_as(report.ReportError, output, "name a file that can be written with --output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        files.write(output, page)
    show(output)


def _make(given: argparse.Namespace) -> str:
    runs = [read_run(folder) for folder in given.runs]
    if len(runs) > 1:
        return make_comparison(_named_apart(runs, given.runs))
    if runs[0].result and runs[0].network:
        runs = [_with_test_images(runs[0], given.runs[0], given)]
    return make_page(runs[0])


def _version(folders: Sequence[Path]) -> str:
    """Changes whenever what a page shows of runs does."""
    told = []
    for path in (folder / name for folder in folders for name in _SHOWN):
        with contextlib.suppress(OSError):
            about = path.stat()
            told.append(f"{path} {about.st_mtime_ns} {about.st_size}")
    return files.sha256(["\n".join(told)])


def read_run(folder: Path) -> Run:
    """What a run folder holds, as far as the run has come; raises EigenError where it is none, or a file is damaged."""
    if not SETTINGS.is_in(folder):
        raise report.ReportError(f"{folder} is no run folder: it has no settings.json; name the folder of a run")
    told, record, network = read_settings(folder), folder / "lineage.jsonl", folder / "network"
    genome = network / "genome.json"
    result = read_result(folder) if (folder / "result.json").exists() else None
    is_search, notes = "retrained" not in told.settings, []
    individuals = lineage.read(record) if is_search and record.exists() else ()
    if is_search and not individuals:
        notes.append("No generation is recorded, so there is no progress to show.")
    again = command_of(told, genome=None if is_search else str(genome))
    if again is None:
        notes.append("What its folder says is not enough for a command that makes it again.")
    return Run(
        name=folder.name,
        settings=told.settings,
        folders=told.folders,
        machine=told.machine if isinstance(told.machine, dict) else {},
        versions=told.versions,
        individuals=individuals,
        result=result,
        network=read_genome(genome) if result and genome.exists() else None,
        class_names=load_processor(network).class_names if has_processor(network) else (),
        confusion=result.confusion if result else None,
        notes=notes,
        command=again,
    )


def _with_test_images(run: Run, folder: Path, given: argparse.Namespace) -> Run:
    """The run with what its network makes of the test images, or with why that is left out."""
    try:
        trained = load_trained(folder, given)
        images, labels = trained.dataset.test_images, np.asarray(trained.dataset.test_labels)
        pixels = images.pixels if isinstance(images, PixelImages) else read_raw(trained.data).test_images
        logits = trained.logits_of(images)
    except EigenError as error:
        why = f"What the network makes of the test images is left out: {error.told(flag_of)}."
        return dataclasses.replace(run, notes=[*run.notes, why])
    return dataclasses.replace(
        run,
        class_names=run.class_names or trained.dataset.class_names,
        confusion=run.confusion or confusion_matrix(logits, labels).tolist(),
        mistakes=find_mistakes(logits, labels, np.asarray(pixels)),
    )


def _named_apart(runs: Sequence[Run], folders: Sequence[Path]) -> list[Run]:
    """The runs by names that differ: by their paths, where the names of folders do not."""
    if len({run.name for run in runs}) == len(runs):
        return list(runs)
    common = os.path.commonpath([folder.parent for folder in folders])
    named = zip(runs, folders, strict=True)
    return [dataclasses.replace(run, name=os.path.relpath(folder, common)) for run, folder in named]


if __name__ == "__main__":
    sys.exit(main())
