"""Head2Toe: components of all taps ranked together, by their coefficients in one group-lasso head."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from facetask import Moments, Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.group_lasso_path import GroupedProblem, group_lasso_path, group_norms
from facetask.plugins.selectors.nested_path import nested_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-3
STEPS_PER_DECADE = 8


class Head2ToeParams(Params):
    """How strongly the head is penalised.

    Attributes:
        strength: The penalty, relative to the smallest that zeroes every coefficient; a weaker one leaves fewer
            components without a coefficient, and takes longer.
    """

    strength: Annotated[float, Field(gt=0, lt=1)] = 0.01


def head2toe(problem: SelectionProblem, params: Head2ToeParams) -> SelectionPath:
    """Return nested supports in the order of the coefficients' norms in one linear head over all taps.

    The head minimises ``1/(2n) ‖Y − XB‖² + λ Σ_g √(columns of g) ‖B_g‖_F``, where each tap's part of an image's
    responses X has length one, so that every tap counts alike however large its responses are; within a tap a filter
    counts by the size of its responses. The squared error also stands for classes, one-hot. A component's score is
    ‖B_g‖_F over all its columns and outputs; components without a coefficient follow, those first that would be the
    next to get one. Dead components and copies of earlier ones are left out.

    Raises:
        CurveError: If a response is not finite, every target is constant or every filter dead.

    Source: Evci et al. 2022, arXiv 2201.03529, sec. 3.
    """
    assert problem.responses is not None
    assert problem.targets is not None
    screening = problem.moments.screen(problem.component)
    tap = problem.moments.tap
    length = _lengths(problem.responses, tap)[:, screening.columns]
    moments = replace(
        Moments.from_arrays(problem.responses[:, screening.columns] / length, problem.targets),
        tap=None if tap is None else tap[screening.columns],
    )
    # A tap's only filter is constant once its length is one; it has no coefficient and comes last.
    rows = np.flatnonzero(~moments.dead_columns)
    position = np.searchsorted(screening.components, problem.component[screening.columns[rows]])
    present, group = np.unique(position, return_inverse=True)
    score = np.zeros((2, len(screening.components)))
    if len(rows):
        score[:, present] = _scores(moments, rows, group, params.strength)
    order = np.lexsort(-score[::-1])
    n_chosen = int((score[0] > 0).sum())
    notes = [*screening.notes, f"{n_chosen} of {len(order)} components have a coefficient in the head"]
    return nested_path(screening.components[order], notes)


def _lengths(x: NDArray[np.float64], tap: NDArray[np.intp] | None) -> NDArray[np.float64]:
    """Return the length ``(n, n_columns)`` of each image's responses of the tap that a column belongs to.

    It is 1 where all of them are 0, so as to divide by it. All filters of a tap count, the dead ones too.
    """
    index = np.zeros(x.shape[1], dtype=np.intp) if tap is None else tap
    squares = np.zeros((len(x), int(index.max()) + 1))
    for each in np.unique(index):
        part = x[:, index == each]
        squares[:, each] = np.einsum("np,np->n", part, part)
    return np.asarray(np.sqrt(np.where(squares > 0, squares, 1))[:, index])


def _scores(
    moments: Moments, rows: NDArray[np.intp], group: NDArray[np.intp], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each group's norm in the head, and how near it is to having one, ``(n_groups,)`` each."""
    order = np.argsort(group, kind="stable")
    rows = rows[order]
    gram, cross = moments.xx[np.ix_(rows, rows)] / moments.n, moments.xy[rows] / moments.n
    problem = GroupedProblem.from_groups(gram, cross, group[order])
    steps = max(2, 1 + round(-np.log10(strength) * STEPS_PER_DECADE))
    coef = group_lasso_path(problem, problem.largest_strength * np.geomspace(1, strength, steps), TOLERANCE)[-1]
    return group_norms(problem, coef), group_norms(problem, cross - gram @ coef) / problem.weights


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return Head2Toe's ranking, over all taps at once."""
    return [
        Selector(
            name="head2toe",
            select=head2toe,
            params=Head2ToeParams,
            needs=frozenset({"moments", "responses"}),
            scope="all",
            revision="2",
        )
    ]
