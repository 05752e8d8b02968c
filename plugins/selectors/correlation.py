"""Correlation: components ranked by how much of the targets each explains on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.nested_path import nested_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEPENDENT = 1e-10


def correlation(problem: SelectionProblem, params: Params) -> SelectionPath:
    """Return nested supports in the order of what each component explains alone, from moments alone.

    With one output and one column a component that is the order of |r|. With several outputs, or several columns a
    component, it is the variance explained by the regression on the component's columns, summed over the outputs
    (targets are taken as they are). Dead components and copies of earlier ones are left out.

    Raises:
        CurveError: If every target is constant or every filter dead.
    """
    screening = problem.moments.screen(problem.component)
    gram, cross = problem.moments.standardised(screening.columns)
    group = np.searchsorted(screening.components, problem.component[screening.columns])
    explained = _explained(gram, cross, group)
    order = np.argsort(-explained, kind="stable")
    return nested_path(screening.components[order], screening.notes)


def _explained(gram: NDArray[np.float64], cross: NDArray[np.float64], group: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the variance that each group's rows explain by themselves, ``(n_groups,)``."""
    sizes = np.bincount(group)
    explained = np.empty(len(sizes))
    first_row = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        groups = np.flatnonzero(sizes == size)
        rows = first_row[groups, None] + np.arange(size)
        inverse = np.linalg.pinv(gram[rows[:, :, None], rows[:, None, :]], rcond=INDEPENDENT, hermitian=True)
        explained[groups] = np.einsum("gam,gab,gbm->g", cross[rows], inverse, cross[rows])
    return explained


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the ranking by correlation."""
    return [Selector(name="correlation", select=correlation, revision="2")]
