"""One trial's stages for one task, or for all tasks that share a network: computed, stored, read back and saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from facetask.data.splits import Split
from facetask.keep_sets.by_curve import KeepSets, TrialCurves, needs_all_trials
from facetask.keep_sets.by_need import IMAGES as IMAGES_FOR_NEEDS
from facetask.models.checkpoint import save_model
from facetask.models.model_description import SavedHead
from facetask.networks.base_network import Round
from facetask.responses import Responses, forward_responses
from facetask.running.rundir import OWN_STAGES
from facetask.running.stage_work import StageWork, decode, encode
from facetask.stages.finetune import Finetuned, finetune
from facetask.stages.prune import Pruned, TaskCurves, prune, rebuild_pruned
from facetask.tasks.satellite import to_finite
from facetask.training.trainer import Teacher

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.config import RunConfig
    from facetask.networks.task_network import TaskNetwork
    from facetask.progress import Reporter
    from facetask.running.outcomes import Outcome, TaskRecord, TrialOutcomes
    from facetask.running.prepare import Materials
    from facetask.running.rundir import RunDir
    from facetask.statistics.regression import LinearModel
    from facetask.tasks.task_kind import Decision
    from facetask.training.training_file import TrainingFile

NETWORK = "network"
"""The part of the prune stage's training that stays: what rounds have left of the network."""

_REVISION = 2
"""Of what the other stages store: grows whenever that is something else, so that older results are computed again."""


def together(
    stage: str, config: RunConfig, materials: Materials, responses: Responses, records: Sequence[TaskRecord]
) -> list[TrialWork]:
    """Return what a stage does together, in the first trial: each task alone, or all that share a network."""
    works = [StageWork(materials, responses, config, index, 0) for index in range(len(records))]
    if config.prune.share and stage not in OWN_STAGES:
        return [TrialWork(works, records)]
    return [TrialWork([work], [record]) for work, record in zip(works, records, strict=True)]


@dataclass(frozen=True)
class TrialWork:
    """One trial's stages.

    Attributes:
        works: The trial of each task; of several where they share a network.
        records: Each task's outcomes so far.
    """

    works: Sequence[StageWork]
    records: Sequence[TaskRecord]
    _known: dict[str, list[dict[str, Any]]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of_trial(self, trial: int) -> TrialWork:
        """Return the same tasks in another trial."""
        return replace(self, works=[work.of_trial(trial) for work in self.works])

    @property
    def name(self) -> str:
        """The tasks' names."""
        return ", ".join(record.name for record in self.records)

    @property
    def trial(self) -> int:
        """The trial, from 0."""
        return self._first.trial

    @property
    def outcomes(self) -> list[TrialOutcomes]:
        """Each task's outcomes of the trial."""
        return [record.trials[self.trial] for record in self.records]

    def dependencies(self, stage: str) -> list[dict[str, Any]]:
        """Return, for each task, everything that its result of a stage depends on, by the names that a user knows.

        All weights and labels are digested for it, so it is done once a stage.
        """
        if stage not in self._known:
            self._known[stage] = self._dependencies(stage)
        return self._known[stage]

    def _dependencies(self, stage: str) -> list[dict[str, Any]]:
        """Return the same, found anew."""
        own = [work.dependencies(stage) for work in self.works]
        if stage in OWN_STAGES:
            return own
        config = self._first.config
        depends: dict[str, Any] = {"revision": _REVISION, "prune": config.prune.model_dump(mode="json")}
        if needs_all_trials(config.prune):
            depends["trials"] = config.trials
        if (stage == "finetune" or config.prune.rounds) and config.finetune is not False:
            depends["finetune"] = config.finetune.model_dump(mode="json")
        if len(own) > 1:
            depends["tasks that share the network"] = [
                {key: each[key] for key in ("satellite_task", "labels")} for each in own
            ]
        return [{**each, **depends} for each in own]

    def recall(self, stage: str, folder: RunDir, reporter: Reporter) -> bool:
        """Take a stage's results from a run's folder; return whether all are there, and say what else has changed."""
        stored = {
            record.name: folder.load_stage(record.name, self.trial, stage, depends)
            for record, depends in zip(self.records, self.dependencies(stage), strict=True)
        }
        for name, (_, changed) in stored.items():
            if changed:
                reporter.line(f"{stage} {name}, trial {self.trial}: computed again, changed: {changed}")
        known = [found for found, _ in stored.values() if found is not None]
        trained = self._trained_in_rounds(folder).load() if stage == "prune" and self._rounds else None
        if len(known) < len(stored) or (stage == "prune" and self._rounds and trained is None):
            return False
        for outcomes, found in zip(self.outcomes, known, strict=True):
            outcomes.add(stage, decode(stage, found["result"]), found["wall_s"])
        if trained is not None:
            self._network().load_state_dict(trained["network"])
        return True

    def store(self, stage: str, folder: RunDir, results: Sequence[Outcome], wall_s: float) -> None:
        """Note a stage's results and store them in a run's folder; each task gets an equal share of the seconds."""
        for record, depends, result in zip(self.records, self.dependencies(stage), results, strict=True):
            share = wall_s / len(results)
            record.trials[self.trial].add(stage, result, share)
            folder.save_stage(record.name, self.trial, stage, depends, encode(result), share)
        if stage == "prune" and self._rounds:
            training = self.training_file(stage, folder)
            for done in range(1, self._rounds + 1):
                training.part(f"round-{done}").remove()

    def _trained_in_rounds(self, folder: RunDir) -> TrainingFile:
        """Return where the network is stored that rounds of training and pruning have left."""
        return self.training_file("prune", folder).part(NETWORK)

    def forget(self, stage: str, folder: RunDir) -> None:
        """Drop a stage's results from a run's folder."""
        for record in self.records:
            folder.forget_stage(record.name, self.trial, stage)

    def training_file(self, stage: str, folder: RunDir) -> TrainingFile:
        """Return where a stage's training is saved until its results are stored: with the first task's."""
        return folder.training_file(self.records[0].name, self.trial, stage, self.dependencies(stage)[0])

    def compute(
        self, stage: str, model: Path | None, saved: TrainingFile | None = None, reporter: Reporter | None = None
    ) -> Sequence[Outcome]:
        """Run a stage on the outcomes of the earlier ones; save the network where a folder is given.

        Args:
            stage: Which.
            model: The folder to save the network in; None: it is not saved.
            saved: Where training is saved after every epoch, and gone on with after an interruption.
            reporter: Where training reports to; by default nowhere.
        """
        if stage in OWN_STAGES:
            return [work.compute(stage, record) for work, record in zip(self.works, self.records, strict=True)]
        # Many small products: several BLAS threads would wait for each other longer than they compute.
        with threadpool_limits(1, user_api="blas"):
            if stage == "prune":
                return self._prune(model, saved, reporter)
            return self._finetune(model, saved, reporter)

    def save_pruned(self, folder: Path) -> None:
        """Save the pruned network as it is before finetuning."""
        self._save(self._network(), [(each.decision, each.metrics_pruned) for each in self._pruned], folder)

    @property
    def _first(self) -> StageWork:
        """What all tasks have in common."""
        return self.works[0]

    @property
    def _rounds(self) -> int:
        """How often the network is finetuned before it is pruned."""
        return self._first.config.prune.rounds

    @property
    def _kept(self) -> TrialOutcomes:
        """Where the network is kept until it is trained."""
        return self.outcomes[0]

    @property
    def _pruned(self) -> list[Pruned]:
        """Each task's part of the pruned network."""
        return [outcomes.prune for outcomes in self.outcomes if outcomes.prune is not None]

    @property
    def _split(self) -> Split:
        """The partition of all images that any task has a label for; tasks that share are split alike."""
        return Split.of_any([work.split for work in self.works])

    def _network(self) -> TaskNetwork:
        """Return the pruned network as it was built, or built again where its result was read from the folder.

        What rounds have trained is loaded into it then.
        """
        if self._kept.network is None:
            images = self._images() if self._first.config.prune.reconstruct and not self._rounds else None
            self._kept.network = rebuild_pruned(self._first.materials.network.graph, self._pruned, images)
        return self._kept.network

    def _prune(self, model: Path | None, saved: TrainingFile | None, reporter: Reporter | None) -> tuple[Pruned, ...]:
        """Run the prune stage."""
        first, materials = self._first, self._first.materials
        labelled = np.flatnonzero(np.any([work.task.labelled for work in self.works], axis=0))

        def forward(backbone: nn.Module) -> NDArray[np.float32]:
            return forward_responses(backbone, materials.loader, labelled)

        def train(network: TaskNetwork, start: Sequence[LinearModel], keep: KeepSets, done: int) -> None:
            if reporter is not None:
                reporter.line(f"prune {self.name}, trial {self.trial}: round {done} of {self._rounds}")
            self._train(network, start, None if saved is None else saved.part(f"round-{done}"), reporter)

        tasks = [
            TaskCurves(work.task, outcomes.regress, self._curves(work, record))
            for work, record, outcomes in zip(self.works, self.records, self.outcomes, strict=True)
            if outcomes.regress is not None
        ]
        found, self._kept.network = prune(
            materials.network, first.responses, tasks, first.config.prune, self._images(), forward, train
        )
        if self._rounds and saved is not None:
            saved.part(NETWORK).save({"network": self._kept.network.state_dict(), "wall_s": 0.0})
        for outcomes, own in zip(self.outcomes, found, strict=True):
            outcomes.prune = own
        if model is not None:
            self.save_pruned(model)
        return found

    def _curves(self, work: StageWork, record: TaskRecord) -> list[TrialCurves]:
        """Return a task's curves of this trial, then those of the others.

        Coupled groups are resampled only where that decides what is kept.
        """
        config = work.config
        bootstrap = config.curve.bootstrap if config.prune.stable is not None else 0
        order = [work.trial, *(trial for trial in range(config.trials) if trial != work.trial)]
        found = []
        for other in (work.of_trial(trial) for trial in order):
            outcomes = record.trials[other.trial]
            assert outcomes.curve is not None
            found.append(TrialCurves(other.split, outcomes.curve, other.chooser(bootstrap), outcomes.group_curves))
        return found

    def _images(self) -> Tensor | None:
        """Return the normalised training images on which pruning looks at the network's maps, if it does."""
        settings = self._first.config.prune
        wanted = settings.reconstruct or (IMAGES_FOR_NEEDS if settings.below_cut == "need" else 0)
        if not wanted:
            return None
        rows = np.random.default_rng(self._first.seed).permutation(self._split.train)[:wanted]
        ((_, inputs),) = self._first.materials.loader.batches(rows, [np.arange(len(rows))])
        return inputs

    def _finetune(
        self, model: Path | None, saved: TrainingFile | None, reporter: Reporter | None
    ) -> tuple[Finetuned, ...]:
        """Run the finetune stage."""
        network = self._network()
        self._kept.network = None  # training changes it
        finetuned = self._train(network, [each.gentle_head for each in self._pruned], saved, reporter)
        if model is not None:
            self._save(network, [(each.decision, each.metrics) for each in finetuned], model)
        return finetuned

    def _train(
        self,
        network: TaskNetwork,
        start: Sequence[LinearModel],
        saved: TrainingFile | None,
        reporter: Reporter | None,
    ) -> tuple[Finetuned, ...]:
        """Train a network in place as the run says, from some heads."""
        first = self._first
        assert first.config.finetune is not False
        return finetune(
            network,
            [(work.task, work.split) for work in self.works],
            first.config.finetune,
            first.materials.loader,
            first.seed,
            start=start,
            teacher=self._teacher() if first.config.finetune.distill else None,
            saved=saved,
            reporter=reporter,
        )

    def _teacher(self) -> Teacher:
        """Return the base network's own responses of the filters kept at the cuts, in the backbone's order."""
        keep, responses = self._pruned[0].keep, self._first.responses
        cuts = {each.cut for each in self._pruned}
        own = [responses.tap(tap)[:, kept] for tap, kept in keep.items() if tap in cuts]
        return Teacher.of(own[0] if len(own) == 1 else np.concatenate(own, axis=1), self._split)

    def _save(
        self,
        network: TaskNetwork,
        found: Sequence[tuple[Decision, dict[str, float]]],
        folder: Path,
    ) -> None:
        """Save a network with its tasks and licences, and each one's decision and test metrics."""
        pruned = self._pruned
        heads = [
            SavedHead.of(task.spec, own.cut, len(own.head.intercept), decision, task.licence, to_finite(metrics))
            for task, own, (decision, metrics) in zip([work.task for work in self.works], pruned, found, strict=True)
        ]
        cuts = {each.cut for each in pruned}
        last_round = Round(tuple(tap for tap in pruned[0].keep if tap in cuts), pruned[0].keep)
        save_model(folder, network, self._first.materials.network, last_round, heads)
