"""What the stages gave for each task and trial, collected while a run is on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from facetask.running.results import Metric, Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetask.config import RunConfig
    from facetask.networks.task_network import TaskNetwork
    from facetask.stages.curve import Curves
    from facetask.stages.finetune import Finetuned
    from facetask.stages.prune import Pruned
    from facetask.stages.regress import Regression
    from facetask.statistics.curves import Curve
    from facetask.tasks.satellite import Satellite

    Outcome: TypeAlias = Regression | Curves | Pruned | Finetuned


@dataclass
class TrialOutcomes:
    """One trial's stage results so far, and the seconds that each took when it was computed.

    ``group_curves`` are the coupled groups' curves that pruning has drawn on its split, for any trial; ``network`` is
    what it has built, until it is trained.
    """

    regress: Regression | None = None
    curve: Curves | None = None
    prune: Pruned | None = None
    finetune: Finetuned | None = None
    wall_s: dict[str, float] = field(default_factory=dict)
    network: TaskNetwork | None = None
    group_curves: dict[tuple[tuple[str, ...], bytes], Curve] = field(default_factory=dict)

    def add(self, stage: str, outcome: Outcome, wall_s: float) -> None:
        """Note a stage's result."""
        setattr(self, stage, outcome)
        self.wall_s[stage] = wall_s


class TaskRecord:
    """One task's outcomes over all trials."""

    def __init__(self, task: Satellite, trials: int) -> None:
        self.task = task
        self.trials = [TrialOutcomes() for _ in range(trials)]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.spec.name

    def line(self, stage: str) -> str:
        """Return one line that says what a stage found."""
        wall_s = sum(outcomes.wall_s[stage] for outcomes in self.trials)
        return f"{stage} {self.name}: {self._finding(stage)} ({wall_s:.1f} s)"

    def warnings(self, stage: str, config: RunConfig) -> list[str]:
        """Return what a user should not miss in what a stage gave."""
        if stage == "prune" and config.prune.budget is not None:
            pruned = [t.prune for t in self.trials if t.prune]
            over = [text for each in pruned if (text := config.prune.budget.excess(each.cost, each.cost_base))]
            return [f"prune {self.name}: in {len(over)} of {len(pruned)} trials {over[0]}"] if over else []
        if stage != "finetune" or config.finetune is False:
            return []
        reached = [len(t.finetune.epochs) - 1 for t in self.trials if t.finetune]
        stopped = [f"{n} of {config.finetune.epochs}" for n in reached if n < config.finetune.epochs]
        if not stopped:
            return []
        return [
            f"finetune {self.name}: training diverged in {len(stopped)} of {len(reached)} trials, after "
            f"{', '.join(stopped)} epochs; try a smaller finetune.learning_rate than {config.finetune.learning_rate:g}"
        ]

    def _finding(self, stage: str) -> str:
        """Return what a stage found, over the trials."""
        main = self.task.kind.main_metric
        unit = f" {self.task.spec.unit}" if main == "rmse" and self.task.spec.unit else ""
        first = self.trials[0]
        if stage == "regress" and first.regress:
            fits = [t.regress.fit_of(t.regress.best_tap) for t in self.trials if t.regress]
            found = f"best tap {first.regress.best_tap}, {main} {plus_minus([f.metrics[main] for f in fits])}{unit}"
            finals = [t.regress.classifier[main] for t in self.trials if t.regress and t.regress.classifier]
            return f"{found} by least squares, {plus_minus(finals)} by the classifier" if finals else found
        if stage == "curve" and first.curve and first.regress:
            best = first.curve.taps[first.regress.best_tap]
            reach = f"{best.n_filters[0]} to {best.n_filters[-1]} filters"
            return f"{len(first.curve.taps)} taps, {first.regress.best_tap} from {reach}"
        if stage == "prune" and first.prune:
            cost, base = first.prune.cost, first.prune.cost_base
            size, macs = 1 - cost.size_bytes / base.size_bytes, 1 - cost.macs / base.macs
            found = plus_minus([t.prune.metrics_pruned[main] for t in self.trials if t.prune])
            return f"cut {first.prune.cut}, size −{size:.1%}, MACs −{macs:.1%}, {main} {found}{unit}"
        found = plus_minus([t.finetune.metrics[main] for t in self.trials if t.finetune])
        return f"{main} {found}{unit}"


def over_trials(metrics: Sequence[dict[str, float]]) -> Metrics:
    """Return each metric's mean and sample standard deviation over the trials in which it is known."""
    combined: Metrics = {}
    for name in metrics[0]:
        known = [float(values[name]) for values in metrics if np.isfinite(values[name])]
        spread = stdev(known) if len(known) > 1 else 0.0
        combined[name] = Metric(mean=mean(known) if known else None, std=spread if known else None)
    return combined


def plus_minus(values: list[float]) -> str:
    """Return ``mean ± standard deviation`` with four significant digits."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "unknown"
    spread = f" ± {stdev(known):.2g}" if len(known) > 1 else ""
    return f"{mean(known):.4g}{spread}"
