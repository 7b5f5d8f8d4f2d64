"""What predictions are worth, told of counts: a confusion matrix, and what follows from it.

K are the classes. Definitions are those of scikit-learn: a class without examples counts for nothing in the balanced
accuracy, and one without examples and predictions for nothing in the macro-F1.
"""

import numpy as np
from numpy.typing import ArrayLike


def confusion_matrix(logits: np.ndarray, labels: ArrayLike) -> np.ndarray:
    """[K, K] int64: how many examples of each class, the row, logits [N, K] put into each, the column; labels [N]."""
    count = logits.shape[-1]
    pairs = np.asarray(labels).astype(np.int64) * count + logits.argmax(axis=-1)
    return np.bincount(pairs, minlength=count**2).reshape(count, count)


def balanced_accuracy(matrix: np.ndarray) -> float:
    """The mean share of each class's examples, in [0, 1], that a confusion matrix [K, K] has on its diagonal."""
    examples = matrix.sum(axis=1)
    return float((matrix.diagonal()[examples > 0] / examples[examples > 0]).mean())


def macro_f1(matrix: np.ndarray) -> float:
    """The mean over classes of F1, in [0, 1], of a confusion matrix [K, K]: 2 TP / (2 TP + FP + FN)."""
    either = matrix.sum(axis=0) + matrix.sum(axis=1)
    return float((2 * matrix.diagonal()[either > 0] / either[either > 0]).mean())


def largest_confusions(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes of a confusion matrix [K, K], at most `count`: how many, of which class, taken for."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, wrong.shape)
    found = zip(wrong[rows, columns].tolist(), rows.tolist(), columns.tolist(), strict=True)
    return [each for each in found if each[0]]
