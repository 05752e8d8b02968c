"""``facetask sweep``: one run for every combination of thresholds, cuts, selectors …, and which of them pay."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facetask import __version__
from facetask.errors import FacetaskError, RunDirError, first_names
from facetask.experiments.config import RunTemplate
from facetask.experiments.parallel import default_jobs, in_parallel
from facetask.experiments.sweep.config import Combination, SweepConfig, checked_configs, combinations
from facetask.experiments.sweep.networks import Finished, on_validation, swept_task
from facetask.experiments.sweep.results import SweepResults
from facetask.json_record import write_record
from facetask.plugin_manager import PluginManager
from facetask.progress import Filtered
from facetask.report.format import duration
from facetask.runner import run
from facetask.running.results import read_results
from facetask.running.rundir import RunDir

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.progress import Reporter

SHARED = ("regress", "curve")
"""The stages whose results combinations share: regressions all of them, curves those of one selector."""


@dataclass(frozen=True)
class _Job:
    """One run of one combination, as a process is given it.

    Attributes:
        template: The run that is varied.
        combination: What is set in it.
        out: Its folder.
        until: Its last stage.
        shared: The folder of a run with which it shares stages.
        stages: Which.
        force: Whether to go on in a folder of another configuration.
        plugins_dir: A folder of plugin files.
    """

    template: RunTemplate
    combination: Combination
    out: Path
    until: str
    shared: Path | None
    stages: tuple[str, ...]
    force: bool
    plugins_dir: Path | None


def run_sweep(
    path: Path,
    sweep: SweepConfig,
    out: Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    plugins_dir: Path | None = None,
    reporter: Reporter,
) -> SweepResults:
    """Run every combination that is not finished, and write ``sweep.json``, ``report.html`` and ``figures/``.

    Args:
        path: The configuration's file, for messages.
        sweep: What to vary.
        out: The sweep's folder; runs lie in its ``runs``.
        jobs: How many runs at a time; None: one a core, where memory allows.
        force: Go on in a folder of another configuration; look at data and weights again.
        plugins_dir: A folder of plugin files.
        reporter: Where to report to.

    Raises:
        FacetaskError: If the configuration is wrong, or what all combinations share fails. A combination that fails
            is noted in the results, and the others go on.
    """
    return _Sweep(path, sweep, out, jobs, force, plugins_dir, reporter).results()


class _Sweep:
    """A sweep on its way."""

    def __init__(
        self,
        path: Path,
        sweep: SweepConfig,
        out: Path,
        jobs: int | None,
        force: bool,
        plugins_dir: Path | None,
        reporter: Reporter,
    ) -> None:
        self.sweep, self.out, self.jobs, self.force = sweep, out, jobs, force
        self.plugins_dir, self.reporter = plugins_dir, reporter
        self.plugins = PluginManager(plugins_dir)
        self.combinations = combinations(sweep)
        self.configs = checked_configs(path, sweep, self.combinations, self.plugins)
        self.failed: dict[str, str] = {}

    def results(self) -> SweepResults:
        """Do what is left to do and write the products."""
        from facetask.experiments.sweep.page import write_sweep_page

        todo = self._todo()
        done = len(self.combinations) - len(todo)
        self.reporter.line(
            f"{len(self.combinations)} combinations" + (f", {done} of them finished already" if done else "")
        )
        if todo:
            jobs = self._with_shared(todo)
            self._run(jobs, len(self.combinations) - len(jobs))
        results = self._collected()
        write_record(results, self.out / "sweep.json")
        for written in write_sweep_page(results, self.out):
            self.reporter.line(str(written))
        return results

    def _todo(self) -> list[Combination]:
        """Return the combinations that are not finished.

        Raises:
            RunDirError: If a folder is not theirs.
        """
        if self.out.is_dir() and any(self.out.iterdir()) and not self._runs.is_dir():
            raise RunDirError(f"{self.out}: not empty and no sweep's folder (it has no runs); name another with --out")
        todo = []
        for combination in self.combinations:
            folder = self._folder(combination)
            results = RunDir.open(folder, self.configs[combination.name], force=self.force).finished(self._until)
            if results is None or self.force:
                todo.append(combination)
        return todo

    def _with_shared(self, todo: Sequence[Combination]) -> list[_Job]:
        """Compute what combinations share, each once, and return a run for each combination with what it may share.

        The first selector's regressions and curves are computed in this process with all cores, and before them the
        responses; then the other selectors' curves at once.
        """
        finished = [] if self.force else [each for each in self.combinations if each not in todo]
        shared = {combination.curves_of: self._folder(combination) for combination in finished}
        leaders = {each.curves_of: each for each in reversed(todo) if each.curves_of not in shared}
        ahead = list(reversed(leaders.values())) if len(todo) > 1 else []
        if ahead and not shared:
            self.reporter.line("first what all of them share: responses, regressions, a selector's curves")
            first = self._first_done(todo)
            shared[first.curves_of] = self._folder(first)
            ahead = [leader for leader in ahead if leader.curves_of != first.curves_of]
        source = next(iter(shared.values()), None)
        jobs = {leader.curves_of: self._job(leader, "curve", source, SHARED[:1]) for leader in ahead}
        for name, outcome in in_parallel(_do, jobs, self._jobs(len(jobs)), self.reporter):
            if not outcome.error:  # else its combinations fail by themselves, and say why
                shared[name] = jobs[name].out
        left = [combination for combination in todo if combination.name not in self.failed]
        return [self._job(combination, self._until, shared.get(combination.curves_of)) for combination in left]

    def _first_done(self, todo: Sequence[Combination]) -> Combination:
        """Draw the curves of the first combination that does not fail, and note those that do.

        Raises:
            RunDirError: If all fail.
        """
        for combination in todo:
            try:
                _do(self._job(combination, "curve"), self.reporter)
                return combination
            except FacetaskError as error:
                self.failed[combination.name] = str(error)
                self.reporter.warn(f"{combination.name} | failed: {error}")
        raise RunDirError(f"{self.out}: every combination fails: {failures(self.failed)}")

    def _run(self, jobs: Sequence[_Job], done: int) -> None:
        """Run combinations."""
        start = time.perf_counter()
        at_once = self._jobs(len(jobs))
        self.reporter.line(f"{len(jobs)} runs, {at_once} at a time")
        named = {job.combination.name: job for job in jobs}
        for name, outcome in in_parallel(_do, named, at_once, self.reporter):
            done += 1
            told = f"failed: {outcome.error}" if outcome.error else f"done, {duration(outcome.wall_s)}"
            line = f"{done} of {len(self.combinations)} | {name} | {told}".replace("\u00a0", " ")
            if outcome.error:
                self.failed[name] = outcome.error
                self.reporter.warn(line)
                if outcome.trace:
                    self.reporter.line(outcome.trace)
            else:
                self.reporter.line(line)
        self.reporter.line(f"all runs: {duration(time.perf_counter() - start)}".replace("\u00a0", " "))

    def _collected(self) -> SweepResults:
        """Return all finished combinations' networks."""
        found: list[Finished] = []
        for combination in self.combinations:
            if combination.name in self.failed:
                continue
            results = read_results(self._folder(combination) / "results.json")
            if all(on_validation(task) for task in results.tasks):
                found.append((combination, results))
            else:
                self.failed[combination.name] = "an older run, without metrics on validation images; use --force"
        if not found:
            raise RunDirError(f"{self.out}: every combination fails: {failures(self.failed)}")
        some = found[0][1]
        names = [task.name for task in some.tasks]
        return SweepResults(
            facetask_version=__version__,
            base_network=some.base_network.plugin,
            trials=some.trials,
            seed=some.seed,
            swept=self.sweep.swept,
            tasks=[swept_task(position, found) for position in range(len(names))],
            failed=self.failed,
        )

    def _job(
        self, combination: Combination, until: str, shared: Path | None = None, stages: tuple[str, ...] = SHARED
    ) -> _Job:
        """Return a run of a combination."""
        folder = self._folder(combination)
        return _Job(self.sweep.run, combination, folder, until, shared, stages, self.force, self.plugins_dir)

    def _jobs(self, n_items: int) -> int:
        """Return how many runs at a time."""
        return default_jobs(n_items) if self.jobs is None else min(self.jobs, max(n_items, 1))

    @property
    def _until(self) -> str:
        """The last stage."""
        return "prune" if next(iter(self.configs.values())).finetune is False else "finetune"

    @property
    def _runs(self) -> Path:
        """Where the runs lie."""
        return self.out / "runs"

    def _folder(self, combination: Combination) -> Path:
        """Return a combination's folder."""
        return self._runs / combination.name


def failures(failed: Mapping[str, str]) -> str:
    """Return which combinations failed and why, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in failed.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{first_names(names, 8)}: {reason}" for reason, names in by_reason.items())


def _do(job: _Job, reporter: Reporter) -> None:
    """Run one combination with the shared stages of another."""
    plugins = PluginManager(job.plugins_dir)
    config = job.combination.config(job.template, plugins)
    if job.shared is not None:
        _take_stages(job, config)
    told = ("curve",) if job.until in SHARED else ("prune", "finetune")
    if job.shared is not None:  # what all runs would say was said by the first of them
        reporter = Filtered(reporter, lambda text: text.startswith(told), lambda text: text.startswith(told))
    elif job.until in SHARED:  # the report of a run that has only begun is nothing to look at
        reporter = Filtered(reporter, lambda text: not text.startswith("report"))
    run(config, job.out, until=job.until, force=job.force, plugins=plugins, reporter=reporter)


def _take_stages(job: _Job, config: RunConfig) -> None:
    """Give a run the stage files of another, as hard links where the file system has them.

    A stage's file says what its result depends on; should that differ after all, the run computes it again.
    """
    assert job.shared is not None
    RunDir.open(job.out, config, force=job.force).begin()
    for stage in job.stages:
        for source in job.shared.glob(f"stages/*/trial-*/{stage}.json"):
            target = job.out / source.relative_to(job.shared)
            try:
                if not (target.exists() and target.samefile(source)):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(source, target)
            except OSError as error:
                raise RunDirError(f"{target}: cannot be written ({error.strerror})") from None


def _link(source: Path, target: Path) -> None:
    """Put a file in another place too, whole or not at all."""
    partial = target.with_name(target.name + ".tmp")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)
