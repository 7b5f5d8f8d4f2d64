"""Jobs in this process: what an outcome holds, that it resumes, and that failures stay inside."""

import dataclasses
import re
import threading
import time
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from executor_data import (
    CONFIG,
    SHAPE,
    Fair,
    after,
    check_as_inline,
    elsewhere,
    leaves_of,
    make_dataset,
    make_job,
    measured,
    reproducible,
    same_bits,
)
from jax import numpy as jnp
from sklearn import metrics
from training_data import wait_for_background

from eigen_jax import clock, platforms, resumable
from eigen_jax.architecture import Architecture, Layer, count_flops
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.executor import Inheritance, InlineExecutor, Job, Outcome, run_job, session
from eigen_jax.executor.interface import Overdue, Progress
from eigen_jax.executor.pickling import pack
from eigen_jax.resumable import Care, Seconds
from eigen_jax.store import checkpoint
from eigen_jax.store.checkpoint import CheckpointError
from eigen_jax.store.locks import StoppedError, never
from eigen_jax.training import Programs, init_state, latency, loop, programs, start_from

WILD = dataclasses.replace(CONFIG, learning_rate=1e30)


@pytest.fixture(scope="module")
def bright_and_dark() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="module")
def trained(bright_and_dark, tmp_path_factory) -> tuple[Outcome, Job]:
    """A job up to step 40, untested."""
    job = make_job(tmp_path_factory.mktemp("trained"), until=40)
    return run_job(job, bright_and_dark, programs=Programs()), job


@pytest.fixture
def job(tmp_path):
    """Makes jobs of one individual, whose folder is this test's own."""
    return lambda until, **rest: make_job(tmp_path, until=until, **rest)


def test_an_outcome_has_the_validation_accuracy_and_the_state_is_saved_at_the_landmark(bright_and_dark, trained):
    """With the test labels exchanged, what is right on validation images is wrong on all test images."""
    outcome, job = trained
    assert (accuracy_of(outcome), outcome.test_accuracy, outcome.cause) == (1.0, None, None)
    assert outcome.seconds.compiling > 0
    assert outcome.seconds.training > 0
    assert checkpoint.steps(job.folder) == (40,)
    exchanged = dataclasses.replace(bright_and_dark, test_labels=1 - bright_and_dark.test_labels)
    tested = run_job(dataclasses.replace(job, tested=True), exchanged)
    assert (accuracy_of(tested), tested.test_accuracy) == (1.0, 0.0)


def are_equal(ours: Any, theirs: Any) -> bool:
    """Whether two pytrees of one structure hold the same bits."""
    return jax.tree.all(jax.tree.map(checkpoint.is_same, ours, theirs))


def test_a_network_inherits_the_weights_of_the_same_layers_where_they_are_of_the_same_shape(bright_and_dark, job):
    """An identical child is, before it is trained, its parent, to the last bit of every logit."""

    def conv(source: int, channels: int) -> Layer:
        return Layer(op="conv", inputs=(source,), channels=channels, kernel=3, stride=1)

    two = (conv(-1, 4), conv(0, 8))
    source = dataclasses.replace(job(5), architecture=Architecture(input_shape=SHAPE, layers=two))
    run_job(source, bright_and_dark)
    parent = checkpoint.restore(source.folder, "state")

    def child_of(layers: tuple[int | None, ...], channels: int = 8, *, classifier: bool = True) -> Any:
        own = (*two[: len(layers) - 1], conv(len(layers) - 2, channels))
        inheritance = Inheritance(folder=source.folder, layers=layers, classifier=classifier)
        network = build_network(Architecture(input_shape=SHAPE, layers=own), num_classes=2)
        drawn = init_state(source.key, network=network, config=CONFIG, input_shape=SHAPE)
        return network, drawn, start_from(drawn, session.inherited(inheritance, drawn.trained), config=CONFIG)

    network, _, same = child_of((0, 1))
    images = bright_and_dark.validation_images
    logits = network.apply({name: parent[name] for name in ("params", "batch_stats")}, images, train=False)
    assert are_equal(network.apply(same.variables, images, train=False), logits)
    _, drawn, other = child_of((None, 0), classifier=False)  # an 8-wide layer of a 4-wide one
    assert are_equal(other.trained, drawn.trained)
    _, drawn, wider = child_of((0, 1), channels=6)
    assert are_equal(wider.params["layer_0"], parent["params"]["layer_0"])
    assert are_equal(wider.batch_stats["layer_0"], parent["batch_stats"]["layer_0"])
    for name in ("layer_1", "classifier"):
        assert are_equal(wider.params[name], drawn.params[name])


def test_a_job_starts_from_what_it_inherits_and_goes_on_from_its_own(bright_and_dark, trained, job):
    """With no learning rate to speak of, the weights stay what they were at the start."""
    still = dataclasses.replace(CONFIG, learning_rate=1e-30)
    inheritance = Inheritance(folder=trained[1].folder, layers=(0,), classifier=True)
    heir = dataclasses.replace(job(1, config=still), inheritance=inheritance)
    run_job(heir, bright_and_dark)
    weights = [checkpoint.restore(each.folder, "state")["params"] for each in (trained[1], heir)]
    assert are_equal(*weights)
    gone = dataclasses.replace(heir, until=2, inheritance=dataclasses.replace(inheritance, folder=heir.folder / "gone"))
    assert run_job(gone, bright_and_dark).cause is None, "once it is under way, its parent is not needed"
    with pytest.raises(CheckpointError, match="gone holds no intact checkpoint"):
        run_job(elsewhere(gone), bright_and_dark)


def test_a_job_finds_what_was_prepared_and_its_outcome_is_the_same(bright_and_dark, job, monkeypatch):
    without = run_job(elsewhere(job(7)), bright_and_dark)
    prepared = session.Session(bright_and_dark, None)
    prepared.prepare(job(7))
    wait_for_background(prepared.programs)
    monkeypatch.setattr("eigen_jax.training.programs._compile", None)  # nothing is left to compile
    ours, theirs = run_job(job(7), bright_and_dark, programs=prepared.programs), without
    assert reproducible(ours.measurement) == reproducible(theirs.measurement)
    assert same_bits(leaves_of(job(7).folder), leaves_of(elsewhere(job(7)).folder))


@pytest.mark.parametrize(
    ("platform", "calls"),
    [(platforms.CPU, [1]), (dataclasses.replace(platforms.GPU, steps_per_call=15), [1, 15])],
    ids=["cpu", "gpu"],
)
def test_a_job_trains_in_the_dtype_of_its_config_in_the_way_of_the_platform(
    bright_and_dark, job, trained, monkeypatch, platform, calls
):
    """On a GPU: derived gradients, chunks of steps in one program and single ones for what is left over."""
    monkeypatch.setattr(platforms, "current", lambda: platform)
    called = []
    compile_call = loop.compile_call

    def watched(state, batch, steps, **rest):
        called.append(steps)
        return compile_call(state, batch, steps, **rest)

    monkeypatch.setattr(loop, "compile_call", watched)
    half = job(40, config=dataclasses.replace(CONFIG, dtype="bfloat16"))
    assert accuracy_of(run_job(half, bright_and_dark, programs=Programs())) == 1.0
    *trained_with, measured_with = called
    assert sorted(trained_with) == calls
    assert measured_with == max(calls)  # whose memory counts
    assert checkpoint.latest_step(half.folder) == 40
    assert {leaf.dtype for leaf in leaves_of(half.folder)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert not same_bits(leaves_of(half.folder), leaves_of(trained[1].folder))


def accuracy_of(outcome: Outcome) -> float | None:
    return outcome.measurement.accuracy if outcome.measurement else None


def check_failed(outcome: Outcome) -> str:
    """Checks that a job failed and says why in one line, which is returned."""
    assert (outcome.measurement, outcome.test_accuracy, len(str(outcome.cause).splitlines())) == (None, None, 1)
    return str(outcome.cause)


def test_a_job_measures_all_that_a_fitness_may_look_at(bright_and_dark, trained, job):
    """Of one convolution of 4 channels, 3 x 3, with batch norm, on 4 x 4 images of one channel, and a classifier."""
    outcome, done = trained
    measurement: Any = outcome.measurement
    network = build_network(done.architecture, num_classes=2)
    state = jax.tree.map(jnp.asarray, checkpoint.restore(done.folder, "state"))
    variables = {"params": state["params"], "batch_stats": state["batch_stats"]}
    logits = np.asarray(network.apply(variables, bright_and_dark.validation_images, train=False), np.float64)
    of_labels = logits[np.arange(16), np.asarray(bright_and_dark.validation_labels)]
    assert measurement.loss == pytest.approx((np.log(np.exp(logits).sum(axis=1)) - of_labels).mean(), rel=1e-4)
    truth, predicted = np.asarray(bright_and_dark.validation_labels), logits.argmax(axis=1)
    assert measurement.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert measurement.macro_f1 == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert measurement.parameters == 3 * 3 * 4 + 2 * 4 + 4 * 2 + 2
    assert measurement.flops == count_flops(done.architecture, num_classes=2) > 0
    assert measurement.latency is None
    assert 0 < measurement.batch_latency < 1
    # Parameters and momentum before the step at least, and the images of the batch.
    assert 4 * (2 * measurement.parameters + 8 * 4 * 4) < measurement.memory < 10**6
    timed: Any = run_job(job(40, timed=True), bright_and_dark, programs=Programs()).measurement
    assert 0 < timed.latency < 1
    assert reproducible(timed) == reproducible(measurement)


def test_the_latency_is_prepared_and_takes_none_of_a_jobs_time(bright_and_dark, job, monkeypatch):
    prepared = session.Session(bright_and_dark, None)
    prepared.prepare(job(7, timed=True))
    wait_for_background(prepared.programs)
    monkeypatch.setattr("eigen_jax.training.programs._compile", None)  # nothing is left to compile

    def slow_latency(*arguments, **rest):
        time.sleep(0.5)
        return latency(*arguments, **rest)

    monkeypatch.setattr(session, "latency", slow_latency)
    with clock.WorkClock() as working:
        began, worked = time.monotonic(), working()
        timed = job(7, timed=True, time_limit=60.0)
        outcome = run_job(timed, bright_and_dark, clock=working, programs=prepared.programs)
        assert time.monotonic() - began - (working() - worked) >= 0.5
    assert outcome.measurement is not None
    assert (outcome.measurement.latency or 0) > 0


def test_a_job_that_is_done_already_is_measured_again(bright_and_dark, trained):
    outcome, done = trained
    again = run_job(done, bright_and_dark)
    assert reproducible(again.measurement) == reproducible(outcome.measurement)
    assert again.seconds == outcome.seconds


class Vast(Fair):
    """A teacher whose answer no memory holds, of which XLA says so for real."""

    def __call__(self, examples, views, images):
        return jnp.zeros((examples.shape[0], 2**50), jnp.int8)


@pytest.mark.parametrize(
    ("settings", "teacher", "cause"),
    [
        ({"until": 50, "config": WILD, "tested": True}, None, "training diverged by step 50"),
        ({"until": 3}, Vast(), "RESOURCE_EXHAUSTED: Out of memory"),
        ({"until": 100_000, "time_limit": 2.0}, None, "training took more than 2 s, and was at step "),
    ],
    ids=["divergence", "a lack of memory", "time"],
)
def test_a_failure_is_an_outcome_and_saved_if_time_ran_out(bright_and_dark, job, settings, teacher, cause):
    outcome = run_job(job(**settings), bright_and_dark, teacher=teacher)
    assert check_failed(outcome).startswith(cause)
    assert outcome.seconds.total >= settings.get("time_limit", 1e-9)
    assert bool(checkpoint.steps(job(3).folder)) == ("time_limit" in settings)


def test_what_no_memory_holds_is_an_outcome_before_it_is_tried(bright_and_dark, job, monkeypatch):
    """Weights alone take four bytes a parameter, twice with their momentum."""
    first = run_job(job(1), bright_and_dark).measurement
    assert first
    monkeypatch.setattr(platforms, "memory", lambda: 8 * first.parameters)
    outcome = run_job(job(2), bright_and_dark, programs=Programs())
    assert re.fullmatch(r"training takes .* GB of memory, too much for the machine's .* GB; .*", check_failed(outcome))
    assert checkpoint.steps(job(2).folder) == (1,)
    monkeypatch.undo()
    assert run_job(job(2), bright_and_dark, programs=Programs()).cause is None


def test_what_xla_cannot_compile_is_an_outcome(bright_and_dark, job, monkeypatch):
    """XLA knows the option, and refuses to compile with a level that is no number."""
    unknown = dataclasses.replace(platforms.current(), compiler_options={"xla_backend_optimization_level": "none"})
    monkeypatch.setattr(platforms, "current", lambda: unknown)
    monkeypatch.setattr(programs, "known_options", dict)
    for owner in (None, Programs()):
        assert "xla_backend_optimization_level" in check_failed(run_job(job(7), bright_and_dark, programs=owner))


@pytest.mark.parametrize(
    ("place", "function", "error", "cause"),
    [
        (resumable, "train_to", jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9\nmore"), "RESOURCE_EXHAUSTED: 9"),
        (resumable, "train_to", jax.errors.JaxRuntimeError("x" * 100_000), "x" * 300),
        (session, "predict_timed", MemoryError(), "MemoryError"),
        (
            session,
            "latency",
            RecursionError("maximum recursion depth exceeded\nat"),
            "maximum recursion depth exceeded",
        ),
    ],
    ids=["device memory", "a long cause is cut", "memory", "stack"],
)
def test_an_error_that_a_network_can_cause_is_an_outcome_of_one_line(
    bright_and_dark, job, monkeypatch, place, function, error, cause
):
    monkeypatch.setattr(place, function, mock.Mock(side_effect=error))
    assert check_failed(run_job(job(3, timed=True), bright_and_dark)) == cause


def test_a_mistake_or_bad_setting_is_not_taken_for_a_failed_individual(bright_and_dark, tmp_path, job, monkeypatch):
    with pytest.raises(ConfigError, match="the training set has only 16 images"):
        run_job(job(5, config=dataclasses.replace(CONFIG, batch_size=17)), bright_and_dark)
    (tmp_path / "a file").touch()
    with pytest.raises(CheckpointError, match="choose a folder that can be written"):
        run_job(make_job(tmp_path / "a file"), bright_and_dark)
    monkeypatch.setattr(resumable, "train_to", mock.Mock(side_effect=TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        run_job(job(5), bright_and_dark)


def test_the_inline_executor_runs_jobs_in_their_order_and_a_failed_one_costs_the_others_nothing(
    bright_and_dark, tmp_path
):
    some = [make_job(tmp_path, 5), make_job(tmp_path, 9, config=WILD), make_job(tmp_path, 2)]
    told: list[tuple[int, int]] = []
    executor = InlineExecutor(bright_and_dark)
    outcomes = list(executor.run(some, on_progress=lambda position, step, *_: told.append((position, step))))
    assert told == [(0, 7), (2, 7)]
    assert [position for position, _ in outcomes] == [0, 1, 2]
    check_failed(outcomes[1][1])
    for position in (0, 2):
        alone = elsewhere(some[position])
        ours, theirs = outcomes[position][1].measurement, run_job(alone, bright_and_dark).measurement
        assert reproducible(ours) == reproducible(theirs) is not None
        assert same_bits(leaves_of(some[position].folder), leaves_of(alone.folder))
    assert list(executor.run([])) == []


def test_the_inline_executor_takes_on_jobs_that_come_while_others_run(bright_and_dark, tmp_path, monkeypatch):
    monkeypatch.setattr(session.Session, "prepare", lambda _, job: None)
    monkeypatch.setattr(session, "run_job", lambda job, *_, **__: Outcome(cause=job.name))
    jobs, causes = [make_job(tmp_path, 0)], []
    for position, outcome in InlineExecutor(bright_and_dark).run(jobs):
        causes.append((position, outcome.cause))
        if position < 4:
            jobs += [make_job(tmp_path, position + 1)]
    assert causes == [(number, f"0.{number}") for number in range(5)]


def test_the_inline_executor_prepares_the_next_job_before_it_runs_one(bright_and_dark, tmp_path, monkeypatch):
    events: list[tuple[str, str]] = []
    monkeypatch.setattr(session.Session, "prepare", lambda _, job: events.append(("prepare", job.name)))

    def watched(job, *arguments, **rest):
        events.append(("run", job.name))
        return Outcome(measurement=measured(0.5), seconds=Seconds())

    monkeypatch.setattr(session, "run_job", watched)
    list(InlineExecutor(bright_and_dark).run([make_job(tmp_path, number) for number in range(3)]))
    for position in range(3):
        before = events[: events.index(("run", f"0.{position}"))]
        assert ("prepare", f"0.{position}") in before
        assert position == 2 or ("prepare", f"0.{position + 1}") in before
        assert ("prepare", f"0.{position + 2}") not in before


def test_the_inline_executor_stops_with_the_job_under_way_saved_and_goes_on_from_there(bright_and_dark, tmp_path):
    some = [make_job(tmp_path, number) for number in range(3)]
    running = InlineExecutor(bright_and_dark, should_stop=after(8 + 3)).run(some)  # 8 questions a job
    assert next(running)[0] == 0
    with pytest.raises(StoppedError):
        next(running)
    assert [checkpoint.latest_step(each.folder) for each in some] == [7, 3, None]
    often = [dataclasses.replace(each, care=Care(save_every=0)) for each in some]
    told: list[tuple[int, int]] = []
    executor = InlineExecutor(bright_and_dark)
    outcomes = dict(executor.run(often, on_progress=lambda position, step, *_: told.append((position, step))))
    assert told == [*((1, step) for step in (4, 5, 6, 7)), *((2, step) for step in range(1, 8))]
    check_as_inline(some, outcomes, bright_and_dark)


class Deaf(Fair):
    """A teacher that takes as long for an answer as it is wanted to, like a compilation that nothing interrupts."""

    def __init__(self, ended: threading.Event) -> None:
        super().__init__()
        self.ended = ended
        self.asked = 0

    def __call__(self, examples, views, images):
        self.asked += 1
        # The first question is about the shape of its answers, before the job begins.
        assert self.asked == 1 or self.ended.wait(60)
        return super().__call__(examples, views, images)


def test_a_job_that_does_not_notice_its_time_is_told_of_after_a_grace_while_it_goes_on(bright_and_dark, job):
    told: list[Overdue] = []
    ended = threading.Event()
    # Half a second of work in all, compiling included.
    busy = session.Session(bright_and_dark, Deaf(ended), grace=-999.5)

    def note(message: Progress | Overdue) -> None:
        if isinstance(message, Overdue):
            told.append(message)
            ended.set()

    late = job(5, time_limit=1_000.0)
    answer = busy.answer(pack(late), should_stop=never, tell=note)
    assert isinstance(answer, Outcome)  # its driver has replaced it by then
    (overdue,) = told
    assert overdue.cause == "training took more than 1000 s, and did not end by itself -999.5 s later"
    assert 0.5 <= overdue.seconds < 60


def test_a_disk_that_hangs_takes_none_of_a_jobs_time(bright_and_dark, job, monkeypatch):
    save = checkpoint.save

    def slow_save(*arguments, **rest):
        time.sleep(0.5)
        save(*arguments, **rest)

    monkeypatch.setattr(checkpoint, "save", slow_save)
    with clock.WorkClock() as working:
        began, worked = time.monotonic(), working()
        run_job(job(3), bright_and_dark, clock=working)
        assert time.monotonic() - began - (working() - worked) >= 0.5


def test_a_job_holds_still_while_its_driver_does(bright_and_dark, job):
    held, told = threading.Event(), []

    def hold(step: int, *_: float) -> None:
        told.append(step)
        if len(told) == 1:
            held.set()
            threading.Timer(1.0, held.clear).start()
            time.sleep(0.3)  # a look at the clock later, the next call of a program waits

    started = time.monotonic()
    outcome = session.Session(bright_and_dark, None, is_held=held.is_set).run(
        job(200), should_stop=never, on_progress=hold
    )
    elapsed = time.monotonic() - started
    assert told == [50, 100, 150, 200]
    assert outcome.cause is None
    assert outcome.seconds.total < elapsed - 0.5
