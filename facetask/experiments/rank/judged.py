"""What scores judge: a task's images of training and validation with targets and classes, at one tap after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facetask.records import ScoreProblem
from facetask.stages.regress import scaled_targets
from facetask.statistics.known import mean_of_known
from facetask.tasks import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.data.splits import Split
    from facetask.stages.regress import TapFit
    from facetask.tasks.satellite import Satellite


class Judged:
    """What every tap of a network is judged by in one trial.

    Args:
        task: The task.
        split: The trial's partition; the scores see training and validation.
        bins: Into how many bins continuous values are put.
    """

    def __init__(self, task: Satellite, split: Split, bins: int) -> None:
        targets, _ = scaled_targets(task, split)
        self._rows = np.sort(np.concatenate([split.train, split.validation]))
        self._targets, self._kind = targets[self._rows], task.spec.kind
        self._classes = class_labels(task, self._rows, bins)
        held_out = targets[split.validation]
        trivial = np.broadcast_to(mean_of_known(targets[split.train]), held_out.shape)
        self._trivial_rmse = metrics.scaled_rmse(trivial, held_out, np.ones(1))

    def problem(self, responses: NDArray[np.float32], fit: TapFit) -> ScoreProblem:
        """Return the problem of one tap's responses to all images and its regression."""
        return ScoreProblem(
            responses=responses[self._rows].astype(np.float64),
            targets=self._targets,
            kind=self._kind,
            classes=self._classes,
            rmse=fit.validation_rmse,
            trivial_rmse=self._trivial_rmse,
        )


def class_labels(task: Satellite, rows: NDArray[np.intp], bins: int) -> NDArray[np.intp]:
    """Return the class of some of a task's images, ``(n, n_labellings)``, −1 where it is unknown.

    Each output of a continuous task is put into bins of equally many of these images; equal values share one.
    """
    values = task.values[rows]
    unknown = np.isnan(values)
    if task.spec.kind == "binned":
        inner = [np.array(edges) for edges in task.spec.edges]
        each = tuple(np.searchsorted(edges, values[:, i], side="right") for i, edges in enumerate(inner))
        index = np.ravel_multi_index(each, [len(edges) + 1 for edges in inner])
        return np.where(unknown.any(axis=1), -1, index)[:, None].astype(np.intp)
    if task.spec.kind != "continuous":
        return np.where(unknown, -1, np.nan_to_num(values)).astype(np.intp)
    columns = []
    for column, absent in zip(values.T, unknown.T, strict=True):
        edges = np.unique(np.quantile(column[~absent], np.linspace(0, 1, bins + 1)[1:-1]))
        columns.append(np.where(absent, -1, np.searchsorted(edges, column, side="right")))
    return np.stack(columns, axis=1).astype(np.intp)
