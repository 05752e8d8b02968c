"""Direct training as a yardstick: how it is configured, what it measured, and how far cells fall short of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from facetask.experiments.matrix import results as shape
from facetask.running.outcomes import over_trials

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.experiments.config import RunTemplate
    from facetask.experiments.matrix.config import DirectConfig
    from facetask.experiments.pretrain_results import PretrainResults
    from facetask.plugin_manager import PluginManager
    from facetask.running.results import Metric, Metrics


def direct_config(template: RunTemplate, how: DirectConfig, plugins: PluginManager) -> RunConfig:
    """Return the configuration of a satellite run's direct training, with all of the run's tasks.

    Raises:
        ConfigError: If it is wrong.
    """
    changes = {**how.base_network.changes(), "trials": how.trials}
    own = {f"finetune.{name}": value for name, value in how.finetune.items()}
    if template.config(plugins, changes).finetune is False:
        own = {"finetune": how.finetune}
    return template.config(plugins, {**changes, **own})


def yardstick(source: Literal["primary", "trained"], results: PretrainResults) -> shape.Direct:
    """Return a pretraining as a yardstick."""
    return shape.Direct(
        source=source,
        start="random weights" if results.start == "scratch" else results.base_network,
        metrics=results.metrics,
        trials=[shape.DirectTrial(seed=trial.seed, metrics=trial.metrics) for trial in results.trials],
    )


def over(trials: Sequence[shape.CellTrial]) -> Metrics:
    """Return mean and spread over the trials."""
    return over_trials([{name: _known(value) for name, value in trial.metrics.items()} for trial in trials])


def reduction(
    trials: Sequence[shape.CellTrial], direct: shape.Direct | None, main: str, higher_is_better: bool
) -> Metric | None:
    """Return by what fraction of direct training's metric a cell's is worse, over the trials that both have."""
    if direct is None:
        return None
    yardsticks = {trial.seed: _known(trial.metrics.get(main)) for trial in direct.trials}
    pairs = [(_known(trial.metrics.get(main)), yardsticks[trial.seed]) for trial in trials if trial.seed in yardsticks]
    sign = 1 if higher_is_better else -1
    found = [sign * (wanted - reached) / wanted for reached, wanted in pairs if wanted > 0]
    return over_trials([{"": value} for value in found])[""] if found else None


def _known(value: float | None) -> float:
    """Return a metric, not a number where it is unknown."""
    return math.nan if value is None else value
