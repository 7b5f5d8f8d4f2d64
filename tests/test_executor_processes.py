"""Jobs in worker processes: the outcomes of this process, whatever happens to workers."""

import dataclasses
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from executor_data import (
    CONFIG,
    Fair,
    Killer,
    Lost,
    Mistaken,
    check_as_inline,
    check_own_code,
    check_stop,
    elsewhere,
    forget_jobs,
    make_dataset,
    make_job,
    make_jobs,
)
from refusals import refuses

from eigen_jax.data import Dataset
from eigen_jax.executor import ExecutorError, InlineExecutor, PoolExecutor, ProcessWorkers
from eigen_jax.executor.interface import Died, Ready
from eigen_jax.executor.processes import ProcessWorker, python_path
from eigen_jax.store import checkpoint
from eigen_jax.teacher import LogitsLayout, read_logits
from eigen_jax.teacher.logits import MappedLogits

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system has no /proc/<pid>/task")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(noise=1.0)


class Recorded(ProcessWorkers):
    """Worker processes, all of which are remembered."""

    def __init__(self, dataset, size: int = 2, *, teacher=None, **environment: str) -> None:
        super().__init__(dataset, teacher=teacher, environments=[environment] * size)
        self.started: list[ProcessWorker] = []

    def start(self, slot: int) -> ProcessWorker:
        self.started.append(super().start(slot))
        return self.started[-1]


@pytest.fixture(scope="module")
def pair(dataset) -> Iterator[PoolExecutor]:
    """Two workers for all the tests that leave them alive."""
    with PoolExecutor(Recorded(dataset)) as executor:
        yield executor


def process_of(executor, position: int) -> subprocess.Popen:
    """That of the worker which runs a job."""
    (process,) = (slot.worker.process for slot in executor._slots if slot.position == position)
    return process


def test_two_workers_give_what_one_process_gives_and_go_on_from_what_it_saved(dataset, pair, tmp_path):
    list(InlineExecutor(dataset).run(make_jobs(tmp_path, 1, until=3)))
    jobs, before = make_jobs(tmp_path, 4, networks=2), len(pair.workers.started)
    told: list[tuple[int, int]] = []
    outcomes = dict(pair.run(jobs, on_progress=lambda position, step, *_: told.append((position, step))))
    check_as_inline(jobs, outcomes, dataset)
    assert sorted(told) == [(position, 7) for position in range(4)]
    assert len(pair.workers.started) == max(before, 2)


def test_an_individual_that_fails_is_an_outcome_and_its_worker_lives(dataset, pair, tmp_path):
    list(pair.run(make_jobs(tmp_path / "before", 2)))
    before = list(pair.workers.started)
    wild = make_job(tmp_path, 8, config=dataclasses.replace(CONFIG, learning_rate=1e30))
    slow = make_job(tmp_path, 9, until=100_000, time_limit=0.5)
    good = make_jobs(tmp_path, 2)
    outcomes = dict(pair.run([wild, slow, *good]))
    assert str(outcomes[0].cause).startswith("training diverged")
    assert str(outcomes[1].cause).startswith("training took more than 0.5 s, and was at step")
    check_as_inline(good, {0: outcomes[2], 1: outcomes[3]}, dataset)
    assert pair.workers.started == before


def test_a_stop_saves_what_is_under_way_and_others_go_on_from_there(dataset, pair, tmp_path):
    check_stop(pair, dataset, tmp_path)
    assert all(slot.worker.process.poll() is None for slot in pair._slots)


def test_workers_find_what_is_the_users_own_and_one_line_says_what_they_cannot(dataset, pair, tmp_path):
    check_own_code(pair, dataset, tmp_path)


class Unsendable(Fair):
    """A teacher that cannot leave its process."""

    def __reduce__(self):
        raise TypeError("it holds a connection")


def test_a_teacher_that_no_worker_can_have_gets_one_line(dataset, tmp_path, capfd):
    with refuses(ExecutorError, "it holds a connection, so no worker can have it; use the executor 'inline'"):
        Recorded(dataset, 1, teacher=Unsendable()).start(0)
    lost = Fair()
    lost.lost = Lost()  # type: ignore[attr-defined]
    with (
        PoolExecutor(Recorded(dataset, 1, teacher=lost)) as executor,
        pytest.raises(ExecutorError, match=r"^a worker cannot read what it was sent \(ModuleNotFoundError: [^\n]*$"),
    ):
        list(executor.run(make_jobs(tmp_path, 1)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system cannot limit another process's files")
def test_a_full_disk_is_told_in_one_line_and_what_was_saved_is_gone_on_from(dataset, pair, tmp_path):
    """A limit of the worker's files stands for the disk: no file may be longer than a kilobyte from step 3 on."""
    job = make_job(tmp_path, save_every=0.0, until=1_000)
    limited: list[int] = []

    def on_progress(position: int, step: int, *_: float) -> None:
        if step == 3:
            limited.append(process_of(pair, position).pid)
            resource.prlimit(limited[0], resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))

    try:
        with pytest.raises(ExecutorError, match=r"cannot be saved in .*: File too large; free some[^\n]*$"):
            list(pair.run([job], on_progress=on_progress))
    finally:
        resource.prlimit(limited[0], resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        forget_jobs(pair)
    step = checkpoint.latest_step(job.folder) or 0
    assert step >= 2
    further = [dataclasses.replace(job, until=step + 2)]
    check_as_inline(further, dict(pair.run(further)), dataset)
    # At once, a thread of Orbax's may still be writing what is to be cleared away.
    assert [each.name for each in job.folder.iterdir() if each.name.startswith(".")] == [".lock"]


@pytest.mark.parametrize(
    ("variables", "numbers", "reason"),
    [({}, [signal.SIGKILL], "was killed by SIGKILL"), ({"PYTHONHOME": "/nowhere"}, [], "exited with code 1")],
)
def test_how_a_worker_ended_is_told(dataset, variables, numbers, reason, capfd):
    places = Recorded(dataset, 1, **variables)
    worker = places.start(0)
    for number in numbers:
        worker.process.send_signal(number)
    assert places.messages([worker], 60) == [(worker, Died(reason))]
    capfd.readouterr()


def test_a_worker_that_finds_no_device_says_so_in_one_line_and_is_not_tried_again(dataset, tmp_path, capfd):
    workers = Recorded(dataset, 1, JAX_PLATFORMS="abacus")
    with (
        PoolExecutor(workers) as executor,
        pytest.raises(ExecutorError, match=r"^a worker cannot start: JAX finds no device with JAX_PLATFORMS=abacus "),
    ):
        list(executor.run(make_jobs(tmp_path, 1)))
    assert len(workers.started) == 1
    assert capfd.readouterr() == ("", "")


def test_a_worker_draws_as_its_driver_does_and_a_nan_that_is_looked_for_ends_both(
    dataset, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("JAX_THREEFRY_PARTITIONABLE", "1")
    jobs = make_jobs(tmp_path, 1)
    wild = make_job(tmp_path, 8, config=dataclasses.replace(CONFIG, learning_rate=1e30))
    with (
        jax.threefry_partitionable(False),
        jax.debug_nans(True),
        PoolExecutor(Recorded(dataset, 1)) as executor,
    ):
        check_as_inline(jobs, dict(executor.run(jobs)), dataset)
        with pytest.raises(
            ExecutorError, match=r"^0.8: invalid value \(nan\) .*; the traceback in the worker's output"
        ):
            list(executor.run([wild]))
        assert "in train_step" in capfd.readouterr().err
        with pytest.raises(FloatingPointError):
            list(InlineExecutor(dataset).run([elsewhere(wild)]))


def test_a_mistake_of_the_program_is_told_at_once_and_a_worker_ends_when_its_driver_hangs_up(dataset, tmp_path, capfd):
    workers = Recorded(dataset, 1, teacher=Mistaken())
    with PoolExecutor(workers) as executor:
        with pytest.raises(ExecutorError, match=r"^a worker failed with TypeError.*report it$"):
            list(executor.run(make_jobs(tmp_path, 4)))
        (worker,) = workers.started  # no job was tried again
        shown = capfd.readouterr()
        assert "TypeError: a mistake" in shown.err
        assert shown.out == ""
        # Those are for the driver to deal with, which a machine that is taken away tells as well.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            worker.process.send_signal(number)
        worker.connection.close()
        assert worker.process.wait(60) == 0


@pytest.mark.slow
@needs_proc
def test_a_killed_worker_changes_no_outcome_and_a_job_that_kills_its_process_fails_alone(dataset, tmp_path):
    jobs = make_jobs(tmp_path, 4, save_every=0.0)
    killer = Killer(jobs[1].folder, once=False)
    workers = Recorded(dataset, teacher=killer)
    told: list[int] = []

    def on_progress(position: int, step: int, *_: float) -> None:
        if position == 0:
            told.append(step)
            if told == [1, 2, 3]:
                process_of(executor, 0).kill()

    with PoolExecutor(workers, retries=1) as executor:
        outcomes = dict(executor.run(jobs, on_progress=on_progress))
    assert killer.killed.exists()
    assert told[:3] == [1, 2, 3]
    assert told[3] > 1, "it went on from a save"
    failed = outcomes.pop(1)
    assert failed.measurement is None
    assert failed.cause == "its worker died 2 times at one place: the last one was killed by SIGKILL"
    others = [jobs[position] for position in (0, 2, 3)]
    check_as_inline(others, {each: outcomes[at] for each, at in enumerate((0, 2, 3))}, dataset, Fair())
    assert len(workers.started) <= 2 + 3, "one more for each death"


def is_gone(pid: str) -> bool:
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


@pytest.mark.slow
@needs_proc
def test_workers_leave_stdin_and_stdout_alone_and_end_when_their_driver_is_killed(dataset, tmp_path):
    argv, pipe = [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path)], subprocess.PIPE
    process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=os.environ | python_path())
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("a line for the driver\n")
        process.stdin.flush()
        *pids, said = process.stdout.readline().split(maxsplit=2)
        assert said == "a line for the driver\n"
        assert not any(map(is_gone, pids))
    finally:
        process.kill()
    deadline = time.monotonic() + 60
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.05)
    assert process.communicate() == ("", "")
    # Their locks are free, and what they saved is whole.
    step = checkpoint.latest_step(make_job(tmp_path, 0).folder)
    assert step is not None
    further = [make_job(tmp_path, 0, until=step + 2)]
    check_as_inline(further, dict(InlineExecutor(dataset, teacher=Fair()).run(further)), dataset, Fair())


def states_of(pids: Iterable[str]) -> str:
    """The state of each process, as a letter of Linux's."""
    return "".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids)


def cpu_seconds(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@needs_proc
def test_workers_stop_with_their_driver_and_go_on_with_it(tmp_path):
    """By Ctrl-Z, which a terminal tells the whole process group of, and where the driver alone is stopped."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path)],
        stdin=pipe,
        stdout=pipe,
        text=True,
        env=os.environ | python_path(),
        process_group=0,
    )
    to_driver, from_driver = process.stdin, process.stdout
    assert to_driver is not None
    assert from_driver is not None

    def pids_when_both_trained() -> list[str]:
        to_driver.write("\n")
        to_driver.flush()
        return from_driver.readline().split()

    try:
        pids = pids_when_both_trained()
        os.killpg(process.pid, signal.SIGTSTP)
        deadline = time.monotonic() + 60
        while states_of([str(process.pid), *pids]) != "TTT":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGCONT)
        assert pids_when_both_trained() == pids

        process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)  # what was under way ends
        before = [cpu_seconds(pid) for pid in pids]
        time.sleep(2.0)
        assert [cpu_seconds(pid) - one for pid, one in zip(pids, before, strict=True)] == pytest.approx([0, 0], abs=0.3)
        process.send_signal(signal.SIGCONT)
        assert pids_when_both_trained() == pids
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@needs_proc
def test_the_number_of_threads_of_a_worker_is_what_its_environment_says(dataset):
    """XLA's pool has NPROC threads, which the order of its sums depends on."""
    counts = []
    for number in ("1", "7"):
        places = Recorded(dataset, 1, NPROC=number)
        worker = places.start(0)
        assert places.messages([worker], 60) == [(worker, Ready())]
        counts.append(len(list(Path(f"/proc/{worker.process.pid}/task").iterdir())))
        worker.kill()
    assert counts[1] - counts[0] >= 6


def test_a_pickled_teacher_in_a_mapped_file_is_the_files_name_and_one_in_memory_is_whole(tmp_path):
    values = np.random.default_rng(3).normal(size=(1_000, 2, 10)).astype(np.float32)
    np.save(tmp_path / "logits.npy", values)
    layout = LogitsLayout(num_classes=10, pad=0, flip=True)
    teacher = read_logits(tmp_path / "logits.npy", layout, num_examples=1_000, device_bytes=0)
    assert isinstance(teacher, MappedLogits)
    pickled = pickle.dumps(teacher)
    assert len(pickled) < 2_000
    again = pickle.loads(pickled)
    assert isinstance(again.logits, np.memmap)
    assert again.fingerprint == teacher.fingerprint
    examples, views = np.asarray([3, 0, 15], np.int32), np.asarray([1, 0, 1], np.int32)
    assert np.array_equal(again(examples, views, None), values[examples, views])
    pickled = pickle.dumps(MappedLogits(values, teacher.slots, "a"))
    assert len(pickled) > values.nbytes
    assert np.array_equal(pickle.loads(pickled)(examples, views, None), values[examples, views])
    # It is mapped, not copied.
    values[0, 0] = 5
    np.load(tmp_path / "logits.npy", mmap_mode="r+")[...] = values
    assert np.array_equal(again(examples, views, None), values[examples, views])
