"""Jobs: what an outcome holds, that it resumes, and that failures stay inside."""

import dataclasses
import threading

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from eigen_jax import executor, platforms
from eigen_jax.architecture import Architecture, Layer
from eigen_jax.data import Dataset
from eigen_jax.executor import Job, prepare_job, run_job
from eigen_jax.training import TrainConfig, batch_shapes, loop, programs

CONFIG = TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=0, flip=False, eval_batch_size=16)
NETWORK = Architecture(input_shape=(4, 4, 1), layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=1),))


@pytest.fixture(scope="module")
def bright_and_dark() -> Dataset:
    """Images that are bright or dark: two classes that one convolution tells apart."""
    labels = jnp.arange(48, dtype=jnp.int32) % 2
    noise = np.random.default_rng(0).normal(0, 0.1, (48, 4, 4, 1))
    images = jnp.asarray(np.asarray(labels)[:, None, None, None] * 2 - 1 + noise, jnp.float32)
    return Dataset(
        train_images=images[:16],
        train_labels=labels[:16],
        validation_images=images[16:32],
        validation_labels=labels[16:32],
        test_images=images[32:],
        test_labels=labels[32:],
        num_classes=2,
        name="bright_and_dark",
        fingerprint="none",
    )


def job(until: int, config: TrainConfig = CONFIG) -> Job:
    return Job(key=jax.random.key(3), architecture=NETWORK, until=until, config=config)


def test_an_outcome_has_the_validation_accuracy_and_a_state_at_the_landmark(bright_and_dark):
    outcome = run_job(job(40), None, bright_and_dark)
    assert outcome.cause is None
    assert outcome.fitness == 1.0
    assert outcome.state is not None
    assert int(outcome.state.step) == 40
    assert outcome.compile_seconds > 0
    assert outcome.train_seconds > 0


def test_two_landmarks_give_the_same_bits_as_one(bright_and_dark):
    first = run_job(job(3), None, bright_and_dark)
    second = run_job(job(7), first.state, bright_and_dark)
    at_once = run_job(job(7), None, bright_and_dark)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), second.state, at_once.state))
    assert second.fitness == at_once.fitness


def test_a_job_finds_what_was_prepared_and_its_outcome_is_the_same(bright_and_dark, monkeypatch):
    monkeypatch.setattr(programs, "_store", programs._Store(8, 1_000))
    without = run_job(job(7), None, bright_and_dark)
    monkeypatch.setattr(programs, "_store", programs._Store(8, 1_000))
    done = threading.Event()
    prepare_job(job(7), None, bright_and_dark, batch_shapes(jax.random.key(0), bright_and_dark, config=CONFIG))
    programs.in_background(done.set)
    assert done.wait(60)
    monkeypatch.setattr(programs._Store, "_build", None)  # nothing is left to build
    prepared = run_job(job(7), None, bright_and_dark)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), prepared.state, without.state))
    assert prepared.fitness == without.fitness
    assert prepared.compile_seconds < without.compile_seconds


def test_a_job_trains_in_the_dtype_of_its_config(bright_and_dark):
    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    outcome, exact = run_job(job(40, half), None, bright_and_dark), run_job(job(40), None, bright_and_dark)
    assert outcome.fitness == 1.0
    assert {leaf.dtype for leaf in jax.tree.leaves(outcome.state)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert not all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), outcome.state, exact.state)))


def test_a_job_goes_the_way_of_a_gpu(bright_and_dark, monkeypatch):
    """Derived gradients, chunks of steps in one program and single ones for what is left over, bfloat16 maps."""
    monkeypatch.setattr(platforms, "current", lambda: dataclasses.replace(platforms.GPU, steps_per_call=15))
    called = []
    compile_training = loop.compile_training

    def watched(state, batch, calls, **rest):
        called.append(sorted(calls))
        return compile_training(state, batch, calls, **rest)

    monkeypatch.setattr(loop, "compile_training", watched)
    outcome = run_job(job(40, dataclasses.replace(CONFIG, dtype="bfloat16")), None, bright_and_dark)
    assert called == [[1, 15]]
    assert outcome.fitness == 1.0
    assert outcome.state is not None
    assert int(outcome.state.step) == 40
    assert {leaf.dtype for leaf in jax.tree.leaves(outcome.state)} == {jnp.dtype("float32"), jnp.dtype("int32")}


class Contrarian:
    """A teacher that is sure of the wrong class."""

    fingerprint = "contrarian"

    def __init__(self, dataset: Dataset) -> None:
        self.labels = dataset.train_labels

    def __call__(self, examples, views, images):
        return 20 * jax.nn.one_hot(1 - self.labels[examples], 2)


def test_a_job_mimics_the_teacher_that_it_is_given(bright_and_dark):
    teacher = Contrarian(bright_and_dark)
    assert run_job(job(40), None, bright_and_dark, teacher=teacher).fitness == 0.0
    deaf = dataclasses.replace(CONFIG, mimicry_weight=0.0)
    assert run_job(job(40, deaf), None, bright_and_dark, teacher=teacher).fitness == 1.0


def test_divergence_is_an_outcome_with_its_cause(bright_and_dark):
    wild = TrainConfig(batch_size=8, learning_rate=1e30, decay_steps=(), pad=0, flip=False, eval_batch_size=16)
    outcome = run_job(job(50, wild), None, bright_and_dark)
    assert outcome.state is None
    assert np.isnan(outcome.fitness)
    assert outcome.cause is not None
    assert outcome.cause.startswith("training diverged by step 50")


def test_a_lack_of_memory_is_an_outcome_with_one_line_of_cause(bright_and_dark, monkeypatch):
    def exhaust(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore lines")

    monkeypatch.setattr(executor, "train_to", exhaust)
    outcome = run_job(job(5), None, bright_and_dark)
    assert outcome.cause == "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."


def test_a_mistake_of_the_program_is_not_taken_for_a_failed_individual(bright_and_dark, monkeypatch):
    def mistake(*_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr(executor, "train_to", mistake)
    with pytest.raises(TypeError, match="a bug"):
        run_job(job(5), None, bright_and_dark)
