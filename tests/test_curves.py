from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge

from facetask import CurveError, Moments, SelectionPath
from facetask.curves import RIDGE_STRENGTHS, Curve, characteristic_curve, knee
from facetask.regression import fit_ridge, rmse_from_moments


class Split:
    """Training and validation arrays with their moments."""

    def __init__(self, n: int, p: int, m: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        x = np.maximum(random.standard_normal((2 * n, 6)) @ random.standard_normal((6, p)), -1)
        x += random.standard_normal(x.shape)
        y = x @ random.standard_normal((p, m)) + 2 * random.standard_normal((2 * n, m))
        self.x, self.y = x, y
        self.n = n
        self.update()

    def update(self) -> None:
        n = self.n
        self.train = Moments.from_arrays(self.x[:n], self.y[:n])
        self.validation = Moments.from_arrays(self.x[n:], self.y[n:])

    def rmse(self, columns: np.ndarray, alpha: float = 0.0) -> float:
        """Return the validation RMSE of scikit-learn's regression on some columns."""
        x = (self.x - self.x[: self.n].mean(axis=0)) / self.x[: self.n].std(axis=0)
        model = Ridge(alpha=alpha * self.n) if alpha else LinearRegression()
        model.fit(x[: self.n][:, columns], self.y[: self.n])
        gap = self.y[self.n :] - model.predict(x[self.n :][:, columns]).reshape(-1, self.y.shape[1])
        return float(np.sqrt(((gap / self.y[: self.n].std(axis=0)) ** 2).mean()))

    def curve(self, supports: list[list[int]], component: np.ndarray | None = None) -> Curve:
        component = np.arange(self.x.shape[1]) if component is None else component
        path = SelectionPath(supports=tuple(np.array(support) for support in supports))
        return characteristic_curve(self.train, self.validation, component, path, self.train.std_y)


def curve(n_filters: list[int], rmse: list[float]) -> Curve:
    supports = tuple(np.arange(k) for k in n_filters)
    return Curve(n_filters=tuple(n_filters), rmse=tuple(rmse), supports=supports, unpruned_rmse=0.0)


@settings(max_examples=30, deadline=None)
@given(
    supports=st.lists(st.sets(st.integers(0, 11), min_size=1).map(sorted), min_size=1, max_size=12),
    m=st.integers(1, 3),
)
def test_any_path_is_refitted_as_scikit_learn_does(supports: list[list[int]], m: int) -> None:
    split = Split(130, 12, m)
    found = split.curve(supports)
    np.testing.assert_allclose(found.rmse, [split.rmse(np.array(support)) for support in supports], rtol=1e-9)
    assert found.n_filters == tuple(len(support) for support in supports)
    assert found.unpruned_rmse == pytest.approx(split.rmse(np.arange(12)), rel=1e-9)
    assert found.notes == ()


def test_long_nested_path() -> None:
    split = Split(2000, 150, 2)
    order = np.random.default_rng(1).permutation(150)
    supports = [sorted(order[: k + 1].tolist()) for k in range(150)]
    found = split.curve(supports)
    for index in (0, 1, 40, 127, 128, 149):
        assert found.rmse[index] == pytest.approx(split.rmse(np.array(supports[index])), rel=1e-9)


def test_few_images_are_refitted_by_ridge_tuned_on_validation() -> None:
    split = Split(50, 30, 2)
    supports = [[3], [3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6], list(range(30))]
    found = split.curve(supports)
    for support, rmse in zip(supports, found.rmse, strict=True):
        candidates = RIDGE_STRENGTHS if len(support) > 5 else (0.0,)
        assert rmse == pytest.approx(min(split.rmse(np.array(support), s) for s in candidates), rel=1e-8)
    assert found.unpruned_rmse == pytest.approx(found.rmse[-1], rel=1e-8)
    assert found.notes == ("3 of 5 points: ridge refit tuned on validation (fewer than 10 training images a column)",)


@pytest.mark.parametrize("n", [1, 3, 12])
def test_fewer_images_than_columns_still_give_a_curve(n: int) -> None:
    found = Split(n, 30, 1).train
    split = Split(n, 30, 1)
    if n == 1:
        split.validation = Split(5, 30, 1).validation
        scale = None
    else:
        scale = found.std_y
    path = SelectionPath(supports=(np.array([0]), np.arange(30)))
    rmse = characteristic_curve(split.train, split.validation, np.arange(30), path, scale).rmse
    assert np.isfinite(rmse).all()


@pytest.mark.parametrize("nested", [True, False])
def test_collinear_and_dead_columns_do_no_harm(nested: bool) -> None:
    split = Split(300, 8, 1)
    split.x = np.hstack([split.x, split.x[:, :1], split.x[:, 1:2] + split.x[:, 2:3], np.full((600, 1), 0.1)])
    split.update()
    supports = [[10], [0, 10], [0, 8, 10], [0, 1, 2, 8, 10], [0, 1, 2, 8, 9, 10], list(range(11))]
    if not nested:
        supports += [[1, 8], [2, 8, 9], [1, 2, 9], [3, 10]]
    found = split.curve(supports)
    for support, rmse in zip(supports, found.rmse, strict=True):
        columns = np.array(support)
        train, validation = split.train.columns(columns), split.validation.columns(columns)
        expected = rmse_from_moments(fit_ridge(train, 0), validation, train.std_y)
        assert rmse == pytest.approx(expected, rel=1e-8)
    assert found.rmse[1] == pytest.approx(found.rmse[2], rel=1e-9)
    assert found.rmse[3] == pytest.approx(found.rmse[4], rel=1e-9)


def test_a_component_brings_all_its_columns() -> None:
    split = Split(200, 9, 2)
    component = np.array([0, 1, 2, 0, 1, 2, 0, 1, 1])
    found = split.curve([[2], [0, 2], [0, 1, 2]], component)
    columns = [np.array([2, 5]), np.array([0, 2, 3, 5, 6]), np.arange(9)]
    np.testing.assert_allclose(found.rmse, [split.rmse(chosen) for chosen in columns], rtol=1e-9)
    assert found.n_filters == (1, 2, 3)


def test_equal_consecutive_supports_have_equal_errors_and_notes_and_strengths_are_kept() -> None:
    split = Split(200, 4, 1)
    supports = tuple(np.array(support) for support in ([0], [0], [0, 1], [0, 1], [0]))
    path = SelectionPath(supports=supports, strengths=np.geomspace(1, 0.1, 5), notes=("a note",))
    found = characteristic_curve(split.train, split.validation, np.arange(4), path, None)
    assert found.rmse[0] == found.rmse[1]
    assert found.rmse[2] == found.rmse[3]
    assert found.rmse[4] == pytest.approx(found.rmse[0], rel=1e-12)
    assert found.strengths == pytest.approx(np.geomspace(1, 0.1, 5))
    assert found.notes == ("a note",)


@pytest.mark.parametrize(
    ("supports", "message"),
    [([], "empty"), ([[]], "support 0"), ([[0], [2, 1]], "support 1"), ([[1, 1]], "sorted unique"), ([[9]], "0 to 3")],
)
def test_a_path_that_breaks_its_contract_is_an_error(supports: list[list[int]], message: str) -> None:
    with pytest.raises(CurveError, match=message):
        Split(50, 4, 1).curve([*supports])


def test_moments_and_components_that_do_not_fit_are_an_error() -> None:
    split, other = Split(50, 4, 1), Split(50, 5, 1)
    path = SelectionPath(supports=(np.array([0]),))
    with pytest.raises(CurveError, match="validation moments 5"):
        characteristic_curve(split.train, other.validation, np.arange(4), path, None)
    with pytest.raises(CurveError, match="one for each column"):
        characteristic_curve(split.train, split.validation, np.arange(5), path, None)
    with pytest.raises(CurveError, match="no column"):
        split.curve([[1]], np.array([0, 0, 2, 2]))


def test_the_knee_is_the_fewest_filters_within_the_threshold() -> None:
    shape = curve([1, 2, 4, 8, 16], [2.0, 1.5, 1.1, 1.0, 1.05])
    assert [knee(shape, t) for t in (0, 0.05, 0.1, 0.5, 1)] == [3, 3, 2, 1, 0]
    assert shape.knee_filters(0.1) == 4


def test_of_equally_many_filters_the_knee_has_the_lowest_error() -> None:
    assert knee(curve([3, 3, 3, 5], [1.02, 1.0, 1.01, 1.0]), 1) == 1


def test_the_order_of_the_points_does_not_matter() -> None:
    assert knee(curve([16, 4, 1], [1.0, 1.05, 2.0]), 0.1) == 1


def test_a_flat_curve_needs_one_filter() -> None:
    assert knee(curve([1, 2, 3], [0.1 + 0.2] * 3), 0) == 0


@settings(max_examples=100, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(1, 50), st.floats(0.1, 10)), min_size=1, max_size=30),
    threshold=st.floats(0, 1),
)
def test_the_knee_is_within_the_threshold_and_no_point_with_fewer_filters_is(
    points: list[tuple[int, float]], threshold: float
) -> None:
    shape = curve([k for k, _ in points], [rmse for _, rmse in points])
    best, worst = min(shape.rmse), max(shape.rmse)
    index = knee(shape, threshold)
    assert shape.rmse[index] <= best + threshold * (worst - best) + 1e-12
    assert all(rmse > best + threshold * (worst - best) - 1e-12 for k, rmse in points if k < shape.n_filters[index])


@pytest.mark.parametrize("rmse", [[], [1.0, np.nan], [np.inf]])
def test_a_curve_without_points_or_with_other_than_numbers_has_no_knee(rmse: list[float]) -> None:
    with pytest.raises(CurveError, match="no knee"):
        knee(curve([1] * len(rmse), rmse), 0.01)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan])
def test_a_threshold_outside_its_range_is_an_error(threshold: float) -> None:
    with pytest.raises(CurveError, match="threshold"):
        knee(curve([1], [1.0]), threshold)
