"""What the report says of knees, thresholds and selection probabilities."""

from __future__ import annotations

import html as escaping
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from facetask import report
from facetask.report import render_report
from facetask.report.tables import thresholds_table
from facetask.running.results import Results

Make = Callable[..., Results]


def with_curve(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["tasks"][0]["curve"].update(fields)


def text_of(results: Results) -> str:
    return escaping.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render_report(results))))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "by at most 0.01 of the curve’s range."),
        ({"rule": "elbow"}, "The dot is the knee: where the curve bends most"),
        ({"rule": "one-standard-error"}, "whose mean error over the trials is within one standard error"),
        ({"rule": "filters: 12"}, "The dot is the knee: the 12 filters asked for."),
        ({"rule": "fraction: 0.25"}, "the asked fraction of the filters, 0.25."),
        ({"refit": "none"}, "errors are those of the selector’s own model, not fitted anew."),
        ({"draws": 33}, "3 trials and 30 bootstrap resamples of their training images"),
        ({"draws": 3}, "in which share of 3 trials it is"),
    ],
)
def test_the_caption_says_what_was_drawn(fields: dict[str, Any], words: str, make_results: Make) -> None:
    assert words in text_of(make_results("yaw", change=with_curve(**fields)))


def test_thresholds_are_swept_for_the_best_tap_and_the_cut(make_results: Make) -> None:
    def change(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        task["regress"]["best_tap"], task["prune"]["cut"] = "64_1.conv1", "32_1.conv1"
        for curve in task["curve"]["taps"]:
            curve["n_filters"], curve["rmse"] = [1, 2, 4, 8, 16], [12.0, 5.5, 2.05, 2.015, 2.0]
        task["curve"]["taps"][1]["rmse"][4] = math.nan  # the cut's

    table = thresholds_table(make_results("yaw", change=change).tasks[0])
    assert table is not None
    assert table.head == ["tap", "threshold 0.1", "threshold 0.01", "threshold 0.001"]
    assert table.rows == [
        ["32_1.conv1 (cut)", "4 (2.05)", "4 (2.05)", "8 (2.02)"],
        ["64_1.conv1 (best)", "4 (2.05)", "4 (2.05)", "16 (2.00)"],
    ]


def test_without_a_finite_curve_there_is_no_sweep(make_results: Make) -> None:
    def change(raw: dict[str, Any]) -> None:
        for curve in raw["tasks"][0]["curve"]["taps"]:
            curve["rmse"] = [math.nan] * len(curve["rmse"])

    assert thresholds_table(make_results("yaw", change=change).tasks[0]) is None
    assert thresholds_table(make_results("yaw", stage="regress").tasks[0]) is None


@pytest.mark.parametrize("width", [440, 940])
def test_probabilities_are_drawn_from_the_likeliest_down(width: int, make_results: Make) -> None:
    def change(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        for curve in task["curve"]["taps"]:
            curve["probability"], curve["knee"] = [0.25, 0.0, 1.0, 0.5], 2

    svg = report.selection_probability(make_results("yaw", change=change).tasks[0], width)
    assert "knee: 2" in svg
    bars = [
        (fill, float(height))
        for path in re.findall(r"<path[^>]*>", svg)
        for fill in re.findall(r"--fig-(full|accent)", path)
        for height in re.findall(r"v(-?[\d.]+)h", path)
    ]
    tallest = max(height for _, height in bars)
    assert sorted((fill, round(height / tallest, 2)) for fill, height in bars) == [
        ("accent", 0.5),
        ("accent", 1.0),
        ("full", 0.25),
    ]


def test_one_draw_has_no_probability(make_results: Make) -> None:
    def change(raw: dict[str, Any]) -> None:
        for curve in raw["tasks"][0]["curve"]["taps"]:
            curve["probability"] = None

    results = make_results("yaw", change=change)
    assert report.selection_probability(results.tasks[0]) == ""
    assert "bootstrap" not in text_of(results)
