"""The figures of single filters: which tasks share them, how one responds, what other selectors would choose."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from facetask import report
from facetask.filters.comparison import Comparison
from facetask.report.tables import as_markdown
from facetask.running.results import Metric, Results

Make = Callable[..., Results]
TAPS = {"low": 16, "high": 10}
KEPT = {"yaw": [0, 1, 2, 3, 9], "age": [2, 3, 4], "gender": [3, 4, 5, 6]}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


def rectangles(svg: str, colour: str) -> list[tuple[float, float]]:
    """Left and upper edges of all rectangles of a palette's colour."""
    found = []
    for path in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        if f"--fig-{colour}," in path.get("fill", ""):
            match = re.match(r"M([\d.]+),([\d.]+)", path.get("d", ""))
            assert match
            found.append((float(match[1]), float(match[2])))
    return found


@pytest.fixture
def three(make_results: Make) -> Results:
    """Three tasks that keep KEPT of the tap `high`."""

    def change(raw: dict[str, Any]) -> None:
        for task in raw["tasks"]:
            task["regress"]["best_tap"] = "high"
            task["curve"]["taps"][1] |= {"keep_set": KEPT[task["name"]], "probability": None}

    return make_results(*KEPT, taps=TAPS, stage="curve", change=change)


def test_overlaps_are_counted(three: Results) -> None:
    table = report.sharing_table(three.tasks, "high")
    assert table is not None
    assert [row[:2] for row in table.rows] == [
        ["all 3 tasks", "1"],
        ["yaw and age", "2"],
        ["yaw and gender", "1"],
        ["age and gender", "2"],
        ["yaw alone", "3"],
        ["age alone", "0"],
        ["gender alone", "2"],
        ["no task", "2"],
    ]
    shares = np.array([5, 3, 4]) / 10
    expected = [10 * shares.prod(), 10 * 0.15, 10 * 0.2, 10 * 0.12, 5 * 0.7 * 0.6, 3 * 0.5 * 0.6, 4 * 0.5 * 0.7, 2.1]
    assert [float(row[2]) for row in table.rows] == pytest.approx(expected, abs=0.051)
    assert table.head[0] == "kept by, of 10 filters of high"
    assert as_markdown(table).startswith("| kept by, of 10 filters of high | filters | by chance |\n| --- |")


def test_the_map_has_a_cell_for_each_kept_filter(three: Results) -> None:
    svg = report.filter_map(three.tasks, "high")
    shared, alone = rectangles(svg, "accent"), rectangles(svg, "knee")
    assert (len(shared), len(alone)) == (7, 5)
    rows = sorted({top for _, top in shared + alone})
    assert [sum(top == row for _, top in shared + alone) for row in rows] == [5, 3, 4]
    # What all three keep stands in front, in one column.
    first = min(left for left, _ in shared)
    assert [top for left, top in sorted(shared) if left == first] == rows
    assert {"yaw", "age", "gender", "5 of 10", "3 of 10", "4 of 10"} <= set(texts(svg))
    assert [text for text in texts(svg) if text.isdigit()] == ["1", "1", "1", "3", "2"]


def test_a_filter_that_is_seldom_chosen_is_paler(make_results: Make) -> None:
    def change(raw: dict[str, Any]) -> None:
        chances = [1.0, 0.1] + [0.0] * 8
        raw["tasks"][0]["curve"]["taps"][1] |= {"keep_set": [0, 1], "probability": chances}

    svg = report.filter_map(make_results("yaw", taps=TAPS, change=change).tasks, "high")
    painted = [e for e in ElementTree.fromstring(svg).iter() if "--fig-accent," in e.get("fill", "")]
    assert sorted(float(e.get("opacity", "1")) for e in painted) == pytest.approx([0.37, 1.0])


def test_without_keep_sets_there_is_no_map(make_results: Make) -> None:
    tasks = make_results("yaw", "age", stage="regress").tasks
    assert report.filter_map(tasks, tasks[0].regress.best_tap) == ""
    assert report.sharing_table(tasks, tasks[0].regress.best_tap) is None
    assert report.filter_map(make_results("yaw").tasks, "no such tap") == ""


def test_the_page_shows_what_tasks_share_and_how_a_filter_responds(three: Results, make_results: Make) -> None:
    html = report.render_report(three)
    assert html.count("Which filters the tasks share") == 1
    assert '<th scope="row">yaw and age</th>' in html
    assert html.count("What a single filter tells") == 2  # yaw and age; gender has no continuous label
    alone = report.render_report(make_results("yaw"))
    assert "Which filters the tasks share" not in alone
    assert "filter 7 of 128_1.conv1" in alone


@pytest.mark.parametrize("width", [940, 440])
def test_a_response_is_drawn_against_the_label_in_its_unit(make_results: Make, width: int) -> None:
    task = make_results("yaw").tasks[0]
    svg = report.filter_response(task, task.responses[0], width)
    assert {"yaw (degrees)", "response (mean activation)"} <= set(texts(svg))
    assert f"filter 7 of {task.regress.best_tap}: r = 0.61 over 5,902 images" in texts(svg)
    assert report.filter_response(task, task.responses[0].model_copy(update={"bins": []})) == ""
    dead = task.responses[0].model_copy(update={"correlation": None})
    assert any("constant over 5,902 images" in text for text in texts(report.filter_response(task, dead)))


def comparison(**selectors: list[float]) -> Comparison:
    metrics = {
        name.replace("_", "-"): tuple({"rmse": Metric(mean=value, std=0.25)} for value in values)
        for name, values in selectors.items()
    }
    return Comparison("yaw", "high", 128, 3, (8, 16, 32, 64), metrics, {"rmse": Metric(mean=7.5, std=0.1)})


@pytest.mark.parametrize("width", [940, 440])
def test_selectors_are_named_apart_from_each_other(width: int) -> None:
    found = comparison(
        lasso=[10, 9, 8, 7.6], greedy=[10.01, 9, 8, 7.6], random=[10.02, 12, 10, 9], l1_norm=[20, 12, 10, 9]
    )
    svg = report.selectors_figure(found, "degrees", "lasso", width)
    shown = texts(svg)
    assert {"test RMSE (degrees)", "filters of high (logarithmic)", "all 128: 7.50"} <= set(shown)
    heights = []
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        if element.text in found.selectors:
            match = re.search(r"translate\([\d.-]+,([\d.-]+)\)", element.get("transform", ""))
            assert match
            heights.append(float(match[1]))
    assert len(heights) == 4
    assert np.diff(sorted(heights)).min() > 12


def test_the_table_of_selectors() -> None:
    table = report.selectors_table(comparison(lasso=[10, 9, 8, 7.6]), "rmse", "degrees")
    assert table.head == ["RMSE, degrees at", "8 filters", "16 filters", "32 filters", "64 filters"]
    assert [cell.replace("\u00a0", " ") for cell in table.rows[0]][:2] == ["lasso", "10.0 ± 0.2"]
    assert table.rows[1][0] == "all 128 filters"


def test_a_selector_without_a_number_is_left_out_of_the_figure() -> None:
    svg = report.selectors_figure(comparison(lasso=[10, 9, 8, 7.6], odd=[math.nan] * 4), "", "lasso")
    assert "odd" not in texts(svg)
    assert "nan" not in svg.lower()


def test_the_page_lists_dead_and_duplicate_filters(make_results: Make) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["curve"]["taps"][0]["notes"] = ["1 dead, left out: 5", "1 duplicate, left out: 7 (same as 2)"]

    html = report.render_report(make_results("yaw", taps=TAPS, change=change))
    assert "<li>low: 1 dead, left out: 5; 1 duplicate, left out: 7 (same as 2)</li>" in html


def test_the_page_shows_a_comparison_where_there_is_one(make_results: Make) -> None:
    html = report.render_report(make_results("yaw", "age"), [comparison(lasso=[10, 9, 8, 7.6], random=[12, 11, 10, 9])])
    assert html.count("How other selectors would do") == 1
    assert '<th scope="row">random</th>' in html
