"""Stage 4: train the pruned network on the task's images.

Batch-norm statistics stay frozen; the learning rate rises and falls once (one cycle). Validation decides which epoch is
kept; epoch 0, the starting point, takes part.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facetask.known import spread_of_known
from facetask.losses import training_loss
from facetask.metrics import scaled_rmse
from facetask.task_kind import LOSSES_ON_LOGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import FinetuneConfig
    from facetask.loader import ImageLoader
    from facetask.progress import Advance
    from facetask.regression import LinearModel
    from facetask.satellite import Satellite
    from facetask.splits import Split
    from facetask.task_kind import Decision
    from facetask.task_network import TaskNetwork


SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class EpochScore:
    """One epoch: mean training loss (None at the start) and validation RMSE."""

    epoch: int
    train_loss: float | None
    validation_rmse: float


@dataclass(frozen=True)
class Finetuned:
    """The finetuned network of one trial.

    Attributes:
        epochs: Every epoch's scores, from the starting point; an epoch that diverges is the end, and left out.
        best_epoch: The epoch that was kept.
        decision: What was learned on validation for its outputs.
        metrics: Its metrics on test.
        confusion: Its decisions on test, as in :class:`facetask.heads.Head`.
    """

    epochs: tuple[EpochScore, ...]
    best_epoch: int
    decision: Decision
    metrics: dict[str, float]
    confusion: list[list[int]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Finetuned:
        """Return what :meth:`to_json` described."""
        return cls(**{**fields, "epochs": tuple(EpochScore(**epoch) for epoch in fields["epochs"])})


def finetune(
    network: TaskNetwork,
    task: Satellite,
    split: Split,
    settings: FinetuneConfig,
    loader: ImageLoader,
    seed: int,
    advance: Advance = lambda done: None,
    *,
    start: LinearModel | None = None,
) -> Finetuned:
    """Train a network in place and leave it at its best epoch.

    Args:
        network: The pruned network with its refitted head.
        task: The satellite task.
        split: The trial's partition.
        settings: Epochs, optimiser, loss, augmentation.
        loader: How images reach the network.
        seed: Of the order of images, of augmentation and of dropout.
        advance: Counts training images done.
        start: The head from which training starts; by default the network's own, which is epoch 0 in any case.

    Raises:
        ConfigError: If the loss does not fit the task's kind.
    """
    kind, targets = task.kind, task.targets
    scale = kind.scale(targets[split.train])
    network.to(device=loader.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer = _Trainer(network, task, split, settings, loader, seed, advance)

    def predict(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        return kind.activate(loader.all_outputs(network, rows).astype(np.float64) * trainer.unit)

    def score() -> tuple[float, NDArray[np.float64]]:
        with np.errstate(over="ignore", invalid="ignore"):  # where training has destroyed the network
            predicted = predict(split.validation)
            return scaled_rmse(predicted, targets[split.validation], scale), predicted

    rmse, predicted = score()
    epochs = [EpochScore(0, None, rmse)]
    best = (rmse, 0, predicted, _snapshot(network))
    if start is not None:
        network.set_head(start)
        network.scale_outputs(1 / trainer.unit)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for epoch in range(1, settings.epochs + 1):
            train_loss = trainer.epoch()
            rmse, predicted = score()
            if not np.isfinite([train_loss, rmse]).all():
                break
            epochs.append(EpochScore(epoch, train_loss, rmse))
            if rmse < best[0]:
                best = (rmse, epoch, predicted, _snapshot(network))
    _, best_epoch, predicted, state = best
    network.load_state_dict(state)
    network.eval()
    decision = kind.learn(predicted, task.values[split.validation])
    predicted, values = predict(split.test), task.values[split.test]
    network.scale_outputs(trainer.unit)
    metrics = kind.metrics(predicted, values, decision, scale)
    return Finetuned(tuple(epochs), best_epoch, decision, metrics, kind.confusion(predicted, values))


class _Trainer:
    """A network on its way through the epochs, its outputs in units of its own.

    Attributes:
        unit: What targets are divided by in training, ``(n_outputs,)``, so that steps mean the same for all outputs.
    """

    def __init__(
        self,
        network: TaskNetwork,
        task: Satellite,
        split: Split,
        settings: FinetuneConfig,
        loader: ImageLoader,
        seed: int,
        advance: Advance,
    ) -> None:
        self._loss = task.kind.choose_loss(settings.loss)
        self._network, self._loader, self._advance = network, loader, advance
        self._rows, self._targets, self._batch_size = split.train, task.targets, settings.batch_size
        train = self._targets[split.train]
        if self._loss in LOSSES_ON_LOGITS:
            unit = np.ones(train.shape[1])
        else:
            # Smooth L1 turns from square to linear near one standard deviation, whether of years or of degrees.
            unit = spread_of_known(train) if self._loss == "smooth-l1" else task.kind.scale(train)
        self.unit = np.exp2(np.round(np.log2(unit)))  # by a power of two, scaling the head there and back is exact
        self._mirror_sign = {"keep": 1.0, "negate": -1.0, "never": None}[task.spec.flip] if settings.flip else None
        self._rng = np.random.default_rng(seed)
        self._augment = _Augment(settings, self._mirror_sign is not None, self._rng)
        network.scale_outputs(1 / self.unit)
        self._optimiser = _optimiser(network, settings)
        steps = settings.epochs * -(-len(split.train) // settings.batch_size)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: one_cycle((step + 0.5) / steps, settings.warmup)
        )

    def epoch(self) -> float:
        """Train on every image once; return the mean loss, or what is not finite at the first batch that gives it."""
        order = self._rng.permutation(len(self._rows))
        batches = np.array_split(order, range(self._batch_size, len(order), self._batch_size))
        total = 0.0
        _train_mode(self._network)
        for rows, inputs in self._loader.batches(self._rows, batches, self._augment):
            wanted = self._targets[rows]
            if self._mirror_sign is not None:
                wanted[self._augment.mirrored] *= self._mirror_sign
            loss = training_loss(self._network(inputs), wanted / self.unit, self._loss)
            total += loss.item() * len(rows)
            if not np.isfinite(total):
                break
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            self._schedule.step()
            self._advance(len(rows))
        return total / len(order)


def one_cycle(position: float, warmup: float) -> float:
    """Return the learning rate, as a share of its peak, at a position of the training in (0, 1).

    It rises from 1/25 to 1 over the warm-up and falls to 0 after it, each along half a cosine.

    Source: Smith and Topin 2018, "Super-convergence".
    """
    if position < warmup:
        return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * position / warmup)) / 2
    return (1 + math.cos(math.pi * (position - warmup) / (1 - warmup))) / 2


class _Augment:
    """Random mirroring, shifting and brightness of a batch of uint8 pixels; remembers which images it mirrored."""

    def __init__(self, settings: FinetuneConfig, mirror: bool, rng: np.random.Generator) -> None:
        self._settings, self._mirror, self._rng = settings, mirror, rng
        self.mirrored: NDArray[np.bool_] = np.zeros(0, dtype=bool)

    def __call__(self, pixels: Tensor) -> Tensor:
        n, _, height, width = pixels.shape
        self.mirrored = self._rng.random(n) < 0.5 if self._mirror else np.zeros(n, dtype=bool)
        flipped = torch.from_numpy(self.mirrored)
        pixels = torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        if self._settings.shift > 0:
            reach = [int(self._settings.shift * side) for side in (height, width)]
            padded = F.pad(pixels.float(), (reach[1], reach[1], reach[0], reach[0]), mode="replicate").to(pixels.dtype)
            corners = [self._rng.integers(0, 2 * side + 1, n) for side in reach]
            pixels = torch.stack(
                [
                    padded[i, :, top : top + height, left : left + width]
                    for i, (top, left) in enumerate(zip(*corners, strict=True))
                ]
            )
        if self._settings.brightness > 0:
            spread = self._settings.brightness
            factor = torch.from_numpy(self._rng.uniform(1 - spread, 1 + spread, n)).float().view(-1, 1, 1, 1)
            pixels = (pixels.float() * factor).round().clamp(0, 255).to(pixels.dtype)
        return pixels


def _optimiser(network: TaskNetwork, settings: FinetuneConfig) -> torch.optim.Optimizer:
    """Return the optimiser; biases and scales are not decayed.

    Adam moves every weight by about its learning rate, whatever the weight's size. A pretrained network's layers differ
    in scale by factors of a thousand, so the scaled variant measures each tensor's step by the tensor itself. A head's
    bias may be near zero by chance; it steps in units of the scaled outputs.
    """
    groups = []
    for name, parameter in network.named_parameters():
        size = 1.0 if name == "head.bias" else float(parameter.detach().square().mean().sqrt())
        scale = max(size, SMALLEST_SCALE) if settings.optimiser == "scaled-adamw" else 1.0
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "lr": settings.learning_rate * scale, "weight_decay": decay})
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _train_mode(network: nn.Module) -> None:
    """Switch to training, batch-norm statistics frozen: a few thousand faces estimate them worse than the base did."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _snapshot(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state dict."""
    return {key: value.detach().clone() for key, value in network.state_dict().items()}
