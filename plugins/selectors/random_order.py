"""Random: components in an order drawn by lot, the baseline that every other selector must beat."""

from __future__ import annotations

import numpy as np

from facetask import Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.nested_path import nested_path


def random_order(problem: SelectionProblem, params: Params) -> SelectionPath:
    """Return nested supports in an order that depends on the problem's seed alone.

    Dead components and copies of earlier ones are left out, as by every other selector: the baseline differs from them
    in the order only.

    Raises:
        CurveError: If every target is constant or every filter dead.
    """
    screening = problem.moments.screen(problem.component)
    return nested_path(np.random.default_rng(problem.seed).permutation(screening.components), screening.notes)


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the random order."""
    return [Selector(name="random", select=random_order)]
