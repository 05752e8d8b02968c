"""The page's tables of one satellite task, as texts."""

from __future__ import annotations

from dataclasses import dataclass, field

from facetask.report.format import DASH, count, human_bytes, human_count, is_number, number, percent
from facetask.report.metrics import column_label, metric_text, ordered, unit_of
from facetask.running.results import Metric, Metrics, NetworkCost, PlainMetrics, PruneResult, TaskResult
from facetask.statistics.knees import sweep

_MOST_COLUMNS = 4
_THRESHOLDS = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Table:
    """A table of texts; ``marked`` names rows to stand out, ``share`` draws a bar under a cell (row, column)."""

    head: list[str]
    rows: list[list[str]]
    marked: dict[int, str] = field(default_factory=dict)
    share: dict[tuple[int, int], float] = field(default_factory=dict)


def as_markdown(table: Table) -> str:
    """Return a table as Markdown text."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "".join(f"| {' | '.join(cell.replace('|', '¦') for cell in line)} |\n" for line in lines)


def before_after_table(task: TaskResult) -> Table:
    """Return the networks from base to finetuned: what they cost and how good they are."""
    kind = task.labels.kind
    best = best_tap_metrics(task)
    prune = task.prune
    lines: list[tuple[str, NetworkCost | None, Metrics]] = [
        (f"base network, read at {task.regress.best_tap}", prune.base if prune else None, best)
    ]
    if prune:
        lines += [
            (f"cut {_where(prune)}, unpruned", prune.unpruned_at_cut, prune.metrics_unpruned),
            ("pruned", prune.pruned, prune.metrics_pruned),
        ]
    if task.finetune:
        lines.append(("finetuned", prune.pruned if prune else None, task.finetune.metrics))
    lines.append(("guessing (no network)", None, task.regress.baseline))
    names = ordered(kind, (name for _, _, metrics in lines for name in metrics))[:_MOST_COLUMNS]
    costs = ["parameters", "in convs", "MACs", "size"] if prune else []
    rows, share = [], {}
    for index, (label, cost, metrics) in enumerate(lines):
        shown = [DASH] * len(costs)
        if cost and prune:
            shown = [
                human_count(cost.params),
                human_count(cost.conv_params),
                human_count(cost.macs),
                human_bytes(cost.size_bytes),
            ]
            for column, (part, whole) in enumerate(_shares(cost, prune.base), start=1):
                share[index, column] = min(part / whole, 1.0) if whole else 0.0
        values = [metric_text(name, metrics.get(name), with_units=False) for name in names]
        rows.append([label, *shown, *values])
    marked = {len(lines) - 1: "guess", len(lines) - 2: "final"}
    head = ["network", *costs, *(column_label(name, unit_of(task.labels, name)) for name in names)]
    return Table(head, rows, marked, share)


def _where(prune: PruneResult) -> str:
    """Return where a network is cut."""
    return f"for all {len(prune.shared)} tasks, read at {prune.cut}" if prune.shared else f"at {prune.cut}"


def best_tap_metrics(task: TaskResult) -> Metrics:
    """Return the metrics at the best tap: of the final classifier, where that is another model than the regression."""
    if task.regress.classifier is not None:
        return task.regress.classifier
    return next((tap.metrics for tap in task.regress.taps if tap.tap == task.regress.best_tap), {})


def _shares(cost: NetworkCost, base: NetworkCost) -> list[tuple[int, int]]:
    """Return pairs of a network's cost and the base network's, in the table's column order."""
    return [
        (cost.params, base.params),
        (cost.conv_params, base.conv_params),
        (cost.macs, base.macs),
        (cost.size_bytes, base.size_bytes),
    ]


def layers_table(task: TaskResult) -> Table:
    """Return every tap with its filters, knee, kept filters and metrics."""
    names = ordered(task.labels.kind, (name for tap in task.regress.taps for name in tap.metrics))
    knees = {curve.tap: curve.knee for curve in task.curve.taps} if task.curve else {}
    kept = task.prune.kept if task.prune else {}
    head = ["tap", "filters", *(["knee"] if task.curve else []), *(["kept"] if task.prune else [])]
    rows, marked = [], {}
    for index, tap in enumerate(task.regress.taps):
        row = [tap.tap, count(tap.n_filters)]
        row += [count(knees.get(tap.tap))] if task.curve else []
        row += [count(kept.get(tap.tap))] if task.prune else []
        rows.append(row + [metric_text(name, tap.metrics.get(name), with_units=False) for name in names])
        if task.prune and tap.tap == task.prune.cut:
            marked[index] = "cut"
        if tap.tap == task.regress.best_tap:
            marked[index] = "best"
    return Table([*head, *(column_label(name, unit_of(task.labels, name)) for name in names)], rows, marked)


def thresholds_table(task: TaskResult) -> Table | None:
    """Return how many filters the best tap and the cut would keep at the papers' thresholds, with the RMSE there."""
    if task.curve is None:
        return None
    named = {task.regress.best_tap: "best", **({task.prune.cut: "cut"} if task.prune else {})}
    if task.prune and task.prune.cut == task.regress.best_tap:
        named = {task.prune.cut: "best and cut"}
    rows = []
    for curve in task.curve.taps:
        finite = [i for i, rmse in enumerate(curve.rmse) if is_number(rmse)]
        if curve.tap in named and finite:
            drawn = _Points([curve.n_filters[i] for i in finite], [curve.rmse[i] for i in finite])
            cells = [f"{count(n)} ({number(rmse)})" for n, rmse in sweep(drawn, _THRESHOLDS)]
            rows.append([f"{curve.tap} ({named[curve.tap]})", *cells])
    return Table(["tap", *(f"threshold {threshold:g}" for threshold in _THRESHOLDS)], rows) if rows else None


@dataclass(frozen=True)
class _Points:
    """The points of a curve whose RMSE is known."""

    n_filters: list[int]
    rmse: list[float]


def groups_table(prune: PruneResult) -> Table:
    """Return the coupled groups with what each keeps."""
    rows = []
    notes = any(group.notes for group in prune.groups)
    for group in prune.groups:
        share = percent(group.knee / group.n_components, decimals=0) if group.n_components else DASH
        row = [", ".join(group.taps), count(group.n_components), count(group.knee), share]
        rows.append(row + (["; ".join(group.notes)] if notes else []))
    return Table(["taps that share components", "components", "knee", "share", *(["notes"] if notes else [])], rows)


def trials_table(task: TaskResult, main: str) -> Table:
    """Return each trial's splits, choices and main metric."""
    steps: list[tuple[str, list[PlainMetrics | None]]] = [
        ("best tap", [trial.regress for trial in task.trials]),
        ("unpruned", [trial.metrics_unpruned for trial in task.trials]),
        ("pruned", [trial.metrics_pruned for trial in task.trials]),
        ("finetuned", [trial.finetune for trial in task.trials]),
    ]
    present = [(name, values) for name, values in steps if any(value is not None for value in values)]
    pruned = any(trial.params is not None for trial in task.trials)
    label = column_label(main, unit_of(task.labels, main))
    head = ["trial", "seed", "training", "validation", "test", "best tap"]
    head += ["cut", "parameters", "MACs"] if pruned else []
    head += [f"{label}: {name}" for name, _ in present]
    rows = []
    for index, trial in enumerate(task.trials):
        row = [str(trial.trial), str(trial.seed), count(trial.n_train), count(trial.n_validation), count(trial.n_test)]
        row.append(trial.best_tap)
        row += [trial.cut or DASH, human_count(trial.params), human_count(trial.macs)] if pruned else []
        rows.append(row + [_plain_text(main, values[index]) for _, values in present])
    return Table(head, rows, {0: "reported"} if len(rows) > 1 else {})


def _plain_text(main: str, metrics: PlainMetrics | None) -> str:
    """Return one trial's main metric."""
    value = (metrics or {}).get(main)
    if value is None:
        return DASH
    return metric_text(main, Metric(mean=value, std=None), with_units=False)
