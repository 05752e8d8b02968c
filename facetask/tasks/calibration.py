"""From a regression's score to a probability: a logistic curve with two parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 100
LEAST_SLOPE = 1e-3


def logistic_line(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and offset of the log-odds of being positive as a line over a score.

    The likelihood is that of slightly softened labels, so that scores that separate the classes do not give an endless
    slope. A slope is never below a thousandth per standard deviation of the score: the order of the scores stays.

    Args:
        score: ``(n,)``, in any unit.
        positive: ``(n,)``.

    Source: Platt 1999, "Probabilistic outputs for support vector machines", sec. 2.2.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    centre, unit = float(score.mean()), float(score.std()) or 1.0
    columns = np.stack([(score - centre) / unit, np.ones(len(score))], axis=1)
    line = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])
    loss = _loss(columns @ line, target)
    for _ in range(STEPS):
        probability = sigmoid(columns @ line)
        gradient = columns.T @ (probability - target)
        curvature = (columns * (probability * (1 - probability))[:, None]).T @ columns + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while (tried := _loss(columns @ (line - step), target)) > loss:
            step /= 2
            if np.abs(step).max() < 1e-12:
                break
        line, gained, loss = line - step, loss - tried, tried
        if gained <= 1e-12 * len(score):
            break
    slope, offset = max(float(line[0]), LEAST_SLOPE), float(line[1])
    return slope / unit, offset - slope * centre / unit


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities from log-odds of any size."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))


def _loss(logits: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Return the sum of cross-entropies."""
    return float(np.sum(np.logaddexp(0.0, logits) - target * logits))
