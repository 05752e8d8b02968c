"""The report's figures of one satellite task, each a function from a result to inline SVG.

A figure without anything to draw is an empty string. The width is in pixels; the page shows wide and narrow ones.
"""

from __future__ import annotations

from typing import Any

import altair as alt

from facetask.report.format import is_number, number
from facetask.report.marks import (
    MARGIN,
    WIDTH,
    alignment,
    axis_title,
    label,
    metric_title,
    padded,
    place,
    role_colour,
    tap_axis,
)
from facetask.report.metrics import main_metric, mean_of, metric_text, style, unit_of
from facetask.report.points import powers_of_two, spread_ticks, tap_points
from facetask.report.svg import PALETTE, render, source
from facetask.running.results import TaskResult

_LABELLED_BAR = 26
_FAR_BASELINE = 1.5


def layer_accuracy(task: TaskResult, width: int = WIDTH) -> str:
    """Return the task's main metric on test at every tap, in network order, with its spread over the trials."""
    taps = [tap.tap for tap in task.regress.taps]
    name = main_metric(task.labels.kind, (metric for tap in task.regress.taps for metric in tap.metrics))
    shown = style(name)
    factor = 100 if shown.scale == "percent" else 1
    rows = _tap_rows(task, name, factor, width)
    if not rows:
        return ""
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    guess = _baseline_in_view(task, name, factor, low, high)
    room = (0.2, 0.1) if shown.better == "lower" else (0.1, 0.2)
    x = tap_axis(taps, width - MARGIN)
    y = alt.Y(
        "value:Q",
        title=metric_title(shown, unit_of(task.labels, name)),
        scale=alt.Scale(domain=padded(min([low, *guess]), max([high, *guess]), *room), nice=False, zero=False),
        axis=alt.Axis(tickCount=6),
    )
    base, guessed = alt.Chart(source("taps")), alt.Chart(source("guess"))
    marked = base.transform_filter("datum.role != 'other'")
    chart = alt.layer(
        guessed.mark_rule(color=PALETTE["muted"], strokeDash=[5, 4]).encode(y=y),
        guessed.mark_text(color=PALETTE["muted"], align="right", dy=-8, fontSize=12).encode(
            x=alt.value("width"), y=y, text=alt.Text("text:N")
        ),
        base.mark_line(color=PALETTE["muted"], strokeWidth=1, opacity=0.45).encode(x=x, y=y),
        base.mark_rule(color=PALETTE["muted"], strokeWidth=1.2).encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q")),
        base.mark_circle(size=42, opacity=1).encode(x=x, y=y, color=role_colour()),
        marked.mark_circle(size=150, opacity=1).encode(x=x, y=y, color=role_colour()),
        label(marked, 13, x=x, y=y, text=alt.Text("text:N")),
    ).properties(width=width - MARGIN, height=_height(width, 290))
    lines = [{"value": value, "text": "guessing"} for value in guess]
    return render(chart, {"taps": rows, "guess": lines}, f"{shown.label} at each of {len(taps)} taps")


def characteristic_curves(task: TaskResult, width: int = WIDTH) -> str:
    """Return all taps' characteristic curves in one chart: the best tap and the cut stand out, each knee is a dot."""
    curves = tap_points(task)
    if not curves or task.curve is None:
        return ""
    named = {**({task.prune.cut: "cut"} if task.prune else {}), task.regress.best_tap: "best"}
    most = max(curve.points[-1][0] for curve in curves)
    rows: list[dict[str, Any]] = []
    knees: list[dict[str, Any]] = []
    for position, curve in enumerate(curves):
        role = named.get(curve.name, "other")
        strength = 0.22 + 0.5 * position / max(len(curves) - 1, 1) if role == "other" else 1.0
        common = {"tap": curve.name, "role": role, "strength": strength}
        rows += [{**common, "filters": k, "rmse": rmse} for k, rmse in curve.points]
        k, rmse = curve.knee_point
        text = f"{curve.name} ({role}): knee at {curve.knee} of {curve.full}" if role != "other" else ""
        beside = place("left" if k * k <= most else "right", 20 if role == "best" else -16)
        knees.append({**common, "filters": k, "rmse": rmse, "text": text, **beside})
    low, high = min(row["rmse"] for row in rows), max(row["rmse"] for row in rows)
    x = alt.X(
        "filters:Q",
        title="filters kept (logarithmic)",
        scale=alt.Scale(type="log", base=2, domain=[1, max(most, 2)], nice=False),
        axis=alt.Axis(values=powers_of_two(most), format="d", grid=False),
    )
    y = alt.Y(
        "rmse:Q",
        title=axis_title("validation RMSE", task.curve.unit),
        scale=alt.Scale(domain=padded(low, high, 0.14, 0.03), nice=False, zero=False),
        axis=alt.Axis(tickCount=6),
    )
    lines, dots = alt.Chart(source("curves")), alt.Chart(source("knees"))
    others, chosen = "datum.role == 'other'", "datum.role != 'other'"
    faint = {"x": x, "y": y, "opacity": alt.Opacity("strength:Q", scale=None)}
    strong = {"x": x, "y": y, "color": role_colour()}
    chart = alt.layer(
        lines.transform_filter(others)
        .mark_line(color=PALETTE["muted"], strokeWidth=1.2)
        .encode(detail=alt.Detail("tap:N"), **faint),
        dots.transform_filter(others).mark_circle(size=26, color=PALETTE["muted"]).encode(**faint),
        lines.transform_filter(chosen).mark_line(strokeWidth=2.8).encode(detail=alt.Detail("tap:N"), **strong),
        dots.transform_filter(chosen).mark_circle(size=130, opacity=1).encode(**strong),
        label(dots.transform_filter(chosen), 13, x=x, y=y, text=alt.Text("text:N")),
    ).properties(width=width - MARGIN, height=_height(width, 380))
    return render(chart, {"curves": rows, "knees": knees}, f"Characteristic curves of {len(curves)} taps")


def kept_filters(task: TaskResult, width: int = WIDTH) -> str:
    """Return bars of the filters kept at each tap of the network, before the bars of what there was."""
    if task.prune is None or not task.prune.kept:
        return ""
    prune = task.prune
    order = [tap.tap for tap in task.regress.taps if tap.tap in prune.kept]
    order += [tap for tap in prune.kept if tap not in order]
    rows = [
        {"tap": tap, "kept": prune.kept[tap], "full": prune.full.get(tap, prune.kept[tap]), **place("center", -8)}
        for tap in order
    ]
    drawn = min(width, max(200, 80 * len(order)))
    x = tap_axis(order, drawn - MARGIN)
    scale = alt.Scale(domain=[0, max(row["full"] for row in rows) * 1.08], nice=False)
    axis = alt.Axis(tickCount=5, format="d")
    kept, full = (alt.Y(f"{name}:Q", title="filters", scale=scale, axis=axis) for name in ("kept", "full"))
    base = alt.Chart(source("bars"))
    layers = [
        base.mark_bar(color=PALETTE["full"]).encode(x=x, y=full),
        base.mark_bar(color=PALETTE["accent"]).encode(x=x, y=kept),
    ]
    if (drawn - MARGIN) / len(order) >= _LABELLED_BAR:
        layers.append(label(base, 12, x=x, y=kept, text=alt.Text("kept:Q")))
    chart = alt.layer(*layers).properties(width=drawn - MARGIN, height=_height(width, 230))
    return render(chart, {"bars": rows}, f"Filters kept at {len(order)} taps")


def training_curve(task: TaskResult, width: int = WIDTH) -> str:
    """Return the validation RMSE by epoch of finetuning, epoch 0 being the pruned network before it, best marked."""
    epochs = [epoch for epoch in task.finetune.epochs if is_number(epoch.validation_rmse)] if task.finetune else []
    if task.finetune is None or not epochs:
        return ""
    best = task.finetune.best_epoch
    last = max(epochs[-1].epoch, 1)
    rows = [
        {
            "epoch": epoch.epoch,
            "rmse": epoch.validation_rmse,
            "text": f"best: {number(epoch.validation_rmse)}" if epoch.epoch == best else "",
            **place(alignment(epoch.epoch / last, width), 20),
        }
        for epoch in epochs
    ]
    low, high = min(row["rmse"] for row in rows), max(row["rmse"] for row in rows)
    x = alt.X(
        "epoch:Q",
        title="epoch (0: pruned, not yet finetuned)",
        scale=alt.Scale(domain=[0, last], nice=False, padding=16),
        axis=alt.Axis(values=spread_ticks(last), format="d", grid=False),
    )
    y = alt.Y(
        "rmse:Q",
        title=axis_title("validation RMSE", task.curve.unit if task.curve else task.labels.unit),
        scale=alt.Scale(domain=padded(low, high, 0.2, 0.1), nice=False, zero=False),
        axis=alt.Axis(tickCount=5),
    )
    base = alt.Chart(source("epochs"))
    marked = base.transform_filter("datum.text != ''")
    chart = alt.layer(
        base.mark_line(color=PALETTE["accent"], strokeWidth=2, opacity=0.7).encode(x=x, y=y),
        base.mark_circle(color=PALETTE["accent"], size=40, opacity=1).encode(x=x, y=y),
        marked.mark_circle(color=PALETTE["knee"], size=150, opacity=1).encode(x=x, y=y),
        label(marked, 13, x=x, y=y, text=alt.Text("text:N")),
    ).properties(width=width - MARGIN, height=_height(width, 230))
    return render(chart, {"epochs": rows}, f"Validation RMSE over {last} epochs, best {best}")


def _tap_rows(task: TaskResult, name: str, factor: float, width: int) -> list[dict[str, Any]]:
    """Return each tap's metric with its spread, and a label where the tap is the best or the cut."""
    taps = task.regress.taps
    cut = task.prune.cut if task.prune else None
    outwards = 20 if style(name).better == "lower" else -20
    rows = []
    for position, tap in enumerate(taps):
        mean = mean_of(tap.metrics, name)
        if mean is None:
            continue
        std = tap.metrics[name].std
        spread = std if std is not None and is_number(std) else 0.0
        marks = [word for word, marked in (("best", task.regress.best_tap), ("cut", cut)) if marked == tap.tap]
        measured = metric_text(name, tap.metrics[name], unit_of(task.labels, name))
        text = f"{' and '.join(marks)}: {measured}" if marks else ""
        rows.append(
            {
                "tap": tap.tap,
                "value": mean * factor,
                "low": (mean - spread) * factor,
                "high": (mean + spread) * factor,
                "role": marks[0] if marks else "other",
                "text": text,
                **place(alignment((position + 0.5) / len(taps), width), -outwards if marks == ["cut"] else outwards),
            }
        )
    return rows


def _baseline_in_view(task: TaskResult, name: str, factor: float, low: float, high: float) -> list[float]:
    """Return the trivial predictor's metric, unless it lies so far off that the taps' differences would vanish."""
    baseline = mean_of(task.regress.baseline, name)
    if baseline is None:
        return []
    value = baseline * factor
    return [value] if max(low - value, value - high) <= _FAR_BASELINE * (high - low) else []


def _height(width: int, wide: int) -> int:
    """Return a figure's height: a little lower where it is narrow."""
    return wide if width >= WIDTH else round(0.8 * wide)
