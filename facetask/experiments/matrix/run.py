"""``facetask matrix``: base networks of several primary tasks, each regressed for all satellite tasks.

A network that is trained here is trained once; every image passes each network once (responses are cached); what a
cell's regressions gave is stored, so that an interrupted matrix goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetask.config import BaseNetworkConfig, PruneConfig, load_config
from facetask.errors import ConfigError, RunDirError
from facetask.experiments.matrix import results as shape
from facetask.experiments.matrix.cells import Cells
from facetask.experiments.matrix.config import DirectConfig, MatrixConfig, PrimaryChoice
from facetask.experiments.matrix.once import Once
from facetask.experiments.matrix.unseen import Trained, Unseen
from facetask.experiments.matrix.yardstick import direct_config, over, reduction, yardstick
from facetask.experiments.pretrain import RESULTS, pretrain
from facetask.experiments.pretrain_results import PretrainResults
from facetask.json_record import read_record, write_record
from facetask.models.model_description import DESCRIPTION
from facetask.running.prepare import prepare
from facetask.running.rundir import RunDir

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.data.images import Images
    from facetask.experiments.config import RunTemplate
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.running.prepare import Materials
    from facetask.running.results import Metrics
    from facetask.tasks.satellite import Satellite

_JSON = "matrix.json"


def matrix(
    config: MatrixConfig,
    out: Path,
    *,
    force: bool = False,
    plugins: PluginManager | None = None,
    reporter: Reporter | None = None,
) -> shape.MatrixResults:
    """Fill a transfer matrix, write ``matrix.json``, ``matrix.html`` and ``figures/``, and return what was found.

    Args:
        config: The matrix's configuration.
        out: The folder: trained networks lie in ``pretrained`` and ``direct``, regressions in ``cells``.
        force: Go on in folders that hold results of another configuration.
        plugins: Where plugins are found; by default the bundled and installed ones.
        reporter: Where to report to; by default nowhere.

    Raises:
        FacetaskError: If anything that the user can mend is wrong.
    """
    from facetask.experiments.matrix.page import write_matrix_page
    from facetask.plugin_manager import default_manager
    from facetask.progress import Silent

    results = _Matrix(config, out, force, plugins or default_manager(), Once(reporter or Silent())).results()
    write_record(results, out / _JSON)
    write_matrix_page(results, out)
    return results


@dataclass
class _Task:
    """One satellite task on its way, over the primaries."""

    task: Satellite
    images: Images
    run: str
    index: int
    config: RunConfig
    baseline: Metrics
    trials: dict[str, list[shape.CellTrial]] = field(default_factory=dict)


class _Matrix:
    """A matrix on its way."""

    def __init__(
        self, config: MatrixConfig, out: Path, force: bool, plugins: PluginManager, reporter: Reporter
    ) -> None:
        self.config, self.out, self.force, self.plugins, self.reporter = config, out, force, plugins, reporter
        self.runs = _named(config.satellites)
        self.trained: dict[str, Trained] = {}
        self.primaries: dict[str, shape.MatrixPrimary] = {}
        self.tasks: dict[str, _Task] = {}

    def results(self) -> shape.MatrixResults:
        """Do what is left to do."""
        from facetask import __version__

        self._check()
        # Those that need no training come first: what is wrong with a satellite is told before hours are spent.
        for name, choice in sorted(self.config.primaries.items(), key=lambda item: item[1].pretrain is not None):
            self._row(name, self._made(name, choice))
        return shape.MatrixResults(
            facetask_version=__version__,
            primaries=[self.primaries[name] for name in self.config.primaries],
            tasks=[self._column(name, task) for name, task in self.tasks.items()],
        )

    def _check(self) -> None:
        """Refuse before any work what can be known to be wrong.

        Raises:
            FacetaskError: If a model or a run is wrong, or the folder is not a matrix's.
        """
        if self.out.is_dir() and any(self.out.iterdir()):
            own = ("cells", "pretrained", _JSON)
            if not any((self.out / name).exists() for name in own):
                raise RunDirError(f"{self.out}: not empty and no matrix's folder; name another with --out")
        direct = self.config.direct
        choices = {f"primaries.{name}": choice.model for name, choice in self.config.primaries.items()}
        if isinstance(direct, DirectConfig):
            choices["direct.base_network"] = direct.base_network.model
        for where, model in choices.items():
            if model is not None and not (model / DESCRIPTION).is_file():
                raise ConfigError(
                    f"{where}.model: no saved model in {model} (it has no {DESCRIPTION}); name a folder such as a "
                    "run's model/TASK or a pretraining's base"
                )
        for choice in self.config.primaries.values():
            network = choice.changes() if choice.pretrain is None else self._start(choice.pretrain)
            for template in self.runs.values():
                template.config(self.plugins, {**network, "finetune": False})
        if isinstance(direct, DirectConfig):
            for template in self.runs.values():
                direct_config(template, direct, self.plugins)

    def _start(self, template: RunTemplate) -> dict[str, Any]:
        """Return what a run's configuration needs to use the network that a pretraining starts from."""
        base = template.config(self.plugins).base_network.model_dump(mode="json")
        keys = ("model",) if base["model"] is not None else ("name", "params")
        return {"base_network": {key: base[key] for key in keys}}

    def _made(self, name: str, choice: PrimaryChoice) -> PrimaryChoice:
        """Return a primary as a network that exists; train it if need be, and note what its training saw."""
        if choice.pretrain is not None:
            self.reporter.line(f"primary {name}: training, in {self.out / 'pretrained' / name}")
            config = choice.pretrain.config(self.plugins)
            done = pretrain(
                config, self.out / "pretrained" / name, force=self.force, plugins=self.plugins, reporter=self.reporter
            )
            self.trained[name] = self._training(config, done.model, done.results)
            return choice.model_copy(update={"pretrain": None, "model": done.model.absolute()})
        folder = None if choice.model is None else choice.model.parent
        if folder is not None and (folder / RESULTS).is_file():  # facetask pretrain made it, in a folder of its own
            config = load_config(folder / "resolved.yaml", plugins=self.plugins)
            results = read_record(PretrainResults, folder / RESULTS, "a pretraining's results")
            self.trained[name] = self._training(config, folder / results.model, results)
        return choice

    def _training(self, config: RunConfig, model: Path, results: PretrainResults) -> Trained:
        """Return what a pretraining saw."""
        base = BaseNetworkConfig(model=model.absolute())
        changes = {"base_network": base, "prune": PruneConfig(), "finetune": False}
        found = prepare(config.model_copy(update=changes), self.plugins, self.reporter)
        return Trained(found.tasks[0], found.images, results)

    def _row(self, name: str, choice: PrimaryChoice) -> None:
        """Regress all satellite tasks on one network."""
        for run, template in self.runs.items():
            self.reporter.line(f"primary {name}, {run}")
            config = template.config(self.plugins, {**choice.changes(), "finetune": False})
            folder = RunDir.open(self.out / "cells" / name / run, config, force=self.force)
            plain = prepare(config, self.plugins, self.reporter)
            self._check_names(run, plain)
            folder.begin()
            self.primaries.setdefault(name, self._primary(name, choice, plain))
            materials = plain
            if name in self.trained:
                seen = self.trained[name]
                materials = replace(plain, tasks=tuple(Unseen.of(task, plain.images, seen) for task in plain.tasks))
            cells = Cells(f"primary {name}", config, materials, folder, self.reporter)
            for index, task in enumerate(plain.tasks):
                with self.reporter.bar(f"{name} {task.spec.name}", 1) as advance:
                    trials, baseline = cells.regressions(index)
                    advance(1)
                column = _Task(task, plain.images, run, index, config, baseline)
                self.tasks.setdefault(task.spec.name, column).trials[name] = trials
                self._tell(name, task, trials)

    def _check_names(self, run: str, materials: Materials) -> None:
        """Refuse a task whose name one of another satellite has.

        Raises:
            ConfigError: If there is one.
        """
        for task in materials.tasks:
            other = self.tasks.get(task.spec.name)
            if other is not None and other.run != run:
                raise ConfigError(
                    f"satellites: {other.run} and {run} both have a task {task.spec.name!r}; give one a `label:`"
                )

    def _tell(self, name: str, task: Satellite, trials: Sequence[shape.CellTrial]) -> None:
        """Report one cell."""
        from facetask.report.metrics import metric_text, unit_of

        main = task.kind.main_metric
        found = metric_text(main, over(trials).get(main), unit_of(task.summary(), main)).replace("\u00a0", " ")
        self.reporter.line(f"primary {name}, {task.spec.name}: {main} {found}, best tap {trials[0].best_tap}")

    def _primary(self, name: str, choice: PrimaryChoice, materials: Materials) -> shape.MatrixPrimary:
        """Return what a reader should know of a network."""
        network, trained = materials.network, self.trained.get(name)
        return shape.MatrixPrimary(
            name=name,
            base_network=choice.base_network(),
            crop=choice.crop,
            trained_for=None if trained is None else trained.task.spec.name,
            n_taps=len(network.graph.taps),
            n_filters=sum(tap.n_filters for tap in network.graph.taps),
            weights_source=network.source,
            weights_licence=network.licence,
        )

    def _column(self, name: str, column: _Task) -> shape.MatrixTask:
        """Return one task's column."""
        kind = column.task.kind
        direct, why_not = self._direct(name, column)
        return shape.MatrixTask(
            name=name,
            run=column.run,
            labels=column.task.summary(),
            main_metric=kind.main_metric,
            higher_is_better=kind.higher_is_better,
            trials=column.config.trials,
            seed=column.config.seed,
            baseline=column.baseline,
            direct=direct,
            no_direct=why_not,
            cells=[
                shape.MatrixCell(
                    primary=primary,
                    metrics=over(column.trials[primary]),
                    reduction=reduction(column.trials[primary], direct, kind.main_metric, kind.higher_is_better),
                    trials=column.trials[primary],
                )
                for primary in self.config.primaries
            ],
        )

    def _direct(self, name: str, column: _Task) -> tuple[shape.Direct | None, str]:
        """Return a task's yardstick, or why there is none."""
        how = self.config.direct
        if how is None:
            return None, "direct: null"
        why_not = f"no primary {name!r} was trained"
        if name in self.trained:
            trained = self.trained[name]
            why_not = trained.why_not(column.task, column.images, column.config.trials, column.config.seed)
            if not why_not:
                return yardstick("primary", trained.results), ""
            why_not = f"primary {name!r} {why_not}"
            self.reporter.warn(f"direct: {why_not}; it is no yardstick of the satellite task")
        if not isinstance(how, DirectConfig):
            return None, why_not
        self.reporter.line(f"direct: a network is trained for {name}, for {why_not}")
        config = direct_config(self.runs[column.run], how, self.plugins)
        tasks = (config.satellite_tasks[column.index],)
        done = pretrain(
            config.model_copy(update={"satellite_tasks": tasks}),
            self.out / "direct" / name,
            force=self.force,
            plugins=self.plugins,
            reporter=self.reporter,
        )
        return yardstick("trained", done.results), ""


def _named(templates: Sequence[RunTemplate]) -> Mapping[str, RunTemplate]:
    """Return each run by a name of its own: its file's, with a number where that is not enough."""
    names = [template.name for template in templates]
    numbered = [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names, start=1)]
    return dict(zip(numbered, templates, strict=True))
