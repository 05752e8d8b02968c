"""The H-score against its definition, scikit-learn's shrinkage and canonical correlations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LinearRegression

from facetask import CurveError, ScoreProblem
from facetask.plugins.scores.h_score import HScoreParams, facetask_scores, h_score
from facetask.testing import check_score

SHRUNK = HScoreParams(shrinkage="ledoit-wolf")


def problem(x: np.ndarray, *classes: np.ndarray) -> ScoreProblem:
    columns = np.stack(classes, axis=1)
    return ScoreProblem(
        responses=x, targets=columns.astype(float), kind="nominal", classes=columns, rmse=1.0, trivial_rmse=1.0
    )


def draw(n: int = 60, p: int = 5, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    classes = random.integers(0, k, n)
    x = random.normal(size=(n, p)) @ random.normal(size=(p, p)) + random.normal(size=(k, p))[classes]
    return x, classes


def means(x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return each image's class mean."""
    return np.stack([x[classes == label].mean(axis=0) for label in classes])


def test_it_is_the_trace_of_its_definition() -> None:
    x, classes = draw()
    expected = np.trace(np.linalg.inv(np.cov(x.T)) @ np.cov(means(x, classes).T))
    assert h_score(problem(x, classes), HScoreParams()) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "p"), [(60, 5), (20, 30)])
def test_the_shrunk_one_is_the_trace_of_its_definition(n: int, p: int) -> None:
    x, classes = draw(n, p)
    fit = LedoitWolf().fit(x)
    between = np.cov(means(x, classes).T, bias=True)
    expected = np.trace(np.linalg.inv(fit.covariance_) @ ((1 - fit.shrinkage_) * between))
    assert 0 < fit.shrinkage_ < 1
    assert h_score(problem(x, classes), SHRUNK) == pytest.approx(expected)


def test_of_two_classes_it_is_the_r2_of_the_regression_on_them() -> None:
    x, classes = draw(k=2)
    assert h_score(problem(x, classes), HScoreParams()) == pytest.approx(
        LinearRegression().fit(x, classes).score(x, classes)
    )


def test_units_copies_and_dead_filters_do_not_matter() -> None:
    x, classes = draw()
    plain = h_score(problem(x, classes), HScoreParams())
    changed = np.hstack([x * [1.0, 20.0, 0.05, 7.0, 1.0], x[:, :2], np.ones((len(x), 1))])
    assert h_score(problem(changed, classes), HScoreParams()) == pytest.approx(plain, rel=1e-6)


def test_shrinkage_keeps_many_random_filters_from_looking_good() -> None:
    random = np.random.default_rng(0)
    x, classes = random.normal(size=(100, 90)), random.integers(0, 2, 100)
    assert h_score(problem(x, classes), HScoreParams()) > 0.8
    assert h_score(problem(x, classes), SHRUNK) < 0.1


def test_several_labellings_are_averaged_each_where_it_is_known() -> None:
    x, classes = draw()
    other = np.roll(classes, 7)
    other[:11] = -1
    expected = (h_score(problem(x, classes), HScoreParams()) + h_score(problem(x[11:], other[11:]), HScoreParams())) / 2
    assert h_score(problem(x, classes, other), HScoreParams()) == pytest.approx(expected)


@pytest.mark.parametrize("params", [HScoreParams(), SHRUNK])
def test_dead_filters_tell_nothing_and_one_class_is_none(params: HScoreParams) -> None:
    x, classes = draw()
    assert h_score(problem(np.ones_like(x), classes), params) == 0
    assert np.isnan(h_score(problem(x, np.zeros_like(classes)), params))
    x[0, 0] = np.inf
    with pytest.raises(CurveError, match="finite"):
        h_score(problem(x, classes), params)


def test_record() -> None:
    (record,) = facetask_scores()
    assert record.name == "h-score"
    for params in (None, SHRUNK):
        assert all(0 < value < 2 for value in check_score(record, params))
