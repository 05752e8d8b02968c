"""Characteristic curves as points to draw: one RMSE a number of filters, thinned evenly on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from facetask.report.format import is_number, number
from facetask.running.results import TaskResult

_POINTS_PER_OCTAVE = 8


@dataclass(frozen=True)
class CurvePoints:
    """One curve to draw.

    Attributes:
        name: The tap, or the group's taps.
        points: ``(filters kept, RMSE)``, ascending in filters, at least one.
        knee: Filters kept at the knee.
        knee_point: The knee's place on the curve: between two points or at its end, where the rule keeps a number of
            filters that the selector's path passes over.
        full: All filters or components there are.
    """

    name: str
    points: tuple[tuple[int, float], ...]
    knee: int
    knee_point: tuple[int, float]
    full: int


def curve_points(
    name: str, n_filters: Iterable[int], rmse: Iterable[float], knee: int, full: int
) -> CurvePoints | None:
    """Return a curve's points: the lowest RMSE for each number of filters; nothing where no point is finite."""
    best: dict[int, float] = {}
    for k, value in zip(n_filters, rmse, strict=False):
        if k >= 1 and is_number(value):
            best[k] = min(value, best.get(k, math.inf))
    if not best:
        return None
    last_in_bucket = {round(math.log2(k) * _POINTS_PER_OCTAVE): k for k in sorted(best)}
    shown = sorted({min(best), *last_in_bucket.values(), *({knee} & best.keys())})
    points = tuple((k, best[k]) for k in shown)
    return CurvePoints(name, points, knee, _on_line(points, knee), full)


def _on_line(points: tuple[tuple[int, float], ...], k: int) -> tuple[int, float]:
    """Return the place of k filters on the drawn line, straight on a logarithmic axis; the nearest end beyond it."""
    inside = min(max(k, points[0][0]), points[-1][0])
    after = next(point for point in points if point[0] >= inside)
    if after[0] == inside:
        return after
    before = next(point for point in reversed(points) if point[0] < inside)
    share = math.log(inside / before[0]) / math.log(after[0] / before[0])
    return inside, before[1] + share * (after[1] - before[1])


def tap_points(task: TaskResult) -> list[CurvePoints]:
    """Return the drawable curves of a task's taps, in network order."""
    if task.curve is None:
        return []
    full = {tap.tap: tap.n_filters for tap in task.regress.taps}
    curves = (
        curve_points(
            curve.tap, curve.n_filters, curve.rmse, curve.knee, full.get(curve.tap, max(curve.n_filters, default=0))
        )
        for curve in task.curve.taps
    )
    return [curve for curve in curves if curve is not None]


def group_points(task: TaskResult) -> list[CurvePoints]:
    """Return the drawable curves of a task's coupled groups."""
    if task.prune is None:
        return []
    curves = (
        curve_points(group_name(group.taps), group.n_filters, group.rmse, group.knee, group.n_components)
        for group in task.prune.groups
    )
    return [curve for curve in curves if curve is not None]


def group_name(taps: list[str]) -> str:
    """Return a short name of a coupled group: its first tap, and how many more there are."""
    return taps[0] if len(taps) == 1 else f"{taps[0]} + {len(taps) - 1} more" if taps else "(no tap)"


def powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4 … up to the largest number of filters."""
    return [2**exponent for exponent in range(max(most, 2).bit_length()) if 2**exponent <= max(most, 2)]


def spread_ticks(last: int, limit: int = 12) -> list[int]:
    """Return whole numbers from 0 to the last, evenly spaced, at most about so many."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, last) if last / step <= limit)
    return list(range(0, last + 1, max(step, 1)))


def round_ticks(low: float, high: float, about: int) -> list[tuple[float, str]]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) inside a range, about so many, with their texts."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= 0.999 * rough)
    decimals = max(-math.floor(math.log10(step * 1.001)), 0)
    return [
        (step * i, number(step * i, decimals=decimals)) for i in range(math.ceil(low / step), int(high // step) + 1)
    ]
