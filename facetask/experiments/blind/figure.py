"""The figure of a blind network: the kept task, and what probes read of the excluded ones, against filters removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import altair as alt

from facetask.report.marks import WIDTH, axis_title
from facetask.report.metrics import style, unit_of
from facetask.report.svg import PALETTE, render, source

if TYPE_CHECKING:
    from facetask.experiments.blind.results import BlindResults, BlindTask
    from facetask.running.results import Metrics

WAYS = {"chosen": "chosen filters removed", "random": "as many at random", "projected": "chosen, and labels erased"}
_COLOURS = {"chosen": PALETTE["accent"], "random": PALETTE["muted"], "projected": PALETTE["knee"]}
HEAD, LINEAR, NONLINEAR = "head", "linear probe", "non-linear probe"
_NARROW = 500


def blind_figure(results: BlindResults, width: int = WIDTH) -> str:
    """Return one panel for the kept task and one for each excluded one; the trivial prediction is a dashed line."""
    rows = list(_rows(results))
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    across = 1 if width <= _NARROW else min(len(panels), 3)
    ways = list(dict.fromkeys(step.way for step in results.steps))
    legend = alt.Legend(
        title=None, orient="bottom", labelFontSize=12, labelColor=PALETTE["ink"], labelLimit=260, symbolOpacity=1
    )
    colour = alt.Color(
        "way:N",
        scale=alt.Scale(domain=[WAYS[way] for way in ways], range=[_COLOURS[way] for way in ways]),
        legend=legend,
    )
    dash = alt.StrokeDash(
        "reader:N", scale=alt.Scale(domain=[HEAD, LINEAR, NONLINEAR], range=[[1, 0], [1, 0], [4, 3]]), legend=None
    )
    shape = alt.Shape(
        "reader:N",
        scale=alt.Scale(domain=[HEAD, LINEAR, NONLINEAR], range=["circle", "circle", "triangle-up"]),
        legend=None,
    )
    x = alt.X("removed:Q", title="filters removed", axis=alt.Axis(tickCount=5, grid=False))
    y = alt.Y("at:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    data = alt.Chart()
    read = data.transform_filter("datum.reader != 'chance'")
    chart = (
        alt.layer(
            data.transform_filter("datum.reader == 'chance'")
            .mark_line(color=PALETTE["ink"], strokeDash=[2, 4], strokeWidth=1.2)
            .encode(x=x, y=y),
            read.mark_rule(strokeWidth=1.4, opacity=0.6).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
            read.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, strokeDash=dash),
            read.mark_point(size=45, filled=True, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
            data=source("rows"),
        )
        .properties(width=(width - 70 * across) / across, height=230)
        .facet(
            facet=alt.Facet(
                "panel:N", title=None, sort=panels, header=alt.Header(labelFontSize=12.5, labelColor=PALETTE["ink"])
            ),
            columns=across,
        )
        .resolve_scale(y="independent")
    )
    told = f"{results.task.name} and what is still read of {', '.join(each.name for each in results.excluded)}"
    return render(chart, {"rows": rows}, f"{told}, against filters removed")


def _rows(results: BlindResults) -> Iterator[dict[str, Any]]:
    """Yield every point, and the ends of the lines of trivial predictions."""
    most = max(step.removed for step in results.steps)
    for task in (results.task, *results.excluded):
        for removed in dict.fromkeys((0, most)):
            yield from _point(task, results.task is task, "", "chance", removed, task.chance)
    for step in results.steps:
        # With none removed, both ways are the same.
        ways = ("chosen", "random") if step.way == "chosen" and not step.removed and most else (step.way,)
        for way in ways:
            yield from _point(results.task, True, WAYS[way], HEAD, step.removed, step.kept)
            for task in results.excluded:
                probed = step.excluded[task.name]
                yield from _point(task, False, WAYS[way], LINEAR, step.removed, probed.linear)
                yield from _point(task, False, WAYS[way], NONLINEAR, step.removed, probed.nonlinear)


def _point(
    task: BlindTask, kept: bool, way: str, reader: str, removed: int, metrics: Metrics
) -> Iterator[dict[str, Any]]:
    """Yield a task's main metric as a point with its spread, where it is known."""
    shown, metric = style(task.main_metric), metrics[task.main_metric]
    if metric.mean is None:
        return
    factor = 100.0 if shown.scale == "percent" else 1.0
    unit = {"unit": unit_of(task.labels, task.main_metric), "percent": "%"}.get(shown.scale, "")
    mean, spread = factor * metric.mean, factor * (metric.std or 0.0)
    panel = f"{task.name}, {'kept' if kept else 'still read'}: {axis_title(shown.label, unit)}"
    yield {
        "panel": panel,
        "way": way,
        "reader": reader,
        "removed": removed,
        "at": mean,
        "low": mean - spread,
        "high": mean + spread,
    }
