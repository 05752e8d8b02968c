"""Training over several epochs, which can be left and gone on with after any of them.

Validation decides which epoch is kept; epoch 0, the starting point, takes part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from facetask.progress import Silent
from facetask.trainer import Teacher, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import FinetuneConfig
    from facetask.loader import ImageLoader
    from facetask.progress import Reporter
    from facetask.regression import LinearModel
    from facetask.satellite import Satellite
    from facetask.splits import Split
    from facetask.task_network import TaskNetwork
    from facetask.training_file import TrainingFile

    Predict = Callable[[NDArray[np.intp]], NDArray[np.float64]]


@dataclass(frozen=True)
class EpochScore:
    """One epoch: mean training loss, distillation included (None at the start), and validation RMSE."""

    epoch: int
    train_loss: float | None
    validation_rmse: float


@dataclass(frozen=True)
class Trained:
    """How training went; the network is left at its best epoch, its outputs in the trainer's unit.

    Attributes:
        epochs: Every epoch's scores, from the starting point; an epoch that diverges is the end, and left out.
        best_epoch: The epoch that was kept.
        validation: Its predictions on validation, ``(n_validation, n_outputs)``.
        observed: What an observer made of each epoch.
        predict: Returns the network's predictions for rows, ``(len(rows), n_outputs)``.
        unit: What the outputs are divided by, ``(n_outputs,)``.
    """

    epochs: tuple[EpochScore, ...]
    best_epoch: int
    validation: NDArray[np.float64]
    observed: tuple[Any, ...]
    predict: Predict
    unit: NDArray[np.float64]


Observer = Callable[[EpochScore, "NDArray[np.float64]", "Predict", float], Any]
"""Makes JSON values of an epoch's score, its predictions on validation, a function that predicts rows, and the seconds
that training has taken so far."""


def train(
    network: TaskNetwork,
    task: Satellite,
    split: Split,
    settings: FinetuneConfig,
    loader: ImageLoader,
    seed: int,
    *,
    start: LinearModel | None = None,
    teacher: Teacher | None = None,
    saved: TrainingFile | None = None,
    reporter: Reporter | None = None,
    observe: Observer | None = None,
) -> Trained:
    """Train a network in place and leave it at its best epoch, its outputs divided by the trainer's unit.

    Args:
        network: The network with its head.
        task: The task.
        split: The trial's partition.
        settings: Epochs, optimiser, loss, augmentation.
        loader: How images reach the network.
        seed: Of the order of images, of augmentation, of dropout and of a fresh network.
        start: The head from which training starts; by default the network's own, which is epoch 0 in any case.
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
        trainer = Trainer(network, task, split, settings, loader, seed, teacher)
        course = _Course(trainer, network, observe)
        state = saved.load() if saved is not None else None
        if state is not None:
            course.restore(state)
        else:
            course.note(None)
            if start is not None and settings.start == "pruned":
                network.set_head(start)
                network.scale_outputs(1 / trainer.unit)
            torch.manual_seed(seed)
        _train(course, split, settings, saved, reporter or Silent(), task.spec.name)
    network.load_state_dict(course.best)
    network.eval()
    return Trained(
        epochs=tuple(course.epochs),
        best_epoch=course.best_epoch,
        validation=course.validation,
        observed=tuple(course.observed),
        predict=trainer.predict,
        unit=trainer.unit,
    )


def _train(
    course: _Course,
    split: Split,
    settings: FinetuneConfig,
    saved: TrainingFile | None,
    reporter: Reporter,
    name: str,
) -> None:
    """Train for the epochs that are left, or until training diverges."""
    done, n = course.epochs[-1].epoch, settings.epochs
    if done:
        reporter.line(f"training of {name} goes on after epoch {done} of {n}")
    with reporter.bar(f"{name}: epochs", n) as epoch_done:
        epoch_done(done)
        for epoch in range(done + 1, n + 1):
            with reporter.bar(f"epoch {epoch} of {n}: images", len(split.train)) as advance:
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
        epochs: The scores so far.
        best: State of the network at its best epoch.
        best_epoch: That epoch.
        validation: Its predictions on validation.
        observed: What the observer made of each epoch.
    """

    def __init__(self, trainer: Trainer, network: nn.Module, observe: Observer | None) -> None:
        self.trainer, self._network, self._observe = trainer, network, observe
        self.epochs: list[EpochScore] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.validation = np.zeros((0, 0))
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
        if train_loss is not None and not np.isfinite([train_loss, rmse]).all():
            return False
        self.epochs.append(EpochScore(epoch, train_loss, rmse))
        if not epoch or rmse < self.epochs[self.best_epoch].validation_rmse:
            self.best_epoch, self.validation = epoch, predicted
            self.best = {key: value.detach().clone() for key, value in self._network.state_dict().items()}
        if self._observe is not None:
            self.observed.append(self._observe(self.epochs[-1], predicted, self.trainer.predict, self.wall_s))
        return True

    def state(self) -> dict[str, Any]:
        """Return everything that training goes on from, of tensors and plain values."""
        return {
            **self.trainer.state(),
            "epochs": [[score.epoch, score.train_loss, score.validation_rmse] for score in self.epochs],
            "best": self.best,
            "best_epoch": self.best_epoch,
            "validation": torch.from_numpy(self.validation),
            "observed": json.dumps(self.observed),
            "wall_s": self.wall_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where a state was taken."""
        self.trainer.restore(state)
        self.epochs = [EpochScore(*score) for score in state["epochs"]]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.validation = state["validation"].numpy()
        self.observed = json.loads(state["observed"])
        self._earlier_s = state["wall_s"]
