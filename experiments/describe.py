"""Shows a network: a line a layer, its parameters and its FLOPs.

python -m experiments.describe runs/digits-small/network/genome.json
python -m experiments.describe genome.json --num-classes 100
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eigen_jax.architecture import ArchitectureError, count_flops, count_parameters, from_json
from experiments.command_line import Parser
from experiments.progress import describe
from experiments.runner import BAD_INPUT
from experiments.settings import SettingsError


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the network; returns the exit code, `BAD_INPUT` after one line on stderr that says what to do."""
    parser = Parser(prog="python -m experiments.describe", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("genome", type=Path, help="genome.json of a network")
    parser.add_argument("--num-classes", type=_positive, default=10, metavar="N", help="classes to tell apart [10]")
    try:
        arguments = parser.parse_args(argv)
        architecture = from_json(arguments.genome.read_text())
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        print(f"error: cannot read {arguments.genome}: {reason}; name the genome.json of a network", file=sys.stderr)
        return BAD_INPUT
    except ArchitectureError as error:
        print(f"error: {arguments.genome}: {error}", file=sys.stderr)
        return BAD_INPUT
    print("\n".join(describe(architecture, num_classes=arguments.num_classes)))
    print(f"parameters      {count_parameters(architecture, num_classes=arguments.num_classes):,}")
    print(f"FLOPs an image  {count_flops(architecture, num_classes=arguments.num_classes):,}")
    return 0


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
