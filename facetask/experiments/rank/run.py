"""``facetask rank``: which base network, read at which tap, suits a task, told without training any.

Each network sees every image once (responses are cached); then the run's regression and every score judge each tap.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from facetask.context import run_context
from facetask.errors import ConfigError, FacetaskError, PluginError, first_names
from facetask.experiments.rank import results as shape
from facetask.experiments.rank.config import RankConfig, ScoreChoice
from facetask.experiments.rank.finetuned import Measured, measured_in
from facetask.experiments.rank.judged import Judged
from facetask.experiments.rank.orders import over_networks, over_taps, ranking_of
from facetask.json_record import write_record
from facetask.running.outcomes import over_trials
from facetask.running.prepare import prepare, respond
from facetask.stages.regress import TapFit, fit_tap
from facetask.tasks.satellite import seed_of_trial

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.experiments.config import RunTemplate
    from facetask.experiments.rank.config import NetworkChoice
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.records import Score, ScoreProblem
    from facetask.responses import Responses
    from facetask.running.prepare import Materials
    from facetask.tasks.satellite import Satellite


def rank(
    config: RankConfig,
    out: Path,
    *,
    plugins: PluginManager | None = None,
    reporter: Reporter | None = None,
) -> shape.RankResults:
    """Rank base networks and their taps, write ``rank.json`` and ``rank.html``, and return what was found.

    Args:
        config: The ranking's configuration.
        out: The folder to write into.
        plugins: Where plugins are found; by default the bundled and installed ones.
        reporter: Where to report to; by default nowhere.

    Raises:
        FacetaskError: If anything that the user can mend is wrong.
    """
    from facetask.experiments.rank.page import write_rank_page
    from facetask.plugin_manager import default_manager
    from facetask.progress import Silent

    results = _Ranking(config, plugins or default_manager(), reporter or Silent()).results()
    write_record(results, out / "rank.json")
    write_rank_page(results, out / "rank.html")
    return results


@dataclass
class _TaskRanks:
    """One task on its way, over the networks."""

    task: Satellite
    run: str
    config: RunConfig
    finetuned: list[shape.Finetuned]
    networks: list[shape.NetworkTaps] = field(default_factory=list)


class _Ranking:
    """One ranking on its way."""

    def __init__(self, config: RankConfig, plugins: PluginManager, reporter: Reporter) -> None:
        self.config, self.plugins, self.reporter = config, plugins, reporter
        self.choices = config.scores if config.scores is not None else tuple(_every_score(plugins, reporter))
        self.scores: dict[str, tuple[Score, Any]] = {}
        for choice in self.choices:
            record: Score = plugins.find("score", choice.name)  # type: ignore[assignment]
            self.scores[choice.title] = record, record.params.model_validate_json(json.dumps(choice.params))
        self.wall_s: dict[str, float] = dict.fromkeys(self.scores, 0.0)

    def results(self) -> shape.RankResults:
        """Do all the work."""
        from facetask import __version__

        start = time.perf_counter()
        runs = [
            (name, network, template.config(self.plugins, network.changes()))
            for name, template in _named(self.config.run)
            for network in self.config.base_networks
        ]
        finetuned = measured_in(self.config.finetuned, self.reporter)
        networks: dict[str, shape.RankNetwork] = {}
        tasks: dict[str, _TaskRanks] = {}
        for run, network, run_config in runs:
            self.reporter.line(f"{run}: {network.title}")
            materials = prepare(run_config, self.plugins, self.reporter)
            before = time.perf_counter()
            responses = respond(materials, self.reporter)
            name = f"responses of {network.title}"
            self.wall_s[name] = self.wall_s.get(name, 0.0) + time.perf_counter() - before
            networks[network.title] = _network(network, materials)
            for task in materials.tasks:
                name = task.spec.name
                if name not in tasks:
                    configs = {choice.title: each for other, choice, each in runs if other == run}
                    tasks[name] = _TaskRanks(task, run, run_config, self._finetuned(task, finetuned, configs))
                ranks = tasks[name]
                if ranks.run != run:
                    raise ConfigError(f"{ranks.run} and {run} both have a task {name!r}; give one of them a `label:`")
                taps = self._taps(task, responses, run_config, network.title)
                ranks.networks.append(shape.NetworkTaps(network=network.title, taps=taps))
        for measured in finetuned:
            if not any(measured.run == found.run for ranks in tasks.values() for found in ranks.finetuned):
                self.reporter.warn(f"{measured.run}: none of this ranking's networks and tasks; left out")
        return shape.RankResults(
            facetask_version=__version__,
            label_bins=self.config.label_bins,
            networks=list(networks.values()),
            scores=[
                shape.RankScore(name=choice.title, plugin=choice.name, params=choice.params) for choice in self.choices
            ],
            tasks=[self._ranked(ranks) for ranks in tasks.values()],
            wall_s={**self.wall_s, "total": time.perf_counter() - start},
        )

    def _taps(self, task: Satellite, responses: Responses, config: RunConfig, network: str) -> list[shape.TapRank]:
        """Return the scores and the regression of every tap of one network, over the trials."""
        fits: dict[str, list[TapFit]] = {tap: [] for tap in responses.columns}
        scores: dict[str, list[dict[str, float]]] = {tap: [] for tap in responses.columns}
        with self.reporter.bar(f"{network} {task.spec.name}", config.trials * len(fits)) as advance:
            for trial in range(config.trials):
                split = task.split(seed_of_trial(config.seed, trial))
                judged = Judged(task, split, self.config.label_bins)
                for tap in responses.columns:
                    with threadpool_limits(1, user_api="blas"):  # as in a run
                        fit = fit_tap(tap, responses.tap(tap), task, split)
                        problem = judged.problem(responses.tap(tap), fit)
                        scores[tap].append(dict(self._scored(problem, f"{network}, tap {tap}, task {task.spec.name}")))
                    fits[tap].append(fit)
                    advance(1)
        return [
            shape.TapRank(
                tap=tap,
                n_filters=found[0].n_filters,
                scores=over_trials(scores[tap]),
                validation_rmse=over_trials([{"rmse": fit.validation_rmse} for fit in found])["rmse"],
                metrics=over_trials([fit.metrics for fit in found]),
            )
            for tap, found in fits.items()
        ]

    def _scored(self, problem: ScoreProblem, where: str) -> Iterator[tuple[str, float]]:
        """Yield each score's name and number, NaN where it does not apply."""
        for name, (record, params) in self.scores.items():
            before = time.perf_counter()
            try:
                value = float(record.score(problem, params))
            except FacetaskError as error:
                raise type(error)(f"{where}: {error}") from error
            except Exception as error:
                raise PluginError(f"score {name!r} fails for {where} ({type(error).__name__}: {error})") from error
            self.wall_s[name] += time.perf_counter() - before
            yield name, value

    def _finetuned(
        self, task: Satellite, finetuned: Sequence[Measured], configs: Mapping[str, RunConfig]
    ) -> list[shape.Finetuned]:
        """Return what finetuning gave for a task, by network; warn where it saw other images."""
        found = []
        for network in self.config.base_networks:
            for measured in finetuned:
                metric = measured.metric(network.base_network(), task.spec, task.summary(), task.kind.main_metric)
                if metric is not None:
                    found.append(shape.Finetuned(network=network.title, metric=metric, run=measured.run))
                    different = measured.differences(configs[network.title])
                    if different:
                        self.reporter.warn(f"finetuned: {measured.run}: differs in {first_names(different)}")
        _check_one_run_each(found, task.spec.name)
        return found

    def _ranked(self, ranks: _TaskRanks) -> shape.RankedTask:
        """Return a task's rankings and how far they can be trusted."""
        kind = ranks.task.kind
        sign = 1.0 if kind.higher_is_better else -1.0
        rankings = [ranking_of(name, ranks.networks) for name in self.scores]
        reached = {found.network: found.metric.mean for found in ranks.finetuned}
        return shape.RankedTask(
            name=ranks.task.spec.name,
            run=ranks.run,
            labels=ranks.task.summary(),
            main_metric=kind.main_metric,
            higher_is_better=kind.higher_is_better,
            trials=ranks.config.trials,
            seed=ranks.config.seed,
            networks=ranks.networks,
            rankings=rankings,
            over_taps=list(over_taps(self.scores, ranks.networks, kind.main_metric, sign)),
            finetuned=ranks.finetuned,
            over_networks=list(over_networks(rankings, reached, sign)) if len(reached) > 1 else [],
        )


def _every_score(plugins: PluginManager, reporter: Reporter) -> Iterator[ScoreChoice]:
    """Yield every score with its default params; one that cannot be had so is told and left out."""
    with run_context(plugins, reporter):
        for entry in plugins.catalogue():
            if entry.kind == "score":
                try:
                    yield ScoreChoice(name=entry.name)
                except ValidationError as error:
                    reporter.warn(f"score {entry.name!r} is left out: {error.errors()[0]['msg']}")


def _named(templates: Sequence[RunTemplate]) -> list[tuple[str, RunTemplate]]:
    """Return each run with a name of its own: its file's, with a number where that is not enough."""
    names = [template.name for template in templates]
    numbered = [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names, start=1)]
    return list(zip(numbered, templates, strict=True))


def _network(choice: NetworkChoice, materials: Materials) -> shape.RankNetwork:
    """Return what a reader should know of a network."""
    graph = materials.network.graph
    return shape.RankNetwork(
        name=choice.title,
        base_network=choice.base_network(),
        crop=choice.crop,
        n_taps=len(graph.taps),
        n_filters=sum(tap.n_filters for tap in graph.taps),
        weights_source=materials.network.source,
        weights_licence=materials.network.licence,
    )


def _check_one_run_each(found: Sequence[shape.Finetuned], task: str) -> None:
    """Refuse two finetuned runs of the same network and task: which of them counts is the user's choice."""
    for one in found:
        same = [other.run for other in found if other.network == one.network]
        if len(same) > 1:
            raise ConfigError(
                f"finetuned: {' and '.join(same)} are both of {one.network} and {task!r}; give one of them"
            )
