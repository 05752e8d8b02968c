from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from facetask import CurveError, Moments, Params, SelectionPath, SelectionProblem
from facetask.config import SplitConfig
from facetask.data.splits import Split
from facetask.plugins.selectors.taylor import facetask_selectors, taylor
from facetask.records import FaceData, Labels
from facetask.responses import Responses
from facetask.stages.curve import Chooser
from facetask.statistics.regression import fit_ridge
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.satellite import Satellite
from facetask.testing import check_selector


def order(path: SelectionPath) -> list[int]:
    """Return the components in the order in which a nested path takes them up."""
    supports = [set(), *(set(support.tolist()) for support in path.supports)]
    return [(later - earlier).pop() for earlier, later in pairwise(supports)]


def problem(gradients: list[float], component: list[int]) -> SelectionProblem:
    rng = np.random.default_rng(0)
    moments = Moments.from_arrays(rng.standard_normal((40, len(gradients))), rng.standard_normal((40, 1)))
    return SelectionProblem(moments=moments, component=np.array(component), gradients=np.array(gradients))


def test_a_component_s_columns_are_summed() -> None:
    assert order(taylor(problem([3, 2.5, 1, 1.5, 0.5], [0, 1, 2, 2, 2]), Params())) == [0, 2, 1]


def test_equal_terms_keep_their_order() -> None:
    assert order(taylor(problem([0, 1, 0, 1], [0, 1, 2, 3]), Params())) == [1, 3, 0, 2]


@pytest.mark.parametrize("kind", ["continuous", "nominal"])
@pytest.mark.parametrize("component", [np.arange(6), np.array([0, 1, 2, 0, 1, 3])], ids=["alone", "coupled"])
def test_maps_of_activations_give_the_published_criterion(kind: str, component: np.ndarray) -> None:
    """Through the curve stage, against torch's gradients of whole maps under pool, linear and loss."""
    rng = np.random.default_rng(1)
    maps = np.maximum(rng.standard_normal((120, 6, 4, 5)) + rng.standard_normal((120, 6, 1, 1)), 0).astype(np.float32)
    pooled = maps.mean(axis=(2, 3))
    values = pooled[:, :2] @ [[2.0, 0.5], [-1.0, 1.0]] + 0.3 * rng.standard_normal((120, 2))
    classes = ("a", "b", "c")
    if kind == "nominal":
        values = np.digitize(values[:, :1], [-0.5, 0.5]).astype(float)
    task = Satellite(
        spec=TaskSpec("task", kind, classes=classes if kind == "nominal" else ()),  # type: ignore[arg-type]
        plugin="plugin",
        values=values,
        data=FaceData(paths=(), columns={}),
        split_config=SplitConfig(),
        left_out={},
        n_missing=0,
        given=Labels(name="task", kind=kind, values=values),  # type: ignore[arg-type]
    )
    split = Split(np.arange(60), np.arange(60, 90), np.arange(90, 120))
    (selector,) = facetask_selectors()
    curve = Chooser(selector, Params(), {}, 0).curve(
        Responses(pooled, {"tap": slice(0, 6)}), ["tap"], component, task, split
    )

    targets = torch.from_numpy(np.eye(3)[values[:60, 0].astype(int)] if kind == "nominal" else values[:60])
    if kind == "continuous":
        targets = targets / targets.std(dim=0, correction=0)
    head = fit_ridge(Moments.from_arrays(pooled[:60].astype(float), targets.numpy()), 1e-3)
    z = torch.from_numpy(maps[:60]).double().requires_grad_()
    outputs = z.mean(dim=(2, 3)) @ torch.from_numpy(head.coef) + torch.from_numpy(head.intercept)
    (0.5 * (outputs - targets) ** 2).sum().backward()
    assert z.grad is not None
    terms = (z * z.grad).sum(dim=(2, 3)).abs().mean(dim=0).detach().numpy()
    expected = np.argsort(-np.bincount(component, terms))
    assert order(SelectionPath(supports=curve.supports)) == expected.tolist()


def test_terms_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(CurveError, match="1 of 3 Taylor terms are NaN or infinite, the first in column 1"):
        taylor(problem([1, np.inf, 2], [0, 1, 2]), Params())


def test_record() -> None:
    (selector,) = facetask_selectors()
    assert (selector.name, selector.needs, selector.scope) == ("taylor", {"moments", "gradients"}, "group")
    check_selector(selector)
