"""Regression: the share of the validation error that the run's own regression takes away."""

from __future__ import annotations

from facetask import Params, Score, ScoreProblem, hookimpl


def regression(problem: ScoreProblem, params: Params) -> float:
    """Return 1 − (RMSE / RMSE of the training mean)² on validation: R² against what needs no image at all.

    It orders taps and networks as the validation RMSE of the regress stage does.
    """
    return 1 - (problem.rmse / problem.trivial_rmse) ** 2 if problem.trivial_rmse > 0 else float("nan")


@hookimpl
def facetask_scores() -> list[Score]:
    """Return the regression."""
    return [Score(name="regression", score=regression)]
