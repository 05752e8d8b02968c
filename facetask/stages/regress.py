"""Stage 1: a linear regression of the task on every tap's responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.moments import Moments
from facetask.regression import rmse_from_moments, tune_ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.kinds import Decision
    from facetask.responses import Responses
    from facetask.satellite import Satellite
    from facetask.splits import Split


@dataclass(frozen=True)
class TapFit:
    """One tap's regression.

    Attributes:
        tap: The tap.
        n_filters: How many filters it has.
        strength: The ridge strength that validation chose; 0 is least squares.
        validation_rmse: Its RMSE on validation.
        metrics: Its metrics on test.
    """

    tap: str
    n_filters: int
    strength: float
    validation_rmse: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Regression:
    """What every tap knows of the task in one trial.

    Attributes:
        taps: In network order.
        best_tap: The tap of lowest validation RMSE.
        baseline: Test metrics of the trivial prediction.
    """

    taps: tuple[TapFit, ...]
    best_tap: str
    baseline: dict[str, float]

    def fit_of(self, tap: str) -> TapFit:
        """Return one tap's regression."""
        return next(fit for fit in self.taps if fit.tap == tap)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Regression:
        """Return the regression that :func:`dataclasses.asdict` made into JSON."""
        return cls(tuple(TapFit(**tap) for tap in fields["taps"]), fields["best_tap"], fields["baseline"])


def regress(responses: Responses, task: Satellite, split: Split) -> Regression:
    """Regress the task on every tap; the best tap is chosen on validation, metrics are taken on test."""
    y, scale = scaled_targets(task, split)
    fits = tuple(_fit(tap, responses.tap(tap), y, scale, task, split) for tap in responses.columns)
    best = min(fits, key=lambda fit: fit.validation_rmse)
    kind = task.kind
    trivial = [kind.baseline(task.targets[split.train], len(part)) for part in (split.validation, split.test)]
    decision = kind.learn(trivial[0], task.values[split.validation])
    return Regression(fits, best.tap, kind.metrics(trivial[1], task.values[split.test], decision, scale))


def scaled_targets(task: Satellite, split: Split) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return targets divided by each output's scale, ``(n_images, n_outputs)``, and the scale, ``(n_outputs,)``."""
    targets = task.targets
    scale = task.kind.scale(targets[split.train])
    return targets / scale, scale


def split_moments(x: NDArray[Any], y: NDArray[np.float64], split: Split) -> tuple[Moments, Moments]:
    """Return the training and the validation moments of responses and targets."""
    train, validation = split.train, split.validation
    return Moments.from_arrays(x[train], y[train]), Moments.from_arrays(x[validation], y[validation])


def _fit(
    tap: str,
    x: NDArray[np.float32],
    y: NDArray[np.float64],
    scale: NDArray[np.float64],
    task: Satellite,
    split: Split,
) -> TapFit:
    """Fit one tap."""
    train, validation = split_moments(x, y, split)
    model, strength = tune_ridge(train, validation)
    kind = task.kind
    decision: Decision = kind.learn(model.predict(x[split.validation]) * scale, task.values[split.validation])
    predicted = model.predict(x[split.test]) * scale
    return TapFit(
        tap=tap,
        n_filters=x.shape[1],
        strength=strength,
        validation_rmse=rmse_from_moments(model, validation, None),
        metrics=kind.metrics(predicted, task.values[split.test], decision, scale),
    )
