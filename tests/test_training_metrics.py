"""Confusion matrices and what is told of them, against scikit-learn's."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from eigen_jax.training import accuracy, balanced_accuracy, confusion_matrix, largest_confusions, macro_f1

pairs = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=40),
    )
)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
@hypothesis.given(pairs)
@hypothesis.example((4, [(0, 1), (0, 0), (2, 2)]))  # class 1 has no examples, class 3 nothing at all
def test_scores_are_those_of_scikit_learn(drawn):
    classes, given = drawn
    labels, predicted = map(np.array, zip(*given, strict=True))
    logits = np.where(np.arange(classes) == predicted[:, None], 2.5, -1.0).astype(np.float32)
    matrix = confusion_matrix(logits, labels.astype(np.int32))
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, predicted, labels=range(classes)))
    assert balanced_accuracy(matrix) == pytest.approx(metrics.balanced_accuracy_score(labels, predicted), abs=1e-12)
    assert macro_f1(matrix) == pytest.approx(metrics.f1_score(labels, predicted, average="macro"), abs=1e-12)
    assert matrix.diagonal().sum() / matrix.sum() == pytest.approx(accuracy(logits, jnp.asarray(labels)))


def test_the_most_frequent_confusions_come_first_and_hits_are_none():
    matrix = np.array([[9, 0, 2], [5, 7, 0], [2, 0, 0]])
    assert largest_confusions(matrix, 2) == [(5, 1, 0), (2, 0, 2)]
    assert largest_confusions(matrix, 5) == [(5, 1, 0), (2, 0, 2), (2, 2, 0)]
    assert largest_confusions(np.diag([3, 4]), 5) == []
