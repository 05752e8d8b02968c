from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetask import SelectionPath
from facetask.statistics.stability import order_of_appearance, resample, selection_probability, stable_components


def order(
    supports: list[list[int]], coefficients: np.ndarray | None = None, component: list[int] | None = None
) -> list:
    path = SelectionPath(supports=tuple(np.array(support) for support in supports), coefficients=coefficients)
    return order_of_appearance(path, np.array(component or range(10))).tolist()


def test_components_are_ordered_as_they_first_appear() -> None:
    assert order([[4], [2, 4], [2, 7], [0, 2, 4, 9]]) == [4, 2, 7, 0, 9]


def test_of_those_that_appear_together_the_larger_coefficients_come_first() -> None:
    coefficients = np.zeros((2, 4, 2))
    coefficients[0, [1, 2]] = [[1, 1], [-3, 0]]
    coefficients[1, [0, 1, 2, 3]] = [[0.1, 0], [9, 9], [1, 0], [0, -0.2]]
    assert order([[1, 2], [0, 1, 2, 3]], coefficients, [0, 1, 2, 3]) == [2, 1, 3, 0]
    # Two columns a component: their squares are summed.
    assert order([[0, 1]], np.array([[[1.0], [1.2], [1.0], [0.0]]]), [0, 1, 0, 1]) == [0, 1]


@given(
    groups=st.lists(st.integers(0, 6), min_size=1, max_size=40).map(np.array),
    seed=st.integers(0, 100),
)
def test_a_resample_draws_whole_groups_as_many_as_there_are(groups: np.ndarray, seed: int) -> None:
    times = resample(groups, np.random.default_rng(seed))
    distinct, first = np.unique(groups, return_index=True)
    assert all(len(set(times[groups == group])) == 1 for group in distinct)
    assert times[first].sum() == len(distinct)
    np.testing.assert_array_equal(times, resample(groups, np.random.default_rng(seed)))


def test_a_resample_leaves_out_the_share_that_theory_says() -> None:
    times = resample(np.arange(20000), np.random.default_rng(0))
    assert (times == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)


def test_the_probability_is_the_share_of_draws_among_the_first_k() -> None:
    orders = [np.array(draw) for draw in ([3, 1, 0], [1, 3], [2, 1, 3, 0], [3])]
    assert selection_probability(orders, 5, 1).tolist() == [0, 0.25, 0.25, 0.5, 0]
    assert selection_probability(orders, 5, 2).tolist() == [0, 0.75, 0.25, 0.75, 0]


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=5))
def test_probabilities_add_up_to_the_number_chosen_and_grow_with_it(draws: list[list[int]]) -> None:
    orders = [np.array(draw) for draw in draws]
    each = np.stack([selection_probability(orders, 6, k) for k in range(7)])
    np.testing.assert_allclose(each.sum(axis=1), range(7))
    assert (np.diff(each, axis=0) >= 0).all()
    assert (each[6] == 1).all()


def test_stable_components_are_never_none() -> None:
    probability = np.array([0.2, 0.7, 0.6, 0.7])
    assert stable_components(probability, 0.6).tolist() == [1, 2, 3]
    assert stable_components(probability, 0.9).tolist() == [1]
