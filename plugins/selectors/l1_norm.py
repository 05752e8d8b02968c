"""L1 norm: components ranked by the size of their filters' weights, blind to the task."""

from __future__ import annotations

import numpy as np

from facetask import CurveError, Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.nested_path import nested_path


def l1_norm(problem: SelectionProblem, params: Params) -> SelectionPath:
    """Return nested supports in the order of the sum of absolute weights of each component's filter.

    Where a component owns several columns it is the mean over their filters: a component is not larger for belonging
    to more taps. Weights are taken as the convolution has them, before any batch norm. Labels play no part, but dead
    components and copies of earlier ones are left out, as by every other selector.

    Raises:
        CurveError: If a weight is not finite, every target is constant or every filter dead.

    Source: Li et al. 2017, arXiv 1608.08710, sec. 3.1.
    """
    assert problem.weights is not None
    screening = problem.moments.screen(problem.component)
    norms = np.array([np.abs(weights).sum() for weights in problem.weights])
    broken = np.flatnonzero(~np.isfinite(norms))
    if len(broken):
        raise CurveError(
            f"{len(broken)} of {len(norms)} filters have weights that are NaN or infinite, the first in column "
            f"{broken[0]}: the base network's weights are broken"
        )
    group = np.searchsorted(screening.components, problem.component[screening.columns])
    score = np.bincount(group, norms[screening.columns]) / np.bincount(group)
    return nested_path(screening.components[np.argsort(-score, kind="stable")], screening.notes)


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the ranking by the weights' norm."""
    return [Selector(name="l1-norm", select=l1_norm, needs=frozenset({"moments", "weights"}))]
