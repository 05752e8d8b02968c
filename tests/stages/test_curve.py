from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from facetask import CurveError, FaceData, Moments, Params, SelectionPath, SelectionProblem, Selector
from facetask.plugins.selectors.lasso import LassoParams, lasso
from facetask.plugins.selectors.random_order import facetask_selectors as random_selectors
from facetask.stages.curve import Chooser, Curves, curve
from facetask.statistics.regression import fit_ridge
from facetask.statistics.stability import selection_probability

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
    x, y = responses.taps(["low", "high"]).array(), task.values
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


@pytest.mark.parametrize("kind", ["continuous", "nominal"])
def test_several_outputs_reach_a_selector_as_the_regression_fits_them(
    kind: str, world: tuple[Any, Any, Any], make_task: Make
) -> None:
    """Each divided by its training spread, classes one-hot and undivided; gradients are summed over outputs."""
    responses, task, split = world
    values = np.hstack([task.values, 100 * responses.tap("high")[:, :1]])
    expected = values / values[split.train].std(axis=0)
    classes = ("a", "b", "c")
    if kind == "nominal":
        values = np.digitize(task.values, np.quantile(task.values, [0.3, 0.8])).astype(float)
        expected = np.eye(3)[values[:, 0].astype(int)]
    several = make_task(values, kind, classes=classes if kind == "nominal" else ())
    spy = Spy("responses", "gradients")
    chooser(spy).curve(responses, ["low", "high"], COUPLED, several, split)
    (problem,) = spy.problems
    assert problem.targets is not None
    np.testing.assert_allclose(problem.targets, expected[split.train])
    assert problem.moments.n_outputs == expected.shape[1]
    model = fit_ridge(problem.moments, 1e-3)
    x = torch.from_numpy(responses.matrix[split.train]).double().requires_grad_()
    predicted = x @ torch.from_numpy(model.coef) + torch.from_numpy(model.intercept)
    (0.5 * (predicted - torch.from_numpy(problem.targets)) ** 2).sum().backward()
    np.testing.assert_allclose(problem.gradients, (x.grad * x).abs().mean(0).detach().numpy(), rtol=1e-9)


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
        found = curve(responses, task, split, Chooser(record, Params(), {}, 0, bootstrap=2))
        again = Curves.from_json(json.loads(json.dumps(found.to_json())))
        assert list(again.taps) == list(found.taps)
        for tap, drawn in found.taps.items():
            assert [order.tolist() for order in again.taps[tap].resampled] == [o.tolist() for o in drawn.resampled]
            assert again.taps[tap].order.tolist() == drawn.order.tolist()
            for field in ("n_filters", "rmse", "unpruned_rmse", "strengths", "notes"):
                assert getattr(again.taps[tap], field) == getattr(drawn, field)
            for before, after in zip(drawn.supports, again.taps[tap].supports, strict=True):
                np.testing.assert_array_equal(before, after)
                assert after.dtype == np.intp


# Without refit


def test_without_refit_the_selector_s_own_errors_are_drawn(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    record = Selector(name="lasso", select=lasso, params=LassoParams)
    raw = curve(responses, task, split, Chooser(record, LassoParams(), {}, 0, refit="none"))
    refitted = curve(responses, task, split, Chooser(record, LassoParams(), {}, 0))
    for tap, drawn in raw.taps.items():
        assert drawn.rmse[0] > refitted.taps[tap].rmse[0]
        assert drawn.n_filters == refitted.taps[tap].n_filters
        assert drawn.unpruned_rmse == refitted.taps[tap].unpruned_rmse
    with pytest.raises(CurveError, match="task 'task', low, selector 'spy': it gives supports but no coefficients"):
        Chooser(Spy().record, Params(), {}, 0, refit="none").curve(responses, ["low"], np.arange(3), task, split)


# Resamples


def test_a_planted_support_is_stable_and_noise_is_not(make_task: Make, make_responses: Make, halves: Make) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 40))
    planted = [4, 17, 33]
    y = x[:, planted].sum(axis=1, keepdims=True) + rng.standard_normal((N, 1))
    record = Selector(name="lasso", select=lasso, params=LassoParams)
    chooser = Chooser(record, LassoParams(), {}, 0, bootstrap=30)
    drawn = curve(make_responses({"tap": x}), make_task(y), halves(N), chooser).taps["tap"]
    assert len(drawn.resampled) == 30
    probability = selection_probability(drawn.resampled, 40, 6)
    noise = np.delete(probability, planted)
    assert (probability[planted] == 1).all()
    assert noise.mean() == pytest.approx(3 / 37)
    assert noise.max() < 0.6


def test_a_resample_is_repeated_training_images_the_same_for_every_tap(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    spy = Spy("moments", "responses")
    found = curve(responses, task, split, Chooser(spy.record, Params(), {}, seed=11, bootstrap=3))
    low, high = spy.problems[:4], spy.problems[4:]
    assert [len(drawn.resampled) for drawn in found.taps.values()] == [3, 3]
    seeds = [problem.seed for problem in low]
    assert seeds[0] == 11
    assert len(set(seeds)) == 4
    assert [problem.seed for problem in high] == seeds
    for problem, other in zip(low[1:], high[1:], strict=True):
        assert problem.responses is not None
        assert problem.targets is not None
        np.testing.assert_array_equal(problem.targets, other.targets)
        expected = Moments.from_arrays(problem.responses, problem.targets)
        np.testing.assert_allclose(problem.moments.xx, expected.xx, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(problem.moments.xy, expected.xy, rtol=1e-9, atol=1e-9)
        assert problem.moments.n == len(split.train)
        assert len(np.unique(problem.targets)) < 0.7 * len(split.train)
    again = Spy("moments", "responses")
    curve(responses, task, split, Chooser(again.record, Params(), {}, seed=11, bootstrap=3))
    np.testing.assert_array_equal(again.problems[2].targets, low[2].targets)


def test_people_are_resampled_not_frames(world: tuple[Any, Any, Any], make_task: Make) -> None:
    responses, task, split = world
    person = np.array([f"p{i // 10}" for i in range(N)], dtype=object)
    person[:3] = None  # each a group of its own
    columns = {"person": person}
    data = FaceData(paths=task.data.paths, columns=columns, group_column="person")
    spy = Spy("moments", "responses")
    grouped = make_task(task.values, data=data)
    Chooser(spy.record, Params(), {}, 0, bootstrap=5).curve(responses, ["low"], np.arange(3), grouped, split)
    times = np.stack([
        (problem.targets[:, 0] == task.values[split.train]).sum(axis=1)
        for problem in spy.problems[1:]
        if problem.targets is not None
    ])  # fmt: skip
    assert times.shape == (5, N // 2)
    people = times[:, 10:].reshape(5, -1, 10)
    assert (people == people[:, :, :1]).all()
    assert set(people.ravel()) > {0, 1}
    assert (times[:, 0] != times[:, 1]).any()
    assert (times[:, 1] != times[:, 2]).any()


def test_random_orders_differ_between_resamples(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    (record,) = random_selectors()
    drawn = Chooser(record, record.params(), {}, 0, bootstrap=20).curve(
        responses, ["low", "high"], np.arange(7), task, split
    )
    assert len({tuple(order) for order in drawn.resampled}) > 10


def test_resamples_with_nothing_to_choose_from_are_left_out_and_told(
    make_task: Make, make_responses: Make, halves: Make
) -> None:
    rng = np.random.default_rng(0)
    y = np.zeros((N, 1))
    y[[0, *range(N // 2, N, 3)]] = 1  # one training image only: a third of the resamples misses it
    record = Selector(name="lasso", select=lasso, params=LassoParams)
    chooser = Chooser(record, LassoParams(), {}, 0, bootstrap=30)
    drawn = curve(make_responses({"tap": rng.standard_normal((N, 3))}), make_task(y), halves(N), chooser).taps["tap"]
    left_out = 30 - len(drawn.resampled)
    assert 3 < left_out < 20
    assert f"{left_out} of 30 resamples left out: nothing to choose from" in drawn.notes


def test_with_missing_labels_each_output_is_refitted_where_it_is_known(
    world: tuple[Any, Any, Any], make_task: Make
) -> None:
    responses, task, split = world
    values = np.hstack([task.values, -2 * task.values + responses.tap("low")[:, :1]])
    values[1::3, 0] = values[2::5, 1] = np.nan
    spy = Spy()
    found = curve(responses, make_task(values), split, chooser(spy)).taps["high"]
    for k in found.n_filters:
        squares = []
        for output in range(2):
            known = ~np.isnan(values[:, output])
            train, validation = split.train[known[split.train]], split.validation[known[split.validation]]
            x, y = responses.tap("high").astype(float)[:, :k], values[:, output] / values[train, output].std()
            residual = LinearRegression().fit(x[train], y[train]).predict(x[validation]) - y[validation]
            squares.append(np.mean(residual**2))
        assert found.rmse[k - 1] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)
    moments = spy.problems[0].moments
    assert moments.n == len(split.train)  # every image counts for its responses
    rows = split.train[~np.isnan(values[split.train, 1])]
    x, y = responses.tap("low")[rows].astype(float), values[rows, 1] / values[rows, 1].std()
    expected = (x - x.mean(axis=0)).T @ (y - y.mean()) / len(rows)
    np.testing.assert_allclose(moments.xy[:, 1] / moments.n, expected, atol=1e-6)


def test_a_selector_that_needs_responses_sees_the_images_with_all_labels(
    world: tuple[Any, Any, Any], make_task: Make
) -> None:
    responses, task, split = world
    values = np.hstack([task.values, -task.values])
    values[1::3, 0] = np.nan
    spy = Spy("moments", "responses", "gradients")
    curve(responses, make_task(values), split, chooser(spy))
    whole = split.train[~np.isnan(values[split.train]).any(axis=1)]
    problem = spy.problems[1]
    assert problem.moments.n == len(whole)
    np.testing.assert_array_equal(problem.responses, responses.tap("high")[whole])
    assert problem.targets is not None
    assert np.isfinite(problem.targets).all()
    values[2::3, 1] = values[0::3, 1] = np.nan
    with pytest.raises(CurveError, match=r"images that have all of the task's labels.* such as lasso"):
        curve(responses, make_task(values), split, chooser(spy))


def test_gradients_count_an_output_where_it_is_known(world: tuple[Any, Any, Any], make_task: Make) -> None:
    responses, task, split = world
    values = np.hstack([task.values, 0.5 * task.values + responses.tap("low")[:, :1]])
    values[split.train[::2], 0] = np.nan
    spy = Spy("moments", "gradients")
    curve(responses, make_task(values), split, chooser(spy))
    problem = spy.problems[0]
    x = responses.tap("low")[split.train].astype(float)
    y = values[split.train] / [np.nanstd(values[split.train, 0]), np.std(values[split.train, 1])]
    model = fit_ridge(problem.moments, 1e-3)
    residual = np.nan_to_num(model.predict(x) - y) * [2, 1]
    np.testing.assert_allclose(problem.gradients, np.abs((residual @ model.coef.T) * x).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("bootstrap", [0, 4])
def test_the_lasso_draws_a_curve_from_partly_known_labels(
    world: tuple[Any, Any, Any], make_task: Make, bootstrap: int
) -> None:
    responses, task, split = world
    rng = np.random.default_rng(1)
    values = np.hstack([task.values, rng.standard_normal((N, 1)) + task.values])
    values[rng.random(values.shape) < 0.4] = np.nan
    task = make_task(values)
    selector = Selector(name="lasso", select=lasso, params=LassoParams)
    for refit in ("least-squares", "none"):
        drawn = Chooser(selector, LassoParams(), {}, 0, refit, bootstrap).curve(  # type: ignore[arg-type]
            responses, ["low", "high"], np.arange(7), task, split.within(task.labelled)
        )
        assert drawn.rmse[-1] < 0.7 * drawn.rmse[0]
        assert len(drawn.resampled) == bootstrap
        assert not any("more than the tolerance" in note for note in drawn.notes)


def test_a_problem_says_which_tap_a_column_belongs_to(world: tuple[Any, Any, Any]) -> None:
    responses, task, split = world
    spy = Spy()
    chooser(spy).curve(responses, ["low", "high"], np.arange(7), task, split)
    chooser(spy).curve(responses, ["high"], np.arange(4), task, split)
    several, one = (problem.moments.tap for problem in spy.problems)
    assert several.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert one is None
