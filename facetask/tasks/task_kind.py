"""What every kind of task does: values regressed as they are. Where the others differ, ``kinds`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from facetask.errors import ConfigError
from facetask.statistics.known import known_together, mean_of_known, ridge_of_known, spread_of_known, tune_known
from facetask.tasks import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.statistics.regression import LinearModel
    from facetask.statistics.rows import Matrix
    from facetask.tasks.kinds import TaskSpec

    Array = NDArray[np.float64]

Decision = dict[str, float]
Loss = Literal["smooth-l1", "mse", "cross-entropy", "partial-bce"]
LOSSES_ON_LOGITS = ("cross-entropy", "partial-bce")
GENTLE = 10.0  # ridge strength of the head from which training starts


class TaskKind:
    """A task whose values are regressed as they are; the other kinds say where they differ."""

    main_metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False
    loss: ClassVar[Loss] = "smooth-l1"
    one_strength: ClassVar[bool] = False
    """Whether all outputs' regressions share one ridge strength; else each output has its own."""
    compared: ClassVar[tuple[str, ...]] = ()
    """Metrics of the plain regression that are reported beside the head's, where the head is another model."""
    has_classes: ClassVar[bool] = False
    """Whether every image has one class, or bin, of several, so that a confusion matrix tells more."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    def targets(self, values: Array) -> Array:
        """Return what the regression fits, ``(n, n_outputs)``, from label values; missing rows stay NaN."""
        return values

    def scale(self, train: Array) -> Array:
        """Return what divides each output's error, ``(n_outputs,)``: ones for one output, else the training std."""
        return np.ones(1) if train.shape[1] == 1 else spread_of_known(train)

    def unit(self, n_outputs: int) -> str:
        """Return the unit of the RMSE."""
        return self.spec.unit if n_outputs == 1 else "standard deviations"

    def choose_loss(self, wanted: Loss | Literal["auto"]) -> Loss:
        """Return the loss to finetune with: the kind's own, or the wanted one.

        Raises:
            ConfigError: If it does not fit: cross-entropy is for nominal tasks and partial-bce for multilabel ones, and
                neither has another.
        """
        if wanted == "auto":
            return self.loss
        if wanted != self.loss and {wanted, self.loss} & set(LOSSES_ON_LOGITS):
            raise ConfigError(
                f"finetune.loss: {wanted!r} does not fit the {self.spec.kind} task {self.spec.name!r}; use auto"
            )
        return wanted

    def regression(self, x_train: Matrix, y_train: Array, x_validation: Matrix, y_validation: Array) -> LinearModel:
        """Return the plain regression of targets ``(n, n_outputs)`` on responses ``(n, n_filters)``."""
        parts = known_together(x_train, y_train, x_validation, y_validation)
        return tune_known(parts, together=self.one_strength).model

    def fit_head(self, x_train: Matrix, y_train: Array, x_validation: Matrix, y_validation: Array) -> LinearModel:
        """Fit the head's linear layer on responses ``(n, n_filters)`` and targets ``(n, n_outputs)``."""
        return self.regression(x_train, y_train, x_validation, y_validation)

    def gentle_head(self, x_train: Matrix, y_train: Array, fitted: LinearModel) -> LinearModel:
        """Return the head from which training starts.

        The fitted head sets large coefficients of nearly equal filters against each other; the slightest change below
        then throws its outputs far off. A strongly shrunk one points the same way and lets training go on steadily.
        """
        return ridge_of_known(x_train, y_train, GENTLE)

    def activate(self, outputs: Array) -> Array:
        """Return predictions from the head's outputs, both ``(n, n_outputs)``."""
        return outputs

    def learn(self, predictions: Array, values: Array) -> Decision:
        """Learn on validation what turns predictions into decisions."""
        return {}

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure predictions ``(n, n_outputs)`` against label values ``(n, n_values)``."""
        found = {
            "rmse": metrics.scaled_rmse(predictions, values, scale),
            "mae": metrics.mae(predictions, values),
            "r2": metrics.r2(predictions, values),
        }
        if values.shape[1] > 1:
            for output in range(values.shape[1]):
                column = slice(output, output + 1)
                found |= {
                    f"rmse[{output + 1}]": metrics.scaled_rmse(predictions[:, column], values[:, column], np.ones(1)),
                    f"mae[{output + 1}]": metrics.mae(predictions[:, column], values[:, column]),
                }
        return found

    def confusion(self, predictions: Array, values: Array, decision: Decision) -> list[list[int]] | None:
        """Return how many images of each class (row) were taken for each class (column); None without classes."""
        return None

    def baseline(self, train: Array, n: int) -> Array:
        """Return the trivial prediction, ``(n, n_outputs)``: the training mean."""
        return np.broadcast_to(mean_of_known(train), (n, train.shape[1]))

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return one image's prediction ``(n_outputs,)`` for a reader: a value and what it is made of."""
        values = [float(value) for value in prediction]
        return {"value": values[0] if len(values) == 1 else values, "unit": self.spec.unit}
