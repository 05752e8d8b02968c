"""A head fitted on responses: its linear model, what is learned for its outputs, and what it is worth."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facetask.statistics.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.data.splits import Split
    from facetask.statistics.regression import LinearModel
    from facetask.statistics.rows import Matrix
    from facetask.tasks.satellite import Satellite
    from facetask.tasks.task_kind import Decision

LEAST_SQUARES = "_least_squares"
"""Ends the names of the plain regression's metrics beside those of a head that is another model."""


@dataclass(frozen=True)
class Predicted:
    """A model's predictions on the test split, kept so that its metrics on any part of it can be taken later.

    Attributes:
        decision: What was learned on validation for its outputs.
        packed: The predictions ``(n_test, n_outputs)`` row by row, as 64-bit numbers in base64: JSON loses no bit.
    """

    decision: Decision
    packed: str

    @classmethod
    def of(cls, predictions: NDArray[np.float64], decision: Decision) -> Predicted:
        """Return predictions ``(n_test, n_outputs)`` ready to be stored."""
        return cls(decision, b64encode(predictions.astype("<f8").tobytes()).decode("ascii"))

    def predictions(self, n_test: int) -> NDArray[np.float64]:
        """Return the predictions, ``(n_test, n_outputs)``."""
        return np.frombuffer(b64decode(self.packed), dtype="<f8").reshape(n_test, -1).astype(np.float64)


@dataclass(frozen=True)
class Head:
    """A head on the responses of one tap.

    Attributes:
        model: Its linear layer.
        gentle: The linear layer from which training starts.
        predicted: Its predictions on test, with what was learned on validation for its outputs.
        metrics: Its metrics on test.
        metrics_validation: Its metrics on validation.
        confusion: Its decisions on test: images of each class (row) taken for each class (column), for kinds that have
            classes.
    """

    model: LinearModel
    gentle: LinearModel
    predicted: Predicted
    metrics: dict[str, float]
    metrics_validation: dict[str, float]
    confusion: list[list[int]] | None


def fit_head(x: Matrix, task: Satellite, split: Split) -> Head:
    """Fit a head on training, decide on validation and measure on test.

    Args:
        x: Responses of all images, ``(n_images, n_filters)``; they are read in blocks of rows.
        task: The satellite task.
        split: The trial's partition.
    """
    kind, targets, values = task.kind, task.targets, task.values
    scale = kind.scale(targets[split.train])
    responses = Rows.of(x)
    x_train, x_validation, x_test = (responses[rows] for rows in (split.train, split.validation, split.test))
    y_train, y_validation = targets[split.train], targets[split.validation]
    model = kind.fit_head(x_train, y_train, x_validation, y_validation)
    gentle = kind.gentle_head(x_train, y_train, model)
    validation, test = (kind.activate(model.predict(part)) for part in (x_validation, x_test))
    decision = kind.learn(validation, values[split.validation])
    found = kind.metrics(test, values[split.test], decision, scale)
    if kind.compared:
        plain = kind.regression(x_train, y_train, x_validation, y_validation)
        learned = kind.learn(plain.predict(x_validation), values[split.validation])
        beside = kind.metrics(plain.predict(x_test), values[split.test], learned, scale)
        found |= {name + LEAST_SQUARES: beside[name] for name in kind.compared}
    return Head(
        model=model,
        gentle=gentle,
        predicted=Predicted.of(test, decision),
        metrics=found,
        metrics_validation=kind.metrics(validation, values[split.validation], decision, scale),
        confusion=kind.confusion(test, values[split.test], decision),
    )
