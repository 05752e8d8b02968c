"""Selectors at equally many filters: one figure and one table of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import altair as alt

from facetask.report.format import is_number, number
from facetask.report.marks import MARGIN, WIDTH, axis_title, padded
from facetask.report.metrics import metric_text, style
from facetask.report.svg import PALETTE, render, source
from facetask.report.tables import Table

if TYPE_CHECKING:
    from facetask.filters.comparison import Comparison

_HEIGHT, _LINE = 340, 17
_NAME_ROOM = 0.95
"""What the names take of the horizontal axis, in doublings of the number of filters."""


def selectors_figure(found: Comparison, unit: str, chosen: str = "", width: int = WIDTH) -> str:
    """Return the test RMSE at each number of filters, one line a selector, named where it begins.

    Args:
        found: The comparison.
        unit: The RMSE's unit.
        chosen: The run's own selector, which stands out.
        width: In pixels.
    """
    rows: list[dict[str, Any]] = []
    names: list[dict[str, Any]] = []
    for name, metrics in found.selectors.items():
        for size, measured in zip(found.sizes, metrics, strict=True):
            rmse = measured["rmse"]
            if rmse.mean is not None and is_number(rmse.mean):
                spread = rmse.std or 0.0
                shown = {"size": size, "rmse": rmse.mean, "low": rmse.mean - spread, "high": rmse.mean + spread}
                rows.append({"name": name, "role": _role(name, chosen), **shown})
        if rows and rows[-1]["name"] == name:
            first = next(row for row in rows if row["name"] == name)
            names.append({"text": name, "role": first["role"], "size": first["size"], "rmse": first["rmse"]})
    whole = found.everything["rmse"].mean
    if not rows or whole is None:
        return ""
    level_name = {"text": f"all {found.n_filters}: {number(whole)}", "role": "other", "size": found.sizes[0]}
    names.append({**level_name, "rmse": whole})
    domain = padded(min(whole, *(row["low"] for row in rows)), max(row["high"] for row in rows), 0.14, 0.06)
    height = _HEIGHT if width >= WIDTH else round(0.9 * _HEIGHT)
    per_pixel = (domain[1] - domain[0]) / height
    apart = _apart([row["rmse"] for row in names], _LINE * per_pixel)
    for row, at in zip(names, apart, strict=True):
        row |= {"at": at, "beside": row["size"] * 0.93, "end": row["size"] * 0.985}
    reach = [found.sizes[0] / 2 ** (_NAME_ROOM * WIDTH / width), found.sizes[-1] * 1.08]
    x_scale = alt.Scale(type="log", base=2, domain=reach, nice=False)
    title = f"filters of {found.tap} (logarithmic)"
    axis = alt.Axis(values=list(found.sizes), format="d", grid=False)
    x = alt.X("size:Q", title=title, scale=x_scale, axis=axis)
    y_scale = alt.Scale(domain=domain, nice=False, zero=False)
    y_title = axis_title("test RMSE", unit)
    y = alt.Y("rmse:Q", title=y_title, scale=y_scale, axis=alt.Axis(tickCount=6))
    colour = alt.Color(
        "role:N",
        legend=None,
        scale=alt.Scale(
            domain=["chosen", "random", "other"], range=[PALETTE["accent"], PALETTE["knee"], PALETTE["muted"]]
        ),
    )
    dash = alt.StrokeDash(
        "role:N", legend=None, scale=alt.Scale(domain=["chosen", "random", "other"], range=[[1, 0], [5, 4], [1, 0]])
    )
    lines, named, level = alt.Chart(source("lines")), alt.Chart(source("names")), alt.Chart(source("level"))
    beside = alt.X("beside:Q", scale=x_scale, axis=axis, title=title)
    chart = alt.layer(
        level.mark_rule(color=PALETTE["muted"], strokeDash=[2, 3]).encode(y=y),
        lines.transform_filter("datum.role == 'chosen'")
        .mark_rule(strokeWidth=1.6)
        .encode(x=x, y=alt.Y("low:Q", scale=y_scale, title=y_title), y2=alt.Y2("high:Q"), color=colour),
        lines.mark_line(strokeWidth=1.8).encode(x=x, y=y, detail=alt.Detail("name:N"), color=colour, strokeDash=dash),
        lines.mark_circle(size=46, opacity=1).encode(x=x, y=y, color=colour),
        named.mark_rule(strokeWidth=0.7, opacity=0.7).encode(
            x=beside,
            x2=alt.X2("end:Q"),
            y=alt.Y("at:Q", scale=y_scale, title=y_title),
            y2=alt.Y2("rmse:Q"),
            color=colour,
        ),
        named.mark_text(
            align="right", baseline="middle", dx=-4, fontSize=12.5, stroke=PALETTE["paper"], strokeWidth=4
        ).encode(x=beside, y=alt.Y("at:Q", scale=y_scale, title=y_title), text=alt.Text("text:N"), color=colour),
    ).properties(width=width - MARGIN, height=height)
    data = {"lines": rows, "names": names, "level": [{"rmse": whole}]}
    return render(chart, data, f"Test RMSE of {len(names) - 1} selectors at {found.tap}")


def selectors_table(found: Comparison, metric: str, unit: str) -> Table:
    """Return one metric on test: a row for each selector, a column for each number of filters.

    Args:
        found: The comparison.
        metric: Its name, as in ``results.json``.
        unit: Its unit.
    """
    shown = style(metric)
    suffix = {"unit": f", {unit}" if unit else "", "percent": ", %"}.get(shown.scale, "")
    head = [f"{shown.label}{suffix} at", *(f"{size} filters" for size in found.sizes)]
    rows = [
        [name, *(metric_text(metric, measured.get(metric), with_units=False) for measured in metrics)]
        for name, metrics in found.selectors.items()
    ]
    whole = metric_text(metric, found.everything.get(metric), with_units=False)
    rows.append([f"all {found.n_filters} filters", whole, *("" for _ in found.sizes[1:])])
    return Table(head, rows)


def _role(name: str, chosen: str) -> str:
    """Return how a selector is drawn."""
    return "chosen" if name == chosen else "random" if name == "random" else "other"


def _apart(values: Sequence[float], least: float) -> list[float]:
    """Return values moved so far that neighbours are at least so far apart, around their common middle."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    moved = [values[index] for index in order]
    for _ in range(100):
        for low in range(len(moved) - 1):
            overlap = least - (moved[low + 1] - moved[low])
            if overlap > 1e-9 * least:
                moved[low] -= overlap / 2
                moved[low + 1] += overlap / 2
    apart = [math.nan] * len(values)
    for place, index in enumerate(order):
        apart[index] = moved[place]
    return apart
