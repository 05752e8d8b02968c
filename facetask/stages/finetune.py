"""Stage 4: train the pruned network on its tasks' images, and measure what that gives for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from facetask.networks.heads import Predicted
from facetask.training.epochs import EpochScore, train

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facetask.config import FinetuneConfig
    from facetask.data.loader import ImageLoader
    from facetask.data.splits import Split
    from facetask.networks.task_network import TaskNetwork
    from facetask.progress import Reporter
    from facetask.statistics.regression import LinearModel
    from facetask.tasks.satellite import Satellite
    from facetask.tasks.task_kind import Decision
    from facetask.training.epochs import TrainedTask
    from facetask.training.trainer import Teacher
    from facetask.training.training_file import TrainingFile


@dataclass(frozen=True)
class Finetuned:
    """One task's part of a trial's finetuned network.

    Attributes:
        epochs: Every epoch's scores, from the starting point; an epoch that diverges is the end, and left out.
        best_epoch: The epoch that was kept.
        predicted: Its predictions on test, with what was learned on validation for its outputs.
        metrics: Its metrics on test.
        metrics_validation: Its metrics on validation.
        confusion: Its decisions on test, as in :class:`facetask.networks.heads.Head`.
    """

    epochs: tuple[EpochScore, ...]
    best_epoch: int
    predicted: Predicted
    metrics: dict[str, float]
    metrics_validation: dict[str, float]
    confusion: list[list[int]] | None

    @property
    def decision(self) -> Decision:
        """What was learned on validation for its outputs."""
        return self.predicted.decision

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Finetuned:
        """Return what :meth:`to_json` described."""
        epochs = tuple(EpochScore(**epoch) for epoch in fields["epochs"])
        return cls(**{**fields, "epochs": epochs, "predicted": Predicted(**fields["predicted"])})


def finetune(
    network: TaskNetwork,
    tasks: Sequence[tuple[Satellite, Split]],
    settings: FinetuneConfig,
    loader: ImageLoader,
    seed: int,
    *,
    start: Sequence[LinearModel] | None = None,
    teacher: Teacher | None = None,
    saved: TrainingFile | None = None,
    reporter: Reporter | None = None,
) -> tuple[Finetuned, ...]:
    """Train a network in place, leave it at its best epoch, and return what each task has of it.

    Args:
        network: The pruned network with its refitted heads.
        tasks: The heads' tasks, each with the trial's partition of its labelled images.
        settings: Epochs, optimiser, loss, augmentation.
        loader: How images reach the network.
        seed: Of the order of images, of augmentation, of dropout and of a fresh network.
        start: The heads from which training starts; by default the network's own, which are epoch 0 in any case.
        teacher: The base network's responses that ``settings.distill`` holds the pruned network's to.
        saved: Where the training is saved after every epoch, and gone on with after an interruption.
        reporter: Where to report to; by default nowhere.

    Raises:
        ConfigError: If the loss does not fit a task's kind.
        RunDirError: If the training cannot be saved.
        SurgeryError: If the network cannot be started from scratch.
    """
    trained = train(
        network, tasks, settings, loader, seed, start=start, teacher=teacher, saved=saved, reporter=reporter
    )
    tested = trained.predict([split.test for _, split in tasks])
    network.scale_outputs(trained.unit)
    return tuple(
        _measured(task, split, own, trained.best_epoch, predicted)
        for (task, split), own, predicted in zip(tasks, trained.tasks, tested, strict=True)
    )


def _measured(
    task: Satellite, split: Split, trained: TrainedTask, best_epoch: int, predicted: NDArray[np.float64]
) -> Finetuned:
    """Return what one task has of the network, given its predictions on test."""
    kind, values = task.kind, task.values
    decision = kind.learn(trained.validation, values[split.validation])
    scale = kind.scale(task.targets[split.train])
    return Finetuned(
        epochs=trained.epochs,
        best_epoch=best_epoch,
        predicted=Predicted.of(predicted, decision),
        metrics=kind.metrics(predicted, values[split.test], decision, scale),
        metrics_validation=kind.metrics(trained.validation, values[split.validation], decision, scale),
        confusion=kind.confusion(predicted, values[split.test], decision),
    )
