"""LogME against the log density of a multivariate normal, maximised over both precisions by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from facetask import CurveError, Kind, Params, ScoreProblem
from facetask.plugins.scores.logme import facetask_scores, logme
from facetask.testing import check_score


def problem(
    x: np.ndarray, targets: np.ndarray, kind: Kind = "continuous", classes: np.ndarray | None = None
) -> ScoreProblem:
    classes = np.zeros((len(x), 1), dtype=np.intp) if classes is None else classes
    return ScoreProblem(responses=x, targets=targets, kind=kind, classes=classes, rmse=1.0, trivial_rmse=1.0)


def evidence(x: np.ndarray, y: np.ndarray) -> float:
    """Return the largest log density per image of y ~ N(0, I/β + xxᵀ/α), by direct search over α and β."""

    def density(logs: np.ndarray) -> float:
        noise, prior = np.exp(logs)
        covariance = noise * np.eye(len(x)) + prior * x @ x.T
        try:
            return float(multivariate_normal(np.zeros(len(x)), covariance, allow_singular=False).logpdf(y))
        except np.linalg.LinAlgError:  # a search that strays to where the noise is rounded away
            return -np.inf

    starts = [np.array([a, b]) for a in (-4.0, 0.0, 3.0) for b in (-4.0, 0.0, 3.0)]
    return max(-minimize(lambda logs: -density(logs), start, method="Nelder-Mead").fun for start in starts) / len(x)


def draw(seed: int, n: int, p: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, p)) * random.uniform(0.3, 3, p) + 0.5
    return x, x @ random.normal(size=p) + noise * random.normal(size=n)


@settings(max_examples=12)
@given(st.integers(0, 1000), st.integers(8, 25), st.integers(1, 6), st.floats(0.3, 3))
def test_it_is_the_maximum_of_the_evidence(seed: int, n: int, p: int, noise: float) -> None:
    x, y = draw(seed, n, p, noise)
    assert logme(problem(x, y[:, None]), Params()) == pytest.approx(evidence(x, y), abs=1e-5)


def test_more_filters_than_images() -> None:
    x, _ = draw(0, 12, 30, 1.0)
    y = np.random.default_rng(1).normal(size=12)
    assert logme(problem(x, y[:, None]), Params()) == pytest.approx(evidence(x, y), abs=1e-3)


def test_several_outputs_and_unknown_labels() -> None:
    x, first = draw(0, 30, 3, 1.0)
    second = np.random.default_rng(5).normal(size=30)
    second[:7] = np.nan
    found = logme(problem(x, np.stack([first, second], axis=1)), Params())
    assert found == pytest.approx((evidence(x, first) + evidence(x[7:], second[7:])) / 2, abs=1e-5)


def test_each_class_counts_against_the_rest() -> None:
    x, y = draw(3, 40, 3, 0.5)
    classes = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    each = [evidence(x, (classes == k).astype(float)) for k in range(3)]
    one_hot = problem(x, np.eye(3)[classes], "nominal", classes[:, None])
    assert logme(one_hot, Params()) == pytest.approx(np.mean(each), abs=1e-5)
    two = (classes > 0).astype(np.intp)
    both = [evidence(x, (two == k).astype(float)) for k in range(2)]
    binary = problem(x, two[:, None].astype(float), "binary", two[:, None])
    assert logme(binary, Params()) == pytest.approx(np.mean(both), abs=1e-5)


def test_it_knows_which_responses_tell_more() -> None:
    x, y = draw(0, 200, 5, 1.0)
    blurred = x + 3 * np.random.default_rng(1).normal(size=x.shape)
    assert logme(problem(x, y[:, None]), Params()) > logme(problem(blurred, y[:, None]), Params()) + 0.1


def test_copies_and_rotations_of_filters_change_nothing_or_little() -> None:
    x, y = draw(0, 50, 4, 1.0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    plain = logme(problem(x, y[:, None]), Params())
    assert logme(problem(x @ rotation, y[:, None]), Params()) == pytest.approx(plain, abs=1e-9)
    assert logme(problem(np.hstack([x, x]), y[:, None]), Params()) == pytest.approx(plain, abs=1e-9)
    assert logme(problem(np.hstack([x, np.zeros((50, 2))]), y[:, None]), Params()) == pytest.approx(plain, abs=1e-9)


def test_one_class_only_does_not_apply() -> None:
    x, _ = draw(0, 20, 2, 1.0)
    assert np.isnan(logme(problem(x, np.ones((20, 1)), "nominal", np.zeros((20, 1), dtype=np.intp)), Params()))


def test_responses_that_are_not_finite_are_an_error() -> None:
    x, y = draw(0, 20, 2, 1.0)
    x[3, 1] = np.nan
    with pytest.raises(CurveError, match="not finite"):
        logme(problem(x, y[:, None]), Params())


def test_record() -> None:
    (record,) = facetask_scores()
    assert (record.name, record.params) == ("logme", Params)
    assert np.isfinite(check_score(record)).all()
