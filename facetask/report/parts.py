"""The page's table of a task with several labels or outputs: each one's metrics, step by step."""

from __future__ import annotations

from facetask.report.format import count
from facetask.report.metrics import column_label, metric_text, of_part, parts_of, unit_of
from facetask.report.tables import Table
from facetask.running.results import Metric, Metrics, TaskResult

_OF_LAST_STEP = ("accuracy", "balanced_accuracy", "f1")


def parts_table(task: TaskResult, main: str) -> Table | None:
    """Return a row for each label: how often it is there, the main metric at each step, more metrics of the last."""
    best = next((tap.metrics for tap in task.regress.taps if tap.tap == task.regress.best_tap), {})
    parts = parts_of(best)
    if not parts:
        return None
    steps: list[tuple[str, Metrics]] = [("all filters", task.prune.metrics_unpruned if task.prune else best)]
    if task.prune:
        steps.append(("pruned", task.prune.metrics_pruned))
    if task.finetune:
        steps.append(("finetuned", task.finetune.metrics))
    guessing = ("guessing", {name: _mean_only(metric) for name, metric in task.regress.baseline.items()})
    columns = [(name, *step) for name in _named(best, parts[0], main) for step in (guessing, *steps)]
    columns += [
        (name, *step)
        for name in _OF_LAST_STEP
        if name != main and of_part(name, parts[0]) in steps[-1][1]
        for step in ((guessing, steps[-1]) if name == "accuracy" else (steps[-1],))
    ]
    counted = task.labels.kind == "multilabel"
    head = ["label" if counted else "output", *(["known", "of these yes"] if counted else [])]
    for name, step, _ in columns:
        head.append(f"{column_label(name, unit_of(task.labels, of_part(name, parts[0])))}: {step}")
    rows, share = [], {}
    for index, part in enumerate(parts):
        row = [part if counted else f"output {part}"]
        if counted:
            known, positive = task.labels.known.get(part), task.labels.counts.get(part)
            row += [count(known), count(positive)]
            share[index, 2] = positive / known if known and positive else 0.0
        row += [metric_text(name, metrics.get(of_part(name, part)), with_units=False) for name, _, metrics in columns]
        rows.append(row)
    return Table(head, rows, {}, share)


def _named(metrics: Metrics, part: str, main: str) -> list[str]:
    """Return the metrics to show at every step: the main one where each output has it, else its errors."""
    wanted = [main] if of_part(main, part) in metrics else ["rmse", "mae"]
    return [name for name in wanted if of_part(name, part) in metrics]


def _mean_only(metric: Metric) -> Metric:
    """Return a metric without its spread."""
    return Metric(mean=metric.mean, std=None)
