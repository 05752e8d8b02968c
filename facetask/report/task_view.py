"""One satellite task's part of the page, as texts and figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from markupsafe import Markup

from facetask.keep_sets.budget import Budget
from facetask.report import confusion, figures, panels, response, stability
from facetask.report.format import (
    DASH,
    NBSP,
    count,
    duration,
    human_bytes,
    human_count,
    is_number,
    listed,
    ordinal,
    reduction,
)
from facetask.report.labels_view import LabelsView, labels_view
from facetask.report.marks import WIDTH
from facetask.report.metrics import column_label, main_metric, metric_text, style, unit_of
from facetask.report.parts import parts_table
from facetask.report.slices import SlicesView, slices_figure, slices_view
from facetask.report.tables import (
    Table,
    before_after_table,
    best_tap_metrics,
    groups_table,
    layers_table,
    thresholds_table,
    trials_table,
)
from facetask.running.results import CurveResult, FilterResponse, Metric, PruneResult, Results, TaskResult

_NARROW = 440
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Tile:
    """One key number: what, the number, and a line of context."""

    name: str
    value: str
    note: str
    unit: str = ""


@dataclass(frozen=True)
class Step:
    """The main metric at one step, for the headline and the summary; ``short`` is without the unit."""

    name: str
    text: str
    short: str


@dataclass(frozen=True)
class TaskView:
    """What the template shows of a task."""

    anchor: str
    name: str
    kind: str
    main: str
    main_start: str
    main_column: str
    best_tap: str
    best_place: str
    cut: str
    shared: str
    steps: list[Step]
    guess: str
    guess_short: str
    sizes: tuple[str, str]
    macs: tuple[str, str]
    size_change: str
    macs_change: str
    tiles: list[Tile]
    accuracy_figure: Markup
    curves_figure: Markup
    selector: str
    knee_rule: str
    thresholds: Table | None
    curve_unit: str
    stability_figure: Markup
    draws: str
    response_figures: list[Markup]
    response_filter: str
    tap_panels: Markup
    group_panels: Markup
    kept_figure: Markup
    training_figure: Markup
    before_after: Table
    parts: Table | None
    confusion_figure: Markup
    confusion_step: str
    slices: SlicesView | None
    conv_note: str
    macs_note: str
    budget: str
    excess: str
    rounds: int
    layers: Table
    groups: Table | None
    trials: Table
    labels: LabelsView
    curve_notes: list[tuple[str, str]]
    best_epoch: str
    model: str
    stopped: str
    wall: str


def task_view(task: TaskResult, results: Results, position: int) -> TaskView:
    """Return a task's texts and figures."""
    main = main_metric(task.labels.kind, (name for tap in task.regress.taps for name in tap.metrics))
    steps = _steps(task, main)
    prune = task.prune
    budget = _budget(prune) if prune else None
    return TaskView(
        anchor=f"task-{position}",
        name=task.name,
        kind=task.labels.kind + (f", in {task.labels.unit}" if task.labels.unit else ""),
        main=style(main).label,
        main_start=style(main).label[:1].upper() + style(main).label[1:],
        main_column=column_label(main, unit_of(task.labels, main)),
        best_tap=task.regress.best_tap,
        best_place=_place(task),
        cut=prune.cut if prune else "",
        shared=listed(prune.shared) if prune else "",
        steps=steps,
        guess=metric_text(main, _mean_only(task.regress.baseline.get(main)), unit_of(task.labels, main)),
        sizes=(human_bytes(prune.base.size_bytes), human_bytes(prune.size_bytes)) if prune else (DASH, DASH),
        macs=(human_count(prune.base.macs), human_count(prune.macs)) if prune else (DASH, DASH),
        guess_short=metric_text(main, _mean_only(task.regress.baseline.get(main)), with_units=False),
        size_change=reduction(prune.size_reduction) if prune else DASH,
        macs_change=reduction(prune.macs_reduction) if prune else DASH,
        tiles=_tiles(task, steps, style(main).label),
        accuracy_figure=figure_twice(figures.layer_accuracy, task),
        curves_figure=figure_twice(figures.characteristic_curves, task),
        selector=task.curve.selector if task.curve else "",
        knee_rule=_knee_rule(task.curve) if task.curve else "",
        thresholds=thresholds_table(task),
        curve_unit=task.curve.unit if task.curve else "",
        stability_figure=figure_twice(stability.selection_probability, task),
        draws=_draws(task.curve, len(task.trials)) if task.curve else "",
        response_figures=[figure_twice(partial(_response, found), task) for found in task.responses if found.bins],
        response_filter=_response_filter(task),
        tap_panels=figure_twice(panels.tap_panels, task),
        group_panels=figure_twice(panels.group_panels, task),
        kept_figure=figure_twice(figures.kept_filters, task),
        training_figure=figure_twice(figures.training_curve, task),
        before_after=before_after_table(task),
        parts=parts_table(task, main),
        confusion_figure=figure_twice(confusion.confusion_matrix, task),
        confusion_step=confusion.last_confusion(task)[0],
        slices=slices_view(task, figure_twice(slices_figure, task)),
        conv_note=reduction(prune.conv_size_reduction) if prune else "",
        macs_note=prune.macs_note if prune else "",
        budget=_typeset(str(budget)) if budget else "",
        excess=_typeset(budget.excess(prune.pruned, prune.base)) if prune and budget else "",
        rounds=prune.rounds if prune else 0,
        layers=layers_table(task),
        groups=groups_table(prune) if prune and prune.groups else None,
        trials=trials_table(task, main),
        labels=labels_view(task.labels),
        curve_notes=[(curve.tap, "; ".join(curve.notes)) for curve in task.curve.taps if curve.notes]
        if task.curve
        else [],
        best_epoch=str(task.finetune.best_epoch) if task.finetune else "",
        model=task.model or "",
        stopped=_stopped(task, results),
        wall=duration(sum(value for value in task.wall_s.values() if is_number(value))),
    )


def _knee_rule(curve: CurveResult) -> str:
    """Return where the knee is, and which model's error is drawn."""
    rules = {
        "threshold": "the fewest filters whose error is above that curve’s best by at most "
        f"{curve.threshold:g} of the curve’s range",
        "elbow": "where the curve bends most (Kneedle’s elbow)",
        "one-standard-error": "the fewest filters whose mean error over the trials is within one standard error of the "
        "lowest mean",
    }
    key, _, value = curve.rule.partition(": ")
    sized = {"filters": f"the {value} filters asked for", "fraction": f"the asked fraction of the filters, {value}"}
    text = {**rules, **sized}.get(key, curve.rule)
    return text + ("; errors are those of the selector’s own model, not fitted anew" if curve.refit == "none" else "")


def _draws(curve: CurveResult, trials: int) -> str:
    """Return what selection probabilities count: ``3 trials and 60 bootstrap resamples``."""
    counted = f"{trials} trial" + ("s" if trials > 1 else "")
    resamples = curve.draws - trials
    return counted + (f" and {resamples} bootstrap resamples of their training images" if resamples > 0 else "")


def _response(found: FilterResponse, task: TaskResult, width: int) -> str:
    """Return the figure of a filter's response."""
    return response.filter_response(task, found, width)


def _response_filter(task: TaskResult) -> str:
    """Return which filter's response is drawn."""
    return f"filter {task.responses[0].filter} of {task.responses[0].tap}" if task.responses else ""


def figure_twice(draw: Callable[[Subject, int], str], subject: Subject) -> Markup:
    """Return a figure twice, for wide and for narrow windows; the style sheet shows one of them.

    A figure is safe to embed: it was parsed and serialised as XML, so that names inside it are escaped.
    """
    wide, narrow = (draw(subject, width) for width in (WIDTH, _NARROW))
    return (
        Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(Markup(wide), Markup(narrow))
        if wide
        else Markup("")
    )


def _budget(prune: PruneResult) -> Budget | None:
    """Return what need chose within; None where the label chose."""
    return None if prune.budget is None else Budget(prune.budget, prune.size_budget)


def _typeset(told: str) -> str:
    """Return a message of the terminal's as the page sets it."""
    return told.replace("'", "’").replace("%", f"{NBSP}%")


def _stopped(task: TaskResult, results: Results) -> str:
    """Return after which stage this task's results end, where that is before the last one."""
    if task.finetune:
        return ""
    stage = "pruning" if task.prune else "the characteristic curves" if task.curve else "the regressions"
    return f"The run was asked to stop after {stage}." if results.finished else f"So far the run has reached {stage}."


def _place(task: TaskResult) -> str:
    """Return where in the network the best tap lies: ``the 18th of 29 taps``."""
    names = [tap.tap for tap in task.regress.taps]
    if task.regress.best_tap not in names:
        return ""
    position = names.index(task.regress.best_tap) + 1
    return f"the {ordinal(position)} of {len(names)} taps" if len(names) > 1 else "the only tap"


def _steps(task: TaskResult, main: str) -> list[Step]:
    """Return the main metric at each step that exists."""
    measured = [("all filters", task.prune.metrics_unpruned if task.prune else best_tap_metrics(task))]
    if task.prune:
        measured.append(("pruned", task.prune.metrics_pruned))
    if task.finetune:
        measured.append(("finetuned", task.finetune.metrics))
    return [
        Step(
            name,
            metric_text(main, metrics.get(main), unit_of(task.labels, main)),
            metric_text(main, metrics.get(main), with_units=False),
        )
        for name, metrics in measured
    ]


def _tiles(task: TaskResult, steps: list[Step], main: str) -> list[Tile]:
    """Return the key numbers: where, how small, how good."""
    tiles = [Tile("Best tap", task.regress.best_tap, _place(task))]
    if task.prune:
        prune = task.prune
        size = f"{human_bytes(prune.base.size_bytes)} → {human_bytes(prune.size_bytes)}"
        macs = f"{human_count(prune.base.macs)} → {human_count(prune.macs)}"
        shared = f", for {len(prune.shared)} tasks" if prune.shared else ""
        tiles += [
            Tile("Size", reduction(prune.size_reduction), size + shared),
            Tile("MACs", reduction(prune.macs_reduction), macs + shared),
        ]
    elif task.curve:
        knee = next((curve.knee for curve in task.curve.taps if curve.tap == task.regress.best_tap), None)
        full = next((tap.n_filters for tap in task.regress.taps if tap.tap == task.regress.best_tap), None)
        tiles.append(Tile("Filters needed there", count(knee), f"of {count(full)}, at the knee"))
    before = ", ".join(
        f"{step.short} {'with ' if step.name == 'all filters' else ''}{step.name}" for step in steps[:-1]
    )
    last = steps[-1]
    unit = last.text.removeprefix(last.short).strip()
    tiles.append(Tile(f"{main[:1].upper()}{main[1:]}, {last.name}", last.short, before or "on test images", unit))
    return tiles


def _mean_only(metric: Metric | None) -> Metric | None:
    """Return a metric without its spread."""
    return None if metric is None else Metric(mean=metric.mean, std=None)
