"""What a search shows while it runs: lines of text, and on a terminal live bars below them."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from eigen_jax.architecture import Architecture, count_parameters
from eigen_jax.fitness import Measurement
from eigen_jax.lineage import Fate, Individual, Reference
from eigen_jax.search import SearchConfig, SearchObserver, SearchResult
from experiments.networks import describe

_DETAIL_WIDTH = 42  # characters behind a bar
_PLAIN_EVERY = 10.0  # seconds between two lines of progress without a terminal

_FATES = {
    Fate.PARENT: ("parent", "bold green"),
    Fate.SURVIVED: ("survived", "green"),
    Fate.EXTINCT: ("extinct", "dim"),
    Fate.FAILED: ("failed", "red"),
}


class LiveBars:
    """What shows progress. Used as a context manager, which takes the bars down at the end."""

    def __init__(
        self, console: Console, *, clock: Callable[[], float] = time.monotonic, detail_width: int | None = None
    ) -> None:
        """Makes it, without a bar; `detail_width` characters stand behind one, by default as many as there are."""
        self.console = console
        self.clock = clock
        self.plain_line_at = clock()
        self.bars = Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False, table_column=Column(width=14, no_wrap=True)),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(width=detail_width, no_wrap=True)),
            console=console,
            transient=True,
            disable=not console.is_interactive,
        )

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
        """Makes an observer that names the run folder at the start and at the end."""
        super().__init__(console, clock=clock, detail_width=_DETAIL_WIDTH)
        self.config, self.folder = config, folder
        self.generation_bar = self.bars.add_task("", detail="", visible=False)
        self.network_bar = self.bars.add_task("", detail="", visible=False)
        self.training_bars: dict[Reference, TaskID] = {}  # of the individuals that train now
        self.search_began = self.generation_began = clock()
        self.phase = ""
        self.generation = self.landmark = self.final_until = 0
        self.steps_ahead = 0  # of this generation's individuals, before it began
        self.landmarks: Sequence[int] = ()
        self.quota: Sequence[int] = ()
        self.standings: dict[Reference, Standing] = {}  # of this generation's individuals, and of those trained ahead
        self.thresholds: list[float | None] = []
        self.best_fitness: float | None = None
        self.unit = " %"  # of the first objective, until it turns out to be no accuracy

    def search_started(self, *, generation: int, landmarks: Sequence[int]) -> None:
        self.generation, self.landmarks = generation, landmarks
        self.print(f"Run folder {self.folder}" + (f", going on after {generation} generations" if generation else ""))
        self.print("Individuals are named generation.index; accuracies are % of validation images", "dim")

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
        known = self.standings
        self.standings = {
            place: known.get(place) or Standing(architecture=architecture)
            for place, architecture in architectures.items()
        }
        self.generation_began = self.clock()
        self.steps_ahead = sum(standing.steps for standing in self._due())
        children = len(self._due())
        if phase != self.phase:
            self.print(f"\n{title}", "bold")
        if children > 1:
            self.print(f"\nGeneration {generation}, {children} children", "bold")
        if children > 1 or phase != self.phase:
            *early, last = [f"T{landmark + 1}" for landmark in range(len(self.landmarks))]
            heads = [*(f"{name}/needed" for name in early), last if early else "accuracy"]
            self.print(_row("name", "layers", "parameters", heads, "fate"), "dim")
        self.phase = phase
        self.bars.reset(self.generation_bar, description=f"generation {generation}", visible=True)
        self._show_waiting()

    def training_progress(
        self, *, individual: Reference, landmark: int, step: int, until: int, loss: float, steps_per_second: float
    ) -> None:
        self.standings[individual].steps = step
        name = f"{individual} to T{landmark + 1}"
        decimals = 0 if steps_per_second >= 10 else 1
        detail = f"{step:,}/{until:,}, loss {loss:.3g}, {steps_per_second:,.{decimals}f} steps/s"
        if individual not in self.training_bars:
            self.training_bars[individual] = self.bars.add_task("", detail="")
        bar = self.training_bars[individual]
        self.bars.update(bar, description=name, completed=step, total=until, detail=detail)
        self.bars.update(self.network_bar, visible=False)
        self.print_plain(f"{name}: {detail}; {self._show_generation()}")

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
        standing = self.standings[individual]
        standing.cells.append(_cell(measurement, fitness))
        standing.cause, standing.same_as = cause, same_as
        if measurement is not None and fitness not in (None, (measurement.accuracy,)):
            self.unit = ""
        if individual in self.training_bars:
            self.bars.remove_task(self.training_bars.pop(individual))
        self._show_generation()
        self._show_waiting()
        self.print_plain(f"{individual} at T{landmark + 1}: {standing.cells[-1]}{self.unit}")

    def individuals_extinct(self, *, landmark: int, individuals: Sequence[Reference], threshold: float | None) -> None:
        self.thresholds.append(threshold)
        for place in individuals:
            standing = self.standings[place]
            standing.alive = False
            self._print_individual(place, Fate.FAILED if standing.cause else Fate.EXTINCT)
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
        is_better = best_fitness > (-math.inf if self.best_fitness is None else self.best_fitness)
        self.best_fitness = best_fitness if math.isfinite(best_fitness) else None
        best = f"best {self._worth(self.best_fitness)}{self.unit}"
        if len(individuals) > 1:
            name = str(parent or "global pooling")
            self.print(f"Generation {self.generation} ({took}): {best}, {needed}parent {name}", "bold")
        elif is_better:
            self.print(best, "bold")
        self.bars.update(self.generation_bar, visible=False)
        self.bars.update(self.network_bar, visible=False)

    def final_training_started(self, *, best: Individual, until: int) -> None:
        trained_on = self.config.final_on.replace("+", " and ")
        self.final_until = until
        name = best.reference
        self.print(f"\nFinal training of {name} from scratch: {until:,} steps on the {trained_on} images", "bold")
        self.bars.reset(self.network_bar, description=f"final {name}", total=until, detail="preparing", visible=True)

    def final_training_progress(self, *, step: int, loss: float, steps_per_second: float) -> None:
        left = duration((self.final_until - step) / steps_per_second)
        detail = f"{step:,}/{self.final_until:,}, loss {loss:.3g}, {steps_per_second:,.3g} steps/s"
        self.bars.update(self.network_bar, completed=step, detail=detail)
        self.print_plain(f"{detail}; about {left} left")

    def search_ended(self, *, result: SearchResult) -> None:
        self.bars.update(self.network_bar, visible=False)
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
        self.print(f"parameters           {best.parameters:,}")
        self.print(f"FLOPs an image       {best.flops:,}")

    def _print_individual(self, place: Reference, fate: Fate) -> None:
        standing = self.standings[place]
        cells = [*standing.cells, *[""] * (len(self.landmarks) - len(standing.cells))]
        for landmark, threshold in enumerate(self.thresholds):
            if cells[landmark] and threshold is not None:
                cells[landmark] += f"/{self._worth(threshold)}"
        parameters = count_parameters(standing.architecture, num_classes=self.config.genome.num_classes)
        word, style = _FATES[fate]
        if standing.same_as is not None:
            word += f" (as {standing.same_as})"
        self.print(_row(str(place), str(len(standing.architecture.layers)), f"{parameters:,}", cells, word), style)
        if standing.cause:
            self.print(f"{'':8}{standing.cause}", style)

    def _worth(self, objective: float | None) -> str:
        """A value of the first objective, in its unit."""
        return percent(objective) if self.unit or objective is None else f"{objective:.4g}"

    def _due(self) -> list[Standing]:
        """The individuals of this generation."""
        return [standing for place, standing in self.standings.items() if place.generation == self.generation]

    def _show_waiting(self) -> None:
        shown: dict[str, Any] = {"description": "next network", "completed": 0, "detail": "preparing"}
        self.bars.update(self.network_bar, visible=not self.training_bars, **shown)

    def _show_generation(self) -> str:
        """Shows how far the generation is, and gives the time that it has before it, in words."""
        due = self._due()
        done = sum(standing.steps for standing in due)
        left = steps_left(due, self.landmark, landmarks=self.landmarks, quota=self.quota)
        took, taken = self.clock() - self.generation_began, done - self.steps_ahead
        per_step = took / taken if taken else None
        time_left = "time left unknown" if per_step is None else f"about {duration(per_step * left)} left"
        best = f"best {self._worth(self.best_fitness)}{self.unit}, " if self.best_fitness is not None else ""
        self.bars.update(self.generation_bar, completed=done, total=done + left, detail=best + time_left)
        return time_left


class TrainingBar(LiveBars):
    """Shows the training of one network."""

    def __init__(self, console: Console, *, until: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes it, for a training to step `until`."""
        super().__init__(console, clock=clock, detail_width=_DETAIL_WIDTH)
        self.until = until
        self.bar = self.bars.add_task("training", total=until, detail="preparing")

    def show(self, step: int, loss: float, steps_per_second: float) -> None:
        """Shows how far the training is; see `eigen_jax.training.ProgressCallback`."""
        left = duration((self.until - step) / steps_per_second)
        detail = f"loss {loss:.3g}, {steps_per_second:,.3g} steps/s, {left} left"
        self.bars.update(self.bar, completed=step, detail=detail)
        self.print_plain(f"{step:,}/{self.until:,}, {detail}")


def steps_left(standings: Sequence[Standing], landmark: int, *, landmarks: Sequence[int], quota: Sequence[int]) -> int:
    """Training steps that a generation, on the way to a landmark, has before it; more if some tie with a threshold.

    `landmarks` are steps from the start of training; `quota` tells how many go on after each but the last.
    """
    living = [standing for standing in standings if standing.alive]
    to_train = [each for each in living if len(each.cells) <= landmark and each.same_as is None]
    steps = sum(landmarks[landmark] - standing.steps for standing in to_train)
    most = len(living)
    for going_on, (start, until) in list(zip(quota, itertools.pairwise(landmarks), strict=True))[landmark:]:
        most = min(most, going_on)
        steps += most * (until - start)
    return steps


def _cell(measurement: Measurement | None, fitness: tuple[float, ...] | None) -> str:
    """Accuracy in %, and the fitness behind it where that is something else."""
    if measurement is None:
        return percent(None)
    shown = percent(measurement.accuracy)
    if fitness is not None and fitness != (measurement.accuracy,):
        shown += f" ({', '.join(f'{each:.4g}' for each in fitness)})"
    return shown


def _row(name: str, layers: str, parameters: str, accuracies: Sequence[str], fate: str) -> str:
    *early, last = accuracies
    cells = "  ".join([*(f"{each:>11}" for each in early), f"{last:>{5 if early else 8}}"])
    return f"{name:>6}  {layers:>6}  {parameters:>10}  {cells}  {fate}".rstrip()


def duration(seconds: float) -> str:
    """A time span for people, in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def percent(fraction: float | None) -> str:
    """A fraction in %, with one decimal; a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
