"""The tables of a comparison."""

from __future__ import annotations

import math

from facetask.experiments.transfer.results import (
    PARTS,
    AllTasks,
    Method,
    MethodResult,
    TransferResults,
    TransferTask,
)
from facetask.report.format import DASH, MINUS, NBSP, duration, number, plus_minus
from facetask.report.metrics import column_label, metric_text, ordered, style, unit_of
from facetask.report.tables import Table
from facetask.running.results import Metric

GOAL_ALONE, GOAL_SHARED, GOAL_TASKS, GOAL_POINTS = 78.0, 300.0, 7, 1.0
TITLES: dict[Method, str] = {
    "regression": "our regression",
    "recipe": "the paper's recipe",
    "cached": "cached features",
    "finetuning": "full finetuning",
}
_MOST_METRICS = 2
_DISAGREE = 1.25


def methods_table(task: TransferTask, results: TransferResults) -> Table:
    """Return what each method reaches for a task, and what it takes."""
    main, several = task.main_metric, len(results.tasks) > 1
    names = [main, *(name for name in ordered(task.labels.kind, task.methods[0].metrics) if name != main)]
    names = names[: 1 if several else _MOST_METRICS]
    head = ["method", "read at", *(column_label(name, unit_of(task.labels, name)) for name in names), "against ours"]
    head += ["epochs", "time", "× ours", "× in CPU"]
    head += ["time, shared pass", "× ours, shared"] if several else []
    rows = []
    for found in task.methods:
        row = [title_of(found), found.tap]
        row += [metric_text(name, found.metrics.get(name), with_units=False) for name in names]
        row.append(DASH if found.method == "regression" else _difference(task, found))
        row.append(DASH if found.epochs is None else plus_minus(found.epochs.mean, found.epochs.std, decimals=0))
        row += [seconds(found.wall_s), times(found.ratio), times(found.cpu_ratio)]
        row += [seconds(found.shared_wall_s), times(found.shared_ratio)] if several else []
        rows.append(row)
    return Table(head, rows, {0: "final"})


def goals_table(results: TransferResults) -> Table:
    """Return the goals beside what was measured."""
    rows: list[list[str]] = []
    for task in results.tasks:
        for found in task.methods:
            if found.method == "recipe":
                what = f"{task.name}: the recipe's time against ours, one task"
                reached = _reached(found, GOAL_ALONE)
                rows.append([what, f"≥ {GOAL_ALONE:g} ×", _both_times(found), reached])
    n = len(results.tasks)
    for row in results.all_tasks:
        if row.method == "recipe" and n > 1:
            what = f"the same per task, {n} tasks sharing one pass"
            reached = _reached(row, GOAL_SHARED) if n >= GOAL_TASKS else f"{n} of {GOAL_TASKS} tasks"
            rows.append([what, f"≥ {GOAL_SHARED:g} × of {GOAL_TASKS} tasks", _both_times(row), reached])
    for task in results.tasks:
        rows += [
            _accuracy_goal(task, found) for found in task.methods if found.method in ("recipe", "cached", "finetuning")
        ]
    return Table(["goal", "wanted", "measured", "reached"], rows)


def _accuracy_goal(task: TransferTask, found: MethodResult) -> list[str]:
    """Return how near our accuracy is to another method's; a point is a hundredth of the whole."""
    what = f"{task.name}: {style(task.main_metric).label}, ours against {TITLES[found.method]}"
    ours = _loss(task, found)
    if style(task.main_metric).scale != "percent":
        unit = unit_of(task.labels, task.main_metric)
        mine, other = (
            metric_text(task.main_metric, m.metrics.get(task.main_metric), unit) for m in (task.methods[0], found)
        )
        return [what, "within one point", f"{mine} against {other}", DASH if ours is None else _better(ours)]
    if ours is None:
        return [what, "within one point", DASH, DASH]
    return [
        what,
        "within one point",
        f"{number(abs(100 * ours), decimals=1)} points {_better(ours)}",
        "yes" if 100 * ours <= GOAL_POINTS else "no",
    ]


def seconds_table(task: TransferTask) -> Table:
    """Return the parts of every trial's time."""
    head = ["method", "trial", *PARTS, "in all", "CPU", "epochs", "best epoch", "validation RMSE"]
    rows = []
    for found in task.methods:
        for one in found.trials:
            done = one.measured
            rows.append(
                [
                    TITLES[found.method] + (", extrapolated" if done.extrapolated else ""),
                    str(done.trial + 1),
                    *(duration(getattr(one.alone, part)) for part in PARTS),
                    duration(one.alone.wall),
                    duration(one.alone.cpu),
                    *(DASH if value is None else str(value) for value in (done.epochs, done.best_epoch)),
                    number(done.validation_rmse),
                ]
            )
    return Table(head, rows)


def title_of(found: MethodResult) -> str:
    """Return a method's name; what is extrapolated is marked."""
    return TITLES[found.method] + (" (extrapolated)" if found.extrapolated else "")


def _loss(task: TransferTask, found: MethodResult) -> float | None:
    """Return by how much ours is worse than a method, negative where it is better."""
    mean = found.difference.mean
    return None if mean is None else mean if task.higher_is_better else -mean


def _difference(task: TransferTask, found: MethodResult) -> str:
    """Return by how much a method's main metric is above or below ours."""
    percent = style(task.main_metric).scale == "percent"
    factor = 100 if percent else 1
    mean, std = (None if value is None else factor * value for value in (found.difference.mean, found.difference.std))
    text = plus_minus(mean, std, decimals=1 if percent else 2)
    return text if mean is None or text.startswith(MINUS) else f"+{text}"


def _better(loss: float) -> str:
    """Return which of both is better."""
    return "ours is worse" if loss > 0 else "ours is better" if loss < 0 else "alike"


def _reached(found: MethodResult | AllTasks, goal: float) -> str:
    """Return whether a goal is reached, in wall and in processor time: a busy machine must not reach it for us."""
    known = [ratio for ratio in (found.ratio, found.cpu_ratio) if ratio is not None]
    return DASH if not known else "yes" if min(known) >= goal else "no"


def times(ratio: float | None) -> str:
    """Return a ratio."""
    return DASH if ratio is None else f"{number(ratio)}{NBSP}×"


def _both_times(found: MethodResult | AllTasks) -> str:
    """Return the ratio of wall times, with that of processor times."""
    note = ", extrapolated" if found.extrapolated else ""
    return f"{times(found.ratio)} ({times(found.cpu_ratio)} in CPU{note})"


def busy(task: TransferTask) -> bool:
    """Return whether other work on the machine is likely to have disturbed the wall times."""
    ratios = [(found.ratio, found.cpu_ratio) for found in task.methods]
    return any(wall and cpu and abs(math.log(wall / cpu)) > math.log(_DISAGREE) for wall, cpu in ratios)


def seconds(wall: Metric) -> str:
    """Return a wall time over the trials."""
    spread = f" ± {duration(wall.std)}" if wall.std else ""
    return duration(wall.mean) + spread
