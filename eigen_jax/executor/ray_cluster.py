"""Workers as actors of a Ray cluster; needs the extra `ray`.

Ray's object store places data set and teacher once on each node; the states of networks are in the run folder, which
all nodes must see under one path. Jobs are pickled by reference, not by value as Ray would: a function that came as a
copy would be another one for every job, and compiled for again.
"""

import os
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eigen_jax import surroundings
from eigen_jax.errors import first_line
from eigen_jax.executor.interface import Answer, Died, ExecutorError, Job, Message, Overdue, Progress, Ready, Refused
from eigen_jax.executor.pickling import pack, unpack
from eigen_jax.executor.processes import python_path
from eigen_jax.executor.session import open_session, to_host
from eigen_jax.training import Dataset, Teacher

_KNOCK = 10.0  # seconds that a cluster has to answer
_LOOK = 1.0  # seconds between two looks at a worker's progress


class RayWorkers:
    """`Workers` that are actors."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        teacher: Teacher | None = None,
        size: int | None = None,
        address: str | None = None,
        environment: Mapping[str, str] | None = None,
        cpus: float = 1.0,
        gpus: float = 1.0,
    ) -> None:
        """Joins a cluster, or starts one on this machine. The teacher is anything that can be pickled.

        Args:
            size: how many workers; by default as many as the cluster has room for now.
            address: of the cluster; by default that of `RAY_ADDRESS` or of one on this machine, else a new one.
            environment: variables of all workers, besides this process's switches of JAX.
            cpus, gpus: that are set aside for a worker; GPUs, where the cluster has any.

        Raises ExecutorError where Ray is not installed, there is no such cluster or room, or the teacher cannot be
        sent.
        """
        try:
            import ray
        except ImportError:
            raise ExecutorError("Ray is not installed; install the extra: pip install 'eigen_jax[ray]'") from None
        self._ray = ray
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            _join(ray, address)
        present_cpus, present_gpus = (ray.cluster_resources().get(kind, 0) for kind in ("CPU", "GPU"))
        gpus = gpus if present_gpus else 0.0
        room = [present / each for present, each in ((present_cpus, cpus), (present_gpus, gpus)) if each]
        self.size = int(min(room, default=1)) if size is None else size
        if self.size < 1 or (room and self.size > min(room)):
            self.close()
            asked = f"{size or 1} workers of {cpus:g} CPUs and {gpus:g} GPUs; ask for fewer or smaller workers"
            raise ExecutorError(f"the cluster has {present_cpus:g} CPUs and {present_gpus:g} GPUs, too few for {asked}")
        try:
            self._payload = ray.put(to_host(dataset, teacher))
        except Exception as error:  # whatever the user's own classes raise
            self.close()
            raise ExecutorError(f"{first_line(error)}, so no worker can have the teacher") from None
        self._actor = ray.remote(_Actor).options(
            num_cpus=cpus,
            num_gpus=gpus,
            # Besides the job, one call that asks how far it is, and one that stops or prepares.
            max_concurrency=4,
            runtime_env={"env_vars": {**python_path(), **surroundings.environment(), **(environment or {})}},
        )

    def start(self, slot: int) -> "RayWorker":
        del slot
        return RayWorker(self._ray, self._actor.remote(self._payload))

    def messages(self, workers: Sequence[Any], timeout: float) -> list[tuple[Any, Message]]:
        by_call = {call: worker for worker in workers for call in worker.calls()}
        if not by_call:
            time.sleep(timeout)
            return []
        ready, _ = self._ray.wait(list(by_call), timeout=timeout, fetch_local=False)
        return [(by_call[call], message) for call in ready if (message := by_call[call].receive(call)) is not None]

    def close(self) -> None:
        """Leaves the cluster; ends it, if it was started here."""
        if self._started_ray:
            self._ray.shutdown()


def _join(ray: Any, address: str | None) -> None:
    try:
        _knock(address or os.environ.get("RAY_ADDRESS", ""))
        with warnings.catch_warnings():
            # JAX warns of the fork with which Ray starts its servers, which execute other programs at once.
            warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:
        raise ExecutorError(
            f"there is no Ray cluster at {address or 'this machine'} ({first_line(error)}); start one"
            " with 'ray start --head', or leave --ray-address out for one of this command's own"
        ) from None


def _knock(address: str) -> None:
    """Raises an error if nobody answers at an address with a port, which takes Ray minutes to find out."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()


class RayWorker:
    """A `Worker` that is an actor, as its driver sees it."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor
        self._calls = {"ready": actor.ready.remote()}  # that are out, by what they call
        self._looked = time.monotonic()
        self._jobs = 0  # that it was given

    def submit(self, job: Job) -> None:
        self._jobs += 1
        self._calls["run"] = self._actor.run.remote(pack(job), job.folder.parent.parent, self._jobs)

    def prepare(self, job: Job) -> None:
        self._actor.prepare.remote(pack(job))

    def stop(self) -> None:
        self._actor.stop.remote(self._jobs)

    def kill(self) -> None:
        self._ray.kill(self._actor)

    def calls(self) -> list[Any]:
        """The calls that are out; now and then, one that asks how far its job is."""
        is_due = time.monotonic() - self._looked >= _LOOK
        if is_due and "run" in self._calls and "progress" not in self._calls:
            self._looked = time.monotonic()
            self._calls["progress"] = self._actor.progress.remote()
        return list(self._calls.values())

    def receive(self, call: Any) -> Message | None:
        """What a call that has ended says."""
        try:
            message: Message | None = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            return Refused(f"a worker failed with {first_line(error.cause)}; report it")
        except self._ray.exceptions.RayError as error:
            self._calls.clear()
            self.kill()  # where it is only out of reach, two would train the same network
            return Died(f"died ({first_line(error)})")
        if call == self._calls.get("run"):
            self._calls.pop("progress", None)  # an answer that comes later would be taken for the next job's
        self._calls = {name: each for name, each in self._calls.items() if each != call}
        return message


class _Actor:
    """A worker, where it runs."""

    def __init__(self, payload: Any) -> None:
        self.told: Progress | Overdue | None = None
        self.stopped = 0  # the last job that is to be left; calls may overtake one another
        self.session = open_session(payload)

    def ready(self) -> Ready | Refused:
        return self.session if isinstance(self.session, Refused) else Ready()

    def run(self, packed: bytes, run_folder: Path, number: int) -> Answer:
        if isinstance(self.session, Refused):
            return self.session
        if not run_folder.is_dir():
            problem = f"a worker does not see the run folder {run_folder}"
            return Refused(f"{problem}; choose one on storage that all nodes share")
        try:
            return self.session.answer(packed, should_stop=lambda: self.stopped >= number, tell=self._note)
        finally:
            self.told = None  # a question that overtakes the next job must not be answered with this one's

    def progress(self) -> Progress | Overdue | None:
        told, self.told = self.told, None
        return told

    def prepare(self, packed: bytes) -> None:
        if not isinstance(self.session, Refused):
            self.session.prepare(unpack(packed))

    def stop(self, number: int) -> None:
        self.stopped = number

    def _note(self, told: Progress | Overdue) -> None:
        self.told = told
