"""The figure of a pruning table: one dot a variant, the unpruned network as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from facetask.experiments.pruning_table.variants import TRAINED
from facetask.report.format import number
from facetask.report.marks import WIDTH, label, metric_title, padded
from facetask.report.metrics import style, unit_of
from facetask.report.svg import PALETTE, render, source

if TYPE_CHECKING:
    from facetask.experiments.pruning_table.results import TableTask

_ROW, _NAMES = 26, 190
_COLOURS = {"head sliced": PALETTE["muted"], "head refitted": PALETTE["knee"], "trained": PALETTE["accent"]}


def variants_figure(task: TableTask, width: int = WIDTH) -> str:
    """Return every variant's test metric as a dot with its spread, in the table's order."""
    shown = style(task.main_metric)
    factor = 100.0 if shown.scale == "percent" else 1.0
    rows: list[dict[str, Any]] = []
    levels: list[dict[str, Any]] = []
    for row in task.variants:
        metric = row.test[task.main_metric]
        if metric.mean is None:
            continue
        mean, spread = factor * metric.mean, factor * (metric.std or 0.0)
        kind = "trained" if row.step in TRAINED else row.step if row.step in _COLOURS else "head refitted"
        rows.append({"name": row.label, "kind": kind, "at": mean, "low": mean - spread, "high": mean + spread})
        if row.source == "unpruned":
            levels.append({"at": mean, "kind": kind})
    if not rows:
        return ""
    names = [row["name"] for row in rows]
    # A head that nobody refits may be wrong by any amount; the others shall not be squeezed together for it.
    near = [row for row in rows if row["kind"] != "head sliced"] or rows
    domain = padded(min(row["low"] for row in near), max(row["high"] for row in near), 0.06, 0.06)
    inside = [row for row in rows if domain[0] <= row["at"] <= domain[1]]
    far = [_at_the_edge(row, domain) for row in rows if row not in inside]
    x = alt.X(
        "at:Q",
        title=metric_title(shown, unit_of(task.labels, task.main_metric), " on test images"),
        scale=alt.Scale(domain=domain, nice=False, zero=False),
        axis=alt.Axis(tickCount=6),
    )
    y = alt.Y(
        "name:N",
        title=None,
        sort=None,
        scale=alt.Scale(domain=names),
        axis=alt.Axis(labelLimit=_NAMES, labelColor=PALETTE["ink"], grid=True, ticks=False, domain=False),
    )
    kinds = [kind for kind in _COLOURS if any(row["kind"] == kind for row in rows)]
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=[_COLOURS[kind] for kind in kinds]),
        legend=alt.Legend(title=None, orient="top", labelColor=PALETTE["ink"], labelFontSize=12, symbolOpacity=1),
    )
    dots, lines, outside = (alt.Chart(source(name)) for name in ("rows", "levels", "far"))
    chart = alt.layer(
        lines.transform_filter("datum.kind == 'head refitted'")
        .mark_rule(color=PALETTE["muted"], strokeDash=[5, 4])
        .encode(x=x),
        lines.transform_filter("datum.kind == 'trained'").mark_rule(color=PALETTE["muted"]).encode(x=x),
        dots.mark_rule(strokeWidth=1.6, opacity=0.75).encode(y=y, x=alt.X("low:Q"), x2="high:Q", color=colour),
        dots.mark_point(size=75, filled=True, opacity=1).encode(x=x, y=y, color=colour),
        label(outside, 12, x=x, y=y, text=alt.Text("text:N")),
    ).properties(width=width - _NAMES - 10, height=_ROW * len(names))
    data = {"rows": inside, "levels": levels, "far": far}
    return render(chart, data, f"{shown.label} of {len(names)} variants of {task.name}")


def _at_the_edge(row: dict[str, Any], domain: list[float]) -> dict[str, Any]:
    """Return a row's value as a text at that edge of the picture beyond which it lies."""
    above, text = row["at"] > domain[1], number(row["at"])
    told = {"text": f"{text} →", "align": "right"} if above else {"text": f"← {text}", "align": "left"}
    return {**row, **told, "at": domain[above], "dx": 0, "dy": 0}
