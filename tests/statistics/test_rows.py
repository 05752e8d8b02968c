from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facetask import Moments
from facetask.statistics import rows as module
from facetask.statistics.known import available_moments, known_together, ridge_of_known, taylor_terms, tune_known
from facetask.statistics.multinomial import fit_multinomial
from facetask.statistics.regression import LinearModel
from facetask.statistics.rows import Rows

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 30), height=st.integers(1, 35), takes=st.integers(0, 3), tables=st.integers(1, 3))
def test_rows_are_what_indexing_gives(seed: int, n: int, height: int, takes: int, tables: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((n, 9)).astype(np.float32)
    starts = rng.integers(0, 8, tables)
    columns = tuple(slice(int(start), int(rng.integers(start, 10))) for start in starts)
    rows, expected = Rows(matrix, columns), np.concatenate([matrix[:, part] for part in columns], axis=1)
    for _ in range(takes):
        index = rng.integers(0, len(rows), rng.integers(1, 40))
        rows, expected = rows[index], expected[index]
    assert rows.shape == expected.shape
    np.testing.assert_array_equal(rows.array(), expected)
    seen = np.full(expected.shape, np.nan)
    for where, block in rows.blocks(height):
        assert len(block) <= height
        seen[where] = block
    np.testing.assert_array_equal(seen, expected)


def test_all_of_an_array_is_read_without_a_copy() -> None:
    x = np.ones((10, 3), dtype=np.float32)
    assert [np.shares_memory(block, x) for _, block in Rows.of(x).blocks(4)] == [True] * 3
    rows = Rows(x, (slice(0, 2),))
    assert Rows.of(rows) is rows


def model_of(x: Any, y: np.ndarray) -> LinearModel:
    rng = np.random.default_rng(0)
    return LinearModel(coef=rng.standard_normal((x.shape[1], y.shape[1])), intercept=rng.standard_normal(y.shape[1]))


def filled(y: np.ndarray) -> np.ndarray:
    return np.nan_to_num(y, nan=0.5)


def times_of(y: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3, len(y))


def sums(moments: Moments) -> list[Any]:
    return [value for name, value in vars(moments).items() if name != "tap"]


CONSUMERS: dict[str, Callable[[Any, np.ndarray], list[Any]]] = {
    "moments": lambda x, y: sums(Moments.from_arrays(x, filled(y))),
    "moments of a resample": lambda x, y: sums(Moments.from_arrays(x, filled(y), times_of(y))),
    "available moments": lambda x, y: sums(available_moments(x, y)),
    "available moments of a resample": lambda x, y: sums(available_moments(x, y, times_of(y))),
    "tuned regression": lambda x, y: list(vars(tune_known(known_together(x, y, x, y)).model).values()),
    "ridge": lambda x, y: list(vars(ridge_of_known(x, y, 10.0)).values()),
    "predictions": lambda x, y: [model_of(x, y).predict(x)],
    "gradients": lambda x, y: [taylor_terms(model_of(x, y), x, y)],
    "classifier": lambda x, y: list(
        vars(fit_multinomial(x, (classes := (filled(y)[:, 0] > 0).astype(int)), x, classes, 3)).values()
    ),
}


@pytest.mark.parametrize("consumer", CONSUMERS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=SEEDS, height=st.integers(1, 70))
def test_small_blocks_of_rows_change_nothing(
    consumer: str, seed: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    matrix = np.maximum(rng.standard_normal((120, 9)), 0).astype(np.float32)
    index, columns = rng.permutation(120)[:60], (slice(1, 3), slice(5, 9))
    x = np.concatenate([matrix[index, part] for part in columns], axis=1)
    y = x[:, :2] @ rng.standard_normal((2, 2)) + 0.5 * rng.standard_normal((60, 2))
    y[rng.random(y.shape) < 0.3] = np.nan
    expected = CONSUMERS[consumer](x.astype(np.float64), y)
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 0)
    monkeypatch.setattr(module, "LEAST_ROWS", height)
    monkeypatch.setattr("facetask.statistics.multinomial.MOST_ENTRIES_IN_MEMORY", 0)
    found = CONSUMERS[consumer](Rows(matrix, columns, index), y)
    monkeypatch.undo()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6 if consumer == "classifier" else 1e-9, atol=1e-9)
