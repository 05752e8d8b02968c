"""The kinds of satellite task: what is regressed, how it is decided, how it is measured.

One class a kind, found by name in :data:`KINDS`. *Predictions* have the shape and unit of the targets; a *decision* is
what is learned on validation (a binary task's threshold).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from facetask import metrics
from facetask.errors import ConfigError, CurveError
from facetask.moments import Moments
from facetask.regression import LinearModel, fit_ridge, tune_ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.records import Flip, Kind, Labels

    Array = NDArray[np.float64]

Decision = dict[str, float]
Loss = Literal["smooth-l1", "mse", "cross-entropy"]
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
GENTLE = 10.0  # ridge strength of the head from which training starts


@dataclass(frozen=True)
class TaskSpec:
    """What a task predicts, without its labels: all that a saved model needs to know.

    Attributes:
        name: The task's name in results.
        kind: Its kind.
        unit: Unit of continuous and binned values.
        classes: Names of the classes or bins.
        edges: Inner bin edges for each output.
        flip: What a mirrored image's label is.
    """

    name: str
    kind: Kind
    unit: str = ""
    classes: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    flip: Flip = "keep"

    @classmethod
    def of(cls, labels: Labels, name: str) -> TaskSpec:
        """Return the description of some labels."""
        return cls(name, labels.kind, labels.unit, labels.classes, labels.edges, labels.flip)

    def behaviour(self) -> TaskKind:
        """Return how a task of this kind behaves."""
        return KINDS[self.kind](self)


class TaskKind:
    """A task whose values are regressed as they are; the other kinds say where they differ."""

    main_metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False
    loss: ClassVar[Loss] = "smooth-l1"

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    def targets(self, values: Array) -> Array:
        """Return what the regression fits, ``(n, n_outputs)``, from label values; missing rows stay NaN."""
        return values

    def scale(self, train: Array) -> Array:
        """Return what divides each output's error, ``(n_outputs,)``: ones for one output, else the training std."""
        return np.ones(1) if train.shape[1] == 1 else spread(train)

    def unit(self, n_outputs: int) -> str:
        """Return the unit of the RMSE."""
        return self.spec.unit if n_outputs == 1 else "standard deviations"

    def choose_loss(self, wanted: Loss | Literal["auto"]) -> Loss:
        """Return the loss to finetune with: the kind's own, or the wanted one.

        Raises:
            ConfigError: If it does not fit: cross-entropy is for nominal tasks, and they have no other.
        """
        if wanted == "auto":
            return self.loss
        if (wanted == "cross-entropy") != (self.loss == "cross-entropy"):
            raise ConfigError(
                f"finetune.loss: {wanted!r} does not fit the {self.spec.kind} task {self.spec.name!r}; use auto"
            )
        return wanted

    def fit_head(self, x_train: Array, y_train: Array, x_validation: Array, y_validation: Array) -> LinearModel:
        """Fit the head's linear layer on responses ``(n, n_filters)`` and targets ``(n, n_outputs)``."""
        model, _ = tune_ridge(Moments.from_arrays(x_train, y_train), Moments.from_arrays(x_validation, y_validation))
        return model

    def gentle_head(self, x_train: Array, y_train: Array, fitted: LinearModel) -> LinearModel:
        """Return the head from which training starts.

        The fitted head sets large coefficients of nearly equal filters against each other; the slightest change below
        then throws its outputs far off. A strongly shrunk one points the same way and lets training go on steadily.
        """
        return fit_ridge(Moments.from_arrays(x_train, y_train), GENTLE)

    def activate(self, outputs: Array) -> Array:
        """Return predictions from the head's outputs, both ``(n, n_outputs)``."""
        return outputs

    def learn(self, predictions: Array, values: Array) -> Decision:
        """Learn on validation what turns predictions into decisions."""
        return {}

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure predictions ``(n, n_outputs)`` against label values ``(n, n_values)``."""
        return {
            "rmse": metrics.scaled_rmse(predictions, values, scale),
            "mae": metrics.mae(predictions, values),
            "r2": metrics.r2(predictions, values),
        }

    def baseline(self, train: Array, n: int) -> Array:
        """Return the trivial prediction, ``(n, n_outputs)``: the training mean."""
        return np.broadcast_to(train.mean(axis=0), (n, train.shape[1]))

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return one image's prediction ``(n_outputs,)`` for a reader: a value and what it is made of."""
        values = [float(value) for value in prediction]
        return {"value": values[0] if len(values) == 1 else values, "unit": self.spec.unit}


class Binary(TaskKind):
    """Regressed to 0 and 1; the threshold is learned on validation."""

    main_metric = "accuracy"
    higher_is_better = True
    loss: ClassVar[Loss] = "mse"

    def learn(self, predictions: Array, values: Array) -> Decision:
        """Learn the threshold of highest accuracy; among equals, the one nearest to the middle of the range."""
        score, positive = predictions[:, 0], values[:, 0] > 0.5
        order = np.argsort(score)
        ascending = score[order]
        # At cut i, the i lowest scores are called negative.
        right = np.concatenate([[0], np.cumsum(~positive[order])]) + np.concatenate(
            [np.cumsum(positive[order][::-1])[::-1], [0]]
        )
        between = np.concatenate([[ascending[0] - 1e-6], (ascending[1:] + ascending[:-1]) / 2, [ascending[-1] + 1e-6]])
        possible = np.concatenate([[True], ascending[1:] > ascending[:-1], [True]])
        best = np.flatnonzero(possible & (right == right[possible].max()))
        return {"threshold": float(between[best[np.abs(between[best] - 0.5).argmin()]])}

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure scores and decisions."""
        positive = values[:, 0] > 0.5
        decided = predictions[:, 0] > decision["threshold"]
        return {
            "accuracy": metrics.accuracy(decided, positive),
            "balanced_accuracy": metrics.balanced_accuracy(decided, positive),
            "auc": metrics.auc(predictions[:, 0], positive),
            "f1": metrics.f1(decided, positive),
            "rmse": metrics.scaled_rmse(predictions, values, scale),
        }

    def unit(self, n_outputs: int) -> str:
        """Return the unit of the RMSE: labels are 0 and 1."""
        return ""

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return the class and the score."""
        decided = bool(prediction[0] > decision["threshold"])
        return {"value": self.spec.classes[int(decided)], "score": float(prediction[0])}


class Binned(TaskKind):
    """Regressed as continuous values, then binned."""

    main_metric = "accuracy"
    higher_is_better = True

    def bins(self, values: Array) -> NDArray[np.intp]:
        """Return each row's bin for each output, ``(n, n_outputs)``; a value on an edge belongs to the bin above."""
        columns = [np.searchsorted(edges, values[:, i], side="right") for i, edges in enumerate(self.spec.edges)]
        return np.stack(columns, axis=1)

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure values, bins and bins within one of the right one."""
        found, true = self.bins(predictions), self.bins(values)
        return {
            "accuracy": metrics.accuracy((found == true).all(axis=1), np.ones(len(true), dtype=bool)),
            "within_one": float(np.mean((np.abs(found - true) <= 1).all(axis=1))),
            **super().metrics(predictions, values, decision, scale),
        }

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return the bin and the value that it was decided from."""
        index = np.ravel_multi_index(tuple(self.bins(prediction[None])[0]), [len(e) + 1 for e in self.spec.edges])
        raw = super().describe(prediction, decision)
        return {"value": self.spec.classes[int(index)], "regressed": raw["value"], "unit": raw["unit"]}


class Nominal(TaskKind):
    """Regressed to one-hot rows; the head is a multinomial logistic regression."""

    main_metric = "accuracy"
    higher_is_better = True
    loss: ClassVar[Loss] = "cross-entropy"

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

    def fit_head(self, x_train: Array, y_train: Array, x_validation: Array, y_validation: Array) -> LinearModel:
        """Fit a multinomial logistic regression, its penalty tuned on validation; outputs are logits.

        Raises:
            CurveError: If the training split has fewer than two classes.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        y, truth = y_train.argmax(axis=1), y_validation.argmax(axis=1)
        present = np.unique(y)
        if len(present) < 2:
            raise CurveError(f"task {self.spec.name!r}: the training split has one class only; nothing to learn")
        centre, unit = x_train.mean(axis=0), spread(x_train)
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
            full = np.zeros((len(self.spec.classes), x_train.shape[1]))
            full[present] = coef / unit
            offset = np.full(len(self.spec.classes), intercept.min() - 10.0)  # a class never seen is never chosen
            offset[present] = intercept - (coef / unit) @ centre
            model = LinearModel(coef=full.T, intercept=offset)
            likelihood = self.activate(model.predict(x_validation))[np.arange(len(truth)), truth]
            candidates.append((-np.log(np.maximum(likelihood, 1e-12)).mean(), model))
        return min(candidates, key=lambda pair: pair[0])[1]

    def gentle_head(self, x_train: Array, y_train: Array, fitted: LinearModel) -> LinearModel:
        """Return the fitted head: its penalty keeps it gentle."""
        return fitted

    def activate(self, outputs: Array) -> Array:
        """Return probabilities from logits."""
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))

    def metrics(self, predictions: Array, values: Array, decision: Decision, scale: Array) -> dict[str, float]:
        """Measure the class of the highest output."""
        found, true = predictions.argmax(axis=1), values[:, 0].astype(int)
        return {
            "accuracy": metrics.accuracy(found, true),
            "balanced_accuracy": metrics.balanced_accuracy(found, true),
            "rmse": metrics.scaled_rmse(predictions, self.targets(values), scale),
        }

    def describe(self, prediction: Array, decision: Decision) -> dict[str, Any]:
        """Return the likeliest class and its probability."""
        best = int(prediction.argmax())
        return {"value": self.spec.classes[best], "score": float(prediction[best])}


def spread(values: Array) -> Array:
    """Return each column's standard deviation, ``(n_columns,)``; 1 where a column is constant, so as to divide by."""
    return np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), 1.0)


KINDS: dict[str, type[TaskKind]] = {
    "continuous": TaskKind,
    "binary": Binary,
    "binned": Binned,
    "nominal": Nominal,
}
