"""Filters × tasks: which of one tap's filters each task keeps, and how many of them tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any

import altair as alt

from facetask.report.format import count, number
from facetask.report.marks import WIDTH
from facetask.report.svg import PALETTE, render, source
from facetask.report.tables import Table
from facetask.running.results import TaskResult

_ROW, _TOP, _NAMES, _COUNTS = 26, 22, 130, 78
_NARROW_NAMES = 84
_LEAST_BLOCK_WITH_COUNT = 20
_LEAST_SHADE = 0.3
_MOST_PAIRS = 8


@dataclass(frozen=True)
class Kept:
    """What one task keeps of a tap.

    Attributes:
        task: The task's name.
        filters: Which, in original numbering.
        probability: Each filter's selection probability; None where the choice was made once.
        full: How many filters the tap has.
    """

    task: str
    filters: frozenset[int]
    probability: tuple[float, ...] | None
    full: int


def kept_at(tasks: Sequence[TaskResult], tap: str) -> list[Kept]:
    """Return what each task with a curve at the tap keeps of it."""
    found = []
    for task in tasks:
        full = next((fit.n_filters for fit in task.regress.taps if fit.tap == tap), 0)
        curve = next((curve for curve in task.curve.taps if curve.tap == tap), None) if task.curve else None
        if curve is not None and curve.keep_set and full:
            probability = tuple(curve.probability) if curve.probability else None
            found.append(Kept(task.name, frozenset(curve.keep_set), probability, full))
    return found


def best_taps(tasks: Sequence[TaskResult]) -> list[str]:
    """Return the taps that are the best of any task, without repetition."""
    return list(dict.fromkeys(task.regress.best_tap for task in tasks))


def filter_map(tasks: Sequence[TaskResult], tap: str, width: int = WIDTH) -> str:
    """Return the map of a tap: a row for each task, a column for each filter, those that most tasks keep in front.

    What two or more tasks keep has another colour than what one alone keeps; the paler, the less surely it is chosen.
    """
    rows = kept_at(tasks, tap)
    if not rows:
        return ""
    names = min(8 * max(len(kept.task) for kept in rows) + 16, _NAMES if width >= WIDTH else _NARROW_NAMES)
    blocks = _blocks(rows)
    pitch = (width - names - _COUNTS) / rows[0].full
    bottom = _TOP + _ROW * len(rows)
    cells: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    at = 0
    for pattern, filters in blocks:
        left, at = names + at * pitch, at + len(filters)
        right = names + at * pitch
        if pattern and right - left >= _LEAST_BLOCK_WITH_COUNT and len(rows) > 1:
            texts.append({"x": (left + right) / 2, "y": _TOP - 9, "text": str(len(filters)), "align": "center"})
        rules.append({"x": round(right, 1), "y": _TOP - 2, "y2": bottom + 2})
        for row in pattern:
            top = _TOP + _ROW * row + 3
            for place, index in enumerate(filters):
                x = left + place * pitch
                cells.append(
                    {
                        "x": round(x, 2),
                        "x2": round(x + pitch, 2),
                        "y": top,
                        "y2": top + _ROW - 6,
                        "shade": _shade(rows[row], index),
                        "shared": len(pattern) > 1 or len(rows) == 1,
                    }
                )
    background: list[dict[str, Any]] = []
    for position, kept in enumerate(rows):
        top = _TOP + _ROW * position + 3
        background.append({"x": names, "x2": names + pitch * kept.full, "y": top, "y2": top + _ROW - 6})
        middle = top + (_ROW - 6) / 2
        name = kept.task if len(kept.task) * 7 < names else f"{kept.task[: names // 7 - 1]}…"
        texts.append({"x": names - 8, "y": middle, "text": name, "align": "right"})
        share = f"{len(kept.filters)} of {kept.full}"
        texts.append({"x": names + pitch * kept.full + 8, "y": middle, "text": share, "align": "left"})
    across, down = alt.X("x:Q", scale=None, axis=None), alt.Y("y:Q", scale=None, axis=None)
    box = {"x": across, "x2": alt.X2("x2:Q"), "y": down, "y2": alt.Y2("y2:Q")}
    drawn = alt.Chart(source("cells"))
    chosen = {**box, "opacity": alt.Opacity("shade:Q", scale=None)}
    chart = alt.layer(
        alt.Chart(source("background")).mark_rect(color=PALETTE["faint"]).encode(**box),
        drawn.transform_filter("datum.shared").mark_rect(color=PALETTE["accent"]).encode(**chosen),
        drawn.transform_filter("!datum.shared").mark_rect(color=PALETTE["knee"]).encode(**chosen),
        alt.Chart(source("rules"))
        .mark_rule(color=PALETTE["muted"], strokeWidth=0.7)
        .encode(x=across, y=down, y2=alt.Y2("y2:Q")),
        alt.Chart(source("texts"))
        .mark_text(baseline="middle", align=alt.ExprRef("datum.align"), fontSize=12, color=PALETTE["ink"])
        .encode(x=across, y=down, text=alt.Text("text:N")),
    ).properties(width=width, height=bottom + 4)
    data = {"background": background, "cells": cells, "rules": rules[:-1], "texts": texts}
    return render(chart, data, f"Filters of {tap} that each of {len(rows)} tasks keeps")


def sharing_table(tasks: Sequence[TaskResult], tap: str) -> Table | None:
    """Return how many filters all tasks share, each two of them, and none but one, beside what chance would give."""
    rows = kept_at(tasks, tap)
    if len(rows) < 2:
        return None
    full = rows[0].full
    share = [len(row.filters) / full for row in rows]
    everyone = range(len(rows))
    lines: list[tuple[str, int, float]] = []
    if len(rows) > 2:
        shared = frozenset.intersection(*(row.filters for row in rows))
        lines.append((f"all {len(rows)} tasks", len(shared), full * prod(share)))
    if len(rows) <= _MOST_PAIRS:
        for a, b in combinations(everyone, 2):
            shared = rows[a].filters & rows[b].filters
            lines.append((f"{rows[a].task} and {rows[b].task}", len(shared), full * share[a] * share[b]))
    for index in everyone:
        others = frozenset.union(*(rows[other].filters for other in everyone if other != index))
        chance = full * share[index] * prod(1 - share[other] for other in everyone if other != index)
        lines.append((f"{rows[index].task} alone", len(rows[index].filters - others), chance))
    unused = full - len(frozenset.union(*(row.filters for row in rows)))
    lines.append(("no task", unused, full * prod(1 - part for part in share)))
    cells = [[name, count(found), number(chance, decimals=1)] for name, found, chance in lines]
    return Table([f"kept by, of {full} filters of {tap}", "filters", "by chance"], cells)


def _blocks(rows: Sequence[Kept]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Return the filters of each set of tasks that keep them, the largest sets in front, the surest filters first."""
    found: dict[tuple[int, ...], list[int]] = {}
    for index in range(rows[0].full):
        pattern = tuple(row for row, kept in enumerate(rows) if index in kept.filters)
        found.setdefault(pattern, []).append(index)
    ordered = sorted(found, key=lambda pattern: (-len(pattern), pattern))
    return [
        (pattern, sorted(found[pattern], key=lambda index: -sum(_shade(rows[row], index) for row in pattern)))
        for pattern in ordered
    ]


def _shade(kept: Kept, index: int) -> float:
    """Return how strongly a kept filter is drawn: by how surely it is chosen, where that is known."""
    share = 1.0 if kept.probability is None else kept.probability[index]
    return round(_LEAST_SHADE + (1 - _LEAST_SHADE) * share, 3)
