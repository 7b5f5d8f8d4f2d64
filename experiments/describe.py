"""Shows a network: a line a layer, its parameters and its FLOPs.

python -m experiments.describe runs/digits-small/network/genome.json
python -m experiments.describe genome.json --num-classes 100
"""

import sys
from collections.abc import Sequence

from eigen_jax.architecture import count_flops, count_parameters
from eigen_jax.search import read_genome
from experiments.command_line import KINDS_OPTION, Parser, absolute_path, positive
from experiments.commands import command, show
from experiments.networks import choose_classes, describe


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Prints the network."""
    parser = Parser(prog="python -m experiments.describe", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("genome", type=absolute_path, help="genome.json of a network")
    parser.add_argument("--kinds", **KINDS_OPTION)
    parser.add_argument("--num-classes", type=positive, metavar="N", help="classes to tell apart [the run's; else 10]")

    arguments = parser.parse_args(argv)
    architecture = read_genome(arguments.genome)
    num_classes = choose_classes(arguments.genome, architecture, arguments.num_classes)
    show("\n".join(describe(architecture, num_classes=num_classes)))
    show(f"parameters      {count_parameters(architecture, num_classes=num_classes):,}")
    show(f"FLOPs an image  {count_flops(architecture, num_classes=num_classes):,}")


if __name__ == "__main__":
    sys.exit(main())
