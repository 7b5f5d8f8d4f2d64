"""How a search ended, and what result.json says of it."""

import dataclasses

from msgspec import UNSET, UnsetType

from eigen_jax.architecture import Architecture, count_flops, count_parameters, fingerprint
from eigen_jax.lineage import Individual
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.final import Evaluation, TrainedNetwork
from eigen_jax.store.run_files import Mimicry, NetworkSummary, Reference, RunResult, RunSeconds
from eigen_jax.training import Teacher, TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchResult:
    """How a search ended."""

    best: Individual | None = None  # the fittest survivor of all generations; None if nothing ever survived
    validation_accuracy: float | None = None  # a fraction; what selection saw
    search_test_accuracy: float | None = None  # a fraction; of the same weights, which no selection saw
    final_validation_accuracy: float | None = None  # after the final training; None where it was trained on
    test: Evaluation | None = None  # of the weights that are saved: after the final training, if there was one
    final_cause: str | None = None  # why the final training failed and the weights of the search are kept
    generations: int
    trained: int  # individuals that were trained, not taken over from an equal one
    search_seconds: float  # compiling and training, of all individuals
    final_seconds: float | None = None  # compiling and training, of the network found; None: no final training

    @property
    def test_accuracy(self) -> float | None:
        """A fraction, of the weights that are saved; None where there is no network."""
        return self.test.accuracy if self.test else None


def describe_search(result: SearchResult, *, config: SearchConfig, teacher: Teacher | None) -> RunResult:
    """What result.json says of a search."""
    best = result.best
    return RunResult(
        validation_accuracy=result.validation_accuracy,
        search_test_accuracy=result.search_test_accuracy,
        final_validation_accuracy=result.final_validation_accuracy,
        test_accuracy=result.test_accuracy,
        test_logits=result.test.logits_digest if result.test else None,
        final_cause=result.final_cause,
        generations=result.generations,
        trained=result.trained,
        network=_summarise(best.architecture, config, best.reference) if best else None,
        dtype=config.train.dtype,
        seconds=RunSeconds(search=result.search_seconds, final=result.final_seconds),
        mimicry=_describe_mimicry(config.train, teacher),
    )


def describe_training(
    architecture: Architecture, trained: TrainedNetwork, *, config: SearchConfig, teacher: Teacher | None
) -> RunResult:
    """What result.json says of the training of one given network."""
    return RunResult(
        final_validation_accuracy=trained.validation_accuracy,
        test_accuracy=trained.test.accuracy if trained.test else None,
        test_logits=trained.test.logits_digest if trained.test else None,
        final_cause=trained.cause,
        network=_summarise(architecture, config),
        dtype=config.train.dtype,
        seconds=RunSeconds(final=trained.seconds),
        mimicry=_describe_mimicry(config.train, teacher),
    )


def _summarise(
    architecture: Architecture, config: SearchConfig, individual: Reference | UnsetType = UNSET
) -> NetworkSummary:
    return NetworkSummary(
        individual=individual,
        fingerprint=fingerprint(architecture),
        layers=len(architecture.layers),
        parameters=count_parameters(architecture, num_classes=config.genome.num_classes),
        flops=count_flops(architecture, num_classes=config.genome.num_classes),
    )


def _describe_mimicry(config: TrainConfig, teacher: Teacher | None) -> Mimicry | None:
    if teacher is None:
        return None
    return Mimicry(teacher=teacher.fingerprint, weight=config.mimicry_weight, temperature=config.temperature)
