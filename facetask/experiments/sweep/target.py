"""Targets: what a network may cost or how good it must be, and the network of a sweep that is best by them.

``macs<=20%`` is a share of the base network's, ``macs<=50M`` a number; ``rmse<=8`` and ``accuracy>=90%`` are means over
the trials of metrics on validation images.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facetask.errors import ConfigError, RunDirError, did_you_mean
from facetask.experiments.sweep.results import SweepNetwork, SweepResults, SweepTask
from facetask.report.format import human_bytes, human_count, number, percent
from facetask.report.metrics import mean_of, metric_text, style, unit_of

_TARGET = re.compile(
    r"\s*(?P<name>[^<>=]+?)\s*(?P<relation><=|>=)\s*(?P<number>[^\s]+?)\s*(?P<unit>%|[kMG]?B|[kMG])?\s*"
)
_COSTS = {"macs": "macs", "params": "params", "size": "size_bytes"}
_FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_EXAMPLES = 'such as "macs<=20%", "size<=500kB", "params<=1e6", "rmse<=8" or "accuracy>=90%"'


@dataclass(frozen=True)
class Target:
    """One condition.

    Attributes:
        text: As it was given.
        name: ``macs``, ``params``, ``size``, or a metric's name.
        limit: The bound that must not be crossed.
        share: Whether it is a share of the base network's cost.
    """

    text: str
    name: str
    limit: float
    share: bool

    @property
    def is_cost(self) -> bool:
        """Whether it bounds a cost."""
        return self.name in _COSTS

    def value(self, network: SweepNetwork, task: SweepTask) -> float | None:
        """Return what is compared with the limit."""
        if not self.is_cost:
            return mean_of(network.validation, self.name)
        cost = float(getattr(network.cost, _COSTS[self.name]))
        return cost / getattr(task.base, _COSTS[self.name]) if self.share else cost

    def miss(self, network: SweepNetwork, task: SweepTask) -> float:
        """Return by how much a network misses the target, as a share of the limit; 0 where it fulfils it."""
        value = self.value(network, task)
        if value is None or not math.isfinite(value):
            return math.inf
        over = self.limit - value if style(self.name).better == "higher" else value - self.limit
        return max(over, 0.0) / (abs(self.limit) or 1.0)


def parse_target(text: str) -> Target:
    """Return the condition that a text states.

    Raises:
        ConfigError: If it states none, or one that no network could want to fulfil.
    """
    match = _TARGET.fullmatch(text)
    value = _number(match["number"]) if match else None
    if match is None or value is None:
        raise ConfigError(f"--target {text!r}: expected a condition {_EXAMPLES}")
    name, relation, unit = match["name"], match["relation"], match["unit"] or ""
    lowered = name.lower()
    name = lowered if lowered in _COSTS or style(lowered).better else name
    better = "lower" if name in _COSTS else style(name).better
    if not better:
        known = [*_COSTS, "rmse", "mae", "r2", "accuracy", "balanced_accuracy", "auc", "f1"]
        raise ConfigError(
            f"--target {text!r}: {name!r} is neither a cost nor a known metric{did_you_mean(name, known)}"
        )
    if relation != ("<=" if better == "lower" else ">="):
        right = "<=" if better == "lower" else ">="
        raise ConfigError(
            f"--target {text!r}: {better} is better for {name}; write {name}{right}{match['number']}{unit}"
        )
    fits = {"size": ("%", "B", "kB", "MB", "GB"), "macs": ("", "%", "k", "M", "G"), "params": ("", "%", "k", "M", "G")}
    permitted = fits.get(name, ("", "%") if style(name).scale == "percent" else ("",))
    if unit not in permitted:
        raise ConfigError(
            f"--target {text!r}: {name} is given "
            + (
                f"in {' or '.join(part or 'plain numbers' for part in permitted)}"
                if any(permitted)
                else "without a unit"
            )
        )
    factor = 0.01 if unit == "%" else _FACTORS[unit.removesuffix("B")]
    return Target(text.strip(), name, value * factor, name in _COSTS and unit == "%")


def pick(task: SweepTask, targets: Sequence[Target]) -> SweepNetwork:
    """Return the network that fulfils all targets and is best in the rest.

    Where a metric is asked for, that is the one of fewest MACs; where only costs are, the one with the best main metric
    on validation.

    Raises:
        RunDirError: If none fulfils all, saying which is nearest; or if a metric is none of the task's.
    """
    if not task.networks:
        raise RunDirError(f"{task.name}: no network to choose from")
    for target in targets:
        known = task.networks[0].validation
        if not target.is_cost and target.name not in known:
            raise RunDirError(f"{task.name}: no metric {target.name!r}{did_you_mean(target.name, [*_COSTS, *known])}")
    fitting = [network for network in task.networks if not any(target.miss(network, task) for target in targets)]
    if not fitting:
        nearest = min(task.networks, key=lambda network: max(target.miss(network, task) for target in targets))
        missed = [target for target in targets if target.miss(nearest, task)]
        told = ", ".join(f"{target.text} ({_shown(target, nearest, task)})" for target in missed)
        wanted = " and ".join(target.text for target in targets)
        raise RunDirError(
            f"{task.name}: none of {len(task.networks)} networks fulfils {wanted}; the nearest is "
            f"{nearest.combination}, which misses {told}"
        )
    if all(target.is_cost for target in targets):
        return min(fitting, key=lambda network: (_badness(network, task), network.cost.macs))
    return min(fitting, key=lambda network: (network.cost.macs, _badness(network, task)))


def chosen_lines(results: SweepResults, targets: Sequence[Target], folder: Path) -> list[str]:
    """Return, for each task, which network the targets pick, where it lies and how to use it.

    Raises:
        RunDirError: If none fulfils all targets for some task.
    """
    lines = []
    for task in results.tasks:
        network = pick(task, targets)
        model = folder / network.model
        lines += [
            f"{task.name}: {network.combination}: {_described(task, network)}",
            f"  {model}",
            f"  facetask predict {shlex.quote(str(model))} IMAGE|FOLDER…",
        ]
    return lines


def _described(task: SweepTask, network: SweepNetwork) -> str:
    """Return a network's quality and costs in one line."""
    main, unit = task.main_metric, unit_of(task.labels, task.main_metric)
    validation = metric_text(main, network.validation.get(main), unit)
    return (
        f"{style(main).label} {validation} on validation, {metric_text(main, network.test.get(main), unit)} on test; "
        f"{human_count(network.cost.macs)} MACs ({percent(network.cost.macs / task.base.macs)} of the base network), "
        f"{human_bytes(network.cost.size_bytes)} ({percent(network.cost.size_bytes / task.base.size_bytes)})"
    ).replace("\u00a0", " ")


def _badness(network: SweepNetwork, task: SweepTask) -> float:
    """Return the main metric on validation so that less is better."""
    value = mean_of(network.validation, task.main_metric)
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if task.higher_is_better else value


def _shown(target: Target, network: SweepNetwork, task: SweepTask) -> str:
    """Return what a network has where a target asks for something else."""
    value = target.value(network, task)
    if target.share or (not target.is_cost and style(target.name).scale == "percent"):
        return percent(value).replace("\u00a0", " ")
    if target.is_cost:
        return (human_bytes if target.name == "size" else human_count)(value).replace("\u00a0", " ")
    return number(value)


def _number(text: str) -> float | None:
    """Return a text's finite, positive number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
