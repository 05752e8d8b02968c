"""A sweep's page: quality against MACs and against size, the Pareto front, and every network in a table."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from facetask.experiments.cost_figure import CostFigure, Point, cost_figure
from facetask.experiments.page import Figure, Folded, Part, Section, Shown, write_figures, write_page
from facetask.experiments.sweep.results import SweepNetwork, SweepResults, SweepTask
from facetask.report.format import count, duration, human_bytes, human_count, listed, percent
from facetask.report.metrics import column_label, mean_of, metric_text, ordered, style, unit_of
from facetask.report.tables import Table
from facetask.running.results import Metric

_MOST_METRICS = 3
_WRITTEN = {
    "thresholds": "threshold",
    "macs": "budget, as a share of the base network’s MACs",
    "size": "limit of size, as a share of the base network’s",
}
"""What is written at the points, and what it is called: the first of these settings that is varied."""
_COLUMN = {"selectors": "selector", "thresholds": "threshold", "cuts": "cut", "couple": "couple"}


def write_sweep_page(results: SweepResults, folder: Path) -> list[Path]:
    """Write a sweep's ``report.html`` and its figures into ``figures/``; return their paths.

    Raises:
        RunDirError: If they cannot be written.
    """
    sections = [_section(task, results) for task in results.tasks]
    names = listed([task.name for task in results.tasks])
    title = f"{names}: what a smaller network costs in {style(results.tasks[0].main_metric).label}"
    if len({task.main_metric for task in results.tasks}) > 1:
        title = f"{names}: what a smaller network costs"
    varied = "; ".join(f"{name}: {', '.join(values)}" for name, values in results.swept.items())
    lede = (
        f"{len(results.tasks[0].networks)} networks carved out of {results.base_network}, for every combination of "
        f"{varied}. {results.trials} random partition{'s' if results.trials > 1 else ''} each, seed {results.seed}."
    )
    if results.failed:
        told = [[name, reason] for name, reason in results.failed.items()]
        sections.append(Section("What failed", [Table(["combination", "why"], told)]))
    write_page(folder / "report.html", title, sections, lede=lede, kind="sweep")
    return [folder / "report.html", *write_figures(folder / "figures", sections)]


def _section(task: SweepTask, results: SweepResults) -> Section:
    """Return one task's section."""
    main, unit = task.main_metric, unit_of(task.labels, task.main_metric)
    written = _written(results.swept)
    spread = "whiskers: standard deviation over the trials. " if results.trials > 1 else ""
    caption = (
        f"{style(main).label[:1].upper()}{style(main).label[1:]} on test images; {spread}"
        "Ringed and joined: the Pareto front, for which no other network is as cheap and as good on validation images "
        "(mean over the trials), which alone decide; on test images the line may therefore bend back. "
        f"{f'The number at a point is its {_WRITTEN[written]}. ' if written is not None else ''}"
        "Costs are those of the saved network, of the reported trial."
    )
    parts: list[Part] = [
        Figure(f"{task.name}_macs", partial(_figure, results, task, "macs"), caption),
        Figure(
            f"{task.name}_size",
            partial(_figure, results, task, "size"),
            "The same against the bytes of all parameters.",
        ),
        Shown(
            _table(task, results),
            "By ascending MACs; front: on the Pareto front of MACs. Validation and test: over the trials"
            f"{', in ' + unit if unit else ''}. Shares are those of the base network, "
            f"{human_count(task.base.macs)} MACs and {human_bytes(task.base.size_bytes)}.",
        ),
        Folded("Where each network lies", [_folders(task)]),
    ]
    return Section(task.name, parts, _headline(task), f"{task.labels.kind}{', in ' + unit if unit else ''}")


def _headline(task: SweepTask) -> str:
    """Return what the front spans."""
    front = [network for network in task.networks if "macs" in network.front]
    if not front:
        return ""
    least, most = front[0], front[-1]
    if least is most:
        return f"Of {len(task.networks)} networks one is both the smallest and the best: {_told(task, least)}."
    return (
        f"Of {len(task.networks)} networks {len(front)} are on the Pareto front, from {_told(task, least)} "
        f"to {_told(task, most)}."
    )


def _told(task: SweepTask, network: SweepNetwork) -> str:
    """Return a network in a few words."""
    text = metric_text(task.main_metric, network.test.get(task.main_metric), unit_of(task.labels, task.main_metric))
    return f"{text} at {percent(network.cost.macs / task.base.macs)} of the MACs ({_name(network)})"


def _name(network: SweepNetwork) -> str:
    """Return a network's settings."""
    return ", ".join(f"{_COLUMN.get(name, name)} {value}" for name, value in network.settings.items())


def _figure(results: SweepResults, task: SweepTask, cost: str, width: int) -> str:
    """Return quality against one cost."""
    base = task.base.macs if cost == "macs" else task.base.size_bytes
    points, front = [], []
    for index, network in enumerate(task.networks):
        on_front = cost in network.front
        if on_front:
            front.append(index)
        value = network.cost.macs if cost == "macs" else network.cost.size_bytes
        quality = network.test.get(task.main_metric, Metric(mean=None, std=None))
        series, text = _series(network)
        points.append(Point(series, 100 * value / base, quality, text if on_front else "", on_front))
    front.sort(key=lambda index: points[index].cost)
    title = f"MACs, % of the base network’s {human_count(base)}"
    if cost == "size":
        title = f"size, % of the base network’s {human_bytes(base)}"
    figure = CostFigure(
        points,
        task.main_metric,
        unit_of(task.labels, task.main_metric),
        title,
        "~g",
        [front],
        (mean_of(task.unpruned, task.main_metric), "regression on all filters of the best tap"),
        [_series(network)[0] for network in sorted(task.networks, key=partial(_place, results.swept))],
    )
    return cost_figure(figure, width)


def _place(swept: dict[str, list[str]], network: SweepNetwork) -> list[int]:
    """Return a network's place among the combinations."""
    return [values.index(network.settings[name]) for name, values in swept.items()]


def _written(varied: Iterable[str]) -> str | None:
    """Return which of the varied settings is written at the points, if any."""
    return next((name for name in _WRITTEN if name in varied), None)


def _series(network: SweepNetwork) -> tuple[str, str]:
    """Return what a network's colour says, and what is written at it: how small it was to be, where that is varied."""
    written = _written(network.settings)
    others = [
        value if name == "selectors" else f"{_COLUMN.get(name, name)} {value}"
        for name, value in network.settings.items()
        if name != written
    ]
    series = ", ".join(others)
    return series, network.settings[written] if written is not None else series


def _table(task: SweepTask, results: SweepResults) -> Table:
    """Return every network, those on the front of MACs marked."""
    main = task.main_metric
    names = [main, *(name for name in ordered(task.labels.kind, task.unpruned) if name != main)][:_MOST_METRICS]
    tuned = any(network.step == "finetuned" for network in task.networks)
    varied = list(results.swept)
    labels = {name: column_label(name, unit_of(task.labels, name)) for name in names}
    head = [", ".join(_COLUMN.get(name, name) for name in varied), "cut at", "kept", "MACs", "size"]
    head += [f"{labels[main]}: validation", *([f"{labels[main]}: pruned"] if tuned else [])]
    head += [f"{labels[name]}: {'finetuned' if tuned else 'test'}" for name in names] + ["wall time"]
    rows: list[list[str]] = []
    marked: dict[int, str] = {}
    share: dict[tuple[int, int], float] = {}
    for index, network in enumerate(task.networks):
        of_macs, of_size = network.cost.macs / task.base.macs, network.cost.size_bytes / task.base.size_bytes
        row = [", ".join(network.settings.values()), network.cut, count(network.kept)]
        row += [f"{human_count(network.cost.macs)}, {percent(of_macs)}"]
        row += [f"{human_bytes(network.cost.size_bytes)}, {percent(of_size)}"]
        share |= {(index, 3): min(of_macs, 1.0), (index, 4): min(of_size, 1.0)}
        row.append(metric_text(main, network.validation.get(main), with_units=False))
        row += [metric_text(main, network.test_pruned.get(main), with_units=False)] if tuned else []
        row += [metric_text(name, network.test.get(name), with_units=False) for name in names]
        rows.append([*row, duration(network.wall_s)])
        if "macs" in network.front:
            marked[index] = "front"
    return Table(head, rows, marked, share)


def _folders(task: SweepTask) -> Table:
    """Return each network's folder."""
    return Table(["combination", "model"], [[network.combination, network.model] for network in task.networks])
