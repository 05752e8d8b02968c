"""H-score: how far apart the classes' mean responses lie, measured by the responses' covariance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg import eigh

from facetask import Moments, Params, Score, ScoreProblem, hookimpl
from facetask.plugins.scores.labellings import mean_over_labellings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RANK_TOLERANCE = 1e-12


class HScoreParams(Params):
    """How the responses' covariance is estimated.

    Attributes:
        shrinkage: ``none``: as it is, by Bao et al.; ``ledoit-wolf``: shrunk towards a multiple of the identity, by
            Ibrahim et al., which keeps many filters from looking good by their number alone.
    """

    shrinkage: Literal["none", "ledoit-wolf"] = "none"


def h_score(problem: ScoreProblem, params: HScoreParams) -> float:
    """Return tr(cov(f)⁺ cov(E[f|y])), the pseudo-inverse standing in where filters are dead or copies of others.

    A continuous task's values count as the classes of their bins; of several labellings it is the mean.

    Raises:
        CurveError: If a response is not finite.

    Source: Bao et al. 2019, "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP;
        Ibrahim et al. 2022, "Newer is not always better", arXiv 2110.06893.
    """
    return mean_over_labellings(problem, _shrunk if params.shrinkage == "ledoit-wolf" else _plain)


def _plain(x: Array, classes: NDArray[np.intp]) -> float:
    """Return the H-score of one labelling; it does not depend on the filters' units."""
    moments, between = _between(x, classes)
    live = np.flatnonzero(~moments.dead_columns)
    if not len(live):
        return 0.0
    gram, _ = moments.standardised(live)
    values, vectors = eigh(gram, driver="evd")
    inside = values > RANK_TOLERANCE * values[-1]
    rotated = vectors[:, inside].T @ (between[live] / moments.std_x[live, None])
    return float((rotated**2 / values[inside, None]).sum())


def _shrunk(x: Array, classes: NDArray[np.intp]) -> float:
    """Return the regularised H-score of one labelling: tr(cov_a(f)⁻¹ (1 − a) cov(E[f|y]))."""
    moments, between = _between(x, classes)
    covariance, shrinkage = moments.xx / moments.n, _ledoit_wolf(x - moments.mean_x, moments.xx / moments.n)
    scale = float(np.trace(covariance)) / len(covariance)
    if scale == 0:
        return 0.0
    values, vectors = eigh(covariance, driver="evd")
    shrunk = (1 - shrinkage) * np.maximum(values, 0) + shrinkage * scale
    inside = shrunk > RANK_TOLERANCE * shrunk[-1]
    rotated = vectors[:, inside].T @ between
    return (1 - shrinkage) * float((rotated**2 / shrunk[inside, None]).sum())


def _between(x: Array, classes: NDArray[np.intp]) -> tuple[Moments, Array]:
    """Return the moments, and a factor B ``(n_columns, n_classes)`` of the covariance BBᵀ of the classes' means."""
    moments = Moments.from_arrays(x, np.eye(classes.max() + 1)[classes])
    return moments, moments.xy / np.sqrt(np.bincount(classes) * moments.n)


def _ledoit_wolf(x: Array, covariance: Array) -> float:
    """Return the shrinkage in [0, 1] for centred responses ``(n, n_columns)``.

    Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    square = float((covariance**2).sum())
    distance = square - float(np.trace(covariance)) ** 2 / len(covariance)
    noise = (float(((x**2).sum(axis=1) ** 2).mean()) - square) / len(x)
    return min(max(noise / distance, 0.0), 1.0) if distance > 0 else 0.0


@hookimpl
def facetask_scores() -> list[Score]:
    """Return the H-score."""
    return [Score(name="h-score", score=h_score, params=HScoreParams)]
