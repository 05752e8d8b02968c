"""Small multiples: many curves, each in a panel of its own on shared axes.

The panels are laid out here, in pixels, and drawn as one flat chart: a Vega-Lite facet of thirty panels takes five
times as long and twice the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from facetask.report.marks import WIDTH, axis_title, label, padded, place
from facetask.report.points import CurvePoints, group_points, powers_of_two, round_ticks, tap_points
from facetask.report.svg import PALETTE, render, source
from facetask.running.results import TaskResult

_PANEL, _GAP, _LEFT, _TITLE, _PLOT, _BOTTOM = 170, 22, 34, 20, 84, 20
_MOST_WITH_REFERENCE = 40
_LONGEST_TITLE = 24


def tap_panels(task: TaskResult, width: int = WIDTH) -> str:
    """Return each tap's characteristic curve in a panel of its own, the best tap's behind it for comparison."""
    curves = tap_points(task)
    best = next((curve for curve in curves if curve.name == task.regress.best_tap), None)
    unit = task.curve.unit if task.curve else ""
    return _panels(curves, best, f"Each tap's characteristic curve, {axis_title('RMSE', unit)}", width)


def group_panels(task: TaskResult, width: int = WIDTH) -> str:
    """Return each coupled group's curve, which decides what its taps keep, in a panel of its own."""
    unit = task.curve.unit if task.curve else ""
    return _panels(group_points(task), None, f"Each coupled group's curve, {axis_title('RMSE', unit)}", width)


@dataclass(frozen=True)
class _Grid:
    """Where each panel lies, and how numbers become pixels inside it."""

    columns: int
    pitch: float
    most: int
    low: float
    high: float

    def left(self, panel: int) -> float:
        """Return a panel's left edge."""
        return _LEFT + (panel % self.columns) * self.pitch

    def right(self, panel: int) -> float:
        """Return a panel's right edge."""
        return self.left(panel) + self.pitch - _GAP

    def top(self, panel: int) -> float:
        """Return the upper edge of a panel's title."""
        return (panel // self.columns) * float(_TITLE + _PLOT + _BOTTOM)

    def bottom(self, panel: int) -> float:
        """Return the lower edge of a panel's plot."""
        return self.top(panel) + _TITLE + _PLOT

    def x(self, panel: int, filters: int) -> float:
        """Return where a number of filters lies, logarithmically."""
        return self.left(panel) + math.log(filters) / math.log(self.most) * (self.pitch - _GAP)

    def y(self, panel: int, rmse: float) -> float:
        """Return where an RMSE lies."""
        return self.bottom(panel) - (rmse - self.low) / (self.high - self.low) * _PLOT


def _panels(curves: Sequence[CurvePoints], reference: CurvePoints | None, description: str, width: int) -> str:
    """Return the panels: a curve and its knee each, and one reference curve behind where there are not too many."""
    if not curves:
        return ""
    values = [rmse for curve in curves for _, rmse in curve.points]
    low, high = padded(min(values), max(values), 0.08, 0.08)
    columns = max(1, (width - _LEFT) // _PANEL)
    most = max(2, *(curve.points[-1][0] for curve in curves))
    grid = _Grid(columns, (width - _LEFT + _GAP) / columns, most, low, high)
    behind = reference if len(curves) <= _MOST_WITH_REFERENCE else None
    lines: list[dict[str, Any]] = []
    knees: list[dict[str, Any]] = []
    for panel, curve in enumerate(curves):
        for role, drawn in (("behind", behind), ("curve", curve)):
            points = drawn.points if drawn else ()
            lines += [{"line": f"{role}{panel}", "role": role, **_at(grid, panel, point)} for point in points]
        text = f"{curve.knee}/{curve.full}"
        knees.append({**_at(grid, panel, curve.knee_point), "text": text, **place("center", -11)})
    x, y = alt.X("x:Q", scale=None, axis=None), alt.Y("y:Q", scale=None, axis=None)
    curve_lines, knee_dots = alt.Chart(source("lines")), alt.Chart(source("knees"))
    chart = alt.layer(
        alt.Chart(source("grid")).mark_rule(color=PALETTE["faint"]).encode(x=x, x2=alt.X2("x2:Q"), y=y),
        alt.Chart(source("texts"))
        .mark_text(baseline="middle", align=alt.ExprRef("datum.align"), fontSize=alt.ExprRef("datum.size"))
        .encode(x=x, y=y, text=alt.Text("text:N"), color=alt.Color("shade:N", scale=None)),
        curve_lines.transform_filter("datum.role == 'behind'")
        .mark_line(color=PALETTE["full"], strokeWidth=1.4)
        .encode(x=x, y=y, detail=alt.Detail("line:N")),
        curve_lines.transform_filter("datum.role == 'curve'")
        .mark_line(color=PALETTE["accent"], strokeWidth=1.8)
        .encode(x=x, y=y, detail=alt.Detail("line:N")),
        knee_dots.mark_circle(color=PALETTE["knee"], size=60, opacity=1).encode(x=x, y=y),
        label(knee_dots, 10.5, x=x, y=y, text=alt.Text("text:N")),
    ).properties(width=width, height=grid.bottom(len(curves) - 1) + _BOTTOM)
    rules, texts = _axes(grid, curves)
    return render(chart, {"grid": rules, "texts": texts, "lines": lines, "knees": knees}, description)


def _at(grid: _Grid, panel: int, point: tuple[int, float]) -> dict[str, float]:
    """Return a point's pixels, to a tenth."""
    return {"x": round(grid.x(panel, point[0]), 1), "y": round(grid.y(panel, point[1]), 1)}


def _axes(grid: _Grid, curves: Sequence[CurvePoints]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return grid lines and texts: titles, RMSE at the left of each row, filters below each column."""
    rules: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    ticks = round_ticks(grid.low, grid.high, 3)
    quiet = {"shade": PALETTE["muted"], "size": 10.5}
    for panel, curve in enumerate(curves):
        name = curve.name if len(curve.name) <= _LONGEST_TITLE else f"{curve.name[: _LONGEST_TITLE - 1]}…"
        title = {"text": name, "align": "left", "shade": PALETTE["ink"], "size": 11.5}
        texts.append({"x": grid.left(panel), "y": grid.top(panel) + 7, **title})
        for tick, written in ticks:
            y = grid.y(panel, tick)
            rules.append({"x": grid.left(panel), "x2": grid.right(panel), "y": y})
            if panel % grid.columns == 0:
                texts.append({"x": grid.left(panel) - 6, "y": y, "text": written, "align": "right", **quiet})
        if panel + grid.columns >= len(curves):
            for filters in powers_of_two(grid.most)[::3]:
                x = grid.x(panel, filters)
                texts.append({"x": x, "y": grid.bottom(panel) + 10, "text": str(filters), "align": "center", **quiet})
    return rules, texts
