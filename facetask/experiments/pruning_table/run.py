"""``facetask ablate``: what each part of the method is worth, and what other criteria give, at the same cut and MACs.

The rows share the network, the responses, the regressions and the curves; each row of each task and trial is stored
when it is done, and a training that was interrupted goes on after its last whole epoch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import torch
from threadpoolctl import threadpool_limits

from facetask import __version__
from facetask.errors import ConfigError, FacetaskError
from facetask.experiments.config import refuse_shared
from facetask.experiments.pruning_table.carved import Carver
from facetask.experiments.pruning_table.measured import Measurer
from facetask.experiments.pruning_table.recalibrate import has_batch_norm
from facetask.experiments.pruning_table.results import (
    PruningTableResults,
    Speed,
    TableTask,
    VariantResult,
    VariantTrial,
)
from facetask.experiments.pruning_table.rivals import installed_version
from facetask.experiments.pruning_table.variants import RIVALS, VARIANTS, Source, Variant
from facetask.json_record import write_record
from facetask.networks.latency import compare
from facetask.running.outcomes import TaskRecord, over_trials
from facetask.running.prepare import prepare, respond
from facetask.running.rundir import RunDir
from facetask.running.stage_work import StageWork, decode, encode

if TYPE_CHECKING:
    from torch import nn

    from facetask.config import RunConfig
    from facetask.experiments.pruning_table.config import PruningTableConfig
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.responses import Responses
    from facetask.running.prepare import Materials
    from facetask.running.results import PlainMetrics

RESULTS = "ablate.json"
BATCHES = (1, 32)
NOT_INSTALLED = "torch-pruning is not installed; pip install torch-pruning"
NO_BATCH_NORM = "the network has no batch norm"
NOT_TRAINED = "the run's configuration says finetune: false"


def run_pruning_table(
    table: PruningTableConfig,
    out: Path,
    *,
    force: bool = False,
    plugins: PluginManager | None = None,
    reporter: Reporter | None = None,
) -> PruningTableResults:
    """Measure every variant that is not finished, and write ``ablate.json``, ``ablate.html`` and ``figures/``.

    Args:
        table: The configuration.
        out: The folder.
        force: Go on in a folder that holds another run's table.
        plugins: Where plugins are found; by default the bundled and installed ones.
        reporter: Where to report to; by default nowhere.

    Raises:
        FacetaskError: If anything that the user can mend is wrong. A rival that fails is noted in the results.
    """
    from facetask.experiments.pruning_table.page import write_pruning_page
    from facetask.plugin_manager import default_manager
    from facetask.progress import Silent

    plugins, reporter = plugins or default_manager(), reporter or Silent()
    config = table.run.config(plugins)
    refuse_shared(config, "ablate")
    if config.prune.rounds:
        raise ConfigError(
            "prune.rounds: the table has rows for rounds; leave it out of the run and say rounds: beside run"
        )
    folder = RunDir.open(out, config, force=force)
    folder.begin()
    results = _PruningTable(table, config, folder, plugins, reporter).results()
    write_record(results, out / RESULTS)
    for path in write_pruning_page(results, out):
        reporter.line(str(path))
    return results


class _PruningTable:
    """One table on its way."""

    def __init__(
        self,
        table: PruningTableConfig,
        config: RunConfig,
        folder: RunDir,
        plugins: PluginManager,
        reporter: Reporter,
    ) -> None:
        self.table, self.config, self.folder, self.plugins, self.reporter = table, config, folder, plugins, reporter

    def results(self) -> PruningTableResults:
        """Do all the work."""
        materials = prepare(self.config, self.plugins, self.reporter)
        responses = respond(materials, self.reporter)
        tasks = []
        for index in range(len(materials.tasks)):
            works = [StageWork(materials, responses, self.config, index, t) for t in range(self.config.trials)]
            with threadpool_limits(1, user_api="blas"):  # as in a run
                tasks.append(self._task(works, materials, responses))
        base = self.config.base_network
        return PruningTableResults(
            facetask_version=__version__,
            base_network=base.name or str(base.model),
            trials=self.config.trials,
            seed=self.config.seed,
            macs=self.table.macs if self.table.macs is not None else self.config.prune.macs,
            size=self.config.prune.size,
            epochs=self.config.finetune.epochs if self.config.finetune is not False else 0,
            rounds=self.table.rounds,
            torch_pruning=installed_version(),
            tasks=tasks,
        )

    def _task(self, works: Sequence[StageWork], materials: Materials, responses: Responses) -> TableTask:
        """Return one task's table."""
        task = works[0].task
        record = self._record(works)
        left_out = self._left_out(materials.network.module)
        for name, reason in _by_reason(left_out).items():
            self.reporter.warn(f"{', '.join(reason)}: left out, {name}")
        rows: dict[str, list[VariantTrial]] = {}
        speeds: dict[str, list[Speed]] = {}
        for work in works:
            measurer = Measurer(Carver(work, record, self.table), self.table, self.folder, self.reporter)
            for name in self.table.variants:
                variant = VARIANTS[name]
                if name in left_out:
                    continue
                try:
                    rows.setdefault(name, []).append(measurer.measured(variant))
                except FacetaskError as error:
                    if variant.source not in RIVALS:
                        raise
                    left_out[name] = f"trial {work.trial}: {error}"
                    rows.pop(name, None)
                    self.reporter.warn(f"{name}: left out, {left_out[name]}")
            if work.trial == 0 and self.table.latency_s is not None:
                speeds = self._speeds(measurer, [VARIANTS[name] for name in rows])
            base = measurer.carver.base_cost
        return TableTask(
            name=task.spec.name,
            labels=task.summary(),
            main_metric=task.kind.main_metric,
            higher_is_better=task.kind.higher_is_better,
            base=base,
            variants=[
                _row(VARIANTS[name], rows[name], base.macs, base.size_bytes, speeds.get(VARIANTS[name].source, []))
                for name in self.table.variants
                if name in rows
            ],
            left_out=left_out,
        )

    def _record(self, works: Sequence[StageWork]) -> TaskRecord:
        """Return the regressions and curves of all trials, from the folder where they are stored."""
        record = TaskRecord(works[0].task, len(works))
        for stage in ("regress", "curve"):
            for work in works:
                depends = work.dependencies(stage)
                stored, _ = self.folder.load_stage(record.name, work.trial, stage, depends)
                if stored is not None:
                    outcome, wall_s = decode(stage, stored["result"]), stored["wall_s"]
                else:
                    start = time.perf_counter()
                    outcome = work.compute(stage, record)
                    wall_s = time.perf_counter() - start
                    self.folder.save_stage(record.name, work.trial, stage, depends, encode(outcome), wall_s)
                record.trials[work.trial].add(stage, outcome, wall_s)
            self.reporter.line(record.line(stage))
        return record

    def _left_out(self, network: nn.Module) -> dict[str, str]:
        """Return the rows that cannot be had here, and why."""
        found = {}
        for name in self.table.variants:
            if VARIANTS[name].is_trained and self.config.finetune is False:
                found[name] = NOT_TRAINED
            elif VARIANTS[name].source in RIVALS and installed_version() is None:
                found[name] = NOT_INSTALLED
            elif VARIANTS[name].step == "recalibrated" and not has_batch_norm(network):
                found[name] = NO_BATCH_NORM
        return found

    def _speeds(self, measurer: Measurer, variants: Sequence[Variant]) -> dict[str, list[Speed]]:
        """Return how fast each source's network is, from the folder where it was measured before."""
        found: dict[str, list[Speed]] = {}
        for variant in variants:
            if variant.source in found or variant.source == "rounds":
                continue
            depends = {**measurer.dependencies(variant), "latency_s": self.table.latency_s}
            name, stage = measurer.carver.work.task.spec.name, f"{variant.source}-speed"
            stored, _ = self.folder.load_stage(name, 0, stage, depends)
            if stored is None:
                start = time.perf_counter()
                measured = self._measured(measurer.carver, variant.source)
                plain = [one.model_dump(mode="json") for one in measured]
                self.folder.save_stage(name, 0, stage, depends, plain, time.perf_counter() - start)
            else:
                measured = [Speed.model_validate(one) for one in stored["result"]]
            found[variant.source] = measured
        return found

    def _measured(self, carver: Carver, source: Source) -> list[Speed]:
        """Measure a source's network beside the whole base network, in turns."""
        assert self.table.latency_s is not None
        networks = carver.base.module.cpu(), carver.carved(source).copy().cpu()
        base, network = (torch.inference_mode()(one) for one in networks)
        return [
            Speed(batch=one.batch, base_ms=one.base.median_ms, network_ms=one.pruned.median_ms, speedup=one.speedup)
            for batch in BATCHES
            for one in compare({"torch": (base, network)}, carver.shape, batch=batch, seconds=self.table.latency_s)
        ]


def _row(
    variant: Variant, trials: list[VariantTrial], base_macs: int, base_size: int, speed: list[Speed]
) -> VariantResult:
    """Return a variant's means and spreads over the trials."""
    costs = [trial.cost for trial in trials]
    macs, size = mean(cost.macs for cost in costs), mean(cost.size_bytes for cost in costs)
    off = max(abs(trial.cost.macs / trial.budget - 1) for trial in trials)
    return VariantResult(
        name=variant.name,
        source=variant.source,
        step=variant.step,
        label=variant.label,
        validation=over_trials([_numbers(trial.validation) for trial in trials]),
        test=over_trials([_numbers(trial.test) for trial in trials]),
        macs=macs,
        macs_share=macs / base_macs,
        params=mean(cost.params for cost in costs),
        conv_params=mean(cost.conv_params for cost in costs),
        size_bytes=size,
        size_share=size / base_size,
        macs_off=None if variant.source == "unpruned" else off,
        wall_s=mean(trial.wall_s for trial in trials),
        speed=speed,
        trials=trials,
    )


def _numbers(metrics: PlainMetrics) -> dict[str, float]:
    """Return metrics with NaN where they are unknown."""
    return {name: float("nan") if value is None else value for name, value in metrics.items()}


def _by_reason(left_out: dict[str, str]) -> dict[str, list[str]]:
    """Return the rows of each reason."""
    found: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        found.setdefault(reason, []).append(name)
    return found
