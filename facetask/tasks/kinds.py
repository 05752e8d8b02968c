"""The kinds of satellite task: what is regressed, how it is decided, how it is measured.

One class a kind, found by name in :data:`KINDS`. *Predictions* have the shape and unit of the targets; a *decision* is
what is learned on validation (a binary task's threshold). Values and targets are NaN where a label is missing: each
output is fitted, decided and measured where it is known.

Where a metric belongs to one of several outputs, its name says which: ``f1[goatee]``, ``mae[2]``; without brackets it
is that of all outputs together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from facetask.errors import CurveError
from facetask.statistics.multinomial import fit_multinomial, softmax
from facetask.statistics.regression import LinearModel
from facetask.tasks import metrics
from facetask.tasks.calibration import logistic_line, sigmoid
from facetask.tasks.task_kind import Decision, Loss, TaskKind
from facetask.tasks.thresholds import best_threshold, two_class_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from facetask.records import Flip, Kind, Labels
    from facetask.statistics.rows import Matrix

    Array = NDArray[np.float64]

MOST_CONFUSED = 50
"""Classes up to which a confusion matrix is kept."""
_MIRROR_SIGNS = {"keep": 1.0, "negate": -1.0}


@dataclass(frozen=True)
class TaskSpec:
    """What a task predicts, without its labels: all that a saved model needs to know.

    Attributes:
        name: The task's name in results.
        kind: Its kind.
        unit: Unit of continuous and binned values.
        classes: Names of the classes, bins or labels.
        edges: Inner bin edges for each output.
        flip: What a mirrored image's label is: one rule, or one for each output.
    """

    name: str
    kind: Kind
    unit: str = ""
    classes: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    flip: Flip | tuple[Flip, ...] = "keep"

    @classmethod
    def of(cls, labels: Labels, name: str) -> TaskSpec:
        """Return the description of some labels."""
        return cls(name, labels.kind, labels.unit, labels.classes, labels.edges, labels.flip)

    def mirror_signs(self) -> Array | None:
        """Return what a mirrored image's targets are multiplied by, ``(n_outputs,)`` or ``(1,)``; None: never."""
        rules = (self.flip,) if isinstance(self.flip, str) else self.flip
        return None if "never" in rules else np.array([_MIRROR_SIGNS[rule] for rule in rules])

    def behaviour(self) -> TaskKind:
        """Return how a task of this kind behaves."""
        return KINDS[self.kind](self)


class Binary(TaskKind):
    """Regressed to 0 and 1; the threshold is learned on validation."""

    main_metric = "accuracy"
    higher_is_better = True
    has_classes = True
    loss: ClassVar[Loss] = "mse"

    def learn(self, predictions: Array, values: Array) -> Decision:
        """Learn the threshold of highest accuracy; among equals, the one nearest to the middle of the range."""
        return {"threshold": best_threshold(predictions[:, 0], values[:, 0] > 0.5)}

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure scores and decisions."""
        return {
            **two_class_metrics(predictions[:, 0], values[:, 0] > 0.5, decision["threshold"]),
            "rmse": metrics.scaled_rmse(predictions, values, scale),
        }

    def confusion(self, predictions: Array, values: Array, decision: Decision) -> list[list[int]] | None:
        """Return how many images of either class (row) were taken for either class (column)."""
        found, true = predictions[:, 0] > decision["threshold"], values[:, 0] > 0.5
        return _counts(found.astype(np.intp), true.astype(np.intp), 2)

    def unit(self, n_outputs: int) -> str:
        """Return the unit of the RMSE: labels are 0 and 1."""
        return ""

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return the class and the score."""
        decided = bool(prediction[0] > decision["threshold"])
        return {"value": self.spec.classes[int(decided)], "score": float(prediction[0])}


class Multilabel(TaskKind):
    """Several labels, each regressed to 0 and 1 with a threshold of its own; the head's outputs are log-odds.

    It is judged by the mean AUC: where labels are rare, always saying no has a fine accuracy too.
    """

    main_metric = "auc"
    higher_is_better = True
    loss: ClassVar[Loss] = "partial-bce"

    def fit_head(self, x_train: Matrix, y_train: Array, x_validation: Matrix, y_validation: Array) -> LinearModel:
        """Fit each label's regression, and on validation the curve from its score to the log-odds of the label."""
        model = self.regression(x_train, y_train, x_validation, y_validation)
        held_out = model.predict(x_validation), y_validation
        return self._calibrated(model, held_out, (model.predict(x_train), y_train))

    def gentle_head(self, x_train: Matrix, y_train: Array, fitted: LinearModel) -> LinearModel:
        """Return strongly shrunk regressions, as log-odds; they hardly know the training images by heart."""
        model = super().gentle_head(x_train, y_train, fitted)
        return self._calibrated(model, (model.predict(x_train), y_train))

    def _calibrated(self, model: LinearModel, *measured: tuple[Array, Array]) -> LinearModel:
        """Return log-odds from scores: of scores and targets given, the first in which a label has both classes."""
        slope, offset = np.ones(len(model.intercept)), np.zeros(len(model.intercept))
        for label in range(len(model.intercept)):
            for scores, targets in measured:
                known = ~np.isnan(targets[:, label])
                positive = targets[known, label] > 0.5
                slope[label], offset[label] = logistic_line(scores[known, label], positive)
                if positive.any() and not positive.all():
                    break
        return LinearModel(coef=model.coef * slope, intercept=model.intercept * slope + offset)

    def activate(self, outputs: Array) -> Array:
        """Return probabilities from log-odds."""
        return sigmoid(outputs)

    def learn(self, predictions: Array, values: Array) -> Decision:
        """Learn each label's threshold where it is known, as a binary task does."""
        return {
            f"threshold[{name}]": best_threshold(score, positive)
            for name, score, positive in self._labels(predictions, values)
        }

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure each label where it is known, and the mean over the labels that have the metric."""
        each = {
            name: two_class_metrics(score, positive, decision[f"threshold[{name}]"])
            for name, score, positive in self._labels(predictions, values)
        }
        names = next(iter(each.values())).keys()
        return {
            **{name: _mean([found[name] for found in each.values()]) for name in names},
            "rmse": metrics.scaled_rmse(predictions, values, scale),
            **{f"{name}[{label}]": found[name] for name in names for label, found in each.items()},
        }

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return every label's value, 0 or 1, and its score."""
        scores = {name: float(score) for name, score in zip(self.spec.classes, prediction, strict=True)}
        values = {name: int(score > decision[f"threshold[{name}]"]) for name, score in scores.items()}
        return {"value": values, "score": scores}

    def _labels(self, predictions: Array, values: Array) -> Iterator[tuple[str, Array, NDArray[np.bool_]]]:
        """Yield each label's name, and the scores and truths of the images where it is known."""
        for label, name in enumerate(self.spec.classes):
            known = ~np.isnan(values[:, label])
            yield name, predictions[known, label], values[known, label] > 0.5


class Binned(TaskKind):
    """Regressed as continuous values, then binned."""

    main_metric = "accuracy"
    higher_is_better = True
    has_classes = True

    def bins(self, values: Array) -> NDArray[np.intp]:
        """Return each row's bin for each output, ``(n, n_outputs)``; a value on an edge belongs to the bin above."""
        columns = [np.searchsorted(edges, values[:, i], side="right") for i, edges in enumerate(self.spec.edges)]
        return np.stack(columns, axis=1)

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure bins and bins within one of the right one where all values are known, and the values."""
        whole = ~np.isnan(values).any(axis=1)
        found, true = self.bins(predictions[whole]), self.bins(values[whole])
        everyone = np.ones(len(true), dtype=bool)
        return {
            "accuracy": metrics.accuracy((found == true).all(axis=1), everyone),
            "within_one": metrics.accuracy((np.abs(found - true) <= 1).all(axis=1), everyone),
            **super().metrics(predictions, values, decision, scale),
        }

    def confusion(self, predictions: Array, values: Array, decision: Decision) -> list[list[int]] | None:
        """Return how many images of each bin (row) were taken for each bin (column), where all values are known."""
        whole = ~np.isnan(values).any(axis=1)
        return _counts(self._index(predictions[whole]), self._index(values[whole]), len(self.spec.classes))

    def _index(self, values: Array) -> NDArray[np.intp]:
        """Return the number of each row's bin among all bins, ``(n,)``."""
        shape = [len(edges) + 1 for edges in self.spec.edges]
        return np.asarray(np.ravel_multi_index(tuple(self.bins(values).T), shape))

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return the bin and the value that it was decided from."""
        raw = super().describe(prediction, decision)
        return {
            "value": self.spec.classes[int(self._index(prediction[None])[0])],
            "regressed": raw["value"],
            "unit": raw["unit"],
        }


class Nominal(TaskKind):
    """Regressed to one-hot rows; the head is a multinomial logistic regression."""

    main_metric = "accuracy"
    higher_is_better = True
    loss: ClassVar[Loss] = "cross-entropy"
    one_strength = True
    has_classes = True
    compared = ("accuracy", "balanced_accuracy")

    def targets(self, values: Array) -> Array:
        """Return one-hot rows, ``(n, n_classes)``."""
        targets = np.full((len(values), len(self.spec.classes)), np.nan)
        known = ~np.isnan(values[:, 0])
        targets[known] = np.eye(len(self.spec.classes))[values[known, 0].astype(int)]
        return targets

    def scale(self, train: Array) -> Array:
        """Return ones: one-hot outputs are undivided."""
        return np.ones(train.shape[1])

    def unit(self, n_outputs: int) -> str:
        """Return the unit of the RMSE: targets are 0 and 1."""
        return ""

    def fit_head(self, x_train: Matrix, y_train: Array, x_validation: Matrix, y_validation: Array) -> LinearModel:
        """Fit a multinomial logistic regression, its penalty tuned on validation; outputs are logits.

        Raises:
            CurveError: If the training split has fewer than two classes.
        """
        y, truth = y_train.argmax(axis=1), y_validation.argmax(axis=1)
        if len(np.unique(y)) < 2:
            raise CurveError(f"task {self.spec.name!r}: the training split has one class only; nothing to learn")
        return fit_multinomial(x_train, y, x_validation, truth, len(self.spec.classes))

    def gentle_head(self, x_train: Matrix, y_train: Array, fitted: LinearModel) -> LinearModel:
        """Return the fitted head: its penalty keeps it gentle."""
        return fitted

    def activate(self, outputs: Array) -> Array:
        """Return probabilities from logits."""
        return softmax(outputs)

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure the class of the highest output."""
        found, true = predictions.argmax(axis=1), values[:, 0].astype(int)
        return {
            "accuracy": metrics.accuracy(found, true),
            "balanced_accuracy": metrics.balanced_accuracy(found, true),
            "rmse": metrics.scaled_rmse(predictions, self.targets(values), scale),
        }

    def confusion(self, predictions: Array, values: Array, decision: Decision) -> list[list[int]] | None:
        """Return how many images of each class (row) were taken for each class (column)."""
        return _counts(predictions.argmax(axis=1), values[:, 0].astype(int), len(self.spec.classes))

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return the likeliest class and its probability."""
        best = int(prediction.argmax())
        return {"value": self.spec.classes[best], "score": float(prediction[best])}


def _mean(values: list[float]) -> float:
    """Return the mean of the numbers among some values; NaN where there is none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _counts(found: NDArray[np.intp], true: NDArray[np.intp], n_classes: int) -> list[list[int]] | None:
    """Return a confusion matrix as JSON values, None where it would be too large to read."""
    if n_classes > MOST_CONFUSED:
        return None
    counts: list[list[int]] = metrics.confusion(found, true, n_classes).tolist()
    return counts


KINDS: dict[str, type[TaskKind]] = {
    "continuous": TaskKind,
    "binary": Binary,
    "multilabel": Multilabel,
    "binned": Binned,
    "nominal": Nominal,
}
