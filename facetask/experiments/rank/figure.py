"""The figure of a ranking: every tap's scores against its regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from facetask.report.marks import axis_title, padded
from facetask.report.metrics import style, unit_of
from facetask.report.svg import PALETTE, render, source

if TYPE_CHECKING:
    from facetask.experiments.rank.results import RankedTask

_COLOURS = ("accent", "knee", "second", "ink", "muted")


def score_figure(task: RankedTask, width: int) -> str:
    """Return every tap's score against the regression's test metric, a panel for each score, a colour a network."""
    shown = style(task.main_metric)
    factor = 100 if shown.scale == "percent" else 1
    names = [network.network for network in task.networks]
    across = 3 if width > 500 else 1
    rows: list[dict[str, Any]] = []
    for ranking in task.rankings:
        for network in task.networks:
            for tap in network.taps:
                value, score = tap.metrics[task.main_metric].mean, tap.scores[ranking.score].mean
                if value is not None and score is not None:
                    rows.append({"score": ranking.score, "network": network.network, "x": score, "y": factor * value})
    if not rows:
        return ""
    low, high = min(row["y"] for row in rows), max(row["y"] for row in rows)
    unit = {"unit": unit_of(task.labels, task.main_metric), "percent": "%"}.get(shown.scale, "")
    colours = [PALETTE[_COLOURS[min(index, len(_COLOURS) - 1)]] for index in range(len(names))]
    chart = (
        alt.Chart(source("taps"))
        .mark_circle(size=34, opacity=0.75)
        .encode(
            x=alt.X("x:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4)),
            y=alt.Y(
                "y:Q",
                title=axis_title(shown.label, unit),
                scale=alt.Scale(domain=padded(low, high, 0.06, 0.06), nice=False, reverse=not task.higher_is_better),
                axis=alt.Axis(tickCount=5),
            ),
            color=alt.Color(
                "network:N",
                title=None,
                scale=alt.Scale(domain=names, range=colours),
                legend=alt.Legend(
                    orient="bottom",
                    labelLimit=260,
                    labelFontSize=12,
                    labelColor=PALETTE["ink"],
                    columns=1 if across == 1 else 0,
                ),
            ),
        )
        .properties(width=(width - 60 - 20 * across) / across, height=170)
        .facet(
            facet=alt.Facet(
                "score:N",
                title=None,
                sort=[ranking.score for ranking in task.rankings],
                header=alt.Header(labelFontSize=12.5, labelColor=PALETTE["ink"]),
            ),
            columns=across,
        )
        .resolve_scale(x="independent")
    )
    return render(chart, {"taps": rows}, f"{task.name}: scores of all taps against their regressions")
