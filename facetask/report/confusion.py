"""The figure of a confusion matrix: what each class was taken for."""

from __future__ import annotations

import altair as alt

from facetask.report.format import is_number, number
from facetask.report.marks import WIDTH, label, place
from facetask.report.svg import PALETTE, render, source
from facetask.running.results import Confusion, TaskResult

_MOST_WITH_NUMBERS = 14
_LABELS = 130
_LARGEST, _SMALLEST = 56, 9


def last_confusion(task: TaskResult) -> tuple[str, Confusion | None]:
    """Return the last step's confusion matrix and the step: ``finetuned``, ``pruned`` or ``with all filters``."""
    if task.finetune and task.finetune.confusion:
        return "finetuned", task.finetune.confusion
    if task.prune and task.prune.confusion:
        return "pruned", task.prune.confusion
    return "with all filters", task.regress.confusion


def confusion_matrix(task: TaskResult, width: int = WIDTH) -> str:
    """Return the last step's confusion matrix: each row's images spread over the classes that they were taken for."""
    step, counts = last_confusion(task)
    names = task.labels.classes
    if not counts or len(counts) != len(names) or not any(map(sum, counts)):
        return ""
    rows = []
    for true, row in zip(names, counts, strict=True):
        for found, count in zip(names, row, strict=True):
            share = count / sum(row) if sum(row) else 0.0
            text = number(100 * share, decimals=0) if is_number(share) and count else ""
            rows.append({"true": true, "found": found, "share": share, "text": text, **place("center", 0)})
    cell = max(_SMALLEST, min(_LARGEST, (width - _LABELS) // len(names)))
    axis = alt.Axis(grid=False, domain=False, ticks=False, labelOverlap=cell < 12, labelLimit=_LABELS - 30)
    found_axis = alt.Axis(
        grid=False, domain=False, ticks=False, labelOverlap=cell < 12, labelAngle=-35, orient="bottom"
    )
    x = alt.X("found:N", sort=None, scale=alt.Scale(domain=names), title="taken for", axis=found_axis)
    y = alt.Y("true:N", sort=None, scale=alt.Scale(domain=names), title="labelled", axis=axis)
    base = alt.Chart(source("cells"))
    layers = [
        base.mark_rect(color=PALETTE["accent"], stroke=PALETTE["paper"], strokeWidth=1).encode(
            x=x, y=y, opacity=alt.Opacity("share:Q", scale=None)
        )
    ]
    if len(names) <= _MOST_WITH_NUMBERS and cell >= 22:
        layers.append(label(base, 12, x=x, y=y, text=alt.Text("text:N")))
    side = cell * len(names)
    chart = alt.layer(*layers).properties(width=side, height=side * (0.62 if cell > 30 else 1))
    return render(chart, {"cells": rows}, f"Confusion matrix of {len(names)} classes, {step}")
