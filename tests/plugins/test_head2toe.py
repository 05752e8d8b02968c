from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.linear_model import Lasso, MultiTaskLasso

from facetask import CurveError, Moments, SelectionPath, SelectionProblem
from facetask.plugins.selectors.head2toe import Head2ToeParams, facetask_selectors, head2toe
from facetask.testing import check_selector


def data(n: int, p: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return responses as after a ReLU, of very different sizes, and targets of unit spread."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 8))
    x = np.maximum(hidden @ rng.standard_normal((8, p)) + rng.standard_normal((n, p)) + 0.5, 0) * rng.lognormal(size=p)
    y = np.tanh(hidden @ rng.standard_normal((8, m))) + 0.5 * rng.standard_normal((n, m))
    return x, y / y.std(axis=0)


def select(
    x: np.ndarray,
    y: np.ndarray,
    component: np.ndarray | None = None,
    strength: float = 0.01,
    tap: np.ndarray | None = None,
) -> SelectionPath:
    problem = SelectionProblem(
        moments=replace(Moments.from_arrays(x, y), tap=tap),
        component=np.arange(x.shape[1]) if component is None else component,
        responses=x,
        targets=y,
    )
    return head2toe(problem, Head2ToeParams(strength=strength))


def order(path: SelectionPath) -> list[int]:
    """Return the components in the order in which a nested path takes them up."""
    supports = [set(), *(set(support.tolist()) for support in path.supports)]
    return [(later - earlier).pop() for earlier, later in pairwise(supports)]


def unit(x: np.ndarray) -> np.ndarray:
    """Return images of length one."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("strength", [0.3, 0.05])
def test_scores_are_those_of_scikit_learn_s_head(m: int, strength: float) -> None:
    x, y = data(500, 25, m)
    tap = np.array([0] * 10 + [1] * 15)
    x[:, 10:] *= 1e3
    z = np.hstack([unit(x[:, :10]), unit(x[:, 10:])])
    z -= z.mean(axis=0)
    centred = y - y.mean(axis=0)
    largest = np.linalg.norm(z.T @ centred / len(z), axis=1).max()
    model = (Lasso if m == 1 else MultiTaskLasso)(alpha=strength * largest, tol=1e-12, max_iter=1_000_000)
    coef = np.atleast_2d(model.fit(z, centred if m > 1 else centred[:, 0]).coef_).T
    norms = np.linalg.norm(coef, axis=1)
    near = np.linalg.norm(z.T @ (centred - z @ coef), axis=1)
    chosen = int((norms > 0).sum())
    assert 3 <= chosen < 25
    path = select(x, y, strength=strength, tap=tap)
    assert order(path)[:chosen] == np.argsort(-norms)[:chosen].tolist()
    rest = np.flatnonzero(norms == 0)
    assert order(path)[chosen:] == rest[np.argsort(-near[rest])].tolist()
    assert path.notes == (f"{chosen} of 25 components have a coefficient in the head",)


def test_neither_a_tap_s_size_nor_an_image_s_brightness_counts() -> None:
    x, y = data(300, 20, 2)
    tap = np.arange(20) % 3
    expected = order(select(x, y, tap=tap))
    assert order(select(x * np.array([1e-3, 1, 1e3])[tap], y, tap=tap)) == expected
    assert order(select(x * np.linspace(1, 9, 300)[:, None], y, tap=tap)) == expected
    assert order(select(x * np.array([1e-3, 1, 1e3])[tap], y)) != order(select(x, y))


def test_the_dead_filters_of_a_tap_are_part_of_its_length() -> None:
    x, y = data(300, 10, 1)
    padded = np.hstack([x, np.full((300, 1), 1e6)])  # beside which the others' sum of squares is nothing
    scaled = order(select(padded, y))
    assert 10 not in scaled
    centred, targets = x - x.mean(axis=0), y[:, 0] - y.mean()
    first = int(np.abs(centred.T @ targets).argmax())
    assert order(select(padded, y, strength=0.999))[0] == first


def test_a_component_s_columns_are_one_group() -> None:
    x, y = data(400, 24, 2)
    component = np.arange(24) % 8
    path = select(x, y, component, strength=0.2)
    assert sorted(order(path)) == list(range(8))
    # Their order in the matrix does not matter, nor a column's place in its component.
    shuffled = np.random.default_rng(0).permutation(24)
    assert order(select(x[:, shuffled], y, component[shuffled], strength=0.2)) == order(path)


def test_what_carries_the_task_comes_first_whatever_its_tap() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((1000, 1))
    x = np.abs(rng.standard_normal((1000, 40))) + 1
    x[:, 3] += np.maximum(y[:, 0], 0)
    x[:, 35] += np.maximum(-y[:, 0], 0)
    x[:, 20:] *= 1e-4
    assert set(order(select(x, y, tap=np.arange(40) // 20))[:2]) == {3, 35}


def test_dark_images_do_no_harm() -> None:
    x, y = data(200, 10, 1)
    x[:3] = 0
    assert len(select(x, y).supports) == 10


def test_a_tap_of_one_filter_is_chosen_though_its_unit_length_is_constant() -> None:
    x, y = data(200, 2, 1)
    assert [support.tolist() for support in select(x[:, :1] + 1, y).supports] == [[0]]
    x[:, 1] = 0
    assert [support.tolist() for support in select(x, y, np.array([1, 0])).supports] == [[1]]


def test_the_dead_and_the_copies_are_left_out() -> None:
    x, y = data(300, 9, 1)
    x[:, 3], x[:, 7] = 0.1, 2 * x[:, 5]
    path = select(x, y)
    assert sorted(order(path)) == [0, 1, 2, 4, 5, 6, 8]
    assert path.notes[:2] == ("1 dead, left out: 3", "1 duplicate, left out: 7 (same as 5)")


@pytest.mark.parametrize("m", [1, 3])
def test_fewer_images_than_filters(m: int) -> None:
    assert len(select(*data(15, 60, m)).supports) == 60


def test_bad_input_is_an_error() -> None:
    x, y = data(30, 4, 1)
    broken = x.copy()
    broken[2, 1] = np.nan
    problem = SelectionProblem(moments=Moments.from_arrays(x, y), component=np.arange(4), responses=broken, targets=y)
    with pytest.raises(CurveError, match="NaN"):
        head2toe(problem, Head2ToeParams())
    with pytest.raises(CurveError, match="constant"):
        select(x, np.ones((30, 1)))
    with pytest.raises(ValidationError):
        Head2ToeParams(strength=1.0)


def test_record() -> None:
    (selector,) = facetask_selectors()
    assert (selector.name, selector.needs, selector.scope) == ("head2toe", {"moments", "responses"}, "all")
    assert selector.params().strength == 0.01
    check_selector(selector)
