"""Lasso: the path of supports from the fewest filters to all, one penalty strength after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field
from scipy.linalg import blas

from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.group_lasso_path import GroupedProblem, group_lasso_path, group_norms, kkt_violations

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEPENDENT = 1e-10
STEPS = 8


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
    path ends where every component left is chosen; with several outputs also where they explain all but 1/1000 of the
    targets' variance, as happens with fewer images than filters.

    Raises:
        CurveError: If every target is constant or every filter dead.

    Source: arXiv 1901.02675, sec. 3; Osborne, Presnell and Turlach 2000 (one output); Yuan and Lin 2006 and Obozinski
        et al. 2010 (groups).
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
        path = _homotopy(gram, cross[:, 0], strengths)
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

    chosen = np.stack([group_norms(grouped, coef) > 0 for coef in path])
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


def _homotopy(
    gram: NDArray[np.float64], cross: NDArray[np.float64], strengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the lasso's coefficients ``(n_strengths, p, 1)``, following its path from breakpoint to breakpoint.

    Between two breakpoints, coefficients of the active and residual correlations of the other filters are linear in λ:
    ``level - λ * slope``. Both are columns of a tableau in which activating a filter, or dropping it, is one symmetric
    sweep, a rank-one update. Ends early where a filter that must enter is a combination of those that are active.
    """
    p = len(gram)
    tableau = np.array(gram, order="F")
    level, slope = cross.copy(), np.zeros(p)
    signs = np.zeros(p)
    path = np.zeros((len(strengths), p, 1))
    done, latest, strength = 0, -1, float(np.abs(cross).max())
    for _ in range(STEPS * p):
        active = signs != 0
        state = level - strength * slope
        enters, leaves = _distances(state, slope, strength)
        # Rounding must not make the filter that has just entered leave at the same breakpoint.
        leaves[latest] = np.inf
        distance = np.where(active, leaves, enters)
        index = int(distance.argmin())
        following = max(strength - float(distance[index]), 0.0)
        ahead = done + int((strengths[done:] >= following).sum())
        path[done:ahead, active, 0] = level[active] - strengths[done:ahead, None] * slope[active]
        done, strength, latest = ahead, following, index
        if done == len(strengths):
            break
        column = np.concatenate([tableau[index, :index], tableau[index:, index]])
        pivot = column[index]
        if not active[index] and pivot < INDEPENDENT:
            break
        gone = float(signs[index])
        come = 0.0 if gone else float(np.sign(level[index] - strength * slope[index]))
        signs[index] = come
        turn = -1.0 if gone else 1.0
        slope[index] += come
        for vector in (level, slope):
            share = vector[index] / pivot
            np.subtract(vector, share * column, out=vector)
            vector[index] = turn * share
        slope[index] -= gone
        tableau = blas.dsyr(-1 / pivot, column, lower=1, a=tableau, overwrite_a=1)
        column *= turn / pivot
        column[index] = -1 / pivot
        tableau[index, :index], tableau[index:, index] = column[:index], column[index:]
    return path


def _distances(
    state: NDArray[np.float64], slope: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by how much λ falls until each filter would enter, and until it would leave, ``(p,)`` each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.where(slope > -1, (strength - state) / (1 + slope), np.inf)
        below = np.where(slope < 1, (strength + state) / (1 - slope), np.inf)
        leaves = np.where(state * slope < 0, -state / slope, np.inf)
    return np.maximum(np.minimum(above, below), 0), leaves


def _accuracy(solver: str, n_strengths: int, violation: float, params: LassoParams) -> str:
    """Return a note on how well the optimality conditions hold."""
    verdict = "" if violation <= params.tolerance else f", more than the tolerance {params.tolerance:.0e}"
    return f"{n_strengths} strengths by {solver}: largest KKT violation {violation:.1e}·λ{verdict}"


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the lasso."""
    return [Selector(name="lasso", select=lasso, params=LassoParams)]
