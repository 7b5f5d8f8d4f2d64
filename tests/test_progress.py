"""What a search shows, line by line, with a clock that the test turns."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
import report_data
from rich.console import Console

from eigen_jax.architecture import IMAGE, Architecture, Layer, count_flops, count_parameters
from eigen_jax.genome import GenomeSpec
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.search import SearchConfig, SearchResult
from eigen_jax.store.run_files import RunSeconds
from eigen_jax.strategies import Eigen, EvolutionConfig
from eigen_jax.strategies.eigen import Phase
from experiments.networks import describe
from experiments.progress import ConsoleObserver, LiveBars, Standing, duration, steps_left

CONFIG = SearchConfig(
    t1=100,
    t2=200,
    t3=50,
    genome=GenomeSpec(capacity=8, input_shape=(8, 8, 1), num_classes=10),
    evolution=EvolutionConfig(population_size=3, primary_steps=20, secondary_steps=4, first_rank=2, second_rank=1),
)
EMPTY = Architecture(input_shape=(8, 8, 1), layers=())
# 1 * 9 * 16 weights and 2 * 16 of normalisation; the classifier has (16 + 1) * 10.
CONV = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="conv", inputs=(IMAGE,), channels=16, kernel=3, stride=1),))
COUNTS = {"parameters": count_parameters, "flops": count_flops}
POOL = Architecture(input_shape=(8, 8, 1), layers=(Layer(op="pool", inputs=(IMAGE,)),))


PRIMARY = "Primary succession: up to 20 mutation steps a child"


class Clock:
    """Seconds, as the test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make_console(terminal: bool) -> tuple[Console, io.StringIO, Clock]:
    text, live = io.StringIO(), terminal
    console = Console(
        file=text, width=80, height=30, highlight=False, force_terminal=live, force_interactive=live, _environ={}
    )
    return console, text, Clock()


def make_observer(*, terminal: bool = False) -> tuple[ConsoleObserver, io.StringIO, Clock]:
    console, text, clock = make_console(terminal)
    observer = ConsoleObserver(CONFIG, folder=Path("runs/x"), console=console, clock=clock)
    observer.search_started(generation=4, landmarks=CONFIG.landmarks)
    text.seek(0)
    text.truncate()
    return observer, text, clock


def individual(index: int, architecture: Architecture, fate: Fate, t3: float | None = None, **fields) -> Individual:
    sizes = {name: count(architecture, num_classes=10) for name, count in COUNTS.items()}
    return report_data.individual(4, index, "primary", t3, architecture=architecture, fate=fate, **sizes, **fields)


def at(index: int, generation: int = 4) -> Reference:
    return Reference(generation=generation, index=index)


def start(
    observer: ConsoleObserver,
    *architectures: Architecture,
    generation: int = 4,
    title: str = "Primary",
    quota: Sequence[int] = (2, 1),
    ahead: Mapping[Reference, Architecture] | None = None,
) -> None:
    """A generation starts, in a phase that is called as its title."""
    children = {at(index, generation): architecture for index, architecture in enumerate(architectures)}
    known: dict[str, Any] = {"phase": title.lower(), "title": title, "quota": quota}
    observer.generation_started(generation=generation, architectures=children | dict(ahead or {}), **known)


def train(observer: ConsoleObserver, index: int, step: int, loss: float, rate: float, generation: int = 4) -> None:
    """An individual is on its way to T1."""
    place = at(index, generation)
    observer.training_progress(individual=place, landmark=0, step=step, until=100, loss=loss, steps_per_second=rate)


def measure(
    observer: ConsoleObserver,
    place: Reference,
    landmark: int,
    accuracy: float | None,
    *fitness: float,
    cause: str | None = None,
    same_as: Reference | None = None,
) -> None:
    """An individual reaches a landmark, or fails; its fitness is its accuracy by default."""
    objectives = fitness or (None if accuracy is None else (accuracy,))
    measurement = None if accuracy is None else report_data.measured(accuracy)
    told: dict[str, Any] = {"measurement": measurement, "fitness": objectives, "cause": cause, "same_as": same_as}
    observer.individual_measured(individual=place, landmark=landmark, **told)


def run_generation(observer: ConsoleObserver, clock: Clock) -> None:
    """A generation of three: one extinct at T1, one at T2 (taken over from another), and the parent."""
    start(observer, CONV, EMPTY, POOL, title=PRIMARY)
    for index, accuracy, same_as in ((0, 0.5, None), (1, 0.25, None), (2, 0.375, at(2, 1))):
        if same_as is None:
            clock.now += 20
            train(observer, index, 50, 2.25, 2.5)
            train(observer, index, 100, 1.5, 1234.5)
        measure(observer, at(index), 0, accuracy, same_as=same_as)
    observer.individuals_extinct(landmark=0, individuals=[at(1)], threshold=0.375)
    measure(observer, at(0), 1, 0.625)
    measure(observer, at(2), 1, 0.4375, same_as=at(2, 1))
    observer.individuals_extinct(landmark=1, individuals=[at(2)], threshold=0.625)
    measure(observer, at(0), 2, 0.75)
    individuals = [
        individual(0, CONV, Fate.PARENT, 0.75),
        individual(1, EMPTY, Fate.EXTINCT),
        individual(2, POOL, Fate.EXTINCT, same_as=at(2, 1)),
    ]
    clock.now = 125.0
    observer.generation_ended(individuals=individuals, best_fitness=0.8125, parent=at(0))


def test_a_generation_is_told_in_lines():
    observer, text, clock = make_observer()
    with observer:
        observer.search_started(generation=4, landmarks=CONFIG.landmarks)
        run_generation(observer, clock)
    assert text.getvalue().split("\n") == [
        "Run folder runs/x, going on after 4 generations",
        "Individuals are named generation.index; accuracies are % of validation images",
        "",
        "Primary succession: up to 20 mutation steps a child",
        "",
        "Generation 4, 3 children",
        "  name  layers  parameters    T1/needed    T2/needed     T3  fate",
        # After 20 s for 50 steps there are 50 + 200 more to T1, 2 * 200 to T2 and 50 to T3.
        "  4.0 to T1: 50/100, loss 2.25, 2.5 steps/s; about 4 min 40 s left",
        # After 40 s for 150 steps: 50 + 100, 400, 50.
        "  4.1 to T1: 50/100, loss 2.25, 2.5 steps/s; about 2 min 40 s left",
        "   4.1       0          20    25.0/37.5                      extinct",
        "   4.2       1          20    37.5/37.5    43.8/62.5         extinct (as 1.2)",
        "   4.0       1         346    50.0/37.5    62.5/62.5   75.0  parent",
        "Generation 4 (2 min 5 s): best 81.2 %, needed 37.5 and 62.5 %, parent 4.0",
        "",
    ]
    assert max(map(len, text.getvalue().split("\n"))) <= 80


def test_a_phase_has_its_heading_once():
    observer, text, _ = make_observer()
    strategy = Eigen(spec=CONFIG.genome, config=CONFIG.evolution)
    phases = (Phase.PRIMARY, Phase.PRIMARY, Phase.SECONDARY, Phase.SECONDARY, Phase.DUPLICATION, Phase.DUPLICATION)
    for generation, phase in enumerate(phases):
        state: Any = dataclasses.replace(strategy.genesis(), phase=jnp.int32(phase))
        start(observer, EMPTY, generation=generation, title=strategy.title(state))
    assert [line for line in text.getvalue().split("\n") if "succession" in line or "duplication" in line] == [
        "Primary succession: up to 20 mutation steps a child",
        "Secondary succession: up to 4 mutation steps a child",
        "Gene duplication: blocks of the fittest, up to 3 in a row",
    ]


def test_a_failure_says_why_and_the_parent_stays_the_first_network():
    observer, text, _ = make_observer()
    cause = "training diverged by step 50: the mean loss is nan; lower the learning rate, and then try it once more"
    start(observer, CONV, CONV)
    for index in (0, 1):
        measure(observer, at(index), 0, None, cause=cause)
    observer.individuals_extinct(landmark=0, individuals=[at(0), at(1)], threshold=0.5)
    observer.individuals_extinct(landmark=1, individuals=[], threshold=0.0)
    failed = [individual(index, CONV, Fate.FAILED, cause=cause) for index in (0, 1)]
    observer.generation_ended(individuals=failed, best_fitness=float("-inf"), parent=None)
    *_, row, told, end, _ = text.getvalue().split("\n")
    assert row == "   4.1       1         346       -/50.0                      failed"
    assert told == f"        {cause}"
    assert end == "Generation 4 (0 s): best - %, needed 50.0 and 0.0 %, parent global pooling"


def test_where_no_threshold_applies_none_is_told_and_all_are_expected_to_train_on():
    observer, text, clock = make_observer()
    start(observer, CONV, CONV, quota=(3, 3))
    clock.now = 30.0
    # Half a second a step, and 40 + 100 + 2 * 250 left.
    train(observer, 0, 60, 1.0, 2.0)
    assert text.getvalue().endswith("; about 5 min 20 s left\n")
    for reached in (0, 1):
        for index in (0, 1):
            measure(observer, at(index), reached, 0.25)
        observer.individuals_extinct(landmark=reached, individuals=[], threshold=None)
    survived = [individual(index, CONV, Fate.SURVIVED, 0.25) for index in (0, 1)]
    observer.generation_ended(individuals=survived, best_fitness=0.25, parent=None)
    *_, row, end, _ = text.getvalue().split("\n")
    assert row.split() == ["4.1", "1", "346", "25.0", "25.0", "survived"]
    assert end == "Generation 4 (30 s): best 25.0 %, parent global pooling"


def test_another_fitness_than_accuracy_stands_beside_it_and_has_no_percent():
    observer, text, clock = make_observer()
    start(observer, CONV, CONV)
    measure(observer, at(0), 0, 0.5, -12.5, 3.0)
    clock.now = 10.0
    measure(observer, at(1), 0, 0.25, -13.25, 4.0)
    observer.individuals_extinct(landmark=0, individuals=[at(1)], threshold=-12.75)
    lost, survived = individual(1, CONV, Fate.EXTINCT), individual(0, CONV, Fate.SURVIVED, 0.5)
    observer.generation_ended(individuals=[survived, lost], best_fitness=-12.5, parent=None)
    *_, measured, extinct, row, end, _ = text.getvalue().split("\n")
    assert measured == "  4.1 at T1: 25.0 (-13.25, 4)"
    assert extinct.split() == ["4.1", "1", "346", "25.0", "(-13.25,", "4)/-12.75", "extinct"]
    assert row.split() == ["4.0", "1", "346", "50.0", "(-12.5,", "3)/-12.75", "survived"]
    assert end == "Generation 4 (10 s): best -12.5, needed -12.75, parent global pooling"


def test_a_fitness_that_is_accuracy_is_told_in_percent_alone():
    observer, text, clock = make_observer()
    start(observer, CONV, CONV)
    clock.now = 10.0
    measure(observer, at(0), 0, 0.5)
    assert text.getvalue().split("\n")[-2] == "  4.0 at T1: 50.0 %"


def test_who_was_trained_ahead_keeps_what_it_reached_until_it_is_due():
    observer, text, _ = make_observer()
    observer.search_started(generation=4, landmarks=[100])
    place = at(0, 5)
    start(observer, CONV, quota=(), ahead={place: POOL})
    train(observer, 0, 60, 1.0, 2.0, generation=5)
    measure(observer, at(0), 0, 0.25)
    measure(observer, place, 0, 0.75)
    ends = (4, 0.25, CONV), (5, 0.75, POOL), (6, 0.5, EMPTY)
    for generation, accuracy, architecture in ends:
        if generation > 4:
            start(observer, architecture, generation=generation, quota=())
        if generation == 6:
            measure(observer, at(0, 6), 0, accuracy)
        parts: dict[str, Any] = {"architecture": architecture, "parameters": 1, "flops": 1}
        ended = report_data.individual(generation, 0, "primary", accuracy, **parts)
        observer.generation_ended(individuals=[ended], best_fitness=min(accuracy, 0.5) + 0.25, parent=None)
    told = text.getvalue().split("\n")
    assert [line.split() for line in told[-6:-1]] == [
        ["4.0", "1", "346", "25.0", "survived"],
        ["best", "50.0", "%"],
        ["5.0", "1", "20", "75.0", "survived"],
        ["best", "75.0", "%"],
        ["6.0", "0", "20", "50.0", "survived"],  # no better than the best
    ]


def test_steps_that_were_trained_ahead_took_none_of_the_time_of_a_generation():
    observer, text, clock = make_observer()
    observer.search_started(generation=4, landmarks=[100])
    start(observer, CONV, quota=(), ahead={at(0, 5): POOL})
    train(observer, 0, 40, 1.0, 2.0, generation=5)
    clock.now = 100.0
    start(observer, POOL, generation=5, quota=())
    clock.now = 110.0
    train(observer, 0, 60, 1.0, 2.0, generation=5)
    # After 10 s for 20 steps there are 40 left.
    assert text.getvalue().endswith("  5.0 to T1: 60/100, loss 1, 2.0 steps/s; about 20 s left\n")


def test_without_a_terminal_progress_is_told_at_most_every_ten_seconds():
    observer, text, clock = make_observer()
    start(observer, CONV, generation=0)
    for second in range(1, 41):
        clock.now = float(second)
        train(observer, 0, second, 1.0, 1.0, generation=0)
    told = [line.split(",")[0] for line in text.getvalue().split("\n") if " to T1" in line]
    assert told == [f"  0.0 to T1: {step}/100" for step in (10, 20, 30, 40)]


def test_on_a_terminal_there_are_bars_that_go_away_and_one_for_the_final_training():
    observer, text, clock = make_observer(terminal=True)
    with observer:
        start(observer, CONV)
        clock.now = 60.0
        train(observer, 0, 50, 2.25, 2.5)
        observer.bars.refresh()
        shown = text.getvalue()
    assert "4.0 to T1" in shown
    assert "50/100, loss 2.25, 2.5 steps/s" in shown
    # 60 s for 50 steps; before it are 50 to T1, 200 to T2 and 50 to T3.
    assert "about 6 min 0 s left" in shown
    assert "4.0 to T1: 50/100" not in shown
    assert "\x1b[?25h" in text.getvalue()[len(shown) :]
    observer, text, _ = make_observer(terminal=True)
    with observer:
        observer.final_training_started(best=individual(0, CONV, Fate.PARENT, 0.75), until=2_000)
        observer.bars.refresh()
        assert "preparing" in text.getvalue()
        observer.final_training_progress(step=500, loss=1.25, steps_per_second=50.0)
        observer.bars.refresh()
    assert "final training" in text.getvalue()
    assert "loss 1.25, 50 steps/s, 30 s left" in text.getvalue()


ENDED = SearchResult(
    best=individual(0, CONV, Fate.PARENT, 0.75),
    validation_accuracy=0.75,
    search_test_accuracy=0.72,
    test_accuracy=0.72,
    generations=9,
    trained=31,
    network=None,
    seconds=RunSeconds(search=60.0, final=None),
    mimicry=None,
)


def told_at_the_end(result: SearchResult) -> list[str]:
    observer, text, clock = make_observer()
    clock.now = 3_725.0
    observer.search_ended(result=result)
    return text.getvalue().split("\n")


def test_the_end_shows_the_network_and_what_it_reached():
    seconds = RunSeconds(search=60.0, final=5.0)
    final = dataclasses.replace(ENDED, final_validation_accuracy=0.875, test_accuracy=0.84, seconds=seconds)
    lines = told_at_the_end(final)
    assert lines[1] == "The search ended: 9 generations, 31 networks trained, 1 h 2 min this time"
    assert lines[2] == "The network found, 4.0:"
    assert [line for line in lines if "accuracy" in line] == [
        "validation accuracy  75.0 % in the search",
        "test accuracy        72.0 % with the search's weights",
        "test accuracy        84.0 %",
    ]
    # 22 * 22 taps on the map, 16 filters, and 160 weights of the classifier, 2 operations each.
    end = ["parameters           346", "FLOPs an image       15,808", "run folder           runs/x", ""]
    assert lines[-4:] == end
    lines = told_at_the_end(dataclasses.replace(final, mirrored_test_accuracy=0.845))
    assert lines[-6:] == [
        "test accuracy        84.0 %",
        "test accuracy        84.5 % by the mean logits of an image and its mirror image",
        *end,
    ]


def test_the_end_without_a_survivor_or_a_final_training():
    none = dataclasses.replace(ENDED, best=None, test_accuracy=None)
    assert "No network survived all landmarks: train longer, or lower the learning rate" in told_at_the_end(none)
    lines = told_at_the_end(ENDED)
    assert [line for line in lines if "test accuracy" in line] == ["test accuracy        72.0 %"]
    assert not any("failed" in line for line in lines)
    cause = "training diverged by step 50: the mean loss is nan; lower the learning rate"
    told = f"The final training failed; its weights are those of the search: {cause}"
    assert told in told_at_the_end(dataclasses.replace(ENDED, final_cause=cause))


@pytest.mark.parametrize(
    ("final_on", "images"), [("train", "train images"), ("train+validation", "train and validation images")]
)
def test_the_final_training_is_told_with_what_it_is_trained_on(final_on, images):
    observer, text, clock = make_observer()
    observer.config = dataclasses.replace(CONFIG, final_on=final_on)
    observer.final_training_started(best=individual(0, CONV, Fate.PARENT, 0.75), until=2_000)
    for second in range(1, 21):
        clock.now = float(second)
        observer.final_training_progress(step=50 * second, loss=1.25, steps_per_second=50.0)
    assert text.getvalue().split("\n") == [
        "",
        f"Final training of 4.0 from scratch: 2,000 steps on the {images}",
        # 1,500 and 1,000 steps are left, at 50 a second.
        "  final training: loss 1.25, 50 steps/s, 30 s left; step 500 of 2,000",
        "  final training: loss 1.25, 50 steps/s, 20 s left; step 1,000 of 2,000",
        "",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_training_of_one_network_is_shown(terminal):
    console, text, clock = make_console(terminal)
    with LiveBars(console, clock=clock) as live:
        for second in range(1, 13):
            clock.now = float(second)
            live.show_training("training", 2_000, 50 * second, 1.25, 50.0)
        live.bars.refresh()
    if terminal:
        assert "loss 1.25, 50 steps/s, 28 s left" in text.getvalue()
        assert "step 500" not in text.getvalue()
    else:
        assert text.getvalue() == "  training: loss 1.25, 50 steps/s, 30 s left; step 500 of 2,000\n"


def test_steps_left_counts_the_living_and_at_most_the_ranks():
    standings = [Standing(architecture=EMPTY, steps=steps) for steps in (30, 0, 0)]
    left = partial(steps_left, landmarks=CONFIG.landmarks, quota=(2, 1))
    assert left(standings, 0) == 70 + 100 + 100 + 2 * 200 + 50
    standings[0].cells = ["50.0"]
    standings[0].steps = 100
    standings[1].same_as = Reference(generation=0, index=0)
    assert left(standings, 0) == 100 + 2 * 200 + 50
    standings[1].alive = standings[2].alive = False
    assert left(standings, 1) == 200 + 50
    standings[0].cells, standings[0].steps = ["50.0", "50.0"], 300
    assert left(standings, 2) == 50
    standings[0].alive = False
    assert left(standings, 2) == 0


def test_a_network_is_described_a_line_a_layer():
    architecture = Architecture(
        input_shape=(8, 8, 1),
        layers=(
            Layer(op="conv", inputs=(IMAGE,), channels=16, kernel=3, stride=2),
            Layer(op="conv", inputs=(0,), channels=4, kernel=1, stride=1),
            Layer(op="concat", inputs=(1, 0)),
            Layer(op="pool", inputs=(2,)),
        ),
    )
    lines = [" ".join(line.split()) for line in describe(architecture, num_classes=10)]
    assert lines == [
        "image 8 x 8 x 1",
        "0 convolution 3 x 3, stride 2 of image 4 x 4 x 16",
        "1 convolution 1 x 1 of 0 4 x 4 x 4",
        "2 concatenation of 1, 0 4 x 4 x 20",
        "3 max pooling 2 x 2 of 2 2 x 2 x 20",
        "global average pooling, classifier 10 classes",
    ]
    assert max(map(len, describe(architecture, num_classes=10))) <= 78


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3_599.6, "1 h 0 min"), (7_260.0, "2 h 1 min")],
)
def test_durations_have_two_units(seconds, shown):
    assert duration(seconds) == shown
