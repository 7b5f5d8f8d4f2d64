"""Jobs on two Ray workers: of a real cluster of this machine, and of one of threads that stands for it."""

import concurrent.futures
import pickle
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_data import (
    Fair,
    Killer,
    check_as_inline,
    check_own_code,
    check_stop,
    forget_jobs,
    make_dataset,
    make_jobs,
)

from eigen_jax.data import Dataset
from eigen_jax.executor import ExecutorError, PoolExecutor, ray_cluster
from eigen_jax.executor.ray_cluster import RayWorkers
from eigen_jax.store import checkpoint

CPUS = 0.5  # of a worker, so that one core is enough for two


def threaded_ray() -> types.SimpleNamespace:
    """What `RayWorkers` uses of Ray, without a cluster: objects of this process are actors; one that exits is gone."""
    threads = concurrent.futures.ThreadPoolExecutor(16)
    started: list[object] = []

    def make_actor(kind: type, *arguments) -> types.SimpleNamespace:
        actor = threads.submit(kind, *arguments)

        def method(name: str) -> types.SimpleNamespace:
            def call(*given):
                return getattr(actor.result(), name)(*given)

            return types.SimpleNamespace(remote=lambda *given: threads.submit(call, *given))

        return types.SimpleNamespace(**{name: method(name) for name in ("ready", "run", "progress", "prepare", "stop")})

    def remote(kind: type) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            options=lambda **_: types.SimpleNamespace(remote=lambda *arguments: make_actor(kind, *arguments))
        )

    return types.SimpleNamespace(
        is_initialized=lambda: bool(started),
        init=lambda **_: started.append(1),
        shutdown=started.clear,
        cluster_resources=lambda: {"CPU": 2.0},
        put=lambda value: value,
        remote=remote,
        wait=lambda calls, **rest: concurrent.futures.wait(calls, rest["timeout"], "FIRST_COMPLETED"),
        get=concurrent.futures.Future.result,
        kill=lambda _: None,
        exceptions=types.SimpleNamespace(RayError=SystemExit, RayTaskError=()),
    )


def one_at_a_time(function):
    """Orbax waits for ever where two threads save at a time."""
    lock = threading.Lock()

    def call(*arguments, **rest):
        with lock:
            return function(*arguments, **rest)

    return call


class Leaver(Killer):
    """A teacher that ends its actor alone."""

    def end(self) -> None:
        raise SystemExit


@pytest.fixture(scope="module", params=["threads", pytest.param("cluster", marks=pytest.mark.slow)])
def ray(request) -> Iterator:
    """Ray, or what stands for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        if request.param == "cluster":
            yield pytest.importorskip("ray", reason="Ray is an extra: pip install 'eigen_jax[ray]'")
            return
        patch.setattr(ray_cluster, "_LOOK", 0.05)
        patch.setattr(checkpoint, "save", one_at_a_time(checkpoint.save))
        patch.setitem(sys.modules, "ray", threaded_ray())
        yield sys.modules["ray"]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(noise=1.0)


@pytest.fixture(scope="module")
def pair(dataset, ray) -> Iterator[PoolExecutor]:
    """Two workers of a cluster that is started for these tests, and ended after them."""
    workers = RayWorkers(dataset, size=2, address="local", cpus=CPUS)
    assert ray.is_initialized()
    with PoolExecutor(workers) as executor:
        yield executor
    assert not ray.is_initialized()


def test_two_workers_give_what_one_process_gives(dataset, pair, tmp_path):
    jobs = make_jobs(tmp_path, 3, networks=2)
    check_as_inline(jobs, dict(pair.run(jobs)), dataset)
    assert all(slot.worker is not None for slot in pair._slots)


def test_a_stop_saves_what_is_under_way_and_is_forgotten_by_the_next_job(dataset, pair, tmp_path):
    check_stop(pair, dataset, tmp_path)


def test_workers_find_what_is_the_users_own_and_one_line_says_what_they_cannot(dataset, pair, tmp_path):
    check_own_code(pair, dataset, tmp_path)


def test_a_teacher_that_cannot_be_sent_gets_one_line(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", fake := threaded_ray())
    fake.put = lambda payload: pickle.dumps(payload)
    with pytest.raises(
        ExecutorError, match=r"^cannot pickle '_thread.lock' object, so no worker can have the teacher$"
    ):
        RayWorkers(dataset, teacher=Fair(threading.Lock()), environment={})  # type: ignore[arg-type]
    assert not fake.is_initialized()


def test_a_run_folder_that_workers_do_not_see_is_told_in_one_line(pair, tmp_path):
    with pytest.raises(ExecutorError, match=rf"^a worker does not see the run folder {tmp_path}/elsewhere; choose one"):
        list(pair.run(make_jobs(tmp_path / "elsewhere", 1)))
    forget_jobs(pair)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc")
def test_a_worker_killed_in_the_middle_of_a_job_changes_no_outcome(dataset, ray, pair, tmp_path):
    """It kills itself, or its thread leaves, at its fourth step; what it has saved by then is gone on from."""
    for slot in pair._slots:  # makes room
        if slot.worker is not None:
            slot.worker.kill()
            slot.worker = None
    jobs = make_jobs(tmp_path, 3, save_every=0.0)
    killer = (Killer if isinstance(ray, types.ModuleType) else Leaver)(jobs[1].folder, once=True, after=4)
    workers = RayWorkers(dataset, teacher=killer, size=2, cpus=CPUS)
    with PoolExecutor(workers, retries=1) as executor:
        outcomes = dict(executor.run(jobs))
    assert killer.killed.exists()
    check_as_inline(jobs, outcomes, dataset, Fair())
    assert ray.is_initialized(), "who did not start the cluster does not end it"


def test_more_workers_than_the_cluster_holds_get_one_line(dataset, ray, pair):
    with pytest.raises(ExecutorError, match=r"too few for 1000 workers of 0\.5 CPUs and 0 GPUs; ask for fewer[^\n]*$"):
        RayWorkers(dataset, size=1_000, environment={}, cpus=CPUS)
    assert ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_where_nobody_answers_gets_one_line(dataset, address, monkeypatch):
    """Nobody is asked to start anything, which would take Ray minutes."""
    monkeypatch.setitem(sys.modules, "ray", fake := threaded_ray())
    with pytest.raises(ExecutorError, match=rf"^there is no Ray cluster at {address} [^\n]*ray start --head[^\n]*$"):
        RayWorkers(dataset, address=address, environment={})
    assert not fake.is_initialized()


def test_without_ray_the_extra_is_named(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ExecutorError, match=r"^Ray is not installed; install the extra: pip install 'eigen_jax\[ray\]'$"
    ):
        RayWorkers(dataset, environment={})
