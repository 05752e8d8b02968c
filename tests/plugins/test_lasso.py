from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.linear_model import Lasso, MultiTaskLasso, lars_path_gram

from facetask import CurveError, Moments, SelectionPath, SelectionProblem
from facetask.plugins.selectors import lasso as module
from facetask.plugins.selectors.group_lasso_path import GroupedProblem, group_lasso_path
from facetask.plugins.selectors.homotopy import homotopy
from facetask.plugins.selectors.lasso import LassoParams, facetask_selectors, lasso

STRENGTHS = np.geomspace(1, 1e-4, 100)


def data(n: int, p: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated responses as after a ReLU, and targets of unit spread."""
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((n, 8))
    x = np.maximum(hidden @ random.standard_normal((8, p)) + random.standard_normal((n, p)) + 0.5, 0)
    y = np.tanh(hidden @ random.standard_normal((8, m))) + 0.5 * random.standard_normal((n, m))
    return x, y / y.std(axis=0) if n > 1 else y


def select(x: np.ndarray, y: np.ndarray, component: np.ndarray | None = None, **params: float) -> SelectionPath:
    component = np.arange(x.shape[1]) if component is None else component
    return lasso(SelectionProblem(moments=Moments.from_arrays(x, y), component=component), LassoParams(**params))


def standardised(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (x - x.mean(axis=0)) / x.std(axis=0), y - y.mean(axis=0)


def clear_support(
    x: np.ndarray, y: np.ndarray, coef: np.ndarray, strength: float, margin: float
) -> tuple[set[int], set[int]]:
    """Return the columns that any nearly optimal solution must hold, and those that it may hold."""
    slack = strength - np.linalg.norm(x.T @ (y - x @ coef) / len(x), axis=1)
    size = np.linalg.norm(coef, axis=1)
    return set(np.flatnonzero(size > margin)), set(np.flatnonzero((size > 0) | (slack < margin * strength)))


def worst_violation(problem: GroupedProblem, coef: np.ndarray, strength: float) -> float:
    """Return the largest relative KKT violation, group by group, in plain words."""
    residual = problem.cross - problem.gram @ coef
    worst = 0.0
    for group in range(problem.group.max() + 1):
        rows = problem.group == group
        bound = strength * np.sqrt(rows.sum())
        size = np.linalg.norm(coef[rows])
        if size > 0:
            gap = np.linalg.norm(residual[rows] - bound * coef[rows] / size)
        else:
            gap = max(np.linalg.norm(residual[rows]) - bound, 0)
        worst = max(worst, gap / bound)
    return worst


@pytest.mark.parametrize("m", [1, 3])
def test_supports_are_those_of_scikit_learn(m: int) -> None:
    x, y = data(400, 30, m)
    path = select(x, y, tolerance=1e-6)
    x, y = standardised(x, y)
    largest = np.linalg.norm(x.T @ y / len(x), axis=1).max()
    for index in range(0, len(path.supports), 7):
        strength = largest * path.strengths[index]
        model = (Lasso if m == 1 else MultiTaskLasso)(alpha=strength, tol=1e-10, max_iter=100_000)
        coef = np.atleast_2d(model.fit(x, y if m > 1 else y[:, 0]).coef_).T
        needed, allowed = clear_support(x, y, coef, strength, 1e-4)
        assert needed <= set(path.supports[index].tolist()) <= allowed
    assert len(path.supports[0]) <= 3
    assert len(path.supports[-1]) >= 28


def test_strengths_are_relative_and_empty_supports_are_skipped() -> None:
    path = select(*data(300, 10, 1))
    assert path.strengths[0] == pytest.approx(STRENGTHS[1])
    np.testing.assert_allclose(path.strengths, STRENGTHS[1 : 1 + len(path.strengths)])
    assert len(path.strengths) == len(path.supports)
    assert all(len(support) and (np.diff(support) > 0).all() for support in path.supports)


@pytest.mark.parametrize("m", [1, 4])
def test_the_path_ends_where_the_support_is_full(m: int) -> None:
    path = select(*data(3000, 12, m))
    assert len(path.supports[-1]) == 12
    assert all(len(support) < 12 for support in path.supports[:-1])


def test_orthogonal_responses_have_a_closed_form() -> None:
    x = np.random.default_rng(0).standard_normal((64, 6))
    x = np.linalg.qr(x - x.mean(axis=0))[0] * 8
    y = x @ np.array([[4.0, 0], [0, 3], [2, 1], [0.5, 0], [0, 0.1], [0, 0]])
    path = select(x, y, n_lambdas=30, ratio=100)
    size = np.array([4, 3, np.sqrt(5), 0.5, 0.1, 0])
    for support, strength in zip(path.supports, path.strengths, strict=True):
        assert support.tolist() == np.flatnonzero(size > strength * 4 * (1 + 1e-3)).tolist()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    n=st.sampled_from([8, 25, 400]),
    m=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=10),
)
@example(seed=190, n=8, m=1, sizes=[2, 4, 2, 1, 1, 2, 2, 2, 4, 4])
def test_the_group_solver_meets_the_optimality_conditions(seed: int, n: int, m: int, sizes: list[int]) -> None:
    x, y = data(n, sum(sizes), m, seed)
    live = x.std(axis=0) > 0
    assume(live.any())
    x, y = standardised(x[:, live], y)
    _, group = np.unique(np.repeat(np.arange(len(sizes)), sizes)[live], return_inverse=True)
    problem = GroupedProblem.from_groups(x.T @ x / n, x.T @ y / n, group)
    strengths = problem.largest_strength * np.geomspace(1, 1e-3, 30)
    path = group_lasso_path(problem, strengths, 1e-3)
    assert not path[0].any()
    for coef, strength in zip(path, strengths, strict=False):
        assert worst_violation(problem, coef, strength) <= 1e-3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), n=st.sampled_from([30, 500]), p=st.integers(1, 25))
def test_the_homotopy_passes_scikit_learns_breakpoints(seed: int, n: int, p: int) -> None:
    x, y = standardised(*data(n, p, 1, seed))
    gram, cross = x.T @ x / n, (x.T @ y / n)[:, 0]
    breaks, _, coefs = lars_path_gram(cross.copy(), gram.copy(), n_samples=1, method="lasso")
    inside = breaks > 1e-4 * breaks[0]
    ours = homotopy(gram, cross, breaks[inside])
    np.testing.assert_allclose(ours, coefs.T[inside], atol=1e-8)


def test_the_group_solver_agrees_with_the_homotopy_on_one_output() -> None:
    x, y = standardised(*data(500, 60, 1))
    gram, cross = x.T @ x / 500, x.T @ y / 500
    problem = GroupedProblem.from_groups(gram, cross, np.arange(60))
    strengths = problem.largest_strength * STRENGTHS
    exact = homotopy(gram, cross[:, 0], strengths)[:, :, None]
    ours = group_lasso_path(problem, strengths, 1e-8)
    np.testing.assert_allclose(ours, exact[: len(ours)], atol=1e-7)


def test_where_the_homotopy_stops_early_the_path_is_solved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(400, 20, 1)
    expected = select(x, y)
    exact = module.homotopy
    monkeypatch.setattr(module, "homotopy", lambda *args: np.where(np.arange(100)[:, None] < 50, exact(*args), 0))
    again = select(x, y, tolerance=1e-6)
    assert "homotopy" in again.notes[0]
    assert again.notes[0].endswith("solved again")
    assert "active-set Newton" in again.notes[1]
    assert [len(support) for support in again.supports] == [len(support) for support in expected.supports]


@pytest.mark.parametrize("m", [1, 3])
def test_the_kkt_violation_is_reported(m: int) -> None:
    note = select(*data(300, 20, m)).notes[-1]
    assert float(note.split("violation ")[1].split("·")[0]) <= 1e-3


@pytest.mark.parametrize("m", [1, 2])
def test_a_coupled_component_lives_or_dies_as_a_whole(m: int) -> None:
    x, y = data(600, 30, m)
    component = np.arange(30) % 10
    path = select(x, y, component)
    x, y = standardised(x, y)
    order = np.argsort(component, kind="stable")
    group = component[order]
    problem = GroupedProblem.from_groups((x.T @ x / 600)[np.ix_(order, order)], (x.T @ y / 600)[order], group)
    for index in (0, len(path.supports) // 2, len(path.supports) - 1):
        strength = problem.largest_strength * path.strengths[index]
        outside = ~np.isin(group, path.supports[index])
        # The best coefficients on the support alone, by plain proximal gradient, leave nothing outside to gain.
        coef = np.zeros_like(problem.cross)
        step = 1 / np.linalg.eigvalsh(problem.gram)[-1]
        for _ in range(4000):
            moved = coef + step * (problem.cross - problem.gram @ coef)
            moved[outside] = 0
            sizes = np.sqrt(np.bincount(group, (moved**2).sum(axis=1)))
            shrink = np.maximum(1 - step * strength * np.sqrt(3) / np.maximum(sizes, 1e-300), 0)
            coef = shrink[group, None] * moved
        assert worst_violation(problem, coef, strength) < 2e-3
        assert np.unique(group[coef.any(axis=1)]).tolist() == path.supports[index].tolist()


@pytest.mark.parametrize("m", [1, 2])
def test_the_dead_and_the_copies_never_enter(m: int) -> None:
    x, y = data(300, 12, m)
    x[:, 3] = 0.1
    x[:, 7] = x[:, 5]
    x[:, 8] = 2 * x[:, 5] + 1
    path = select(x.astype(np.float32), y)
    assert not {3, 7, 8} & set(np.concatenate(path.supports).tolist())
    assert 5 in path.supports[-1]
    assert path.notes[:2] == ("1 dead, left out: 3", "2 duplicate, left out: 7 (same as 5), 8 (same as 5)")


@pytest.mark.parametrize("m", [1, 2])
def test_collinear_filters_do_no_harm(m: int) -> None:
    x, y = data(300, 12, m)
    x[:, 4] = x[:, 0] + x[:, 1] - x[:, 2]
    path = select(x, y)
    assert len(path.supports[-1]) >= 11
    assert float(path.notes[-1].split("violation ")[1].split("·")[0]) <= 1e-3


@pytest.mark.parametrize("m", [1, 3])
def test_fewer_images_than_filters(m: int) -> None:
    path = select(*data(15, 60, m))
    assert float(path.notes[-1].split("violation ")[1].split("·")[0]) <= 1e-3
    if m == 1:
        assert max(len(support) for support in path.supports) <= 14


def test_a_constant_output_among_several_changes_nothing() -> None:
    x, y = data(300, 15, 2)
    path = select(x, y)
    padded = select(x, np.hstack([y, np.full((300, 1), 0.3)]))
    for one, other in zip(path.supports, padded.supports, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_input_is_an_error() -> None:
    x, y = data(30, 5, 1)
    with pytest.raises(CurveError, match="constant"):
        select(x, np.full((30, 1), 0.3))
    with pytest.raises(CurveError, match="all 5 filters are dead"):
        select(np.ones((30, 5)), y)
    with pytest.raises(CurveError, match="constant over the 1 training images"):
        select(x[:1], y[:1])


def test_params_and_record() -> None:
    with pytest.raises(ValidationError):
        LassoParams(n_lambdas=1)
    with pytest.raises(ValidationError):
        LassoParams(ratio=1.0)
    (selector,) = facetask_selectors()
    assert (selector.name, selector.needs, selector.scope) == ("lasso", {"moments"}, "group")
    assert selector.params() == LassoParams(n_lambdas=100, ratio=1e4, tolerance=1e-3)


def test_one_strength_has_an_empty_path_only_at_the_largest() -> None:
    path = select(*data(100, 5, 1), n_lambdas=2, ratio=10)
    assert len(path.supports) == 1
    assert path.strengths.tolist() == pytest.approx([0.1])
