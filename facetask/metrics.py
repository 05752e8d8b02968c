"""Metrics on a split: plain functions of predictions and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def scaled_rmse(predicted: NDArray[np.float64], true: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
    """Return the root mean over outputs of the mean squared error, each output divided by its scale.

    Args:
        predicted: ``(n, n_outputs)``.
        true: ``(n, n_outputs)``.
        scale: ``(n_outputs,)``; ones leave the label's unit.
    """
    return float(np.sqrt(np.mean(((predicted - true) / scale) ** 2)))


def mae(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the mean absolute error in the label's unit, over all outputs."""
    return float(np.mean(np.abs(predicted - true)))


def r2(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the coefficient of determination, averaged over outputs; NaN where a label does not vary."""
    residual = ((predicted - true) ** 2).sum(axis=0)
    total = ((true - true.mean(axis=0)) ** 2).sum(axis=0)
    varies = np.ptp(true, axis=0) > 0  # a constant's total is not always 0: its mean is rounded
    return float(np.mean(1 - residual / np.where(varies, total, np.nan)))


def accuracy(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    """Return the share of equal entries."""
    return float(np.mean(predicted == true))


def balanced_accuracy(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    """Return the mean over the classes that occur of the share recognised."""
    return float(np.mean([np.mean(predicted[true == value] == value) for value in np.unique(true)]))


def auc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve, by ranks; NaN where one class is absent."""
    from scipy.stats import rankdata

    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = rankdata(score)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def f1(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Return the harmonic mean of precision and recall of the positive class; 0 where nothing is found."""
    hits = np.sum(predicted & true)
    return float(2 * hits / max(1, predicted.sum() + true.sum()))
