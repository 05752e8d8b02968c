"""What training minimises and is judged by: each task's part, and how the parts make one number.

A task alone counts as it is. Several tasks count alike, whatever their units and losses: each one's loss is divided by
that of the best constant, and its validation RMSE by that of the training mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from facetask.networks.task_network import side_by_side
from facetask.statistics.known import mean_of_known, spread_of_known
from facetask.tasks.metrics import scaled_rmse
from facetask.tasks.task_kind import LOSSES_ON_LOGITS
from facetask.training.losses import loss_of_guessing, training_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from facetask.config import FinetuneConfig
    from facetask.data.splits import Split
    from facetask.tasks.satellite import Satellite
    from facetask.tasks.task_kind import Loss


@dataclass(frozen=True)
class TaskPart:
    """One task's part of training.

    Attributes:
        task: The task.
        split: The trial's partition of its labelled images.
        targets: Targets of all images, ``(n_images, n_outputs)``, NaN where there is no label or no training.
        loss: What is minimised.
        smoothing: Share of each label that is spread over all classes.
        unit: What targets are divided by in training, ``(n_outputs,)``, so that steps mean the same for all outputs.
        scale: What divides each output's error, ``(n_outputs,)``.
        columns: Its outputs among those of all tasks.
        guess_loss: What its loss is divided by; 1 for a task alone.
        guess_rmse: What its validation RMSE is divided by; 1 for a task alone.
    """

    task: Satellite
    split: Split
    targets: NDArray[np.float64]
    loss: Loss
    smoothing: float
    unit: NDArray[np.float64]
    scale: NDArray[np.float64]
    columns: slice
    guess_loss: float = 1.0
    guess_rmse: float = 1.0

    @property
    def start(self) -> NDArray[np.float64]:
        """The bias from which a fresh head starts, ``(n_outputs,)``: the mean label of what is regressed."""
        if self.loss in LOSSES_ON_LOGITS:
            return np.zeros(self.targets.shape[1])
        return mean_of_known(self.targets[self.split.train]) / self.unit

    def loss_of(self, outputs: Tensor, rows: NDArray[np.intp], mirrored: NDArray[np.bool_]) -> Tensor:
        """Return the loss of a batch's outputs, ``(batch, n_outputs)``, some of its images mirrored."""
        wanted = self.targets[rows]
        signs = self.task.spec.mirror_signs()
        if signs is not None:
            wanted[mirrored] *= signs
        return training_loss(outputs, wanted / self.unit, self.loss, self.smoothing) / self.guess_loss

    def predictions(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return predictions in the label's unit, ``(n, n_outputs)``, from the outputs of all tasks."""
        with np.errstate(over="ignore", invalid="ignore"):  # where training has destroyed the network
            return self.task.kind.activate(outputs[:, self.columns] * self.unit)

    def rmse(self, predicted: NDArray[np.float64]) -> float:
        """Return the RMSE of predictions on validation, ``(n_validation, n_outputs)``."""
        with np.errstate(over="ignore", invalid="ignore"):
            return scaled_rmse(predicted, self.task.targets[self.split.validation], self.scale)


@dataclass(frozen=True)
class Objective:
    """The parts of one or more tasks, which share a network."""

    parts: tuple[TaskPart, ...]

    @classmethod
    def of(cls, tasks: Sequence[tuple[Satellite, Split]], settings: FinetuneConfig) -> Objective:
        """Return the objective of some tasks, each with the trial's partition of its labelled images.

        Raises:
            ConfigError: If the loss does not fit a task's kind.
        """
        columns = side_by_side([task.targets.shape[1] for task, _ in tasks])
        alone = len(tasks) == 1
        return cls(tuple(_part(*each, own, settings, alone=alone) for each, own in zip(tasks, columns, strict=True)))

    @property
    def unit(self) -> NDArray[np.float64]:
        """What all outputs are divided by in training, ``(n_outputs,)``."""
        return np.concatenate([part.unit for part in self.parts])

    @property
    def mirrors(self) -> bool:
        """Whether every task says what a mirrored image's label is."""
        return all(part.task.spec.mirror_signs() is not None for part in self.parts)

    def loss_of(self, outputs: Sequence[Tensor], rows: NDArray[np.intp], mirrored: NDArray[np.bool_]) -> Tensor:
        """Return the mean over tasks of a batch's losses, given each head's outputs."""
        found = [part.loss_of(own, rows, mirrored) for part, own in zip(self.parts, outputs, strict=True)]
        return torch.stack(found).mean()

    def judged(self, rmse: Sequence[float]) -> float:
        """Return by what epochs are compared, given each task's validation RMSE."""
        return float(np.mean([own / part.guess_rmse for part, own in zip(self.parts, rmse, strict=True)]))


def _part(task: Satellite, split: Split, columns: slice, settings: FinetuneConfig, *, alone: bool) -> TaskPart:
    """Return one task's part."""
    loss, smoothing = task.kind.choose_loss(settings.loss), settings.label_smoothing
    targets = np.full_like(task.targets, np.nan)
    train = targets[split.train] = task.targets[split.train]
    scale = task.kind.scale(train)
    if loss in LOSSES_ON_LOGITS:
        unit = np.ones(train.shape[1])
    else:
        # Smooth L1 turns from square to linear near one standard deviation, whether of years or of degrees.
        unit = spread_of_known(train) if loss == "smooth-l1" else scale
    unit = np.exp2(np.round(np.log2(unit)))  # by a power of two, scaling the head there and back is exact
    part = TaskPart(task, split, targets, loss, smoothing, unit, scale, columns)
    if alone:
        return part
    guess = part.rmse(np.broadcast_to(mean_of_known(train), (len(split.validation), train.shape[1])))
    return replace(
        part, guess_loss=loss_of_guessing(train / unit, loss, smoothing), guess_rmse=guess if guess > 0 else 1.0
    )
