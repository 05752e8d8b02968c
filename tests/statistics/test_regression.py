from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge

from facetask import CurveError, Moments
from facetask.statistics.regression import STRENGTHS, LinearModel, fit_ridge, rmse_from_moments, tune_ridge


def data(seed: int, n: int = 400, p: int = 12, m: int = 2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = np.maximum(random.standard_normal((n, 5)) @ random.standard_normal((5, p)) + random.standard_normal((n, p)), 0)
    return 3 * x + 1, x @ random.standard_normal((p, m)) + random.standard_normal((n, m)) + 4


def test_strength_zero_is_least_squares() -> None:
    x, y = data(0)
    model = fit_ridge(Moments.from_arrays(x, y), 0)
    reference = LinearRegression().fit(x, y)
    np.testing.assert_allclose(model.coef, reference.coef_.T, rtol=1e-9)
    np.testing.assert_allclose(model.predict(x), reference.predict(x), atol=1e-11)


@pytest.mark.parametrize("strength", [1e-6, 0.01, 3.0])
def test_strength_is_relative_to_images_and_spread(strength: float) -> None:
    x, y = data(1)
    model = fit_ridge(Moments.from_arrays(x, y), strength)
    reference = Ridge(alpha=strength * len(x)).fit((x - x.mean(axis=0)) / x.std(axis=0), y)
    np.testing.assert_allclose(model.coef * x.std(axis=0)[:, None], reference.coef_.T, rtol=1e-9)
    twice = fit_ridge(Moments.from_arrays(np.vstack([x, x]) * 7, np.vstack([y, y])), strength)
    np.testing.assert_allclose(twice.coef * 7, model.coef, rtol=1e-9)


def test_collinear_columns_get_the_minimum_norm_solution_and_dead_ones_zero() -> None:
    x, y = data(2, p=6)
    x = np.hstack([x, x[:, :1], x[:, 1:2] - 2 * x[:, 2:3], np.full((len(x), 1), 0.1)])
    model = fit_ridge(Moments.from_arrays(x, y), 0)
    unit = x[:, :8].std(axis=0)
    expected = np.linalg.pinv((x[:, :8] - x[:, :8].mean(axis=0)) / unit, rcond=1e-8) @ (y - y.mean(axis=0))
    np.testing.assert_allclose(model.coef[:8] * unit[:, None], expected, atol=1e-9)
    np.testing.assert_array_equal(model.coef[8], 0)
    np.testing.assert_allclose(model.coef[0], model.coef[6], rtol=1e-8)


def test_fewer_images_than_columns_are_fitted_exactly_by_the_minimum_norm() -> None:
    x, y = data(3, n=9, p=30)
    model = fit_ridge(Moments.from_arrays(x, y), 0)
    np.testing.assert_allclose(model.predict(x), y, atol=1e-7)
    unit = np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    expected = np.linalg.pinv((x - x.mean(axis=0)) / unit) @ (y - y.mean(axis=0))
    np.testing.assert_allclose(model.coef * unit[:, None], expected, atol=1e-8)


def test_one_image_gives_the_constant_model() -> None:
    x, y = data(3, n=1)
    model = fit_ridge(Moments.from_arrays(x, y), 0)
    np.testing.assert_array_equal(model.coef, 0)
    np.testing.assert_array_equal(model.intercept, y[0])


def test_tuning_takes_the_strength_with_the_lowest_validation_error() -> None:
    x, y = data(4, n=60, p=40)
    train, validation = Moments.from_arrays(x[:45], y[:45]), Moments.from_arrays(x[45:], y[45:])
    scale = train.std_y
    model, strength = tune_ridge(train, validation, scale=scale)
    errors = {s: rmse_from_moments(fit_ridge(train, s), validation, scale) for s in STRENGTHS}
    assert strength == min(errors, key=errors.__getitem__)
    assert strength > 0
    np.testing.assert_allclose(model.coef, fit_ridge(train, strength).coef, atol=1e-9)
    assert STRENGTHS[0] == 0


def test_of_equally_good_strengths_the_least_is_taken() -> None:
    x, y = data(5)
    moments = Moments.from_arrays(np.ones_like(x), y)
    assert tune_ridge(moments, moments, [1.0, 0.0, 0.1])[1] == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), m=st.integers(1, 4), strength=st.sampled_from([0.0, 0.1]))
def test_the_error_from_moments_is_that_of_predicting(seed: int, m: int, strength: float) -> None:
    x, y = data(seed, n=90, m=m)
    train, validation = Moments.from_arrays(x[:60], y[:60]), Moments.from_arrays(x[60:], y[60:])
    model = fit_ridge(train, strength)
    scale = train.std_y
    expected = np.sqrt((((y[60:] - model.predict(x[60:])) / scale) ** 2).mean())
    assert rmse_from_moments(model, validation, scale) == pytest.approx(expected, rel=1e-12)
    undivided = np.sqrt(((y[60:] - model.predict(x[60:])) ** 2).mean())
    assert rmse_from_moments(model, validation, None) == pytest.approx(undivided, rel=1e-12)


def test_a_perfect_fit_has_a_finite_error_near_zero() -> None:
    x, _ = data(6)
    y = x @ np.ones((12, 1))
    moments = Moments.from_arrays(x, y)
    assert 0 <= rmse_from_moments(fit_ridge(moments, 0), moments, moments.std_y) < 1e-6


def test_an_output_that_is_constant_in_training_stays_undivided() -> None:
    x, y = data(7)
    y[:, 1] = 2
    moments = Moments.from_arrays(x, y)
    model = fit_ridge(moments, 0)
    alone = rmse_from_moments(fit_ridge(Moments.from_arrays(x, y[:, :1]), 0), Moments.from_arrays(x, y[:, :1]), None)
    error = rmse_from_moments(model, moments, np.array([2.0, 0.0]))
    assert error == pytest.approx(alone / 2 / np.sqrt(2), rel=1e-9)


def test_wrong_input_is_an_error() -> None:
    x, y = data(8)
    moments, other = Moments.from_arrays(x, y), Moments.from_arrays(x[:, :3], y)
    for strength in (-1.0, np.nan, np.inf):
        with pytest.raises(CurveError, match="strengths"):
            fit_ridge(moments, strength)
    with pytest.raises(CurveError, match="strengths"):
        tune_ridge(moments, moments, [])
    with pytest.raises(CurveError, match="validation moments 3"):
        tune_ridge(moments, other)
    model = fit_ridge(other, 0)
    with pytest.raises(CurveError, match="shape"):
        rmse_from_moments(model, moments, None)
    with pytest.raises(CurveError, match="model of 3 columns"):
        model.predict(x)
    for scale in ([1.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(CurveError, match="scale"):
            rmse_from_moments(model, other, np.array(scale))


def test_predict_takes_float32_rows_and_returns_float64() -> None:
    model = LinearModel(coef=np.array([[2.0], [1.0]]), intercept=np.array([0.5]))
    predicted = model.predict(np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert predicted.dtype == np.float64
    assert predicted.ravel().tolist() == [4.5, 10.5]


def test_a_filter_that_fired_once_and_faintly_cannot_ruin_a_prediction() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 6)) @ rng.standard_normal((6, 6))
    y = x @ rng.standard_normal((6, 1)) + 0.1 * rng.standard_normal((400, 1))
    x[:, 3] = 0
    x[11, 3] = 1e-6  # in training; then at full strength
    seen, checked, later = x[:200], x[200:300], x[300:].copy()
    later[5, 3] = 1.0
    train, validation = Moments.from_arrays(seen, y[:200]), Moments.from_arrays(checked, y[200:300])
    for model in (fit_ridge(train, 0.0), tune_ridge(train, validation)[0]):
        assert model.coef[3] == 0
        assert np.abs(model.predict(later) - y[300:])[5] < 20
