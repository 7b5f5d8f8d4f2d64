"""The search that is disturbed: a whole one on the digits, as small as one can be with all of its phases."""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.disturbance.phases import RUN, TEACHER

# Of one seed whose networks have blocks that can be duplicated.
SETTINGS = (
    *("--preset", "smoke", "--seed", "25", "--teacher-members", "2", "--teacher-epochs", "8"),
    *("--max-primary-generations", "2", "--max-secondary-generations", "1", "--final-steps", "200"),
)

_SAVE_EVERY = 0.5  # seconds; so that trainings this short are saved on their way


def digits_command(
    folder: Path, cache: Path, *, executor: str, workers: int, settings: Sequence[str] = SETTINGS
) -> list[str]:
    """The command that runs the search, or goes on with it.

    Args:
        folder: of the run; record and teacher lie in it.
        cache: the cache folder.
        executor: where individuals are trained.
        workers: how many at a time, where the executor has workers.
        settings: of the search, as on its command line.
    """
    return [
        *(sys.executable, "-m", "experiments.digits", *settings),
        *("--run-dir", str(folder / RUN), "--teacher-dir", str(folder / TEACHER), "--cache-dir", str(cache)),
        *("--executor", executor, "--workers", str(workers), "--save-every", str(_SAVE_EVERY)),
    ]
