"""TransRate: how many more bits all responses need than those of one class, at a given precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from facetask import CurveError, Params, Score, ScoreProblem, hookimpl
from facetask.plugins.scores.labellings import mean_over_labellings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class TransRateParams(Params):
    """How finely responses are coded.

    Attributes:
        epsilon: The precision: the coding rate is ½ log det(I + ZᵀZ / (n · epsilon)).
        scale: ``trace``: responses are divided by one number, so that their variances sum to 1; every network scales
            them as it likes, and the rate depends on that. ``none``: they are taken as they are, as in the paper's
            listing.
    """

    epsilon: float = Field(default=1e-4, gt=0)
    scale: Literal["trace", "none"] = "trace"


def transrate(problem: ScoreProblem, params: TransRateParams) -> float:
    """Return the coding rate of all centred responses less the mean of the classes' coding rates, in nats.

    A continuous task's values count as the classes of their bins; of several labellings it is the mean. Dead filters
    tell nothing; where all are dead the score is NaN.

    Raises:
        CurveError: If a response is not finite.

    Source: Huang et al. 2022, "Frustratingly Easy Transferability Estimation", ICML, arXiv 2106.09362.
    """
    if not np.isfinite(problem.responses).all():
        raise CurveError("transrate: a response is not finite; the network's weights or its preprocessing are wrong")

    def rate(x: Array, classes: NDArray[np.intp]) -> float:
        z = x - x.mean(axis=0)
        variance = float((z**2).sum()) / len(z)
        if variance == 0:
            return float("nan")
        if params.scale == "trace":
            z /= np.sqrt(variance)
        each = [_coding_rate(z[classes == index], params.epsilon) for index in range(classes.max() + 1)]
        return _coding_rate(z, params.epsilon) - float(np.mean(each))

    return mean_over_labellings(problem, rate)


def _coding_rate(z: Array, epsilon: float) -> float:
    """Return ½ log det(I + zᵀz / (n · epsilon)) of ``(n, n_columns)``; det(I + AB) = det(I + BA): the smaller one."""
    gram = z.T @ z if z.shape[0] >= z.shape[1] else z @ z.T
    return float(np.linalg.slogdet(np.eye(len(gram)) + gram / (len(z) * epsilon))[1]) / 2


@hookimpl
def facetask_scores() -> list[Score]:
    """Return TransRate."""
    return [Score(name="transrate", score=transrate, params=TransRateParams)]
