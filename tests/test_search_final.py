"""The final training of the network found, its test, and what the run folder says of them and of the teacher."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax import checkpoint, resumable, search
from eigen_jax.architecture import Architecture, Layer, count_flops, count_parameters, fingerprint
from eigen_jax.builder import build_network
from eigen_jax.data import Dataset
from eigen_jax.evolution import EvolutionConfig
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Individual
from eigen_jax.search import (
    Care,
    FinalTrainingError,
    RunFolderError,
    SearchConfig,
    SearchConfigError,
    SearchObserver,
    SearchResult,
    TrainedNetwork,
    digest_logits,
    load_network,
    run_search,
    train_network,
)
from eigen_jax.training import DivergedError, TrainConfig, init_state, predict, train_to

SHAPE = (4, 4, 1)
CLASSES = 3
TRAINED, HELD_OUT, TESTED = 24, 12, 10  # images of the three parts

CONFIG = SearchConfig(
    t1=1,
    t2=1,
    t3=1,
    final_steps=10,
    genome=GenomeSpec(capacity=3, input_shape=SHAPE, num_classes=CLASSES, channels=(2, 4)),
    evolution=EvolutionConfig(
        population_size=2,
        primary_steps=4,
        first_rank=2,
        second_rank=2,
        max_primary_generations=1,
        max_secondary_generations=0,
        max_duplication_generations=0,
    ),
    train=TrainConfig(batch_size=8, learning_rate=0.05, decay_steps=(), pad=1, eval_batch_size=8),
)
KEY = jax.random.key(5)
NETWORK = Architecture(input_shape=SHAPE, layers=(Layer(op="conv", inputs=(-1,), channels=4, kernel=3, stride=1),))


@pytest.fixture(scope="module")
def noise() -> Dataset:
    """Noise around one brightness a class."""
    labels = np.arange(TRAINED + HELD_OUT + TESTED, dtype=np.int32) % CLASSES
    images = np.random.default_rng(0).normal(size=(len(labels), *SHAPE)) + 2 * labels[:, None, None, None]
    parts = [
        jnp.asarray(part)
        for whole in (images.astype(np.float32), labels)
        for part in np.split(whole, [TRAINED, TRAINED + HELD_OUT])
    ]
    return Dataset(
        train_images=parts[0],
        validation_images=parts[1],
        test_images=parts[2],
        train_labels=parts[3],
        validation_labels=parts[4],
        test_labels=parts[5],
        num_classes=CLASSES,
        name="noise",
        fingerprint="of noise",
    )


class Recording:
    """A teacher that keeps the examples that it was asked about."""

    def __init__(self, fingerprint: str = "recording") -> None:
        self.fingerprint = fingerprint
        self.asked: list[np.ndarray] = []

    def __call__(self, examples, views, images):
        self.asked.append(np.asarray(examples))
        return jnp.zeros((len(examples), CLASSES))


def train(noise: Dataset, checkpoints: Path, *, teacher: Recording | None = None, **changes: Any) -> TrainedNetwork:
    config = dataclasses.replace(CONFIG, **changes)
    return train_network(KEY, NETWORK, noise, checkpoints, config=config, teacher=teacher)


def accuracy_by_hand(variables, images, labels) -> float:
    logits: Any = build_network(NETWORK, num_classes=CLASSES).apply(variables, images, train=False)
    return float(np.mean(np.argmax(np.asarray(logits), axis=-1) == np.asarray(labels)))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


# --- The schedule ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("final_steps", "decay_steps", "stretched"),
    [
        (25_000, (15_000, 20_000), (15_000, 20_000)),
        (50_000, (15_000, 20_000), (30_000, 40_000)),
        (250, (15_000, 20_000), (150, 200)),
        (10, (1, 2), (1,)),  # no step before the first, and none twice
        (25_000, (), ()),
    ],
)
def test_the_learning_rate_falls_at_the_same_shares_of_the_final_training(final_steps, decay_steps, stretched):
    train = TrainConfig(decay_steps=decay_steps, momentum=0.5)
    config = SearchConfig(final_steps=final_steps, train=train)  # 25,000 steps in the search
    assert config.final_until == final_steps
    assert config.final_train == dataclasses.replace(train, decay_steps=stretched)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"final_steps": -1}, "final_steps is -1; it must be at least 0"),
        ({"final_on": "test"}, "final_on is 'test'; it must be one of train, train+validation"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, line):
    with pytest.raises(SearchConfigError) as caught:
        SearchConfig(**change)
    assert str(caught.value) == line


# --- Training one network --------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(noise, tmp_path_factory) -> TrainedNetwork:
    return train(noise, tmp_path_factory.mktemp("final") / "checkpoints")


def test_a_network_is_trained_to_the_last_step_and_measured(noise, uninterrupted, tmp_path):
    seen: list[int] = []
    teacher = Recording()
    trained = train_network(
        KEY,
        NETWORK,
        noise,
        tmp_path,
        config=dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, mimicry_weight=0.0)),
        teacher=teacher,
        on_progress=lambda step, loss, rate: seen.append(step),
    )
    chex.assert_trees_all_equal(trained.variables, uninterrupted.variables)
    assert seen == [10]
    assert len(teacher.asked) == 10
    examples = np.concatenate(teacher.asked)
    assert examples.max() < TRAINED
    assert trained.seconds > 0
    validation = accuracy_by_hand(trained.variables, noise.validation_images, noise.validation_labels)
    assert trained.validation_accuracy == pytest.approx(validation, abs=1e-9)
    tested = accuracy_by_hand(trained.variables, noise.test_images, noise.test_labels)
    assert trained.test.accuracy == pytest.approx(tested, abs=1e-9)


def test_a_network_is_trained_with_the_stretched_schedule(noise, tmp_path):
    # The second of the search's 3 steps has a lower rate; so have all from the fourth of the 10.
    falling = dataclasses.replace(CONFIG.train, decay_steps=(1,))
    trained = train(noise, tmp_path, train=falling)
    network = build_network(NETWORK, num_classes=CLASSES)
    stretched = dataclasses.replace(falling, decay_steps=(3,))
    start = init_state(KEY, network=network, config=stretched, input_shape=SHAPE)
    state, _ = train_to(KEY, start, noise, 10, network=network, config=stretched)
    chex.assert_trees_all_equal(trained.variables, state.variables)


def test_a_network_is_trained_and_measured_in_the_dtype_asked_for(noise, uninterrupted, tmp_path):
    half = dataclasses.replace(CONFIG.train, dtype="bfloat16")
    trained = train(noise, tmp_path, train=half)
    network = build_network(NETWORK, num_classes=CLASSES, dtype=jnp.bfloat16)
    start = init_state(KEY, network=network, config=half, input_shape=SHAPE)
    state, _ = train_to(KEY, start, noise, 10, network=network, config=half)
    chex.assert_trees_all_equal(trained.variables, state.variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.variables)} == {jnp.dtype("float32")}
    tested = predict(state.variables, noise.test_images, network=network, batch_size=8)
    assert trained.test.logits_digest == digest_logits(tested)
    whole = search.evaluate_network(NETWORK, trained.variables, noise, batch_size=8, dtype="float32")
    assert whole.logits_digest != trained.test.logits_digest
    half_kernel, kernel = (each.variables["params"]["layer_0"]["conv"]["kernel"] for each in (trained, uninterrupted))
    assert not np.array_equal(half_kernel, kernel)
    np.testing.assert_allclose(half_kernel, kernel, atol=0.05)


def test_a_training_that_is_interrupted_after_a_save_goes_on_to_the_same_bits(
    noise, uninterrupted, tmp_path, monkeypatch
):
    save, saved = checkpoint.save, []

    def save_and_die(folder, step, items, **options):
        save(folder, step, items, **options)
        saved.append(step)
        if step in (4, 8):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_network(KEY, NETWORK, noise, tmp_path, config=CONFIG, save_every=0.0)
    teacher = Recording()
    trained = train(noise, tmp_path, teacher=teacher, train=dataclasses.replace(CONFIG.train, mimicry_weight=0.0))
    assert saved == [*range(1, 9), 10]
    assert len(teacher.asked) == 2, "only what was left is trained"
    chex.assert_trees_all_equal(trained.variables, uninterrupted.variables)
    assert trained.test == uninterrupted.test
    assert trained.validation_accuracy == uninterrupted.validation_accuracy

    again = train(noise, tmp_path, teacher=teacher)
    assert len(teacher.asked) == 2, "a training that has ended is not run again"
    assert again.test == trained.test
    assert again.seconds == trained.seconds, "of all processes, and no more"


def test_validation_images_are_trained_on_where_that_is_asked_for(noise, uninterrupted, tmp_path):
    teacher = Recording()
    trained = train(noise, tmp_path, teacher=teacher, final_on="train+validation")
    examples = np.concatenate(teacher.asked)
    assert sorted(set(examples[:32].tolist())) == sorted(examples[:32].tolist()), "4 batches of an epoch of 36"
    assert set(examples.tolist()) & set(range(TRAINED, TRAINED + HELD_OUT))
    assert examples.max() < TRAINED + HELD_OUT
    assert trained.validation_accuracy is None
    tested = accuracy_by_hand(trained.variables, noise.test_images, noise.test_labels)
    assert trained.test.accuracy == pytest.approx(tested, abs=1e-9)
    assert trained.test != uninterrupted.test


def test_equal_logits_have_equal_digests_and_one_bit_is_seen():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    changed = logits.copy()
    changed.view(np.int32)[4, 2] ^= 1
    assert digest_logits(logits) == digest_logits(np.asfortranarray(logits))
    assert digest_logits(logits) != digest_logits(changed)
    assert len(digest_logits(logits)) == 64


# --- Whole searches --------------------------------------------------------------------------


class Watch(SearchObserver):
    """Keeps what it is told of the final training."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def final_training_started(self, *, best: Individual, until: int) -> None:
        self.told.append((best.reference, until))

    def final_training_progress(self, *, step: int, loss: float, steps_per_second: float) -> None:
        self.told.append(step)

    def search_ended(self, *, result: SearchResult) -> None:
        self.told.append(result)


@pytest.fixture(scope="module")
def mimicking(noise, tmp_path_factory) -> tuple[Path, SearchResult, Recording, Watch]:
    """A whole search with a teacher."""
    folder, teacher, watch = tmp_path_factory.mktemp("search") / "run", Recording(), Watch()
    return folder, run_search(CONFIG, noise, folder, teacher=teacher, observer=watch), teacher, watch


@pytest.fixture(scope="module")
def searched(noise, tmp_path_factory) -> tuple[Path, SearchResult]:
    """A whole search without a final training or a teacher."""
    folder = tmp_path_factory.mktemp("search") / "run"
    return folder, run_search(dataclasses.replace(CONFIG, final_steps=0), noise, folder)


def test_the_network_found_is_trained_anew_and_everything_is_recorded(noise, mimicking):
    folder, result, teacher, watch = mimicking
    assert result.best is not None
    assert result.test is not None
    assert watch.told == [(result.best.reference, 10), 10, result]
    assert np.concatenate(teacher.asked).max() < TRAINED
    architecture, variables = load_network(folder)
    tested = search.evaluate_network(architecture, variables, noise, batch_size=8, dtype="float32")
    assert tested == result.test
    assert read_json(folder / "result.json") == {
        "schema_version": 2,
        "validation_accuracy": result.best.t3.fitness,
        "search_test_accuracy": result.best.test_accuracy,
        "final_validation_accuracy": result.final_validation_accuracy,
        "test_accuracy": tested.accuracy,
        "test_logits": tested.logits_digest,
        "final_cause": None,
        "generations": 1,
        "trained": result.trained,
        "network": {
            "individual": {"generation": result.best.generation, "index": result.best.index},
            "fingerprint": fingerprint(architecture),
            "layers": len(architecture.layers),
            "parameters": count_parameters(architecture, num_classes=CLASSES),
            "flops": count_flops(architecture, num_classes=CLASSES),
        },
        "dtype": "float32",
        "seconds": {"search": result.search_seconds, "final": result.final_seconds},
        "mimicry": {"teacher": "recording", "weight": 0.9, "temperature": 5.0},
    }
    assert result.final_validation_accuracy is not None
    assert result.search_seconds > 0
    assert result.final_seconds > 0


def test_every_network_mimics_the_teacher(mimicking):
    _, result, teacher, _ = mimicking
    # Each trained individual takes 1 to 3 steps, and the network found 10; one more batch tells the shapes.
    assert 11 + result.trained <= len(teacher.asked) <= 11 + 3 * result.trained
    assert all(len(examples) == 8 for examples in teacher.asked)


def test_without_a_final_training_the_weights_of_the_search_are_kept(noise, searched):
    folder, result = searched
    assert result.best is not None
    architecture, variables = load_network(folder)
    tested = search.evaluate_network(architecture, variables, noise, batch_size=8, dtype="float32")
    assert tested == result.test
    assert result.test_accuracy == result.search_test_accuracy == result.best.test_accuracy
    assert (result.final_validation_accuracy, result.final_cause, result.final_seconds) == (None, None, None)
    assert not (folder / "final").exists()
    content = read_json(folder / "result.json")
    assert content["mimicry"] is None
    assert content["seconds"]["final"] is None
    assert read_json(folder / "settings.json")["settings"]["teacher_fingerprint"] is None


def test_a_final_training_that_diverges_leaves_the_weights_of_the_search(noise, searched, tmp_path, monkeypatch):
    error = DivergedError(7, math.nan)

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("eigen_jax.search.loop.train_network", fail)
    result = run_search(CONFIG, noise, tmp_path)
    cause = str(error)
    assert result.final_cause == cause
    assert result.test == searched[1].test
    assert result.test_accuracy == result.search_test_accuracy
    assert result.final_validation_accuracy is None
    assert result.final_seconds is not None
    chex.assert_trees_all_equal(load_network(tmp_path)[1], load_network(searched[0])[1])
    content = read_json(tmp_path / "result.json")
    assert content["final_cause"] == cause
    assert content["final_validation_accuracy"] is None
    assert content["test_accuracy"] == content["search_test_accuracy"]


def test_a_final_training_that_lacks_memory_is_gone_on_with(noise, mimicking, tmp_path, monkeypatch):
    train_to = resumable.train_to

    def fail(key, state, dataset, until, **options):
        if until == CONFIG.final_until:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory\nat all")
        return train_to(key, state, dataset, until, **options)

    monkeypatch.setattr(resumable, "train_to", fail)
    with pytest.raises(FinalTrainingError) as caught:
        run_search(CONFIG, noise, tmp_path)
    assert str(caught.value) == (
        "the network cannot be trained on (RESOURCE_EXHAUSTED: no memory); free the device's memory, and go on with"
        " the same command"
    )
    assert not (tmp_path / "result.json").exists()
    monkeypatch.setattr(resumable, "train_to", train_to)
    assert run_search(CONFIG, noise, tmp_path).final_seconds is not None
    assert (tmp_path / "network" / "genome.json").exists()


def test_a_search_interrupted_in_its_final_training_goes_on_to_the_same_result(noise, tmp_path, monkeypatch):
    whole = run_search(CONFIG, noise, tmp_path / "whole")

    class Interrupted(SearchObserver):
        def final_training_progress(self, *, step, loss, steps_per_second):
            if step == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(CONFIG, noise, tmp_path / "part", observer=Interrupted(), care=Care(save_every=0.0))
    assert not (tmp_path / "part" / "result.json").exists()
    watch = Watch()
    result = run_search(CONFIG, noise, tmp_path / "part", observer=watch)
    assert [told for told in watch.told if isinstance(told, int)] == [10], "it goes on from step 8"
    assert result.test == whole.test
    assert result.final_validation_accuracy == whole.final_validation_accuracy
    chex.assert_trees_all_equal(load_network(tmp_path / "part")[1], load_network(tmp_path / "whole")[1])


@pytest.mark.parametrize(
    ("teacher", "line"),
    [
        (Recording("another"), "teacher_fingerprint was 'recording' and is now 'another'"),
        (None, "teacher_fingerprint was 'recording' and is now None"),
    ],
)
def test_a_run_with_another_teacher_is_another_run(noise, mimicking, teacher, line):
    folder, *_ = mimicking
    assert read_json(folder / "settings.json")["settings"]["teacher_fingerprint"] == "recording"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError) as caught:
        run_search(CONFIG, noise, folder, teacher=teacher)
    assert str(caught.value) == f"{folder} belongs to a run with other settings: {line}; choose another folder"
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_without_a_teacher_does_not_go_on_with_one(noise, searched):
    folder, _ = searched
    with pytest.raises(RunFolderError, match="teacher_fingerprint was None and is now 'recording'"):
        run_search(dataclasses.replace(CONFIG, final_steps=0), noise, folder, teacher=Recording())
