"""A score: how well the single best filter follows the labels, of the tap's filters taken one by one."""

import numpy as np
from pydantic import Field

from facetask import Moments, Params, Score, ScoreProblem, hookimpl


class BestFilterParams(Params):
    """How many filters count.

    Attributes:
        filters: The score is the mean over this many filters, the best ones.
    """

    filters: int = Field(default=1, ge=1)


def best_filter(problem: ScoreProblem, params: BestFilterParams) -> float:
    """Return the mean R² of the best filters, each on its own, over the outputs whose labels are known."""
    found = []
    for output in problem.targets.T:
        known = ~np.isnan(output)
        moments = Moments.from_arrays(problem.responses[known], output[known, None])
        spread = moments.std_x * moments.std_y
        covariance = moments.xy[:, 0] / moments.n
        squares = (covariance / np.where(spread > 0, spread, np.inf)) ** 2
        found.append(np.sort(squares)[-params.filters :].mean())
    return float(np.mean(found))


@hookimpl
def facetask_scores() -> list[Score]:
    """Return the score."""
    return [Score(name="$name", score=best_filter, params=BestFilterParams)]
