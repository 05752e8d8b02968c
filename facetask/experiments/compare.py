"""``facetask compare``: several runs side by side, task by task, with a word on whether they may be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from facetask.errors import RunDirError, did_you_mean, first_names
from facetask.experiments.cost_figure import CostFigure, Point, cost_figure
from facetask.experiments.page import Figure, Part, Section, Shown, write_figures, write_page
from facetask.experiments.together import Together, together, together_table, together_text
from facetask.json_record import Record
from facetask.report.format import DASH, count, duration, human_bytes, human_count, percent
from facetask.report.metrics import column_label, main_metric, metric_text, style, unit_of
from facetask.report.tables import Table, best_tap_metrics
from facetask.running.results import LabelSummary, Metrics, NetworkCost, Results, TaskResult, read_results

Step = Literal["all filters", "pruned", "finetuned"]


class ComparedRun(Record):
    """One run's result for one task."""

    run: str = Field(description="The run's name: its folder's, with as many parents as it takes to tell it apart.")
    folder: str
    base_network: str
    stage: str = Field(description="The last stage that has run.")
    not_comparable: list[str] = Field(description="In what it differs from the first run of this task; empty: nothing.")
    best_tap: str
    cut: str | None
    shared: list[str] = Field(default_factory=list, description="The tasks that share its network; empty: its own.")
    kept: int | None = Field(description="Filters kept at all taps up to the cut.")
    full: int | None = Field(description="How many these taps have.")
    metrics: dict[Step, Metrics] = Field(description="On test images, over the trials.")
    cost: NetworkCost | None = Field(description="Of the pruned network.")
    cost_unpruned: NetworkCost | None = Field(description="Of the base network merely cut there.")
    cost_base: NetworkCost | None
    trials: int
    wall_s: float = Field(description="The stages' seconds, over the trials, without what tasks share.")


class ComparedTask(Record):
    """One task, in the runs that have it."""

    name: str
    main_metric: str
    labels: LabelSummary = Field(description="Of the first of these runs.")
    runs: list[ComparedRun]


class RunComparison(Record):
    """Several runs side by side."""

    format_version: Literal[1] = 1
    tasks: list[ComparedTask]
    together: Together | None = Field(
        default=None, description="What the networks of several tasks cost together; null for fewer than two."
    )


def compare_runs(folders: Sequence[Path]) -> RunComparison:
    """Return several runs side by side, by the names of their tasks.

    Args:
        folders: The runs' folders, two or more.

    Raises:
        RunDirError: If a folder holds no results, or there is nothing to compare.
    """
    runs = [(folder, _read(folder)) for folder in folders]
    if len({folder.resolve() for folder in folders}) < 2:
        raise RunDirError("compare needs two different runs or more; name their folders")
    names = _short_names(folders)
    tasks: dict[str, list[tuple[int, TaskResult]]] = {}
    for index, (_, results) in enumerate(runs):
        for task in results.tasks:
            tasks.setdefault(task.name, []).append((index, task))
    compared = []
    for name, having in tasks.items():
        first, reference = having[0]
        told = [
            _compared(names[index], *runs[index], task, _differences(runs[first], reference, runs[index], task))
            for index, task in having
        ]
        main = main_metric(reference.labels.kind, best_tap_metrics(reference))
        compared.append(ComparedTask(name=name, main_metric=main, labels=reference.labels, runs=told))
    named = [(name, results) for name, (_, results) in zip(names, runs, strict=True)]
    return RunComparison(tasks=compared, together=together(named))


def write_comparison(comparison: RunComparison, path: Path) -> list[Path]:
    """Write a comparison's page, and its figures into a folder beside it; return the paths.

    Raises:
        RunDirError: If they cannot be written.
    """
    sections = [_section(task) for task in comparison.tasks]
    if comparison.together is not None:
        table = Shown(together_table(comparison.together), together_text(comparison.together))
        sections.append(Section("All tasks together", [table]))
    runs = list(dict.fromkeys(run.run for task in comparison.tasks for run in task.runs))
    write_page(path, f"{len(runs)} runs side by side", sections, lede=", ".join(runs), kind="comparison")
    return [path, *write_figures(path.with_name(f"{path.stem}_figures"), sections)]


def comparison_table(task: ComparedTask) -> Table:
    """Return one row a run: where it cuts, what it keeps, how good and how small its network is."""
    main = task.main_metric
    steps: list[Step] = [step for step in _STEPS if any(step in run.metrics for run in task.runs)]
    label = column_label(main, unit_of(task.labels, main))
    pruned = any(run.cost for run in task.runs)
    head = ["run", "base network", "cut at" if pruned else "best tap", *(["kept"] if pruned else [])]
    head += [f"{label}: {step}" for step in steps]
    head += (["size", "MACs"] if pruned else []) + ["wall time"]
    rows: list[list[str]] = []
    marked: dict[int, str] = {}
    share: dict[tuple[int, int], float] = {}
    for index, run in enumerate(task.runs):
        row = [run.run + ("*" if run.not_comparable else ""), run.base_network, run.cut or run.best_tap]
        if pruned:
            row.append(f"{count(run.kept)} of {count(run.full)}" if run.kept is not None else DASH)
        row += [metric_text(main, run.metrics.get(step, {}).get(main), with_units=False) for step in steps]
        if pruned and run.cost and run.cost_base:
            of_size, of_macs = run.cost.size_bytes / run.cost_base.size_bytes, run.cost.macs / run.cost_base.macs
            shared = f", for {len(run.shared)} tasks" if run.shared else ""
            row += [f"{human_bytes(run.cost.size_bytes)}, {percent(of_size)}{shared}"]
            row += [f"{human_count(run.cost.macs)}, {percent(of_macs)}"]
            share |= {(index, len(row) - 2): min(of_size, 1.0), (index, len(row) - 1): min(of_macs, 1.0)}
        elif pruned:
            row += [DASH] * 2
        rows.append([*row, duration(run.wall_s)])
        if run.not_comparable:
            marked[index] = "aside"
    return Table(head, rows, marked, share)


def not_comparable(task: ComparedTask) -> list[str]:
    """Return, for each run that must not be compared with the first, why."""
    first = task.runs[0].run
    return [
        f"{run.run}: not comparable with {first}: {'; '.join(run.not_comparable)}"
        for run in task.runs
        if run.not_comparable
    ]


def as_text(table: Table) -> str:
    """Return a table for a terminal: columns padded."""
    lines = [table.head, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    texts = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    return "\n".join(text.rstrip().replace("\u00a0", " ") for text in [texts[0], "-" * len(texts[0]), *texts[1:]])


_STEPS: tuple[Step, ...] = ("all filters", "pruned", "finetuned")


def _read(folder: Path) -> Results:
    """Return a run's results."""
    if not (folder / "results.json").is_file():
        inside = sorted(path.parent.name for path in folder.glob("*/results.json")) if folder.is_dir() else []
        what = "no such folder" if not folder.exists() else "no run's folder (it has no results.json)"
        hint = f"; it holds the runs {first_names(inside)}" if inside else ""
        if not folder.exists() and folder.parent.is_dir():
            hint = did_you_mean(folder.name, [path.parent.name for path in folder.parent.glob("*/results.json")])
            hint = hint if "did you mean" in hint else ""
        raise RunDirError(f"{folder}: {what}{hint}")
    return read_results(folder / "results.json")


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return each folder's name, with as many parents as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-depth:]) for own in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(folder) for folder in folders]


def _compared(name: str, folder: Path, results: Results, task: TaskResult, differences: list[str]) -> ComparedRun:
    """Return one run's result for one task."""
    prune = task.prune
    metrics: dict[Step, Metrics] = {"all filters": prune.metrics_unpruned if prune else best_tap_metrics(task)}
    if prune:
        metrics["pruned"] = prune.metrics_pruned
    if task.finetune:
        metrics["finetuned"] = task.finetune.metrics
    return ComparedRun(
        run=name,
        folder=str(folder),
        base_network=results.base_network.plugin,
        stage=list(task.wall_s)[-1] if task.wall_s else results.stage,
        not_comparable=differences,
        best_tap=task.regress.best_tap,
        cut=prune.cut if prune else None,
        shared=prune.shared if prune else [],
        kept=sum(prune.kept.values()) if prune else None,
        full=sum(prune.full.values()) if prune else None,
        metrics=metrics,
        cost=prune.pruned if prune else None,
        cost_unpruned=prune.unpruned_at_cut if prune else None,
        cost_base=prune.base if prune else None,
        trials=results.trials,
        wall_s=sum(task.wall_s.values()),
    )


def _differences(
    first: tuple[Path, Results], reference: TaskResult, other: tuple[Path, Results], task: TaskResult
) -> list[str]:
    """Return in what a run's images, labels and partitions differ from the first run's."""
    found = []
    a, b = first[1], other[1]
    if (a.data.plugin, a.data.n_images) != (b.data.plugin, b.data.n_images):
        found.append(
            f"other images ({b.data.plugin}, {count(b.data.n_images)}, not {a.data.plugin}, {count(a.data.n_images)})"
        )
    if task.labels.kind != reference.labels.kind or task.labels.unit != reference.labels.unit:
        found.append(f"another kind of label ({_kind(task)}, not {_kind(reference)})")
    sizes = [(part.n_train, part.n_validation, part.n_test) for part in (reference.trials[0], task.trials[0])]
    if a.seed != b.seed:
        found.append(f"another seed ({b.seed}, not {a.seed})")
    if a.trials != b.trials:
        found.append(f"{b.trials} random partition{'s' if b.trials > 1 else ''}, not {a.trials}")
    if not found and sizes[0] != sizes[1]:
        found.append(
            "other sizes of training, validation and test split ({}, {}, {}, not {}, {}, {})".format(
                *sizes[1], *sizes[0]
            )
        )
    if not found:  # what looks alike may still differ; the stages say exactly what they depend on
        known = [_depends(folder, name) for folder, name in ((first[0], reference.name), (other[0], task.name))]
        told = {"images": "other images", "labels": "other labels", "split": "another split"}
        found += [
            text for key, text in told.items() if known[0] and known[1] and known[0].get(key) != known[1].get(key)
        ]
    return found


def _kind(task: TaskResult) -> str:
    """Return a task's kind with its unit."""
    return f"{task.labels.kind}, in {task.labels.unit}" if task.labels.unit else task.labels.kind


def _depends(folder: Path, task: str) -> dict[str, Any]:
    """Return what a task's regressions depend on, where the run's folder still says so."""
    try:
        stored = json.loads((folder / "stages" / task / "trial-0" / "regress.json").read_text(encoding="utf-8"))
        depends = stored["depends"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return depends if isinstance(depends, dict) else {}


def _section(task: ComparedTask) -> Section:
    """Return one task's section."""
    label = style(task.main_metric).label
    parts: list[Part] = [
        Figure(
            f"compare_{task.name}",
            partial(_figure, task),
            f"{label[:1].upper()}{label[1:]} on test images against MACs, a colour a run: cut there with "
            "all filters (right), then pruned, then finetuned; the line goes from one to the next. Whiskers: standard "
            "deviation over the trials.",
        ),
        Shown(
            comparison_table(task),
            "Shares are those of each run’s base network. All metrics on test images, over the trials.",
        ),
        *(f"* {why}" for why in not_comparable(task)),
    ]
    unit = unit_of(task.labels, task.main_metric)
    return Section(task.name, parts, "", f"{task.labels.kind}{', in ' + unit if unit else ''}")


def _figure(task: ComparedTask, width: int) -> str:
    """Return the metric against MACs, a point a run and step."""
    points: list[Point] = []
    lines: list[list[int]] = []
    for run in task.runs:
        line = []
        for step, cost in zip(_STEPS, (run.cost_unpruned, run.cost, run.cost), strict=True):
            metric = run.metrics.get(step, {}).get(task.main_metric)
            if metric is not None and cost is not None:
                line.append(len(points))
                points.append(Point(run.run, cost.macs, metric))
        if line:
            last = points[line[-1]]
            points[line[-1]] = Point(last.series, last.cost, last.quality, "" if len(task.runs) == 1 else run.run, True)
        lines.append(line)
    figure = CostFigure(points, task.main_metric, unit_of(task.labels, task.main_metric), "MACs", "~s", lines)
    return cost_figure(figure, width)
