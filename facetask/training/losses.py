"""What training minimises; targets that are missing take no part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.tasks.task_kind import Loss

ALPHA, BETA, GAMMA = -4.45, 5.45, 1.0
SMALLEST_LOSS = 1e-9


def training_loss(outputs: Tensor, wanted: NDArray[np.float64], loss: Loss, smoothing: float = 0.0) -> Tensor:
    """Return the mean loss of a batch of outputs and targets, both ``(batch, n_outputs)``, in the trainer's unit.

    Args:
        outputs: Of the network.
        wanted: Targets, NaN where missing; a squared or smooth L1 error is the mean over the known ones, the others
            over the images of which something is known. The loss of a batch of which nothing is known is 0.
        loss: Which.
        smoothing: Share of each label that is spread over all classes, in the losses on log-odds.
    """
    truth = torch.from_numpy(wanted).to(outputs)
    some = ~truth.isnan().all(dim=1)
    if not some.any():
        return outputs.sum() * 0.0
    if not some.all():
        outputs, truth = outputs[some], truth[some]
    if loss == "cross-entropy":
        return F.cross_entropy(outputs, truth, label_smoothing=smoothing)
    if loss == "partial-bce":
        return partial_bce(outputs, truth * (1 - smoothing) + smoothing / 2)
    known = ~truth.isnan()
    outputs, truth = outputs[known], truth[known]
    return F.smooth_l1_loss(outputs, truth) if loss == "smooth-l1" else F.mse_loss(outputs, truth)


def loss_of_guessing(wanted: NDArray[np.float64], loss: Loss, smoothing: float = 0.0) -> float:
    """Return the mean loss of the best constant outputs for targets ``(n, n_outputs)``, 1 where that is nothing.

    All losses are convex in the outputs, so that it is found by descending from the mean target.
    """
    known = ~np.isnan(wanted)
    mean = np.where(known, wanted, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    constant = torch.from_numpy(mean).requires_grad_()
    optimiser = torch.optim.LBFGS([constant], max_iter=100, line_search_fn="strong_wolfe")

    def measured() -> Tensor:
        optimiser.zero_grad()
        found = training_loss(constant.expand(wanted.shape), wanted, loss, smoothing)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimiser.step(measured)  # type: ignore[no-untyped-call]
    least = float(measured().detach())
    return least if least > SMALLEST_LOSS else 1.0


def partial_bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over a batch of the binary cross-entropy of partly known labels.

    An image's loss is g(p) / C · Σ over its known labels, of C, where p is the share that is known and
    g(p) = αp^γ + β: it is 1 where all are known, and an image with few known labels counts for more than these alone.

    Args:
        logits: ``(batch, C)``.
        truth: 0, 1 or NaN, ``(batch, C)``.

    Source: Durand, Mehrasa and Mori 2019, "Learning a deep ConvNet for multi-label classification with partial labels".
    """
    known = ~truth.isnan()
    share = known.to(logits).mean(dim=1)
    each = F.binary_cross_entropy_with_logits(logits, torch.where(known, truth, 0.0), reduction="none")
    summed = torch.where(known, each, 0.0).sum(dim=1)
    return ((ALPHA * share**GAMMA + BETA) / logits.shape[1] * summed).mean()


def distillation_loss(responses: Tensor, wanted: NDArray[np.float32], spread: NDArray[np.float32]) -> Tensor:
    """Return the mean squared distance of pooled responses from those that are wanted, in standard deviations.

    Args:
        responses: Of the network in training, ``(batch, n_filters)``.
        wanted: Of the network to stay near to, ``(batch, n_filters)``.
        spread: Standard deviation of each filter's wanted responses, ``(n_filters,)``.
    """
    distance = responses - torch.from_numpy(wanted).to(responses)
    return (distance / torch.from_numpy(spread).to(responses)).square().mean()
