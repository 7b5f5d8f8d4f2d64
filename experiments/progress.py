"""What a search shows while it runs: lines of text, and on a terminal live bars below them."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from eigen_jax.architecture import Architecture, count_parameters
from eigen_jax.fitness import Measurement
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.search import Budget, SearchConfig, SearchObserver, SearchResult
from experiments.networks import describe
from experiments.spending import Spending, describe_budget

BY_MIRROR_IMAGES = "by the mean logits of an image and its mirror image"
_PLAIN_EVERY = 10.0  # seconds between two lines of progress without a terminal
_STYLES = {Fate.PARENT: "bold green", Fate.SURVIVED: "green", Fate.EXTINCT: "dim", Fate.FAILED: "red"}


class LiveBars:
    """What shows progress. Used as a context manager, which takes the bars down at the end."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes it, with one bar, which is seen from the first `show` on."""
        self.console, self.clock, self.plain_line_at = console, clock, clock()
        self.bars = Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False, table_column=Column(width=14, no_wrap=True)),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(min_width=42, no_wrap=True)),
            console=console,
            transient=True,
            disable=not console.is_interactive,
        )
        self.bar = self.bars.add_task("", detail="", visible=False)

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def print(self, text: str, style: str = "") -> None:
        """Prints a line above the bars."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def print_plain(self, text: str) -> None:
        """Tells without a terminal what the bars show on one, now and then."""
        now = self.clock()
        if not self.console.is_interactive and now - self.plain_line_at >= _PLAIN_EVERY:
            self.plain_line_at = now
            self.print(f"  {text}", "dim")

    def show(self, name: str, done: int, total: int, detail: str, *, bar: TaskID | None = None, more: str = "") -> None:
        """Shows how far something is, on the first bar or another one; `more` is told without a terminal alone."""
        bar = self.bar if bar is None else bar
        self.bars.update(bar, description=name, completed=done, total=total, detail=detail, visible=True)
        self.print_plain(f"{name}: {detail}{more}")

    def show_training(self, name: str, until: int, step: int, loss: float, steps_per_second: float) -> None:
        """Shows how far the training of one network is; see `eigen_jax.training.ProgressCallback`."""
        detail = f"{pace(loss, steps_per_second)}, {duration((until - step) / steps_per_second)} left"
        self.show(name, step, until, detail, more=f"; step {step:,} of {until:,}")


@dataclasses.dataclass(kw_only=True)
class Standing:
    """An individual of the generation under way, as far as it got."""

    architecture: Architecture
    steps: int = 0  # training steps taken
    cells: list[str] = dataclasses.field(default_factory=list)  # of its row, one for each landmark that it has passed
    cause: str | None = None  # why it failed
    same_as: Reference | None = None  # whose measurements these are, if not its own
    alive: bool = True


class ConsoleObserver(LiveBars, SearchObserver):
    """Prints a search. Individuals are named generation.index, as in the record."""

    def __init__(
        self, config: SearchConfig, *, folder: Path, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Makes an observer that names the run folder; its first bar is the generation's, then the final training's."""
        super().__init__(console, clock=clock)
        self.config, self.folder = config, folder
        self.next_bar = self.bars.add_task("next network", detail="preparing", visible=False)
        self.training_bars: dict[Reference, TaskID] = {}  # of the individuals that train now
        self.search_began = self.generation_began = clock()
        self.spending = Spending(clock)
        self.phase = ""
        self.generation = self.landmark = self.final_until = 0
        self.steps_ahead = 0  # of this generation's individuals, before it began
        self.landmarks: Sequence[int] = ()
        self.quota: Sequence[int] = ()
        self.standings: dict[Reference, Standing] = {}  # of this generation's individuals, and of those trained ahead
        self.due: list[Standing] = []  # of this generation's alone
        self.thresholds: list[float | None] = []
        self.best_fitness = -math.inf
        self.unit = " %"  # of the first objective, until it turns out to be no accuracy

    def search_started(self, *, generation: int, landmarks: Sequence[int]) -> None:
        self.generation, self.landmarks = generation, landmarks
        self.print(f"Run folder {self.folder}" + (f", going on after {generation} generations" if generation else ""))
        self.print("Individuals are named generation.index; accuracies are % of validation images", "dim")

    def budget_spent(self, *, budget: Budget, spent: int) -> None:
        if self.spending.began is None:
            self.print(describe_budget(budget))
        if told := self.spending.tell(budget, spent):
            text, seconds = told
            self.print(text if seconds is None else f"{text}, about {duration(seconds)} left here")

    def generation_started(
        self,
        *,
        generation: int,
        phase: str,
        title: str,
        architectures: Mapping[Reference, Architecture],
        quota: Sequence[int],
    ) -> None:
        self.generation, self.landmark, self.quota, self.thresholds = generation, 0, quota, []
        known, self.standings = self.standings, {}
        for place, architecture in architectures.items():
            self.standings[place] = known.get(place) or Standing(architecture=architecture)
        self.due = [self.standings[place] for place in architectures if place.generation == generation]
        self.generation_began, self.steps_ahead = self.clock(), sum(standing.steps for standing in self.due)
        children = len(self.due)
        if phase != self.phase:
            self.print(f"\n{title}", "bold")
        if children > 1:
            self.print(f"\nGeneration {generation}, {children} children", "bold")
        if children > 1 or phase != self.phase:
            *early, last = [f"T{landmark + 1}" for landmark in range(len(self.landmarks))]
            heads = [*(f"{name}/needed" for name in early), last if early else "accuracy"]
            self.print(_row("name", "layers", "parameters", heads, "fate"), "dim")
        self.phase = phase
        self.bars.reset(self.bar, description=f"generation {generation}", visible=True)
        self.bars.update(self.next_bar, visible=not self.training_bars)

    def training_progress(
        self, *, individual: Reference, landmark: int, step: int, until: int, loss: float, steps_per_second: float
    ) -> None:
        self.standings[individual].steps = step
        if individual not in self.training_bars:
            self.training_bars[individual] = self.bars.add_task("", detail="")
        self.bars.update(self.next_bar, visible=False)
        detail, more = f"{step:,}/{until:,}, {pace(loss, steps_per_second)}", f"; {self._show_generation()}"
        bar = self.training_bars[individual]
        self.show(f"{individual} to T{landmark + 1}", step, until, detail, bar=bar, more=more)

    def individual_measured(
        self,
        *,
        individual: Reference,
        landmark: int,
        measurement: Measurement | None,
        fitness: tuple[float, ...] | None,
        cause: str | None,
        same_as: Reference | None,
    ) -> None:
        if individual.generation == self.generation:
            self.landmark = landmark
        cell = percent(measurement.accuracy if measurement else None)
        if measurement and fitness and fitness != (measurement.accuracy,):
            cell, self.unit = f"{cell} ({', '.join(f'{each:.4g}' for each in fitness)})", ""
        standing = self.standings[individual]
        standing.cells.append(cell)
        standing.cause, standing.same_as = cause, same_as
        if individual in self.training_bars:
            self.bars.remove_task(self.training_bars.pop(individual))
        self._show_generation()
        self.bars.update(self.next_bar, visible=not self.training_bars)
        self.print_plain(f"{individual} at T{landmark + 1}: {cell}{self.unit}")

    def individuals_extinct(self, *, landmark: int, individuals: Sequence[Reference], threshold: float | None) -> None:
        self.thresholds.append(threshold)
        for place in individuals:
            self.standings[place].alive = False
            self._print_individual(place, Fate.FAILED if self.standings[place].cause else Fate.EXTINCT)
        self._show_generation()

    def generation_ended(
        self, *, individuals: Sequence[Individual], best_fitness: float, parent: Reference | None
    ) -> None:
        for individual in individuals:
            if self.standings[individual.reference].alive:
                self._print_individual(individual.reference, individual.fate)
        levels = [self._worth(threshold) for threshold in self.thresholds if threshold is not None]
        needed = f"needed {' and '.join(levels)}{self.unit}, " if levels else ""
        took = duration(self.clock() - self.generation_began)
        is_better, self.best_fitness = best_fitness > self.best_fitness, best_fitness
        best = f"best {self._worth(self.best_fitness)}{self.unit}"
        if len(individuals) > 1:
            name = parent or "global pooling"
            self.print(f"Generation {self.generation} ({took}): {best}, {needed}parent {name}", "bold")
        elif is_better:
            self.print(best, "bold")
        for bar in (self.bar, self.next_bar):
            self.bars.update(bar, visible=False)

    def final_training_started(self, *, best: Individual, until: int) -> None:
        images, self.final_until = self.config.final_on.replace("+", " and "), until
        told = f"\nFinal training of {best.reference} from scratch: {until:,} steps on the {images} images"
        self.print(told, "bold")
        self.bars.reset(self.bar, description="final training", total=until, detail="preparing", visible=True)

    def final_training_progress(self, *, step: int, loss: float, steps_per_second: float) -> None:
        self.show_training("final training", self.final_until, step, loss, steps_per_second)

    def search_ended(self, *, result: SearchResult) -> None:
        self.bars.update(self.bar, visible=False)
        counts = f"{result.generations} generations, {result.trained} networks trained"
        took = duration(self.clock() - self.search_began)
        self.print(f"\nThe search ended: {counts}, {took} this time", "bold")
        if result.best is None:
            self.print("No network survived all landmarks: train longer, or lower the learning rate")
        else:
            self._print_found(result.best, result)
        self.print(f"run folder           {self.folder}")

    def _print_found(self, best: Individual, result: SearchResult) -> None:
        self.print(f"The network found, {best.reference}:")
        for line in describe(best.architecture, num_classes=self.config.genome.num_classes):
            self.print(f"  {line}")
        if result.final_cause:
            self.print(f"The final training failed; its weights are those of the search: {result.final_cause}", "red")
        self.print(f"validation accuracy  {percent(result.validation_accuracy)} % in the search")
        if result.seconds.final:
            self.print(f"test accuracy        {percent(result.search_test_accuracy)} % with the search's weights")
        self.print(f"test accuracy        {percent(result.test_accuracy)} %", "bold green")
        if result.mirrored_test_accuracy is not None:
            self.print(f"test accuracy        {percent(result.mirrored_test_accuracy)} % {BY_MIRROR_IMAGES}")
        self.print(f"parameters           {best.parameters:,}")
        self.print(f"FLOPs an image       {best.flops:,}")

    def _print_individual(self, place: Reference, fate: Fate) -> None:
        standing = self.standings[place]
        cells = [*standing.cells, *[""] * (len(self.landmarks) - len(standing.cells))]
        for landmark, threshold in enumerate(self.thresholds):
            if cells[landmark] and threshold is not None:
                cells[landmark] += f"/{self._worth(threshold)}"
        parameters = count_parameters(standing.architecture, num_classes=self.config.genome.num_classes)
        word, style = f"{fate} (as {standing.same_as})" if standing.same_as else fate.value, _STYLES[fate]
        self.print(_row(str(place), str(len(standing.architecture.layers)), f"{parameters:,}", cells, word), style)
        if standing.cause:
            self.print(f"{'':8}{standing.cause}", style)

    def _worth(self, objective: float) -> str:
        """A value of the first objective, in its unit; a dash where there is none."""
        return percent(objective) if self.unit or not math.isfinite(objective) else f"{objective:.4g}"

    def _show_generation(self) -> str:
        """Shows how far the generation is, and gives the time that it has before it, in words."""
        done = sum(standing.steps for standing in self.due)
        left = steps_left(self.due, self.landmark, landmarks=self.landmarks, quota=self.quota)
        took, taken = self.clock() - self.generation_began, done - self.steps_ahead
        time_left = f"about {duration(took / taken * left)} left" if taken else "time left unknown"
        best = f"best {self._worth(self.best_fitness)}{self.unit}, " if math.isfinite(self.best_fitness) else ""
        self.bars.update(self.bar, completed=done, total=done + left, detail=best + time_left)
        return time_left


def steps_left(standings: Sequence[Standing], landmark: int, *, landmarks: Sequence[int], quota: Sequence[int]) -> int:
    """Training steps that a generation, on the way to a landmark, has before it; more if some tie with a threshold.

    `landmarks` are steps from the start of training; `quota` tells how many go on after each but the last.
    """
    living = [standing for standing in standings if standing.alive]
    to_train = [each for each in living if len(each.cells) <= landmark and each.same_as is None]
    steps, most = sum(landmarks[landmark] - standing.steps for standing in to_train), len(living)
    for going_on, (start, until) in zip(quota[landmark:], itertools.pairwise(landmarks[landmark:]), strict=True):
        most = min(most, going_on)
        steps += most * (until - start)
    return steps


def _row(name: str, layers: str, parameters: str, accuracies: Sequence[str], fate: str) -> str:
    *early, last = accuracies
    cells = "  ".join([*(f"{each:>11}" for each in early), f"{last:>{5 if early else 8}}"])
    return f"{name:>6}  {layers:>6}  {parameters:>10}  {cells}  {fate}".rstrip()


def pace(loss: float, steps_per_second: float) -> str:
    """Where a training is, for people."""
    return f"loss {loss:.3g}, {steps_per_second:,.{0 if steps_per_second >= 10 else 1}f} steps/s"


def duration(seconds: float) -> str:
    """A time span for people, in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def percent(fraction: float | None) -> str:
    """A fraction in %, with one decimal; a dash where there is none, or none that is finite."""
    return "-" if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.1f}"
