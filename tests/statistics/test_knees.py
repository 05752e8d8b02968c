from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from facetask import CurveError
from facetask.config import KneeSize, PruneConfig
from facetask.statistics.curves import Curve
from facetask.statistics.knees import elbow, envelope, exactly, find_knee, knee, one_standard_error, sweep

CURVES = st.lists(st.tuples(st.integers(1, 50), st.floats(0.1, 10)), min_size=1, max_size=30)


def curve(n_filters: Sequence[int], rmse: Sequence[float], supports: Sequence[Sequence[int]] | None = None) -> Curve:
    arrays = tuple(np.array(support) for support in supports or [range(k) for k in n_filters])
    order = list(dict.fromkeys(int(index) for support in arrays for index in support))
    return Curve(
        n_filters=tuple(n_filters),
        rmse=tuple(rmse),
        supports=arrays,
        unpruned_rmse=0.0,
        order=np.array(order, dtype=np.intp),
    )


def of(points: list[tuple[int, float]]) -> Curve:
    return curve([k for k, _ in points], [rmse for _, rmse in points])


def kept(drawn: Curve, rule: Any, n: int = 20, others: Sequence[Curve] = (), **settings: Any) -> tuple[int, list[int]]:
    found = find_knee(drawn, PruneConfig(knee=rule, **settings), n, others)
    return found.n_filters, found.support.tolist()


# Threshold


def test_the_knee_is_the_fewest_filters_within_the_threshold() -> None:
    shape = curve([1, 2, 4, 8, 16], [2.0, 1.5, 1.1, 1.0, 1.05])
    assert [knee(shape, t) for t in (0, 0.05, 0.1, 0.5, 1)] == [3, 3, 2, 1, 0]
    assert kept(shape, "threshold", threshold=0.1) == (4, [0, 1, 2, 3])


def test_a_sweep_is_the_knee_at_each_threshold() -> None:
    shape = curve([1, 2, 4, 8, 16], [2.0, 1.5, 1.1, 1.0, 1.05])
    assert sweep(shape, [0.5, 0.1, 0]) == ((2, 1.5), (4, 1.1), (8, 1.0))
    assert sweep(SimpleNamespace(n_filters=[1, 2], rmse=[2.0, 1.0]), [0.01]) == ((2, 1.0),)


def test_of_equally_many_filters_the_knee_has_the_lowest_error() -> None:
    assert knee(curve([3, 3, 3, 5], [1.02, 1.0, 1.01, 1.0]), 1) == 1


def test_the_order_of_the_points_does_not_matter() -> None:
    assert knee(curve([16, 4, 1], [1.0, 1.05, 2.0]), 0.1) == 1


def test_a_flat_curve_needs_one_filter() -> None:
    flat = curve([1, 2, 3], [0.1 + 0.2] * 3)
    assert knee(flat, 0) == 0
    assert elbow(flat) == 0
    assert one_standard_error([flat, flat]) == 1


@settings(max_examples=100, deadline=None)
@given(points=CURVES, threshold=st.floats(0, 1))
def test_the_knee_is_within_the_threshold_and_no_point_with_fewer_filters_is(
    points: list[tuple[int, float]], threshold: float
) -> None:
    shape = of(points)
    best, worst = min(shape.rmse), max(shape.rmse)
    index = knee(shape, threshold)
    assert shape.rmse[index] <= best + threshold * (worst - best) + 1e-12
    assert all(rmse > best + threshold * (worst - best) - 1e-12 for k, rmse in points if k < shape.n_filters[index])


@settings(max_examples=100, deadline=None)
@given(points=CURVES, thresholds=st.lists(st.floats(0, 1), min_size=2, max_size=6).map(sorted))
def test_larger_thresholds_never_keep_more_filters(points: list[tuple[int, float]], thresholds: list[float]) -> None:
    swept = sweep(of(points), thresholds)
    assert all(more >= fewer for (more, _), (fewer, _) in pairwise(swept))


@pytest.mark.parametrize("rmse", [[], [1.0, np.nan], [np.inf]])
@pytest.mark.parametrize("rule", ["threshold", "elbow", KneeSize(filters=1)])
def test_a_curve_without_points_or_with_other_than_numbers_has_no_knee(rule: Any, rmse: list[float]) -> None:
    with pytest.raises(CurveError, match="no knee"):
        kept(curve([1] * len(rmse), rmse), rule)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan])
def test_a_threshold_outside_its_range_is_an_error(threshold: float) -> None:
    with pytest.raises(CurveError, match="threshold"):
        knee(curve([1], [1.0]), threshold)


# Elbow


def test_the_elbow_of_a_bent_line_is_its_corner() -> None:
    sizes = list(range(1, 41))
    rmse = [10 - k if k <= 8 else 2 - 0.01 * (k - 8) for k in sizes]
    assert kept(curve(sizes, rmse), "elbow", 40) == (8, list(range(8)))


def test_the_elbow_of_a_hyperbola_is_where_its_slope_is_the_chord_s() -> None:
    # 1/x on [1, 16], scaled to the unit square, falls as steeply as the diagonal at x = √16.
    sizes = list(range(1, 17))
    assert sizes[elbow(curve(sizes, [1 / k for k in sizes]))] == 4


def test_the_elbow_is_read_off_the_lower_envelope() -> None:
    # The outliers above the envelope are no part of it; the one of two points with 8 filters is the lower.
    shape = curve([1, 4, 8, 8, 20, 40], [10.0, 7.0, 9.0, 2.0, 6.0, 1.9])
    assert elbow(shape) == 3


def test_where_nothing_bends_the_elbow_is_the_best_point() -> None:
    assert elbow(curve([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0])) == 3  # a straight line
    assert elbow(curve([1, 2, 3, 4], [4.0, 3.9, 3.5, 1.0])) == 3  # bent the other way
    assert elbow(curve([7], [1.0])) == 0


@settings(max_examples=100, deadline=None)
@given(points=CURVES, factor=st.floats(0.1, 10), offset=st.floats(0, 10))
def test_the_elbow_does_not_depend_on_the_unit(points: list[tuple[int, float]], factor: float, offset: float) -> None:
    lowest = envelope(of(points), np.unique([k for k, _ in points]))
    assume(lowest[0] - lowest[-1] > 1e-3 or lowest[0] == lowest[-1])
    # Round numbers, so that no two points are equal up to rounding only.
    points = [(k, round(rmse, 2)) for k, rmse in points]
    shape, scaled = of(points), of([(k, factor * rmse + offset) for k, rmse in points])
    assert shape.n_filters[elbow(shape)] == shape.n_filters[elbow(scaled)]


# One standard error


def test_one_standard_error_by_hand() -> None:
    sizes = [1, 2, 4, 8]
    trials = [curve(sizes, rmse) for rmse in ([4.0, 2.2, 2.0, 1.8], [4.4, 2.4, 2.2, 2.2], [4.8, 3.2, 2.4, 2.3])]
    # Means 4.4, 2.6, 2.2, 2.1; at 8 filters the sample standard deviation is 0.2646, the error 0.1528: 2.2528 allowed.
    assert one_standard_error(trials) == 4
    assert kept(trials[1], "one-standard-error", others=[trials[0], trials[2]]) == (4, [0, 1, 2, 3])


def test_trials_with_other_numbers_of_filters_share_a_grid() -> None:
    one, two = curve([1, 4, 9], [3.0, 2.0, 1.0]), curve([2, 5, 9], [3.1, 2.1, 0.9])
    # Grid 2, 4, 5, 9: 1 is out, as the second trial does not reach it. Only 9 is within 0.95 ± 0.05.
    assert one_standard_error([one, two]) == 9
    # A trial whose path has no point of exactly that size keeps its best with at most as many.
    other = curve([1, 3, 12], [3.0, 1.0, 0.9])
    assert kept(other, "one-standard-error", others=[curve([1, 5, 12], [3.0, 1.0, 1.3])])[0] == 3


@settings(max_examples=100, deadline=None)
@given(trials=st.lists(CURVES.map(of), min_size=2, max_size=4))
def test_one_standard_error_never_keeps_more_than_the_best_mean(trials: list[Curve]) -> None:
    k = one_standard_error(trials)
    sizes = np.unique(np.concatenate([each.n_filters for each in trials]))
    mean = np.mean([envelope(each, sizes) for each in trials], axis=0)
    assert k <= sizes[np.flatnonzero(mean == mean.min())[0]]


def test_one_trial_has_no_standard_error() -> None:
    with pytest.raises(CurveError, match="set trials to 2 or more"):
        kept(curve([1], [1.0]), "one-standard-error")


# A given number


def test_the_point_with_as_many_filters() -> None:
    shape = curve([2, 3, 3, 5], [3.0, 2.0, 1.0, 0.5], [[0, 1], [0, 1, 2], [0, 1, 4], [0, 1, 2, 3, 4]])
    assert kept(shape, KneeSize(filters=3)) == (3, [0, 1, 4])
    assert kept(shape, KneeSize(fraction=0.15)) == (3, [0, 1, 4])
    assert kept(shape, KneeSize(fraction=0.01)) == (1, [0])
    assert kept(shape, KneeSize(filters=99), n=6) == (6, [0, 1, 2, 3, 4, 5])
    assert kept(shape, KneeSize(fraction=1.0), n=6) == (6, [0, 1, 2, 3, 4, 5])


def test_the_point_below_is_filled_up_in_the_order_of_first_appearance() -> None:
    shape = curve([1, 2, 6], [3.0, 2.0, 1.0], [[5], [3, 5], [0, 1, 3, 5, 7, 8]])
    assert kept(shape, KneeSize(filters=4)) == (4, [0, 1, 3, 5])
    # Seven: more than the path ever chooses; what never appears comes last.
    assert kept(shape, KneeSize(filters=7)) == (7, [0, 1, 2, 3, 5, 7, 8])


def test_a_path_that_begins_with_more_filters_gives_its_first() -> None:
    assert kept(curve([3], [1.0], [[2, 5, 8]]), KneeSize(filters=2)) == (2, [2, 5])


@settings(max_examples=60, deadline=None)
@given(points=CURVES, wanted=st.integers(1, 60), n=st.integers(50, 60))
def test_a_given_number_is_kept_exactly(points: list[tuple[int, float]], wanted: int, n: int) -> None:
    found = find_knee(of(points), PruneConfig(knee=KneeSize(filters=wanted)), n)
    assert found.n_filters == len(found.support) == min(wanted, n)
    assert len(np.unique(found.support)) == len(found.support)
    assert found.support[-1] < n


def test_exactly_keeps_what_comes_first_even_if_it_is_more() -> None:
    ranking = np.array([4, 3, 2, 1, 0])
    chosen, first = np.isin(np.arange(5), [3, 4]), np.isin(np.arange(5), [0, 1])
    assert np.flatnonzero(exactly(chosen, 3, ranking, first)).tolist() == [0, 1, 4]
    assert np.flatnonzero(exactly(chosen, 1, ranking, first)).tolist() == [0, 1]
    assert np.flatnonzero(exactly(chosen, 3, ranking)).tolist() == [2, 3, 4]
