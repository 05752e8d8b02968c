"""The description of a dataset as text: counts, and histograms drawn as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from facetask.errors import first_names

if TYPE_CHECKING:
    from facetask.data.describe import Copies, Description, Groups, Histogram, TaskDescription

BAR_WIDTH = 30
MOST_ROWS = 20


def description_lines(found: Description) -> Iterator[str]:
    """Yield a description line by line."""
    yield f"{found.source or 'dataset'}: {found.n_images} images, {len(found.unreadable)} unreadable"
    if found.unreadable:
        yield f"  unreadable: {first_names(found.unreadable)}"
    yield f"  terms: {found.licence}"
    yield f"  columns: {first_names(found.columns, 12) if found.columns else 'none'}"
    yield f"  groups: {_groups_text(found.groups)}"
    if found.n_faceless is not None:
        yield f"  no face known on: {found.n_faceless} images"
    yield from _copies_lines(found.copies)
    for task in found.tasks:
        yield ""
        yield from _task_lines(task)


def _groups_text(groups: Groups | None) -> str:
    """Return what there is to say of the groups."""
    if groups is None:
        return "none; images of one person may stand on both sides of a split"
    text = (
        f"{groups.n} by {groups.column!r}, of {groups.smallest} to {groups.largest} images (median {groups.median:g})"
    )
    return f"{text}; {groups.n_without} images have none" if groups.n_without else text


def _copies_lines(copies: Copies) -> Iterator[str]:
    """Yield what there is to say of copies."""
    if not copies.n_contents:
        yield "  copies: none"
        return
    yield f"  copies: {copies.n_extra} images repeat another ({copies.n_contents} contents occur more than once)"
    if copies.n_across is None:
        yield f"  warning: a split may part copies, since there are no groups: {first_names(copies.first)}"
    elif copies.n_across:
        yield (
            f"  warning: copies of {copies.n_across} contents stand in different groups, so a split may part them: "
            f"{first_names(copies.first)}"
        )


def _task_lines(task: TaskDescription) -> Iterator[str]:
    """Yield a task's description as text."""
    if not task.kind:
        yield f"{task.name}: {task.problem}"
        return
    partly = f", {task.n_partly} partly" if task.n_partly else ""
    yield (
        f"{task.name}: {task.kind}{f' ({task.unit})' if task.unit else ''}, {task.n_labelled} labelled{partly}, "
        f"{task.n_missing} missing ({100 * task.missing_share:.1f} %)"
    )
    yield f"  labels from: {task.source or 'not stated'} ({task.licence})"
    for note in task.notes:
        yield f"  note: {note}"
    for histogram in task.histograms:
        if histogram.name:
            yield f"  {histogram.name}"
        yield from _bars(histogram)
    if task.left_out:
        yield f"  left out, too few images: {first_names([f'{name} ({n})' for name, n in task.left_out.items()])}"
    if task.split is not None:
        yield f"  trial 0: {', '.join(f'{n} {part}' for part, n in task.split.items())}"
    if task.n_leaked:
        yield f"  warning: {task.n_leaked} images of validation and test are copies of training images"
    if task.problem:
        yield f"  problem: {task.problem}"


def _bars(histogram: Histogram) -> Iterator[str]:
    """Yield a histogram's rows as bars; of very many, the fullest."""
    rows: Sequence[tuple[str, int]] = list(zip(histogram.rows, histogram.counts, strict=True))
    hidden = len(rows) - MOST_ROWS
    if hidden > 0:
        rows = sorted(rows, key=lambda row: -row[1])[:MOST_ROWS]
    width, most = max(len(row) for row, _ in rows), max(*histogram.counts, 1)
    for row, count in rows:
        bar = "█" * max(round(BAR_WIDTH * count / most), count > 0)
        yield f"    {row:<{width}}  {bar:<{BAR_WIDTH}} {count:>6}"
    if hidden > 0:
        yield f"    … and {hidden} more, none of them fuller"
