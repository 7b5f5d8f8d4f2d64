"""Where the individuals of a search are trained, as its settings say, and what their workers get of this machine."""

import os

import jax

from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.executor import InlineExecutor, PoolExecutor, ProcessWorkers
from eigen_jax.store.locks import ShouldStop
from eigen_jax.training import Teacher
from experiments.machine import cores
from experiments.process import environment
from experiments.settings import Machine, Settings

_CPU_WORKERS = 2  # the most that are started where nobody said how many
_DRIVER_SHARE = 0.1  # of a device's memory, which workers that share it leave to the driver

_MEMORY_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # of which one may be set


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


def worker_environments(settings: Settings) -> list[dict[str, str]]:
    """The variables of each worker process of this machine: as many as are asked for, or as fit.

    On GPUs, each worker sees its own; where several share one, each has its fraction of the memory. Raises
    ConfigError where more GPUs are asked for than there are.
    """
    common, share = environment(settings), settings.machine.worker_gpus
    if jax.default_backend() == "cpu":
        return [common] * (settings.machine.workers or min(_CPU_WORKERS, cores()))
    present, named = jax.local_device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA sees none from the first on that is not there; a worker with that one would compute on the CPU, unsaid.
    visible = named.split(",")[:present] if named else [str(number) for number in range(present)]
    places = _gpu_places(visible, share)
    count = settings.machine.workers or len(places)
    if count > len(places):
        rule = "{workers} is {}; with {worker_gpus} {:g}, the GPUs of this machine hold {}"
        raise ConfigError(Machine, rule, count, share, len(places))
    return [common | place for place in places[:count]]


def _gpu_places(visible: list[str], share: float) -> list[dict[str, str]]:
    if share < 1:
        each = int(1 / share)
        fraction = f"{(1 - _DRIVER_SHARE) / each:.3f}"
        memory = {} if any(name in os.environ for name in _MEMORY_FRACTIONS) else {_MEMORY_FRACTIONS[0]: fraction}
        # One after the other, so that few workers spread over all GPUs.
        return [{"CUDA_VISIBLE_DEVICES": gpu, **memory} for _ in range(each) for gpu in visible]
    width = int(share)
    groups = [visible[start : start + width] for start in range(0, len(visible) - width + 1, width)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]
