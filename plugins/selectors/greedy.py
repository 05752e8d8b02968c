"""Greedy forward selection: at each step the component that lowers the training error most, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDEPENDENT = 1e-10
FOLD = 32


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
    slots = _slots(np.searchsorted(screening.components, problem.component[screening.columns]))
    limit = min(len(slots), params.max_filters or len(slots))
    order = _forward(gram, cross, slots, limit)
    notes = screening.notes
    if len(order) < limit:
        notes += (f"{len(slots) - len(order)} left out: linear combinations of the {len(order)} chosen",)
    return SelectionPath(
        supports=tuple(screening.components[np.sort(order[: size + 1])] for size in range(len(order))), notes=notes
    )


def _slots(group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return each group's rows ``(n_groups, most)``, padded with the number of rows."""
    sizes = np.bincount(group)
    slots = np.full((len(sizes), sizes.max()), len(group))
    slots[group, np.arange(len(group)) - (np.cumsum(sizes) - sizes)[group]] = np.arange(len(group))
    return slots


def _forward(
    gram: NDArray[np.float64], cross: NDArray[np.float64], slots: NDArray[np.intp], limit: int
) -> NDArray[np.intp]:
    """Return the groups in the order of choice.

    What the chosen rows leave of every group's own Gram block and cross products is kept up to date by the rows of
    the Cholesky factor, computed one at a time; every few rows they are folded into the Gram by one product.
    """
    size = len(gram)
    padded = np.zeros((size + 1, size + 1))
    padded[:size, :size] = gram
    factor = np.empty((FOLD, size + 1))
    blocks = padded[slots[:, :, None], slots[:, None, :]]
    crosses = np.vstack([cross, np.zeros((1, cross.shape[1]))])[slots]
    order: list[int] = []
    free = np.ones(len(slots), dtype=bool)
    done = 0
    while len(order) < limit:
        gain = np.where(free, _gains(blocks, crosses), -1)
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        order.append(best)
        free[best] = False
        for place, row in enumerate(slots[best]):
            left = blocks[best, place, place]
            if left <= INDEPENDENT:
                continue
            if done == FOLD:
                padded -= factor.T @ factor
                done = 0
            target = crosses[best, place] / np.sqrt(left)
            factor[done] = (padded[row] - factor[:done, row] @ factor[:done]) / np.sqrt(left)
            part = factor[done][slots]
            blocks -= part[:, :, None] * part[:, None, :]
            crosses -= part[:, :, None] * target
            done += 1
    return np.array(order, dtype=np.intp)


def _gains(blocks: NDArray[np.float64], crosses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much each group would lower the sum of squared errors, ``(n_groups,)``: tr CᵀD⁻¹C by elimination."""
    most = blocks.shape[1]
    if most > 1:
        blocks, crosses = blocks.copy(), crosses.copy()
    gain = np.zeros(len(blocks))
    for place in range(most):
        pivot = blocks[:, place, place]
        inverse = np.where(pivot > INDEPENDENT, 1 / np.maximum(pivot, INDEPENDENT), 0)
        gain += inverse * np.einsum("gm,gm->g", crosses[:, place], crosses[:, place])
        if place + 1 < most:
            share = blocks[:, place + 1 :, place] * inverse[:, None]
            blocks[:, place + 1 :, place + 1 :] -= share[:, :, None] * blocks[:, place, None, place + 1 :]
            crosses[:, place + 1 :] -= share[:, :, None] * crosses[:, place, None, :]
    return gain


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return greedy forward selection."""
    return [Selector(name="greedy", select=greedy, params=GreedyParams)]
