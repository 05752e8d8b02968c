"""Multinomial logistic regression: the final classifier of nominal tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facetask.statistics.moments import Moments
from facetask.statistics.regression import LinearModel
from facetask.statistics.rows import Rows, block_height

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from facetask.statistics.rows import Matrix

    Array = NDArray[np.float64]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
STEPS = 300
LEAST_GRADIENT = 1e-3
MOST_ENTRIES_IN_MEMORY = 2**24


def fit_multinomial(
    x_train: Matrix, y: NDArray[np.intp], x_validation: Matrix, truth: NDArray[np.intp], n_classes: int
) -> LinearModel:
    """Return the logits of the classes as a linear function of responses, the penalty tuned on validation.

    Minimises the mean cross-entropy plus half the penalty times ``‖β‖²``, β being the coefficients of the standardised
    responses; the penalty with the highest validation likelihood is taken. A class that training lacks is never the
    likeliest. A fit that is not finished after some hundred steps is used as it is: validation judges it as well.

    Args:
        x_train: Responses, ``(n, n_filters)``; they are read in blocks of rows, many times over.
        y: Their classes, ``(n,)``, at least two different ones.
        x_validation: Responses of the validation images.
        truth: Their classes.
        n_classes: How many classes there are.
    """
    from scipy.optimize import minimize

    present, number = np.unique(y, return_inverse=True)
    loss = _CrossEntropy(x_train, number, len(present))
    candidates = []
    for penalty in PENALTIES:
        found = minimize(
            loss,
            np.zeros((x_train.shape[1] + 1) * loss.n_free),
            (penalty,),
            method="L-BFGS-B",
            jac=True,
            options={"maxiter": STEPS, "maxls": 50, "gtol": LEAST_GRADIENT, "ftol": 64 * np.finfo(float).eps},
        )
        coef, intercept = loss.classes(found.x)
        full = np.zeros((x_train.shape[1], n_classes))
        full[:, present] = coef / loss.unit[:, None]
        offset = np.full(n_classes, intercept.min() - 10.0)  # a class never seen is never chosen
        offset[present] = intercept - loss.centre @ full[:, present]
        model = LinearModel(coef=full, intercept=offset)
        likelihood = softmax(model.predict(x_validation))[np.arange(len(truth)), truth]
        candidates.append((-np.log(np.maximum(likelihood, 1e-12)).mean(), model))
    return min(candidates, key=lambda pair: pair[0])[1]


class _CrossEntropy:
    """The mean cross-entropy of classes over standardised responses, a sum over blocks of rows.

    Two classes need one vector of coefficients: the logit of the first is 0 while fitting.
    """

    def __init__(self, x: Matrix, y: NDArray[np.intp], n_classes: int) -> None:
        seen = Moments.from_arrays(x, np.zeros((len(x), 0)))
        self.centre, self.unit = seen.mean_x, np.where(seen.dead_columns, 1.0, seen.std_x)
        self._x, self._y, self._n_classes = Rows.of(x), y, n_classes
        self.n_free = 1 if n_classes == 2 else n_classes
        n, width = self._x.shape
        self._kept = list(self._read()) if n * width <= MOST_ENTRIES_IN_MEMORY else None

    def __call__(self, flat: Array, penalty: float) -> tuple[float, Array]:
        """Return the penalised loss and its gradient, both of coefficients and intercepts as one vector."""
        theta = flat.reshape(-1, self.n_free)
        coef, intercept = theta[:-1], theta[-1]
        total, gradient = 0.0, np.zeros_like(theta)
        for rows, block in self._kept or self._read():
            logits = np.zeros((len(block), self._n_classes))
            logits[:, -self.n_free :] = block @ coef + intercept
            logits -= logits.max(axis=1, keepdims=True)
            true = np.arange(len(block)), self._y[rows]
            residual = np.exp(logits)
            sums = residual.sum(axis=1, keepdims=True)
            total += float(np.log(sums).sum() - logits[true].sum())
            residual /= sums
            residual[true] -= 1
            gradient[:-1] += block.T @ residual[:, -self.n_free :]
            gradient[-1] += residual[:, -self.n_free :].sum(axis=0)
        gradient /= len(self._y)
        gradient[:-1] += penalty * coef
        return total / len(self._y) + 0.5 * penalty * float((coef**2).sum()), gradient.ravel()

    def classes(self, flat: Array) -> tuple[Array, Array]:
        """Return the coefficients ``(n_filters, n_classes)`` and intercepts of the classes."""
        theta = flat.reshape(-1, self.n_free)
        if self.n_free == 1:
            theta = np.hstack([-theta / 2, theta / 2])
        return theta[:-1], theta[-1]

    def _read(self) -> Iterator[tuple[slice, Array]]:
        """Yield blocks of standardised responses."""
        for rows, block in self._x.blocks(block_height(self._x.shape[1] + self._n_classes)):
            yield rows, (block - self.centre) / self.unit


def softmax(logits: Array) -> Array:
    """Return probabilities ``(n, n_classes)`` from logits of any size."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
