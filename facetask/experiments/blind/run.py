"""``facetask blind``: filters that carry other tasks are removed from the cut; what is left of both is measured.

Filters are chosen, and labels erased, on the excluded tasks' training images; heads and probes are fitted on training,
tuned on validation and measured on test, each task by its own split.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from facetask import __version__
from facetask.errors import ConfigError
from facetask.experiments.blind.erase import erase
from facetask.experiments.blind.probe import chance, probe
from facetask.experiments.blind.results import BlindResults, BlindTask, Probed, Step
from facetask.json_record import write_record
from facetask.networks.heads import fit_head
from facetask.running.outcomes import over_trials
from facetask.running.prepare import prepare, respond
from facetask.stages.curve import Chooser
from facetask.stages.prune import choose_cut
from facetask.stages.regress import regress
from facetask.statistics.knees import ranked
from facetask.tasks.satellite import seed_of_trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import RunConfig
    from facetask.experiments.blind.config import BlindConfig
    from facetask.experiments.blind.results import Way
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Advance, Reporter
    from facetask.responses import Responses
    from facetask.running.prepare import Materials
    from facetask.tasks.satellite import Satellite

    Values = dict[str, float]


def blind(
    config: BlindConfig,
    out: Path,
    *,
    plugins: PluginManager | None = None,
    reporter: Reporter | None = None,
) -> BlindResults:
    """Measure every amount and way, write ``blind.json``, ``blind.html`` and ``figures/``, and return what was found.

    Args:
        config: The configuration.
        out: The folder to write into.
        plugins: Where plugins are found; by default the bundled and installed ones.
        reporter: Where to report to; by default nowhere.

    Raises:
        FacetaskError: If anything that the user can mend is wrong.
    """
    from facetask.experiments.blind.page import write_blind_page
    from facetask.plugin_manager import default_manager
    from facetask.progress import Silent

    results = _Blind(config, plugins or default_manager(), reporter or Silent()).results()
    write_record(results, out / "blind.json")
    write_blind_page(results, out)
    return results


def removal_order(orders: Sequence[NDArray[np.intp]], n_filters: int) -> NDArray[np.intp]:
    """Return all filters, ``(n_filters,)``, those that carry the excluded tasks first.

    Args:
        orders: Each task's own order; they take turns.
        n_filters: How many filters there are.
    """
    turns = zip_longest(*(ranked(order, n_filters).tolist() for order in orders))
    return np.array(list(dict.fromkeys(index for turn in turns for index in turn)), dtype=np.intp)


@dataclass(frozen=True)
class _Measured:
    """One way and amount in one trial."""

    filters: NDArray[np.intp]
    directions: int
    kept: Values
    linear: list[Values]
    nonlinear: list[Values]


class _Blind:
    """One experiment on its way."""

    def __init__(self, config: BlindConfig, plugins: PluginManager, reporter: Reporter) -> None:
        self.config, self.plugins, self.reporter = config, plugins, reporter
        amounts = config.filters
        self.steps: list[tuple[Way, int]] = [("chosen", n) for n in amounts]
        self.steps += [("random", n) for n in amounts if n]
        self.steps += [("projected", n) for n in amounts if config.project is not False]

    def results(self) -> BlindResults:
        """Do all the work."""
        start = time.perf_counter()
        run = self.config.run.config(self.plugins)
        materials = prepare(run, self.plugins, self.reporter)
        place, others = self.config.places([task.spec.name for task in materials.tasks])
        task, excluded = materials.tasks[place], [materials.tasks[other] for other in others]
        responses = respond(materials, self.reporter)
        cuts: list[str] = []
        found: list[list[_Measured]] = []
        name = f"{task.spec.name} blind to {', '.join(each.spec.name for each in excluded)}"
        with (
            self.reporter.bar(name, run.trials * len(self.steps)) as advance,
            threadpool_limits(1, user_api="blas"),  # as in a run
        ):
            for trial in range(run.trials):
                seed = seed_of_trial(run.seed, trial)
                cuts.append(_cut(responses, task, seed, run, materials))
                found.append(self._trial(responses, cuts[-1], task, excluded, seed, run, materials, advance))
        base = run.base_network
        seeds = [seed_of_trial(run.seed, trial) for trial in range(run.trials)]
        return BlindResults(
            facetask_version=__version__,
            base_network=base.name or str(base.model),
            selector=run.selector.name,
            trials=run.trials,
            seed=run.seed,
            task=_described(task, seeds),
            excluded=[_described(other, seeds) for other in excluded],
            cuts=cuts,
            n_filters=[responses.tap(cut).shape[1] for cut in cuts],
            steps=[
                _step(way, removed, [trial[index] for trial in found], excluded)
                for index, (way, removed) in enumerate(self.steps)
            ],
            wall_s=time.perf_counter() - start,
        )

    def _trial(
        self,
        responses: Responses,
        cut: str,
        task: Satellite,
        excluded: Sequence[Satellite],
        seed: int,
        run: RunConfig,
        materials: Materials,
        advance: Advance,
    ) -> list[_Measured]:
        """Return one trial's measurements of all steps."""
        x = responses.tap(cut)
        n_filters, most = x.shape[1], max(self.config.filters)
        if most >= n_filters:
            raise ConfigError(f"filters: {most} cannot be removed, {cut} has {n_filters}; leave at least one")
        selector = materials.selector
        weights = materials.network.filter_weights() if "weights" in selector.needs else {}
        chooser = Chooser(selector, run.selector.params, weights, seed, run.curve.refit)
        component = np.arange(n_filters)
        orders = [
            chooser.curve(responses, [cut], component, other, other.split(seed)).order for other in excluded if most
        ]
        chosen = removal_order(orders, n_filters) if orders else component
        order = {"chosen": chosen, "projected": chosen, "random": np.random.default_rng(seed).permutation(n_filters)}
        measured = []
        for way, removed in self.steps:
            filters = np.sort(order[way][:removed])
            left, directions = np.delete(x, filters, axis=1).astype(np.float64), 0
            if way == "projected":
                for other in excluded:
                    train = other.split(seed).train
                    left, erased = erase(left, other.targets, train, self.config.most_directions)
                    directions += erased
            measured.append(
                _Measured(
                    filters=filters,
                    directions=directions,
                    kept=fit_head(left, task, task.split(seed)).metrics,
                    linear=[fit_head(left, other, other.split(seed)).metrics for other in excluded],
                    nonlinear=[probe(left, other, other.split(seed), seed) for other in excluded],
                )
            )
            advance(1)
        return measured


def _cut(responses: Responses, task: Satellite, seed: int, run: RunConfig, materials: Materials) -> str:
    """Return where the run cuts the network for a task; taps are only regressed where that decides."""
    graph = materials.network.graph
    if isinstance(run.prune.cut, str) and run.prune.cut != "best":
        return graph.tap(run.prune.cut).name
    return choose_cut(regress(responses, task, task.split(seed)), run.prune.cut, graph)


def _described(task: Satellite, seeds: Sequence[int]) -> BlindTask:
    """Return what a reader should know of a task."""
    return BlindTask(
        name=task.spec.name,
        labels=task.summary(),
        main_metric=task.kind.main_metric,
        higher_is_better=task.kind.higher_is_better,
        group_by=task.group_by,
        chance=over_trials([chance(task, task.split(seed)) for seed in seeds]),
    )


def _step(way: Way, removed: int, trials: Sequence[_Measured], excluded: Sequence[Satellite]) -> Step:
    """Return one step over the trials."""
    return Step(
        way=way,
        removed=removed,
        filters=[trial.filters.tolist() for trial in trials],
        directions=[trial.directions for trial in trials],
        kept=over_trials([trial.kept for trial in trials]),
        excluded={
            other.spec.name: Probed(
                linear=over_trials([trial.linear[index] for trial in trials]),
                nonlinear=over_trials([trial.nonlinear[index] for trial in trials]),
            )
            for index, other in enumerate(excluded)
        },
    )
