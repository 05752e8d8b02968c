"""New fully connected layers on frozen features, trained until validation gets no better.

Features come from a forward pass in every epoch or from memory; all else is the same, to the order of the images.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from facetask.config import FinetuneConfig
from facetask.errors import ConfigError, DataError
from facetask.experiments.transfer.clock import Stopwatch, TimedLoader
from facetask.statistics.known import mean_of_known, spread_of_known
from facetask.tasks.metrics import scaled_rmse
from facetask.tasks.task_kind import LOSSES_ON_LOGITS
from facetask.training.augment import Augment
from facetask.training.losses import training_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.data.splits import Split
    from facetask.experiments.transfer.config import RecipeConfig
    from facetask.experiments.transfer.results import Seconds
    from facetask.tasks.satellite import Satellite

    Batch = tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.bool_] | None]

Batches = Callable[["NDArray[np.intp]"], "Iterator[Batch]"]
"""Yields rows in their order, batch by batch: rows, features ``(batch, n_features)``, which images were mirrored."""


@dataclass(frozen=True)
class Source:
    """Where features come from: of training images, possibly augmented, and of images as they are."""

    training: Batches
    plain: Batches


def live(backbone: nn.Module, loader: TimedLoader, augment: Augment | None = None) -> Source:
    """Return a source of which every reading is a forward pass."""
    mirrored: deque[NDArray[np.bool_]] = deque()  # of batches that are on their way

    def change(pixels: Tensor) -> Tensor:
        assert augment is not None
        changed = augment(pixels)
        mirrored.append(augment.mirrored)
        return changed

    def training(rows: NDArray[np.intp]) -> Iterator[Batch]:
        changing = loader if augment is None else replace(loader, change=change)
        for own, features, _ in _passing(backbone, changing, rows):
            yield own, features, None if augment is None else mirrored.popleft()

    return Source(training, lambda rows: _passing(backbone, loader, rows))


def cached(features: NDArray[np.float32], batch_size: int) -> Source:
    """Return a source of features that are known, ``(n_images, n_features)``."""

    def batches(rows: NDArray[np.intp]) -> Iterator[Batch]:
        for start in range(0, len(rows), batch_size):
            own = rows[start : start + batch_size]
            yield own, features[own], None

    return Source(batches, batches)


def augmenting(task: Satellite, settings: RecipeConfig, seed: int) -> Augment | None:
    """Return what changes training images, if anything does."""
    if not settings.augments:
        return None
    how = FinetuneConfig(flip=settings.flip, shift=settings.shift, brightness=settings.brightness)
    return Augment(how, settings.flip and task.spec.mirror_signs() is not None, np.random.default_rng(seed))


@dataclass(frozen=True)
class TrainedHead:
    """A head at its best epoch.

    Attributes:
        best_epoch: That epoch, from 1.
        validation: Its predictions on validation, ``(n_validation, n_outputs)``.
        validation_by_epoch: Validation RMSE after each epoch.
        seconds: What each epoch took.
        predict: Returns its predictions for rows, ``(len(rows), n_outputs)``.
    """

    best_epoch: int
    validation: NDArray[np.float64]
    validation_by_epoch: tuple[float, ...]
    seconds: tuple[Seconds, ...]
    predict: Callable[[Batches, NDArray[np.intp]], NDArray[np.float64]]


def train_head(
    task: Satellite,
    split: Split,
    settings: RecipeConfig,
    n_features: int,
    seed: int,
    source_of: Callable[[int], Source],
    clock: Stopwatch,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda done: None,
) -> TrainedHead:
    """Train a new head on frozen features.

    Args:
        task: The task.
        split: The trial's partition.
        settings: Its layers, optimiser and stop rule.
        n_features: How many features an image has.
        seed: Of the head's first weights, of dropout and of the order of images.
        source_of: Where the features of an epoch come from, epochs being counted from 1.
        clock: Counts the time.
        device: Where the head is trained.
        advance: Counts epochs.

    Raises:
        ConfigError: If training diverges in the first epoch.
        DataError: If there is one training image only.
    """
    if len(split.train) < 2:
        raise DataError(f"task {task.spec.name!r}: one training image; layers are trained on two or more")
    with torch.random.fork_rng(), clock.part("train"):
        torch.manual_seed(seed)
        training = _HeadTraining(task, split, settings, n_features, seed, device)
        rmses: list[float] = []
        seconds: list[Seconds] = []
        best, best_epoch, validation = training.state(), 0, np.zeros((0, 0))
        while len(rmses) < settings.epochs and len(rmses) - best_epoch < settings.patience:
            source = source_of(len(rmses) + 1)
            training.epoch(source.training)
            rmse, predicted = training.score(source.plain)
            if not np.isfinite(rmse):
                break
            rmses.append(rmse)
            if not best_epoch or rmse < rmses[best_epoch - 1]:
                best, best_epoch, validation = training.state(), len(rmses), predicted
            seconds.append(clock.take())
            advance(1)
        if not best_epoch:
            raise ConfigError(
                f"recipe: training of {task.spec.name!r} diverged in its first epoch; use a smaller "
                f"recipe.learning_rate than {settings.learning_rate:g}"
            )
        training.head.load_state_dict(best)
    return TrainedHead(best_epoch, validation, tuple(rmses), tuple(seconds), training.predict)


class _HeadTraining:
    """A head in training, its outputs in units of its own."""

    def __init__(
        self, task: Satellite, split: Split, settings: RecipeConfig, n_features: int, seed: int, device: str
    ) -> None:
        self._task, self._split, self._settings, self._device = task, split, settings, device
        self._targets, self._loss = task.targets, task.kind.loss
        train = self._targets[split.train]
        self._scale = task.kind.scale(train)
        if self._loss in LOSSES_ON_LOGITS:
            self._unit, start = np.ones(train.shape[1]), np.zeros(train.shape[1])
        else:  # as when a whole network is finetuned
            self._unit = spread_of_known(train) if self._loss == "smooth-l1" else self._scale
            start = mean_of_known(train) / self._unit
        self._mirror_signs = task.spec.mirror_signs() if settings.flip else None
        self._rng = np.random.default_rng(seed)
        self.head = new_head(n_features, settings, start).to(device)
        self._optimiser = _optimiser(self.head, settings)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the head's state."""
        return copy.deepcopy(self.head.state_dict())

    def epoch(self, batches: Batches) -> None:
        """Train on every image once."""
        order = self._rng.permutation(self._split.train)
        if len(order) % self._settings.batch_size == 1:
            order = order[:-1]  # a batch of one image has no statistics
        self.head.train()
        for rows, features, mirrored in batches(order):
            wanted = self._targets[rows]
            if mirrored is not None and self._mirror_signs is not None:
                wanted[mirrored] *= self._mirror_signs
            outputs = self.head(torch.from_numpy(features).to(self._device))
            loss = training_loss(outputs, wanted / self._unit, self._loss)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()

    def predict(self, batches: Batches, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return predictions for rows, ``(len(rows), n_outputs)``, in the label's unit."""
        self.head.eval()
        with torch.no_grad():
            found = [self.head(torch.from_numpy(x).to(self._device)).cpu().numpy() for _, x, _ in batches(rows)]
        with np.errstate(over="ignore", invalid="ignore"):  # where training has diverged
            return self._task.kind.activate(np.concatenate(found).astype(np.float64) * self._unit)

    def score(self, batches: Batches) -> tuple[float, NDArray[np.float64]]:
        """Return the validation RMSE and the predictions that it is of."""
        predicted = self.predict(batches, self._split.validation)
        with np.errstate(over="ignore", invalid="ignore"):
            return scaled_rmse(predicted, self._targets[self._split.validation], self._scale), predicted


def new_head(n_features: int, settings: RecipeConfig, start: NDArray[np.float64]) -> nn.Sequential:
    """Return new fully connected layers, whose outputs are about ``start``, ``(n_outputs,)``, before any training.

    A batch norm before them brings all features to one scale.
    """
    layers: list[nn.Module] = [nn.BatchNorm1d(n_features, affine=False)]
    width = n_features
    for hidden in settings.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(settings.dropout)]
        width = hidden
    last = nn.Linear(width, len(start))
    with torch.no_grad():
        last.bias.copy_(torch.from_numpy(start))
    return nn.Sequential(*layers, last)


def _optimiser(head: nn.Module, settings: RecipeConfig) -> torch.optim.Optimizer:
    """Return the optimiser; biases are not decayed."""
    groups = [
        {"params": [parameter], "weight_decay": settings.weight_decay if parameter.ndim > 1 else 0.0}
        for parameter in head.parameters()
    ]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _passing(backbone: nn.Module, loader: TimedLoader, rows: NDArray[np.intp]) -> Iterator[Batch]:
    """Yield the features of images that pass through the network now."""
    passing = loader.outputs(backbone, rows)
    while True:
        with loader.clock.part("forward"):
            batch = next(passing, None)
        if batch is None:
            return
        yield *batch, None
