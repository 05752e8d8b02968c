from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from facetask import CurveError, Moments, Params, SelectionPath, SelectionProblem, Selector
from facetask.regression import fit_ridge
from facetask.stages.curve import Chooser, Curves, curve

N = 400
Make = Callable[..., Any]
COUPLED = np.array([0, 1, 2, 0, 1, 2, 3])


class Spy:
    """A selector that keeps what it was given and answers with a given path, by default the first k components."""

    def __init__(self, *needs: str, path: tuple[Any, ...] | None = None) -> None:
        self.problems: list[SelectionProblem] = []
        self._path = path
        self.record = Selector(name="spy", select=self.select, needs=frozenset(needs or ("moments",)))  # type: ignore[arg-type]

    def select(self, problem: SelectionProblem, params: Params) -> SelectionPath:
        self.problems.append(problem)
        if self._path is None:
            return SelectionPath(supports=tuple(np.arange(k) for k in range(1, problem.n_components + 1)))
        return SelectionPath(supports=self._path)


@pytest.fixture
def world(make_task: Make, make_responses: Make, halves: Make) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    taps = {"low": rng.standard_normal((N, 3)), "high": np.maximum(rng.standard_normal((N, 4)), 0)}
    y = (
        taps["low"] @ [[3.0], [1.0], [0.2]]
        + taps["high"] @ [[0.0], [2.0], [0.0], [1.0]]
        + 0.3 * rng.standard_normal((N, 1))
    )
    return make_responses(taps), make_task(7 + 5 * y, unit="years"), halves(N)


def chooser(spy: Spy, weights: dict[str, np.ndarray] | None = None) -> Chooser:
    return Chooser(spy.record, Params(), weights or {}, seed=11)


def test_every_tap_has_a_curve_of_refits(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    spy, done = Spy(), []
    found = curve(responses, task, split, chooser(spy), done.append)
    assert list(found.taps) == ["low", "high"]
    assert done == [1, 1]
    for tap, n in (("low", 3), ("high", 4)):
        drawn, x, y = found.taps[tap], responses.tap(tap).astype(float), task.values
        assert drawn.n_filters == tuple(range(1, n + 1))
        for k, rmse in zip(drawn.n_filters, drawn.rmse, strict=True):
            refit = LinearRegression().fit(x[split.train, :k], y[split.train])
            residual = refit.predict(x[split.validation, :k]) - y[split.validation]
            assert rmse == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-6)
        assert drawn.unpruned_rmse == pytest.approx(drawn.rmse[-1], rel=1e-6)
    assert [problem.n_components for problem in spy.problems] == [3, 4]


def test_a_coupled_group_s_components_own_columns_of_all_its_taps(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    spy = Spy(path=(np.array([1]), np.array([0, 3])))
    found = chooser(spy).curve(responses, ["low", "high"], COUPLED, task, split)
    x, y = responses.taps(["low", "high"]).astype(float), task.values
    assert found.n_filters == (1, 2)
    for columns, rmse in zip(([1, 4], [0, 3, 6]), found.rmse, strict=True):
        refit = LinearRegression().fit(x[split.train][:, columns], y[split.train])
        residual = refit.predict(x[split.validation][:, columns]) - y[split.validation]
        assert rmse == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-6)


def test_a_selector_gets_the_training_split_s_moments_and_no_more_than_it_needs(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    spy = Spy()
    chooser(spy, {"low": np.ones((3, 9))}).curve(responses, ["low"], np.arange(3), task, split)
    (problem,) = spy.problems
    assert (problem.responses, problem.targets, problem.weights, problem.gradients) == (None,) * 4
    assert problem.seed == 11
    expected = Moments.from_arrays(responses.tap("low")[split.train], task.values[split.train])
    np.testing.assert_allclose(problem.moments.xx, expected.xx)
    np.testing.assert_allclose(problem.moments.xy, expected.xy)
    assert problem.moments.n == len(split.train)


def test_responses_come_with_targets_and_as_double(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    spy = Spy("moments", "responses")
    chooser(spy).curve(responses, ["low", "high"], COUPLED, task, split)
    (problem,) = spy.problems
    assert problem.responses is not None
    assert problem.responses.dtype == np.float64
    np.testing.assert_array_equal(problem.responses, responses.matrix[split.train])
    np.testing.assert_array_equal(problem.targets, task.values[split.train])
    assert (problem.weights, problem.gradients) == (None, None)


def test_weights_are_one_filter_for_each_column(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    weights = {"low": np.arange(27.0).reshape(3, 9), "high": np.arange(8.0).reshape(4, 2)}
    spy = Spy("weights")
    chooser(spy, weights).curve(responses, ["low", "high"], COUPLED, task, split)
    (problem,) = spy.problems
    assert problem.weights is not None
    assert [row.tolist() for row in problem.weights] == [*weights["low"].tolist(), *weights["high"].tolist()]
    assert (problem.responses, problem.gradients) == (None, None)


def test_gradients_are_autograd_s(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    spy = Spy("gradients")
    chooser(spy).curve(responses, ["low", "high"], COUPLED, task, split)
    (problem,) = spy.problems
    model = fit_ridge(problem.moments, 1e-3)
    x = torch.from_numpy(responses.matrix[split.train]).double().requires_grad_()
    predicted = x @ torch.from_numpy(model.coef) + torch.from_numpy(model.intercept)
    (0.5 * (predicted - torch.from_numpy(task.values[split.train])) ** 2).sum().backward()
    np.testing.assert_allclose(problem.gradients, (x.grad * x).abs().mean(0).detach().numpy(), rtol=1e-9)
    assert (problem.responses, problem.weights) == (None, None)


@pytest.mark.parametrize(
    "path",
    [
        (),
        (np.array([], dtype=np.intp),),
        (np.array([0]), np.array([2, 1])),
        (np.array([1, 1]),),
        (np.array([-1]),),
        (np.array([0, 3]),),
        (np.array([0.0, 1.0]),),
        (np.array([True, False, True]),),
        (np.array([[0, 1]]),),
        ([0, 1],),
    ],
    ids=lambda path: repr(path[-1:]),
)
def test_a_bad_path_names_task_tap_and_selector(world: tuple[Any, Any, Any], path: tuple[Any, ...]) -> None:
    responses, task, split = world
    with pytest.raises(CurveError, match="task 'task', low, selector 'spy': "):
        chooser(Spy(path=path)).curve(responses, ["low"], np.arange(3), task, split)


def test_a_selector_s_own_error_says_where(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world

    def refuse(problem: SelectionProblem, params: Params) -> SelectionPath:
        raise CurveError("all filters are dead")

    broken = Chooser(Selector(name="lazy", select=refuse), Params(), {}, 0)
    with pytest.raises(CurveError, match="task 'task', 2 taps from low to high, selector 'lazy': all filters are dead"):
        broken.curve(responses, ["low", "high"], COUPLED, task, split)


def test_json_keeps_every_field(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world

    def select(problem: SelectionProblem, params: Params) -> SelectionPath:
        supports = (np.array([1]), np.array([0, 2]))
        return SelectionPath(supports=supports, strengths=np.array([1.0, 0.1]), notes=("a note",))

    for record in (Spy().record, Selector(name="noted", select=select)):
        found = curve(responses, task, split, Chooser(record, Params(), {}, 0))
        again = Curves.from_json(json.loads(json.dumps(found.to_json())))
        assert list(again.taps) == list(found.taps)
        for tap, drawn in found.taps.items():
            for field in ("n_filters", "rmse", "unpruned_rmse", "strengths", "notes"):
                assert getattr(again.taps[tap], field) == getattr(drawn, field)
            for before, after in zip(drawn.supports, again.taps[tap].supports, strict=True):
                np.testing.assert_array_equal(before, after)
                assert after.dtype == np.intp
