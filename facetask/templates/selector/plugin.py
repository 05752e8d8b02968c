"""A selector: the filters whose responses vary most, blind to the task."""

import numpy as np
from pydantic import Field

from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl


class VarianceParams(Params):
    """How fine the path is.

    Attributes:
        step: How many components each point of the path has more than the one before it.
    """

    step: int = Field(default=1, ge=1)


def by_variance(problem: SelectionProblem, params: VarianceParams) -> SelectionPath:
    """Return nested supports in the order of the variance of each component's columns together."""
    variance = np.bincount(problem.component, weights=problem.moments.std_x**2, minlength=problem.n_components)
    order = np.argsort(-variance, kind="stable")
    sizes = [*range(params.step, len(order), params.step), len(order)]
    return SelectionPath(supports=tuple(np.sort(order[:size]) for size in sizes))


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the selector."""
    return [Selector(name="$name", select=by_variance, params=VarianceParams)]
