"""The loop: prepare, one forward pass, regress → curve → prune → finetune for every task and trial, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetask.running.rundir import OWN_STAGES, STAGES, RunDir, model_folder

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.running.results import Results
    from facetask.running.trial_work import TrialWork


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: The run's folder.
        results: What it measured, as in ``results.json``.
        models: Each task's saved model.
    """

    path: Path
    results: Results
    models: dict[str, Path]


def run(
    config: RunConfig | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    until: str = "finetune",
    force: bool = False,
    plugins: PluginManager | None = None,
    reporter: Reporter | None = None,
) -> RunResult:
    """Run a configuration and return what it measured.

    Args:
        config: A configuration, a YAML file, or a mapping as in one.
        out: The run's folder; by default ``runs/`` and the YAML file's name.
        until: The last stage: ``regress``, ``curve``, ``prune`` or ``finetune``.
        force: Go on in a folder that holds another configuration's run, and look at data and weights again in a
            finished one.
        plugins: Where plugins are found; by default the bundled and installed ones.
        reporter: Where to report to; by default nowhere.

    Raises:
        FacetaskError: If anything that the user can mend is wrong.
    """
    from facetask.config import as_config
    from facetask.plugin_manager import default_manager
    from facetask.progress import Silent

    plugins, reporter = plugins or default_manager(), reporter or Silent()
    name = Path(config).stem if isinstance(config, Path | str) else "run"
    config = as_config(config, plugins)
    if until == "finetune" and config.finetune is False:
        until = "prune"
    folder = RunDir.open(Path(out) if out is not None else Path("runs") / name, config, force=force)
    done = None if force else folder.finished(until)
    if done is None:
        folder.begin()
        done = _Run(config, folder, plugins, reporter, until).results()
    else:
        reporter.line(f"{folder.path}: finished already; --force looks at data and weights again")
    models = {task.name: folder.path / task.model for task in done.tasks if task.model}
    return RunResult(folder.path, done, models)


class _Run:
    """One run on its way."""

    def __init__(
        self, config: RunConfig, folder: RunDir, plugins: PluginManager, reporter: Reporter, until: str
    ) -> None:
        self.config, self.folder, self.plugins, self.reporter, self.until = config, folder, plugins, reporter, until

    def results(self) -> Results:
        """Do all the work and write its products."""
        from facetask.json_record import write_record
        from facetask.report import write_report
        from facetask.running.assemble import assemble
        from facetask.running.outcomes import TaskRecord
        from facetask.running.prepare import prepare, respond
        from facetask.running.trial_work import together
        from facetask.tasks.labels_table import labels_table
        from facetask.tasks.satellite import seed_of_trial

        start = time.perf_counter()
        materials = prepare(self.config, self.plugins, self.reporter)
        for task in materials.tasks:
            split = task.split(seed_of_trial(self.config.seed, 0))
            self.folder.save_labels(task.spec.name, labels_table(task, split))
        prepared = time.perf_counter()
        responses = respond(materials, self.reporter)
        wall_s = {"data": prepared - start, "responses": time.perf_counter() - prepared}
        records = [TaskRecord(task, self.config.trials) for task in materials.tasks]
        for stage in STAGES[: STAGES.index(self.until) + 1]:
            for work in together(stage, self.config, materials, responses, records):
                with self.reporter.bar(f"{stage} {work.name}", self.config.trials) as advance:
                    for trial in range(self.config.trials):
                        self._stage(work.of_trial(trial), stage)
                        advance(1)
                if stage == "prune" and len(work.records) > 1:
                    self.reporter.line(f"prune: one network for {work.name}")
                for record in work.records:
                    self.reporter.line(record.line(stage))
                    for warning in record.warnings(stage, self.config):
                        self.reporter.warn(warning)
            wall_s["total"] = time.perf_counter() - start
            finished = stage == self.until
            results = assemble(self.config, materials, responses, records, self.until, wall_s, finished=finished)
            write_record(results, self.folder.results_path)
        write_report(results, self.folder.report_path)
        self.reporter.line(f"report: {self.folder.report_path}")
        return results

    def _stage(self, work: TrialWork, stage: str) -> None:
        """Take one stage's results of one trial from the folder, or compute and store them."""
        saves = work.trial == 0 and stage == self.until and stage not in OWN_STAGES
        model = model_folder(self.config, work.records[0].name) if saves else None
        if model is not None and stage == "prune":  # the pruned network takes the place of a finetuned one
            work.forget("finetune", self.folder)
        known = work.recall(stage, self.folder, self.reporter)
        if known and (stage != "finetune" or model is None or self.folder.has_model(model)):
            if stage == "prune" and model is not None:
                work.save_pruned(self.folder.path / model)
            return
        start = time.perf_counter()
        training = work.training_file(stage, self.folder)
        outcomes = work.compute(stage, None if model is None else self.folder.path / model, training, self.reporter)
        work.store(stage, self.folder, outcomes, training.earlier_s + time.perf_counter() - start)
        training.remove()
        for outcome in outcomes:
            self.plugins.notify(stage, outcome)
