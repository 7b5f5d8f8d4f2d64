"""Trains a teacher, evaluates it and saves it; the same command goes on with one that was interrupted.

    python -m experiments.teacher --dataset cifar10                     # the paper's: for a GPU
    python -m experiments.teacher --dataset digits                      # minutes on two cores
    python -m experiments.teacher --dataset cifar10 --preset small --data-dir PATH

A search trains the teacher of its settings in the same way where it is not there yet. The settings
are those of a search; --teacher-dir says where the teacher lies.
"""

import sys
from collections.abc import Sequence

from eigen_jax.data import load_dataset
from experiments.command_line import parse
from experiments.commands import command, held_off, make_console
from experiments.mimicry import train_teacher
from experiments.process import configure

_PROGRAM = "python -m experiments.teacher --dataset NAME"
_ABOUT = (__doc__ or "").partition("\n")[0]


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Trains the teacher of a data set."""
    settings = configure(parse(argv, program=_PROGRAM, about=_ABOUT))
    console = make_console()
    dataset = load_dataset(settings.data)
    with held_off() as should_stop:
        train_teacher(settings, dataset, console, should_stop)
    print(f"teacher's folder     {settings.teacher_dir}")


if __name__ == "__main__":
    sys.exit(main())
