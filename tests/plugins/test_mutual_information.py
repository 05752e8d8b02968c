from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from sklearn.metrics import mutual_info_score

from facetask import CurveError, Moments, SelectionPath, SelectionProblem
from facetask.plugins.selectors import mutual_information as module
from facetask.plugins.selectors.mutual_information import (
    MutualInformationParams,
    facetask_selectors,
    mutual_information,
)
from facetask.testing import check_selector


def select(x: np.ndarray, y: np.ndarray, component: np.ndarray | None = None, bins: int | None = None) -> SelectionPath:
    problem = SelectionProblem(
        moments=Moments.from_arrays(x, y),
        component=np.arange(x.shape[1]) if component is None else component,
        responses=x,
        targets=y,
    )
    return mutual_information(problem, MutualInformationParams(bins=bins))


def order(path: SelectionPath) -> list[int]:
    """Return the components in the order in which a nested path takes them up."""
    supports = [set(), *(set(support.tolist()) for support in path.supports)]
    return [(later - earlier).pop() for earlier, later in pairwise(supports)]


def estimate(x: np.ndarray, y: np.ndarray, bins: int | None = None) -> np.ndarray:
    """Return each column's information, summed over the outputs, in nats."""
    bins = bins or round(len(x) ** (1 / 3))
    targets = module._target_bins(y, bins)
    return module._information(x, np.arange(x.shape[1]), targets, bins).sum(axis=1)


def gaussian(n: int, rho: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, 1))
    return rho * y + np.sqrt(1 - rho**2) * rng.standard_normal((n, len(rho))), y


RHO = np.array([0, 0.1, 0.3, -0.5, 0.7, 0.9])


def test_bivariate_gaussians_have_a_closed_form() -> None:
    """Within 0.02 nats and a tenth: equally frequent bins take something off the largest."""
    true = -0.5 * np.log(1 - RHO**2)
    for seed in range(3):
        found = estimate(*gaussian(10_000, RHO, seed))
        np.testing.assert_allclose(found, true, rtol=0.1, atol=0.02)


def test_the_bias_is_corrected() -> None:
    """Of 400 independent columns the mean is none; without correction it would be (7 − 1)² / 2n = 0.045 nats."""
    x, y = gaussian(400, np.zeros(400))
    assert abs(estimate(x, y).mean()) < 0.004


def test_scikit_learn_s_nearest_neighbours_agree() -> None:
    """Within 0.02 nats and a tenth, again."""
    rng = np.random.default_rng(0)
    y = rng.uniform(-1, 1, (4000, 1))
    noise = rng.standard_normal((4000, 5))
    x = np.hstack([y**2, np.sin(6 * y), y, np.maximum(y, 0), np.zeros_like(y)]) + [0.2, 0.5, 1.0, 0.3, 1.0] * noise
    np.testing.assert_allclose(estimate(x, y), mutual_info_regression(x, y[:, 0], random_state=0), rtol=0.1, atol=0.02)
    classes = np.digitize(y[:, 0], [-0.6, 0.1, 0.8])
    one_hot = np.eye(4)[classes]
    np.testing.assert_allclose(
        estimate(x, one_hot), mutual_info_classif(x, classes, random_state=0), rtol=0.1, atol=0.02
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), n=st.integers(2, 80), values=st.integers(2, 30), bins=st.integers(2, 12))
def test_tables_are_those_of_scikit_learn(seed: int, n: int, values: int, bins: int) -> None:
    """Against its plug-in estimate from the same bins, in plain words: those of the middle of a value's ranks."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, values, (n, 3)).astype(float), rng.integers(0, values, (n, 1)).astype(float)

    def binned(column: np.ndarray) -> np.ndarray:
        middle = ((column[:, None] > column).sum(axis=1) + (column[:, None] >= column).sum(axis=1)) / 2
        return (middle * bins / n).astype(int)

    target = y[:, 0] if len(np.unique(y)) <= bins else binned(y[:, 0])
    expected = []
    for column in x.T:
        found = binned(column)
        pairs = len(set(zip(found.tolist(), target.tolist(), strict=True)))
        correction = (pairs - len(set(found.tolist())) - len(set(target.tolist())) + 1) / (2 * n)
        expected.append(mutual_info_score(found, target) - correction)
    np.testing.assert_allclose(estimate(x, y, bins), expected, atol=1e-12)


def test_what_is_not_linear_is_found() -> None:
    x, y = gaussian(2000, np.array([0.0, 0.3, 0.0]))
    x[:, 0] += 2 * y[:, 0] ** 2
    assert order(select(x, y)) == [0, 1, 2]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_only_the_order_of_values_counts(seed: int) -> None:
    x, y = gaussian(300, np.linspace(0, 0.9, 8), seed)
    changed = np.where(np.arange(8) % 2, np.exp(x), -(x**3))
    assert order(select(x, y)) == order(select(changed, np.arctan(y)))


def test_a_rare_value_is_not_binned_with_a_frequent_one() -> None:
    """A filter that fires for 2 % of the images only, and a class of 2 % of them."""
    y = np.zeros((1000, 1))
    y[::50] = 1
    rng = np.random.default_rng(0)
    x = np.hstack([y * rng.uniform(0.5, 1, y.shape), 1 - y, rng.standard_normal((1000, 1))])
    entropy = -(0.02 * np.log(0.02) + 0.98 * np.log(0.98))
    np.testing.assert_allclose(estimate(x, y)[:2], entropy, atol=2e-3)
    assert order(select(x, y))[2] == 2


def test_outputs_are_summed_and_one_hot_outputs_are_one_class() -> None:
    x, y = gaussian(1000, np.linspace(0, 0.9, 6))
    other = np.random.default_rng(1).standard_normal((1000, 1)) + x[:, :1]
    both = np.hstack([y, other])
    np.testing.assert_allclose(estimate(x, both), estimate(x, y) + estimate(x, other))
    positive = (y > 0.3).astype(float)
    np.testing.assert_allclose(estimate(x, np.hstack([1 - positive, positive])), estimate(x, positive))


def test_the_best_column_speaks_for_a_component() -> None:
    # Component 0: fair twice; component 1: poor and best; component 2: good alone.
    x, y = gaussian(3000, np.array([0.5, 0.5, 0.1, 0.9, 0.7]))
    assert order(select(x, y, np.array([0, 0, 1, 1, 2]))) == [1, 2, 0]


def test_the_dead_and_the_copies_are_left_out() -> None:
    x, y = gaussian(300, np.array([0.2, 0.8, 0.5, 0.8]))
    x[:, 2], x[:, 3] = 0.1, 2 * x[:, 1]
    path = select(x, y)
    assert [support.tolist() for support in path.supports] == [[1], [0, 1]]
    assert path.notes == ("1 dead, left out: 2", "1 duplicate, left out: 3 (same as 1)")


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gaussian(200, np.linspace(-0.9, 0.9, 11))
    whole = estimate(x, y)
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 700)
    np.testing.assert_array_equal(estimate(x, y), whole)


def test_few_images() -> None:
    assert len(select(*gaussian(4, np.zeros(6))).supports) == 6


def test_bad_input_is_an_error() -> None:
    x, y = gaussian(30, np.array([0.1, 0.5]))
    for broken in ("responses", "targets"):
        arrays = {"responses": x.copy(), "targets": y.copy()}
        arrays[broken][4, -1] = np.nan
        problem = SelectionProblem(moments=Moments.from_arrays(x, y), component=np.arange(2), **arrays)
        column = arrays[broken].shape[1] - 1
        with pytest.raises(CurveError, match=f"{broken}: 1 of 30 values in column {column} are NaN"):
            mutual_information(problem, MutualInformationParams())
    with pytest.raises(CurveError, match="constant"):
        select(x, np.ones((30, 1)))
    with pytest.raises(ValidationError):
        MutualInformationParams(bins=1)


def test_record() -> None:
    (selector,) = facetask_selectors()
    assert (selector.name, selector.needs, selector.scope) == ("mutual-information", {"moments", "responses"}, "group")
    assert selector.params().bins is None
    check_selector(selector)
