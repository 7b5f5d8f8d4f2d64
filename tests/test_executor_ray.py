"""Jobs on a real Ray cluster of this machine, of two workers."""

import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_data import Fair, Killer, leaves_of, make_dataset, make_job, network, same_bits

from eigen_jax import checkpoint
from eigen_jax.data import Dataset
from eigen_jax.executor import ExecutorError, InlineExecutor, Job, PoolExecutor
from eigen_jax.executor.processes import python_path
from eigen_jax.resumable import StoppedError

ray = pytest.importorskip("ray", reason="Ray is an extra, and is not installed: pip install 'eigen_jax[ray]'")
from eigen_jax.executor.ray_cluster import RayWorkers  # noqa: E402

CPUS = 0.5  # of a worker, so that one core is enough for two


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(noise=1.0)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Lets workers find the teachers of these tests, and compile each program once."""
    tests = str(Path(__file__).resolve().parent)
    return {
        "PYTHONPATH": os.pathsep.join([python_path()["PYTHONPATH"], tests]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("programs")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module")
def pair(dataset, environment) -> Iterator[PoolExecutor]:
    """Two workers of a cluster that is started for these tests, and ended after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        workers = RayWorkers(dataset, size=2, address="local", environment=environment, cpus=CPUS)
    assert ray.is_initialized()
    with PoolExecutor(workers) as executor:
        yield executor
    assert not ray.is_initialized()


def make_jobs(folder: Path, count: int = 3, *, networks: int = 1, **rest) -> list[Job]:
    architectures = [network(4 + each) for each in range(networks)] * count
    return [make_job(folder, each, architecture=architectures[each], tested=True, **rest) for each in range(count)]


def check_as_inline(jobs: list[Job], outcomes: dict, dataset: Dataset, teacher: Fair | None = None) -> None:
    """Checks that outcomes and all that was saved are those of this process alone."""
    alone = [
        dataclasses.replace(job, folder=job.folder.parent / "inline" / job.folder.name, save_every=3_600.0)
        for job in jobs
    ]
    expected = dict(InlineExecutor(dataset, teacher=teacher).run(alone))
    assert outcomes.keys() == expected.keys()
    for position, (ours, theirs) in enumerate(zip(jobs, alone, strict=True)):
        assert outcomes[position].cause is None
        assert outcomes[position].fitness == expected[position].fitness
        assert outcomes[position].test_accuracy == expected[position].test_accuracy
        assert same_bits(leaves_of(ours.folder), leaves_of(theirs.folder))


def test_two_workers_give_what_one_process_gives(dataset, pair, tmp_path):
    jobs = make_jobs(tmp_path, networks=2)
    check_as_inline(jobs, dict(pair.run(jobs)), dataset)
    assert all(slot.worker is not None for slot in pair._slots)


def test_a_stop_saves_what_is_under_way_and_is_forgotten_by_the_next_job(dataset, pair, tmp_path):
    jobs = make_jobs(tmp_path, 2, until=100_000, save_every=3_600.0)
    told: list[tuple[int, float, float]] = []
    asked = itertools.count()
    pair.should_stop = lambda: next(asked) > 0 and {position for position, *_ in told} == {0, 1}
    try:
        with pytest.raises(StoppedError):
            list(pair.run(jobs, on_progress=lambda position, *what: told.append((position, *what))))
    finally:
        pair.should_stop = lambda: False
    steps = [checkpoint.latest_step(job.folder) for job in jobs]
    assert all(step is not None and 0 < step < 100_000 for step in steps)
    further = [make_job(tmp_path, 7), make_job(tmp_path, 8)]
    check_as_inline(further, dict(pair.run(further)), dataset)


def test_a_run_folder_that_workers_do_not_see_is_told_in_one_line(pair, tmp_path):
    with pytest.raises(ExecutorError, match=rf"^a worker does not see the run folder {tmp_path}/elsewhere; choose one"):
        list(pair.run([make_job(tmp_path / "elsewhere")]))
    for slot in pair._slots:  # they are idle
        slot.position = None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc")
def test_a_worker_killed_in_the_middle_of_a_job_changes_no_outcome(dataset, pair, environment, tmp_path):
    """Its process sends itself SIGKILL at its fourth step; what it has saved by then is gone on from."""
    for slot in pair._slots:  # makes room
        if slot.worker is not None:
            slot.worker.kill()
            slot.worker = None
    jobs = make_jobs(tmp_path, save_every=0.0)
    killer = Killer(jobs[1].folder, once=True, after=4)
    workers = RayWorkers(dataset, teacher=killer, size=2, environment=environment, cpus=CPUS)
    with PoolExecutor(workers, retries=1) as executor:
        outcomes = dict(executor.run(jobs))
    assert killer.killed.exists()
    check_as_inline(jobs, outcomes, dataset, Fair())
    assert ray.is_initialized(), "who did not start the cluster does not end it"


def test_more_workers_than_the_cluster_holds_get_one_line(dataset, pair):
    with pytest.raises(
        ExecutorError, match=r"too few for 1000 workers of 0\.5 CPUs and 0 GPUs; ask for fewer"
    ) as caught:
        RayWorkers(dataset, size=1_000, environment={}, cpus=CPUS)
    assert len(str(caught.value).splitlines()) == 1
    assert ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_where_nobody_answers_gets_one_line_soon(dataset, address, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    began = time.monotonic()
    with pytest.raises(ExecutorError, match=f"^there is no Ray cluster at {address} .*ray start --head") as caught:
        RayWorkers(dataset, address=address, environment={})
    assert len(str(caught.value).splitlines()) == 1
    assert time.monotonic() - began < 20


def test_without_ray_the_extra_is_named(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ExecutorError, match=r"^Ray is not installed; install the extra: pip install 'eigen_jax\[ray\]'$"
    ):
        RayWorkers(dataset, environment={})
