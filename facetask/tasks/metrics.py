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
        true: ``(n, n_outputs)``, NaN where missing: each output is measured where it is known.
        scale: ``(n_outputs,)``; ones leave the label's unit.
    """
    return float(np.sqrt(_mean_of_known(((predicted - true) / scale) ** 2, true)))


def mae(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the mean absolute error in the label's unit, averaged over outputs; each where it is known."""
    return _mean_of_known(np.abs(predicted - true), true)


def r2(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the coefficient of determination, averaged over outputs; NaN where a label does not vary.

    Each output is measured where it is known.
    """
    found = []
    for output, known in enumerate(~np.isnan(true.T)):
        value = true[known, output]
        varies = len(value) > 0 and np.ptp(value) > 0  # a constant's total is not always 0: its mean is rounded
        total = ((value - value.mean()) ** 2).sum() if varies else np.nan
        found.append(1 - ((predicted[known, output] - value) ** 2).sum() / total)
    return float(np.mean(found))


def accuracy(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    """Return the share of equal entries; NaN where there is none."""
    return float(np.mean(predicted == true)) if len(true) else float("nan")


def balanced_accuracy(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    """Return the mean over the classes that occur of the share recognised; NaN where there is none."""
    if not len(true):
        return float("nan")
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


def confusion(predicted: NDArray[np.intp], true: NDArray[np.intp], n_classes: int) -> NDArray[np.intp]:
    """Return how many images of each class (row) were taken for each class (column), ``(n_classes, n_classes)``."""
    return np.bincount(true * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def _mean_of_known(errors: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the mean over outputs of each one's mean over the rows where it is known; NaN where none is."""
    known = ~np.isnan(true)
    counts = known.sum(axis=0)
    sums = np.where(known, errors, 0.0).sum(axis=0)
    return float(np.mean(sums[counts > 0] / counts[counts > 0])) if counts.any() else float("nan")
