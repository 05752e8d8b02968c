"""Greedy forward selection: at each step the component that lowers the training error most, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.folded_gram import FoldedGram
from facetask.plugins.selectors.nested_path import nested_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEPENDENT = 1e-10


class GreedyParams(Params):
    """How far the selection goes.

    Attributes:
        max_filters: Largest number of components chosen; ``None`` goes on while there are independent ones.
    """

    max_filters: Annotated[int, Field(ge=1)] | None = None


def greedy(problem: SelectionProblem, params: GreedyParams) -> SelectionPath:
    """Return the nested supports of exact forward selection, from moments alone.

    Each step adds the component whose columns, together with those already chosen, leave the least sum of squared
    errors over all outputs (targets are taken as they are). A component that is a linear combination of those chosen
    is never added.

    Raises:
        CurveError: If every target is constant or every filter dead.

    Source: orthogonal least squares (Chen, Billings and Luo 1989), here by a pivoted Cholesky factorisation.
    """
    screening = problem.moments.screen(problem.component)
    gram, cross = problem.moments.standardised(screening.columns)
    n = len(screening.components)
    limit = min(n, params.max_filters or n)
    if n == len(gram):
        order = _columns_in_order(gram, cross, limit)
    else:
        slots = _slots(np.searchsorted(screening.components, problem.component[screening.columns]))
        order = _groups_in_order(gram, cross, slots, limit)
    notes = screening.notes
    if len(order) < limit:
        notes += (f"{n - len(order)} left out: linear combinations of the {len(order)} chosen",)
    return nested_path(screening.components[order], notes)


def _slots(group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return each group's rows ``(n_groups, most)``, padded with the number of rows."""
    sizes = np.bincount(group)
    slots = np.full((len(sizes), sizes.max()), len(group))
    slots[group, np.arange(len(group)) - (np.cumsum(sizes) - sizes)[group]] = np.arange(len(group))
    return slots


def _columns_in_order(gram: NDArray[np.float64], cross: NDArray[np.float64], limit: int) -> list[int]:
    """Return the rows in the order of choice, where each is a group of its own.

    What the chosen rows leave of every other one is kept up to date by the rows of the Cholesky factor, computed one at
    a time. The steps are many and short, so that no array is made anew, and one output is a vector, not a matrix.
    """
    left, pivots = FoldedGram(gram), np.diagonal(gram).copy()
    one = cross.shape[1] == 1
    crosses = cross[:, 0].copy() if one else cross.T.copy()
    gains, taken = np.empty_like(pivots), np.empty_like(crosses)
    order: list[int] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        while len(order) < limit:
            np.multiply(crosses, crosses, out=taken)
            np.divide(taken if one else taken.sum(axis=0), pivots, out=gains)
            best = int(gains.argmax())
            pivot = float(pivots[best])
            if pivot <= INDEPENDENT:  # a combination of those chosen: out for good
                pivots[best] = np.inf
                continue
            if gains[best] <= 0:
                break
            order.append(best)
            row = left.take(best, pivot)
            np.multiply((crosses[best] if one else crosses[:, best, None]) / pivot**0.5, row, out=taken)
            np.subtract(crosses, taken, out=crosses)
            np.multiply(row, row, out=gains)
            np.subtract(pivots, gains, out=pivots)
            pivots[best] = np.inf
    return order


def _groups_in_order(
    gram: NDArray[np.float64], cross: NDArray[np.float64], slots: NDArray[np.intp], limit: int
) -> list[int]:
    """Return the groups in the order of choice: as for rows, with each group's own Gram block in a pivot's place."""
    padded = np.pad(gram, (0, 1))
    left, blocks = FoldedGram(padded), padded[slots[:, :, None], slots[:, None, :]]
    crosses = np.pad(cross, ((0, 1), (0, 0)))[slots]
    order: list[int] = []
    while len(order) < limit:
        gains = _gains(blocks, crosses)
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        order.append(best)
        for place, index in enumerate(slots[best]):
            pivot = float(blocks[best, place, place])
            if pivot <= INDEPENDENT:
                continue
            part = left.take(index, pivot)[slots]
            crosses -= part[:, :, None] * (crosses[best, place] / pivot**0.5)
            blocks -= part[:, :, None] * part[:, None, :]
    return order


def _gains(blocks: NDArray[np.float64], crosses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much each group would lower the sum of squared errors, ``(n_groups,)``: tr CᵀD⁻¹C by elimination."""
    blocks, crosses = blocks.copy(), crosses.copy()
    gain = np.zeros(len(blocks))
    for place in range(blocks.shape[1]):
        pivot = blocks[:, place, place]
        inverse = np.where(pivot > INDEPENDENT, 1 / np.maximum(pivot, INDEPENDENT), 0)
        gain += inverse * np.einsum("gm,gm->g", crosses[:, place], crosses[:, place])
        share = blocks[:, place + 1 :, place] * inverse[:, None]
        blocks[:, place + 1 :, place + 1 :] -= share[:, :, None] * blocks[:, place, None, place + 1 :]
        crosses[:, place + 1 :] -= share[:, :, None] * crosses[:, place, None, :]
    return gain


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return greedy forward selection."""
    return [Selector(name="greedy", select=greedy, params=GreedyParams, revision="2")]
