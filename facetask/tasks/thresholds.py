"""From scores to yes or no: a threshold learned on validation, and what its decisions are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facetask.tasks import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def best_threshold(score: Array, positive: NDArray[np.bool_]) -> float:
    """Return the threshold of highest accuracy; among equals, the one nearest to a half.

    Args:
        score: ``(n,)``, at least one.
        positive: ``(n,)``.
    """
    order = np.argsort(score)
    ascending = score[order]
    # At cut i, the i lowest scores are called negative.
    right = np.concatenate([[0], np.cumsum(~positive[order])]) + np.concatenate(
        [np.cumsum(positive[order][::-1])[::-1], [0]]
    )
    between = np.concatenate([[ascending[0] - 1e-6], (ascending[1:] + ascending[:-1]) / 2, [ascending[-1] + 1e-6]])
    possible = np.concatenate([[True], ascending[1:] > ascending[:-1], [True]])
    best = np.flatnonzero(possible & (right == right[possible].max()))
    return float(between[best[np.abs(between[best] - 0.5).argmin()]])


def two_class_metrics(score: Array, positive: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Return the metrics of scores ``(n,)`` and of the decisions at a threshold."""
    decided = score > threshold
    return {
        "accuracy": metrics.accuracy(decided, positive),
        "balanced_accuracy": metrics.balanced_accuracy(decided, positive),
        "auc": metrics.auc(score, positive),
        "f1": metrics.f1(decided, positive),
    }
