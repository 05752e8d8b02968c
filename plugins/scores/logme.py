"""LogME: the logarithm of the maximum evidence of a linear model of the labels, per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh

from facetask import CurveError, Params, Score, ScoreProblem, hookimpl
from facetask.plugins.scores.labellings import labellings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RANK_TOLERANCE = 1e-12
REACH = 1e12  # the ratio α/β is sought within this factor of the largest eigenvalue
PRECISION = 1e-8
MOST_STEPS = 1000


def logme(problem: ScoreProblem, params: Params) -> float:
    """Return the mean over outputs of the log evidence per image, its two precisions at their best.

    The model is y ~ N(Fw, β⁻¹I) with w ~ N(0, α⁻¹I), without intercept, as published. Numbers (continuous, binned) are
    taken as they are; of every other task each class is an output against the rest.

    Raises:
        CurveError: If a response is not finite.

    Source: You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", arXiv
        2102.11005; the fixed point in the ratio α/β is that of You et al. 2022, JMLR 23.
    """
    if not np.isfinite(problem.responses).all():
        raise CurveError("logme: a response is not finite; the network's weights or its preprocessing are wrong")
    numbers = problem.kind in ("continuous", "binned")
    found: list[float] = []
    for responses, outputs in _numbers(problem) if numbers else _classes(problem):
        found += _evidence(responses, outputs).tolist()
    return float(np.mean(found)) if found else float("nan")


def _numbers(problem: ScoreProblem) -> Iterator[tuple[Array, Array]]:
    """Yield the responses and targets ``(n, n_outputs)`` of outputs that are known on the same images."""
    known = ~np.isnan(problem.targets)
    if known.all():
        yield problem.responses, problem.targets
        return
    for output, rows in enumerate(known.T):
        yield problem.responses[rows], problem.targets[rows, output : output + 1]


def _classes(problem: ScoreProblem) -> Iterator[tuple[Array, Array]]:
    """Yield the responses and one-hot rows of every labelling."""
    for responses, classes in labellings(problem):
        yield responses, np.eye(classes.max() + 1)[classes]


def _evidence(f: Array, y: Array) -> Array:
    """Return each output's maximum log evidence per image, ``(n_outputs,)``."""
    values, vectors = eigh(f.T @ f, driver="evd")
    inside = values > RANK_TOLERANCE * max(float(values[-1]), np.finfo(float).tiny)
    values, projected = values[inside], (vectors[:, inside].T @ (f.T @ y)) ** 2
    squares = (y**2).sum(axis=0)
    return np.array([_max_evidence(values, projected[:, k], float(squares[k]), len(y)) for k in range(y.shape[1])])


def _max_evidence(values: Array, projected: Array, square: float, n: int) -> float:
    """Return the largest log evidence per image of one output y.

    Args:
        values: Eigenvalues of FᵀF, all positive, ``(rank,)``.
        projected: Squared products of Fᵀy with the eigenvectors, ``(rank,)``.
        square: yᵀy.
        n: Number of images.
    """
    explained = projected / values
    outside = max(square - float(explained.sum()), 0.0)  # what no coefficients can explain
    largest = float(values[-1]) if len(values) else 1.0
    lowest, highest = largest / REACH, largest * REACH
    ratio = min(max(1.0, lowest), highest)
    for _ in range(MOST_STEPS):
        freedom = float((values / (values + ratio)).sum())
        weight = float((projected / (values + ratio) ** 2).sum())
        error = outside + float((explained * (ratio / (values + ratio)) ** 2).sum())
        wanted = freedom * error / (weight * (n - freedom)) if weight > 0 and n > freedom else highest
        before, ratio = ratio, min(max(wanted, lowest), highest)
        if abs(np.log(ratio / before)) < PRECISION:
            break
    # At a given ratio the best β is n / yᵀ(I + FFᵀ/ratio)⁻¹y, which leaves the evidence as a function of the ratio.
    misfit = outside + float((explained * ratio / (values + ratio)).sum())
    determinant = float(np.log1p(values / ratio).sum())
    return (np.log(n / misfit) - np.log(2 * np.pi) - 1) / 2 - determinant / (2 * n) if misfit > 0 else float("nan")


@hookimpl
def facetask_scores() -> list[Score]:
    """Return LogME."""
    return [Score(name="logme", score=logme)]
