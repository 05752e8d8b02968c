"""Selectors beside each other: the test error with equally many filters of one tap, chosen by each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facetask.config import KneeSize, PruneConfig
from facetask.errors import ConfigError, did_you_mean
from facetask.running.outcomes import over_trials
from facetask.stages.curve import Chooser
from facetask.stages.regress import fit_tap
from facetask.statistics.knees import find_knee
from facetask.tasks.satellite import seed_of_trial

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Advance
    from facetask.records import Selector
    from facetask.responses import Responses
    from facetask.running.prepare import Materials
    from facetask.running.results import Metrics
    from facetask.tasks.satellite import Satellite

SIZES = (8, 16, 32, 64)


@dataclass(frozen=True)
class Comparison:
    """One task's test metrics for several selectors at one tap.

    Attributes:
        task: The task's name.
        tap: The tap.
        n_filters: How many filters it has.
        trials: How many random partitions the spreads are of.
        sizes: Numbers of filters kept.
        selectors: For each selector and size, in the order of ``sizes``, the metrics on test.
        everything: The metrics with all filters.
    """

    task: str
    tap: str
    n_filters: int
    trials: int
    sizes: tuple[int, ...]
    selectors: Mapping[str, tuple[Metrics, ...]]
    everything: Metrics


def chosen_selectors(names: Sequence[str], plugins: PluginManager) -> list[Selector]:
    """Return the selectors of these names, ``all`` being every one that can be imported.

    Raises:
        ConfigError: If a name is unknown, or a selector has params without a default.
        PluginError: If a named selector cannot be imported.
    """
    known = [entry.name for entry in plugins.catalogue() if entry.kind == "selector" and entry.status == "available"]
    for name in names:
        if name != "all" and name not in known:
            raise ConfigError(f"no selector {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")
    wanted = known if "all" in names else dict.fromkeys(names)
    return [plugins.find("selector", name) for name in wanted]  # type: ignore[misc]


def compare_selectors(
    materials: Materials,
    responses: Responses,
    config: RunConfig,
    task: Satellite,
    tap: str,
    selectors: Sequence[Selector],
    advance: Advance = lambda done: None,
) -> Comparison:
    """Return the test metrics of regressions on the filters that each selector keeps of one tap.

    A selector sees the training images, with its default params; the regression's ridge strength is tuned on
    validation. Both are repeated on each of the run's partitions.

    Args:
        materials: The run's network, images and tasks.
        responses: All taps' responses.
        config: The run's configuration.
        task: The satellite task.
        tap: The tap.
        selectors: The selectors.
        advance: Counts selectors done.
    """
    columns = responses.columns[tap]
    full = columns.stop - columns.start
    component, sizes = np.arange(full), tuple(size for size in SIZES if size < full)
    seeds = [seed_of_trial(config.seed, trial) for trial in range(config.trials)]
    splits = [task.split(seed) for seed in seeds]
    weights = materials.network.filter_weights() if any("weights" in s.needs for s in selectors) else {}
    found: dict[str, tuple[Metrics, ...]] = {}
    for selector in selectors:
        measured: list[list[dict[str, float]]] = [[] for _ in sizes]
        for seed, split in zip(seeds, splits, strict=True):
            chooser = Chooser(selector, selector.params(), weights, seed)
            curve = chooser.curve(responses, [tap], component, task, split)
            for place, size in enumerate(sizes):
                kept = find_knee(curve, PruneConfig(knee=KneeSize(filters=size)), full).support
                measured[place].append(fit_tap(tap, responses.tap(tap)[:, kept], task, split).metrics)
        found[selector.name] = tuple(over_trials(trials) for trials in measured)
        advance(1)
    whole = [fit_tap(tap, responses.tap(tap), task, split).metrics for split in splits]
    return Comparison(task.spec.name, tap, full, config.trials, sizes, found, over_trials(whole))
