from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from facetask import CurveError, Moments, Params, SelectionPath, SelectionProblem
from facetask.plugins.selectors.correlation import correlation, facetask_selectors


def data(n: int, p: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.standard_normal((n, p)) + random.standard_normal((n, 3)) @ random.standard_normal((3, p))
    return x, x @ random.standard_normal((p, m)) + random.standard_normal((n, m))


def select(x: np.ndarray, y: np.ndarray, component: np.ndarray | None = None) -> SelectionPath:
    component = np.arange(x.shape[1]) if component is None else component
    return correlation(SelectionProblem(moments=Moments.from_arrays(x, y), component=component), Params())


def order(path: SelectionPath) -> list[int]:
    """Return the components in the order in which a nested path takes them up."""
    assert [len(support) for support in path.supports] == list(range(1, len(path.supports) + 1))
    sets = [set(), *(set(support.tolist()) for support in path.supports)]
    return [(later - earlier).pop() for earlier, later in pairwise(sets)]


def test_one_output_is_ranked_by_correlation() -> None:
    x, y = data(200, 12, 1)
    r = np.abs(np.corrcoef(x.T, y.T)[-1, :-1])
    assert order(select(x * np.arange(1, 13), y)) == np.argsort(-r).tolist()


@pytest.mark.parametrize(
    "component", [np.arange(12), np.arange(12) % 4, np.array([0, 0, 0, 1, 1, 2, 3, 4, 4, 4, 4, 5])]
)
def test_several_outputs_and_columns_are_ranked_by_explained_variance(component: np.ndarray) -> None:
    x, y = data(200, 12, 3)
    explained = []
    for index in range(component.max() + 1):
        part = x[:, component == index]
        explained.append(LinearRegression().fit(part, y).predict(part).var(axis=0).sum())
    assert order(select(x, y, component)) == np.argsort(-np.array(explained)).tolist()


def test_dead_and_copied_filters_are_left_out() -> None:
    x, y = data(200, 8, 1)
    x[:, 2] = 0.1
    x[:, 5] = x[:, 1]
    path = select(x, y)
    assert path.supports[-1].tolist() == [0, 1, 3, 4, 6, 7]
    assert path.notes == ("1 dead, left out: 2", "1 duplicate, left out: 5 (same as 1)")


def test_copies_within_a_coupled_component_do_no_harm() -> None:
    x, y = data(200, 6, 1)
    doubled = select(np.hstack([x, x[:, :1]]), y, np.array([0, 1, 2, 3, 4, 5, 0]))
    assert order(doubled) == order(select(x, y))


def test_fewer_images_than_filters() -> None:
    assert len(select(*data(5, 20, 1)).supports) == 20


def test_bad_input_is_an_error() -> None:
    x, y = data(20, 4, 1)
    with pytest.raises(CurveError, match="constant"):
        select(x, np.ones((20, 1)))
    with pytest.raises(CurveError, match="dead"):
        select(np.ones((20, 4)), y)


def test_record() -> None:
    (selector,) = facetask_selectors()
    assert (selector.name, selector.needs, selector.params) == ("correlation", {"moments"}, Params)
