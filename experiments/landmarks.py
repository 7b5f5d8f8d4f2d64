"""Studies how well early landmarks rank networks, and what extinction at them saves and throws away.

python -m experiments.landmarks runs/digits-full                    # of a search with --no-extinction: all of it
python -m experiments.landmarks runs/seed-0 runs/seed-1 --output landmarks/
"""

import sys
from collections.abc import Sequence

from eigen_jax import report
from experiments.command_line import Parser, absolute_path, positive
from experiments.commands import command, show


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables of the runs that the command line names, and writes them."""
    parser = Parser(prog="python -m experiments.landmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=absolute_path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--output", type=absolute_path, metavar="PATH", help="folder to write the tables to as well")
    help = f"p and q to replay extinction with, up to the population [{' '.join(map(str, report.RANKS))}]"
    parser.add_argument("--ranks", type=positive, nargs="+", default=report.RANKS, metavar="N", help=help)
    given = parser.parse_args(argv)
    tables = report.study_landmarks({str(each): report.read_record(each) for each in given.runs}, ranks=given.ranks)
    show("\n".join(map(report.to_markdown, tables.values())))
    if given.output is not None:
        for name, table in tables.items():
            for path in report.write_table(table, given.output / name):
                show(path)


if __name__ == "__main__":
    sys.exit(main())
