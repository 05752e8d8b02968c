from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from facetask import CurveError, Moments, SelectionPath, SelectionProblem
from facetask.plugins.selectors.greedy import GreedyParams, facetask_selectors, greedy


def data(n: int, p: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, p)) + random.standard_normal((n, 3)) @ random.standard_normal((3, p))
    return x, x @ random.standard_normal((p, m)) + random.standard_normal((n, m))


def select(
    x: np.ndarray, y: np.ndarray, component: np.ndarray | None = None, max_filters: int | None = None
) -> SelectionPath:
    component = np.arange(x.shape[1]) if component is None else component
    problem = SelectionProblem(moments=Moments.from_arrays(x, y), component=component)
    return greedy(problem, GreedyParams(max_filters=max_filters))


def squares(x: np.ndarray, y: np.ndarray) -> float:
    """Return the residual sum of squares of least squares with an intercept."""
    x = np.hstack([x, np.ones((len(x), 1))])
    return float(((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum())


def brute_force(x: np.ndarray, y: np.ndarray, component: np.ndarray) -> list[list[int]]:
    """Return nested supports by trying every component at every step."""
    chosen: list[int] = []
    supports = []
    for _ in range(component.max() + 1):
        left = [g for g in range(component.max() + 1) if g not in chosen]
        chosen.append(min(left, key=lambda g: squares(x[:, np.isin(component, [*chosen, g])], y)))
        supports.append(sorted(chosen))
    return supports


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    m=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=7),
)
def test_every_step_is_the_best_one(seed: int, m: int, sizes: list[int]) -> None:
    random = np.random.default_rng(seed)
    component = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x, y = data(60, len(component), m, seed)
    path = select(x, y, component)
    assert [support.tolist() for support in path.supports] == brute_force(x, y, component)
    assert path.notes == ()


def test_many_filters_are_chosen_as_by_brute_force() -> None:
    x, y = data(200, 45, 2)
    path = select(x, y)
    assert [support.tolist() for support in path.supports] == brute_force(x, y, np.arange(45))


def test_max_filters_ends_the_path() -> None:
    x, y = data(100, 10, 1)
    full, short = select(x, y), select(x, y, max_filters=4)
    assert len(short.supports) == 4
    assert [s.tolist() for s in short.supports] == [s.tolist() for s in full.supports[:4]]
    assert len(select(x, y, max_filters=99).supports) == 10


def test_collinear_dead_and_copied_filters_are_never_chosen() -> None:
    x, y = data(100, 9, 2)
    x[:, 2] = 0.1
    x[:, 5] = x[:, 1]
    x[:, 8] = x[:, 0] + x[:, 1] + x[:, 3]
    path = select(x, y)
    last = set(path.supports[-1].tolist())
    assert len(path.supports) == len(last) == 6
    assert not {2, 5} & last
    assert len({0, 1, 3, 8} & last) == 3
    assert path.notes == (
        "1 dead, left out: 2",
        "1 duplicate, left out: 5 (same as 1)",
        "1 left out: linear combinations of the 6 chosen",
    )


@pytest.mark.parametrize("component", [np.arange(30), np.arange(30) % 10])
def test_fewer_images_than_filters_end_at_a_perfect_fit(component: np.ndarray) -> None:
    x, y = data(8, 30, 1)
    path = select(x, y, component)
    columns = np.isin(component, path.supports[-1])
    assert squares(x[:, columns], y) < 1e-9
    assert 7 <= columns.sum() <= 9


def test_a_constant_output_among_several_changes_nothing() -> None:
    x, y = data(100, 10, 2)
    padded = select(x, np.hstack([y, np.full((100, 1), 0.3)]))
    assert [s.tolist() for s in padded.supports] == [s.tolist() for s in select(x, y).supports]


def test_bad_input_is_an_error() -> None:
    x, y = data(20, 4, 1)
    with pytest.raises(CurveError, match="constant"):
        select(x, np.ones((20, 1)))
    with pytest.raises(CurveError, match="dead"):
        select(np.ones((20, 4)), y)
    with pytest.raises(ValidationError):
        GreedyParams(max_filters=0)


def test_record() -> None:
    (selector,) = facetask_selectors()
    assert (selector.name, selector.needs, selector.params().max_filters) == ("greedy", {"moments"}, None)
