"""Lasso: the path of supports from the fewest filters to all, one penalty strength after the other."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated

import numpy as np
from facetask.plugins.selectors.group_lasso_path import GroupedProblem, group_lasso_path, group_norms, kkt_violations
from pydantic import Field

from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZERO = 1e-12
LARS_STEPS = 8


class LassoParams(Params):
    """How finely and how exactly the path is followed.

    Attributes:
        n_lambdas: Number of penalty strengths.
        ratio: The largest strength divided by the smallest.
        tolerance: Largest violation of the optimality conditions allowed, relative to the strength.
    """

    n_lambdas: Annotated[int, Field(ge=1)] = 100
    ratio: Annotated[float, Field(gt=1)] = 1e4
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-3


def lasso(problem: SelectionProblem, params: LassoParams) -> SelectionPath:
    """Return the supports of the lasso along its path, from moments alone.

    Minimises ``1/(2n) ‖Y − XB‖² + λ Σ_g √(columns of g) ‖B_g‖_F`` over 100 strengths λ, from the smallest that zeroes
    every coefficient down geometrically. X are the standardised responses; Y the targets *as they are*: who wants
    outputs of different units to count alike divides them by their standard deviations first. With one output and one
    column a component this is the lasso; with several outputs they share one support (row-sparse, L2,1); with
    several columns a component lives or dies as a whole (group lasso).

    Dead components and copies of earlier ones are left out. Strengths with an empty support are skipped, and the
    path ends where every component left is chosen.

    Raises:
        CurveError: If every target is constant or every filter dead.

    Source: arXiv 1901.02675, sec. 3; Efron et al. 2004 (one output); Yuan and Lin 2006, Obozinski et al. 2010 (groups).
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
        path = _lars(gram, cross[:, 0], strengths)
        violation = float(kkt_violations(grouped, path, strengths).max())
        notes.append(_accuracy("least-angle regression", len(path), violation, params))
        if violation > params.tolerance:
            notes[-1] += "; solved again"
            path = None
    if path is None:
        path = group_lasso_path(grouped, strengths, params.tolerance)
        violation = float(kkt_violations(grouped, path, strengths[: len(path)]).max())
        notes.append(_accuracy("active-set Newton", len(path), violation, params))

    chosen = np.stack([group_norms(grouped, coef) > 0 for coef in path])
    full = np.flatnonzero(chosen.all(axis=1))
    points = [i for i in range(int(full[0]) + 1 if len(full) else len(path)) if chosen[i].any()]
    return SelectionPath(
        supports=tuple(screening.components[chosen[i]] for i in points),
        strengths=relative[points],
        notes=tuple(notes),
    )


def _lars(gram: NDArray[np.float64], cross: NDArray[np.float64], strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exact lasso coefficients ``(n_strengths, p, 1)``: the path is piecewise linear between its breakpoints."""
    from sklearn.linear_model import lars_path_gram

    with warnings.catch_warnings():
        # It warns where it stops early on near-collinear filters; the optimality check is what decides.
        warnings.simplefilter("ignore")
        breaks, _, coefs = lars_path_gram(
            cross.copy(),
            gram.copy(),
            n_samples=1,
            method="lasso",
            alpha_min=float(strengths[-1]),
            max_iter=LARS_STEPS * len(gram),
        )
    after = np.clip(np.searchsorted(-breaks, -strengths), 1, max(len(breaks) - 1, 1))
    if len(breaks) == 1:
        return np.zeros((len(strengths), len(gram), 1))
    before = after - 1
    share = np.clip((breaks[before] - strengths) / np.maximum(breaks[before] - breaks[after], ZERO), 0, 1)
    path = coefs[:, before] * (1 - share) + coefs[:, after] * share
    path[np.abs(path) < ZERO * np.abs(path).max(initial=0)] = 0
    return np.asarray(path.T[:, :, None])


def _accuracy(solver: str, n_strengths: int, violation: float, params: LassoParams) -> str:
    """Return a note on how well the optimality conditions hold."""
    verdict = "" if violation <= params.tolerance else f", more than the tolerance {params.tolerance:.0e}"
    return f"{n_strengths} strengths by {solver}: largest KKT violation {violation:.1e}·λ{verdict}"


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the lasso."""
    return [Selector(name="lasso", select=lasso, params=LassoParams)]
