"""The report's figures: what they show, and that they are safe and themed SVG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facetask import report
from facetask.report.points import curve_points, powers_of_two, round_ticks, spread_ticks
from facetask.running.results import Results

Make = Callable[..., Results]
FIGURES = {
    "layer_accuracy": report.layer_accuracy,
    "characteristic_curves": report.characteristic_curves,
    "selection_probability": report.selection_probability,
    "kept_filters": report.kept_filters,
    "training_curve": report.training_curve,
    "tap_panels": report.tap_panels,
    "group_panels": report.group_panels,
}


def texts(svg: str) -> list[str]:
    """All texts of a figure, in drawing order."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_lone_svg_whose_colours_follow_the_page(name: str, make_results: Make) -> None:
    svg = FIGURES[name](make_results("yaw").tasks[0])
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert root.get("viewBox", "").startswith("0 0 ")
    painted = {e.get(name, "none") for e in root.iter() for name in ("fill", "stroke")}
    assert any(colour.startswith("var(--fig-") for colour in painted)
    assert all(colour.startswith(("var(--fig-", "none", "transparent")) for colour in painted), painted
    assert not [e for e in root.iter() if e.get("id")], "ids of two inline figures would clash"
    assert "nan" not in svg.lower().replace("nano", "")


def test_every_tap_is_named_in_network_order(make_results: Make) -> None:
    task = make_results("yaw").tasks[0]
    taps = [tap.tap for tap in task.regress.taps]
    shown = [text for text in texts(report.layer_accuracy(task)) if text in taps]
    assert shown == taps


def test_the_best_tap_is_labelled_with_its_metric(make_results: Make) -> None:
    def metric(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["regress"]["best_tap"] = "64_1.conv1"
        raw["tasks"][0]["regress"]["taps"][9]["metrics"]["rmse"] = {"mean": 6.5, "std": 0.25}
        raw["tasks"][0]["prune"]["cut"] = "32_1.conv1"

    shown = [text.replace("\u00a0", " ") for text in texts(report.layer_accuracy(make_results(change=metric).tasks[0]))]
    assert "best: 6.50 ± 0.25 degrees" in shown
    assert [text for text in shown if text.startswith("cut: ")]


def test_guessing_is_drawn_only_where_it_does_not_flatten_the_figure(make_results: Make) -> None:
    def baseline(value: float | None) -> Callable[[dict[str, Any]], None]:
        return lambda raw: raw["tasks"][0]["regress"]["baseline"].update(rmse={"mean": value, "std": 0.0})

    for value, drawn in ((12.0, True), (200.0, False), (None, False)):
        shown = texts(report.layer_accuracy(make_results("yaw", change=baseline(value)).tasks[0]))
        assert ("guessing" in shown) is drawn


def test_the_knees_are_labelled_where_they_are(make_results: Make) -> None:
    task = make_results("age").tasks[0]
    assert task.curve is not None
    best = next(curve for curve in task.curve.taps if curve.tap == task.regress.best_tap)
    svg = report.characteristic_curves(task)
    assert f"{best.tap} (best): knee at {best.knee} of 256" in texts(svg)
    assert "validation RMSE (years)" in texts(svg)
    panels = texts(report.tap_panels(task))
    assert [text for text in panels if "/" in text] == [
        f"{curve.knee}/{tap.n_filters}" for curve, tap in zip(task.curve.taps, task.regress.taps, strict=True)
    ]


def test_kept_filters_are_written_on_the_bars_in_network_order(make_results: Make) -> None:
    task = make_results("yaw").tasks[0]
    assert task.prune is not None
    shown = texts(report.kept_filters(task))
    numbers = [int(text) for text in shown[-len(task.prune.kept) :]]
    assert numbers == list(task.prune.kept.values())


def test_bars_are_as_high_as_their_filters(make_results: Make) -> None:
    """Bar heights, read back from the drawn paths, are proportional to full and kept filters."""
    task = make_results("yaw").tasks[0]
    assert task.prune is not None
    root = ElementTree.fromstring(report.kept_filters(task))
    heights: dict[str, list[float]] = {"full": [], "accent": []}
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        match = re.search(r"--fig-(full|accent)", path.get("fill", ""))
        if match:
            heights[match[1]].append(float(re.search(r"v(-?[\d.]+)h", path.get("d", ""))[1]))
    full, kept = np.array(list(task.prune.full.values())), np.array(list(task.prune.kept.values()))
    assert np.array(heights["full"]) / full == pytest.approx(heights["full"][0] / full[0], rel=1e-2)
    assert np.array(heights["accent"]) / kept == pytest.approx(heights["full"][0] / full[0], rel=1e-2)


@pytest.mark.parametrize(("n", "width"), [(1, 440), (1, 940), (13, 440), (100, 940)])
def test_figures_hold_from_one_tap_to_a_hundred(n: int, width: int, make_results: Make) -> None:
    task = make_results("age", taps={f"features.{i}": 16 + i for i in range(n)}).tasks[0]
    for figure in FIGURES.values():
        root = ElementTree.fromstring(figure(task, width))
        assert float(root.get("width", "nan")) < 1.06 * width


def test_nothing_to_draw_is_an_empty_string(make_results: Make) -> None:
    def unknown(raw: dict[str, Any]) -> None:
        for tap in raw["tasks"][0]["regress"]["taps"]:
            tap["metrics"]["rmse"] = {"mean": None, "std": None}

    task = make_results("yaw", stage="regress", change=unknown).tasks[0]
    assert {name: figure(task) for name, figure in FIGURES.items()} == dict.fromkeys(FIGURES, "")


def test_numbers_that_are_none_or_nan_are_left_out(make_results: Make) -> None:
    def holes(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        task["regress"]["taps"][3]["metrics"]["rmse"] = {"mean": None, "std": None}
        task["regress"]["taps"][4]["metrics"]["rmse"] = {"mean": math.inf, "std": math.nan}
        task["regress"]["taps"][5]["metrics"]["rmse"]["std"] = None
        task["curve"]["taps"][0]["rmse"] = [math.nan] * len(task["curve"]["taps"][0]["rmse"])
        task["curve"]["taps"][1]["rmse"][2] = math.inf
        task["finetune"]["epochs"][1]["validation_rmse"] = math.nan

    task = make_results("yaw", change=holes).tasks[0]
    for name, figure in FIGURES.items():
        svg = figure(task)
        assert svg, name
        assert not re.search(r"NaN|Infinity|null|undefined", svg), name
    assert "stem" not in texts(report.tap_panels(task))


def test_hostile_names_stay_text(make_results: Make) -> None:
    evil = "</svg><script>alert('1')</script>\"&]]>"

    def rename(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        task["regress"]["best_tap"] = task["regress"]["taps"][0]["tap"] = task["curve"]["taps"][0]["tap"] = evil

    task = make_results("yaw", change=rename).tasks[0]
    svg = report.characteristic_curves(task)
    assert "<script" not in svg
    assert any(text.startswith(evil) for text in texts(svg))


def test_png_is_opaque_and_shows_the_figure(make_results: Make, tmp_path: Path) -> None:
    svg = report.training_curve(make_results("yaw").tasks[0])
    report.write_png(svg, tmp_path / "figure.png", scale=1)
    with Image.open(io.BytesIO((tmp_path / "figure.png").read_bytes())) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert image.size[0] == pytest.approx(float(ElementTree.fromstring(svg).get("width", "nan")), abs=1)
    assert pixels[..., 3].min() == 255
    best = np.abs(pixels[..., :3].astype(int) - (0xC2, 0x56, 0x0F)).sum(axis=-1) < 12
    assert 80 < best.sum() < 400, "the best epoch's dot"


@given(st.lists(st.tuples(st.integers(0, 600), st.floats(0.1, 50)), min_size=1, max_size=120), st.integers(1, 600))
def test_curve_points_keep_the_lowest_rmse_and_the_knee(points: list[tuple[int, float]], knee: int) -> None:
    lowest = {k: min(r for other, r in points if other == k) for k, _ in points if k >= 1}
    curve = curve_points("tap", [k for k, _ in points], [r for _, r in points], knee, 600)
    if not lowest:
        assert curve is None
        return
    assert curve is not None
    assert dict(curve.points).items() <= lowest.items()
    assert [k for k, _ in curve.points] == sorted(dict(curve.points))
    assert {min(lowest), max(lowest)} <= dict(curve.points).keys()
    k, rmse = curve.knee_point
    assert k == min(max(knee, min(lowest)), max(lowest))
    if k in lowest:
        assert rmse == lowest[k]
    else:  # on the line between two drawn points
        places, errors = zip(*curve.points, strict=True)
        assert rmse == pytest.approx(np.interp(math.log(k), np.log(places), errors))
    assert len(curve.points) <= 8 * math.log2(600) + 3


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_round_ticks_lie_inside_and_evenly(low: float, span: float) -> None:
    ticks = [tick for tick, _ in round_ticks(low, low + span, 3)]
    assert 1 <= len(ticks) <= 5
    assert all(low - 1e-9 * span <= tick <= low + span + 1e-6 * span for tick in ticks)
    assert np.diff(ticks, 2) == pytest.approx(0, abs=1e-6 * span)


def test_ticks() -> None:
    assert [text for _, text in round_ticks(8, 17, 3)] == ["10", "15"]
    assert [text for _, text in round_ticks(0.28, 0.36, 3)] == ["0.30", "0.35"]
    assert powers_of_two(100) == [1, 2, 4, 8, 16, 32, 64]
    assert powers_of_two(1) == [1, 2]
    assert spread_ticks(3) == [0, 1, 2, 3]
    assert spread_ticks(40) == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    assert spread_ticks(0) == [0]


def test_a_confusion_matrix_shows_each_row_s_shares(make_results: Make) -> None:
    counts = [[0] * 7 for _ in range(7)]
    counts[0][:3], counts[3][3], counts[4] = [6, 3, 1], 20, [0] * 7

    def change(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["regress"]["confusion"] = [[1] * 7] * 7
        raw["tasks"][0]["prune"]["confusion"] = counts

    task = make_results("emotion", change=change).tasks[0]
    svg = report.confusion_matrix(task)
    shown = texts(svg)
    assert [text for text in shown if text.isdigit()] == ["60", "30", "10", "100"]
    assert [text for text in shown if text in task.labels.classes] == 2 * task.labels.classes
    assert {"labelled", "taken for"} <= set(shown)
    assert "pruned" in svg
    assert report.confusion_matrix(make_results("emotion").tasks[0]) == ""


@pytest.mark.parametrize("width", [940, 440])
def test_large_confusion_matrices_are_drawn_without_numbers(make_results: Make, width: int) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["labels"]["classes"] = [f"person {i}" for i in range(40)]
        raw["tasks"][0]["regress"]["confusion"] = [[int(i == j) for i in range(40)] for j in range(40)]

    svg = report.confusion_matrix(make_results("emotion", change=change).tasks[0], width)
    assert not [text for text in texts(svg) if text.isdigit()]
    assert float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1]) <= width + 90  # type: ignore[index]
