"""One epoch of training: the loss of a batch, the step that follows, and all that the next epoch goes on from.

The learning rate rises and falls once over all epochs (one cycle).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from facetask.data.splits import Split
from facetask.training.augment import Augment
from facetask.training.fresh import start_afresh
from facetask.training.losses import distillation_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import FinetuneConfig
    from facetask.data.loader import ImageLoader
    from facetask.networks.task_network import TaskNetwork
    from facetask.progress import Advance
    from facetask.training.objective import Objective


SMALLEST_SCALE = 1e-6
FRESH_IMAGES = 64
"""On so many training images a fresh network's layers are scaled."""


@dataclass(frozen=True)
class Teacher:
    """What pooled responses are held to while the network is trained.

    Attributes:
        responses: Of all images, ``(n_images, n_filters)``.
        spread: Their standard deviation on training, ``(n_filters,)``; 1 where they are constant.
    """

    responses: NDArray[np.float32]
    spread: NDArray[np.float32]

    @classmethod
    def of(cls, responses: NDArray[np.float32], split: Split) -> Teacher:
        """Return the base network's responses of the kept filters as a teacher."""
        spread = responses[split.train].std(axis=0)
        return cls(responses, np.where(spread > 0, spread, 1).astype(np.float32))


class Trainer:
    """A network in training for one or more tasks, its outputs in units of its own."""

    def __init__(
        self,
        network: TaskNetwork,
        objective: Objective,
        settings: FinetuneConfig,
        loader: ImageLoader,
        seed: int,
        teacher: Teacher | None,
    ) -> None:
        self._network, self._objective, self._settings, self._loader = network, objective, settings, loader
        self._teacher = teacher
        self.rows = Split.of_any([part.split for part in objective.parts]).train
        self._rng = np.random.default_rng(seed)
        self._augment = Augment(settings, settings.flip and objective.mirrors, self._rng)
        network.to(device=loader.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.scale_outputs(1 / objective.unit)
        if settings.start == "scratch":
            self._start_afresh()
        self._optimiser = _optimiser(network, settings)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser,
            lambda step: one_cycle((step + 0.5) / (settings.epochs * self._n_batches()), settings.warmup),
        )

    def predict(self, rows: Sequence[NDArray[np.intp]]) -> tuple[NDArray[np.float64], ...]:
        """Return each task's predictions for rows of its own, ``(len(rows), n_outputs)``, in the label's unit."""
        together = reduce(np.union1d, rows)
        outputs = self._loader.all_outputs(self._network, together).astype(np.float64)
        return tuple(
            part.predictions(outputs if own is together else outputs[np.searchsorted(together, own)])
            for part, own in zip(self._objective.parts, rows, strict=True)
        )

    def score(self) -> tuple[list[float], tuple[NDArray[np.float64], ...]]:
        """Return each task's validation RMSE and the predictions that it is of."""
        parts = self._objective.parts
        predicted = self.predict([part.split.validation for part in parts])
        return [part.rmse(own) for part, own in zip(parts, predicted, strict=True)], predicted

    def epoch(self, advance: Advance) -> float:
        """Train on every image once; return the mean loss, or what is not finite at the first batch that gives it."""
        order = self._rng.permutation(len(self.rows))
        size = self._settings.batch_size
        batches = np.array_split(order, range(size, size * self._n_batches(), size))
        total = 0.0
        _train_mode(self._network, self._settings)
        for batch, inputs in self._loader.batches(self.rows, batches, self._augment):
            loss = self._batch_loss(batch, inputs)
            total += loss.item() * len(batch)
            if not np.isfinite(total):
                break
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            self._schedule.step()
            advance(len(batch))
        return total / len(order)

    def state(self) -> dict[str, Any]:
        """Return everything that its steps go on from, of tensors and plain values."""
        return {
            "network": self._network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "order": json.dumps(self._rng.bit_generator.state),
            "random": torch.random.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where a state was taken."""
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._rng.bit_generator.state = json.loads(state["order"])
        torch.random.set_rng_state(state["random"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])

    def _n_batches(self) -> int:
        """Return how many steps an epoch has; statistics of a last batch of one image would be none."""
        n, size = len(self.rows), self._settings.batch_size
        alone = self._settings.batch_norm == "train" and n > size and n % size == 1
        return -(-n // size) - alone

    def _batch_loss(self, rows: NDArray[np.intp], inputs: Tensor) -> Tensor:
        """Return the loss of a batch of images."""
        mirrored, alpha = self._augment.mirrored, self._settings.mixup
        if alpha:
            share, other = self._rng.beta(alpha, alpha), self._rng.permutation(len(rows))
            inputs = share * inputs + (1 - share) * inputs[torch.from_numpy(other)]
        with torch.set_grad_enabled(self._settings.trains == "all"):
            responses = self._network.backbone(inputs)
        outputs = self._network.read(responses)
        loss = self._objective.loss_of(outputs, rows, mirrored)
        if alpha:
            loss = share * loss + (1 - share) * self._objective.loss_of(outputs, rows[other], mirrored[other])
        as_they_are = ~mirrored  # what the base network responds to a mirrored image is not known
        if self._teacher is not None and self._settings.distill and as_they_are.any():
            taught = self._teacher.responses[rows[as_they_are]]
            distance = distillation_loss(responses[torch.from_numpy(as_they_are)], taught, self._teacher.spread)
            loss = loss + self._settings.distill * distance
        return loss

    def _start_afresh(self) -> None:
        """Draw the network's parameters anew; what is regressed starts from the mean label."""
        few = self._rng.permutation(self.rows)[:FRESH_IMAGES]
        ((_, inputs),) = self._loader.batches(few, [np.arange(len(few))])
        start_afresh(self._network.backbone, inputs)
        for head, part in zip(self._network.linear, self._objective.parts, strict=True):
            head.reset_parameters()
            with torch.no_grad():
                head.bias.copy_(torch.from_numpy(part.start))


def one_cycle(position: float, warmup: float) -> float:
    """Return the learning rate, as a share of its peak, at a position of the training in (0, 1).

    It rises from 1/25 to 1 over the warm-up and falls to 0 after it, each along half a cosine.

    Source: Smith and Topin 2018, "Super-convergence".
    """
    if position < warmup:
        return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * position / warmup)) / 2
    return (1 + math.cos(math.pi * (position - warmup) / (1 - warmup))) / 2


def _optimiser(network: TaskNetwork, settings: FinetuneConfig) -> torch.optim.Optimizer:
    """Return the optimiser; biases and scales are not decayed.

    Adam moves every weight by about its learning rate, whatever the weight's size. A pretrained network's layers differ
    in scale by factors of a thousand, so the scaled variant measures each tensor's step by the tensor itself. A head's
    bias may be near zero by chance; it steps in units of the scaled outputs. So do the shifts of a fresh network, which
    are zero.
    """
    groups = []
    named = network.heads.named_parameters("heads") if settings.trains == "head" else network.named_parameters()
    for name, parameter in named:
        size = float(parameter.detach().square().mean().sqrt())
        if (name.startswith("heads.") and name.endswith(".bias")) or (settings.start == "scratch" and size == 0):
            size = 1.0
        scale = max(size, SMALLEST_SCALE) if settings.optimiser == "scaled-adamw" else 1.0
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.append({"params": [parameter], "lr": settings.learning_rate * scale, "weight_decay": decay})
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _train_mode(network: TaskNetwork, settings: FinetuneConfig) -> None:
    """Switch to training what is trained; batch-norm statistics stay unless they are wanted."""
    network.train()
    if settings.trains == "head":
        network.backbone.eval()
    if settings.batch_norm == "frozen":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
