"""The figure of how one filter responds to a continuous label."""

from __future__ import annotations

import altair as alt

from facetask.report.format import count, number
from facetask.report.marks import MARGIN, WIDTH, axis_title, label, padded
from facetask.report.svg import PALETTE, render, source
from facetask.running.results import FilterResponse, TaskResult

_HEIGHT = 280


def filter_response(task: TaskResult, found: FilterResponse, width: int = WIDTH) -> str:
    """Return a filter's mean response against the label, with the range of the middle four fifths of the images."""
    if not found.bins:
        return ""
    rows = [shown.model_dump() for shown in found.bins]
    name = task.name if found.output == 0 and len(task.responses) < 2 else f"{task.name}, output {found.output + 1}"
    x = alt.X(
        "label:Q",
        title=axis_title(name, task.labels.unit),
        scale=alt.Scale(domain=[rows[0]["label"], rows[-1]["label"]], nice=False, padding=14, zero=False),
        axis=alt.Axis(tickCount=9 if width >= WIDTH else 6, grid=False),
    )
    lowest, highest = min(row["low"] for row in rows), max(row["high"] for row in rows)
    scale = alt.Scale(domain=padded(lowest, highest, 0.06, 0.16), nice=False, zero=False)
    y = alt.Y("response:Q", title="response (mean activation)", scale=scale, axis=alt.Axis(tickCount=5))
    bins, said = alt.Chart(source("bins")), alt.Chart(source("said"))
    follows = f"r = {number(found.correlation, decimals=2)}" if found.correlation is not None else "constant"
    text = f"filter {found.filter} of {found.tap}: {follows} over {count(found.n_images)} images"
    chart = alt.layer(
        bins.mark_area(color=PALETTE["full"], opacity=0.75).encode(
            x=x, y=alt.Y("low:Q", scale=scale, title="response (mean activation)"), y2=alt.Y2("high:Q")
        ),
        bins.mark_line(color=PALETTE["accent"], strokeWidth=2.6).encode(x=x, y=y),
        bins.mark_circle(color=PALETTE["accent"], size=46, opacity=1).encode(x=x, y=y),
        label(said, 13 if width >= WIDTH else 12, x=alt.value(4), y=alt.value(14), text=alt.Text("text:N")),
    ).properties(width=width - MARGIN, height=_HEIGHT if width >= WIDTH else round(0.8 * _HEIGHT))
    return render(
        chart,
        {"bins": rows, "said": [{"text": text, "align": "left", "dx": 6, "dy": 0}]},
        f"Response of {text}, to {task.name}",
    )
