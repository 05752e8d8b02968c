from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, LinearRegression, MultiTaskLasso, Ridge

from facetask import CurveError, Moments, SelectionPath, SelectionProblem
from facetask.plugins.selectors.lasso import LassoParams, lasso
from facetask.statistics.curves import RIDGE_STRENGTHS, Curve, characteristic_curve
from facetask.statistics.regression import fit_ridge, rmse_from_moments


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


# Without refit


def without_refit(split: Split, path: SelectionPath, component: np.ndarray | None = None) -> Curve:
    component = np.arange(split.x.shape[1]) if component is None else component
    return characteristic_curve(split.train, split.validation, component, path, None, "none")


@pytest.mark.parametrize(("n", "m"), [(120, 1), (120, 3), (15, 1)])
def test_without_refit_the_lasso_s_own_errors_are_scikit_learn_s(n: int, m: int) -> None:
    split = Split(n, 20, m)
    split.y /= split.y[:n].std(axis=0)
    split.x[:, 3] = 0.7  # dead
    split.update()
    problem = SelectionProblem(moments=split.train, component=np.arange(20))
    path = lasso(problem, LassoParams(tolerance=1e-6))
    found = without_refit(split, path)
    mean, std = split.x[:n].mean(axis=0), np.where(np.arange(20) == 3, 1, split.x[:n].std(axis=0))
    x = (split.x - mean) / std
    x[:, 3] = 0
    gram_cross = x[:n].T @ (split.y[:n] - split.y[:n].mean(axis=0)) / n
    largest = np.sqrt((gram_cross**2).sum(axis=1)).max()
    for index in range(0, len(path.supports), 9):
        assert path.strengths is not None
        model = (Lasso if m == 1 else MultiTaskLasso)(alpha=largest * path.strengths[index], tol=1e-12, max_iter=100000)
        model.fit(x[:n], split.y[:n, 0] if m == 1 else split.y[:n])
        gap = split.y[n:] - model.predict(x[n:]).reshape(-1, m)
        assert found.rmse[index] == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-4)
    assert found.unpruned_rmse == pytest.approx(split_curve_unpruned(split), rel=1e-12)
    np.testing.assert_array_equal(np.sort(found.order), np.unique(np.concatenate(path.supports)))


def split_curve_unpruned(split: Split) -> float:
    """Return the validation RMSE of the regression on all columns, as with refits."""
    path = SelectionPath(supports=(np.arange(split.x.shape[1]),))
    return characteristic_curve(split.train, split.validation, np.arange(split.x.shape[1]), path, None).unpruned_rmse


def test_shrinkage_costs_what_a_refit_wins_back() -> None:
    split = Split(400, 12, 1)
    path = lasso(SelectionProblem(moments=split.train, component=np.arange(12)), LassoParams())
    raw = without_refit(split, path)
    refitted = characteristic_curve(split.train, split.validation, np.arange(12), path, None)
    assert raw.rmse[0] > 1.2 * refitted.rmse[0]
    assert raw.rmse[-1] == pytest.approx(refitted.rmse[-1], rel=1e-2)
    assert raw.n_filters == refitted.n_filters
    assert raw.order.tolist() == refitted.order.tolist()


def test_without_refit_a_path_needs_coefficients() -> None:
    with pytest.raises(
        CurveError, match=r"no coefficients of its own.*refit: least-squares, or a selector such as lasso"
    ):
        without_refit(Split(50, 4, 1), SelectionPath(supports=(np.array([0]),)))


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        (np.zeros((1, 4, 2)), r"shape \(1, 4, 2\); finite ones of \(1, 4, 1\)"),
        (np.full((1, 4, 1), np.nan), "finite"),
        (np.ones((1, 4, 1)), "point 0 are not 0 off its support"),
    ],
)
def test_coefficients_that_do_not_fit_are_an_error(coefficients: np.ndarray, message: str) -> None:
    path = SelectionPath(supports=(np.array([0, 2]),), coefficients=coefficients)
    split = Split(50, 4, 1)
    for refit in ("none", "least-squares"):
        with pytest.raises(CurveError, match=message):
            characteristic_curve(split.train, split.validation, np.arange(4), path, None, refit)  # type: ignore[arg-type]
