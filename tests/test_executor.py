"""Jobs in this process: what an outcome holds, that it resumes, and that failures stay inside."""

import dataclasses
import itertools
import threading

import jax
import numpy as np
import pytest
from executor_data import CONFIG, leaves_of, make_dataset, make_job, network, same_bits
from jax import numpy as jnp

from eigen_jax import checkpoint, platforms, resumable
from eigen_jax.checkpoint import CheckpointError
from eigen_jax.data import Dataset
from eigen_jax.executor import InlineExecutor, Job, Outcome, jobs, prepare_job, run_job, session
from eigen_jax.resumable import Seconds, StoppedError
from eigen_jax.training import TrainConfigError, batch_shapes, loop, programs


@pytest.fixture(scope="module")
def bright_and_dark() -> Dataset:
    return make_dataset()


@pytest.fixture
def job(tmp_path):
    """Makes jobs of one individual, whose folder is this test's own."""

    def make(until: int, **rest) -> Job:
        return make_job(tmp_path, until=until, **rest)

    return make


def elsewhere(job: Job) -> Job:
    """The same job in another folder."""
    return dataclasses.replace(job, folder=job.folder.parent / "elsewhere" / job.folder.name)


def dtypes_of(job: Job) -> set[np.dtype]:
    return {leaf.dtype for leaf in leaves_of(job.folder)}


# --- Outcomes ---------------------------------------------------------------------------------


def test_an_outcome_has_the_validation_accuracy_and_the_state_is_saved_at_the_landmark(bright_and_dark, job):
    outcome = run_job(job(40), bright_and_dark)
    assert outcome.cause is None
    assert outcome.fitness == 1.0
    assert outcome.test_accuracy is None
    assert outcome.seconds.compiling > 0
    assert outcome.seconds.training > 0
    assert checkpoint.steps(job(40).folder) == (40,)


def test_test_images_are_looked_at_only_where_that_is_asked_for(bright_and_dark, job):
    """With the test labels exchanged, what is right on validation images is wrong on all test images."""
    exchanged = dataclasses.replace(bright_and_dark, test_labels=1 - bright_and_dark.test_labels)
    outcome = run_job(job(40, tested=True), exchanged)
    assert (outcome.fitness, outcome.test_accuracy) == (1.0, 0.0)
    outcome = run_job(job(40), exchanged)
    assert (outcome.fitness, outcome.test_accuracy) == (1.0, None)


def test_two_landmarks_give_the_same_bits_as_one(bright_and_dark, job):
    run_job(job(3), bright_and_dark)
    second = run_job(job(7), bright_and_dark)
    at_once = run_job(elsewhere(job(7)), bright_and_dark)
    assert same_bits(leaves_of(job(7).folder), leaves_of(elsewhere(job(7)).folder))
    assert second.fitness == at_once.fitness


def test_a_job_finds_what_was_prepared_and_its_outcome_is_the_same(bright_and_dark, job, monkeypatch):
    monkeypatch.setattr(programs, "_store", programs._Store(8, 1_000))
    without = run_job(elsewhere(job(7)), bright_and_dark)
    monkeypatch.setattr(programs, "_store", programs._Store(8, 1_000))
    done = threading.Event()
    prepare_job(job(7), bright_and_dark, batch_shapes(jax.random.key(0), bright_and_dark, config=CONFIG))
    programs.in_background(done.set)
    assert done.wait(60)
    monkeypatch.setattr(programs._Store, "_build", None)  # nothing is left to build
    prepared = run_job(job(7), bright_and_dark)
    assert same_bits(leaves_of(job(7).folder), leaves_of(elsewhere(job(7)).folder))
    assert prepared.fitness == without.fitness
    assert prepared.seconds.compiling < without.seconds.compiling


def test_a_job_trains_in_the_dtype_of_its_config(bright_and_dark, job):
    half, exact = job(40, config=dataclasses.replace(CONFIG, dtype="bfloat16")), elsewhere(job(40))
    assert run_job(half, bright_and_dark).fitness == 1.0
    run_job(exact, bright_and_dark)
    assert dtypes_of(half) == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert not same_bits(leaves_of(half.folder), leaves_of(exact.folder))


def test_a_job_goes_the_way_of_a_gpu(bright_and_dark, job, monkeypatch):
    """Derived gradients, chunks of steps in one program and single ones for what is left over, bfloat16 maps."""
    monkeypatch.setattr(platforms, "current", lambda: dataclasses.replace(platforms.GPU, steps_per_call=15))
    called = []
    compile_training = loop.compile_training

    def watched(state, batch, calls, **rest):
        called.append(sorted(calls))
        return compile_training(state, batch, calls, **rest)

    monkeypatch.setattr(loop, "compile_training", watched)
    half = job(40, config=dataclasses.replace(CONFIG, dtype="bfloat16"))
    outcome = run_job(half, bright_and_dark)
    assert called == [[1, 15]]
    assert outcome.fitness == 1.0
    assert checkpoint.latest_step(half.folder) == 40
    assert dtypes_of(half) == {jnp.dtype("float32"), jnp.dtype("int32")}


class Contrarian:
    """A teacher that is sure of the wrong class."""

    fingerprint = "contrarian"

    def __init__(self, dataset: Dataset) -> None:
        self.labels = dataset.train_labels

    def __call__(self, examples, views, images):
        return 20 * jax.nn.one_hot(1 - self.labels[examples], 2)


def test_a_job_mimics_the_teacher_that_it_is_given(bright_and_dark, job):
    teacher = Contrarian(bright_and_dark)
    assert run_job(job(40), bright_and_dark, teacher=teacher).fitness == 0.0
    deaf = elsewhere(job(40, config=dataclasses.replace(CONFIG, mimicry_weight=0.0)))
    assert run_job(deaf, bright_and_dark, teacher=teacher).fitness == 1.0


# --- Failures of an individual ----------------------------------------------------------------


def check_failed(outcome: Outcome) -> str:
    """Checks that a job failed and says why in one line, which is returned."""
    assert np.isnan(outcome.fitness)
    assert outcome.test_accuracy is None
    assert outcome.cause is not None
    assert len(outcome.cause.splitlines()) == 1
    return outcome.cause


def test_divergence_is_an_outcome_with_its_cause(bright_and_dark, job):
    wild = job(50, config=dataclasses.replace(CONFIG, learning_rate=1e30), tested=True)
    outcome = run_job(wild, bright_and_dark)
    assert check_failed(outcome).startswith("training diverged by step 50")
    assert outcome.seconds.total > 0
    assert checkpoint.steps(wild.folder) == ()  # what is not finite is not saved


def test_what_is_not_a_number_in_the_images_is_an_outcome(bright_and_dark, job):
    broken = dataclasses.replace(bright_and_dark, train_images=bright_and_dark.train_images.at[3].set(jnp.nan))
    cause = check_failed(run_job(job(7), broken))
    assert cause == "training diverged by step 7: the mean loss is nan; lower the learning rate"


def test_what_xla_cannot_compile_is_an_outcome(bright_and_dark, job, monkeypatch):
    """XLA knows the option, and refuses to compile with a level that is no number."""
    unknown = dataclasses.replace(platforms.current(), compiler_options={"xla_backend_optimization_level": "none"})
    monkeypatch.setattr(platforms, "current", lambda: unknown)
    monkeypatch.setattr(programs, "_known", dict)
    monkeypatch.setattr(programs, "_store", programs._Store(8, 1_000))
    cause = check_failed(run_job(job(7), bright_and_dark))
    assert "xla_backend_optimization_level" in cause


def test_a_lack_of_device_memory_is_an_outcome(bright_and_dark, job, monkeypatch):
    def exhaust(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore lines")

    monkeypatch.setattr(resumable, "train_to", exhaust)
    assert check_failed(run_job(job(5), bright_and_dark)) == "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."


class Vast:
    """A teacher whose answer no memory holds, of which XLA says so for real."""

    fingerprint = "vast"

    def __call__(self, examples, views, images):
        return jnp.zeros((examples.shape[0], 2**50), jnp.int8)


def test_what_no_device_memory_holds_is_an_outcome(bright_and_dark, job):
    cause = check_failed(run_job(job(3), bright_and_dark, teacher=Vast()))
    assert cause.startswith("RESOURCE_EXHAUSTED: Out of memory")


@pytest.mark.parametrize(
    ("error", "cause"),
    [(MemoryError(), "MemoryError"), (RecursionError("maximum recursion depth exceeded\nat"), "maximum recursion")],
)
def test_a_lack_of_memory_or_stack_of_the_host_is_an_outcome(bright_and_dark, job, monkeypatch, error, cause):
    def exhaust(*_, **__):
        raise error

    monkeypatch.setattr(jobs, "evaluate", exhaust)
    assert check_failed(run_job(job(3), bright_and_dark)).startswith(cause)


def test_a_long_cause_is_cut(bright_and_dark, job, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("x" * 100_000)

    monkeypatch.setattr(resumable, "train_to", fail)
    assert len(check_failed(run_job(job(3), bright_and_dark))) == 300


def test_a_job_past_its_time_bound_is_an_outcome(bright_and_dark, job):
    outcome = run_job(job(100_000, time_limit=0.3), bright_and_dark)
    assert check_failed(outcome).startswith("training took more than 0.3 s, and was at step ")
    assert outcome.seconds.total >= 0.3


# --- What is no fault of an individual --------------------------------------------------------


def test_a_mistake_of_the_program_is_not_taken_for_a_failed_individual(bright_and_dark, job, monkeypatch):
    def mistake(*_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr(resumable, "train_to", mistake)
    with pytest.raises(TypeError, match="a bug"):
        run_job(job(5), bright_and_dark)


def test_a_folder_that_cannot_be_written_is_not_taken_for_a_failed_individual(bright_and_dark, tmp_path, job):
    (tmp_path / "individuals").write_text("a file")
    with pytest.raises(CheckpointError, match="choose a folder that can be written"):
        run_job(job(5), bright_and_dark)


def test_a_disk_that_is_full_when_a_job_is_saved_is_not_taken_for_a_failed_individual(
    bright_and_dark, job, monkeypatch
):
    run_job(job(3), bright_and_dark)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(CheckpointError, match="No space left on device; free some space there"):
        run_job(job(7), bright_and_dark)
    assert checkpoint.steps(job(7).folder) == (3,)


def test_settings_that_do_not_fit_the_data_are_not_taken_for_a_failed_individual(bright_and_dark, job):
    with pytest.raises(TrainConfigError, match="the training set has only 16 images"):
        run_job(job(5, config=dataclasses.replace(CONFIG, batch_size=17)), bright_and_dark)


def test_a_job_that_is_stopped_is_saved_and_goes_on(bright_and_dark, job):
    asked = itertools.count()
    with pytest.raises(StoppedError):
        run_job(job(7), bright_and_dark, should_stop=lambda: next(asked) >= 3)
    assert checkpoint.latest_step(job(7).folder) == 3
    told: list[int] = []
    run_job(job(7, save_every=0), bright_and_dark, on_progress=lambda step, *_: told.append(step))
    run_job(elsewhere(job(7)), bright_and_dark)
    assert told == [4, 5, 6, 7]
    assert same_bits(leaves_of(job(7).folder), leaves_of(elsewhere(job(7)).folder))


# --- The executor -----------------------------------------------------------------------------


def test_the_inline_executor_runs_jobs_in_their_order(bright_and_dark, tmp_path):
    some = [make_job(tmp_path, number) for number in (5, 2, 8)]
    told: list[tuple[int, int]] = []
    executor = InlineExecutor(bright_and_dark)
    outcomes = list(executor.run(some, on_progress=lambda position, step, *_: told.append((position, step))))
    assert told == [(0, 7), (1, 7), (2, 7)]
    assert [position for position, _ in outcomes] == [0, 1, 2]
    for (_, outcome), each in zip(outcomes, some, strict=True):
        alone = run_job(elsewhere(each), bright_and_dark)
        assert outcome.fitness == alone.fitness
        assert same_bits(leaves_of(each.folder), leaves_of(elsewhere(each).folder))
    assert list(executor.run([])) == []


def test_the_inline_executor_prepares_the_next_job_before_it_runs_one(bright_and_dark, tmp_path, monkeypatch):
    events: list[tuple[str, str]] = []
    monkeypatch.setattr(session, "prepare_job", lambda job, *_: events.append(("prepare", job.name)))

    def watched(job, *arguments, **rest):
        events.append(("run", job.name))
        return Outcome(fitness=0.5, seconds=Seconds())

    monkeypatch.setattr(session, "run_job", watched)
    list(InlineExecutor(bright_and_dark).run([make_job(tmp_path, number) for number in range(3)]))
    for position in range(3):
        before = events[: events.index(("run", f"0.{position}"))]
        assert ("prepare", f"0.{position}") in before
        assert position == 2 or ("prepare", f"0.{position + 1}") in before
        assert ("prepare", f"0.{position + 2}") not in before


def test_a_failed_job_costs_the_others_nothing(bright_and_dark, tmp_path):
    wild = dataclasses.replace(CONFIG, learning_rate=1e30)
    good = [make_job(tmp_path, number, architecture=network(2 + number)) for number in range(2)]
    bad = make_job(tmp_path, 9, config=wild)
    outcomes = dict(InlineExecutor(bright_and_dark).run([good[0], bad, good[1]]))
    check_failed(outcomes[1])
    alone = [run_job(elsewhere(each), bright_and_dark).fitness for each in good]
    assert [outcomes[position].fitness for position in (0, 2)] == alone


def test_the_inline_executor_stops_with_the_job_under_way_saved(bright_and_dark, tmp_path):
    asked = itertools.count()
    some = [make_job(tmp_path, number) for number in range(3)]
    executor = InlineExecutor(bright_and_dark, should_stop=lambda: next(asked) >= 8 + 3)  # 8 questions a job
    running = executor.run(some)
    assert next(running)[0] == 0
    with pytest.raises(StoppedError):
        next(running)
    assert [checkpoint.latest_step(each.folder) for each in some] == [7, 3, None]
    assert len(list(InlineExecutor(bright_and_dark).run(some))) == 3
