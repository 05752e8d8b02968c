from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from facetask.tasks import metrics

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 60), m=st.integers(1, 3))
def test_regression_metrics_equal_scikit_learn(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    true = 20 + 7 * rng.standard_normal((n, m))
    predicted = true + rng.standard_normal((n, m))
    scale = rng.uniform(0.5, 3, m)
    assert metrics.r2(predicted, true) == pytest.approx(reference.r2_score(true, predicted))
    assert metrics.mae(predicted, true) == pytest.approx(reference.mean_absolute_error(true, predicted))
    assert metrics.scaled_rmse(predicted, true, np.ones(m)) ** 2 == pytest.approx(
        reference.mean_squared_error(true, predicted)
    )
    assert metrics.scaled_rmse(predicted, true, scale) ** 2 == pytest.approx(
        reference.mean_squared_error(true / scale, predicted / scale)
    )


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 60), ties=st.booleans())
def test_binary_metrics_equal_scikit_learn(seed: int, n: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    positive[:2] = [True, False]
    score = rng.standard_normal(n) + positive
    if ties:
        score = score.round()
    decided = score > 0.5
    assert metrics.auc(score, positive) == pytest.approx(reference.roc_auc_score(positive, score))
    assert metrics.f1(decided, positive) == pytest.approx(reference.f1_score(positive, decided, zero_division=0.0))
    assert metrics.accuracy(decided, positive) == pytest.approx(reference.accuracy_score(positive, decided))
    assert metrics.balanced_accuracy(decided, positive) == pytest.approx(
        reference.balanced_accuracy_score(positive, decided)
    )


def test_balanced_accuracy_counts_the_classes_that_occur() -> None:
    true, found = np.array([0, 0, 0, 2]), np.array([0, 1, 0, 2])
    assert metrics.balanced_accuracy(found, true) == pytest.approx((2 / 3 + 1) / 2)


def test_what_cannot_be_known_is_nan_or_nothing() -> None:
    all_of_one = np.ones(4, dtype=bool)
    assert np.isnan(metrics.auc(np.arange(4.0), all_of_one))
    assert np.isnan(metrics.auc(np.arange(4.0), ~all_of_one))
    assert metrics.f1(~all_of_one, ~all_of_one) == 0
    assert metrics.f1(~all_of_one, all_of_one) == 0


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1])
def test_r2_of_a_constant_label_is_nan(value: float) -> None:
    true = np.full((7, 1), value)
    assert np.isnan(metrics.r2(true + 1, true))
    assert np.isnan(metrics.r2(np.hstack([true, true]), np.hstack([true, np.arange(7.0)[:, None]])))
