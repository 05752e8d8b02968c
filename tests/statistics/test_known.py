from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetask import CurveError, Moments, SelectionPath
from facetask.statistics.curves import characteristic_curve
from facetask.statistics.known import (
    available_moments,
    joined,
    known_together,
    mean_of_known,
    path_for,
    ridge_of_known,
    spread_of_known,
    tune_known,
)
from facetask.statistics.regression import fit_ridge, tune_ridge

SEEDS = st.integers(0, 2**32 - 1)
ARRAY = np.ndarray


def partly_known(seed: int, n: int = 60, p: int = 5, m: int = 3) -> tuple[ARRAY, ARRAY]:
    """Responses, and targets of which about a third is missing, each output's with a pattern of its own."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((n, p)), 0).astype(np.float32)
    y = x @ rng.standard_normal((p, m)) + 0.3 * rng.standard_normal((n, m))
    y[rng.random((n, m)) < 0.35] = np.nan
    return x, y


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_masking_a_label_equals_dropping_its_rows_for_that_label_alone(seed: int) -> None:
    x, y = partly_known(seed)
    x_other, y_other = partly_known(seed + 1)
    found = tune_known(known_together(x, y, x_other, y_other))
    gentle = ridge_of_known(x, y, 10.0)
    for j in range(y.shape[1]):
        rows, others = ~np.isnan(y[:, j]), ~np.isnan(y_other[:, j])
        train = Moments.from_arrays(x[rows], y[rows, j : j + 1])
        validation = Moments.from_arrays(x_other[others], y_other[others, j : j + 1])
        alone, strength = tune_ridge(train, validation)
        assert found.strengths[j] == strength
        np.testing.assert_allclose(found.model.coef[:, j], alone.coef[:, 0], atol=1e-10)
        np.testing.assert_allclose(found.model.intercept[j], alone.intercept[0], atol=1e-10)
        error = alone.predict(x_other[others]) - y_other[others, j : j + 1]
        assert found.mean_squares[j] == pytest.approx(np.mean(error**2))
        np.testing.assert_allclose(gentle.coef[:, j], fit_ridge(train, 10.0).coef[:, 0], atol=1e-10)
    assert found.validation_rmse == pytest.approx(np.sqrt(found.mean_squares.mean()))


def test_outputs_that_are_known_together_share_moments() -> None:
    x, y = partly_known(0, m=4)
    y[:, [0, 2]] = np.where(np.isnan(y[:, :1]), np.nan, y[:, [0, 2]])
    y[:, 2][~np.isnan(y[:, 0])] = 1.5 * y[:, 0][~np.isnan(y[:, 0])]
    parts = known_together(x, y, x, y)
    assert [part.outputs.tolist() for part in parts] == [[0, 2], [1], [3]]
    whole = known_together(x, np.nan_to_num(y), x, np.nan_to_num(y))
    assert [part.outputs.tolist() for part in whole] == [[0, 1, 2, 3]]


def test_classes_share_one_strength() -> None:
    x, _ = partly_known(1)
    y = np.eye(3)[np.random.default_rng(0).integers(0, 3, len(x))]
    found = tune_known(known_together(x[:30], y[:30], x[30:], y[30:]), together=True)
    _, strength = tune_ridge(Moments.from_arrays(x[:30], y[:30]), Moments.from_arrays(x[30:], y[30:]))
    assert found.strengths.tolist() == [strength] * 3


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, resampled=st.booleans())
def test_available_moments_hold_what_is_known_of_each_output(seed: int, resampled: bool) -> None:
    x, y = partly_known(seed)
    times = np.random.default_rng(seed).integers(0, 3, len(x)) if resampled else None
    found = available_moments(x, y, times)
    counted = np.arange(len(x)) if times is None else np.repeat(np.arange(len(x)), times)
    whole = Moments.from_arrays(x[counted], np.zeros((len(counted), 0)))
    assert found.n == whole.n
    np.testing.assert_allclose(found.xx, whole.xx, atol=1e-9)
    for j in range(y.shape[1]):
        rows = counted[~np.isnan(y[counted, j])]
        alone = Moments.from_arrays(x[rows], y[rows, j : j + 1])
        assert found.mean_y[j] == pytest.approx(alone.mean_y[0])
        assert found.std_y[j] == pytest.approx(alone.std_y[0])
        np.testing.assert_allclose(found.xy[:, j] / found.n, alone.xy[:, 0] / alone.n, atol=1e-10)
    # Each output's products lie in the range of the Gram, which keeps the lasso bounded from below.
    inside = found.xx @ np.linalg.lstsq(found.xx, found.xy, rcond=1e-10)[0]
    np.testing.assert_allclose(inside, found.xy, atol=1e-7)


def test_where_everything_is_known_available_moments_are_the_plain_ones() -> None:
    x, y = partly_known(2)
    plain, found = Moments.from_arrays(x, np.nan_to_num(y)), available_moments(x, np.nan_to_num(y))
    for field in ("mean_x", "mean_y", "xx", "xy", "yy"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(found, field))


@pytest.mark.parametrize("function", [available_moments, lambda x, y: known_together(x, y, x, y)])
def test_an_output_that_is_nowhere_known(function: object) -> None:
    x, y = partly_known(3)
    y[:, 1] = np.nan
    with pytest.raises(CurveError, match="output 1 is known for no image"):
        function(x, y)  # type: ignore[operator]


@pytest.mark.parametrize("refit", ["least-squares", "none"])
def test_a_joined_curve_is_the_root_mean_over_outputs(refit: str) -> None:
    x, y = partly_known(4, n=200)
    x_other, y_other = partly_known(5, n=200)
    parts = known_together(x, y, x_other, y_other)
    train = available_moments(x, y)
    coefficients = np.zeros((2, 5, 3))
    coefficients[0, [1]], coefficients[1, [0, 1, 3]] = 0.2, np.arange(9).reshape(3, 3) / 10
    path = SelectionPath(supports=(np.array([1]), np.array([0, 1, 3])), coefficients=coefficients)
    curves = [
        characteristic_curve(part.train, part.validation, np.arange(5), path_for(part, path, train), None, refit)  # type: ignore[arg-type]
        for part in parts
    ]
    found = joined(curves, parts)
    for point, support in enumerate(path.supports):
        squares = []
        for j in range(3):
            rows, others = ~np.isnan(y[:, j]), ~np.isnan(y_other[:, j])
            inside, outside = x[rows][:, support].astype(float), x_other[others][:, support].astype(float)
            if refit == "none":
                slope = coefficients[point][support, j] / x.astype(float).std(axis=0)[support]
                offset = y[rows, j].mean() - inside.mean(axis=0) @ slope
            else:
                solution = np.linalg.lstsq(np.column_stack([inside, np.ones(len(inside))]), y[rows, j], rcond=None)[0]
                slope, offset = solution[:-1], solution[-1]
            squares.append(np.mean((outside @ slope + offset - y_other[others, j]) ** 2))
        assert found.rmse[point] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)


def test_means_and_spreads_of_what_is_known() -> None:
    values = np.array([[1.0, np.nan, 5.0], [3.0, np.nan, np.nan], [np.nan, np.nan, 5.0]])
    np.testing.assert_array_equal(mean_of_known(values), [2, np.nan, 5])
    np.testing.assert_array_equal(spread_of_known(values), [1, 1, 1])
    np.testing.assert_array_equal(spread_of_known(10 * values), [10, 1, 1])
