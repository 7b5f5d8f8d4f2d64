"""Run folders of the paper's experiments, written without training, and the commands on them."""

import csv
import dataclasses
import functools
import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import commands_data
import pytest
import report_data
from commands_data import found, leave_process_alone
from report_data import reached

from eigen_jax import lineage
from eigen_jax.architecture import Architecture, Layer
from eigen_jax.data import DataConfig, Dataset, load_dataset
from eigen_jax.lineage import Individual, Reference
from eigen_jax.networks import AnyNetwork, NamedNetwork, count_layers, fingerprint
from eigen_jax.report import NOT_MEASURED
from eigen_jax.search import BudgetError, SearchConfig
from eigen_jax.store.files import sha256
from eigen_jax.store.records import write_json
from eigen_jax.teacher import DataRecord, EnsembleRecord, MemberRecord, TeacherConfig, TeacherRecord
from eigen_jax.teacher.record import TEACHER
from eigen_jax.training import TooLargeError
from experiments.reproduce import __main__ as command
from experiments.reproduce import table1
from experiments.reproduce.__main__ import EXPERIMENTS, main
from experiments.reproduce.request import Request, read_request
from experiments.reproduce.runs import Study
from experiments.settings import Settings


def network(*channels: int) -> Architecture:
    """Convolutions in a row, for digits."""
    layers = [Layer(op="conv", inputs=(at - 1,), channels=n, kernel=3, stride=1) for at, n in enumerate(channels)]
    return Architecture(input_shape=(8, 8, 1), layers=tuple(layers))


SEEDS = ("--seeds", "0", "1", "2")
FIGURE3 = ("--step-sizes", "1", "10", "--generations", "3")
ALL = tuple(EXPERIMENTS)
SHARED = tuple(name for name in ALL if name != "table1")  # whose runs are EIGEN's, with and without mimicry
LATENCY = 0.002  # of hand-designed networks

FIRST, PARENT, DUPLICATE = network(4), network(4, 8), network(4, 8, 4, 8)
CAUSE = "the loss is nan at step 3"
VERSIONS = {"python": "3.11.7", "jax": "0.10.2"}
TEACHER_SECONDS = 75.0  # two members, of 30 + 5 and 36 + 4 seconds
LOGITS_SECONDS = 12.5


load_once = functools.cache(load_dataset)


def load_digits(config: DataConfig) -> Dataset:
    """As `load_dataset` does it, once for all folders: the digits are in no cache."""
    return load_once(dataclasses.replace(config, cache_dir=Path("nowhere")))


@dataclasses.dataclass(kw_only=True)
class FakeMakers:
    """Leaves what runs leave, and counts them.

    EIGEN with seed s: the best of the primary succession has 0.50 + s / 100 on validation and 0.02
    less on test images, that of the secondary 0.10 more; the best duplicate 0.58 on both, but for
    seed 2, where it wins with 0.75. After final training: 0.70 + s / 100, without mimicry 0.05 less.
    A network trained again: 0.60 + its layers / 100 + s / 1000, without mimicry 0.04 less; a hand-designed one, which
    has 1 to 199 layers: as many of a hundred thousandth, 0.20 more by its own recipe.
    """

    data_fingerprint: str = ""  # that of the digits by default
    without_duplicates: bool = False
    nothing_survives: bool = False
    diverges: bool = False  # trainings of a given network, and final trainings
    teachers: tuple[str, ...] = ("f",)  # fingerprints: of the first search's, the second's, and of all after
    too_dear: tuple[str, ...] = ()  # strategies and networks that no budget pays for
    too_large: tuple[str, ...] = ()  # networks that no memory holds
    interrupt_at: int = 0  # the call that is interrupted, counted from 1
    searched: list[Path] = dataclasses.field(default_factory=list)
    trained: list[Path] = dataclasses.field(default_factory=list)

    def search(self, settings: Settings) -> None:
        self._may_interrupt()
        self._check_paid(settings.strategy, settings)
        self.searched.append(settings.run_dir)
        self._claim(settings)
        individuals = self._individuals(settings)
        lineage.append(settings.run_dir / "lineage.jsonl", individuals)
        survivors = [each for each in individuals if each.accuracy is not None]
        best = max(survivors, key=lambda each: each.accuracy or 0, default=None)
        plain = settings.teacher == "none"
        self._write_result(
            settings,
            validation_accuracy=best and best.accuracy,
            search_test_accuracy=best and best.test_accuracy,
            final_validation_accuracy=best and 0.9,
            test_accuracy=best and 0.70 + settings.search.seed / 100 - 0.05 * plain,
            test_logits=None,
            generations=individuals[-1].generation + 1,
            trained=len(individuals) - 1,
            network=best and found(best),
            seconds={
                "search": 100.0 + settings.search.seed,
                "final": 20.0 if best and settings.search.final_until else None,
            },
            training_flops=_flops(settings),
            mimicry=None if plain else {"teacher": self._teacher, "weight": 0.9, "temperature": 5.0},
        )
        if not plain:
            save_teacher(settings.teacher_dir)
            logits = settings.data.cache_folder() / "teacher-logits"
            logits.mkdir(parents=True, exist_ok=True)
            write_json(logits / f"{self._teacher}.json", {"sha256": "", "seconds": LOGITS_SECONDS})

    def train(self, settings: Settings, network: AnyNetwork, also: dict[str, str] | None = None) -> str | None:
        self._may_interrupt()
        if isinstance(network, NamedNetwork):
            self._check_paid(network.name, settings)
        self.trained.append(settings.run_dir)
        self._claim(settings, retrained=fingerprint(network), **(also or {}))
        if also:
            accuracy = 0.60 + count_layers(network) / 100_000 + 0.20 * (also["recipe"] == "own")
        else:
            accuracy = 0.60 + count_layers(network) / 100 - 0.04 * (settings.teacher == "none")
        accuracy += settings.search.seed / 1000
        self._write_result(
            settings,
            final_validation_accuracy=None if self.diverges else accuracy + 0.1,
            test_accuracy=None if self.diverges else accuracy,
            network={"fingerprint": fingerprint(network), "layers": 1, "parameters": 1, "flops": 1},
            seconds={"final": 7.0},
            training_flops=_flops(settings),
            mimicry=None,
        )
        return CAUSE if self.diverges else None

    @property
    def _teacher(self) -> str:
        return self.teachers[min(max(len(self.searched) - 1, 0), len(self.teachers) - 1)]

    def _write_result(self, settings: Settings, **result: Any) -> None:
        cause = CAUSE if self.diverges else None
        write_json(settings.run_dir / "result.json", {"schema_version": 2, "final_cause": cause, **result})

    def _check_paid(self, name: str, settings: Settings) -> None:
        if name in self.too_dear:
            raise BudgetError(SearchConfig, "{budget} is {:.3g}; raise it", settings.search.budget)
        if name in self.too_large:
            raise TooLargeError(25_000_000_000, 24_000_000_000)

    def _may_interrupt(self) -> None:
        if len(self.searched) + len(self.trained) + 1 == self.interrupt_at:
            raise KeyboardInterrupt

    def _claim(self, settings: Settings, **more: str) -> None:
        settings.run_dir.mkdir(parents=True)
        preprocessing, data = settings.data.preprocessing, self.data_fingerprint
        if not data:
            # Whitening would be kept in a cache.
            is_other = preprocessing != "standardize"
            data = sha256([preprocessing]) if is_other else load_digits(settings.data).fingerprint
        teacher = None if settings.teacher == "none" else self._teacher
        described = {"dataset": settings.data.name, "data_fingerprint": data, "teacher_fingerprint": teacher, **more}
        described |= json.loads(json.dumps(settings.outcome(), default=str))
        content = {"schema_version": 2, "settings": described, "versions": VERSIONS}
        write_json(settings.run_dir / "settings.json", content)

    def _individuals(self, settings: Settings) -> list[Individual]:
        if self.nothing_survives:
            return [individual(0, index, "primary", FIRST, None) for index in range(2)]
        evolution = settings.search.evolution
        fitness = 0.50 + settings.search.seed / 100
        if evolution.max_secondary_generations == 0:
            # A primary succession alone: each generation gains a thousandth of the step size.
            gain, generations = (
                evolution.primary_steps / 1000,
                range(evolution.max_primary_generations),
            )
            return [individual(number, 0, "primary", FIRST, fitness + gain * number) for number in generations]
        extinct = individual(0, 1, "primary", FIRST, None)
        successions = [
            individual(0, 0, "primary", FIRST, fitness, test_accuracy=fitness - 0.02),
            extinct,
            individual(1, 0, "secondary", PARENT, fitness + 0.10, test_accuracy=fitness + 0.08),
            # Taken over: trained by no one.
            individual(1, 1, "secondary", FIRST, None, same_as=extinct.reference, seconds_training=0.0),
        ]
        if self.without_duplicates:
            return successions
        reached = 0.75 if settings.search.seed == 2 else 0.58
        parents = (Reference(generation=1, index=0),)
        return [
            *successions,
            individual(2, 0, "duplication", DUPLICATE, reached, test_accuracy=reached, repeats=(2, 1), parents=parents),
            # Who repeats no block is no duplicate.
            individual(2, 1, "duplication", PARENT, fitness + 0.10, repeats=(1, 1), parents=parents),
        ]


def _flops(settings: Settings) -> dict[str, int] | None:
    if settings.search.budget is None:
        return None
    total = int(settings.search.budget)
    return {"teacher": 0, "search": 0, "final": total, "total": total}


def individual(
    generation: int, index: int, phase: str, architecture: Architecture, fitness: float | None, **fields: Any
) -> Individual:
    """Extinct at T1 where it has no fitness; 1,000 parameters a layer, 1 s of compiling and 2 s of training."""
    common: dict[str, Any] = {"architecture": architecture, "parameters": 1000 * len(architecture.layers)}
    common |= {"seconds_compiling": 1.0, "seconds_training": 2.0}
    if fitness is not None:
        common["landmarks"] = reached(*[fitness] * 3, thresholds=(0.2,), parameters=common["parameters"])
    return report_data.individual(generation, index, phase, fitness, **common | fields)


def save_teacher(folder: Path) -> None:
    """A teacher's record, as far as a table tells of it."""
    folder.mkdir(parents=True, exist_ok=True)
    accuracies: dict[str, Any] = {"validation_accuracy": 0.9, "test_accuracy": 0.9}
    member = MemberRecord(**accuracies, parameters=1, steps=1, train_seconds=30.0, compile_seconds=5.0)
    other = dataclasses.replace(member, train_seconds=36.0, compile_seconds=4.0)
    images: dict[str, Any] = {"image_shape": (8, 8, 1), "training_images": 1, "validation_images": 1}
    data = DataRecord(**images, name="digits", classes=10, fingerprint="f")
    ensemble = EnsembleRecord(**accuracies, parameters=2, fingerprint="f")
    config = TeacherConfig(members=2)
    TEACHER.write(folder, TeacherRecord(config=config, data=data, members=(member, other), ensemble=ensemble))


def run(folder: Path, *argv: str, names=SHARED, makers: FakeMakers | None = None, dataset: str = "digits") -> int:
    """A command on fake runs, in a folder of its own."""
    fake = makers or FakeMakers()
    options = ["--dataset", dataset, *places(folder), *argv]
    fakes: dict[str, Any] = {"search": fake.search, "retrain": fake.train, "measure_latency": lambda run: LATENCY}
    with mock.patch.multiple(command, **fakes):
        return main([*names, *options])


def places(folder: Path) -> tuple[str, ...]:
    """Options that keep all that is written in a folder."""
    names = {"--runs-dir": "runs", "--output": "results", "--cache-dir": "cache"}
    return tuple(word for option, name in names.items() for word in (option, str(folder / name)))


def request_of(*argv: str, dataset: str = "digits") -> Request:
    return read_request(["--dataset", dataset, *argv], about="")


def study_of(*argv: str, dataset: str = "digits") -> Study:
    return Study(request=request_of(*argv, dataset=dataset))


def lines_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def values(folder: Path, name: str, row: str, column: str, statistic: str = "value") -> list[float]:
    """What a table's CSV has for each seed of a row, or ("shared") for all of them."""
    lines = lines_of(folder / "results" / f"{name}.csv")
    # The unit stands in brackets behind it.
    (heading,) = [each for each in lines[0] if each == column or each.rpartition(" (")[0] == column]
    own = [line for line in lines if row in line.values() and line["statistic"] == statistic]
    return [float(line[heading]) for line in own if line[heading] not in ("", NOT_MEASURED)]


def refused(capsys, folder: Path, *argv: str, **options) -> str:
    """The line that bad input gets."""
    return commands_data.refused(capsys, lambda argv: run(folder, *argv, **options), *argv, quiet=False)


def leave_paper_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands set nothing up, and find the digits loaded. To be a module's fixture."""
    leave_process_alone(monkeypatch)
    monkeypatch.setattr(command, "load_dataset", load_digits)
    # The largest networks take seconds to count.
    monkeypatch.setattr(
        table1, "_count", lambda network, num_classes: (len(network.name), 10 * num_classes, 10 * num_classes)
    )
    monkeypatch.setattr(table1, "_count_teacher", lambda image_shape, num_classes: (4, 4_000))
