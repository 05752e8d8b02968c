"""What networks are worth on each group of a slice, and whose error grows more by pruning than that of all images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, stdev
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from facetask.running import results as shape
from facetask.running.outcomes import over_trials
from facetask.tasks.satellite import seed_of_trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.data.slices import Slicing
    from facetask.data.splits import Split
    from facetask.networks.heads import Predicted
    from facetask.running.outcomes import TaskRecord, TrialOutcomes
    from facetask.tasks.satellite import Satellite

SMALL = 20
"""A group of fewer test images than this in some trial is called small: its metrics are shown, but tell little."""
AFTER: tuple[Literal["pruned", "finetuned"], ...] = ("pruned", "finetuned")
_Measured: TypeAlias = "dict[shape.SliceStep, dict[str, float]]"


@dataclass(frozen=True)
class _Trial:
    """One trial's predictions on test at every step that was reached, measured on any part of the test images."""

    task: Satellite
    split: Split
    steps: dict[shape.SliceStep, Predicted]

    @cached_property
    def whole(self) -> _Measured:
        """The metrics of each step on all test images."""
        return {step: self._metrics(step, np.ones(len(self.split.test), dtype=bool)) for step in self.steps}

    def measured(self, part: NDArray[np.bool_]) -> _Measured:
        """Return the metrics of each step on a part of the test images, ``(n_test,)``; unknown where it is empty."""
        return {
            step: self._metrics(step, part) if part.any() else dict.fromkeys(whole, float("nan"))
            for step, whole in self.whole.items()
        }

    def excess(self, measured: _Measured, after: shape.SliceStep) -> float:
        """Return by how much more the error of a part has grown since before pruning than that of all test images."""
        part, whole = (self._error(found[after]) - self._error(found["unpruned"]) for found in (measured, self.whole))
        return part - whole

    def _metrics(self, step: shape.SliceStep, part: NDArray[np.bool_]) -> dict[str, float]:
        """Return the metrics of a step on some of the test images."""
        task, split, predicted = self.task, self.split, self.steps[step]
        return task.kind.metrics(
            predicted.predictions(len(split.test))[part],
            task.values[split.test][part],
            predicted.decision,
            task.kind.scale(task.targets[split.train]),
        )

    def _error(self, metrics: dict[str, float]) -> float:
        """Return the main metric so that less is better."""
        kind = self.task.kind
        return -metrics[kind.main_metric] if kind.higher_is_better else metrics[kind.main_metric]


def measured_slices(slices: Sequence[Slicing], record: TaskRecord, seed: int) -> list[shape.Slice]:
    """Return a task's metrics on each group of each slice that has test images.

    Thresholds are those that were learned for all images together.

    Args:
        slices: The groups of all images.
        record: The task's outcomes.
        seed: The run's seed.
    """
    trials = [
        _Trial(record.task, record.task.split(seed_of_trial(seed, index)), dict(_steps(outcomes)))
        for index, outcomes in enumerate(record.trials)
    ]
    found = []
    for slicing in slices:
        groups = []
        for number, name in enumerate(slicing.names):
            parts = [slicing.groups[trial.split.test] == number for trial in trials]
            if any(part.any() for part in parts):
                groups.append(_subgroup(name, trials, parts))
        found.append(shape.Slice(column=slicing.column, groups=groups))
    return found


def _steps(outcomes: TrialOutcomes) -> Iterator[tuple[shape.SliceStep, Predicted]]:
    """Yield the steps that a trial has reached, with their predictions on test."""
    if outcomes.regress is not None:
        yield "regress", outcomes.regress.predicted
    if outcomes.prune is not None:
        yield "unpruned", outcomes.prune.predicted_unpruned
        yield "pruned", outcomes.prune.predicted
    if outcomes.finetune is not None:
        yield "finetuned", outcomes.finetune.predicted


def _subgroup(name: str, trials: Sequence[_Trial], parts: Sequence[NDArray[np.bool_]]) -> shape.Subgroup:
    """Return one group's metrics over the trials.

    Args:
        name: The group.
        trials: The trials.
        parts: The group among each trial's test images, ``(n_test,)`` each.
    """
    n_test = [int(part.sum()) for part in parts]
    small = min(n_test) < SMALL
    measured = [trial.measured(part) for trial, part in zip(trials, parts, strict=True)]
    steps = list(trials[0].steps)
    excess, grew = {}, []
    for after in AFTER:
        if after not in steps:
            continue
        values = [trial.excess(found, after) for trial, found in zip(trials, measured, strict=True)]
        known = [value for value in values if np.isfinite(value)]
        spread = stdev(known) if len(known) > 1 else None
        excess[after] = shape.Metric(mean=mean(known) if known else None, std=spread)
        if not small and spread is not None and mean(known) > spread:
            grew.append(after)
    return shape.Subgroup(
        group=name,
        n_test=n_test,
        small=small,
        metrics={step: over_trials([found[step] for found in measured]) for step in steps},
        excess=excess,
        grew=grew,
    )
