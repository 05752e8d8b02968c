"""From results to the page: every number of the report as text, and the template that lays them out.

The template decides nothing but layout; what is shown, and in which words, is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from facetask.report.format import count, duration
from facetask.report.task_view import TaskView, task_view
from facetask.results import Results

_STAGES = ("regress", "curve", "prune", "finetune")


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


def render_report(results: Results) -> str:
    """Return a run's report as one self-contained HTML page."""
    environment = Environment(
        loader=PackageLoader("facetask.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    style = (files("facetask.report") / "report.css").read_text(encoding="utf-8")
    # The style sheet is ours; it is marked safe because quotes inside <style> must not be escaped.
    return environment.get_template("report.html.j2").render(page=_page_view(results), style=Markup(style))


def write_report(results: Results, path: Path) -> None:
    """Write a run's report as one self-contained HTML page, whole or not at all."""
    partial = path.with_suffix(".tmp")
    partial.write_text(render_report(results), encoding="utf-8")
    partial.replace(path)


def _breakable(name: str) -> Markup:
    """Return a name that may wrap after its dots and underscores."""
    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _page_view(results: Results) -> PageView:
    """Return the page's texts."""
    names = [task.name for task in results.tasks]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    times = [(task.name, [duration(task.wall_s.get(stage)) for stage in _STAGES]) for task in results.tasks]
    order = {name: position for position, name in enumerate(("data", "responses"))}
    shared = sorted(results.wall_s.items(), key=lambda item: (item[0] == "total", order.get(item[0], 9), item[0]))
    tasks = [task_view(task, results, position) for position, task in enumerate(results.tasks, start=1)]
    return PageView(
        results=results,
        title=f"{listed}, read from {results.base_network.plugin}",
        tasks=tasks,
        facts=_facts(results),
        stage_times=times,
        shared_times=[(name, duration(seconds)) for name, seconds in shared],
        trials="one random partition" if results.trials == 1 else f"{results.trials} random partitions",
        step_names=max(([step.name for step in task.steps] for task in tasks), key=len),
        has_sizes=any(task.prune for task in results.tasks),
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
