"""Linear regression from moments: least squares, ridge, and the error of a model on images never touched again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh, lapack

from facetask.errors import CurveError
from facetask.statistics.moments import Moments
from facetask.statistics.rows import Rows, block_height

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.statistics.rows import Matrix

STRENGTHS = (0.0, *(float(strength) for strength in np.logspace(-6, 1, 15)))
RANK_TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """Targets as a linear function of responses.

    Attributes:
        coef: ``(n_columns, n_outputs)``, in the target's unit per unit of response.
        intercept: ``(n_outputs,)``.
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def predict(self, x: Matrix) -> NDArray[np.float64]:
        """Return predicted targets ``(n, n_outputs)`` of responses ``(n, n_columns)``, read in blocks of rows.

        Raises:
            CurveError: If the number of columns is not the model's.
        """
        if len(x.shape) != 2 or x.shape[1] != len(self.coef):
            raise CurveError(f"responses of shape {x.shape} for a model of {len(self.coef)} columns")
        predicted = np.empty((len(x), len(self.intercept)))
        for rows, block in Rows.of(x).blocks(block_height(sum(self.coef.shape))):
            predicted[rows] = block @ self.coef + self.intercept
        return predicted


def fit_ridge(train: Moments, strength: float) -> LinearModel:
    """Return the ridge regression of the targets on all columns, intercept not penalised.

    Minimises the sum of squared errors plus ``strength · n · ‖β‖²``, β being the coefficients of the standardised
    responses: the strength is relative, its meaning does not change with the number of images or the unit of a
    response. Strength 0 is least squares; of the solutions for collinear columns it is the one with the smallest ‖β‖.
    A dead column's coefficient is 0.

    Args:
        train: Moments of the training images.
        strength: Non-negative.

    Raises:
        CurveError: If the strength is negative or not finite.
    """
    _check_strengths([strength])
    live = np.flatnonzero(~train.dead_columns)
    gram, cross = train.standardised(live)
    solution = _cholesky_solution(gram, cross, strength)
    if solution is None:
        solution = _spectral_solutions(gram, cross, [strength])[:, 0]
    return _unstandardised(train, live, solution)


def tune_ridge(
    train: Moments,
    validation: Moments,
    strengths: Sequence[float] = STRENGTHS,
    scale: NDArray[np.float64] | None = None,
) -> tuple[LinearModel, float]:
    """Return the ridge regression with the lowest validation RMSE, and its strength (the least one of equals).

    Args:
        train: Moments of the training images.
        validation: Moments of the validation images.
        strengths: Candidates, as in :func:`fit_ridge`.
        scale: What each output's error is divided by, ``(n_outputs,)``, as in :func:`rmse_from_moments`.

    Raises:
        CurveError: If there is no strength, one is negative, or the moments differ in shape.
    """
    coef, intercept, squares = _candidates(train, validation, strengths)
    errors = _rmse(squares, scale)
    best = min(range(len(strengths)), key=lambda index: (errors[index], strengths[index]))
    return LinearModel(coef=coef[:, best], intercept=intercept[best]), float(strengths[best])


def tune_ridge_each(
    train: Moments, validation: Moments, strengths: Sequence[float] = STRENGTHS
) -> tuple[LinearModel, NDArray[np.float64]]:
    """Return one ridge regression for each output, each with the strength that suits it, and the strengths.

    Equals :func:`tune_ridge` on one output after the other; the strengths are ``(n_outputs,)``.

    Args:
        train: Moments of the training images.
        validation: Moments of the validation images.
        strengths: Candidates, as in :func:`fit_ridge`.

    Raises:
        CurveError: If there is no strength, one is negative, or the moments differ in shape.
    """
    coef, intercept, squares = _candidates(train, validation, strengths)
    order = np.argsort(strengths, kind="stable")
    best = order[squares[order].argmin(axis=0)]
    outputs = np.arange(train.n_outputs)
    model = LinearModel(coef=coef[:, best, outputs], intercept=intercept[best, outputs])
    return model, np.asarray(strengths, dtype=np.float64)[best]


def mean_squares(model: LinearModel, moments: Moments) -> NDArray[np.float64]:
    """Return each output's mean squared error ``(n_outputs,)`` on the images behind the moments."""
    return np.asarray(_mean_squares(model.coef[:, None, :], model.intercept[None, :], moments)[0])


def _candidates(
    train: Moments, validation: Moments, strengths: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return coefficients ``(p, k, m)``, intercepts and validation mean squares ``(k, m)`` at k strengths."""
    _check_strengths(strengths)
    check_same_shape(train, validation)
    live = np.flatnonzero(~train.dead_columns)
    gram, cross = train.standardised(live)
    solutions = _spectral_solutions(gram, cross, strengths)
    models = [_unstandardised(train, live, solutions[:, index]) for index in range(len(strengths))]
    coef = np.stack([model.coef for model in models], axis=1)
    intercept = np.stack([model.intercept for model in models])
    return coef, intercept, _mean_squares(coef, intercept, validation)


def rmse_from_moments(model: LinearModel, moments: Moments, scale: NDArray[np.float64] | None) -> float:
    """Return a model's RMSE on the images behind the moments, as if it had predicted each of them.

    Args:
        model: A model of the same columns and outputs.
        moments: Moments of the images.
        scale: What each output's error is divided by, ``(n_outputs,)``, usually its training standard deviation; an
            output whose scale is 0 (constant in training) is left undivided. ``None`` divides nothing.

    Returns:
        The root of the mean over images and outputs of the squared error. Rounding limits it to about 1e-8 of the
        targets' spread from below, where a fit is perfect.

    Raises:
        CurveError: If model, moments and scale do not fit each other.
    """
    if model.coef.shape != moments.xy.shape:
        raise CurveError(f"a model of shape {model.coef.shape} for moments of shape {moments.xy.shape}")
    return float(rmse_of_models(model.coef[:, None, :], model.intercept[None, :], moments, scale)[0])


def rmse_of_models(
    coef: NDArray[np.float64], intercept: NDArray[np.float64], moments: Moments, scale: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the RMSE ``(k,)`` of k models on the images behind the moments, as :func:`rmse_from_moments` does.

    Args:
        coef: ``(n_columns, k, n_outputs)``.
        intercept: ``(k, n_outputs)``.
        moments: Moments of the images.
        scale: What each output's error is divided by.
    """
    return _rmse(_mean_squares(coef, intercept, moments), scale)


def check_same_shape(train: Moments, validation: Moments) -> None:
    """Raise :class:`CurveError` if two splits' moments differ in columns or outputs."""
    if train.xy.shape != validation.xy.shape:
        raise CurveError(
            f"training moments have {train.n_columns} columns and {train.n_outputs} outputs, "
            f"validation moments {validation.n_columns} and {validation.n_outputs}"
        )


def output_weights(scale: NDArray[np.float64] | None, n_outputs: int) -> NDArray[np.float64]:
    """Return what each output's mean squared error is multiplied by, ``(n_outputs,)``.

    Raises:
        CurveError: If the scale has another length or is negative or not finite.
    """
    if scale is None:
        return np.ones(n_outputs)
    scale = np.asarray(scale, dtype=np.float64)
    if scale.shape != (n_outputs,) or not np.isfinite(scale).all() or (scale < 0).any():
        raise CurveError(f"scale {scale.tolist()}: {n_outputs} finite numbers, none negative, are needed")
    return np.asarray(1 / np.where(scale > 0, scale, 1.0) ** 2)


def _rmse(squares: NDArray[np.float64], scale: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return the RMSE over outputs ``(k,)`` of mean squared errors ``(k, n_outputs)``."""
    return np.asarray(np.sqrt((squares * output_weights(scale, squares.shape[1])).mean(axis=1)))


def _mean_squares(coef: NDArray[np.float64], intercept: NDArray[np.float64], moments: Moments) -> NDArray[np.float64]:
    """Return mean squared errors ``(k, m)`` of k models with coefficients ``(p, k, m)`` and intercepts ``(k, m)``."""
    p, k, m = coef.shape
    image = (moments.xx @ coef.reshape(p, k * m)).reshape(p, k, m)
    spread = np.diagonal(moments.yy) + np.einsum("pkm,pkm->km", coef, image - 2 * moments.xy[:, None, :])
    shift = moments.mean_y - np.einsum("p,pkm->km", moments.mean_x, coef) - intercept
    return np.asarray(np.maximum(spread, 0) / moments.n + shift**2)


def _cholesky_solution(
    gram: NDArray[np.float64], cross: NDArray[np.float64], strength: float
) -> NDArray[np.float64] | None:
    """Return the solution ``(k, m)`` where the penalised Gram is well conditioned, else ``None``."""
    if not len(gram):
        return np.zeros_like(cross)
    matrix = np.array(gram.T, order="F")
    matrix[np.diag_indices_from(matrix)] += strength
    norm = float(np.abs(matrix).sum(axis=0).max())
    factor, failed = lapack.dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
    if failed or lapack.dpocon(factor, norm, uplo="L")[0] < RANK_TOLERANCE:
        return None
    return np.asarray(lapack.dpotrs(factor, cross, lower=1)[0])


def _spectral_solutions(
    gram: NDArray[np.float64], cross: NDArray[np.float64], strengths: Sequence[float]
) -> NDArray[np.float64]:
    """Return the minimum-norm solutions ``(k, n_strengths, m)`` from one eigendecomposition."""
    if not len(gram):
        return np.zeros((0, len(strengths), cross.shape[1]))
    values, vectors = eigh(gram, driver="evd")
    inside = values > RANK_TOLERANCE * values[-1]
    inverse = np.stack([np.where(inside, 1 / (np.where(inside, values, 1) + s), 0) for s in strengths], axis=1)
    rotated = inverse[:, :, None] * (vectors.T @ cross)[:, None, :]
    return np.asarray((vectors @ rotated.reshape(len(gram), -1)).reshape(rotated.shape))


def _unstandardised(train: Moments, live: NDArray[np.intp], solution: NDArray[np.float64]) -> LinearModel:
    """Return the model of all columns from the solution ``(k, m)`` for the standardised live ones."""
    coef = np.zeros((train.n_columns, train.n_outputs))
    coef[live] = solution / train.std_x[live, None]
    return LinearModel(coef=coef, intercept=train.mean_y - train.mean_x @ coef)


def _check_strengths(strengths: Sequence[float]) -> None:
    """Raise where a ridge strength is missing, negative or not finite."""
    if not len(strengths) or not np.isfinite(strengths).all() or min(strengths) < 0:
        raise CurveError(f"ridge strengths {list(strengths)}: at least one finite number, none negative, is needed")
