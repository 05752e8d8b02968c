"""A transfer matrix for people: lines for the console, and a page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from facetask.experiments.compare import as_text
from facetask.experiments.matrix.figure import DIRECT, change, heat_map
from facetask.experiments.matrix.results import MatrixCell, MatrixResults, MatrixTask
from facetask.experiments.page import Figure, Folded, Part, Section, Shown, write_figures, write_page
from facetask.report.format import DASH, count
from facetask.report.metrics import column_label, mean_of, metric_text, ordered, unit_of
from facetask.report.tables import Table
from facetask.running.results import Metrics

_GUESSING = "guessing"
_MOST_METRICS = 4
_SEEN = (
    "No network is judged on images that its training here saw: those are left out of validation and test, so that a "
    "network may have fewer of them in some trials. What other networks were trained on is not known."
)


def matrix_lines(results: MatrixResults) -> Iterator[str]:
    """Yield the matrix as lines for the console."""
    yield as_text(matrix_table(results))
    yield ""
    yield as_text(taps_table(results))
    for task in results.tasks:
        if task.direct is None and task.no_direct:
            yield f"{task.name}: no direct training ({task.no_direct})"


def matrix_table(results: MatrixResults) -> Table:
    """Return each task's main metric on each primary, with its change against direct training."""
    rows = [
        [primary.name, *(_cell(task, task.cell(primary.name)) for task in results.tasks)]
        for primary in results.primaries
    ]
    marked = {}
    if any(task.direct for task in results.tasks):
        marked[len(rows)] = "final"
        found = [task.direct.metrics if task.direct else {} for task in results.tasks]
        rows.append([DIRECT, *(_metric(task, metrics) for task, metrics in zip(results.tasks, found, strict=True))])
    marked[len(rows)] = "guess"
    rows.append([_GUESSING, *(_metric(task, task.baseline) for task in results.tasks)])
    return Table(["primary", *(_head(task) for task in results.tasks)], rows, marked)


def taps_table(results: MatrixResults) -> Table:
    """Return the best tap of each task on each primary; several where trials disagree."""
    rows = [
        [primary.name, *(" / ".join(task.cell(primary.name).best_taps) for task in results.tasks)]
        for primary in results.primaries
    ]
    return Table(["best tap", *(task.name for task in results.tasks)], rows)


def write_matrix_page(results: MatrixResults, folder: Path) -> list[Path]:
    """Write ``matrix.html`` and its figure into ``figures/``; return their paths.

    Raises:
        RunDirError: If they cannot be written.
    """
    sections = [_matrix_section(results), *(_task_section(task) for task in results.tasks), _networks_section(results)]
    n, k = len(results.primaries), len(results.tasks)
    lede = (
        f"{n} base network{'s' * (n > 1)}, each trained for a primary task or taken as it is, and {k} satellite "
        f"task{'s' * (k > 1)}. A cell is a linear regression on the tap that knows most of the task, chosen on "
        "validation and measured on test images; nothing of the network is changed."
    )
    write_page(folder / "matrix.html", "What each base network knows", sections, lede=lede, kind="transfer matrix")
    return [folder / "matrix.html", *write_figures(folder / "figures", sections)]


def _matrix_section(results: MatrixResults) -> Section:
    """Return the matrix itself."""
    directly = any(task.direct for task in results.tasks)
    goal = "direct training" if directly else "the best of these networks"
    told = (
        "In brackets: the change of the metric against a network trained for the task directly, in the trials that "
        "both have. "
    )
    spread = "Mean ± spread over the trials. " if any(task.trials > 1 for task in results.tasks) else "One trial each. "
    parts: list[Part] = [
        Figure(
            "matrix",
            partial(heat_map, results),
            f"{'; '.join(f'{task.name}: {_label(task)}' for task in results.tasks)}. The darker, the more of the way "
            f"from guessing to {goal} the network goes"
            + (" (without direct training: to the best of these networks)." if directly else "."),
        ),
        Shown(matrix_table(results), spread + (told if directly else "") + (_SEEN if _any_left_out(results) else "")),
        Shown(taps_table(results), "The tap that was read; several where the trials chose different ones."),
    ]
    missing = [[task.name, task.no_direct] for task in results.tasks if directly and task.direct is None]
    if missing:
        parts.append(Table(["no direct training", "why"], missing))
    return Section("Transfer matrix", parts, _headline(results))


def _task_section(task: MatrixTask) -> Section:
    """Return one task's numbers."""
    names = ordered(task.labels.kind, (name for cell in task.cells for name in cell.metrics))
    names = [task.main_metric, *(name for name in names if name != task.main_metric)][:_MOST_METRICS]
    labels = [column_label(name, unit_of(task.labels, name)) for name in names]
    head = ["primary", *labels, "against direct", "best tap", "training", "validation", "test", "left out"]
    rows, marked = [], {}
    for index, cell in enumerate(task.cells):
        if cell == _best(task):
            marked[index] = "best"
        sizes = [
            [trial.n_train for trial in cell.trials],
            [trial.n_validation for trial in cell.trials],
            [trial.n_test for trial in cell.trials],
            [trial.n_left_out for trial in cell.trials],
        ]
        values = [metric_text(name, cell.metrics.get(name), with_units=False) for name in names]
        rows.append(
            [cell.primary, *values, _change(task, cell) or DASH, " / ".join(cell.best_taps), *map(_counts, sizes)]
        )
    if task.direct:
        values = [metric_text(name, task.direct.metrics.get(name), with_units=False) for name in names]
        marked[len(rows)] = "final"
        rows.append([DIRECT, *values, *[DASH] * (len(head) - len(names) - 1)])
    caption = (
        "Images in each part of the split, and images left out because the network's training saw them; from … to "
    )
    caption += "over the trials where they differ."
    if task.direct:
        source = "the primary of this name" if task.direct.source == "primary" else "as a yardstick"
        caption += (
            f" Trained directly: {source}, from {task.direct.start}, in {len(task.direct.trials)} "
            f"trial{'s' * (len(task.direct.trials) > 1)}."
        )
    unit = unit_of(task.labels, task.main_metric)
    small = f"{task.labels.kind}{', in ' + unit if unit else ''}; {task.run}, {task.trials} trials, seed {task.seed}"
    return Section(task.name, [Folded("All numbers", [Shown(Table(head, rows, marked), caption)])], small=small)


def _networks_section(results: MatrixResults) -> Section:
    """Return the base networks with their sources and licences."""
    rows = [
        [p.name, p.trained_for or DASH, count(p.n_taps), count(p.n_filters), p.weights_source, p.weights_licence]
        for p in results.primaries
    ]
    head = ["primary", "trained here for", "taps", "filters", "weights from", "licence"]
    labels = [
        [task.name, task.labels.source, task.labels.licence, count(task.labels.n_labelled)] for task in results.tasks
    ]
    return Section("Networks and labels", [Table(head, rows), Table(["task", "labels", "licence", "images"], labels)])


def _headline(results: MatrixResults) -> str:
    """Return each task's best primary."""
    found = []
    for task in results.tasks:
        best = _best(task)
        if best is not None:
            unit = unit_of(task.labels, task.main_metric)
            value = metric_text(task.main_metric, best.metrics[task.main_metric], unit)
            found.append(f"{task.name} {value} on {best.primary}")
    return f"Best of the networks: {'; '.join(found)}." if found and len(results.primaries) > 1 else ""


def _best(task: MatrixTask) -> MatrixCell | None:
    """Return the cell with the best mean."""
    known = {
        cell.primary: value for cell in task.cells if (value := mean_of(cell.metrics, task.main_metric)) is not None
    }
    if not known:
        return None
    best = max if task.higher_is_better else min
    return task.cell(best(known, key=lambda name: known[name]))


def _any_left_out(results: MatrixResults) -> bool:
    """Return whether a training saw images of some cell."""
    return any(trial.n_left_out for task in results.tasks for cell in task.cells for trial in cell.trials)


def _cell(task: MatrixTask, cell: MatrixCell) -> str:
    """Return a cell: its main metric and the change against direct training."""
    changed = _change(task, cell)
    return _metric(task, cell.metrics) + (f" ({changed})" if changed else "")


def _change(task: MatrixTask, cell: MatrixCell) -> str:
    """Return a cell's change against direct training, empty where it is not known."""
    return "" if cell.reduction is None or cell.reduction.mean is None else change(task, cell.reduction.mean)


def _metric(task: MatrixTask, metrics: Metrics) -> str:
    """Return a main metric, whose unit stands in the column's head."""
    return metric_text(task.main_metric, metrics.get(task.main_metric), with_units=False)


def _head(task: MatrixTask) -> str:
    """Return a column's head."""
    return f"{task.name}: {_label(task)}"


def _label(task: MatrixTask) -> str:
    """Return the main metric's name with its unit."""
    return column_label(task.main_metric, unit_of(task.labels, task.main_metric))


def _counts(values: list[int]) -> str:
    """Return a number of images, from the fewest to the most where trials differ."""
    low, high = min(values), max(values)
    return count(low) if low == high else f"{count(low)} … {count(high)}"
