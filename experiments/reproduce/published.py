"""What the paper reports (Ren et al., CVPR 2019), of its Tables 1 to 5.

It stands beside ours where data set and schedule are the paper's.
"""

from typing import NamedTuple

from eigen_jax.data.types import DatasetName
from experiments.reproduce.folders import DataFacts
from experiments.reproduce.request import Request

_HOUR = 3_600.0


class Published(NamedTuple):
    """A row of a table of the paper, on one data set; None where the table does not say it."""

    test_accuracy: float | None = None  # a fraction
    parameters: float | None = None
    seconds: float | None = None  # of one P100 GPU


def _alone(cifar10: float, cifar100: float) -> tuple[Published, Published]:
    """A row that has the test accuracy alone, in %."""
    return Published(cifar10 / 100), Published(cifar100 / 100)


# By the table of the paper and the row of ours that it stands beside: on CIFAR-10 and on CIFAR-100.
_ROWS = {
    ("table1", "EIGEN"): (Published(0.946, 2.6e6, 48 * _HOUR), Published(0.781, 11.8e6, 120 * _HOUR)),
    ("table2", "primary alone"): _alone(93.3, 74.7),
    ("table2", "primary and secondary"): _alone(93.7, 76.9),
    # Both without gene duplication.
    ("table3", "without mimicry"): _alone(92.4, 74.8),
    ("table3", "with mimicry"): _alone(93.7, 76.9),
    ("table4", "without duplication"): (Published(0.937, 1.2e6), Published(0.769, 6.1e6)),
    ("table4", "with duplication"): (Published(0.946, 2.6e6), Published(0.781, 11.8e6)),
    ("table5", "without mimicry"): _alone(93.3, 73.9),
    ("table5", "with mimicry"): _alone(94.6, 78.1),
}


def published(table: str, row: str, dataset: DatasetName) -> Published:
    """What the paper's table has for a row of ours; empty where it has no such row.

    Args:
        table: "table1" to "table5".
        row: as our table names it.
        dataset: the data set of the paper's column.
    """
    if dataset == "digits":
        return Published()
    cifar10, cifar100 = _ROWS.get((table, row), (Published(), Published()))
    return cifar10 if dataset == "cifar10" else cifar100


def describe_published(table: str) -> str:
    """What the paper's table reports on CIFAR-10 and CIFAR-100, a line a row; empty for a figure."""
    rows = [(row, map(_describe, both)) for (name, row), both in _ROWS.items() if name == table]
    return "\n".join(f"The paper, {row}: {' and '.join(both)}." for row, both in rows)


def is_comparable(request: Request, data: DataFacts | None) -> bool:
    """Whether a request's runs are the paper's experiment: its data set, all of it, and its schedule.

    Args:
        request: tells the data set and the settings.
        data: those that the runs were made with; None where nothing says so, which leaves it open.
    """
    whole = data is not None and data.train + data.validation == 50_000 and data.test == 10_000
    return request.dataset in ("cifar10", "cifar100") and request.preset == "paper" and not request.is_changed and whole


def _describe(row: Published) -> str:
    parts = [None if row.test_accuracy is None else f"{100 * row.test_accuracy:.1f} %"]
    parts.append(None if row.parameters is None else f"{row.parameters / 1e6:.1f} M parameters")
    parts.append(None if row.seconds is None else f"{row.seconds / _HOUR:.0f} hours of a P100")
    return ", ".join(filter(None, parts))
