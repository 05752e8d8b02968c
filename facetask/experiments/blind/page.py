"""A blind network for people: lines for the console, and a page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from facetask.experiments.blind.figure import WAYS, blind_figure
from facetask.experiments.blind.results import BlindResults, BlindTask, Step
from facetask.experiments.page import Figure, Part, Section, Shown, write_figures, write_page
from facetask.report.format import DASH, count, duration, listed
from facetask.report.metrics import column_label, metric_text, style, unit_of
from facetask.report.tables import Table
from facetask.running.results import Metrics

_FIGURE = "blind"


def blind_lines(results: BlindResults) -> Iterator[str]:
    """Yield what was found as lines for the console."""
    yield from _headlines(results)
    table = blind_table(results)
    lines = [table.head, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    for line in lines:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def blind_table(results: BlindResults) -> Table:
    """Return every step as a row: the kept task, then both probes of each excluded one; chance is the last row."""
    kept, excluded = results.task, results.excluded
    head = ["filters removed", "which", f"{kept.name}: {_column(kept)}"]
    for task in excluded:
        head += [f"{task.name}: {_column(task)}, linear probe", "non-linear probe"]
    erased = any(step.way == "projected" for step in results.steps)
    rows: list[list[str]] = []
    marked: dict[int, str] = {}
    for step in results.steps:
        if not step.removed:
            marked[len(rows)] = "final"
        row = [str(step.removed), WAYS[step.way] if step.removed else _none_removed(step), _main(kept, step.kept)]
        for task in excluded:
            probed = step.excluded[task.name]
            row += [_main(task, probed.linear), _main(task, probed.nonlinear)]
        rows.append([*row, *([_directions(step)] if erased else [])])
    chance = [DASH, "chance", _main(kept, kept.chance)]
    for task in excluded:
        chance += [_main(task, task.chance)] * 2
    rows.append([*chance, *([DASH] if erased else [])])
    return Table([*head, *(["directions erased"] if erased else [])], rows, marked)


def write_blind_page(results: BlindResults, folder: Path) -> list[Path]:
    """Write ``blind.html`` and its figure into ``figures/``; return their paths.

    Raises:
        RunDirError: If they cannot be written.
    """
    names = listed([task.name for task in results.excluded])
    sections = [_section(results), _tasks(results)]
    lede = (
        f"{results.base_network}, cut for {results.task.name}; of the cut's filters those that carry {names} are "
        f"removed. {results.trials} random partition{'s' * (results.trials != 1)}, seed {results.seed}; "
        f"{duration(results.wall_s)} in all."
    )
    title = f"A network for {results.task.name} that is blind to {names}"
    write_page(folder / "blind.html", title, sections, lede=lede, kind="blind network")
    return [folder / "blind.html", *write_figures(folder / "figures", sections)]


def _section(results: BlindResults) -> Section:
    """Return the part with what was found."""
    spread = "mean ± standard deviation over the trials" if results.trials > 1 else "one trial, so no spread is known"
    caption = (
        f"On test images; {spread}. Chosen: the filters that the selector {results.selector} takes first for the "
        "excluded labels, on training images"
        + ("; the excluded tasks take turns" if len(results.excluded) > 1 else "")
        + ". Probes are fresh ones, trained on what is left: a linear one as every head is fitted, and one with a "
        "hidden layer beside it. They read the pooled responses, which are all that reaches the head; the maps before "
        "pooling may tell more, and so may a stronger probe."
    )
    if any(step.way == "projected" for step in results.steps):
        caption += (
            " Labels erased: besides, the responses of the filters left are projected so that no linear model fitted "
            "on the training images can tell the excluded labels."
        )
    parts: list[Part] = [
        Figure(
            _FIGURE,
            partial(blind_figure, results),
            "Solid: the head, and linear probes; dashed: non-linear probes; dotted: the trivial prediction, which "
            "looks at no image. A blind network keeps its own task and brings both probes to that line.",
        ),
        Shown(blind_table(results), caption),
    ]
    return Section("What is left", parts, " ".join(_headlines(results)))


def _tasks(results: BlindResults) -> Section:
    """Return the part that says what the tasks are and how they are split."""
    rows = [
        [
            task.name,
            "kept" if task is results.task else "excluded",
            task.labels.kind,
            count(task.labels.n_labelled),
            task.group_by or "none",
            task.labels.source,
        ]
        for task in (results.task, *results.excluded)
    ]
    cuts = [f"{cut} ({n} filters)" for cut, n in dict.fromkeys(zip(results.cuts, results.n_filters, strict=True))]
    table = Table(["task", "here", "kind", "images", "kept on one side of a split", "labels"], rows)
    return Section("The tasks", [Shown(table, f"Cut at {' or '.join(cuts)}.")])


def _headlines(results: BlindResults) -> list[str]:
    """Return what the most that was removed does to the kept task and to the probes, for each way to choose."""
    before, told = results.steps[0], []
    for way in ("chosen", "projected"):
        steps = [step for step in results.steps if step.way == way]
        if not steps or (way == "chosen" and not steps[-1].removed):
            continue
        step = steps[0] if way == "projected" else steps[-1]
        what = (
            "Labels erased"
            if way == "projected"
            else f"{step.removed} chosen filter{'s' * (step.removed != 1)} removed"
        )
        read = [
            f"{task.name} is read with {style(task.main_metric).label} "
            f"{_change(task, before.excluded[task.name].linear, step.excluded[task.name].linear)} by a linear probe, "
            f"{_change(task, before.excluded[task.name].nonlinear, step.excluded[task.name].nonlinear)} by a "
            f"non-linear one, chance {_main(task, task.chance, units=True)}"
            for task in results.excluded
        ]
        kept = f"{results.task.name} {style(results.task.main_metric).label} "
        told.append(f"{what}: {kept}{_change(results.task, before.kept, step.kept)}; {'; '.join(read)}.")
    return told


def _change(task: BlindTask, before: Metrics, after: Metrics) -> str:
    """Return a task's main metric before and after."""
    return f"{_main(task, before)} → {_main(task, after, units=True)}"


def _none_removed(step: Step) -> str:
    """Return what a row without removed filters is."""
    return "labels erased" if step.way == "projected" else "none"


def _directions(step: Step) -> str:
    """Return how many directions were erased in the trials."""
    if step.way != "projected":
        return DASH
    low, high = min(step.directions), max(step.directions)
    return str(low) if low == high else f"{low} … {high}"


def _column(task: BlindTask) -> str:
    """Return the main metric with its unit."""
    return column_label(task.main_metric, unit_of(task.labels, task.main_metric))


def _main(task: BlindTask, metrics: Metrics, *, units: bool = False) -> str:
    """Return a task's main metric as text."""
    name = task.main_metric
    return metric_text(name, metrics.get(name), unit_of(task.labels, name), with_units=units)
