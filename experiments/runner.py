"""The search of an experiment: settings from the command line, data, teacher, search, result."""

from collections.abc import Sequence

from eigen_jax.data import load_dataset
from eigen_jax.data.types import DatasetName
from eigen_jax.resumable import Care
from eigen_jax.search import BarrenSearchError, SearchResult, check_data, check_run_folder, run_search
from experiments.command_line import parse
from experiments.commands import command, held_off, make_console
from experiments.executors import open_executor
from experiments.process import configure
from experiments.progress import ConsoleObserver
from experiments.settings import Settings
from experiments.teacher import prepare_teacher


@command
def main(name: DatasetName, argv: Sequence[str] | None = None) -> None:
    """Runs the search on a data set."""
    settings = configure(parse(argv, program=f"python -m experiments.{name}", dataset=name))
    if search(settings).best is None:
        advice = "train longer or lower the learning rate, in a new run folder"
        raise BarrenSearchError(f"no network survived all landmarks; {advice}")


def search(settings: Settings) -> SearchResult:
    """Loads the data, prepares the teacher and searches, with progress shown; raises EigenError, Interrupted."""
    dataset = load_dataset(settings.data)
    config, machine = settings.search_config(), settings.machine
    # Before the teacher, which may take days.
    check_data(config, dataset)
    check_run_folder(settings.run_dir, {**settings.outcome(), "data_fingerprint": dataset.fingerprint})
    console = make_console()
    with held_off() as should_stop:
        teacher = prepare_teacher(settings, dataset, console, should_stop)
        with (
            open_executor(settings, dataset, teacher, should_stop) as executor,
            ConsoleObserver(config, folder=settings.run_dir, console=console) as observer,
        ):
            return run_search(
                config,
                dataset,
                settings.run_dir,
                strategy=settings.make_strategy(),
                teacher=teacher,
                executor=executor,
                care=Care(save_every=machine.save_every, time_limit=machine.time_limit, should_stop=should_stop),
                fitness=settings.fitness.load(),
                settings=settings.outcome(),
                notes=settings.notes(),
                observer=observer,
            )
