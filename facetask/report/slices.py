"""What the page says of slices: each group's metrics before and after pruning, as a figure and as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
from markupsafe import Markup

from facetask.report.format import DASH, MINUS, count, is_number, listed, with_unit
from facetask.report.marks import WIDTH, axis_title, metric_title, padded
from facetask.report.metrics import column_label, main_metric, mean_of, metric_text, ordered, style, unit_of
from facetask.report.svg import PALETTE, render, source
from facetask.report.tables import Table, best_tap_metrics
from facetask.running.results import Metrics, SliceStep, Subgroup, TaskResult

EVERYONE = "all test images"
_NAMES: dict[SliceStep, str] = {
    "regress": "all filters",
    "unpruned": "unpruned",
    "pruned": "pruned",
    "finetuned": "finetuned",
}
_SHADES: dict[SliceStep, str] = {
    "regress": PALETTE["muted"],
    "unpruned": PALETTE["muted"],
    "pruned": PALETTE["knee"],
    "finetuned": PALETTE["accent"],
}
_ROW, _LABELS = 17, 190
_NARROWEST = 200


@dataclass(frozen=True)
class SlicesView:
    """What the template shows of a task's slices."""

    figure: Markup
    table: Table
    all_metrics: Table
    warnings: list[str]
    notes: list[str]


def slices_view(task: TaskResult, figure: Markup) -> SlicesView | None:
    """Return the texts of a task's slices, None where there are none; the figure is :func:`slices_figure`'s."""
    if not any(each.groups for each in task.slices):
        return None
    notes = []
    if any(group.small for each in task.slices for group in each.groups):
        notes.append("Few: fewer than 20 test images in some trial; these figures tell little and warn of nothing.")
    if task.prune and len(task.trials) == 1:
        notes.append("With one trial there is no spread, so that nothing can be said of whose error grew more.")
    return SlicesView(figure, _table(task), _all_metrics(task), _warnings(task), notes)


def slices_figure(task: TaskResult, width: int = WIDTH) -> str:
    """Return each group's main metric at each step with its spread over the trials; the whole's as lines."""
    steps = _steps(task)
    name, everyone = _main(task), _everyone(task)
    factor = 100 if style(name).scale == "percent" else 1
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    for label, group in _groups(task):
        names.append(label)
        for step in steps:
            row = _span(group.metrics.get(step, {}), name, factor)
            if row is not None:
                rows.append({"group": label, "step": _NAMES[step], "strength": 0.45 if group.small else 1.0, **row})
    if not rows:
        return ""
    lines: list[dict[str, Any]] = []
    for step in steps:
        value = mean_of(everyone[step], name)
        if value is not None:
            lines.append({"step": _NAMES[step], "value": value * factor})
    ends: list[float] = [end for row in rows for end in (row["low"], row["high"])] + [line["value"] for line in lines]
    plot = max(_NARROWEST, width - _LABELS)
    x_scale = alt.Scale(domain=padded(min(ends), max(ends), 0.05, 0.05), nice=False, zero=False)
    title = metric_title(style(name), unit_of(task.labels, name))
    x = alt.X("value:Q", title=title, scale=x_scale, axis=alt.Axis(tickCount=6))
    labels = alt.Axis(title=None, domain=False, ticks=False, labelPadding=8, labelLimit=_LABELS - 20, grid=False)
    y = alt.Y("group:N", sort=None, scale=alt.Scale(domain=names, paddingInner=0.25), axis=labels)
    order = [_NAMES[step] for step in steps]
    offset = alt.YOffset("step:N", sort=None, scale=alt.Scale(domain=order, paddingOuter=0.5))
    legend = alt.Legend(
        title=None, orient="top", symbolType="circle", symbolOpacity=1, labelColor=PALETTE["ink"], labelFontSize=12.5
    )
    shades = alt.Scale(domain=order, range=[_SHADES[step] for step in steps])
    colour = alt.Color("step:N", scale=shades, legend=legend if len(order) > 1 else None)
    strength = alt.Opacity("strength:Q", scale=None)
    dots, whole = alt.Chart(source("groups")), alt.Chart(source("whole"))
    chart = alt.layer(
        whole.mark_rule(strokeDash=[5, 4], strokeWidth=1.2).encode(x=x, color=colour),
        dots.mark_rule(strokeWidth=1.6).encode(
            x=alt.X("low:Q"), x2=alt.X2("high:Q"), y=y, yOffset=offset, color=colour, opacity=strength
        ),
        dots.mark_circle(size=70).encode(x=x, y=y, yOffset=offset, color=colour, opacity=strength),
    ).properties(width=plot, height=_ROW * (len(order) + 0.6) * len(names))
    return render(
        chart,
        {"groups": rows, "whole": lines},
        f"{style(name).label} of {len(names)} groups of test images, {', '.join(order)}",
    )


def _table(task: TaskResult) -> Table:
    """Return every group's main metric at each step, and by how much more its error grew than the whole's."""
    steps, name, everyone = _steps(task), _main(task), _everyone(task)
    label = column_label(name, unit_of(task.labels, name))
    after = [step for step in steps if step in ("pruned", "finetuned")]
    head = ["images", "in a test split", *(f"{label}: {_NAMES[step]}" for step in steps)]
    growth = axis_title("error’s growth beyond the whole’s", _change_unit(task))
    head += [f"{growth}: {_NAMES[step]}" for step in after]
    n_test = [trial.n_test for trial in task.trials]
    whole = [metric_text(name, everyone[step].get(name), with_units=False) for step in steps]
    rows, marked = [[EVERYONE, _range(n_test), *whole, *(DASH for _ in after)]], {0: "whole"}
    for shown, group in _groups(task):
        marks = [mark for mark, present in (("few", group.small), ("grew", bool(group.grew))) if present]
        if marks:
            marked[len(rows)] = " ".join(marks)
        measured = [metric_text(name, group.metrics.get(step, {}).get(name), with_units=False) for step in steps]
        beyond = [_change(name, group, step) for step in after]
        rows.append([shown, _range(group.n_test), *measured, *beyond])
    return Table(head, rows, marked)


def _all_metrics(task: TaskResult) -> Table:
    """Return every group's metrics before pruning and at the last step."""
    steps, everyone = _steps(task), _everyone(task)
    names = ordered(task.labels.kind, (name for _, group in _groups(task) for name in group.metrics.get(steps[0], {})))
    columns = [(name, step) for name in names for step in dict.fromkeys([steps[0], steps[-1]])]
    rows = []
    for shown, metrics in [(EVERYONE, everyone), *((shown, group.metrics) for shown, group in _groups(task))]:
        texts = [metric_text(name, metrics.get(step, {}).get(name), with_units=False) for name, step in columns]
        rows.append([shown, *texts])
    labels = [f"{column_label(name, unit_of(task.labels, name))}: {_NAMES[step]}" for name, step in columns]
    return Table(["images", *labels], rows, {0: "whole"})


def _warnings(task: TaskResult) -> list[str]:
    """Return, for each step, the groups whose error has grown more than that of all test images."""
    name, warnings = _main(task), []
    unit = _change_unit(task)
    for step, what in (("pruned", "Pruning"), ("finetuned", "Pruning and finetuning")):
        grew = [(shown, group) for shown, group in _groups(task) if step in group.grew]
        named = [
            f"{shown} (by {with_unit(_change(name, group, step).removeprefix('+'), unit)})" for shown, group in grew
        ]
        if named:
            warnings.append(f"{what} made the error grow more for {listed(named)} than for all test images together.")
    return warnings


def _change(name: str, group: Subgroup, step: Any) -> str:
    """Return by how much more a group's error has grown than the whole's, with its sign."""
    excess = group.excess.get(step)
    if excess is None or not is_number(excess.mean):
        return DASH
    text = metric_text(name, excess, with_units=False)
    return text if text.startswith(MINUS) else f"+{text}"


def _change_unit(task: TaskResult) -> str:
    """Return the unit of a change of the main metric."""
    return "points" if style(_main(task)).scale == "percent" else unit_of(task.labels, _main(task))


def _groups(task: TaskResult) -> list[tuple[str, Subgroup]]:
    """Return all slices' groups by the name that a reader sees."""
    return [(f"{each.column}: {group.group}", group) for each in task.slices for group in each.groups]


def _steps(task: TaskResult) -> list[SliceStep]:
    """Return the steps to show: before pruning, and what came after it; the best tap alone where nothing did."""
    if task.prune is None:
        return ["regress"]
    return ["unpruned", "pruned", "finetuned"] if task.finetune else ["unpruned", "pruned"]


def _everyone(task: TaskResult) -> dict[SliceStep, Metrics]:
    """Return the metrics of all test images at each step."""
    found: dict[SliceStep, Metrics] = {"regress": best_tap_metrics(task)}
    if task.prune:
        found |= {"unpruned": task.prune.metrics_unpruned, "pruned": task.prune.metrics_pruned}
    if task.finetune:
        found["finetuned"] = task.finetune.metrics
    return found


def _main(task: TaskResult) -> str:
    """Return the metric that the task is judged by."""
    return main_metric(task.labels.kind, (name for tap in task.regress.taps for name in tap.metrics))


def _span(metrics: Metrics, name: str, factor: float) -> dict[str, float] | None:
    """Return a metric and the ends of its spread, None where it is not known."""
    value = mean_of(metrics, name)
    if value is None:
        return None
    std = metrics[name].std
    spread = std if std is not None and is_number(std) else 0.0
    return {"value": value * factor, "low": (value - spread) * factor, "high": (value + spread) * factor}


def _range(n_test: list[int]) -> str:
    """Return how many images there are in a trial: ``112`` or ``104–118``."""
    low, high = min(n_test), max(n_test)
    return count(low) if low == high else f"{count(low)}–{count(high)}"
