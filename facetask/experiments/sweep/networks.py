"""From a sweep's finished runs to its networks, those on a Pareto front marked."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import TypeAlias

from facetask.experiments.pareto import pareto_front
from facetask.experiments.sweep.config import Combination
from facetask.experiments.sweep.results import SweepNetwork, SweepTask
from facetask.report.metrics import main_metric, mean_of, style
from facetask.report.tables import best_tap_metrics
from facetask.running.results import Metric, Metrics, Results, TaskResult

Finished: TypeAlias = tuple[Combination, Results]


def swept_task(position: int, found: Sequence[Finished]) -> SweepTask:
    """Return one task's networks, by ascending MACs, those on a Pareto front marked.

    Args:
        position: The task's place in the runs' results.
        found: The finished combinations, one or more, each with its run's results.
    """
    some = found[0][1].tasks[position]
    main = main_metric(some.labels.kind, best_tap_metrics(some))
    networks = [_network(combination, results.tasks[position]) for combination, results in found]
    networks.sort(key=lambda network: network.cost.macs)
    higher = style(main).better == "higher"
    quality = [mean_of(network.validation, main) for network in networks]
    fronts = {
        "macs": pareto_front([network.cost.macs for network in networks], quality, higher_is_better=higher),
        "size": pareto_front([network.cost.size_bytes for network in networks], quality, higher_is_better=higher),
    }
    assert some.prune is not None
    return SweepTask(
        name=some.name,
        labels=some.labels,
        main_metric=main,
        higher_is_better=higher,
        base=some.prune.base,
        unpruned=best_tap_metrics(some),
        networks=[
            network.model_copy(update={"front": [cost for cost, front in fronts.items() if index in front]})
            for index, network in enumerate(networks)
        ],
    )


def on_validation(task: TaskResult) -> Metrics:
    """Return the metrics of a task's last step on validation images; nothing where an older version has run."""
    assert task.prune is not None
    return task.finetune.metrics_validation if task.finetune else task.prune.metrics_validation


def _network(combination: Combination, task: TaskResult) -> SweepNetwork:
    """Return one task's network of a finished combination."""
    assert task.prune is not None
    macs = [float(trial.macs) for trial in task.trials if trial.macs is not None]
    return SweepNetwork(
        combination=combination.name,
        settings=dict(combination.settings),
        step="finetuned" if task.finetune else "pruned",
        model=f"runs/{combination.name}/{task.model}",
        cut=task.prune.cut,
        kept=sum(task.prune.kept.values()),
        cost=task.prune.pruned,
        validation=on_validation(task),
        test=task.finetune.metrics if task.finetune else task.prune.metrics_pruned,
        test_pruned=task.prune.metrics_pruned,
        macs_over_trials=Metric(mean=mean(macs), std=stdev(macs) if len(macs) > 1 else 0.0),
        front=[],
        wall_s=sum(task.wall_s.values()),
    )
