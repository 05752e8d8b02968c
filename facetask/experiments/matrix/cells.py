"""The cells of one base network and one satellite run: a regression for every task and trial, stored as it is done."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.experiments.matrix.results import CellTrial
from facetask.experiments.matrix.unseen import Unseen
from facetask.responses import Responses
from facetask.running.outcomes import TaskRecord, over_trials
from facetask.running.prepare import respond
from facetask.running.stage_work import StageWork, encode
from facetask.stages.regress import Regression
from facetask.tasks.satellite import seed_of_trial, to_finite

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.progress import Reporter
    from facetask.running.prepare import Materials
    from facetask.running.results import Metrics
    from facetask.running.rundir import RunDir

_STAGE = "regress"


@dataclass(frozen=True)
class Cells:
    """One base network and one satellite run.

    Attributes:
        name: What they are called in messages.
        config: The run's configuration with this base network.
        materials: Network, images, tasks.
        folder: Where results are stored.
        reporter: Where to report to.
    """

    name: str
    config: RunConfig
    materials: Materials
    folder: RunDir
    reporter: Reporter

    @cached_property
    def _responses(self) -> Responses:
        """All taps' responses; they are computed for the first cell that is not stored."""
        return respond(self.materials, self.reporter)

    def regressions(self, index: int) -> tuple[list[CellTrial], Metrics]:
        """Return a task's trials and the trivial predictor's test metrics, from the folder or computed."""
        found = [self._regression(index, trial) for trial in range(self.config.trials)]
        trials = [self._trial(index, trial, regression) for trial, regression in enumerate(found)]
        return trials, over_trials([regression.baseline for regression in found])

    def _regression(self, index: int, trial: int) -> Regression:
        """Return one trial's regression of every tap."""
        work = StageWork(self.materials, Responses(np.zeros((0, 0), dtype=np.float32), {}), self.config, index, trial)
        task, name = work.task, work.task.spec.name
        depends: dict[str, Any] = work.dependencies(_STAGE)
        if isinstance(task, Unseen):
            depends["images of pretraining"] = task.seen()
        stored, changed = self.folder.load_stage(name, trial, _STAGE, depends)
        if stored is not None:
            return Regression.from_json(stored["result"])
        if changed:
            self.reporter.line(f"{self.name}, {name}, trial {trial}: computed again, changed: {changed}")
        work = StageWork(self.materials, self._responses, self.config, index, trial)
        start = time.perf_counter()
        found = work.compute(_STAGE, TaskRecord(task, self.config.trials))
        assert isinstance(found, Regression)
        wall_s = time.perf_counter() - start
        self.folder.save_stage(name, trial, _STAGE, depends, encode(found), wall_s)
        return found

    def _trial(self, index: int, trial: int, found: Regression) -> CellTrial:
        """Return what the matrix says of one trial: the final classifier's metrics where that is another model."""
        task = self.materials.tasks[index]
        seed = seed_of_trial(self.config.seed, trial)
        split = task.split(seed)
        metrics = found.classifier if found.classifier is not None else found.fit_of(found.best_tap).metrics
        return CellTrial(
            trial=trial,
            seed=seed,
            n_train=len(split.train),
            n_validation=len(split.validation),
            n_test=len(split.test),
            n_left_out=task.n_left_out(seed) if isinstance(task, Unseen) else 0,
            best_tap=found.best_tap,
            metrics=to_finite(metrics),
        )
