"""One variant in one trial: its network is given a head, trained where the row says so, and measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from facetask.config import FinetuneConfig
from facetask.experiments.pruning_table.carved import Carved, Carver
from facetask.experiments.pruning_table.recalibrate import recalibrate
from facetask.experiments.pruning_table.results import VariantTrial
from facetask.experiments.pruning_table.rivals import installed_version
from facetask.experiments.pruning_table.variants import RIVALS, VARIANTS
from facetask.keep_sets.by_curve import needs_all_trials
from facetask.networks.cost import network_cost
from facetask.networks.heads import fit_head
from facetask.report.format import NBSP, duration, number, percent
from facetask.report.metrics import style
from facetask.stages.finetune import finetune
from facetask.stages.rounds import carve_in_rounds
from facetask.statistics.regression import LinearModel
from facetask.tasks.satellite import to_finite
from facetask.training.trainer import Teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetask.experiments.pruning_table.config import PruningTableConfig
    from facetask.experiments.pruning_table.variants import Variant
    from facetask.keep_sets.by_curve import KeepSets
    from facetask.networks.heads import Head
    from facetask.networks.task_network import TaskNetwork
    from facetask.progress import Reporter
    from facetask.running.rundir import RunDir
    from facetask.training.training_file import TrainingFile

_UNPRUNED = "unpruned-finetuned.network"


@dataclass(frozen=True)
class _Outcome:
    """What a network is worth: metrics on validation and test, and the epochs that it was trained for."""

    validation: dict[str, float]
    test: dict[str, float]
    epochs: int = 0
    best_epoch: int | None = None


class Measurer:
    """Measures the variants of one task and trial, each stored when it is done.

    Attributes:
        carver: Carves their networks.
    """

    def __init__(self, carver: Carver, table: PruningTableConfig, folder: RunDir, reporter: Reporter) -> None:
        self.carver, self._table, self._folder, self._reporter = carver, table, folder, reporter
        self._work = carver.work

    def measured(self, variant: Variant) -> VariantTrial:
        """Return a variant's result, from the folder where it is finished.

        Raises:
            FacetaskError: If its network cannot be had.
        """
        name, trial, stage = self._work.task.spec.name, self._work.trial, variant.name
        depends = self.dependencies(variant)
        stored, changed = self._folder.load_stage(name, trial, stage, depends)
        if stored is not None:
            return VariantTrial.model_validate(stored["result"])
        if changed:
            self._reporter.line(f"{stage} {name}, trial {trial}: computed again, changed: {changed}")
        found = self._measure(variant, depends)
        self._folder.save_stage(name, trial, stage, depends, found.model_dump(mode="json"), found.wall_s)
        self._reporter.line(self._told(variant, found))
        return found

    def dependencies(self, variant: Variant) -> dict[str, Any]:
        """Return everything that a row's result depends on, by the names that a user knows."""
        config, pruned = self._work.config, variant.source != "unpruned"
        prune = config.prune.model_dump(mode="json")
        depends = {
            **self._work.dependencies("curve"),
            "prune": prune if pruned else {"cut": prune["cut"]},
            "variant": [variant.source, variant.step],
        }
        if pruned:
            depends["macs"] = self.carver.share
        if pruned and needs_all_trials(config.prune):
            depends["trials"] = config.trials
        if variant.is_trained:
            depends["finetune"] = self._settings(variant).model_dump(mode="json")
        if variant.source == "rounds":
            depends["rounds"] = self._table.rounds
        if variant.source in RIVALS:
            depends["torch_pruning"] = installed_version()
        if variant.source == "taylor":
            depends["taylor_images"] = self._table.taylor_images
        return depends

    def _measure(self, variant: Variant, depends: dict[str, Any]) -> VariantTrial:
        """Carve, train and measure."""
        carver, rounds = self.carver, variant.source == "rounds"
        carved = carver.carved("unpruned" if rounds else variant.source)
        start, saved = time.perf_counter(), self._file(variant.name, depends)
        if rounds:
            carved, outcome = self._rounds(variant, depends)
        elif variant.step == "head sliced":
            outcome = self._with_sliced_head(carved)
        elif variant.step == "recalibrated":
            outcome = self._recalibrated(carved)
        elif variant.is_trained:
            outcome, network = self._trained(carved, variant, self._teacher(variant, carved), saved)
            if variant.source == "unpruned" and any(VARIANTS[name].source == "rounds" for name in self._table.variants):
                self._leave(network, outcome.epochs, depends)
        else:
            outcome = self._with_fitted_head(carved)
        cost = network_cost(carved.network, carver.shape)
        found = VariantTrial(
            trial=self._work.trial,
            seed=self._work.seed,
            cut=carver.cut,
            budget=cost.macs if variant.source == "unpruned" else carver.budget,
            cost=cost,
            validation=to_finite(outcome.validation),
            test=to_finite(outcome.test),
            epochs=outcome.epochs,
            best_epoch=outcome.best_epoch,
            wall_s=carver.wall_s.get(variant.source, 0.0) + saved.earlier_s + time.perf_counter() - start,
            notes=[carved.note] if carved.note else [],
        )
        saved.remove()
        return found

    def _with_sliced_head(self, carved: Carved) -> _Outcome:
        """Measure with what is left of the unpruned regression: nothing is fitted, no threshold learned."""
        head, task, split = self.carver.whole_head, self._work.task, self._work.split
        model = LinearModel(coef=head.model.coef[carved.filters], intercept=head.model.intercept)
        x, scale = self.carver.forward(carved.network.backbone), task.kind.scale(task.targets[split.train])
        validation, test = (
            task.kind.metrics(
                task.kind.activate(model.predict(x[rows])), task.values[rows], head.predicted.decision, scale
            )
            for rows in (split.validation, split.test)
        )
        return _Outcome(validation, test)

    def _with_fitted_head(self, carved: Carved) -> _Outcome:
        """Measure with a head fitted on the network's own responses; the unpruned network's are known."""
        known = carved is self.carver.carved("unpruned")
        head = self.carver.whole_head if known else self._fitted_head(carved.network)
        return _Outcome(head.metrics_validation, head.metrics)

    def _recalibrated(self, carved: Carved) -> _Outcome:
        """Measure a copy whose batch norm is recalibrated, with a head fitted on its responses."""
        network = carved.copy()
        recalibrate(network.backbone, self.carver.images)
        head = self._fitted_head(network)
        return _Outcome(head.metrics_validation, head.metrics)

    def _fitted_head(self, network: TaskNetwork) -> Head:
        """Return the task's head on a network's own responses."""
        return fit_head(self.carver.forward(network.backbone), self._work.task, self._work.split)

    def _trained(
        self, carved: Carved, variant: Variant, teacher: Teacher | None, saved: TrainingFile | None
    ) -> tuple[_Outcome, TaskNetwork]:
        """Train a copy of a carved network and measure it; return it with its outputs in the label's unit."""
        network = carved.copy()
        start = None
        if variant.step != "from scratch":
            head = self._fitted_head(network)
            network.set_heads([head.model])
            start = [head.gentle]
        return self._train(network, start, variant, teacher, saved), network

    def _train(
        self,
        network: TaskNetwork,
        start: Sequence[LinearModel] | None,
        variant: Variant,
        teacher: Teacher | None,
        saved: TrainingFile | None,
    ) -> _Outcome:
        """Train a network in place as a row is trained, and measure it."""
        work, settings = self._work, self._settings(variant)
        (done,) = finetune(
            network,
            [(work.task, work.split)],
            settings,
            work.materials.loader,
            work.seed,
            start=start,
            teacher=teacher,
            saved=saved,
            reporter=self._reporter,
        )
        epochs = len(done.epochs) - 1
        if epochs < settings.epochs:
            self._reporter.warn(f"{variant.name}: training diverged after {epochs} epochs")
        return _Outcome(done.metrics_validation, done.metrics, epochs, done.best_epoch)

    def _rounds(self, variant: Variant, depends: dict[str, Any]) -> tuple[Carved, _Outcome]:
        """Prune the finetuned network a part of the way, finetune it, draw its curve again, and so on to the budget."""
        carver, rounds = self.carver, self._table.rounds
        unpruned, epochs = self._finetuned_unpruned()
        taught = carver.forward(unpruned.backbone) if variant.step == "distilled" else None
        files = [self._file(f"{variant.name}.{done}", depends) for done in range(1, rounds + 1)]

        def teacher(keep: KeepSets) -> Teacher | None:
            return None if taught is None else Teacher.of(taught[:, keep[carver.cut]], self._work.split)

        def train(network: TaskNetwork, start: Sequence[LinearModel], keep: KeepSets, done: int) -> None:
            nonlocal epochs
            if done == 1:
                network.load_state_dict(unpruned.state_dict())
            else:
                epochs += self._train(network, start, variant, teacher(keep), files[done - 2]).epochs

        left = carve_in_rounds(
            carver.base,
            carver.graph,
            [carver.at_cut],
            rounds,
            carver.budget_of_need,
            carver.images,
            carver.forward,
            carver.needed,
            train,
        )
        carved = carver.of_graph(left.graph, left.keep)
        outcome, _ = self._trained(carved, variant, teacher(left.keep), files[-1])
        for file in files:
            file.remove()
        return carved, replace(outcome, epochs=epochs + outcome.epochs)

    def _finetuned_unpruned(self) -> tuple[TaskNetwork, int]:
        """Return the finetuned unpruned network and its epochs, from the folder where its own row has left it."""
        variant = VARIANTS["unpruned-finetuned"]
        carved, depends = self.carver.carved("unpruned"), self.dependencies(variant)
        state = self._file(_UNPRUNED, depends).load()
        if state is not None:
            network = carved.copy()
            network.load_state_dict(state["network"])
            return network, int(state["epochs"])
        training = self._file(variant.name, depends)
        outcome, network = self._trained(carved, variant, None, training)
        self._leave(network, outcome.epochs, depends)
        training.remove()
        return network, outcome.epochs

    def _leave(self, network: TaskNetwork, epochs: int, depends: dict[str, Any]) -> None:
        """Leave the finetuned unpruned network to those rows that start from it."""
        state = {"network": network.state_dict(), "epochs": epochs, "wall_s": 0.0}
        self._file(_UNPRUNED, depends).save(state)

    def _teacher(self, variant: Variant, carved: Carved) -> Teacher | None:
        """Return the base network's responses of the kept filters, where the row is held to them."""
        if variant.step != "distilled":
            return None
        return Teacher.of(self._work.responses.tap(self.carver.cut)[:, carved.filters], self._work.split)

    def _settings(self, variant: Variant) -> FinetuneConfig:
        """Return how a row is trained: as the run says, but for what the row is about."""
        given = self._work.config.finetune
        assert given is not False
        update = {
            "start": "scratch" if variant.step == "from scratch" else "pruned",
            "distill": self._table.distill if variant.step == "distilled" else 0.0,
        }
        return FinetuneConfig(**{**given.model_dump(exclude_unset=True), **update})

    def _file(self, stage: str, depends: dict[str, Any]) -> TrainingFile:
        """Return where a training, or a network that others start from, is saved."""
        return self._folder.training_file(self._work.task.spec.name, self._work.trial, stage, depends)

    def _told(self, variant: Variant, found: VariantTrial) -> str:
        """Return one line that says what was found."""
        main = self._work.task.kind.main_metric
        value = number(found.test[main], significant=4)
        share = found.cost.macs / self.carver.base_cost.macs
        told = (
            f"{self._work.task.spec.name}, trial {found.trial} | {variant.label}: {style(main).label} {value} on test, "
            f"{percent(share)} of the MACs ({duration(found.wall_s)})"
        )
        return told.replace(NBSP, " ")
