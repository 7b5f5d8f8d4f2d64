"""The final training of the network found, its test, and what the run folder says of them and of the teacher."""

import dataclasses
import functools
import math
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from executor_data import CONFIG as TRAIN
from executor_data import SHAPE, make_dataset, network
from refusals import refuses

from eigen_jax import lineage, resumable, search
from eigen_jax.data import Dataset
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Individual
from eigen_jax.networks import build_network, count_flops, count_layers, count_parameters, fingerprint
from eigen_jax.search import Care, FinalTrainingError, RunFolderError, SearchConfig, load_network, run_search
from eigen_jax.search.final import TrainedNetwork, train_network
from eigen_jax.search.observer import SearchObserver
from eigen_jax.search.results import SearchResult
from eigen_jax.store import checkpoint
from eigen_jax.store.files import sha256
from eigen_jax.store.records import read_json
from eigen_jax.strategies import EvolutionConfig
from eigen_jax.training import DivergedError, Programs, TrainConfig, init_state, predict, train_to
from eigen_jax.training.config import make_schedule

CLASSES = 2
TRAINED, HELD_OUT = 16, 16  # images

ONE_GENERATION: dict[str, Any] = {
    f"max_{phase}_generations": most for phase, most in (("primary", 1), ("secondary", 0), ("duplication", 0))
}
STEPS: dict[str, Any] = {"t1": 1, "t2": 1, "t3": 1, "final_steps": 10}
CONFIG = SearchConfig(
    **STEPS,
    genome=GenomeSpec(capacity=3, input_shape=SHAPE, num_classes=CLASSES, channels=(2, 4)),
    evolution=EvolutionConfig(population_size=2, primary_steps=4, first_rank=2, second_rank=2, **ONE_GENERATION),
    train=dataclasses.replace(TRAIN, pad=1, flip=True, averaging=0.9, eval_batch_size=10),
)
KEY = jax.random.key(5)
NETWORK = network()
PLAIN = build_network(NETWORK, num_classes=CLASSES)


@pytest.fixture(scope="module")
def noise() -> Dataset:
    """So much of it that no network is right about all images."""
    return make_dataset(noise=3.0)


class Recording:
    """A teacher that keeps the examples that it was asked about."""

    def __init__(self, fingerprint: str = "recording") -> None:
        self.fingerprint = fingerprint
        self.asked: list[np.ndarray] = []

    def __call__(self, examples, views, images):
        self.asked.append(np.asarray(examples))
        return jnp.zeros((len(examples), CLASSES))


train = functools.partial(train_network, KEY, NETWORK)


def with_training(**changes: Any) -> SearchConfig:
    return dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, **changes))


UNMINDFUL = with_training(mimicry_weight=0.0)  # of the teacher, who is asked all the same


def on_test_images(trained: TrainedNetwork) -> search.Evaluation:
    assert trained.test is not None
    return trained.test


def accuracy_by_hand(variables, images, labels, architecture=NETWORK) -> float:
    logits: Any = build_network(architecture, num_classes=CLASSES).apply(variables, images, train=False)
    return float(np.mean(np.argmax(np.asarray(logits), axis=-1) == np.asarray(labels)))


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
    assert config.final_train(final_steps) == dataclasses.replace(train, decay_steps=stretched)
    # With a rate for each, those of steps that become one are multiplied.
    rates = (10.0, 0.25)[: len(decay_steps)]
    config = dataclasses.replace(config, train=dataclasses.replace(train, decay_rates=rates))
    assert config.final_train(final_steps).decay_rates == (rates if len(stretched) != 1 else (2.5,))
    assert config.final_train(final_steps).decay_steps == stretched


@pytest.mark.parametrize(("final_steps", "stretched"), [(50, (10, 50)), (2, (1, 2)), (1, (1,)), (0, (1,))])
def test_a_rise_and_a_fall_to_0_are_stretched_to_end_with_the_final_training(final_steps, stretched):
    train = TrainConfig(schedule="linear", learning_rate=0.02, decay_steps=(5_000, 25_000), decay_rates=(10.0, 0.0))
    final = SearchConfig(train=train).final_train(final_steps)
    rates = (10.0, 0.0) if len(stretched) == 2 else (0.0,)
    assert final == dataclasses.replace(train, decay_steps=stretched, decay_rates=rates)
    given = [float(make_schedule(final)(jnp.int32(step))) for step in (0, *stretched)]
    assert given == pytest.approx([0.02, 0.2, 0.0] if len(stretched) == 2 else [0.02, 0.0])
    assert given[-1] == 0


def test_one_cycle_is_stretched_to_end_with_the_final_training():
    train = TrainConfig(schedule="one-cycle", decay_steps=(25_000,), momentum=0.5)
    for steps in (70_000, 70, 1):
        assert SearchConfig(train=train).final_train(steps) == dataclasses.replace(train, decay_steps=(steps,))
    assert SearchConfig(train=train).final_train(0).decay_steps == (1,)


@pytest.fixture(scope="module")
def uninterrupted(noise, tmp_path_factory) -> TrainedNetwork:
    return train(noise, tmp_path_factory.mktemp("final") / "checkpoints", config=CONFIG)


def by_the_loop(noise: Dataset, config: TrainConfig, network: Any = PLAIN) -> Any:
    """The variables that `train_to` gives after the 10 steps."""
    start = init_state(KEY, network=network, config=config, input_shape=SHAPE)
    return train_to(KEY, start, noise, 10, network=network, config=config)[0].variables


def test_a_network_is_trained_to_the_last_step_with_the_stretched_schedule_and_measured(noise, uninterrupted, tmp_path):
    seen: list[Any] = []
    teacher = Recording()
    trained = train(
        noise, tmp_path / "a", config=UNMINDFUL, teacher=teacher, on_progress=lambda *told: seen.append(told)
    )
    chex.assert_trees_all_equal(trained.variables, uninterrupted.variables)
    assert [step for step, _, _ in seen] == [10]
    assert len(teacher.asked) == 10
    assert np.concatenate(teacher.asked).max() < TRAINED
    assert trained.seconds > 0
    validation = accuracy_by_hand(trained.variables, noise.validation_images, noise.validation_labels)
    assert trained.validation_accuracy == pytest.approx(validation, abs=1e-9)
    by_hand = accuracy_by_hand(trained.variables, noise.test_images, noise.test_labels)
    assert on_test_images(trained).accuracy == pytest.approx(by_hand, abs=1e-9)
    # The second of the search's 3 steps has a lower rate; so have all from the fourth of the 10.
    stretched = train(noise, tmp_path / "b", config=with_training(decay_steps=(1,)))
    chex.assert_trees_all_equal(stretched.variables, by_the_loop(noise, with_training(decay_steps=(3,)).train))


def test_what_is_averaged_is_measured_with_mirror_images_as_well_where_those_were_trained_on(noise, tmp_path):
    trained = train(noise, tmp_path / "with", config=CONFIG)
    without = with_training(flip=False)
    assert on_test_images(train(noise, tmp_path / "without", config=without)).mirrored_accuracy is None
    logits = [
        np.asarray(PLAIN.apply(trained.variables, images, train=False))
        for images in (noise.test_images, noise.test_images[:, :, ::-1])
    ]
    by_hand = np.mean(np.mean(logits, axis=0).argmax(axis=1) == np.asarray(noise.test_labels))
    assert on_test_images(trained).mirrored_accuracy == pytest.approx(by_hand, abs=1e-9)
    plain = accuracy_by_hand(trained.variables, noise.test_images, noise.test_labels)
    assert on_test_images(trained).accuracy == pytest.approx(plain, abs=1e-9)


def test_a_network_is_trained_and_measured_in_the_dtype_asked_for(noise, uninterrupted, tmp_path):
    half = with_training(dtype="bfloat16")
    trained = train(noise, tmp_path, config=half)
    half_network = build_network(NETWORK, num_classes=CLASSES, dtype=jnp.bfloat16)
    chex.assert_trees_all_equal(trained.variables, by_the_loop(noise, half.train, half_network))
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.variables)} == {jnp.dtype("float32")}
    logits = predict(trained.variables, noise.test_images, network=half_network, batch_size=10)
    assert on_test_images(trained).logits_digest == sha256([logits])
    whole = search.evaluate_network(PLAIN, trained.variables, noise, batch_size=10)
    assert whole.logits_digest != on_test_images(trained).logits_digest
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
            train(noise, tmp_path, config=CONFIG, care=Care(save_every=0.0))
    trained = train(noise, tmp_path, config=UNMINDFUL, teacher=(teacher := Recording()))
    assert saved == [*range(1, 9), 10]
    assert len(teacher.asked) == 2, "only what was left is trained"
    chex.assert_trees_all_equal(trained.variables, uninterrupted.variables)
    assert trained.test == uninterrupted.test
    assert trained.validation_accuracy == uninterrupted.validation_accuracy
    again = train(noise, tmp_path, config=CONFIG, teacher=teacher)
    assert len(teacher.asked) == 2, "a training that has ended is not run again"
    assert again.test == trained.test
    assert again.seconds == trained.seconds, "of all processes, and no more"


def test_validation_images_are_trained_on_where_that_is_asked_for(noise, uninterrupted, tmp_path):
    teacher = Recording()
    trained = train(noise, tmp_path, config=dataclasses.replace(CONFIG, final_on="train+validation"), teacher=teacher)
    examples = np.concatenate(teacher.asked)
    assert sorted(set(examples[:32].tolist())) == sorted(examples[:32].tolist()), "4 batches of an epoch of 32"
    assert set(examples.tolist()) & set(range(TRAINED, TRAINED + HELD_OUT))
    assert examples.max() < TRAINED + HELD_OUT
    assert trained.validation_accuracy is None
    by_hand = accuracy_by_hand(trained.variables, noise.test_images, noise.test_labels)
    assert on_test_images(trained).accuracy == pytest.approx(by_hand, abs=1e-9)
    assert trained.test != uninterrupted.test


def test_equal_logits_have_equal_digests_and_one_bit_is_seen():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    changed = logits.copy()
    changed.view(np.int32)[4, 2] ^= 1
    assert sha256([logits]) == sha256([np.asfortranarray(logits)])
    assert sha256([logits]) != sha256([changed])
    assert len(sha256([logits])) == 64


class Watch(SearchObserver):
    """Keeps what it is told of the final training; is interrupted at a step."""

    def __init__(self, *, interrupted_at: int | None = None) -> None:
        self.told: list[Any] = []
        self.interrupted_at = interrupted_at

    def final_training_started(self, *, best: Individual, until: int) -> None:
        self.told.append((best.reference, until))

    def final_training_progress(self, *, step: int, loss: float, steps_per_second: float) -> None:
        self.told.append(step)
        if step == self.interrupted_at:
            raise KeyboardInterrupt

    def search_ended(self, *, result: SearchResult) -> None:
        self.told.append(result)


@pytest.fixture(scope="module")
def mimicking(noise, tmp_path_factory) -> tuple[Path, SearchResult, Recording, Watch]:
    """A whole search with a teacher."""
    folder, teacher, watch = tmp_path_factory.mktemp("search") / "run", Recording(), Watch()
    return folder, run_search(CONFIG, noise, folder, teacher=teacher, observer=watch), teacher, watch


# Of the searches without a teacher; not the whole config, so that one without a final training goes on to it.
SETTINGS = {"seed": CONFIG.seed}


@pytest.fixture(scope="module")
def searched(noise, tmp_path_factory) -> tuple[Path, SearchResult]:
    """A whole search without a final training or a teacher."""
    folder = tmp_path_factory.mktemp("search") / "run"
    return folder, run_search(dataclasses.replace(CONFIG, final_steps=0), noise, folder, settings=SETTINGS)


@pytest.fixture
def before_final(searched, tmp_path) -> Path:
    """The folder of a search of which only the final training is left."""
    folder = shutil.copytree(searched[0], tmp_path / "run")
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "network")
    return folder


def test_every_network_mimics_the_teacher_and_the_one_found_is_trained_anew_and_recorded(noise, mimicking):
    folder, result, teacher, watch = mimicking
    assert result.best is not None
    assert watch.told == [(result.best.reference, 10), 10, result]
    assert np.concatenate(teacher.asked).max() < TRAINED
    # Each trained individual takes 1 to 3 steps, and the network found 10; one more batch tells the shapes.
    assert 11 + result.trained <= len(teacher.asked) <= 11 + 3 * result.trained
    assert all(len(examples) == 8 for examples in teacher.asked)
    architecture, variables = load_network(folder)
    network = build_network(architecture, num_classes=CLASSES)
    with Programs() as programs:
        tested = search.evaluate_network(network, variables, noise, batch_size=10, mirrored=True, programs=programs)
        assert len(programs._programs) == 1
    assert (tested.accuracy, tested.logits_digest) == (result.test_accuracy, result.test_logits)
    individuals, final = lineage.read(folder / "lineage.jsonl"), count_flops(architecture, num_classes=CLASSES)
    by_hand = accuracy_by_hand(variables, noise.test_images, noise.test_labels, architecture)
    matrix = np.array(result.confusion)
    assert matrix.trace() / matrix.sum() == pytest.approx(by_hand, abs=1e-9)
    assert matrix.sum(axis=1).tolist() == np.bincount(noise.test_labels, minlength=CLASSES).tolist()
    assert by_hand == pytest.approx(result.test_accuracy, abs=1e-9)
    assert read_json(folder / "result.json") == {
        "schema_version": 2,
        "validation_accuracy": result.best.accuracy,
        "search_test_accuracy": result.best.test_accuracy,
        "final_validation_accuracy": result.final_validation_accuracy,
        "test_accuracy": tested.accuracy,
        "mirrored_test_accuracy": tested.mirrored_accuracy,
        "test_logits": tested.logits_digest,
        "confusion": matrix.tolist(),
        "final_cause": None,
        "generations": 1,
        "trained": result.trained,
        "network": {
            "individual": dataclasses.asdict(result.best.reference),
            "fingerprint": fingerprint(architecture),
            "layers": count_layers(architecture),
            "parameters": count_parameters(architecture, num_classes=CLASSES),
            "flops": count_flops(architecture, num_classes=CLASSES),
        },
        "dtype": "float32",
        "seconds": {"search": result.seconds.search, "final": result.seconds.final},
        "training_flops": {
            "teacher": 0,
            "search": sum(each.training_flops or 0 for each in individuals),
            "final": 3 * 10 * 8 * final,
            "total": sum(each.training_flops or 0 for each in individuals) + 3 * 10 * 8 * final,
        },
        "mimicry": {"teacher": "recording", "weight": 0.9, "temperature": 5.0},
    }
    assert None not in (result.final_validation_accuracy, tested.mirrored_accuracy)
    assert result.seconds.final is not None
    assert min(result.seconds.search, result.seconds.final) > 0


def test_without_a_final_training_the_weights_of_the_search_are_kept(noise, searched):
    folder, result = searched
    assert result.best is not None
    architecture, variables = load_network(folder)
    network = build_network(architecture, num_classes=CLASSES)
    tested = search.evaluate_network(network, variables, noise, batch_size=10, mirrored=True)
    assert (tested.accuracy, tested.logits_digest) == (result.test_accuracy, result.test_logits)
    assert tested.mirrored_accuracy == result.mirrored_test_accuracy
    assert result.test_accuracy == result.search_test_accuracy == result.best.test_accuracy
    assert (result.final_validation_accuracy, result.final_cause, result.seconds.final) == (None, None, None)
    assert not (folder / "final").exists()
    content = read_json(folder / "result.json")
    assert content["mimicry"] is None
    assert content["seconds"]["final"] is None
    assert read_json(folder / "settings.json")["settings"] == {
        **SETTINGS,
        "dataset": noise.name,
        "data_fingerprint": noise.fingerprint,
        "teacher_fingerprint": None,
        "strategy": "eigen",
        "fitness": "accuracy",
    }


def test_a_final_training_that_diverges_leaves_the_weights_of_the_search(noise, searched, before_final, monkeypatch):
    error = DivergedError(7, math.nan)
    monkeypatch.setattr("eigen_jax.search.final.train_resumably", mock.Mock(side_effect=error))
    result = run_search(CONFIG, noise, before_final, settings=SETTINGS)
    assert (result.final_cause, result.final_validation_accuracy) == (str(error), None)
    assert result.seconds.final is not None
    assert result.test_logits == searched[1].test_logits
    assert result.test_accuracy == result.search_test_accuracy
    chex.assert_trees_all_equal(load_network(before_final)[1], load_network(searched[0])[1])
    content = read_json(before_final / "result.json")
    assert (content["final_cause"], content["final_validation_accuracy"]) == (str(error), None)
    assert content["test_accuracy"] == content["search_test_accuracy"]


def test_a_final_training_that_lacks_memory_or_is_interrupted_goes_on_to_the_same_result(
    noise, before_final, tmp_path, monkeypatch
):
    whole_folder = shutil.copytree(before_final, tmp_path / "whole")
    whole = run_search(CONFIG, noise, whole_folder, settings=SETTINGS)
    train_to = resumable.train_to

    def fail(key, state, dataset, until, **options):
        if until == CONFIG.final_until:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory\nat all")
        return train_to(key, state, dataset, until, **options)

    monkeypatch.setattr(resumable, "train_to", fail)
    reason = "the network cannot be trained on (RESOURCE_EXHAUSTED: no memory)"
    with refuses(FinalTrainingError, f"{reason}; free the device's memory, and go on with the same command"):
        run_search(CONFIG, noise, before_final, settings=SETTINGS)
    monkeypatch.setattr(resumable, "train_to", train_to)
    watch, care = Watch(interrupted_at=9), Care(save_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_search(CONFIG, noise, before_final, observer=watch, care=care, settings=SETTINGS)
    assert not (before_final / "result.json").exists()
    watch = Watch()
    result = run_search(CONFIG, noise, before_final, observer=watch, settings=SETTINGS)
    assert [told for told in watch.told if isinstance(told, int)] == [10], "it goes on from step 8"
    assert result.test_logits == whole.test_logits
    assert result.final_validation_accuracy == whole.final_validation_accuracy
    assert result.seconds.final is not None
    chex.assert_trees_all_equal(load_network(before_final), load_network(whole_folder))


def test_a_run_with_another_teacher_is_another_run(noise, mimicking, searched):
    folder, *_ = mimicking
    assert read_json(folder / "settings.json")["settings"]["teacher_fingerprint"] == "recording"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for teacher, now in ((Recording("another"), "'another'"), (None, "None")):
        line = f"other settings: teacher_fingerprint was 'recording' and is now {now}; choose another folder"
        with refuses(RunFolderError, f"{folder} belongs to a run with {line}"):
            run_search(CONFIG, noise, folder, teacher=teacher)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match="teacher_fingerprint was None and is now 'recording'"):
        run_search(CONFIG, noise, searched[0], teacher=Recording(), settings=SETTINGS)
