"""A pruning table for people: lines for the console, and a page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from facetask.experiments.page import Figure, Part, Section, Shown, write_figures, write_page
from facetask.experiments.pruning_table.figure import variants_figure
from facetask.experiments.pruning_table.results import PruningTableResults, TableTask, VariantResult
from facetask.report.format import DASH, duration, human_bytes, human_count, percent, reduction
from facetask.report.metrics import column_label, metric_text, ordered, style, unit_of
from facetask.report.tables import Table
from facetask.running.results import Metric

CLOSE = 0.02
"""How far from the budget MACs may lie and still be called equal."""
_MOST_METRICS = 2
_SOURCES = {
    "sliced": "Label: filters are kept by how well they predict the label; sliced: nothing else is changed.",
    "label": "Label, not sliced: the layers' weights are reconstructed for the kept inputs.",
    "need": "Need: below the cut filters are kept for what the layers above need.",
    "magnitude": "Magnitude: Torch-Pruning's criterion of the weights' norms, over all layers.",
    "taylor": "Taylor: Torch-Pruning's criterion of the loss's gradients, over all layers.",
    "rounds": "In rounds: the unpruned network is finetuned, then pruned by need and finetuned again, step by step.",
}


def pruning_lines(results: PruningTableResults) -> Iterator[str]:
    """Yield every task's table as lines for the console."""
    for task in results.tasks:
        yield f"{task.name}: {_headline(task)}"
        table = pruning_table(task)
        lines = [table.head, *table.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
        for line in lines:
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for name, reason in task.left_out.items():
            yield f"  {name}: left out, {reason}"
        yield ""


def pruning_table(task: TableTask) -> Table:
    """Return the rows with their quality and their cost; bars show shares of the base network's cost."""
    names = ordered(task.labels.kind, (name for row in task.variants for name in row.test))[:_MOST_METRICS]
    main = task.main_metric
    names = [main, *(name for name in names if name != main)]
    labels = {name: column_label(name, unit_of(task.labels, name)) for name in names}
    timed = any(row.speed for row in task.variants)
    head = ["network", f"{labels[main]}: test", "validation", *(f"{labels[name]}: test" for name in names[1:])]
    head += ["MACs", "off budget", "parameters (in convs)", "size", "epochs", *(["faster"] if timed else [])]
    rows: list[list[str]] = []
    marked: dict[int, str] = {}
    share: dict[tuple[int, int], float] = {}
    first = len(names) + 2
    for index, row in enumerate(task.variants):
        cells = [row.label, _metric(row.test.get(main), main), _metric(row.validation.get(main), main)]
        cells += [_metric(row.test.get(name), name) for name in names[1:]]
        cells += [f"{human_count(row.macs)}, {reduction(1 - row.macs_share)}", _off(row)]
        cells += [f"{human_count(row.params)} ({human_count(row.conv_params)})"]
        cells += [f"{human_bytes(row.size_bytes)}, {reduction(1 - row.size_share)}", _epochs(row)]
        rows.append([*cells, *([_speed(row)] if timed else []), duration(row.wall_s)])
        share |= {(index, first): min(row.macs_share, 1.0), (index, first + 3): min(row.size_share, 1.0)}
    best = _best(task)
    if best is not None:
        marked[task.variants.index(best)] = "best"
    return Table([*head, "wall time"], rows, marked, share)


def write_pruning_page(results: PruningTableResults, folder: Path) -> list[Path]:
    """Write ``ablate.html`` and its figures into ``figures/``; return their paths.

    Raises:
        RunDirError: If they cannot be written.
    """
    sections = [_section(task, results) for task in results.tasks]
    budget = (
        f"{percent(results.macs, decimals=0)} of the base network's MACs"
        if results.macs is not None
        else "the MACs that the label leaves by the run's own rule"
    )
    if results.size is not None:
        budget += f", and, where need chooses, to {percent(results.size)} of its size"
    trained = f"Every training takes {_counted(results.epochs, 'epoch')}." if results.epochs else "Nothing is trained."
    lede = (
        f"{results.base_network}, every network cut at the same tap and pruned to {budget}. {trained} "
        f"{_counted(results.trials, 'random partition')}, seed {results.seed}."
    )
    write_page(folder / "ablate.html", "What each part of pruning is worth", sections, lede=lede, kind="ablation")
    return [folder / "ablate.html", *write_figures(folder / "figures", sections)]


def _section(task: TableTask, results: PruningTableResults) -> Section:
    """Return one task's section."""
    spread = "bars: standard deviation over the trials; " if results.trials > 1 else ""
    parts: list[Part] = [
        Figure(
            f"{task.name}_variants",
            partial(variants_figure, task),
            f"{style(task.main_metric).label[:1].upper()}{style(task.main_metric).label[1:]} on test images; {spread}"
            "lines: the unpruned network at the same cut, as a regression (dashed)"
            f"{' and finetuned (solid)' if results.epochs else ''}.",
        ),
        Shown(pruning_table(task), _caption(task, results)),
    ]
    if task.left_out:
        parts.append(Table(["left out", "why"], [[name, reason] for name, reason in task.left_out.items()]))
    unit = unit_of(task.labels, task.main_metric)
    return Section(task.name, parts, _headline(task), f"{task.labels.kind}{', in ' + unit if unit else ''}")


def _caption(task: TableTask, results: PruningTableResults) -> str:
    """Return how to read the table."""
    cuts = list(dict.fromkeys(trial.cut for row in task.variants for trial in row.trials))
    sources = {row.source for row in task.variants}
    told = [told for source, told in _SOURCES.items() if source in sources]
    told += [
        f"Cut at {' or '.join(cuts)}. Reductions are against the base network: {human_count(task.base.macs)} MACs, "
        f"{human_count(task.base.params)} parameters ({human_count(task.base.conv_params)} in convolutions), "
        f"{human_bytes(task.base.size_bytes)}. Off budget: how far the MACs lie, at most, from those that pruned "
        f"networks get; (!) where that is more than {percent(CLOSE, decimals=0)}. Wall time: of carving, measuring and "
        "training, without what the rows share."
    ]
    notes = dict.fromkeys(note for row in task.variants for note in row.trials[0].notes)
    told += [f"Label, in the first trial: {note}." for note in notes]
    if "rounds" in sources:
        told.append(
            f"In rounds: the epochs are those of the unpruned network and of {_counted(results.rounds, 'round')}."
        )
    if any(row.speed for row in task.variants):
        told.append(
            "Faster: than the base network in torch, one image at a time, and 32; of the first trial's network."
        )
    return " ".join(told)


def _counted(n: int, what: str) -> str:
    """Return a number of things."""
    return f"{n} {what}{'s' if n != 1 else ''}"


def _headline(task: TableTask) -> str:
    """Return which pruned network is best, and how it stands to the unpruned ones."""
    best, rows = _best(task), {row.name: row for row in task.variants}
    if best is None:
        return ""
    main, unit = task.main_metric, unit_of(task.labels, task.main_metric)

    def told(row: VariantResult) -> str:
        return metric_text(main, row.test.get(main), unit)

    text = f"Best pruned network on validation: {best.label}, {told(best)} at {percent(best.macs_share)} of the MACs"
    beside = [
        f"{told(rows[name])} {what}"
        for name, what in (("unpruned", "by the unpruned regression"), ("unpruned-finetuned", "unpruned and finetuned"))
        if name in rows
    ]
    return f"{text}; {' and '.join(beside)}." if beside else f"{text}."


def _best(task: TableTask) -> VariantResult | None:
    """Return the pruned row with the best mean on validation, of those that keep to the budget, if any do."""
    sign = 1.0 if task.higher_is_better else -1.0
    known = [row for row in task.variants if row.macs_off is not None]
    known = [row for row in known if row.validation[task.main_metric].mean is not None]
    equal = [row for row in known if (row.macs_off or 0.0) <= CLOSE]
    return max(equal or known, key=lambda row: sign * (row.validation[task.main_metric].mean or 0.0), default=None)


def _metric(metric: Metric | None, name: str) -> str:
    """Return a metric without its unit."""
    return metric_text(name, metric, with_units=False)


def _off(row: VariantResult) -> str:
    """Return how far a row is from the budget; one that is too far stands out."""
    if row.macs_off is None:
        return DASH
    return percent(row.macs_off) + (" (!)" if row.macs_off > CLOSE else "")


def _epochs(row: VariantResult) -> str:
    """Return for how many epochs a row was trained."""
    return str(max(trial.epochs for trial in row.trials)) if row.trials[0].epochs else DASH


def _speed(row: VariantResult) -> str:
    """Return how many times faster a row's network is, at each batch size."""
    return ", ".join(f"{speed.speedup:.2f}×" for speed in row.speed) or DASH
