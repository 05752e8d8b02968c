"""Two orders compared."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from facetask.experiments.rank.agreement import chance_of, compare_orders

NUMBERS = st.lists(st.floats(-10, 10), min_size=2, max_size=12, unique=True)


@given(NUMBERS)
def test_the_same_order_is_one_and_the_other_way_round_minus_one(values: list[float]) -> None:
    ranks = [float(rank) for rank in rankdata(values)]
    same, reverse = compare_orders(values, ranks), compare_orders(values, [-rank for rank in ranks])
    assert (same.n, same.weighted_tau, same.spearman) == (len(values), pytest.approx(1), pytest.approx(1))
    assert (reverse.weighted_tau, reverse.spearman) == (pytest.approx(-1), pytest.approx(-1))


def test_an_exchange_among_the_best_costs_more_than_one_among_the_worst() -> None:
    best, worst = compare_orders([1, 2, 3, 5, 4], [1, 2, 3, 4, 5]), compare_orders([2, 1, 3, 4, 5], [1, 2, 3, 4, 5])
    assert best.spearman == pytest.approx(worst.spearman)
    assert best.weighted_tau is not None
    assert worst.weighted_tau is not None
    assert best.weighted_tau < worst.weighted_tau


def test_what_has_no_number_in_both_does_not_count() -> None:
    found = compare_orders([1, None, 3, math.nan, 2], [10, 20, 30, 40, None])
    assert (found.n, found.weighted_tau) == (2, pytest.approx(1))
    assert compare_orders([1], [2]).weighted_tau is None
    assert compare_orders([1, 1, 1], [1, 2, 3]).spearman is None


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_of_all_orders_one_is_perfect(n: int) -> None:
    assert chance_of(range(n), [10.0 * i for i in range(n)]) == pytest.approx(1 / math.factorial(n))
    assert chance_of(range(n), [-i for i in range(n)]) == 1


def test_many_things_have_no_chance_told() -> None:
    assert chance_of(range(7), range(7)) is None
    assert chance_of([1, 1], [1, 2]) is None
