"""Head2Toe: components of all taps ranked together, by their coefficients in one group-lasso head."""

from __future__ import annotations

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

    The head minimises ``1/(2n) ‖Y − XB‖² + λ Σ_g √(columns of g) ‖B_g‖_F``, where each image's responses X have length
    one; the squared error also stands for classes, one-hot. A component's score is ‖B_g‖_F over all its columns and
    outputs; components without a coefficient follow, those first that would be the next to get one.

    The paper gives each layer's part of X length one. A problem does not say which tap a column belongs to, so that
    here columns are first divided by their root mean squares: each tap then counts by how many filters it has, however
    large its responses are. Dead components and copies of earlier ones are left out.

    Raises:
        CurveError: If a response is not finite, every target is constant or every filter dead.

    Source: Evci et al. 2022, arXiv 2201.03529, sec. 3.
    """
    assert problem.responses is not None
    assert problem.targets is not None
    screening = problem.moments.screen(problem.component)
    scaled = _to_unit_length(problem.responses[:, screening.columns])  # the indices make a copy
    moments = Moments.from_arrays(scaled, problem.targets)
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


def _to_unit_length(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale responses, in place, to columns of equal root mean square, then to rows of length one; zeros stay."""
    x /= np.sqrt(np.einsum("np,np->p", x, x) / len(x))
    length = np.sqrt(np.einsum("np,np->n", x, x))
    x /= np.where(length > 0, length, 1)[:, None]
    return x


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
        )
    ]
