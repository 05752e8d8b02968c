"""A comparison for people: lines for the console, and a page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from facetask.experiments.compare import as_text
from facetask.experiments.cost_figure import CostFigure, Point, cost_figure
from facetask.experiments.page import Figure, Folded, Part, Section, Shown, write_figures, write_page
from facetask.experiments.transfer.results import TransferResults, TransferTask
from facetask.experiments.transfer.tables import (
    GOAL_ALONE,
    TITLES,
    busy,
    goals_table,
    methods_table,
    seconds,
    seconds_table,
    times,
    title_of,
)
from facetask.report.format import NBSP, listed, number
from facetask.report.metrics import mean_of, metric_text, style, unit_of
from facetask.running.results import Metric

_MOST_NAMES = 3
_BUSY = (
    "Wall times and processor times disagree by more than a quarter: something else was using the machine while one of "
    "the methods was measured. The ratio in CPU is the one to trust."
)


def transfer_lines(results: TransferResults) -> Iterator[str]:
    """Yield the comparison as lines for the console."""
    for task in results.tasks:
        yield f"{task.name}: {_headline(task)}"
        yield as_text(methods_table(task, results))
        if busy(task):
            yield _BUSY
        yield ""
    yield as_text(goals_table(results))


def write_transfer_page(results: TransferResults, folder: Path) -> None:
    """Write a comparison's ``transfer.html`` and its figures into ``figures/``.

    Raises:
        RunDirError: If they cannot be written.
    """
    sections = [_task_section(task, results) for task in results.tasks]
    sections.append(_goals_section(results))
    sections.append(_how_section(results))
    names = [task.name for task in results.tasks]
    tasks = listed(names) if len(names) <= _MOST_NAMES else f"{len(names)} tasks"
    lede = (
        f"{results.n_images:,} images, {results.base_network}, {results.trials} random "
        f"partition{'s' if results.trials > 1 else ''}, seed {results.seed}; {results.environment.get('processor')}, "
        f"{results.threads} thread{'s' if results.threads > 1 else ''}. Every method is measured from scratch on the "
        "same images, as if the others were not there."
    )
    if any(found.extrapolated for task in results.tasks for found in task.methods):
        lede += " Times of the recipe are extrapolated from two epochs, and marked so."
    title = f"{tasks}: regression against transfer learning"
    write_page(folder / "transfer.html", title, sections, lede=lede, kind="comparison")
    write_figures(folder / "figures", sections)


def _task_section(task: TransferTask, results: TransferResults) -> Section:
    """Return one task's part of the page."""
    main, n = task.main_metric, len(results.tasks)
    spread = f"; mean ± spread over {results.trials} trials" if results.trials > 1 else "; one trial"
    shared = f" Shared: where all {n} tasks share one pass, whatever method makes one." if n > 1 else ""
    parts: list[Part] = [
        Shown(
            methods_table(task, results),
            f"On test images{spread}. Against ours: of {style(main).label}. Time: decoding, forward passes, fitting "
            f"and training, all of it.{shared}{' ' + _BUSY if busy(task) else ''}",
        ),
        Figure(
            f"transfer_{task.name}",
            partial(_figure, task, results),
            f"{_sentence(style(main).label)} on test images against wall time for one trial.",
        ),
        Folded("Where the time goes, and how training ended", [seconds_table(task)]),
    ]
    small = f"{task.labels.kind}{', in ' + unit_of(task.labels, main) if unit_of(task.labels, main) else ''}"
    return Section(task.name, parts, _headline(task), f"{small}, {task.labels.n_labelled:,} images")


def _goals_section(results: TransferResults) -> Section:
    """Return the goals beside what was measured, and what the ratio hangs on."""
    return Section(
        "Goals",
        [
            Shown(
                goals_table(results),
                "A ratio must be reached in wall time and in processor time. It grows with the epochs that the stop "
                "rule allows: see what one epoch costs under each task.",
            )
        ],
    )


def _how_section(results: TransferResults) -> Section:
    """Return how each method was measured."""
    recipe = results.recipe
    layers = ", ".join(str(width) for width in recipe["hidden"]) or "none"
    augmented = recipe["flip"] or recipe["shift"] or recipe["brightness"]
    named = {method: _sentence(title) for method, title in TITLES.items()}
    parts: list[Part] = [
        f"{named['regression']}: one pass of all images, every tap read; then a ridge regression at every tap, the "
        "best tap chosen on validation.",
        f"{named['recipe']}: frozen convolutions up to the last tap and its global average pool; new layers (hidden: "
        f"{layers}), {recipe['optimiser']}, learning rate {recipe['learning_rate']:g}, batches of "
        f"{recipe['batch_size']}, {'augmented' if augmented else 'no augmentation'}. Training and validation images "
        f"pass through the network in every epoch, test images once. Stop rule: {recipe['patience']} epochs without a "
        f"better validation error, at most {recipe['epochs']}; the best epoch is kept.",
        f"{named['cached']}: those of the last tap, computed in one pass; the same layers trained on them by the same "
        "stop rule.",
    ]
    if results.finetuning is not None:
        parts.append(
            f"{named['finetuning']}: the unpruned network that ends at the run's cut, all weights trained for "
            f"{results.finetuning['epochs']} epochs, the best kept. The pass and the fits that its cut and its first "
            "head come from are counted."
        )
    if results.extrapolate:
        parts.append(
            "Extrapolated: images passed through the network in the recipe's first two epochs and for the test; the "
            "other epochs were trained on cached features, which are the same, and the two epochs' time was multiplied."
        )
    parts.append("Finding the images and reading their labels, which all methods need alike, is not counted.")
    return Section("How it was measured", parts)


def _sentence(text: str) -> str:
    """Return a text that begins with a capital."""
    return text[:1].upper() + text[1:]


def _headline(task: TransferTask) -> str:
    """Return what was found, in two sentences."""
    main, unit = task.main_metric, unit_of(task.labels, task.main_metric)
    ours, recipe = task.methods[0], task.method("recipe")
    label = style(main).label
    text = f"Regression: {label} {metric_text(main, ours.metrics.get(main), unit)} in {seconds(ours.wall_s)}"
    if recipe is None or recipe.wall_s.mean is None or not ours.wall_s.mean:
        return text + "."
    told = ", extrapolated from two epochs" if recipe.extrapolated else ""
    text += (
        f"; the paper's recipe: {metric_text(main, recipe.metrics.get(main), unit)} in "
        f"{seconds(recipe.wall_s)}{told}: {times(recipe.ratio)} our time."
    )
    if recipe.epochs is not None and recipe.epochs.mean:
        each = recipe.wall_s.mean / recipe.epochs.mean / ours.wall_s.mean
        text += (
            f" One of its {number(recipe.epochs.mean, decimals=0)} epochs costs {number(each)} regressions on "
            f"average; {GOAL_ALONE:g}{NBSP}× would need {number(GOAL_ALONE / each, decimals=0)} epochs."
        )
    return text


def _figure(task: TransferTask, results: TransferResults, width: int) -> str:
    """Return quality against wall time."""
    main = task.main_metric
    several = len(results.tasks) > 1
    points: list[Point] = []
    lines = []
    for found in task.methods:
        quality = found.metrics.get(main, Metric(mean=None, std=None))
        points.append(Point("one task alone", found.wall_s.mean or 0.0, quality, title_of(found)))
        if several and found.method != "recipe":
            points.append(Point("all tasks share one pass", found.shared_wall_s.mean or 0.0, quality))
            lines.append([len(points) - 2, len(points) - 1])
    level = (mean_of(task.methods[0].metrics, main), "")
    return cost_figure(CostFigure(points, main, unit_of(task.labels, main), "seconds", "~g", lines, level), width)
