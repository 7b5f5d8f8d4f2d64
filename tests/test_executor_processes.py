"""Jobs in worker processes: the outcomes of this process, whatever happens to workers."""

import collections
import dataclasses
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from executor_data import (
    CONFIG,
    Fair,
    Killer,
    Mistaken,
    leaves_of,
    make_dataset,
    make_job,
    network,
    same_bits,
)

from eigen_jax import checkpoint
from eigen_jax.data import Dataset
from eigen_jax.executor import ExecutorError, InlineExecutor, Job, Outcome, PoolExecutor, ProcessWorkers
from eigen_jax.executor.interface import Ready
from eigen_jax.executor.processes import ProcessWorker, python_path
from eigen_jax.resumable import StoppedError
from eigen_jax.teacher import read_logits
from eigen_jax.teacher.logits import MappedLogits

TESTS = Path(__file__).resolve().parent
# So that workers find the teachers of these tests.
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([python_path()["PYTHONPATH"], str(TESTS)])}

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system has no /proc/<pid>/task")


@pytest.fixture(scope="module", autouse=True)
def _kept_programs(tmp_path_factory) -> None:
    """Lets the workers of all these tests compile each program once."""
    ENVIRONMENT["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.mktemp("programs"))
    ENVIRONMENT["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(noise=1.0)


class Recorded(ProcessWorkers):
    """Worker processes, all of which are remembered."""

    def __init__(self, dataset, size: int = 2, *, teacher=None, **environment: str) -> None:
        environments = [ENVIRONMENT | environment] * size
        super().__init__(dataset, teacher=teacher, environments=environments)
        self.started: list[ProcessWorker] = []

    def start(self, slot: int) -> ProcessWorker:
        self.started.append(super().start(slot))
        return self.started[-1]


@pytest.fixture(scope="module")
def pair(dataset) -> Iterator[PoolExecutor]:
    """Two workers for all the tests that leave them alive."""
    with PoolExecutor(Recorded(dataset)) as executor:
        yield executor


def make_jobs(folder: Path, count: int = 4, *, networks: int = 1, **rest) -> list[Job]:
    architectures = [network(4 + each) for each in range(networks)] * count
    return [make_job(folder, each, architecture=architectures[each], tested=True, **rest) for each in range(count)]


def without_seconds(outcomes: dict[int, Outcome]) -> list[tuple]:
    return [(each.fitness, each.test_accuracy, each.cause) for _, each in sorted(outcomes.items())]


def check_as_inline(jobs: list[Job], outcomes: dict[int, Outcome], dataset: Dataset, teacher=None) -> None:
    """Checks that outcomes and all that was saved are those of one process without a disturbance."""
    alone = [
        dataclasses.replace(job, folder=job.folder.parent / "inline" / job.folder.name, save_every=3_600.0)
        for job in jobs
    ]
    expected = dict(InlineExecutor(dataset, teacher=teacher).run(alone))
    assert without_seconds(outcomes) == without_seconds(expected)
    assert all(job_outcome.cause is None for job_outcome in expected.values())
    for ours, theirs in zip(jobs, alone, strict=True):
        assert same_bits(leaves_of(ours.folder), leaves_of(theirs.folder))


def forget_jobs(executor: PoolExecutor) -> None:
    """Lets an executor be used again whose workers are idle, after an error that ends a search."""
    for slot in executor._slots:
        slot.position = None


# --- Outcomes ---------------------------------------------------------------------------------


def test_two_workers_give_what_one_process_gives(dataset, pair, tmp_path):
    jobs = make_jobs(tmp_path, networks=2)
    told: list[tuple[int, int]] = []
    outcomes = dict(pair.run(jobs, on_progress=lambda position, step, *_: told.append((position, step))))
    check_as_inline(jobs, outcomes, dataset)
    assert sorted(told) == [(position, 7) for position in range(4)]
    assert len(pair.workers.started) == 2


def test_a_later_landmark_goes_on_from_what_another_process_saved(dataset, pair, tmp_path):
    list(InlineExecutor(dataset).run(make_jobs(tmp_path, until=3)))
    jobs = make_jobs(tmp_path)
    check_as_inline(jobs, dict(pair.run(jobs)), dataset)


def test_an_individual_that_fails_is_an_outcome_and_its_worker_lives(dataset, pair, tmp_path):
    before = list(pair.workers.started)
    wild = make_job(tmp_path, 8, config=dataclasses.replace(CONFIG, learning_rate=1e30))
    slow = make_job(tmp_path, 9, until=100_000, time_limit=0.5)
    good = make_jobs(tmp_path, 2)
    outcomes = dict(pair.run([wild, slow, *good]))
    assert outcomes[0].cause is not None
    assert outcomes[0].cause.startswith("training diverged")
    assert outcomes[1].cause is not None
    assert outcomes[1].cause.startswith("training took more than 0.5 s, and was at step")
    check_as_inline(good, {0: outcomes[2], 1: outcomes[3]}, dataset)
    assert pair.workers.started == before


def test_a_stop_saves_what_is_under_way_and_others_go_on_from_there(dataset, pair, tmp_path):
    jobs = make_jobs(tmp_path, 2, until=10_000, save_every=3_600.0)
    told: set[int] = set()
    pair.should_stop = lambda: told == {0, 1}
    try:
        with pytest.raises(StoppedError):
            list(pair.run(jobs, on_progress=lambda position, *_: told.add(position)))
    finally:
        pair.should_stop = lambda: False
    steps = [checkpoint.latest_step(job.folder) or 0 for job in jobs]
    assert all(0 < step < 10_000 for step in steps)
    assert all(worker.process.poll() is None for worker in pair.workers.started)
    # A request to stop is for the job under way alone.
    further = [dataclasses.replace(job, until=step + 20) for job, step in zip(jobs, steps, strict=True)]
    check_as_inline(further, dict(pair.run(further)), dataset)


def test_a_folder_that_cannot_be_written_is_told_in_one_line(dataset, pair, tmp_path):
    job = dataclasses.replace(make_job(tmp_path), folder=Path("/proc/nothing"))
    with pytest.raises(ExecutorError, match=r"^cannot write /proc/nothing: .*; choose a folder that can be written$"):
        list(pair.run([job]))
    forget_jobs(pair)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system cannot limit another process's files")
def test_a_full_disk_is_told_in_one_line_and_what_was_saved_stays(pair, tmp_path):
    """A limit of the worker's files stands for the disk: no file may be longer than a kilobyte from step 3 on."""
    job = make_job(tmp_path, save_every=0.0, until=1_000)
    limited: list[int] = []

    def on_progress(position: int, step: int, *_: float) -> None:
        if step == 3:
            (slot,) = (slot for slot in pair._slots if slot.position == position)
            limited.append(slot.worker.process.pid)
            resource.prlimit(limited[0], resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))

    try:
        with pytest.raises(ExecutorError, match=r"cannot be saved in .*: File too large; free some") as caught:
            list(pair.run([job], on_progress=on_progress))
    finally:
        resource.prlimit(limited[0], resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        forget_jobs(pair)
    assert len(str(caught.value).splitlines()) == 1
    step = checkpoint.latest_step(job.folder)
    assert step is not None
    assert step >= 2
    assert [each.name for each in job.folder.iterdir() if each.name.startswith(".")] == [".lock"]


# --- Workers that die -------------------------------------------------------------------------


def test_a_worker_killed_in_the_middle_of_a_job_changes_no_outcome(dataset, pair, tmp_path):
    jobs = make_jobs(tmp_path, save_every=0.0)
    before = len(pair.workers.started)
    told: dict[int, list[int]] = collections.defaultdict(list)
    killed: list[int] = []

    def on_progress(position: int, step: int, *_: float) -> None:
        told[position].append(step)
        if step == 3 and not killed:
            killed.append(position)
            (slot,) = (slot for slot in pair._slots if slot.position == position)
            os.kill(slot.worker.process.pid, signal.SIGKILL)

    outcomes = dict(pair.run(jobs, on_progress=on_progress))
    assert len(pair.workers.started) == before + 1
    check_as_inline(jobs, outcomes, dataset)
    steps = told[killed[0]]
    assert steps[:3] == [1, 2, 3]
    assert steps[3] > 1, "it went on from a save"


@needs_proc
def test_a_job_that_kills_its_process_has_failed_and_the_others_have_not(dataset, tmp_path):
    jobs = make_jobs(tmp_path, 3)
    killer = Killer(jobs[1].folder, once=False)
    workers = Recorded(dataset, teacher=killer)
    with PoolExecutor(workers, retries=1) as executor:
        outcomes = dict(executor.run(jobs))
    assert killer.killed.exists()
    assert np.isnan(outcomes[1].fitness)
    assert outcomes.pop(1).cause == "its worker died 2 times at one place: the last one was killed by SIGKILL"
    check_as_inline([jobs[0], jobs[2]], {0: outcomes[0], 1: outcomes[2]}, dataset, Fair())
    assert sum(worker.process.returncode == -signal.SIGKILL for worker in workers.started) >= 2


def test_a_batch_that_no_memory_holds_makes_xla_abort_and_is_an_outcome(dataset, tmp_path, capfd):
    """XLA's CPU client ends the process where it cannot allocate what a program needs."""
    vast = make_job(tmp_path, 9, config=dataclasses.replace(CONFIG, eval_batch_size=2**40))
    with PoolExecutor(Recorded(dataset, 1), retries=0) as executor:
        outcomes = dict(executor.run([vast]))
    capfd.readouterr()
    assert np.isnan(outcomes[0].fitness)
    cause = outcomes[0].cause or ""
    assert cause.endswith("the last one was killed by SIGABRT") or cause.startswith("RESOURCE_EXHAUSTED")


def test_a_mistake_of_the_program_is_told_at_once(dataset, tmp_path, capfd):
    workers = Recorded(dataset, 1, teacher=Mistaken())
    with (
        PoolExecutor(workers) as executor,
        pytest.raises(ExecutorError, match=r"^a worker failed with TypeError.*report it$"),
    ):
        list(executor.run(make_jobs(tmp_path)))
    assert len(workers.started) == 1, "no job was tried again"
    assert "TypeError: a mistake" in capfd.readouterr().err


def test_workers_that_cannot_start_are_told_of(dataset, tmp_path, capfd):
    workers = Recorded(dataset, PYTHONHOME="/nowhere")
    with (
        PoolExecutor(workers) as executor,
        pytest.raises(ExecutorError, match=r"^workers end before they are ready \(the last one exited with code 1\)"),
    ):
        list(executor.run(make_jobs(tmp_path, 1)))
    capfd.readouterr()


# --- Processes --------------------------------------------------------------------------------


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


DRIVER = """
    import sys
    from pathlib import Path
    from executor_data import make_dataset, make_job, Fair
    from eigen_jax.executor import PoolExecutor, ProcessWorkers

    workers = ProcessWorkers(make_dataset(noise=1.0), teacher=Fair(0.02), environments=[{}] * 2)
    jobs = [make_job(Path(sys.argv[1]), number, save_every=0.0, until=10_000) for number in range(2)]
    told = {}
    with PoolExecutor(workers) as executor:

        def on_progress(position, step, *_):
            told[position] = step
            if len(told) == 2 and min(told.values()) > 2:
                print(*(slot.worker.process.pid for slot in executor._slots), sys.stdin.readline(), end="", flush=True)
                told.clear()

        list(executor.run(jobs, on_progress=on_progress))
"""


@needs_proc
def test_workers_leave_stdin_and_stdout_alone_and_end_when_their_driver_is_killed(dataset, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("a line for the driver\n")
        process.stdin.flush()
        *pids, said = process.stdout.readline().split(maxsplit=2)
        assert said == "a line for the driver\n"
        assert not any(is_gone(int(pid)) for pid in pids)
    finally:
        process.kill()
    deadline = time.monotonic() + 20
    while not all(is_gone(int(pid)) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.05)
    assert process.stdout.read() == ""
    assert process.stderr.read() == ""
    process.wait()
    # Their locks are free, and what they saved is whole.
    step = checkpoint.latest_step(make_job(tmp_path, 0).folder)
    assert step is not None
    further = [make_job(tmp_path, 0, until=step + 2)]
    check_as_inline(further, dict(InlineExecutor(dataset, teacher=Fair()).run(further)), dataset, Fair())


def threads_of(worker: ProcessWorker) -> int:
    return len(list(Path(f"/proc/{worker.process.pid}/task").iterdir()))


@needs_proc
def test_the_number_of_threads_of_a_worker_is_what_its_environment_says(dataset):
    """XLA's pool has NPROC threads, which the order of its sums depends on."""
    places = ProcessWorkers(dataset, environments=[ENVIRONMENT | {"NPROC": each} for each in ("1", "7")])
    waiting = workers = [places.start(slot) for slot in range(2)]
    try:
        while waiting:
            ready = places.messages(waiting, 60)
            assert {message for _, message in ready} == {Ready()}
            waiting = [each for each in waiting if each not in [worker for worker, _ in ready]]
        one, seven = (threads_of(worker) for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
    assert seven - one >= 6


# --- Teachers ---------------------------------------------------------------------------------


def test_a_teacher_in_a_mapped_file_travels_as_the_files_name(tmp_path):
    values = np.random.default_rng(3).normal(size=(16, 2, 2)).astype(np.float32)
    np.save(tmp_path / "logits.npy", values)
    teacher = read_logits(tmp_path / "logits.npy", num_examples=16, pad=0, flip=True, num_classes=2, device_bytes=0)
    assert isinstance(teacher, MappedLogits)
    again = pickle.loads(pickle.dumps(teacher))
    assert isinstance(again.logits, np.memmap)
    assert again.fingerprint == teacher.fingerprint
    examples, views = np.asarray([3, 0, 15], np.int32), np.asarray([1, 0, 1], np.int32)
    assert np.array_equal(again(examples, views, None), values[examples, views])
    # It is mapped, not copied.
    values[0, 0] = 5
    np.load(tmp_path / "logits.npy", mmap_mode="r+")[...] = values
    assert np.array_equal(again(examples, views, None), values[examples, views])


def test_a_pickled_mapped_teacher_is_small_and_one_in_memory_is_whole(tmp_path):
    logits = np.zeros((1_000, 2, 10), np.float32)
    np.save(tmp_path / "logits.npy", logits)
    slots = np.asarray([0, 1], np.int32)
    mapped = MappedLogits(np.load(tmp_path / "logits.npy", mmap_mode="r"), slots, "a")
    assert len(pickle.dumps(mapped)) < 2_000
    in_memory = MappedLogits(logits + 1, slots, "a")
    assert len(pickle.dumps(in_memory)) > logits.nbytes
    again = pickle.loads(pickle.dumps(in_memory))
    assert jax.device_get(again(np.asarray([7]), np.asarray([1]), None)).tolist() == [[1.0] * 10]
