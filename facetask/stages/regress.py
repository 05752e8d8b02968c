"""Stage 1: a linear regression of the task on every tap's responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facetask.networks.heads import Predicted, fit_head
from facetask.statistics.known import known_together, tune_known
from facetask.statistics.rows import Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facetask.data.splits import Split
    from facetask.responses import Responses
    from facetask.statistics.rows import Matrix
    from facetask.tasks.satellite import Satellite
    from facetask.tasks.task_kind import Decision


@dataclass(frozen=True)
class TapFit:
    """One tap's regression.

    Attributes:
        tap: The tap.
        n_filters: How many filters it has.
        strengths: The ridge strength that validation chose for each output; 0 is least squares.
        validation_rmse: Its RMSE on validation.
        metrics: Its metrics on test.
        dead: Whether all of its filters are dead: it tells nothing, and its regression is the training mean.
    """

    tap: str
    n_filters: int
    strengths: tuple[float, ...]
    validation_rmse: float
    metrics: dict[str, float]
    dead: bool = False


@dataclass(frozen=True)
class Regression:
    """What every tap knows of the task in one trial.

    Attributes:
        taps: In network order.
        best_tap: The tap of lowest validation RMSE; a dead one only where all are.
        baseline: Test metrics of the trivial prediction.
        predicted: Predictions on test from the best tap: of the final classifier, where that is another model.
        classifier: Test metrics of the final classifier on the best tap, for kinds whose head is another model than the
            regression (nominal).
        confusion: Test images of each class (row) taken for each class (column) on the best tap, for kinds that have
            classes.
    """

    taps: tuple[TapFit, ...]
    best_tap: str
    baseline: dict[str, float]
    predicted: Predicted
    classifier: dict[str, float] | None = None
    confusion: list[list[int]] | None = None

    def fit_of(self, tap: str) -> TapFit:
        """Return one tap's regression."""
        return next(fit for fit in self.taps if fit.tap == tap)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Regression:
        """Return the regression that :func:`dataclasses.asdict` made into JSON."""
        taps = tuple(TapFit(**{**tap, "strengths": tuple(tap["strengths"])}) for tap in fields["taps"])
        return cls(**{**fields, "taps": taps, "predicted": Predicted(**fields["predicted"])})


def regress(responses: Responses, task: Satellite, split: Split) -> Regression:
    """Regress the task on every tap; the best tap is chosen on validation, metrics are taken on test."""
    _, scale = scaled_targets(task, split)
    fits: list[TapFit] = []
    best, predicted = None, None
    for tap in responses.columns:
        fit, found = _fit(tap, responses.tap(tap), task, split)
        fits.append(fit)
        if best is None or (fit.dead, fit.validation_rmse) < (best.dead, best.validation_rmse):
            best, predicted = fit, found
    assert best is not None  # a network has a tap
    assert predicted is not None
    kind = task.kind
    trivial = [kind.baseline(task.targets[split.train], len(part)) for part in (split.validation, split.test)]
    decision = kind.learn(trivial[0], task.values[split.validation])
    baseline = kind.metrics(trivial[1], task.values[split.test], decision, scale)
    classifier, confusion = None, None
    if kind.has_classes:
        head = fit_head(responses.tap(best.tap), task, split)
        confusion = head.confusion
        if kind.compared:
            classifier, predicted = head.metrics, head.predicted
    return Regression(tuple(fits), best.tap, baseline, predicted, classifier, confusion)


def scaled_targets(task: Satellite, split: Split) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return targets divided by each output's scale, ``(n_images, n_outputs)``, and the scale, ``(n_outputs,)``."""
    targets = task.targets
    scale = task.kind.scale(targets[split.train])
    return targets / scale, scale


def fit_tap(tap: str, x: Matrix, task: Satellite, split: Split) -> TapFit:
    """Regress the task on one tap.

    Args:
        tap: The tap.
        x: Responses of all images to its filters, or to some of them, ``(n_images, n_filters)``; they are read in
            blocks of rows.
        task: The satellite task.
        split: The trial's partition.
    """
    return _fit(tap, x, task, split)[0]


def _fit(tap: str, x: Matrix, task: Satellite, split: Split) -> tuple[TapFit, Predicted]:
    """Return one tap's regression and its predictions on test."""
    y, scale = scaled_targets(task, split)
    train, validation, responses = split.train, split.validation, Rows.of(x)
    parts = known_together(responses[train], y[train], responses[validation], y[validation])
    tuned = tune_known(parts, together=task.kind.one_strength)
    kind = task.kind
    decision: Decision = kind.learn(tuned.model.predict(responses[validation]) * scale, task.values[validation])
    predicted = tuned.model.predict(responses[split.test]) * scale
    fit = TapFit(
        tap=tap,
        n_filters=x.shape[1],
        strengths=tuple(tuned.strengths.tolist()),
        validation_rmse=tuned.validation_rmse,
        metrics=kind.metrics(predicted, task.values[split.test], decision, scale),
        dead=all(part.train.dead_columns.all() for part in parts),
    )
    return fit, Predicted.of(predicted, decision)
