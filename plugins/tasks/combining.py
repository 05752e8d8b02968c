"""One number or class out of several: weighted mean, weighted median, weighted majority."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Combined = tuple[Array, Array]


def weighted_mean(values: Array, weights: Array) -> Array:
    """Return each row's weighted mean, ``(n,)``, of the values that are no NaN; NaN where nothing has a weight."""
    weight = np.where(np.isnan(values), 0.0, weights)
    total = weight.sum(axis=1)
    summed = (np.nan_to_num(values) * weight).sum(axis=1)
    return np.asarray(np.divide(summed, total, out=np.full(len(values), np.nan), where=total > 0))


def weighted_median(values: Array, weights: Array) -> Array:
    """Return each row's weighted median, ``(n,)``, of the values that are no NaN; NaN where nothing has a weight.

    It lies halfway between two values with half of the weight on either side.
    """
    weight = np.where(np.isnan(values), 0.0, weights)
    order = np.argsort(np.where(weight > 0, values, np.inf), axis=1)
    ordered, below = np.take_along_axis(values, order, axis=1), np.take_along_axis(weight, order, axis=1).cumsum(axis=1)
    half = below[:, -1:] / 2
    slack = 1e-12 * below[:, -1:]
    low = (below < half - slack).sum(axis=1)
    high = np.minimum((below <= half + slack).sum(axis=1), values.shape[1] - 1)
    rows = np.arange(len(values))
    return np.where(below[:, -1] > 0, (ordered[rows, low] + ordered[rows, high]) / 2, np.nan)


def majority(votes: NDArray[np.intp], weights: Array, full: Array) -> Combined:
    """Return each image's class with the most weight, and that weight's share, both ``(n,)``, NaN without a vote.

    Args:
        votes: Each source's class, ``(n, n_sources)``, −1 where it has none. A tie goes to the first source.
        weights: How much each vote counts, ``(n, n_sources)``.
        full: How much a vote of full confidence counts, ``(n_sources,)``.
    """
    known = votes >= 0
    weight = np.where(known, weights, 0.0)
    behind = np.stack([(weight * (votes == votes[:, [k]])).sum(axis=1) for k in range(votes.shape[1])], axis=1)
    behind = np.where(known, behind.round(12), -1.0)  # rounded, so that 0.1 + 0.2 ties with 0.3
    best, rows = behind.argmax(axis=1), np.arange(len(votes))
    possible = (known * full).sum(axis=1)
    share = np.divide(behind[rows, best], possible, out=np.full(len(votes), np.nan), where=possible > 0)
    return np.where(known.any(axis=1), votes[rows, best].astype(np.float64), np.nan), np.minimum(share, 1.0)
