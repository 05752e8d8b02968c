"""From results to the page: every number of the report as text, and the template that lays them out.

The template decides nothing but layout; what is shown, and in which words, is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from facetask.report.format import count, duration, listed
from facetask.report.metrics import unit_of
from facetask.report.selectors import selectors_figure, selectors_table
from facetask.report.sharing import best_taps, filter_map, sharing_table
from facetask.report.tables import Table
from facetask.report.task_view import TaskView, figure_twice, task_view
from facetask.report.template import template_environment
from facetask.running.results import Results, TaskResult
from facetask.whole_file import write_output

if TYPE_CHECKING:
    from facetask.filters.comparison import Comparison

_STAGES = ("regress", "curve", "prune", "finetune")
_MOST_MAPS = 4


@dataclass(frozen=True)
class FigureView:
    """A figure with its table and the name of what it shows."""

    name: str
    figure: Markup
    table: Table


@dataclass(frozen=True)
class PageView:
    """What the template needs besides the results themselves."""

    results: Results
    title: str
    tasks: list[TaskView]
    facts: list[tuple[str, str]]
    stage_times: list[tuple[str, list[str]]]
    shared_times: list[tuple[str, str]]
    trials: str
    step_names: list[str]
    has_sizes: bool
    has_slices: bool
    one_network: bool
    sharing: list[FigureView]
    comparisons: dict[str, FigureView]


def render_report(results: Results, comparisons: Sequence[Comparison] = ()) -> str:
    """Return a run's report as one self-contained HTML page.

    Args:
        results: What the run measured.
        comparisons: Comparisons of selectors that were made for some of its tasks.
    """
    environment = template_environment("facetask.report")
    environment.filters["breakable"] = _breakable
    return environment.get_template("report.html.j2").render(page=_page_view(results, comparisons))


def write_report(results: Results, path: Path, comparisons: Sequence[Comparison] = ()) -> None:
    """Write a run's report as one self-contained HTML page, whole or not at all.

    Raises:
        RunDirError: If it cannot be written.
    """
    write_output(path, render_report(results, comparisons))


def _breakable(name: str) -> Markup:
    """Return a name that may wrap after its dots and underscores."""
    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _sharing(tasks: Sequence[TaskResult]) -> list[FigureView]:
    """Return which filters of the best taps each of several tasks keeps."""
    views = []
    for tap in best_taps(tasks)[:_MOST_MAPS]:
        table = sharing_table(tasks, tap)
        if table is not None:
            views.append(FigureView(tap, figure_twice(partial(_map, tap), tasks), table))
    return views


def _map(tap: str, tasks: Sequence[TaskResult], width: int) -> str:
    """Return the map of one tap."""
    return filter_map(tasks, tap, width)


def _comparisons(results: Results, comparisons: Sequence[Comparison]) -> dict[str, FigureView]:
    """Return each task's comparison of selectors."""
    tasks = {task.name: task for task in results.tasks}
    views = {}
    for found in comparisons:
        task = tasks[found.task]
        unit, chosen = unit_of(task.labels, "rmse"), task.curve.selector if task.curve else ""
        figure = figure_twice(partial(_selectors, unit, chosen), found)
        views[found.task] = FigureView(found.tap, figure, selectors_table(found, "rmse", unit))
    return views


def _selectors(unit: str, chosen: str, found: Comparison, width: int) -> str:
    """Return the figure of a comparison."""
    return selectors_figure(found, unit, chosen, width)


def _page_view(results: Results, comparisons: Sequence[Comparison]) -> PageView:
    """Return the page's texts."""
    times = [(task.name, [duration(task.wall_s.get(stage)) for stage in _STAGES]) for task in results.tasks]
    order = {name: position for position, name in enumerate(("data", "responses"))}
    shared = sorted(results.wall_s.items(), key=lambda item: (item[0] == "total", order.get(item[0], 9), item[0]))
    tasks = [task_view(task, results, position) for position, task in enumerate(results.tasks, start=1)]
    return PageView(
        results=results,
        title=f"{listed([task.name for task in results.tasks])}, read from {results.base_network.plugin}",
        tasks=tasks,
        facts=_facts(results),
        stage_times=times,
        shared_times=[(name, duration(seconds)) for name, seconds in shared],
        trials="one random partition" if results.trials == 1 else f"{results.trials} random partitions",
        step_names=max(([step.name for step in task.steps] for task in tasks), key=len),
        has_sizes=any(task.prune for task in results.tasks),
        has_slices=any(task.slices for task in tasks),
        one_network=any(task.prune and task.prune.shared for task in results.tasks),
        sharing=_sharing(results.tasks),
        comparisons=_comparisons(results, comparisons),
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    """Return the run's circumstances as term and description."""
    data, network = results.data, results.base_network
    bad = data.bad_images
    left_out = "none"
    if bad.count:
        shown = ", ".join(bad.first)
        left_out = f"{count(bad.count)}" + (f": {shown}{', …' if bad.count > len(bad.first) else ''}" if shown else "")
    facts = [
        ("Data set", f"{data.plugin}, from {data.source}" if data.source else data.plugin),
        ("Images", count(data.n_images)),
        ("Images left out as unreadable", left_out),
        ("Images’ licence", data.licence),
    ]
    if data.group_by:
        groups = f" ({count(data.n_groups)} groups)" if data.n_groups is not None else ""
        facts.append(("Kept on one side of a split", f"images of equal {data.group_by}{groups}"))
    if data.align is not None:
        by = "landmarks of the table" if data.align.landmarks == "columns" else "landmarks detected in the images"
        without = count(data.align.n_without_face) if data.align.n_without_face else "none"
        facts += [
            ("Faces aligned by", by),
            ("Landmarks’ licence", data.align.licence),
            ("Images without a known face", f"{without}, used as they are" if without != "none" else without),
        ]
    frozen = f"{', '.join(network.frozen)} (kept whole: not known to be safe to prune)" if network.frozen else "none"
    return [
        *facts,
        ("Base network", f"{network.plugin}: {network.n_taps} taps, {count(network.n_filters)} filters"),
        ("Weights", network.weights_source or "not stated"),
        ("Weights’ licence", network.weights_licence),
        ("Frozen parts", frozen),
        ("Trials and seed", f"{results.trials}, seed {results.seed}"),
        ("facetask", results.facetask_version),
    ]
