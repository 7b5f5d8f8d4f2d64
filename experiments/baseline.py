"""Trains one of the hand-designed networks of Table 1, tests it and saves it.

    python -m experiments.baseline resnet-110 --dataset cifar10 --recipe own --preset paper
    python -m experiments.baseline nin --dataset cifar10 --recipe own --budget 1e13
    python -m experiments.baseline all-cnn-c --dataset cifar100 --recipe common --preset hour

With --recipe own, it is trained as its authors did, by a schedule that is stretched to --final-steps or --budget; with
--recipe common, as the preset says, and so as all networks. The run folder, by default that of the preset with network
and recipe behind it, holds the same as that of `experiments.retrain`.
"""

import functools
import sys
from collections.abc import Sequence

from eigen_jax.baselines import BASELINES
from eigen_jax.errors import EigenError
from eigen_jax.networks import NamedNetwork
from eigen_jax.registry import check_there_is
from experiments.command_line import Parser, parse
from experiments.commands import command
from experiments.process import configure
from experiments.recipes import RECIPES, with_recipe
from experiments.retrain import retrain
from experiments.settings import SettingsError

_PROGRAM = "python -m experiments.baseline NAME --dataset NAME --recipe own|common"


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Trains the network that the command line names."""
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(add_help=False)
    parser.add_argument("NAME", nargs="?")
    # Of the first word alone, because argparse would take the value of an option that it does not know for it.
    given, options = parser.parse_known_args(argv[:1])
    chosen = Parser(add_help=False)
    chosen.add_argument("--recipe")
    how, options = chosen.parse_known_args([*options, *argv[1:]])
    change = None
    if {"-h", "--help"}.isdisjoint(options) or (given.NAME and how.recipe):
        if given.NAME is None:
            raise SettingsError(f"the first argument is not a network's name; {_PROGRAM} [--SETTING VALUE ...]")
        BASELINES.find(given.NAME)
        if how.recipe is None:
            raise SettingsError(f"--recipe is missing; choose from {', '.join(RECIPES)}")
        check_there_is("recipe", how.recipe, RECIPES)
        change = functools.partial(with_recipe, network=given.NAME, recipe=how.recipe)
    settings = configure(parse(options, program=_PROGRAM, about=_about(), change=change))
    network = NamedNetwork(name=given.NAME, input_shape=settings.data.image_shape)
    if cause := retrain(settings, network, also={"baseline": given.NAME, "recipe": how.recipe}):
        raise EigenError(cause)


def _about() -> str:
    recipes = " ".join(f"--recipe {name}: {what}." for name, what in RECIPES.items())
    return f"{(__doc__ or '').partition(chr(10))[0]} NAME is one of {', '.join(BASELINES)}. {recipes}"


if __name__ == "__main__":
    sys.exit(main())
