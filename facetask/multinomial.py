"""Multinomial logistic regression: the final classifier of nominal tasks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from facetask.known import spread_of_known
from facetask.regression import LinearModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


def fit_multinomial(
    x_train: Array, y: NDArray[np.intp], x_validation: Array, truth: NDArray[np.intp], n_classes: int
) -> LinearModel:
    """Return the logits of the classes as a linear function of responses, the penalty tuned on validation.

    Minimises the mean cross-entropy plus half the penalty times ``‖β‖²``, β being the coefficients of the standardised
    responses; the penalty with the highest validation likelihood is taken. A class that training lacks is never the
    likeliest.

    Args:
        x_train: Responses, ``(n, n_filters)``.
        y: Their classes, ``(n,)``, at least two different ones.
        x_validation: Responses of the validation images.
        truth: Their classes.
        n_classes: How many classes there are.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(y)
    centre, unit = x_train.mean(axis=0), spread_of_known(x_train)
    standardised = (x_train - centre) / unit
    candidates = []
    for penalty in PENALTIES:
        fitted = LogisticRegression(C=1 / (penalty * len(y)), max_iter=300, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # validation judges an unfinished fit as well
            fitted.fit(standardised, y)
        coef, intercept = fitted.coef_, fitted.intercept_
        if len(present) == 2:  # scikit-learn gives the second class's log-odds only
            coef, intercept = np.vstack([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
        full = np.zeros((n_classes, x_train.shape[1]))
        full[present] = coef / unit
        offset = np.full(n_classes, intercept.min() - 10.0)  # a class never seen is never chosen
        offset[present] = intercept - (coef / unit) @ centre
        model = LinearModel(coef=full.T, intercept=offset)
        likelihood = softmax(model.predict(x_validation))[np.arange(len(truth)), truth]
        candidates.append((-np.log(np.maximum(likelihood, 1e-12)).mean(), model))
    return min(candidates, key=lambda pair: pair[0])[1]


def softmax(logits: Array) -> Array:
    """Return probabilities ``(n, n_classes)`` from logits of any size."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
