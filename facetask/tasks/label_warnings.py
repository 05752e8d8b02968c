"""What a run warns of in a task's labels: classes left out or unseen, labels known in part, copies across splits."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from facetask.data.splits import PARTS
from facetask.errors import first_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from facetask.data.splits import Split
    from facetask.records import Selector
    from facetask.tasks.satellite import Satellite


def label_warnings(
    task: Satellite, splits: Sequence[Split], content: NDArray[np.intp], selector: Selector
) -> Iterator[str]:
    """Yield what the user should know before anything is computed from a task's labels.

    Args:
        task: The task.
        splits: Each trial's partition.
        content: A number for each image, ``(n_images,)``, the same where their files have the same content.
        selector: What chooses filters by the labels.
    """
    where = f"task {task.spec.name!r}"
    if task.left_out:
        named = first_names([f"{name} ({n})" for name, n in task.left_out.items()])
        yield (
            f"{where}: classes with fewer than {len(PARTS) * task.split_config.min_per_class} images "
            f"({len(PARTS)} × split.min_per_class) are left out: {named}"
        )
    if task.partly.any():
        yield f"{where}: {_partly_labelled(task, selector)}"
    trials_of = defaultdict(list)
    for trial, split in enumerate(splits):
        for name in _unseen(task, split):
            trials_of[name].append(str(trial))
    if trials_of:
        named = first_names([f"{name} (trial {first_names(trials)})" for name, trials in trials_of.items()])
        yield (
            f"{where}: no training image of {named}: what is never seen cannot be learned; label more people or "
            "groups, or leave it out"
        )
    most = max(n_copies(split, content) for split in splits)
    if most:
        yield (
            f"{where}: {most} images of validation and test are copies of training images (of the same content), "
            "which flatters the results; facetask data describe names the first"
        )


def _partly_labelled(task: Satellite, selector: Selector) -> str:
    """Return how many images lack some of a task's labels, and what that means."""
    summary = task.summary()
    counts = ", ".join(f"{name} {count}" for name, count in list(summary.known.items())[:8])
    which = f" ({counts}{', …' if len(summary.known) > 8 else ''} known)" if counts else ""
    seen = ""
    if "responses" in selector.needs:
        whole = summary.n_labelled - summary.n_partly
        seen = f"; the selector {selector.name!r} chooses by the {whole} images that have all of them"
    return (
        f"{summary.n_partly} of {summary.n_labelled} labelled images lack some labels{which}; each counts for those "
        f"that it has{seen}"
    )


def _unseen(task: Satellite, split: Split) -> Iterator[str]:
    """Yield each class, or label's yes or no, that occurs in validation or test and not in training."""
    if task.spec.kind in ("continuous", "binned"):  # regressed: between and beyond what was seen
        return
    held_out = np.concatenate([split.validation, split.test])
    for output in range(task.values.shape[1]):
        column = task.values[:, output]
        for value in np.setdiff1d(column[held_out], column[split.train]):
            if np.isnan(value):
                continue
            if task.spec.kind == "multilabel":
                yield f"{task.spec.classes[output]}: {'yes' if value else 'no'}"
            else:
                yield task.spec.classes[int(value)]


def n_copies(split: Split, content: NDArray[np.intp]) -> int:
    """Return how many images of the validation and test splits have the content of one in training."""
    return int(np.isin(content[np.concatenate([split.validation, split.test])], content[split.train]).sum())
