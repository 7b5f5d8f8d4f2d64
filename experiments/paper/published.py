"""What the paper reports, as far as it was at hand: Ren et al., CVPR 2019, arXiv 1806.01940.

The numbers are those of the abstract and of Table 1. They stand beside ours where data set and
schedule are the paper's. Those of Tables 2 to 5 were not at hand.
"""

import dataclasses
from collections.abc import Mapping

from eigen_jax.data.types import DatasetName
from experiments.paper.records import DataFacts
from experiments.paper.request import Request

DATASET_TITLES: dict[DatasetName, str] = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "digits"}

_HOUR = 3_600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedSystem:
    """A system's row of the paper's Table 1."""

    test_accuracy: float  # a fraction
    parameters: float
    seconds: float  # of one P100 GPU


EIGEN: Mapping[DatasetName, PublishedSystem] = {
    "cifar10": PublishedSystem(test_accuracy=0.946, parameters=2.6e6, seconds=48 * _HOUR),
    "cifar100": PublishedSystem(test_accuracy=0.781, parameters=11.8e6, seconds=120 * _HOUR),
}


def is_comparable(request: Request, data: DataFacts | None) -> bool:
    """Whether a request's runs are the paper's experiment: its data set, all of it, and its schedule.

    Args:
        request: tells the data set and the settings.
        data: those that the runs were made with; None where nothing says so, which leaves it open.
    """
    whole = data is not None and data.train + data.validation == 50_000 and data.test == 10_000
    return request.dataset in EIGEN and request.preset == "paper" and not request.is_changed and whole
