"""Quality against cost, one point a network: the picture of a sweep and of a comparison of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import altair as alt

from facetask.report.format import is_number
from facetask.report.marks import MARGIN, WIDTH, label, metric_title, padded
from facetask.report.metrics import style
from facetask.report.svg import PALETTE, render, source
from facetask.running.results import Metric

_HEIGHT, _LEGEND = 400, 34
_COLOURS = ("accent", "knee", "second", "muted")
_SHAPES = ("circle", "square", "diamond", "triangle-up")
_LETTER, _LINE, _FONT, _STEP = 6.3, 15.0, 12, 8.0
_PLACES = (
    ("center", -13),
    ("center", 23),
    ("left", 4),
    ("right", 4),
    ("left", -13),
    ("right", -13),
    ("left", 22),
    ("right", 22),
)
"""Where a label may stand: alignment and distance below its point; the first that is free is taken."""


@dataclass(frozen=True)
class Point:
    """One network.

    Attributes:
        series: What it belongs to; a series has a colour and a shape.
        cost: What it costs, above 0.
        quality: Its metric over the trials.
        text: What is written at it; nothing for most, where there are many.
        ringed: Whether it stands out.
    """

    series: str
    cost: float
    quality: Metric
    text: str = ""
    ringed: bool = False


@dataclass(frozen=True)
class CostFigure:
    """What is drawn.

    Attributes:
        points: The networks.
        metric: The name of the metric, as in the results.
        unit: Its unit.
        cost: The horizontal axis's title; it is logarithmic.
        cost_format: How the axis's numbers are written, as d3-format says.
        lines: Points that are joined, by their places, in order.
        level: A quality that is drawn as a line right across, and what it is.
        series: The order of the series; by default that of their first points.
    """

    points: Sequence[Point]
    metric: str
    unit: str
    cost: str
    cost_format: str = "~s"
    lines: Sequence[Sequence[int]] = ()
    level: tuple[float | None, str] = (None, "")
    series: Sequence[str] = ()


def cost_figure(figure: CostFigure, width: int = WIDTH) -> str:
    """Return the figure as SVG of a width in pixels, with a legend where there are several series."""
    shown = style(figure.metric)
    factor = 100.0 if shown.scale == "percent" else 1.0
    rows, place_of = _rows(figure, factor)
    if not rows:
        return ""
    series = list(dict.fromkeys([*figure.series, *(point.series for point in figure.points)]))
    level = [figure.level[0] * factor] if figure.level[0] is not None and is_number(figure.level[0]) else []
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    level = [value for value in level if max(low - value, value - high) <= 1.0 * ((high - low) or abs(high))]
    y_domain = padded(min([low, *level]), max([high, *level]), 0.12, 0.12)
    costs = [row["cost"] for row in rows]
    x_domain = [min(costs) / 1.25, max(costs) * 1.25]
    inner, height = width - MARGIN, _HEIGHT if width >= WIDTH else round(0.85 * _HEIGHT)
    joined_rows = [[place_of[point] for point in line if point in place_of] for line in figure.lines]
    level_row = {"quality": level[0], "text": figure.level[1]} if level else None
    _label(rows, joined_rows, level_row, x_domain, y_domain, inner, height)
    x_scale = alt.Scale(type="log", domain=x_domain, nice=False)
    ticks = log_ticks(*x_domain)
    axis = alt.Axis(values=ticks, format=figure.cost_format, grid=False)
    x = alt.X("cost:Q", title=f"{figure.cost} (logarithmic)", scale=x_scale, axis=axis)
    y = alt.Y(
        "quality:Q",
        title=metric_title(shown, figure.unit, " on test images"),
        scale=alt.Scale(domain=y_domain, nice=False, zero=False),
        axis=alt.Axis(tickCount=6),
    )
    legend = alt.Legend(
        title=None,
        orient="top",
        labelColor=PALETTE["ink"],
        labelFontSize=12,
        labelLimit=inner,
        symbolSize=70,
        symbolOpacity=1,
        columns=max(1, int(inner // (40 + _LETTER * max(map(len, series))))),
    )
    several = legend if len(series) > 1 else None
    colours = [PALETTE[_COLOURS[i % len(_COLOURS)]] for i in range(len(series))]
    shapes = [_SHAPES[(i // len(_COLOURS) + i) % len(_SHAPES)] for i in range(len(series))]
    colour = alt.Color("series:N", legend=several, scale=alt.Scale(domain=series, range=colours))
    shape = alt.Shape("series:N", legend=several, scale=alt.Scale(domain=series, range=shapes))
    dots = alt.Chart(source("points"))
    joined, levels = alt.Chart(source("lines")), alt.Chart(source("level"))
    chart = alt.layer(
        levels.mark_rule(color=PALETTE["muted"], strokeDash=[5, 4]).encode(y=y),
        label(
            levels,
            _FONT,
            x=alt.value(level_row["x"] if level_row else 0),
            y=y,
            text=alt.Text("text:N"),
            color=alt.value(PALETTE["muted"]),
        ),
        joined.mark_line(color=PALETTE["muted"], strokeWidth=1.6, opacity=0.8).encode(
            x=x, y=y, detail=alt.Detail("line:N"), order=alt.Order("at:Q")
        ),
        dots.mark_rule(strokeWidth=1.3, opacity=0.75).encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), color=colour),
        dots.transform_filter("datum.ringed")
        .mark_point(size=210, filled=False, strokeWidth=1.8, color=PALETTE["ink"], opacity=1)
        .encode(x=x, y=y),
        dots.mark_point(size=75, filled=True, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        label(dots.transform_filter("datum.text != ''"), _FONT, x=x, y=y, text=alt.Text("text:N")),
    ).properties(width=inner, height=height)
    lines = [
        {"line": str(number), "at": at, "cost": rows[place]["cost"], "quality": rows[place]["quality"]}
        for number, line in enumerate(joined_rows)
        for at, place in enumerate(line)
    ]
    data = {
        "points": rows,
        "lines": lines,
        "level": [level_row] if level_row else [],
    }
    return render(chart, data, f"{shown.label} against {figure.cost} of {len(rows)} networks")


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten inside a range; of a short range, every digit times a power."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        found = [tick for tick in ticks if low <= tick <= high]
        if len(found) >= 4:
            return found
    return found


def _rows(figure: CostFigure, factor: float) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Return a row for each point that can be drawn, and which row each point has."""
    rows: list[dict[str, Any]] = []
    place_of = {}
    for index, point in enumerate(figure.points):
        mean, std = point.quality.mean, point.quality.std
        if mean is None or not is_number(mean) or point.cost <= 0:
            continue
        spread = std if std is not None and is_number(std) else 0.0
        place_of[index] = len(rows)
        rows.append(
            {
                "series": point.series,
                "cost": point.cost,
                "quality": mean * factor,
                "low": (mean - spread) * factor,
                "high": (mean + spread) * factor,
                "text": point.text,
                "ringed": point.ringed,
            }
        )
    return rows, place_of


def _label(
    rows: list[dict[str, Any]],
    lines: Sequence[Sequence[int]],
    level: dict[str, Any] | None,
    x_domain: Sequence[float],
    y_domain: Sequence[float],
    width: int,
    height: int,
) -> None:
    """Give the level's label and each row's a place where it covers no other label, point or line, if there is one."""
    left, across = math.log(x_domain[0]), math.log(x_domain[1] / x_domain[0])

    def at(row: dict[str, Any]) -> tuple[float, float]:
        x = (math.log(row["cost"]) - left) / across * width
        return x, (y_domain[1] - row["quality"]) / (y_domain[1] - y_domain[0]) * height

    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in map(at, rows)]
    for row in rows:
        taken += _along([at({**row, "quality": row[end]}) for end in ("high", "low")])
    for line in lines:
        taken += _along([at(rows[place]) for place in line])

    def stand(row: dict[str, Any], places: Sequence[tuple[float, float, str, float]]) -> None:
        boxes = [_box(x, y, len(row["text"]), align, dy) for x, y, align, dy in places]
        covered = [sum(_overlap(box, other) for other in taken) + _outside(box, width, height) for box in boxes]
        best = covered.index(min(covered))
        x, _, align, dy = places[best]
        row |= {"x": x, "align": align, "dx": {"left": 11, "right": -11}.get(align, 0), "dy": dy}
        taken.append(boxes[best])

    if level is not None:
        _, y = at({**rows[0], **level})
        stand(level, [(x, y, align, dy) for x, align in ((0, "left"), (width, "right")) for dy in (-8, 16)])
        taken += _along([(0, y), (width, y)])
    for row in sorted((row for row in rows if row["text"]), key=lambda row: row["cost"]):
        stand(row, [(*at(row), *place) for place in _PLACES])


Box = tuple[float, float, float, float]


def _along(places: Sequence[tuple[float, float]]) -> list[Box]:
    """Return small boxes along a line."""
    boxes = []
    for (x, y), (next_x, next_y) in pairwise(places):
        steps = max(int(math.hypot(next_x - x, next_y - y) // _STEP), 1)
        for step in range(steps):
            at_x, at_y = x + (next_x - x) * step / steps, y + (next_y - y) * step / steps
            boxes.append((at_x - 2, at_y - 2, at_x + 2, at_y + 2))
    return boxes


def _box(x: float, y: float, letters: int, align: str, dy: float) -> Box:
    """Return about what a label covers: left, top, right, bottom."""
    width = _LETTER * letters
    start = {"left": x + 11, "right": x - 11 - width}.get(align, x - width / 2)
    return start, y + dy - _LINE + 3, start + width, y + dy + 3


def _overlap(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _outside(box: Box, width: int, height: int) -> float:
    """Return about how much of a box lies outside the picture."""
    over = max(-box[0], 0.0) + max(box[2] - width, 0.0) + max(-box[1], 0.0) + max(box[3] - height, 0.0)
    return over * _LINE
