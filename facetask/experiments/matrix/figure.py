"""The figure of a transfer matrix: a heat map, primaries by satellite tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from facetask.report.format import is_number, reduction
from facetask.report.marks import WIDTH, label
from facetask.report.metrics import mean_of, metric_text
from facetask.report.svg import PALETTE, render, source
from facetask.running.results import Metric, Metrics

if TYPE_CHECKING:
    from facetask.experiments.matrix.results import MatrixResults, MatrixTask

DIRECT = "trained directly"
_ROOM, _CELL, _HEIGHT, _DARKEST = 130, 150, 46, 0.55
_ROOMY = 66


def heat_map(results: MatrixResults, width: int = WIDTH) -> str:
    """Return the matrix: the darker a cell, the more of the way from guessing to direct training its network goes."""
    names = [primary.name for primary in results.primaries]
    directly = any(task.direct for task in results.tasks)
    rows: list[dict[str, Any]] = []
    for task in results.tasks:
        for name in names:
            cell = task.cell(name)
            lost = None if cell.reduction is None else cell.reduction.mean
            rows += _texts(task, name, cell.metrics, lost)
        if task.direct:
            rows += _texts(task, DIRECT, task.direct.metrics, None)
    cell_width = min(_CELL, (width - _ROOM) / len(results.tasks))
    roomy = cell_width >= _ROOMY
    axis = alt.Axis(
        grid=False, domain=False, ticks=False, labelLimit=_ROOM - 10, labelColor=PALETTE["ink"], labelPadding=6
    )
    heads = alt.Axis(
        grid=False,
        domain=False,
        ticks=False,
        orient="top",
        labelColor=PALETTE["ink"],
        labelLimit=cell_width - 4 if roomy else 90,
        labelAngle=0 if roomy else -50,
    )
    x = alt.X(
        "task:N", sort=None, title=None, axis=heads, scale=alt.Scale(domain=[task.name for task in results.tasks])
    )
    domain = [*names, *([DIRECT] if directly else [])]
    y = alt.Y("primary:N", sort=None, title=None, axis=axis, scale=alt.Scale(domain=domain))
    cells, texts = alt.Chart(source("cells")), alt.Chart(source("texts"))
    chart = alt.layer(
        cells.mark_rect(color=PALETTE["accent"], stroke=PALETTE["paper"], strokeWidth=1).encode(
            x=x, y=y, opacity=alt.Opacity("shade:Q", scale=None)
        ),
        label(texts, 12 if roomy else 10, x=x, y=y, text=alt.Text("text:N")),
    ).properties(width=cell_width * len(results.tasks), height=_HEIGHT * len(domain))
    n_tasks = f"{len(results.tasks)} satellite task{'s' * (len(results.tasks) > 1)}"
    data = {"cells": [row for row in rows if "shade" in row], "texts": [row for row in rows if "text" in row]}
    return render(chart, data, f"Transfer matrix of {len(names)} primaries and {n_tasks}")


def change(task: MatrixTask, lost: float | None) -> str:
    """Return a cell's main metric against direct training's, signed as that metric changes."""
    return reduction(lost if task.higher_is_better or lost is None else -lost)


def share_of_the_way(task: MatrixTask, metrics: Metrics) -> float | None:
    """Return how far from guessing (0) to direct training (1) a network goes; without that, to the best primary."""
    guess, here = mean_of(task.baseline, task.main_metric), mean_of(metrics, task.main_metric)
    best = max if task.higher_is_better else min
    known = [value for cell in task.cells if (value := mean_of(cell.metrics, task.main_metric)) is not None]
    goal = mean_of(task.direct.metrics, task.main_metric) if task.direct else best(known, default=None)
    if guess is None or here is None or goal is None or goal == guess or best(goal, guess) == guess:
        return None
    return (here - guess) / (goal - guess)


def _texts(task: MatrixTask, row: str, metrics: Metrics, lost: float | None) -> list[dict[str, Any]]:
    """Return one cell's shade and texts."""
    where = {"task": task.name, "primary": row}
    way = share_of_the_way(task, metrics)
    shade = 0.0 if way is None else _DARKEST * min(max(way, 0.0), 1.0)
    mean = mean_of(metrics, task.main_metric)
    value = metric_text(task.main_metric, None if mean is None else Metric(mean=mean, std=None))
    found: list[dict[str, Any]] = [{**where, "shade": 0.04 + shade}]
    middle = {"align": "center", "dx": 0}
    if not is_number(lost):
        return [*found, {**where, "text": value, **middle, "dy": 0}]
    told = change(task, lost)
    return [*found, {**where, "text": value, **middle, "dy": -8}, {**where, "text": told, **middle, "dy": 9}]
