"""The search of an experiment: settings from the command line, data, teacher, executor, search, result."""

import contextlib
import math
from collections.abc import Sequence

from eigen_jax.data import DataConfig, Dataset
from eigen_jax.data.types import DatasetName
from eigen_jax.executor import InlineExecutor, PoolExecutor, ProcessWorkers
from eigen_jax.resumable import Care
from eigen_jax.search import (
    LOGS,
    BarrenSearchError,
    Observers,
    SearchResult,
    check_budget,
    check_data,
    check_run_folder,
    run_search,
)
from eigen_jax.store.locks import ShouldStop
from eigen_jax.store.records import as_json
from eigen_jax.store.run_files import SETTINGS, RunFolderError, read_settings
from eigen_jax.training import Teacher
from experiments.command_line import parse
from experiments.commands import command, held_off, make_console
from experiments.process import configure, environment, load_data, worker_environments
from experiments.progress import ConsoleObserver
from experiments.settings import FLAGS, Settings
from experiments.teacher import prepare_teacher, teacher_flops


@command
def main(name: DatasetName, argv: Sequence[str] | None = None) -> None:
    """Runs the search on a data set."""
    settings = configure(parse(argv, program=f"python -m experiments.{name}", dataset=name))
    if search(settings).best is None:
        advice = "train longer or lower the learning rate, in a new run folder"
        raise BarrenSearchError(f"no network survived all landmarks; {advice}")


def search(settings: Settings, *, stop_at: float = math.inf) -> SearchResult:
    """Loads the data, prepares the teacher and searches, with progress shown; raises EigenError, Interrupted.

    It stops when `time.monotonic` comes to `stop_at`; the same call goes on.
    """
    dataset = load_data(settings)
    config, machine = settings.search_config(), settings.machine
    # Before the teacher, which may take days.
    check_data(config, dataset)
    check_same_images(settings, dataset)
    check_run_folder(settings.run_dir, {**settings.outcome(), "data_fingerprint": dataset.fingerprint})
    logs = [LOGS.find(name)(settings.run_dir) for name in dict.fromkeys(machine.log)]
    strategy, flops = settings.make_strategy(), teacher_flops(settings, dataset)
    if flops.once:  # the search asks as well, but after the teacher, which may take days
        check_budget(config, strategy, flops)
    console = make_console()
    with held_off(stop_at) as should_stop:
        teacher = prepare_teacher(settings, dataset, console, should_stop)
        with (
            open_executor(settings, dataset, teacher, should_stop) as executor,
            ConsoleObserver(config, folder=settings.run_dir, console=console) as shown,
            contextlib.ExitStack() as opened,
        ):
            observer = Observers(shown, *map(opened.enter_context, logs))
            return run_search(
                config,
                dataset,
                settings.run_dir,
                strategy=strategy,
                teacher=teacher,
                teacher_flops=flops,
                executor=executor,
                care=Care(save_every=machine.save_every, time_limit=machine.time_limit, should_stop=should_stop),
                fitness=settings.fitness.load(),
                settings=settings.outcome(),
                notes=settings.notes(),
                observer=observer,
            )


def check_same_images(settings: Settings, dataset: Dataset) -> None:
    """Raises RunFolderError where a run began with images at the same place that are others now."""
    if settings.data.name != "images" or not SETTINGS.is_in(settings.run_dir):
        return
    then, now = read_settings(settings.run_dir), as_json(settings.outcome())
    names = [each.name for (config, _), each in FLAGS.items() if config is DataConfig and each.is_of_outcome]
    is_same = then.folders.get("data_dir") == str(settings.data.data_dir)
    is_same = is_same and all(then.settings.get(name) == now[name] for name in names)
    if is_same and then.settings.get("data_fingerprint") != dataset.fingerprint:
        told = f"the images in {settings.data.data_dir} are others than when the run in {settings.run_dir} began"
        raise RunFolderError(f"{told}; put those back, or choose another run folder")


def open_executor(
    settings: Settings, dataset: Dataset, teacher: Teacher | None, should_stop: ShouldStop
) -> InlineExecutor | PoolExecutor:
    """The executor that settings ask for; used as a context manager, which ends its workers.

    Raises ConfigError or ExecutorError where the machine or the cluster does not have what they ask for.
    """
    machine = settings.machine
    if machine.executor == "inline":
        return InlineExecutor(dataset, teacher=teacher, should_stop=should_stop)
    if machine.executor == "processes":
        processes = ProcessWorkers(dataset, teacher=teacher, environments=worker_environments(settings))
        return PoolExecutor(processes, should_stop=should_stop)
    # An extra, imported where it is asked for.
    from eigen_jax.executor.ray_cluster import RayWorkers

    workers = RayWorkers(
        dataset,
        teacher=teacher,
        size=machine.workers,
        address=machine.ray_address,
        environment=environment(settings),
        cpus=machine.worker_cpus,
        gpus=machine.worker_gpus,
    )
    return PoolExecutor(workers, should_stop=should_stop)
