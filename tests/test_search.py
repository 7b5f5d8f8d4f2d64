"""Whole searches: the record, the run folder, continuing after a kill, failures."""

import dataclasses
import itertools
import json
import math
import os
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import pytest
from executor_data import CONFIG as TRAIN
from executor_data import make_dataset
from refusals import refuses
from search_data import Pretence

from eigen_jax import lineage, search
from eigen_jax.architecture import Architecture, fingerprint, to_json
from eigen_jax.data import Dataset
from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Fate, Individual, Reference, without_times
from eigen_jax.search import RunFolderError, SearchConfig, SearchObserver, load_network, run_search
from eigen_jax.search.candidates import Measured, candidates_of
from eigen_jax.search.generation import Generation
from eigen_jax.store import checkpoint
from eigen_jax.strategies import Eigen, EvolutionConfig, eigen
from eigen_jax.strategies.eigen import Phase

SPEC = GenomeSpec(capacity=6, input_shape=(4, 4, 1), num_classes=2, channels=(4, 8), max_flops=50_000)
TWO: dict[str, Any] = {"max_primary_generations": 2, "max_secondary_generations": 2}
EVOLUTION = EvolutionConfig(population_size=4, primary_steps=6, secondary_steps=3, first_rank=3, second_rank=2, **TWO)
# With this seed there are individuals of every fate, and copies of the same generation and of earlier ones.
CONFIG = SearchConfig(seed=1, t1=2, t2=2, t3=2, final_steps=0, genome=SPEC, evolution=EVOLUTION, train=TRAIN)
REEVALUATING = dataclasses.replace(CONFIG, reevaluate=True)
PHASES = ["primary"] * 2 + ["secondary"] * 2 + ["duplication"]  # of the generations


class Run(SearchObserver):
    """A search with pretended training, and some of what it told. Who writes to its folder copies it first."""

    result: search.SearchResult

    def __init__(self, config: SearchConfig, dataset: Dataset, folder: Path) -> None:
        self.folder = folder
        self.phases: list[str] = []
        self.steps: list[tuple[int, int, int]] = []
        self.traces, breed = 0, eigen.breed

        def count(*arguments, **options):
            self.traces += 1
            return breed(*arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(eigen, "breed", count)
            asked = Pretence(patch)
            assert run_search(config, dataset, folder, observer=self) == self.result
        self.trained, self.prepared, self.keys = asked.trained, asked.prepared, asked.keys

    def generation_started(self, *, generation, phase, title, architectures, quota):
        self.phases.append(phase)

    def training_progress(self, *, individual, landmark, step, until, loss, steps_per_second):
        self.steps.append((landmark, step, until))

    def search_ended(self, *, result):
        self.result = result

    @property
    def individuals(self) -> tuple[Individual, ...]:
        return lineage.read(self.folder / "lineage.jsonl")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory) -> Run:
    """A search with pretended training that nobody disturbs."""
    return Run(CONFIG, dataset, tmp_path_factory.mktemp("search") / "run")


@pytest.fixture(scope="module")
def reevaluated(dataset, whole, tmp_path_factory) -> Run:
    """The same, where equal architectures are trained again."""
    return Run(REEVALUATING, dataset, tmp_path_factory.mktemp("search") / "run")


@pytest.fixture
def pretended(whole, monkeypatch) -> Pretence:
    """Replaces training; after `whole`, which counts how often the evolution is traced in this process."""
    return Pretence(monkeypatch)


def check_is_the_same(folder: Path, whole: Run) -> None:
    """Checks the record, but for times, and the network."""
    ours, theirs = lineage.read(folder / "lineage.jsonl"), whole.individuals
    assert [without_times(each) for each in ours] == [without_times(each) for each in theirs]
    chex.assert_trees_all_equal(load_network(folder), load_network(whole.folder))


def fitness(individual: Individual, landmark: int) -> float:
    """Its one objective at a landmark; -inf where it has none."""
    there = individual.landmarks[landmark : landmark + 1]
    return there[0].fitness[0] if there and there[0].fitness else -math.inf


def algorithm_1(individuals, levels, p, q):
    """Fates and thresholds of a generation by hand: Algorithm 1 on plain lists."""

    def raised(level, values, rank):
        values = sorted(filter(math.isfinite, values), reverse=True)
        return max(level, values[rank - 1]) if len(values) >= rank else level

    def survivors(individuals, landmark, level):
        measured = [each for each in individuals if math.isfinite(fitness(each, landmark))]
        return [each for each in measured if fitness(each, landmark) >= level]

    first = raised(levels[0], [fitness(each, 0) for each in individuals], p)
    left = survivors(individuals, 0, first)
    second = raised(levels[1], [fitness(each, 1) for each in left], q)
    return (first, second), left, survivors(left, 1, second)


def test_the_record_tells_algorithm_1(whole):
    assert whole.phases == PHASES
    assert set(whole.steps) == {(0, 2, 2), (1, 4, 4), (2, 6, 6)}
    assert whole.result.generations == len(PHASES)
    individuals, levels, parent, best = whole.individuals, (-math.inf, -math.inf), None, None
    assert sorted(individuals, key=lambda each: (each.generation, each.index)) == list(individuals)
    for generation, phase in enumerate(PHASES):
        population = [each for each in individuals if each.generation == generation]
        if phase == "duplication":  # all train to the end, and no threshold applies
            applied, left, survivors = (None, None), population, population
        else:
            applied, left, survivors = algorithm_1(population, levels, p=3, q=2)
            levels = applied
        assert {each.parent for each in population} == {parent}
        assert {each.phase for each in population} == {phase}
        for each in population:
            trained_for = 3 if each in survivors else 2 if each in left else 1
            assert [landmark.step for landmark in each.landmarks] == [2, 4, 6][:trained_for]
            assert [landmark.threshold for landmark in each.landmarks] == [*applied, None][:trained_for]
            assert (each.accuracy is None) == (each not in survivors)
            is_duplicate = phase == "duplication"
            assert (each.operators is None, each.repeats is None) == (is_duplicate, not is_duplicate)
            if each.operators is not None:
                assert 1 <= sum(each.operators.values()) <= (6 if phase == "primary" else 3)
            assert (each.fate == Fate.EXTINCT) == (each not in survivors)
        if survivors:
            fittest = max(survivors, key=lambda each: fitness(each, 2))
            assert [each for each in population if each.test_accuracy is not None] == survivors
            if best is None or fitness(fittest, 2) > fitness(best, 2):
                best = fittest
            # The last generation is bred from the fittest of all, the others from the fittest of the one before.
            following = best if generation == 3 else fittest
            parents = [each for each in population if each.fate == Fate.PARENT]
            assert parents == ([following] if following in population else [])
            parent = following.reference
    assert {each.fate for each in individuals} == set(Fate) - {Fate.FAILED}, "else this test says less"
    assert whole.result.best == best
    assert load_network(whole.folder)[0] == best.architecture


def test_equal_architectures_are_trained_once_and_the_evolution_is_traced_once(whole):
    assert whole.traces <= 1, "breed is called where evolution_step is traced, and nowhere else"
    copies = [each for each in whole.individuals if each.same_as is not None]
    assert {copy.same_as.generation == copy.generation for copy in copies if copy.same_as} == {True, False}
    by_place = {each.reference: each for each in whole.individuals}
    for copy in copies:
        assert copy.same_as is not None
        original = by_place[copy.same_as]
        assert original.same_as is None
        assert original.architecture == copy.architecture
        assert copy.landmarks[0].measurement == original.landmarks[0].measurement
        assert (copy.seconds_compiling, copy.seconds_training) == (0, 0)
    assert max(Counter(whole.trained).values()) == 1
    assert whole.result.trained == len(whole.individuals) - len(copies) == len({name for name, _ in whole.trained})


def test_a_duplicate_is_trained_to_the_end_where_an_equal_network_went_extinct(whole, dataset):
    pooling = Architecture(input_shape=SPEC.input_shape, layers=())
    extinct = next(each for each in whole.individuals if len(each.landmarks) == 1 and each.same_as is None)
    extinct = dataclasses.replace(extinct, architecture=pooling)
    finished = dataclasses.replace(extinct, index=9, landmarks=extinct.landmarks * 3, fate=Fate.SURVIVED)
    strategy, state = Eigen(spec=SPEC, config=EVOLUTION), eigen.genesis(spec=SPEC, config=EVOLUTION)
    for phase, known, taken_over in (
        (Phase.PRIMARY, [extinct], extinct.reference),
        (Phase.DUPLICATION, [extinct], None),
        (Phase.DUPLICATION, [extinct, finished], finished.reference),
    ):
        measured = Measured(reevaluate=False)
        measured.add(known)
        context = cast(Any, SimpleNamespace(config=CONFIG, strategy=strategy, measured=measured, jobs=()))
        repeats = state.population.repeats + int(phase == Phase.DUPLICATION)
        children = dataclasses.replace(state.population, repeats=repeats)
        bred = dataclasses.replace(state, generation=jnp.int32(5), phase=jnp.int32(phase), population=children)
        candidates = candidates_of(strategy, strategy.population(bred), jax.random.key(0), known={})
        generation = Generation(5, bred, candidates, context, slots=4)
        assert {each.same_as for each in generation.due} == {taken_over}


def test_reevaluation_trains_every_individual(reevaluated):
    assert all(each.same_as is None for each in reevaluated.individuals)
    trainings = Counter(name for name, until in reevaluated.trained if until == 2)
    repeats = Counter(each.fingerprint for each in reevaluated.individuals)
    assert trainings == repeats
    assert len(set(reevaluated.keys.values())) == len(reevaluated.individuals), "each has its own"
    assert max(repeats.values()) > 1


@pytest.mark.parametrize("name", ["whole", "reevaluated"])
def test_the_next_network_to_train_is_prepared_before_one_trains(request, name):
    run, ahead = request.getfixturevalue(name), 0
    assert len(run.trained) > 10
    for jobs, (training, following) in zip(run.prepared, itertools.pairwise(run.trained), strict=False):
        assert jobs[0] == training
        if len(jobs) > 1:
            ahead += 1
            assert len(jobs) == 2
            assert jobs[1] != training
            assert jobs[1] == following or name == "reevaluated", "twins between the two need no preparation"
    assert ahead > 5


class _Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def run_until_it_ends(dataset: Dataset, folder: Path) -> int:
    """Runs a search again and again, and tells how often it was killed."""
    kills = 0
    while True:
        try:
            assert run_search(CONFIG, dataset, folder).generations == len(PHASES)
            return kills
        except _Killed:
            kills += 1
            assert kills < 20, "it gets nowhere"


@pytest.mark.parametrize("generations", [(1, 5), pytest.param((2, 3, 4), marks=pytest.mark.slow)], ids=str)
def test_a_run_killed_around_a_save_goes_on_to_the_same_record(
    dataset, tmp_path, pretended, whole, monkeypatch, generations
):
    save, kills = checkpoint.save, []

    def save_and_die(folder, step, items, **options):
        is_due = "evolution" in items and step in generations
        if is_due and (step, "recorded") not in kills:
            kills.append((step, "recorded"))
            raise _Killed
        save(folder, step, items, **options)
        if is_due:
            kills.append((step, "saved"))
            raise _Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    assert run_until_it_ends(dataset, tmp_path / "run") == 2 * len(generations)
    assert kills == list(itertools.product(generations, ("recorded", "saved")))
    check_is_the_same(tmp_path / "run", whole)


def test_a_run_killed_within_a_generation_measures_nothing_twice(dataset, tmp_path, pretended, whole):
    lost = []

    def die_at_times(job):
        if len(pretended.trained) % 4 == 0:
            lost.append(pretended.trained[-1])
            raise _Killed

    pretended.afterwards = die_at_times
    assert run_until_it_ends(dataset, tmp_path / "run") == len(lost) > 5
    assert sorted(pretended.trained) == sorted(whole.trained + lost)
    check_is_the_same(tmp_path / "run", whole)
    assert not {"individuals", "generation.jsonl"} & set(os.listdir(tmp_path / "run"))


def test_weights_that_are_lost_before_they_are_saved_are_asked_for_again(dataset, tmp_path, pretended, whole):
    def damage_once(job):
        if job.tested and not (job.folder / "damaged").exists():
            for manifest in job.folder.glob("*/manifest.json"):
                manifest.write_text("{")
            (job.folder / "damaged").touch()

    pretended.afterwards = damage_once
    assert run_search(CONFIG, dataset, tmp_path / "run").test == whole.result.test
    again = Counter(pretended.trained) - Counter(whole.trained)
    assert {(count, until) for (_, until), count in again.items()} == {(1, 6)}
    check_is_the_same(tmp_path / "run", whole)


@pytest.mark.parametrize("config", [REEVALUATING, pytest.param(CONFIG, marks=pytest.mark.slow)], ids=["again", "once"])
def test_a_failed_individual_is_extinct_with_its_cause_and_never_trained_again(dataset, tmp_path, pretended, config):
    def is_faulty(name: str) -> bool:
        return int(name, 16) % 3 == 2

    pretended.fails = lambda job: is_faulty(fingerprint(job.architecture))
    result = run_search(config, dataset, tmp_path)
    failed = [name for name, _ in pretended.trained if is_faulty(name)]
    assert len(failed) == len(set(failed))
    individuals = lineage.read(tmp_path / "lineage.jsonl")
    for each in individuals:
        assert (each.fate == Fate.FAILED) == is_faulty(each.fingerprint)
        assert each.cause == ("it broke" if is_faulty(each.fingerprint) else None)
    copies = [each for each in individuals if each.cause and each.same_as]
    assert {each.same_as.generation == each.generation for each in copies if each.same_as} == {True, False}
    assert result.best is None or not is_faulty(result.best.fingerprint)


def test_a_search_in_which_nothing_survives_is_given_up_or_ends_without_a_network(
    dataset, tmp_path, pretended, monkeypatch
):
    pretended.fails = lambda job: True
    line = (
        "nothing survived in 3 generations: of 12 individuals 12 failed, 12 of them because 'it broke'; lower the"
        " learning rate or the size of the networks, and start in a new run folder"
    )
    for _ in range(2):  # nor does it go on when it is started again
        with refuses(search.BarrenSearchError, line):
            run_search(CONFIG, dataset, tmp_path)
        assert len(lineage.read(tmp_path / "lineage.jsonl")) == 12
    monkeypatch.setattr("eigen_jax.search.loop.BARREN", len(PHASES))
    result = run_search(CONFIG, dataset, tmp_path)
    assert (result.best, result.test_accuracy, result.generations) == (None, None, 4), "there is nothing to duplicate"
    individuals = lineage.read(tmp_path / "lineage.jsonl")
    assert {(each.fate, each.parent) for each in individuals} == {(Fate.FAILED, None)}
    with pytest.raises(RunFolderError, match="name the folder of a run that has finished"):
        load_network(tmp_path)


@pytest.mark.parametrize("switch", ["jax_debug_nans", "jax_disable_jit"])
def test_a_search_goes_its_course_while_people_look_for_nans_or_step_through(
    dataset, tmp_path, pretended, whole, switch
):
    pretended.fails = lambda job: job.name == "3.0"
    jax.config.update(switch, True)
    try:
        run_search(CONFIG, dataset, tmp_path / "run")
    finally:
        jax.config.update(switch, False)
    ours, theirs = lineage.read(tmp_path / "run" / "lineage.jsonl"), whole.individuals
    assert [without_times(each) for each in ours if each.generation < 3] == [
        without_times(each) for each in theirs if each.generation < 3
    ]
    assert [each.reference for each in ours if each.fate is Fate.FAILED] == [Reference(generation=3, index=0)]


def test_a_generation_in_which_all_fail_leaves_the_incumbent(dataset, tmp_path, pretended):
    pretended.fails = lambda job: job.name.startswith("1.")
    run_search(REEVALUATING, dataset, tmp_path)
    individuals = lineage.read(tmp_path / "lineage.jsonl")
    (incumbent,) = [each.reference for each in individuals if each.generation == 0 and each.fate == Fate.PARENT]
    assert {each.fate for each in individuals if each.generation == 1} == {Fate.FAILED}
    assert {each.parent for each in individuals if each.generation == 2} == {incumbent}


def test_a_finished_run_is_mended_and_not_run_again_and_others_kept_out(dataset, tmp_path, pretended, whole):
    copied, seen = shutil.copytree(whole.folder, tmp_path / "run"), []
    # Weights of another network are replaced.
    (copied / "network" / "genome.json").write_text(to_json(Architecture(input_shape=(4, 4, 1), layers=())))

    class Second(SearchObserver):
        def search_started(self, *, generation, landmarks):
            line = f"{copied} is in use by another process; wait for it or end it, or choose another folder"
            with refuses(RunFolderError, line):
                run_search(CONFIG, dataset, copied)
            seen.append(generation)

    assert run_search(CONFIG, dataset, copied, observer=Second()) == whole.result
    assert (seen, pretended.trained) == ([len(PHASES)], [])
    check_is_the_same(copied, whole)
    shutil.rmtree(copied / "checkpoints")
    line = f"{copied} has a record of 5 generations and no intact checkpoint; put its checkpoints back"
    with refuses(RunFolderError, f"{line}, or choose another folder"):
        run_search(CONFIG, dataset, copied)
    assert (copied / "lineage.jsonl").read_bytes() == (whole.folder / "lineage.jsonl").read_bytes()


def test_the_run_folder_says_what_was_run_and_refuses_other_settings(dataset, whole):
    content = json.loads((whole.folder / "settings.json").read_text())
    assert content["settings"]["seed"] == 1
    assert content["settings"]["genome"]["channels"] == [4, 8]
    assert content["settings"]["data_fingerprint"] == dataset.fingerprint
    assert content["versions"]["jax"] == jax.__version__
    before = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    changes = "seed was 1 and is now 7, t1 was 2 and is now 3"
    line = f"{whole.folder} belongs to a run with other settings: {changes}; choose another folder"
    with refuses(RunFolderError, line):
        run_search(dataclasses.replace(CONFIG, seed=7, t1=3), dataset, whole.folder)
    assert before == {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}


def test_settings_that_do_not_fit_the_data_are_refused(dataset, tmp_path):
    space = "the search space is for images (32, 32, 3) of 10 classes, and bright_and_dark has (4, 4, 1) of 2"
    with refuses(ConfigError, space):
        run_search(dataclasses.replace(CONFIG, genome=GenomeSpec()), dataset, tmp_path)
    train = dataclasses.replace(CONFIG.train, batch_size=4_000)
    with refuses(ConfigError, "batch_size is 4000; it must be at most 16, the images to train on"):
        run_search(dataclasses.replace(CONFIG, train=train), dataset, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"t1": 0}, "t1 is 0; it must be at least 1"),
        ({"t2": 0}, "t2 is 0; it must be at least 1"),
        ({"t3": -5}, "t3 is -5; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be from 0 to 4,294,967,295"),
        ({"seed": 1 << 32}, "seed is 4294967296; it must be from 0 to 4,294,967,295"),
        ({"final_steps": -1}, "final_steps is -1; it must be at least 0"),
        ({"final_on": "test"}, "final_on is 'test'; it must be one of train, train+validation"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, line):
    with refuses(ConfigError, line):
        SearchConfig(**change)
