"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetask.report import format as fmt
from facetask.report.metrics import column_label, main_metric, metric_text, ordered
from facetask.running.results import Metric


def plain(text: str) -> str:
    """The text with ordinary spaces and minus signs."""
    return text.replace("\u00a0", " ").replace("−", "-")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7.7, "7.70"),
        (10.62, "10.6"),
        (9.996, "10.0"),
        (1234.5, "1,234"),
        (0.0123456, "0.0123"),
        (-0.5, "-0.500"),
        (0.0, "0.00"),
        (1.234e-9, "1.23e-9"),
        (1.2e18, "1.20e18"),
        (None, "–"),
        (math.nan, "–"),
        (-math.inf, "–"),
    ],
)
def test_number_has_three_significant_digits(value: float | None, expected: str) -> None:
    assert plain(fmt.number(value)) == expected


def test_zero_is_never_negative() -> None:
    assert fmt.number(-0.0001, decimals=2) == "0.00"


@given(st.floats(min_value=1e-4, max_value=1e9))
def test_number_is_within_half_a_per_cent(value: float) -> None:
    assert float(fmt.number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        (7.7, 0.21, "7.70 ± 0.21"),
        (10.62, 0.14, "10.6 ± 0.1"),
        (10.62, 0.03, "10.62 ± 0.03"),
        (1234.0, 56.0, "1,234 ± 56"),
        (0.0, 0.5, "0.00 ± 0.50"),
        (7.7, 0.0, "7.70"),
        (7.7, None, "7.70"),
        (7.7, math.nan, "7.70"),
        (None, 0.2, "–"),
        (math.nan, 0.2, "–"),
    ],
)
def test_mean_and_spread_share_their_decimals(mean: float | None, std: float | None, expected: str) -> None:
    assert plain(fmt.plus_minus(mean, std)) == expected


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.919, "-91.9 %"), (-0.05, "+5.0 %"), (0.0, "±0 %"), (0.99996, "-99.996 %"), (None, "–"), (math.nan, "–")],
)
def test_reduction_is_a_signed_change_that_never_claims_everything(fraction: float | None, expected: str) -> None:
    assert plain(fmt.reduction(fraction)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5_611_040, "5.61 M"), (3552, "3,552"), (231_407, "231 k"), (15_470_300_000, "15.5 G"), (999_999, "1.00 M")],
)
def test_counts_scale(value: int, expected: str) -> None:
    assert plain(fmt.human_count(value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(22_466_066, "22.5 MB"), (832, "832 B"), (926_000, "926 kB"), (1000, "1.00 kB"), (None, "–")],
)
def test_sizes_are_decimal(value: int | None, expected: str) -> None:
    assert plain(fmt.human_bytes(value)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.42, "0.42 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (83.2, "1 min 23 s"),
        (3599.7, "1 h 00 min"),
        (7530, "2 h 06 min"),
        (None, "–"),
    ],
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert plain(fmt.duration(seconds)) == expected


@pytest.mark.parametrize(("n", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (112, "112th")])
def test_ordinals(n: int, text: str) -> None:
    assert fmt.ordinal(n) == text


@pytest.mark.parametrize(
    ("name", "unit", "expected", "bare", "column"),
    [
        ("rmse", "degrees", "0.914 ± 0.006 degrees", "0.914 ± 0.006", "RMSE, degrees"),
        ("rmse", "", "0.914 ± 0.006", "0.914 ± 0.006", "RMSE"),
        ("accuracy", "years", "91.4 ± 0.6 %", "91.4 ± 0.6", "accuracy, %"),
        ("r2", "years", "0.914 ± 0.006", "0.914 ± 0.006", "R²"),
        ("top_5_hits", "years", "0.914 ± 0.006", "0.914 ± 0.006", "top 5 hits"),
    ],
)
def test_a_metric_is_shown_on_its_own_scale(name: str, unit: str, expected: str, bare: str, column: str) -> None:
    metric = Metric(mean=0.914, std=0.006)
    assert plain(metric_text(name, metric, unit)) == expected
    assert plain(metric_text(name, metric, unit, with_units=False)) == bare
    assert column_label(name, unit) == column


def test_a_missing_metric_is_a_dash_without_unit() -> None:
    for metric in (None, Metric(mean=None, std=None), Metric(mean=math.nan, std=0.1)):
        assert metric_text("rmse", metric, "degrees") == "–"
        assert metric_text("accuracy", metric) == "–"


def test_metrics_stand_in_the_order_that_suits_the_kind() -> None:
    names = ["zeta", "r2", "accuracy", "rmse", "alpha", "within_one", "rmse"]
    assert ordered("continuous", names) == ["rmse", "r2", "accuracy", "within_one", "alpha", "zeta"]
    assert ordered("binned", names) == ["accuracy", "within_one", "rmse", "r2", "alpha", "zeta"]


@pytest.mark.parametrize(
    ("kind", "names", "expected"),
    [
        ("continuous", ["mae", "rmse"], "rmse"),
        ("binary", ["auc", "accuracy"], "accuracy"),
        ("binned", ["rmse", "accuracy"], "accuracy"),
        ("nominal", ["own_score"], "own_score"),
        ("nominal", [], "accuracy"),
    ],
)
def test_the_main_metric_follows_the_kind_and_what_exists(kind: str, names: list[str], expected: str) -> None:
    assert main_metric(kind, names) == expected
