from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from facetask.tasks.calibration import logistic_line, sigmoid


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 300), unit=st.sampled_from([1e-3, 1.0, 50.0]))
def test_it_is_the_logistic_regression_of_softened_labels(seed: int, n: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[:2] = [True, False]
    score = unit * (3 + rng.standard_normal(n) + 1.5 * positive)
    slope, offset = logistic_line(score, positive)
    high, low = (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2)
    target = np.where(positive, high, low)
    reference = LogisticRegression(C=1e9, tol=1e-12, max_iter=5000).fit(
        np.concatenate([score, score])[:, None] / unit,
        np.repeat([1, 0], n),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    expected = reference.predict_proba(score[:, None] / unit)[:, 1]
    if reference.coef_[0, 0] > 0.01:
        np.testing.assert_allclose(sigmoid(slope * score + offset), expected, atol=1e-4)


@pytest.mark.parametrize("positive", [[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]])
@pytest.mark.parametrize("score", [[0.0, 0.0, 0.0], [1e-9, 2e-9, 3e-9], [-1e6, 0.0, 1e6]])
def test_the_order_of_scores_stays_and_nothing_is_endless(positive: list[int], score: list[float]) -> None:
    slope, offset = logistic_line(np.array(score), np.array(positive, dtype=bool))
    assert np.isfinite([slope, offset]).all()
    assert slope > 0
    probability = sigmoid(slope * np.array(score) + offset)
    assert ((probability > 0) & (probability < 1)).all()


def test_log_odds_of_any_size() -> None:
    np.testing.assert_allclose(sigmoid(np.array([-1e4, 0.0, np.log(3), 1e4])), [0, 0.5, 0.75, 1])
