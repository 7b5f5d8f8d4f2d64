"""What result.json says of a run."""

import dataclasses
from typing import Any

from eigen_jax.architecture import Architecture, count_flops, count_parameters, fingerprint
from eigen_jax.search.final import TrainedNetwork
from eigen_jax.search.observer import SearchResult
from eigen_jax.training import Teacher, TrainConfig


def describe_search(result: SearchResult, *, config: TrainConfig, teacher: Teacher | None) -> dict[str, Any]:
    """The result of a search."""
    best, network = result.best, None
    if best is not None:
        network = {
            "individual": dataclasses.asdict(best.reference),
            "fingerprint": best.fingerprint,
            "layers": len(best.architecture.layers),
            "parameters": best.parameters,
            "flops": best.flops,
        }
    return {
        "validation_accuracy": result.validation_accuracy,
        "search_test_accuracy": result.search_test_accuracy,
        "final_validation_accuracy": result.final_validation_accuracy,
        "test_accuracy": result.test_accuracy,
        "test_logits": result.test.logits_digest if result.test else None,
        "final_cause": result.final_cause,
        "generations": result.generations,
        "trained": result.trained,
        "network": network,
        "dtype": config.dtype,
        "seconds": {"search": result.search_seconds, "final": result.final_seconds},
        "mimicry": _describe_mimicry(config, teacher),
    }


def describe_training(
    architecture: Architecture,
    trained: TrainedNetwork | None,
    *,
    num_classes: int,
    config: TrainConfig,
    teacher: Teacher | None,
    seconds: float,
    cause: str | None = None,
) -> dict[str, Any]:
    """The result of training one given network.

    Args:
        architecture: the network.
        trained: how it ended; None if it failed.
        num_classes: K.
        config: the dtype of the maps, the mimicry's weight and temperature.
        teacher: whom it mimicked.
        seconds: compiling and training.
        cause: why it failed; None if it did not.
    """
    return {
        "final_validation_accuracy": trained.validation_accuracy if trained else None,
        "test_accuracy": trained.test.accuracy if trained else None,
        "test_logits": trained.test.logits_digest if trained else None,
        "final_cause": cause,
        "network": {
            "fingerprint": fingerprint(architecture),
            "layers": len(architecture.layers),
            "parameters": count_parameters(architecture, num_classes=num_classes),
            "flops": count_flops(architecture, num_classes=num_classes),
        },
        "dtype": config.dtype,
        "seconds": {"final": seconds},
        "mimicry": _describe_mimicry(config, teacher),
    }


def _describe_mimicry(config: TrainConfig, teacher: Teacher | None) -> dict[str, Any] | None:
    if teacher is None:
        return None
    return {"teacher": teacher.fingerprint, "weight": config.mimicry_weight, "temperature": config.temperature}
