"""The lasso's path for one output, exactly: from breakpoint to breakpoint, each a rank-one update."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facetask.plugins.selectors.folded_gram import FoldedGram

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

INDEPENDENT = 1e-10
STEPS = 8


def homotopy(gram: Array, cross: Array, strengths: Array) -> Array:
    """Return the coefficients ``(n_strengths, p)`` that minimise ½ βᵀGβ − βᵀq + λ ‖β‖₁ at each strength λ.

    Between two breakpoints, coefficients of the active and residual correlations of the idle filters are linear in λ:
    ``level − λ · slope``. An idle filter moves, as λ falls, towards the bound λ · sign(level) and enters where it meets
    it; an active one leaves where it comes to 0, if its level has the other sign. Level and slope are columns of a
    tableau in which a filter that enters or leaves is one symmetric sweep: minus a symmetric product, minus ± 2 at one
    place of the diagonal.

    The coefficients stay 0 from where a filter that must enter is a combination of those that are active.

    Args:
        gram: ``(p, p)``, its diagonal 1.
        cross: ``(p,)``.
        strengths: λ, descending.

    Source: Osborne, Presnell and Turlach 2000; Efron, Hastie, Johnstone and Tibshirani 2004.
    """
    tableau = FoldedGram(gram)
    level, slope = cross.copy(), np.zeros(len(gram))
    signs, idle = np.zeros(len(gram)), np.ones(len(gram))
    path = np.zeros((len(strengths), len(gram)))
    goals, done, strength = [*strengths.tolist(), -np.inf], 0, np.inf
    bound, breaks, side = np.empty_like(level), np.empty_like(level), np.empty_like(level)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(STEPS * len(gram)):
            # λ where each filter's line meets its bound: ± λ if idle, 0 if active.
            np.copysign(idle, level, out=bound)
            np.add(bound, slope, out=bound)
            np.divide(level, bound, out=breaks)
            np.multiply(level, signs, out=side)
            breaks[side > 0] = 0.0
            index = int(breaks.argmax())
            strength = max(min(float(breaks[index]), strength), 0.0)
            while goals[done] >= strength:
                path[done] = np.where(idle == 0, level - goals[done] * slope, 0.0)
                done += 1
            if done == len(strengths):
                break
            column, gone = tableau.column(index), float(signs[index])
            pivot = float(column[index])
            if not gone and pivot < INDEPENDENT:
                break
            come = 0.0 if gone else float(np.copysign(1.0, level[index]))
            turn = -1.0 if gone else 1.0
            signs[index], idle[index] = come, abs(gone)
            share, decline = float(level[index]) / pivot, (float(slope[index]) + come) / pivot
            level -= share * column
            slope -= decline * column
            level[index], slope[index] = turn * share, turn * decline - gone
            column[index] = pivot - turn
            column /= abs(pivot) ** 0.5
            tableau.subtract(column, float(np.copysign(1.0, pivot)))
            tableau.subtract_at(index, 2 * turn)
    return path
