"""TransRate against coding rates from plain determinants."""

from __future__ import annotations

import numpy as np
import pytest

from facetask import CurveError, ScoreProblem
from facetask.plugins.scores.transrate import TransRateParams, facetask_scores, transrate
from facetask.testing import check_score


def problem(x: np.ndarray, *classes: np.ndarray) -> ScoreProblem:
    columns = np.stack(classes, axis=1)
    return ScoreProblem(
        responses=x, targets=columns.astype(float), kind="nominal", classes=columns, rmse=1.0, trivial_rmse=1.0
    )


def draw(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, n)
    return random.normal(size=(n, p)) * 4 + random.normal(size=(3, p))[classes], classes


def rate(z: np.ndarray, epsilon: float) -> float:
    """Return half the logarithm of the determinant, from the eigenvalues of the covariance."""
    covariance = sum(np.outer(row, row) for row in z) / len(z)
    return 0.5 * np.log(1 + np.linalg.eigvalsh(covariance) / epsilon).sum()


@pytest.mark.parametrize("scale", ["trace", "none"])
@pytest.mark.parametrize(("n", "p"), [(50, 4), (12, 20)])
@pytest.mark.parametrize("epsilon", [1e-4, 0.1])
def test_it_is_the_difference_of_coding_rates(n: int, p: int, epsilon: float, scale: str) -> None:
    x, classes = draw(n, p)
    z = x - x.mean(axis=0)
    if scale == "trace":
        z /= np.sqrt(np.trace(np.cov(x.T, bias=True)))
    expected = rate(z, epsilon) - np.mean([rate(z[classes == k], epsilon) for k in range(3)])
    params = TransRateParams.model_validate({"epsilon": epsilon, "scale": scale})
    assert transrate(problem(x, classes), params) == pytest.approx(expected)


def test_a_network_s_own_scale_counts_only_where_it_shall() -> None:
    x, classes = draw(50, 4)
    small, large = problem(x, classes), problem(x * 100, classes)
    assert transrate(small, TransRateParams()) == pytest.approx(transrate(large, TransRateParams()))
    plain = TransRateParams(scale="none", epsilon=1.0)
    assert abs(transrate(small, plain) - transrate(large, plain)) > 1e-3


def test_classes_that_lie_apart_score_higher() -> None:
    x, classes = draw(200, 4)
    apart = x + 40 * np.eye(4)[classes]
    assert transrate(problem(apart, classes), TransRateParams()) > transrate(problem(x, classes), TransRateParams()) + 1


def test_dead_filters_and_bad_numbers() -> None:
    x, classes = draw(50, 4)
    with_dead = np.hstack([x, np.full((50, 3), 2.5)])
    assert transrate(problem(with_dead, classes), TransRateParams()) == pytest.approx(
        transrate(problem(x, classes), TransRateParams())
    )
    assert np.isnan(transrate(problem(np.ones((50, 4)), classes), TransRateParams()))
    x[0, 0] = np.nan
    with pytest.raises(CurveError, match="not finite"):
        transrate(problem(x, classes), TransRateParams())


def test_record() -> None:
    (record,) = facetask_scores()
    assert record.name == "transrate"
    assert np.isfinite(check_score(record)).all()
