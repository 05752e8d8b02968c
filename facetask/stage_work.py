"""One stage of one task and trial: what it depends on, how it is computed, stored and read back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from facetask.checkpoint import save_model
from facetask.keep_sets import TrialCurves, needs_all_trials
from facetask.needed_filters import IMAGES as IMAGES_FOR_NEEDS
from facetask.network import Round
from facetask.responses import Responses, forward_responses
from facetask.satellite import Satellite, seed_of_trial, to_finite
from facetask.splits import Split
from facetask.stages.curve import Chooser, Curves, curve
from facetask.stages.finetune import Finetuned, finetune
from facetask.stages.prune import Pruned, prune
from facetask.stages.regress import Regression, regress
from facetask.trainer import Teacher

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.config import RunConfig
    from facetask.outcomes import Outcome, TaskRecord, TrialOutcomes
    from facetask.prepare import Materials
    from facetask.progress import Reporter
    from facetask.task_network import TaskNetwork
    from facetask.training_file import TrainingFile

_DECODERS: dict[str, Any] = {
    "regress": Regression.from_json,
    "curve": Curves.from_json,
    "prune": Pruned.from_json,
    "finetune": Finetuned.from_json,
}

_REVISIONS = {"regress": 2, "prune": 2, "finetune": 2}
"""Of what a stage stores: grows whenever that is something else, so that older results are computed again."""


@dataclass(frozen=True)
class StageWork:
    """The stages of one task and trial.

    Attributes:
        materials: Network, images, tasks.
        responses: All taps' responses.
        config: The run's configuration.
        index: The task's place in the configuration.
        trial: The trial, from 0.
    """

    materials: Materials
    responses: Responses
    config: RunConfig
    index: int
    trial: int

    @property
    def task(self) -> Satellite:
        """The satellite task."""
        return self.materials.tasks[self.index]

    @property
    def seed(self) -> int:
        """The trial's seed."""
        return self._seed_of(self.trial)

    @property
    def split(self) -> Split:
        """The trial's partition."""
        return self.task.split(self.seed)

    def dependencies(self, stage: str) -> dict[str, Any]:
        """Return everything that a stage's result depends on, by the names that a user knows."""
        from facetask import __version__

        config = self.config
        depends: dict[str, Any] = {
            "facetask": __version__,
            "base_network": config.base_network.model_dump(mode="json"),
            "weights": self.materials.network.fingerprint(),
            "images": self.materials.images.fingerprint(),
            "satellite_task": config.satellite_tasks[self.index].model_dump(mode="json"),
            "labels": self.task.fingerprint(),
            "split": self.task.split_config.model_dump(mode="json"),
            "seed": config.seed,
        }
        if stage in _REVISIONS:
            depends["revision"] = _REVISIONS[stage]
        if stage != "regress":
            revision = self.materials.selector.revision
            depends["selector"] = {**config.selector.model_dump(mode="json"), "revision": revision}
            depends["curve"] = config.curve.model_dump(mode="json")
        if stage in ("prune", "finetune"):
            depends["prune"] = config.prune.model_dump(mode="json")
            if needs_all_trials(config.prune):
                depends["trials"] = config.trials
        if stage == "finetune" and config.finetune is not False:
            depends["finetune"] = config.finetune.model_dump(mode="json")
        return depends

    def compute(
        self,
        stage: str,
        record: TaskRecord,
        model: Path | None,
        saved: TrainingFile | None = None,
        reporter: Reporter | None = None,
    ) -> Outcome:
        """Run a stage on the outcomes of the earlier ones, in all trials; save the network where a folder is given.

        Args:
            stage: Which.
            record: The task's outcomes so far.
            model: The folder to save the network in; None: it is not saved.
            saved: Where training is saved after every epoch, and gone on with after an interruption.
            reporter: Where training reports to; by default nowhere.
        """
        # Many small products: several BLAS threads would wait for each other longer than they compute.
        with threadpool_limits(1, user_api="blas"):
            return self._compute(stage, record, model, saved, reporter)

    def _compute(
        self,
        stage: str,
        record: TaskRecord,
        model: Path | None,
        saved: TrainingFile | None,
        reporter: Reporter | None,
    ) -> Outcome:
        """Run a stage."""
        done = record.trials[self.trial]
        if stage == "regress":
            return regress(self.responses, self.task, self.split)
        assert done.regress is not None
        if stage == "curve":
            return curve(self.responses, self.task, self.split, self._chooser(self.seed, self.config.curve.bootstrap))
        if stage == "prune":
            done.prune, done.network = self._prune(done.regress, self._curves(record))
            if model is not None:
                self.save_pruned(done, model)
            return done.prune
        assert done.prune is not None
        return self._finetune(done, model, saved, reporter)

    def decode(self, stage: str, fields: Any) -> Outcome:
        """Return a stage's result from its JSON values."""
        outcome: Outcome = _DECODERS[stage](fields)
        return outcome

    def encode(self, outcome: Outcome) -> Any:
        """Return a stage's result as JSON values."""
        return asdict(outcome) if isinstance(outcome, Regression) else outcome.to_json()

    def save_pruned(self, done: TrialOutcomes, folder: Path) -> None:
        """Save the pruned network as it is before finetuning."""
        assert done.prune is not None
        self._save(self._network(done), done.prune, done.prune.decision, done.prune.metrics_pruned, folder)

    def _curves(self, record: TaskRecord) -> list[TrialCurves]:
        """Return this trial's curves, then those of the others.

        Coupled groups are resampled only where that decides what is kept.
        """
        bootstrap = self.config.curve.bootstrap if self.config.prune.stable is not None else 0
        order = [self.trial, *(trial for trial in range(self.config.trials) if trial != self.trial)]
        found = []
        for trial in order:
            outcomes, seed = record.trials[trial], self._seed_of(trial)
            assert outcomes.curve is not None
            split, chooser = self.task.split(seed), self._chooser(seed, bootstrap)
            found.append(TrialCurves(split, outcomes.curve, chooser, outcomes.group_curves))
        return found

    def _seed_of(self, trial: int) -> int:
        """Return a trial's seed."""
        return seed_of_trial(self.config.seed, trial)

    def _network(self, done: TrialOutcomes) -> TaskNetwork:
        """Return the pruned network as it was built, or built again where its result was read from the folder."""
        assert done.prune is not None
        if done.network is None:
            images = self._images() if self.config.prune.reconstruct else None
            done.network = done.prune.network(self.materials.network.graph, images)
        return done.network

    def _prune(self, regression: Regression, trials: list[TrialCurves]) -> tuple[Pruned, TaskNetwork]:
        """Run the prune stage."""
        labelled = self.task.labelled.nonzero()[0]

        def forward(backbone: nn.Module) -> NDArray[np.float32]:
            return forward_responses(backbone, self.materials.loader, labelled)

        return prune(
            self.materials.network,
            self.responses,
            self.task,
            regression,
            trials,
            self.config.prune,
            self._images(),
            forward,
        )

    def _images(self) -> Tensor | None:
        """Return the normalised training images on which pruning looks at the network's maps, if it does."""
        import numpy as np

        settings = self.config.prune
        wanted = settings.reconstruct or (IMAGES_FOR_NEEDS if settings.below_cut == "need" else 0)
        if not wanted:
            return None
        rows = np.random.default_rng(self.seed).permutation(self.split.train)[:wanted]
        ((_, inputs),) = self.materials.loader.batches(rows, [np.arange(len(rows))])
        return inputs

    def _finetune(
        self, done: TrialOutcomes, model: Path | None, saved: TrainingFile | None, reporter: Reporter | None
    ) -> Finetuned:
        """Run the finetune stage."""
        assert self.config.finetune is not False
        assert done.prune is not None
        pruned, network = done.prune, self._network(done)
        done.network = None  # training changes it
        finetuned = finetune(
            network,
            self.task,
            self.split,
            self.config.finetune,
            self.materials.loader,
            self.seed,
            start=pruned.gentle_head,
            teacher=self._teacher(pruned),
            saved=saved,
            reporter=reporter,
        )
        if model is not None:
            self._save(network, pruned, finetuned.decision, finetuned.metrics, model)
        return finetuned

    def _teacher(self, pruned: Pruned) -> Teacher | None:
        """Return the base network's own responses of the filters kept at the cut, if training is held to them."""
        assert self.config.finetune is not False
        if not self.config.finetune.distill:
            return None
        return Teacher.of(self.responses.tap(pruned.cut)[:, pruned.keep[pruned.cut]], self.split)

    def _chooser(self, seed: int, bootstrap: int) -> Chooser:
        """Return the selector for this task and a trial's seed."""
        selector = self.materials.selector
        weights = self.materials.network.filter_weights() if "weights" in selector.needs else {}
        return Chooser(selector, self.config.selector.params, weights, seed, self.config.curve.refit, bootstrap)

    def _save(
        self,
        network: TaskNetwork,
        pruned: Pruned,
        decision: dict[str, float],
        metrics: dict[str, float],
        folder: Path,
    ) -> None:
        """Save a network with its task and licences."""
        save_model(
            folder,
            network,
            self.materials.network,
            Round(pruned.cut, pruned.keep),
            task=self.task.spec,
            decision=decision,
            labels_licence=self.task.licence,
            metrics=to_finite(metrics),
        )
