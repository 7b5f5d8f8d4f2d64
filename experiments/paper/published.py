"""What the paper reports (Ren et al., CVPR 2019), of its Tables 1 to 5.

It stands beside ours where data set and schedule are the paper's.
"""

import dataclasses
from collections.abc import Mapping

from eigen_jax.data.types import DatasetName
from experiments.paper.records import DataFacts
from experiments.paper.request import Request

DATASET_TITLES: dict[DatasetName, str] = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "digits"}

_HOUR = 3_600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A row of a table of the paper, on one data set; None where the table does not say it."""

    test_accuracy: float | None = None  # a fraction
    parameters: float | None = None
    seconds: float | None = None  # of one P100 GPU


def _of_both(cifar10: float, cifar100: float) -> dict[DatasetName, Published]:
    """A row that has the test accuracy alone, in %."""
    return {
        "cifar10": Published(test_accuracy=cifar10 / 100),
        "cifar100": Published(test_accuracy=cifar100 / 100),
    }


# By the table of the paper and the row of ours that it stands beside.
_ROWS: Mapping[str, Mapping[str, Mapping[DatasetName, Published]]] = {
    "table1": {
        "EIGEN": {
            "cifar10": Published(test_accuracy=0.946, parameters=2.6e6, seconds=48 * _HOUR),
            "cifar100": Published(test_accuracy=0.781, parameters=11.8e6, seconds=120 * _HOUR),
        },
    },
    "table2": {"primary alone": _of_both(93.3, 74.7), "primary and secondary": _of_both(93.7, 76.9)},
    # Both without gene duplication.
    "table3": {"without mimicry": _of_both(92.4, 74.8), "with mimicry": _of_both(93.7, 76.9)},
    "table4": {
        "without duplication": {
            "cifar10": Published(test_accuracy=0.937, parameters=1.2e6),
            "cifar100": Published(test_accuracy=0.769, parameters=6.1e6),
        },
        "with duplication": {
            "cifar10": Published(test_accuracy=0.946, parameters=2.6e6),
            "cifar100": Published(test_accuracy=0.781, parameters=11.8e6),
        },
    },
    "table5": {"without mimicry": _of_both(93.3, 73.9), "with mimicry": _of_both(94.6, 78.1)},
}


def published(table: str, row: str, dataset: DatasetName) -> Published:
    """What the paper's table has for a row of ours; empty where it has no such row.

    Args:
        table: "table1" to "table5".
        row: as our table names it.
        dataset: the data set of the paper's column.
    """
    return _ROWS[table].get(row, {}).get(dataset, Published())


def is_comparable(request: Request, data: DataFacts | None) -> bool:
    """Whether a request's runs are the paper's experiment: its data set, all of it, and its schedule.

    Args:
        request: tells the data set and the settings.
        data: those that the runs were made with; None where nothing says so, which leaves it open.
    """
    whole = data is not None and data.train + data.validation == 50_000 and data.test == 10_000
    return request.dataset in ("cifar10", "cifar100") and request.preset == "paper" and not request.is_changed and whole
