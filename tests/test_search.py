"""Whole searches: the record, the run folder, continuing after a kill, failures."""

import dataclasses
import itertools
import json
import math
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eigen_jax import checkpoint, evolution, lineage
from eigen_jax.architecture import Architecture, from_json, to_json
from eigen_jax.builder import build_network
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.evolution import EvolutionConfig, Phase
from eigen_jax.executor import Outcome, session
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Fate, without_times
from eigen_jax.resumable import Seconds
from eigen_jax.search import (
    BarrenSearchError,
    RunFolderError,
    SearchConfig,
    SearchConfigError,
    SearchObserver,
    digest_logits,
    load_network,
    run_search,
)
from eigen_jax.training import TrainConfig, abstract_state, predict

SPEC = GenomeSpec(capacity=6, input_shape=(8, 8, 1), num_classes=10, channels=(4, 8), max_flops=200_000)
CONFIG = SearchConfig(
    t1=2,
    t2=2,
    t3=2,
    final_steps=0,
    genome=SPEC,
    evolution=EvolutionConfig(
        population_size=4,
        primary_steps=6,
        secondary_steps=3,
        first_rank=3,
        second_rank=2,
        max_primary_generations=2,
        max_secondary_generations=2,
    ),
    train=TrainConfig(batch_size=64, learning_rate=0.05, decay_steps=(), pad=1, flip=False, eval_batch_size=400),
)
GENERATIONS = 5  # two primary, two secondary, one of duplication

# For the tests that really train.
SMALL_CONFIG = dataclasses.replace(
    CONFIG,
    final_steps=5,
    evolution=dataclasses.replace(
        CONFIG.evolution,
        population_size=2,
        first_rank=2,
        second_rank=1,
        max_primary_generations=1,
        max_secondary_generations=1,
    ),
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Dataset:
    cache = tmp_path_factory.mktemp("cache")
    return load_dataset(DataConfig(name="digits", validation_size=200, preprocessing="standardize", cache_dir=cache))


@pytest.fixture
def pretended(monkeypatch) -> list[str]:
    """Replaces training by a fitness made of the architecture; lists the architectures that it was asked for."""
    asked: list[str] = []

    def pretend(job, dataset, **_):
        asked.append(lineage.fingerprint(job.architecture))
        fitness = (int(asked[-1][:6], 16) % 1000 + job.until) / 1010
        if job.tested:
            network = build_network(job.architecture, num_classes=dataset.num_classes)
            shapes = abstract_state(network=network, config=job.config, input_shape=job.architecture.input_shape)
            state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            if checkpoint.latest_step(job.folder) is None:
                checkpoint.save(job.folder, job.until, {"state": state})
        test_accuracy = fitness / 2 if job.tested else None
        seconds = Seconds(compiling=0.5, training=0.25)
        return Outcome(fitness=fitness, test_accuracy=test_accuracy, seconds=seconds)

    monkeypatch.setattr(session, "run_job", pretend)
    monkeypatch.setattr(session, "prepare_job", lambda *_, **__: None)
    return asked


def record(folder: Path) -> bytes:
    """The record's bytes, without times."""
    individuals = lineage.read(folder / "lineage.jsonl")
    return "\n".join(lineage.to_line(without_times(each)) for each in individuals).encode()


def test_a_search_on_real_digits_ends_with_a_trained_network_and_a_complete_record(digits, tmp_path):
    class Watch(SearchObserver):
        def __init__(self):
            self.phases: list[Phase] = []
            self.steps: list[int] = []
            self.final_steps: list[int] = []

        def generation_started(self, *, generation, phase, architectures):
            self.phases.append(phase)

        def training_progress(self, *, index, landmark, step, until, loss, steps_per_second):
            self.steps.append(step)

        def final_training_progress(self, *, step, loss, steps_per_second):
            self.final_steps.append(step)

    watch = Watch()
    result = run_search(SMALL_CONFIG, digits, tmp_path / "run", observer=watch)
    assert watch.phases == [Phase.PRIMARY, Phase.SECONDARY, Phase.DUPLICATION]
    assert set(watch.steps) == {2, 4, 6}
    assert watch.final_steps == [5]
    individuals = lineage.read(tmp_path / "run" / "lineage.jsonl")
    assert [(each.generation, each.index) for each in individuals] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert result.best is not None
    assert result.best in individuals
    tested = [each.generation for each in individuals if each.test_accuracy is not None]
    assert tested == sorted({each.generation for each in individuals if each.fate in (Fate.PARENT, Fate.SURVIVED)})
    assert result.search_test_accuracy == result.best.test_accuracy

    architecture, variables = load_network(tmp_path / "run")
    assert architecture == result.best.architecture
    network = build_network(architecture, num_classes=10)
    logits: Any = network.apply(variables, digits.test_images, train=False)
    accuracy = np.mean(np.argmax(np.asarray(logits), axis=-1) == np.asarray(digits.test_labels))
    assert accuracy == pytest.approx(result.test_accuracy, abs=1e-9)
    assert result.test is not None
    batched = predict(variables, digits.test_images, network=network, batch_size=400)
    assert digest_logits(batched) == result.test.logits_digest
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test_accuracy"] == result.test_accuracy
    assert from_json((tmp_path / "run" / "network" / "genome.json").read_text()) == architecture


def algorithm_1(individuals, levels, p, q):
    """Fates and thresholds of a generation by hand: Algorithm 1 on plain lists."""

    def raised(level, values, rank):
        values = sorted((value for value in values if value is not None), reverse=True)
        return max(level, values[rank - 1]) if len(values) >= rank else level

    first = raised(levels[0], [each.t1.fitness for each in individuals], p)
    left = [each for each in individuals if each.t1.fitness is not None and each.t1.fitness >= first]
    second = raised(levels[1], [each.t2.fitness for each in left], q)
    survivors = [each for each in left if each.t2.fitness is not None and each.t2.fitness >= second]
    return (first, second), left, survivors


def test_the_record_tells_algorithm_1(digits, tmp_path, pretended):
    run_search(CONFIG, digits, tmp_path)
    individuals = lineage.read(tmp_path / "lineage.jsonl")
    levels, parent, best = (0.0, 0.0), None, None
    for generation in range(GENERATIONS):
        population = [each for each in individuals if each.generation == generation]
        levels, left, survivors = algorithm_1(population, levels, p=3, q=2)
        assert {each.parent for each in population} == {parent}
        for each in population:
            assert each.t1.threshold == levels[0]
            assert each.t2.threshold == (levels[1] if each in left else None)
            assert (each.t3.fitness is None) == (each not in survivors)
            if generation < 4:
                assert each.operators is not None
                assert each.repeats is None
                assert 1 <= sum(each.operators.values()) <= (6 if generation < 2 else 3)
            else:
                assert each.operators is None
                assert each.repeats is not None
                assert each.phase == "duplication"
            if each not in left:
                assert each.fate == Fate.EXTINCT_T1
            elif each not in survivors:
                assert each.fate == Fate.EXTINCT_T2
        if survivors:
            fittest = max(survivors, key=lambda each: each.t3.fitness)
            assert [each for each in population if each.test_accuracy is not None] == survivors
            if best is None or fittest.t3.fitness > best.t3.fitness:
                best = fittest
            # The last generation is bred from the fittest of all, the others from the fittest of the one before.
            following = best if generation == 3 else fittest
            parents = [each for each in population if each.fate == Fate.PARENT]
            assert parents == ([following] if following in population else [])
            parent = following.reference
    assert parent is not None, "somebody must have survived for this test to say anything"


def test_evolution_is_traced_once(digits, tmp_path, pretended, monkeypatch):
    traces = []

    def count(*arguments, **options):
        traces.append(1)
        return breed(*arguments, **options)

    breed = evolution.breed
    monkeypatch.setattr(evolution, "breed", count)
    run_search(dataclasses.replace(CONFIG, genome=dataclasses.replace(SPEC, capacity=7)), digits, tmp_path)
    assert len(traces) == 1, "breed is called where evolution_step is traced, and nowhere else"


def test_equal_architectures_are_trained_once(digits, tmp_path, pretended):
    run_search(CONFIG, digits, tmp_path)
    individuals = lineage.read(tmp_path / "lineage.jsonl")
    copies = [each for each in individuals if each.same_as is not None]
    assert copies, "the search space is small enough for repeats"
    by_place = {each.reference: each for each in individuals}
    for copy in copies:
        assert copy.same_as is not None
        original = by_place[copy.same_as]
        assert original.same_as is None
        assert original.architecture == copy.architecture
        assert copy.t1.fitness == original.t1.fitness
        assert (copy.seconds_compiling, copy.seconds_training) == (0, 0)
    assert max(Counter(pretended).values()) <= 3, "one training has three landmarks"


def test_reevaluation_trains_every_individual(digits, tmp_path, pretended):
    run_search(dataclasses.replace(CONFIG, reevaluate=True), digits, tmp_path)
    individuals = lineage.read(tmp_path / "lineage.jsonl")
    assert all(each.same_as is None for each in individuals)
    trainings, repeats = Counter(pretended), Counter(each.fingerprint for each in individuals)
    assert all(trainings[each] >= repeats[each] for each in repeats)
    assert max(repeats.values()) > 1


@pytest.mark.parametrize("reevaluate", [False, True])
def test_the_next_network_to_train_is_prepared_before_one_trains(digits, tmp_path, pretended, monkeypatch, reevaluate):
    prepared: list[tuple[str, int]] = []
    before: list[tuple[tuple[str, int], list[tuple[str, int]]]] = []  # each training, and what was prepared for it
    pretend = session.run_job

    def prepare(job, dataset, batch):
        assert batch.images.shape == (64, 8, 8, 1)
        prepared.append((lineage.fingerprint(job.architecture), job.until))

    def run(job, dataset, **options):
        before.append(((lineage.fingerprint(job.architecture), job.until), prepared.copy()))
        prepared.clear()
        return pretend(job, dataset, **options)

    monkeypatch.setattr(session, "prepare_job", prepare)
    monkeypatch.setattr(session, "run_job", run)
    run_search(dataclasses.replace(CONFIG, reevaluate=reevaluate), digits, tmp_path)
    assert len(before) > 10
    ahead = 0
    for (training, jobs), (following, _) in itertools.pairwise(before):
        assert jobs[0] == training
        if len(jobs) > 1:
            ahead += 1
            assert len(jobs) == 2
            assert jobs[1] != training
            assert jobs[1] == following or reevaluate, "twins between the two need no preparation"
    assert ahead > 5


class _Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("moment", ["recorded", "saved"])
@pytest.mark.parametrize("generation", range(1, GENERATIONS + 1, 2))
def test_a_run_killed_around_any_save_goes_on_to_the_same_record(
    digits, tmp_path, pretended, monkeypatch, generation, moment
):
    run_search(CONFIG, digits, tmp_path / "whole")
    save = checkpoint.save

    def save_and_die(folder, step, items, **options):
        dies = "evolution" in items and step == generation
        if not (dies and moment == "recorded"):
            save(folder, step, items, **options)
        if dies:
            raise _Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(_Killed):
        run_search(CONFIG, digits, tmp_path / "killed")
    monkeypatch.setattr(checkpoint, "save", save)
    result = run_search(CONFIG, digits, tmp_path / "killed")
    assert result.generations == GENERATIONS
    assert record(tmp_path / "killed") == record(tmp_path / "whole")


def test_a_finished_run_is_not_run_again(digits, tmp_path, pretended):
    first = run_search(CONFIG, digits, tmp_path)
    pretended.clear()
    assert run_search(CONFIG, digits, tmp_path) == first
    assert pretended == []


@pytest.mark.parametrize("reevaluate", [False, True])
def test_a_failed_individual_is_extinct_with_its_cause_and_never_trained_again(
    digits, tmp_path, pretended, monkeypatch, reevaluate
):
    pretend = session.run_job
    failed: list[str] = []

    def fail_odd_ones(job, dataset, **options):
        outcome = pretend(job, dataset, **options)
        if int(pretended[-1], 16) % 2:
            failed.append(pretended[-1])
            return Outcome(fitness=math.nan, cause="it broke", seconds=outcome.seconds)
        return outcome

    monkeypatch.setattr(session, "run_job", fail_odd_ones)
    result = run_search(dataclasses.replace(CONFIG, reevaluate=reevaluate), digits, tmp_path)
    assert failed
    assert len(failed) == len(set(failed))
    for each in lineage.read(tmp_path / "lineage.jsonl"):
        is_odd = int(each.fingerprint, 16) % 2 == 1
        assert (each.fate == Fate.FAILED) == is_odd
        assert each.cause == ("it broke" if is_odd else None)
    assert result.best is None or int(result.best.fingerprint, 16) % 2 == 0


def fail_all(job, dataset, **options):
    return Outcome(fitness=math.nan, cause="it broke")


def test_a_search_in_which_everything_fails_ends_without_a_network(digits, tmp_path, pretended, monkeypatch):
    monkeypatch.setattr(session, "run_job", fail_all)
    evolution = dataclasses.replace(CONFIG.evolution, max_secondary_generations=1)
    result = run_search(dataclasses.replace(CONFIG, evolution=evolution), digits, tmp_path)
    assert result.best is None
    assert result.test_accuracy is None
    assert {each.fate for each in lineage.read(tmp_path / "lineage.jsonl")} == {Fate.FAILED}
    assert {each.parent for each in lineage.read(tmp_path / "lineage.jsonl")} == {None}
    with pytest.raises(RunFolderError, match="name the folder of a run that has finished"):
        load_network(tmp_path)


def test_a_search_in_which_nothing_survives_is_given_up(digits, tmp_path, pretended, monkeypatch):
    monkeypatch.setattr(session, "run_job", fail_all)
    for _ in range(2):  # nor does it go on when it is started again
        with pytest.raises(BarrenSearchError) as caught:
            run_search(CONFIG, digits, tmp_path)
        assert str(caught.value) == (
            "nothing survived in 3 generations: of 12 individuals 12 failed, 12 of them because 'it broke'; lower the"
            " learning rate or the size of the networks, and start in a new run folder"
        )
        assert len(lineage.read(tmp_path / "lineage.jsonl")) == 12


def test_a_generation_in_which_all_fail_leaves_the_incumbent(digits, tmp_path, pretended, monkeypatch):
    pretend = session.run_job

    def fail_later(job, dataset, **options):
        generation = int(job.name.partition(".")[0])
        return fail_all(job, dataset) if generation == 1 else pretend(job, dataset, **options)

    monkeypatch.setattr(session, "run_job", fail_later)
    run_search(dataclasses.replace(CONFIG, reevaluate=True), digits, tmp_path)
    individuals = lineage.read(tmp_path / "lineage.jsonl")
    (incumbent,) = [each.reference for each in individuals if each.generation == 0 and each.fate == Fate.PARENT]
    assert {each.fate for each in individuals if each.generation == 1} == {Fate.FAILED}
    assert {each.parent for each in individuals if each.generation == 2} == {incumbent}


def test_a_run_killed_within_a_generation_measures_nothing_twice(digits, tmp_path, pretended, monkeypatch):
    run_search(CONFIG, digits, tmp_path / "whole")
    trained = sorted(pretended)
    pretended.clear()
    pretend = session.run_job

    def die_at_times(job, dataset, **options):
        outcome = pretend(job, dataset, **options)
        if len(pretended) % 4 == 0:
            pretended.pop()
            raise _Killed
        return outcome

    monkeypatch.setattr(session, "run_job", die_at_times)
    kills = 0
    while True:
        try:
            run_search(CONFIG, digits, tmp_path / "killed")
            break
        except _Killed:
            kills += 1
            pretended.append("killed")
    assert kills > 5
    assert sorted(each for each in pretended if each != "killed") == trained
    assert record(tmp_path / "killed") == record(tmp_path / "whole")
    assert not (tmp_path / "killed" / "individuals").exists()
    assert not (tmp_path / "killed" / "generation.jsonl").exists()


def test_weights_that_are_lost_before_they_are_saved_are_trained_again(digits, tmp_path, monkeypatch):
    whole = run_search(SMALL_CONFIG, digits, tmp_path / "whole")
    run = session.run_job

    def lose(job, dataset, **options):
        outcome = run(job, dataset, **options)
        if job.tested and (job.folder / "lost").exists() is False:
            for manifest in job.folder.glob("*/manifest.json"):
                manifest.write_text("{")
            (job.folder / "lost").touch()
        return outcome

    monkeypatch.setattr(session, "run_job", lose)
    result = run_search(SMALL_CONFIG, digits, tmp_path / "lost")
    assert result.test == whole.test
    assert record(tmp_path / "lost") == record(tmp_path / "whole")


def test_the_run_folder_says_what_was_run(digits, tmp_path, pretended):
    run_search(CONFIG, digits, tmp_path)
    content = json.loads((tmp_path / "settings.json").read_text())
    assert content["settings"]["seed"] == 0
    assert content["settings"]["genome"]["channels"] == [4, 8]
    assert content["settings"]["data_fingerprint"] == digits.fingerprint
    assert content["versions"]["jax"] == jax.__version__


def test_a_folder_of_other_settings_is_refused_and_left_alone(digits, tmp_path, pretended):
    run_search(CONFIG, digits, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError) as caught:
        run_search(dataclasses.replace(CONFIG, seed=7, t1=3), digits, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} belongs to a run with other settings: seed was 0 and is now 7, t1 was 2 and is now 3;"
        " choose another folder"
    )
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_folder_that_is_none_of_a_run_is_refused(digits, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError) as caught:
        run_search(CONFIG, digits, tmp_path)
    assert str(caught.value) == f"{tmp_path} holds files but no settings.json, so it is no run folder; choose another"
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_folder_in_use_is_refused(digits, tmp_path, pretended):
    class Second(SearchObserver):
        def search_started(self, *, generation):
            with pytest.raises(RunFolderError) as caught:
                run_search(CONFIG, digits, tmp_path)
            assert str(caught.value) == f"{tmp_path} is in use by another process; wait for it, or choose another"

    assert run_search(CONFIG, digits, tmp_path, observer=Second()).generations == GENERATIONS


def test_a_record_without_checkpoints_is_refused_and_kept(digits, tmp_path, pretended):
    run_search(CONFIG, digits, tmp_path)
    before = (tmp_path / "lineage.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(RunFolderError) as caught:
        run_search(CONFIG, digits, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has a record of 5 generations and no intact checkpoint;"
        " put its checkpoints back, or choose another folder"
    )
    assert (tmp_path / "lineage.jsonl").read_bytes() == before


def test_a_folder_left_by_a_process_killed_at_once_is_taken(digits, tmp_path, pretended):
    (tmp_path / ".lock").write_text("")
    (tmp_path / "settings.json.partial").write_text('{"schema')
    assert run_search(CONFIG, digits, tmp_path).generations == GENERATIONS


def test_weights_of_another_network_are_replaced(digits, tmp_path, pretended):
    run_search(CONFIG, digits, tmp_path)
    architecture, variables = load_network(tmp_path)
    (tmp_path / "network" / "genome.json").write_text(to_json(Architecture(input_shape=(8, 8, 1), layers=())))
    run_search(CONFIG, digits, tmp_path)
    again, variables_again = load_network(tmp_path)
    assert again == architecture
    chex.assert_trees_all_equal(variables_again, variables)


def test_another_version_is_warned_of(digits, tmp_path, pretended, caplog):
    run_search(CONFIG, digits, tmp_path)
    content = json.loads((tmp_path / "settings.json").read_text())
    content["versions"]["jax"] = "0.0.1"
    (tmp_path / "settings.json").write_text(json.dumps(content))
    run_search(CONFIG, digits, tmp_path)
    assert "the run was started with another jax; what follows may differ" in caplog.text


def test_a_folder_that_cannot_be_written_is_refused(digits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError) as caught:
        run_search(CONFIG, digits, tmp_path / "file" / "run")
    assert str(caught.value) == (
        f"cannot write the run folder {tmp_path}/file/run: Not a directory; choose one that can be written"
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "is damaged; put the run's own file back, or choose another folder"),
        ('{"schema_version": 9, "settings": {}}', "has schema version 9; this version of eigen_jax reads 2"),
    ],
)
def test_damaged_settings_are_refused(digits, tmp_path, content, line):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(RunFolderError) as caught:
        run_search(CONFIG, digits, tmp_path)
    assert str(caught.value) == f"{tmp_path}/settings.json {line}"


def test_settings_that_do_not_fit_the_data_are_refused(digits, tmp_path):
    with pytest.raises(SearchConfigError) as caught:
        run_search(dataclasses.replace(CONFIG, genome=GenomeSpec()), digits, tmp_path)
    assert str(caught.value) == (
        "the search space is for images (32, 32, 3) of 10 classes, and digits has (8, 8, 1) of 10"
    )
    train = dataclasses.replace(CONFIG.train, batch_size=4_000)
    with pytest.raises(SearchConfigError) as caught:
        run_search(dataclasses.replace(CONFIG, train=train), digits, tmp_path)
    assert str(caught.value) == "batch_size is 4000; it must be at most 1237, the images to train on"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"t1": 0}, "t1 is 0; it must be at least 1 step"),
        ({"t3": -5}, "t3 is -5; it must be at least 1 step"),
        ({"seed": -1}, "seed is -1; it must be from 0 to 4294967295"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, line):
    with pytest.raises(SearchConfigError) as caught:
        SearchConfig(**change)
    assert str(caught.value) == line
