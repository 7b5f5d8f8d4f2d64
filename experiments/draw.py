"""Draws a network, or what a finished run found and how it got there, as PNG and SVG.

python -m experiments.draw runs/digits-small                 # into runs/digits-small/pictures/
python -m experiments.draw genome.json --num-classes 100     # beside genome.json
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eigen_jax import report
from eigen_jax.fitness import OBJECTIVES
from eigen_jax.search import read_genome
from eigen_jax.store.run_files import read_settings
from experiments.command_line import KINDS_OPTION, Parser, absolute_path, positive
from experiments.commands import command, show
from experiments.networks import choose_classes


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Draws, and names the files."""
    parser = Parser(prog="python -m experiments.draw", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=absolute_path, help="genome.json of a network, or the folder of a finished run")
    parser.add_argument("--kinds", **KINDS_OPTION)
    parser.add_argument("--num-classes", type=positive, metavar="N", help="classes to tell apart [the run's; else 10]")
    help = "of a network: the pictures' path without ending [beside it]; of a run: their folder [RUN/pictures]"
    parser.add_argument("--output", type=absolute_path, metavar="PATH", help=help)
    given = parser.parse_args(argv)
    if given.source.is_dir():
        paths = draw_run(given.source, given.output or given.source / "pictures", num_classes=given.num_classes)
    else:
        paths = draw_network(given.source, given.output or given.source.with_suffix(""), num_classes=given.num_classes)
    for path in paths:
        show(path)


def draw_network(genome: Path, stem: Path, *, num_classes: int | None = None) -> list[Path]:
    """Draws the network of a genome.json, as `stem`.png and .svg, whose paths it gives; raises EigenError."""
    architecture = read_genome(genome)
    num_classes = choose_classes(genome, architecture, num_classes)
    stem = stem.with_suffix("") if stem.suffix in (".png", ".svg") else stem
    return [*report.save_figure(report.draw_architecture(architecture, num_classes=num_classes), stem)]


def draw_run(folder: Path, output: Path, *, num_classes: int | None = None) -> list[Path]:
    """Draws what a finished run found, its progress, what others had for their size, and the duplication it came by.

    Raises ReportError where the folder is no finished run's, or is damaged, or a picture cannot be written.
    """
    result, individuals, name = report.read_result(folder), report.read_record(folder), folder.resolve().name
    paths = [*report.save_figure(report.plot_progress([individuals], title=name), output / "progress")]
    if result.found is None:
        return paths
    found = report.find_individual(individuals, result.found)
    measured = [each.measurement for each in individuals if each.measurement]
    objectives: Any = str(read_settings(folder).settings.get("fitness")).split(", ")[:2]
    if len(objectives) < 2 or not all(each in OBJECTIVES for each in objectives):
        objectives = "accuracy", "parameters"
    front = report.plot_pareto(measured, objectives=objectives, found=found.measurement, title=name)
    paths += report.save_figure(front, output / "pareto")
    classes = choose_classes(folder / "network" / "genome.json", found.architecture, num_classes)
    title = f"{name}: individual {found.reference}"
    figure = report.draw_architecture(found.architecture, num_classes=classes, title=title)
    paths += report.save_figure(figure, output / "network")
    if report.is_duplicate(found) and found.parent is not None:
        parent = report.find_individual(individuals, found.parent)
        networks = parent.architecture, found.architecture
        figure = report.draw_duplication(*networks, num_classes=classes, repeats=found.repeats or (), title=title)
        paths += report.save_figure(figure, output / "duplication")
    return paths


if __name__ == "__main__":
    sys.exit(main())
