"""How a search ended, and what result.json says of a run."""

import dataclasses
from collections.abc import Iterable

from msgspec import UNSET, UnsetType

from eigen_jax.lineage import Individual
from eigen_jax.networks import AnyNetwork, NamedNetwork, count_flops, count_layers, count_parameters, fingerprint
from eigen_jax.search.config import SearchConfig
from eigen_jax.search.final import TrainedNetwork
from eigen_jax.store.run_files import Mimicry, NetworkSummary, Reference, RunFlops, RunResult, RunSeconds
from eigen_jax.training import Teacher, TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchResult(RunResult):
    """How a search ended: what result.json says of it, and the individual whose network it found."""

    best: Individual | None = None  # the fittest survivor of all generations; None if nothing ever survived
    validation_accuracy: float | None = None
    search_test_accuracy: float | None = None
    generations: int
    trained: int


def describe_training(
    description: AnyNetwork,
    trained: TrainedNetwork,
    *,
    config: SearchConfig,
    teacher: Teacher | None,
    training_flops: RunFlops | None = None,
) -> RunResult:
    """What result.json says of the training of one given network."""
    return RunResult(
        final_validation_accuracy=trained.validation_accuracy,
        test_accuracy=trained.test.accuracy if trained.test else None,
        mirrored_test_accuracy=trained.test.mirrored_accuracy if trained.test else None,
        test_logits=trained.test.logits_digest if trained.test else None,
        confusion=trained.test.confusion if trained.test else None,
        final_cause=trained.cause,
        network=summarise(description, config),
        dtype=config.train.dtype,
        seconds=RunSeconds(final=trained.seconds),
        training_flops=training_flops,
        mimicry=describe_mimicry(config.train, teacher),
    )


def summarise(description: AnyNetwork, config: SearchConfig, found: Reference | UnsetType = UNSET) -> NetworkSummary:
    """What result.json says of a network; unset is the individual of one that was given."""
    return NetworkSummary(
        individual=found,
        name=description.name if isinstance(description, NamedNetwork) else UNSET,
        fingerprint=fingerprint(description),
        layers=count_layers(description),
        parameters=count_parameters(description, num_classes=config.genome.num_classes),
        flops=count_flops(description, num_classes=config.genome.num_classes),
    )


def sum_flops(teacher: int, final: int, searched: Iterable[Individual] | None = None) -> RunFlops | None:
    """What result.json says of training FLOPs, without a search where a network was given.

    None where older lines of the record do not tell them.
    """
    flops = [each.training_flops for each in searched or ()]
    if None in flops:
        return None
    search = sum(filter(None, flops))
    return RunFlops(
        teacher=teacher, search=UNSET if searched is None else search, final=final, total=teacher + search + final
    )


def describe_mimicry(config: TrainConfig, teacher: Teacher | None) -> Mimicry | None:
    """What result.json says of whom networks mimicked."""
    if teacher is None:
        return None
    return Mimicry(teacher=teacher.fingerprint, weight=config.mimicry_weight, temperature=config.temperature)
