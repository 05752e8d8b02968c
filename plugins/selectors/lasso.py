"""Lasso: the path of supports from the fewest filters to all, one penalty strength after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.group_lasso_path import GroupedProblem, group_lasso_path, group_norms, kkt_violations
from facetask.plugins.selectors.homotopy import homotopy

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LassoParams(Params):
    """How finely and how exactly the path is followed.

    Attributes:
        n_lambdas: Number of penalty strengths, at least two: the largest leaves nothing.
        ratio: The largest strength divided by the smallest.
        tolerance: Largest violation of the optimality conditions allowed, relative to the strength.
    """

    n_lambdas: Annotated[int, Field(ge=2)] = 100
    ratio: Annotated[float, Field(gt=1)] = 1e4
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-3


def lasso(problem: SelectionProblem, params: LassoParams) -> SelectionPath:
    """Return the supports and the coefficients of the lasso along its path, from moments alone.

    Minimises ``1/(2n) ‖Y − XB‖² + λ Σ_g √(columns of g) ‖B_g‖_F`` over 100 strengths λ, from the smallest that zeroes
    every coefficient down geometrically. X are the standardised responses; Y the targets *as they are*: who wants
    outputs of different units to count alike divides them by their standard deviations first. With one output and one
    column a component this is the lasso; with several outputs they share one support (row-sparse, L2,1); with
    several columns a component lives or dies as a whole (group lasso).

    Dead components and copies of earlier ones are left out. Strengths with an empty support are skipped, and the
    path ends where every component left is chosen; with several outputs, or several columns a component, also where
    they explain all but 1/1000 of the targets' variance, as happens with fewer images than filters.

    Raises:
        CurveError: If every target is constant or every filter dead.

    Source: arXiv 1901.02675, sec. 3; Yuan and Lin 2006 and Obozinski et al. 2010 (groups).
    """
    screening = problem.moments.screen(problem.component)
    gram, cross = problem.moments.standardised(screening.columns)
    group = np.searchsorted(screening.components, problem.component[screening.columns])
    grouped = GroupedProblem.from_groups(gram, cross, group)
    relative = np.geomspace(1, 1 / params.ratio, params.n_lambdas)
    strengths = grouped.largest_strength * relative
    notes = list(screening.notes)

    path: NDArray[np.float64] | None = None
    violation = np.inf
    if cross.shape[1] == 1 and grouped.n_groups == len(gram):
        path = homotopy(gram, cross[:, 0], strengths)[:, :, None]
        violation = float(kkt_violations(grouped, path, strengths).max())
        notes.append(_accuracy("homotopy", len(path), violation, params))
        if violation > params.tolerance:
            notes[-1] += "; solved again"
            path = None
    if path is None:
        variance = float(np.trace(problem.moments.yy)) / problem.moments.n
        path = group_lasso_path(grouped, strengths, params.tolerance, variance)
        violation = float(kkt_violations(grouped, path, strengths[: len(path)]).max())
        notes.append(_accuracy("active-set Newton", len(path), violation, params))

    chosen = group_norms(grouped, path.transpose(1, 0, 2)).T > 0
    full = np.flatnonzero(chosen.all(axis=1))
    points = [i for i in range(int(full[0]) + 1 if len(full) else len(path)) if chosen[i].any()]
    coefficients = np.zeros((len(points), problem.moments.n_columns, cross.shape[1]))
    coefficients[:, screening.columns] = path[points]
    return SelectionPath(
        supports=tuple(screening.components[chosen[i]] for i in points),
        strengths=relative[points],
        coefficients=coefficients,
        notes=tuple(notes),
    )


def _accuracy(solver: str, n_strengths: int, violation: float, params: LassoParams) -> str:
    """Return a note on how well the optimality conditions hold."""
    verdict = "" if violation <= params.tolerance else f", more than the tolerance {params.tolerance:.0e}"
    return f"{n_strengths} strengths by {solver}: largest KKT violation {violation:.1e}·λ{verdict}"


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the lasso."""
    return [Selector(name="lasso", select=lasso, params=LassoParams)]
