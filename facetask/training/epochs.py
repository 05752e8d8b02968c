"""Training for one or more tasks over several epochs, which can be left and gone on with after any of them.

Validation decides which epoch is kept, the same for all tasks; epoch 0, the starting point, takes part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from facetask.progress import Silent
from facetask.training.objective import Objective
from facetask.training.trainer import Teacher, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import FinetuneConfig
    from facetask.data.loader import ImageLoader
    from facetask.data.splits import Split
    from facetask.networks.task_network import TaskNetwork
    from facetask.progress import Reporter
    from facetask.statistics.regression import LinearModel
    from facetask.tasks.satellite import Satellite
    from facetask.training.training_file import TrainingFile

    Array = NDArray[np.float64]
    Predict = Callable[[Sequence[NDArray[np.intp]]], tuple[Array, ...]]


@dataclass(frozen=True)
class EpochScore:
    """One task's epoch: mean training loss of all tasks, distillation included (None at the start), validation RMSE."""

    epoch: int
    train_loss: float | None
    validation_rmse: float


@dataclass(frozen=True)
class TrainedTask:
    """How training went for one task.

    Attributes:
        epochs: Every epoch's scores, from the starting point; an epoch that diverges is the end, and left out.
        validation: The best epoch's predictions on validation, ``(n_validation, n_outputs)``.
    """

    epochs: tuple[EpochScore, ...]
    validation: Array


@dataclass(frozen=True)
class Trained:
    """How training went; the network is left at its best epoch, its outputs in the trainer's unit.

    Attributes:
        tasks: How it went for each task.
        best_epoch: The epoch that was kept.
        observed: What an observer made of each epoch.
        predict: Returns each task's predictions for rows of its own, ``(len(rows), n_outputs)``.
        unit: What all tasks' outputs are divided by, ``(n_outputs,)``.
    """

    tasks: tuple[TrainedTask, ...]
    best_epoch: int
    observed: tuple[Any, ...]
    predict: Predict
    unit: Array


Observer = Callable[[Sequence[EpochScore], "Sequence[Array]", "Predict", float], Any]
"""Makes JSON values of an epoch: each task's score and predictions on validation, a function that predicts each task's
rows, and the seconds that training has taken so far."""


def train(
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
    observe: Observer | None = None,
) -> Trained:
    """Train a network in place and leave it at its best epoch, its outputs divided by the trainer's unit.

    Args:
        network: The network with its heads.
        tasks: The heads' tasks, each with the trial's partition of its labelled images.
        settings: Epochs, optimiser, loss, augmentation.
        loader: How images reach the network.
        seed: Of the order of images, of augmentation, of dropout and of a fresh network.
        start: The heads from which training starts; by default the network's own, which are epoch 0 in any case.
        teacher: What its pooled responses are held to, where ``settings.distill`` asks for that.
        saved: Where the training is saved after every epoch, and gone on with after an interruption: the result is
            the same to the last bit.
        reporter: Where to report to.
        observe: Called after every epoch, the starting point included.

    Raises:
        ConfigError: If the loss does not fit the task's kind.
        RunDirError: If the training cannot be saved.
        SurgeryError: If the network cannot be started from scratch.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        objective = Objective.of(tasks, settings)
        trainer = Trainer(network, objective, settings, loader, seed, teacher)
        course = _Course(trainer, objective, network, observe)
        state = saved.load() if saved is not None else None
        if state is not None:
            course.restore(state)
        else:
            course.note(None)
            if start is not None and settings.start == "pruned":
                network.set_heads(start)
                network.scale_outputs(1 / objective.unit)
            torch.manual_seed(seed)
        _train(course, settings, saved, reporter or Silent(), ", ".join(task.spec.name for task, _ in tasks))
    network.load_state_dict(course.best)
    network.eval()
    return Trained(
        tasks=tuple(
            TrainedTask(tuple(epochs[index] for epochs in course.epochs), course.validation[index])
            for index in range(len(tasks))
        ),
        best_epoch=course.best_epoch,
        observed=tuple(course.observed),
        predict=trainer.predict,
        unit=objective.unit,
    )


def _train(
    course: _Course, settings: FinetuneConfig, saved: TrainingFile | None, reporter: Reporter, name: str
) -> None:
    """Train for the epochs that are left, or until training diverges."""
    done, n = len(course.epochs) - 1, settings.epochs
    if done:
        reporter.line(f"training of {name} goes on after epoch {done} of {n}")
    with reporter.bar(f"{name}: epochs", n) as epoch_done:
        epoch_done(done)
        for epoch in range(done + 1, n + 1):
            with reporter.bar(f"epoch {epoch} of {n}: images", len(course.trainer.rows)) as advance:
                loss = course.trainer.epoch(advance)
            if not course.note(loss):
                return
            if saved is not None:
                saved.save(course.state())
            epoch_done(1)


class _Course:
    """How far training has come.

    Attributes:
        trainer: What trains.
        epochs: Each epoch's scores so far, one for each task.
        best: State of the network at its best epoch.
        best_epoch: That epoch.
        validation: Each task's predictions on validation then.
        observed: What the observer made of each epoch.
    """

    def __init__(self, trainer: Trainer, objective: Objective, network: nn.Module, observe: Observer | None) -> None:
        self.trainer, self._objective, self._network, self._observe = trainer, objective, network, observe
        self.epochs: list[list[EpochScore]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.validation: tuple[Array, ...] = ()
        self.observed: list[Any] = []
        self._began, self._earlier_s = time.perf_counter(), 0.0

    @property
    def wall_s(self) -> float:
        """Seconds since the beginning, without those lost by interruptions."""
        return self._earlier_s + time.perf_counter() - self._began

    def note(self, train_loss: float | None) -> bool:
        """Score the network and note its epoch; return False, and note nothing, where training has diverged."""
        rmse, predicted = self.trainer.score()
        epoch = len(self.epochs)
        if train_loss is not None and not np.isfinite([train_loss, *rmse]).all():
            return False
        self.epochs.append([EpochScore(epoch, train_loss, own) for own in rmse])
        if not epoch or self._judged(epoch) < self._judged(self.best_epoch):
            self.best_epoch, self.validation = epoch, predicted
            self.best = {key: value.detach().clone() for key, value in self._network.state_dict().items()}
        if self._observe is not None:
            self.observed.append(self._observe(self.epochs[-1], predicted, self.trainer.predict, self.wall_s))
        return True

    def _judged(self, epoch: int) -> float:
        """Return by what an epoch is compared with others."""
        return self._objective.judged([score.validation_rmse for score in self.epochs[epoch]])

    def state(self) -> dict[str, Any]:
        """Return everything that training goes on from, of tensors and plain values."""
        return {
            **self.trainer.state(),
            "epochs": [
                [[score.epoch, score.train_loss, score.validation_rmse] for score in scores] for scores in self.epochs
            ],
            "best": self.best,
            "best_epoch": self.best_epoch,
            "validation": [torch.from_numpy(own) for own in self.validation],
            "observed": json.dumps(self.observed),
            "wall_s": self.wall_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where a state was taken."""
        self.trainer.restore(state)
        self.epochs = [[EpochScore(*score) for score in scores] for scores in state["epochs"]]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.validation = tuple(own.numpy() for own in state["validation"])
        self.observed = json.loads(state["observed"])
        self._earlier_s = state["wall_s"]
