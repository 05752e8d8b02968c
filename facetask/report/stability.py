"""The figure of how often each filter is chosen over the trials and bootstrap resamples."""

from __future__ import annotations

import altair as alt

from facetask.report.marks import MARGIN, WIDTH, label
from facetask.report.svg import PALETTE, render, source
from facetask.running.results import TaskResult

_HEIGHT = 170


def selection_probability(task: TaskResult, width: int = WIDTH) -> str:
    """Return the best tap's filters by how often each is among as many as the knee keeps, the likeliest in front."""
    curve = (
        next((curve for curve in task.curve.taps if curve.tap == task.regress.best_tap), None) if task.curve else None
    )
    if curve is None or not curve.probability:
        return ""
    shares = sorted(curve.probability, reverse=True)
    n = len(shares)
    rows = [
        {"start": i, "end": i + 1, "share": share, "kept": i < curve.knee} for i, share in enumerate(shares) if share
    ]
    beside = {"align": "left", "dx": 6, "dy": 0} if 2 * curve.knee < n else {"align": "right", "dx": -6, "dy": 0}
    knee = [{"end": curve.knee, "share": 1.1, "text": f"knee: {curve.knee}", **beside}]
    scale = alt.Scale(domain=[0, n], nice=False)
    axis = alt.Axis(tickMinStep=1, tickCount=8, format="d", grid=False)
    x = alt.X("start:Q", title="filters, the most often chosen first", scale=scale, axis=axis)
    at = alt.X("end:Q", scale=scale, axis=axis, title="filters, the most often chosen first")
    y = alt.Y(
        "share:Q",
        title="selection probability",
        scale=alt.Scale(domain=[0, 1.2], nice=False),
        axis=alt.Axis(values=[0, 0.5, 1]),
    )
    bars, marked = alt.Chart(source("bars")), alt.Chart(source("knee"))
    shape = {"x": x, "x2": alt.X2("end:Q"), "y": y, "y2": alt.Y2(datum=0)}
    chart = alt.layer(
        bars.transform_filter("!datum.kept").mark_bar(color=PALETTE["full"]).encode(**shape),
        bars.transform_filter("datum.kept").mark_bar(color=PALETTE["accent"]).encode(**shape),
        marked.mark_rule(color=PALETTE["knee"], strokeWidth=1.5).encode(x=at),
        label(marked, 12, x=at, y=y, text=alt.Text("text:N")),
    ).properties(width=width - MARGIN, height=_HEIGHT)
    return render(chart, {"bars": rows, "knee": knee}, f"Selection probability of the {n} filters of {curve.tap}")
