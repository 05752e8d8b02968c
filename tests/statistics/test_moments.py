from __future__ import annotations

import tracemalloc
from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetask import CurveError, Moments
from facetask.statistics import rows as module
from facetask.statistics.moments import DEAD_SHARE
from facetask.statistics.rows import Rows


def same(one: Moments, other: Moments, tolerance: float = 1e-12) -> None:
    assert one.n == other.n
    unit = np.concatenate([other.std_x, other.std_y])
    size = np.maximum(unit, np.abs(np.concatenate([other.mean_x, other.mean_y])))
    np.testing.assert_array_less(
        np.abs(np.concatenate([one.mean_x - other.mean_x, one.mean_y - other.mean_y])), tolerance * size + 1e-300
    )
    p = other.n_columns
    for name, rows, columns in (("xx", size[:p], size[:p]), ("xy", size[:p], size[p:]), ("yy", size[p:], size[p:])):
        gap = np.abs(getattr(one, name) - getattr(other, name))
        assert (gap <= tolerance * other.n * np.outer(rows, columns) + 1e-300).all(), name


def test_moments_equal_numpy(rng: np.random.Generator) -> None:
    x, y = rng.normal(5, 2, (300, 4)), rng.normal(-3, 1, (300, 2))
    moments = Moments.from_arrays(x, y)
    both = np.cov(np.hstack([x, y]).T, ddof=0) * 300
    np.testing.assert_allclose(moments.xx, both[:4, :4], rtol=1e-12)
    np.testing.assert_allclose(moments.xy, both[:4, 4:], rtol=1e-12)
    np.testing.assert_allclose(moments.yy, both[4:, 4:], rtol=1e-12)
    np.testing.assert_allclose(moments.std_x, x.std(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.std_y, y.std(axis=0), rtol=1e-13)


def test_blocks_of_rows_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rng.normal(5, 2, (3001, 4)), rng.normal(-3, 1, (3001, 2))
    whole = Moments.from_arrays(x, y)
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 1)
    same(Moments.from_arrays(x, y), whole)


def test_a_memory_mapped_array_is_read_in_blocks(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", rng.standard_normal((200_000, 16)).astype(np.float32))
    x, y = np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(200_000.0)[:, None]
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 2**16)
    tracemalloc.start()
    moments = Moments.from_arrays(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.2 * x.size * 8
    np.testing.assert_allclose(moments.mean_x, x.mean(axis=0, dtype=np.float64), atol=1e-12)


def test_float32_responses_far_from_zero_keep_their_correlation(rng: np.random.Generator) -> None:
    x = (1e4 + rng.standard_normal((5000, 3))).astype(np.float32)
    moments = Moments.from_arrays(x, x[:, :1].copy())
    exact = np.corrcoef(x.astype(np.float64).T)
    gram, _ = moments.standardised(np.arange(3))
    np.testing.assert_allclose(gram, exact, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**16), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_merging_in_any_order_equals_all_at_once(data: st.DataObject, seed: int, sizes: list[int]) -> None:
    random = np.random.default_rng(seed)
    shift = data.draw(st.sampled_from([0.0, 1.0, -1e3]))
    x, y = shift + random.standard_normal((sum(sizes), 3)), random.standard_normal((sum(sizes), 2))
    edges = np.cumsum([0, *sizes])
    parts = [Moments.from_arrays(x[a:b], y[a:b]) for a, b in pairwise(edges)]
    parts = data.draw(st.permutations(parts))
    same(reduce(Moments.merge, parts), Moments.from_arrays(x, y))


def test_columns_are_the_moments_of_those_columns(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((50, 5)), rng.standard_normal((50, 1))
    same(Moments.from_arrays(x, y).columns(np.array([3, 0])), Moments.from_arrays(x[:, [3, 0]], y))


def test_one_image_has_moments_without_spread() -> None:
    moments = Moments.from_arrays(np.array([[1.0, 2.0]]), np.array([[3.0]]))
    assert moments.n == 1
    assert moments.dead_columns.all()
    assert moments.constant_outputs.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_counted_and_located(rng: np.random.Generator, value: float) -> None:
    x, y = rng.standard_normal((600, 5)).astype(np.float32), rng.standard_normal((600, 1))
    x[[3, 590], 4] = value
    x[10, 2] = value
    with pytest.raises(CurveError, match=r"3 of 3000 responses .* column 2 \(1 of 600 images\)"):
        Moments.from_arrays(x, y)
    y[0] = value
    with pytest.raises(CurveError, match=r"1 of 600 targets .* column 0"):
        Moments.from_arrays(np.ones((600, 1)), y)


def test_overflow_is_an_error() -> None:
    with pytest.raises(CurveError, match="overflow"), np.errstate(over="ignore"):
        Moments.from_arrays(np.array([[1e200], [-1e200]]), np.array([[1.0], [2.0]]))


@pytest.mark.parametrize(("x", "y"), [((0, 2), (0, 1)), ((3, 2), (2, 1)), ((3,), (3, 1)), ((3, 2), (3,))])
def test_shapes_that_do_not_fit_are_an_error(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(CurveError, match="n_columns"):
        Moments.from_arrays(np.zeros(x), np.zeros(y))


def test_merging_other_columns_is_an_error(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((9, 3)), rng.standard_normal((9, 1))
    with pytest.raises(CurveError, match="cannot be merged"):
        Moments.from_arrays(x, y).merge(Moments.from_arrays(x[:, :2], y))


def test_screening_leaves_out_the_dead_and_the_copies(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((200, 8)), rng.standard_normal((200, 1))
    x[:, 2] = 0.1
    x[:, 5] = x[:, 1]
    x[:, 6] = -3 * x[:, 1] + 7
    screening = Moments.from_arrays(x.astype(np.float32), y).screen(np.arange(8))
    assert screening.dead == (2,)
    assert screening.duplicates == ((5, 1), (6, 1))
    assert screening.components.tolist() == screening.columns.tolist() == [0, 1, 3, 4, 7]
    assert screening.notes == (
        "1 dead, left out: 2",
        "2 duplicate, left out: 5 (same as 1), 6 (same as 1)",
    )


def test_a_filter_that_hardly_stirs_is_dead(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((200, 4)), rng.standard_normal((200, 1))
    x[:, 1] *= 0.9 * DEAD_SHARE
    x[:, 2] *= 2 * DEAD_SHARE
    x[:, 3] = 0
    x[7, 3] = 1e-6  # one image, faintly
    moments = Moments.from_arrays(x, y)
    assert moments.dead_columns.tolist() == [False, True, False, True]
    assert not Moments.from_arrays(x * 1e-9, y).dead_columns[[0, 2]].any()  # of a tap whose responses are all small


def test_filters_are_compared_with_those_of_their_own_tap(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((200, 6)), rng.standard_normal((200, 1))
    x[:, :3] *= 1e-6
    x[:, 4] *= 1e-4
    assert Moments.from_arrays(x, y).dead_columns.tolist() == [True, True, True, False, True, False]
    moments = Moments.from_arrays(Rows(x, (slice(0, 3), slice(3, 6))), y)
    assert moments.dead_columns.tolist() == [False, False, False, False, True, False]
    some = moments.columns(np.array([5, 0, 4])).merge(moments.columns(np.array([5, 0, 4])))
    assert some.dead_columns.tolist() == [False, False, True]


def test_a_component_is_dead_or_a_copy_only_as_a_whole(rng: np.random.Generator) -> None:
    component = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    x, y = rng.standard_normal((200, 8)), rng.standard_normal((200, 1))
    x[:, 4] = 0
    x[:, [1, 5]] = 2
    x[:, 2] = x[:, 3]
    screening = Moments.from_arrays(x, y).screen(component)
    assert screening.dead == (1,)
    assert screening.duplicates == ()
    assert screening.columns.tolist() == [0, 2, 6, 3, 7]
    x[:, 7] = x[:, 6]
    assert Moments.from_arrays(x, y).screen(component).duplicates == ((3, 2),)


def test_screening_has_an_answer_for_nothing_to_choose(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 1))
    with pytest.raises(CurveError, match="all 3 filters are dead"):
        Moments.from_arrays(np.full((20, 3), 0.3), y).screen(np.arange(3))
    with pytest.raises(CurveError, match="targets are constant"):
        Moments.from_arrays(x, np.full((20, 1), 0.7)).screen(np.arange(3))
    with pytest.raises(CurveError, match="one for each column"):
        Moments.from_arrays(x, y).screen(np.arange(2))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 7, 5000])
def test_rows_that_count_several_times_are_repeated_rows(n: int) -> None:
    random = np.random.default_rng(n)
    x, y = random.standard_normal((n, 600)).astype(np.float32) + 5, random.standard_normal((n, 2))
    times = random.integers(0, 4, n)
    times[0] = 2
    found, expected = Moments.from_arrays(x, y, times), Moments.from_arrays(x.repeat(times, 0), y.repeat(times, 0))
    assert found.n == expected.n
    for field in ("mean_x", "mean_y", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=1e-9, atol=1e-9 * n)


@pytest.mark.parametrize("times", [np.zeros(3, int), np.array([1, -1, 2]), np.ones(2, int)])
def test_times_that_are_no_counts_are_an_error(times: np.ndarray) -> None:
    with pytest.raises(CurveError, match="times"):
        Moments.from_arrays(np.ones((3, 2)), np.ones((3, 1)), times)
