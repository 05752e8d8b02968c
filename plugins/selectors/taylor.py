"""Taylor: components ranked by how much the loss would change, to first order, if their responses were zero."""

from __future__ import annotations

import numpy as np

from facetask import CurveError, Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.nested_path import nested_path


def taylor(problem: SelectionProblem, params: Params) -> SelectionPath:
    """Return nested supports in the order of the Taylor terms: the mean over images of |response × ∂loss/∂response|.

    The loss is half the squared error, summed over outputs, of the linear model of all columns. A head reads a map of
    activations through its mean alone, so that the sum over the map of activation × gradient is the response × the
    response's gradient. Where a component owns several columns it is the sum over them: all go at once. Dead
    components and copies of earlier ones are left out.

    Raises:
        CurveError: If a gradient is not finite, every target is constant or every filter dead.

    Source: Molchanov et al. 2017, arXiv 1611.06440, sec. 2.2, and 2019, arXiv 1906.10771, which takes squares in the
        place of absolute values.
    """
    assert problem.gradients is not None
    screening = problem.moments.screen(problem.component)
    broken = np.flatnonzero(~np.isfinite(problem.gradients))
    if len(broken):
        raise CurveError(
            f"{len(broken)} of {len(problem.gradients)} Taylor terms are NaN or infinite, the first in column "
            f"{broken[0]}: rescale the labels"
        )
    group = np.searchsorted(screening.components, problem.component[screening.columns])
    score = np.bincount(group, problem.gradients[screening.columns])
    return nested_path(screening.components[np.argsort(-score, kind="stable")], screening.notes)


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the ranking by Taylor terms."""
    return [Selector(name="taylor", select=taylor, needs=frozenset({"moments", "gradients"}))]
