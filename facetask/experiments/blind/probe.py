"""A fresh non-linear probe: a hidden layer beside a linear one, which together read a task from responses."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from facetask.statistics.multinomial import softmax
from facetask.tasks.calibration import sigmoid
from facetask.training.losses import training_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.data.splits import Split
    from facetask.tasks.satellite import Satellite
    from facetask.tasks.task_kind import Loss

    Array = NDArray[np.float64]

HIDDEN = 64
BATCH = 64
MOST_EPOCHS = 100
PATIENCE = 8
LEARNING_RATE = 2e-3
DECAYS = (0.01, 1.0)
_SMALLEST_SPREAD = 1e-10
_LOSSES: dict[str, Loss] = {"nominal": "cross-entropy", "binary": "partial-bce", "multilabel": "partial-bce"}


class _Network(nn.Module):
    """A hidden layer and, beside it, a linear one: many classes would not pass through the hidden layer alone."""

    def __init__(self, n_filters: int, n_outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(n_filters, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_outputs))
        self.linear = nn.Linear(n_filters, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return outputs ``(n, n_outputs)`` of standardised responses ``(n, n_filters)``."""
        outputs: torch.Tensor = self.hidden(x) + self.linear(x)
        return outputs


def probe(x: NDArray[np.floating], task: Satellite, split: Split, seed: int) -> dict[str, float]:
    """Train a probe on the training split, tune it on validation, and return its metrics on test.

    Validation decides when training stops and how strongly weights decay, and learns what decides on its outputs, as
    with every head. Responses, and the targets of regressions, are standardised by the training images.

    Args:
        x: Responses of all images, ``(n_images, n_filters)``.
        task: The task to be read.
        split: The trial's partition of it.
        seed: Of the initial weights and the batches.
    """
    kind, loss = task.kind, _LOSSES.get(task.spec.kind, "mse")
    responses = _standardised(np.asarray(x, dtype=np.float64), split.train)
    inputs = torch.from_numpy(responses.astype(np.float32))
    targets = task.targets
    centre, unit = np.zeros(targets.shape[1]), np.ones(targets.shape[1])
    if loss == "mse":
        centre, unit = np.nanmean(targets[split.train], axis=0), np.nanstd(targets[split.train], axis=0)
        unit = np.where(unit > 0, unit, 1.0)
    wanted = (targets - centre) / unit
    networks = [_trained(inputs, wanted, loss, decay, split, seed) for decay in DECAYS]
    _, network = min(networks, key=lambda found: found[0])
    with torch.no_grad():
        outputs = [network(inputs[rows]).numpy().astype(np.float64) for rows in (split.validation, split.test)]
    activate = {"cross-entropy": softmax, "partial-bce": sigmoid}.get(loss, lambda out: out * unit + centre)
    validation, test = (activate(part) for part in outputs)
    decision = kind.learn(validation, task.values[split.validation])
    return kind.metrics(test, task.values[split.test], decision, kind.scale(targets[split.train]))


def chance(task: Satellite, split: Split) -> dict[str, float]:
    """Return the test metrics of the trivial prediction, which looks at no image."""
    kind, targets = task.kind, task.targets
    validation, test = (kind.baseline(targets[split.train], len(part)) for part in (split.validation, split.test))
    decision = kind.learn(validation, task.values[split.validation])
    return kind.metrics(test, task.values[split.test], decision, kind.scale(targets[split.train]))


def _standardised(x: Array, train: NDArray[np.intp]) -> Array:
    """Return responses in standard deviations of the training images; those that are constant there as zeros."""
    mean, spread = x[train].mean(axis=0), x[train].std(axis=0)
    live = spread > _SMALLEST_SPREAD * np.maximum(np.abs(mean), 1e-300)
    return np.where(live, (x - mean) / np.where(live, spread, 1.0), 0.0)


def _trained(
    inputs: torch.Tensor, wanted: Array, loss: Loss, decay: float, split: Split, seed: int
) -> tuple[float, nn.Module]:
    """Return the validation loss and the network of the best epoch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network(inputs.shape[1], wanted.shape[1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=decay)
    rng = np.random.default_rng(seed)
    best, kept, since = float("inf"), network, 0
    for _ in range(MOST_EPOCHS):
        order = rng.permutation(split.train)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            optimiser.zero_grad()
            training_loss(network(inputs[rows]), wanted[rows], loss).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            found = float(training_loss(network(inputs[split.validation]), wanted[split.validation], loss))
        since += 1
        if found < best:
            best, kept, since = found, copy.deepcopy(network), 0
        if since >= PATIENCE:
            break
    return best, kept
