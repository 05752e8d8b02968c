from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from facetask import CurveError, Moments, Params, SelectionProblem
from facetask.plugins.selectors.l1_norm import facetask_selectors, l1_norm
from facetask.testing import check_selector


def problem(weights: Any, component: np.ndarray | None = None, dead: int | None = None) -> SelectionProblem:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, len(weights))), rng.standard_normal((50, 1))
    if dead is not None:
        x[:, dead] = 0
    component = np.arange(len(weights)) if component is None else component
    return SelectionProblem(
        moments=Moments.from_arrays(x, y), component=component, weights=tuple(np.asarray(w, float) for w in weights)
    )


def order(found: SelectionProblem) -> list[int]:
    """Return the components in the order in which the nested path takes them up."""
    supports = [set(), *(set(support.tolist()) for support in l1_norm(found, Params()).supports)]
    return [(later - earlier).pop() for earlier, later in pairwise(supports)]


def test_a_convolution_s_filters_are_ranked_as_by_torch() -> None:
    torch.manual_seed(0)
    weight = nn.Conv2d(3, 20, 5).weight.detach()
    norms = torch.linalg.vector_norm(weight, ord=1, dim=(1, 2, 3))
    assert order(problem(weight.flatten(1).double().numpy())) == norms.argsort(descending=True).tolist()


def test_filters_of_a_component_count_by_their_mean() -> None:
    # Component 0: 3 and 1; component 1: 2.5 alone; component 2: 1 + 1 and 2.
    weights = [[3], [-2.5], [1, -1], [1], [-2]]
    assert order(problem(weights, np.array([0, 1, 2, 0, 2]))) == [1, 0, 2]


def test_labels_play_no_part_but_the_dead_are_left_out() -> None:
    path = l1_norm(problem([[1], [9], [2]], dead=1), Params())
    assert [support.tolist() for support in path.supports] == [[2], [0, 2]]
    assert path.notes == ("1 dead, left out: 1",)


def test_broken_weights_are_an_error() -> None:
    with pytest.raises(CurveError, match="1 of 3 filters have weights that are NaN or infinite, the first in column 2"):
        l1_norm(problem([[1], [2], [np.nan]]), Params())


def test_record() -> None:
    (selector,) = facetask_selectors()
    assert (selector.name, selector.needs, selector.scope) == ("l1-norm", {"moments", "weights"}, "group")
    check_selector(selector)
