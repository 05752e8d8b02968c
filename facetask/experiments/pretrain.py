"""`facetask pretrain`: a base network for a primary task, trained from scratch or from the weights that it has.

Nothing is pruned: the network ends at its last tap, or at the one that ``prune.cut`` names, keeps all filters and gets
a head for the one task. It is trained as ``finetune`` says and saved as a model that ``base_network: {model: FOLDER}``
takes.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from facetask.errors import ConfigError
from facetask.experiments.pretrain_results import FORMAT_VERSION, PretrainEpoch, PretrainResults, PretrainTrial
from facetask.json_record import write_record
from facetask.models.checkpoint import save_model
from facetask.models.model_description import DESCRIPTION, SavedHead
from facetask.networks.base_network import Round
from facetask.networks.heads import fit_head
from facetask.progress import Silent
from facetask.records import Architecture, Weights
from facetask.responses import Responses
from facetask.running.outcomes import over_trials
from facetask.running.prepare import Materials, prepare, respond
from facetask.running.rundir import RunDir
from facetask.running.stage_work import StageWork
from facetask.stages.prune import build_pruned
from facetask.tasks.satellite import to_finite
from facetask.training.epochs import EpochScore, train
from facetask.training.trainer import Teacher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from facetask.config import FinetuneConfig, RunConfig
    from facetask.data.splits import Split
    from facetask.networks.task_network import TaskNetwork
    from facetask.plugin_manager import PluginManager
    from facetask.progress import Reporter
    from facetask.tasks.satellite import Satellite
    from facetask.training.epochs import Predict

STAGE, MODEL, RESULTS = "pretrain", "base", "pretrain.json"
OWN_LICENCE = "yours: trained from random weights; mind the images' own"


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining.

    Attributes:
        path: Its folder.
        results: What it measured, as in ``pretrain.json``.
        model: The saved model's folder, for ``base_network: {model: …}``.
    """

    path: Path
    results: PretrainResults
    model: Path


def pretrain(
    config: RunConfig | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    force: bool = False,
    plugins: PluginManager | None = None,
    reporter: Reporter | None = None,
) -> Pretrained:
    """Train a base network for a primary task; an interrupted training goes on after its last whole epoch.

    Args:
        config: An ordinary run's configuration with the primary task as its only one. ``prune.cut`` may name the tap at
            which the network ends, by default the last; there is one trial unless the configuration says otherwise.
        out: The folder; by default ``runs/`` and the YAML file's name.
        force: Go on in a folder that holds another configuration's pretraining.
        plugins: Where plugins are found; by default the bundled and installed ones.
        reporter: Where to report to; by default nowhere.

    Raises:
        FacetaskError: If anything that the user can mend is wrong.
    """
    from facetask.config import as_config
    from facetask.plugin_manager import default_manager

    plugins, reporter = plugins or default_manager(), reporter or Silent()
    name = Path(config).stem if isinstance(config, Path | str) else STAGE
    config = as_config(config, plugins)
    if "trials" not in config.model_fields_set:
        config = config.model_copy(update={"trials": 1})
    settings = _checked(config)
    folder = RunDir.open(Path(out) if out is not None else Path("runs") / name, config, force=force)
    folder.begin()
    needed = settings.start == "pruned" or settings.distill > 0
    materials = prepare(config, plugins if needed else _without_weights(plugins), reporter)
    graph = materials.network.graph
    cut = graph.taps[-1].name if config.prune.cut == "best" else str(config.prune.cut)
    responses = respond(materials, reporter) if needed else Responses(np.zeros((0, 0), dtype=np.float32), {})
    pretraining = _Pretraining(config, settings, materials, responses, cut, folder, reporter)
    trials = [pretraining.trial(trial) for trial in range(config.trials)]
    results = pretraining.results(trials)
    write_record(results, folder.path / RESULTS)
    return Pretrained(folder.path, results, folder.path / MODEL)


def _checked(config: RunConfig) -> FinetuneConfig:
    """Return how to train, or say what makes no sense.

    Raises:
        ConfigError: If there is not one task, nothing is trained, or the cut depends on regressions.
    """
    n = len(config.satellite_tasks)
    if n != 1:
        raise ConfigError(f"satellite_tasks: a base network is trained for one primary task, found {n}; leave one")
    if config.finetune is False:
        raise ConfigError("finetune: false trains nothing; say how to train, such as {epochs: 10}")
    if config.finetune.trains == "head":
        raise ConfigError("finetune.trains: head leaves the base network as it was; use all")
    if not isinstance(config.prune.cut, str):
        raise ConfigError(
            "prune.cut: within counts from the best tap's error, but nothing is regressed here; name a tap"
        )
    return config.finetune


@dataclass(frozen=True)
class _Pretraining:
    """One pretraining on its way."""

    config: RunConfig
    settings: FinetuneConfig
    materials: Materials
    responses: Responses
    cut: str
    folder: RunDir
    reporter: Reporter

    @property
    def task(self) -> Satellite:
        """The primary task."""
        return self.materials.tasks[0]

    @property
    def keep(self) -> dict[str, NDArray[np.intp]]:
        """All filters of all taps up to the cut."""
        return self.materials.network.graph.cut(self.cut).everything()

    def trial(self, trial: int) -> PretrainTrial:
        """Return one trial's result from the folder, or train."""
        name, model = self.task.spec.name, self.folder.path / MODEL
        work = StageWork(self.materials, self.responses, self.config, 0, trial)
        depends = {
            **work.dependencies("regress"),
            "cut": self.cut,
            "finetune": self.settings.model_dump(mode="json"),
        }
        stored, changed = self.folder.load_stage(name, trial, STAGE, depends)
        if stored is not None and (trial or (model / DESCRIPTION).is_file()):
            self.reporter.line(f"pretrain {name}, trial {trial}: finished already")
            return PretrainTrial.model_validate(stored["result"])
        if changed:
            self.reporter.line(f"pretrain {name}, trial {trial}: computed again, changed: {changed}")
        saved = self.folder.training_file(name, trial, STAGE, depends)
        start = time.perf_counter()
        network, head, teacher = self._network(work.split)
        trained = train(
            network,
            [(self.task, work.split)],
            self.settings,
            self.materials.loader,
            work.seed,
            start=None if head is None else [head],
            teacher=teacher,
            saved=saved,
            reporter=self.reporter,
            observe=self._observer(work.split),
        )
        network.scale_outputs(trained.unit)
        best = trained.observed[trained.best_epoch]
        kind, values = self.task.kind, self.task.values
        done = PretrainTrial(
            trial=trial,
            seed=work.seed,
            n_train=len(work.split.train),
            n_validation=len(work.split.validation),
            n_test=len(work.split.test),
            epochs=[PretrainEpoch.model_validate(epoch) for epoch in trained.observed],
            best_epoch=trained.best_epoch,
            metrics=best["test"],
            decision=kind.learn(trained.tasks[0].validation, values[work.split.validation]),
            wall_s=saved.earlier_s + time.perf_counter() - start,
        )
        if trial == 0:
            self._save(network, done, model)
        self.folder.save_stage(name, trial, STAGE, depends, json.loads(done.model_dump_json()), done.wall_s)
        saved.remove()
        self._tell(done)
        return done

    def results(self, trials: list[PretrainTrial]) -> PretrainResults:
        """Return what ``pretrain.json`` holds."""
        from facetask import __version__

        base, spec = self.config.base_network, self.task.spec
        return PretrainResults(
            format_version=FORMAT_VERSION,
            facetask_version=__version__,
            task=spec.name,
            kind=spec.kind,
            unit=spec.unit,
            base_network=base.name or str(base.model),
            start=self.settings.start,
            cut=self.cut,
            n_filters=self.materials.network.graph.tap(self.cut).n_filters,
            metrics=over_trials([{key: _number(value) for key, value in trial.metrics.items()} for trial in trials]),
            trials=trials,
            model=MODEL,
        )

    def _network(self, split: Split) -> tuple[TaskNetwork, Any, Teacher | None]:
        """Return the network to train, the head from which training starts, and what it is held to."""
        n_outputs = self.task.targets.shape[1]
        network = copy.deepcopy(build_pruned(self.materials.network.graph, [(self.cut, n_outputs)], self.keep)).eval()
        head, teacher = None, None
        if self.settings.distill:
            teacher = Teacher.of(self.responses.tap(self.cut), split)
        if self.settings.start == "pruned":
            with threadpool_limits(1, user_api="blas"):
                fitted = fit_head(self.responses.tap(self.cut), self.task, split)
            network.set_heads([fitted.model])
            head = fitted.gentle
        return network, head, teacher

    def _observer(self, split: Split) -> Callable[..., Any]:
        """Return what measures every epoch on validation and test."""
        kind, values = self.task.kind, self.task.values
        scale = kind.scale(self.task.targets[split.train])

        def observe(
            scores: Sequence[EpochScore],
            validations: Sequence[NDArray[np.float64]],
            predict: Predict,
            wall_s: float,
        ) -> dict[str, Any]:
            (score,), (validation,), (test,) = scores, validations, predict([split.test])
            decision = kind.learn(validation, values[split.validation])
            measured = {
                "validation": kind.metrics(validation, values[split.validation], decision, scale),
                "test": kind.metrics(test, values[split.test], decision, scale),
            }
            main = kind.main_metric
            told = ", ".join(f"{part} {main} {found[main]:.4g}" for part, found in measured.items())
            self.reporter.line(f"epoch {score.epoch} of {self.settings.epochs}: {told} ({wall_s:.0f} s)")
            return {
                "epoch": score.epoch,
                **to_finite({"train_loss": score.train_loss, "validation_rmse": score.validation_rmse}),
                **{part: to_finite(found) for part, found in measured.items()},
                "wall_s": wall_s,
            }

        return observe

    def _save(self, network: TaskNetwork, done: PretrainTrial, model: Path) -> None:
        """Save the trained network as a model."""
        base, task = self.materials.network, self.task
        if self.settings.start == "scratch":
            base = replace(base, source=f"trained for {task.spec.name} from random weights", licence=OWN_LICENCE)
        else:
            base = replace(base, source=f"{base.source}, trained further for {task.spec.name}")
        save_model(
            model,
            network,
            base,
            Round((self.cut,), self.keep),
            [SavedHead.of(task.spec, self.cut, task.targets.shape[1], done.decision, task.licence, done.metrics)],
        )

    def _tell(self, done: PretrainTrial) -> None:
        """Report a trial's result."""
        kind, reached = self.task.kind, len(done.epochs) - 1
        self.reporter.line(
            f"pretrain {self.task.spec.name}, trial {done.trial}: {kind.main_metric} "
            f"{_number(done.metrics[kind.main_metric]):.4g} on test, epoch {done.best_epoch} of "
            f"{self.settings.epochs} ({done.wall_s:.1f} s)"
        )
        if reached < self.settings.epochs:
            self.reporter.warn(
                f"training diverged after {reached} epochs; try a smaller finetune.learning_rate than "
                f"{self.settings.learning_rate:g}"
            )


def _number(value: float | None) -> float:
    """Return a metric, not a number where it is unknown."""
    return float("nan") if value is None else value


def _without_weights(plugins: PluginManager) -> PluginManager:
    """Return the same plugins, but architectures whose weights are zeros: what is drawn anew needs no file of them."""
    known = copy.copy(plugins)

    def find(kind: str, name: str) -> Any:
        record = plugins.find(kind, name)
        return replace(record, weights=partial(_zeros, record)) if isinstance(record, Architecture) else record

    known.find = find  # type: ignore[method-assign]
    return known


def _zeros(architecture: Architecture, params: Any) -> Weights:
    """Return zeros for all of an architecture's tensors."""
    state = {key: value.new_zeros(value.shape) for key, value in architecture.build(params).state_dict().items()}
    return Weights(state=state, licence=OWN_LICENCE, source="zeros")
