"""Torch-Pruning's criteria, as rivals: the same cut network with the same head, pruned by its own pruner.

Nothing in facetask needs Torch-Pruning; where it is not installed, its rows are left out.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from facetask.errors import SurgeryError
from facetask.networks.cost import network_cost
from facetask.statistics.known import spread_of_known
from facetask.tasks.task_kind import LOSSES_ON_LOGITS
from facetask.training.losses import training_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facetask.data.loader import ImageLoader
    from facetask.data.splits import Split
    from facetask.networks.task_network import TaskNetwork
    from facetask.tasks.satellite import Satellite
    from facetask.tasks.task_kind import Loss

Criterion = Literal["magnitude", "taylor"]
STEP, LARGEST_STEP, STEPS, HALVINGS = 0.06, 0.9, 100, 10
_BATCH = 16


def installed_version() -> str | None:
    """Return Torch-Pruning's version, None where it is not installed."""
    return version("torch-pruning") if importlib.util.find_spec("torch_pruning") else None


def prune_by_rival(
    network: TaskNetwork,
    criterion: Criterion,
    budget: float,
    input_shape: Sequence[int],
    gradients: TaskGradients,
) -> TaskNetwork:
    """Return a smaller copy of a network whose MACs are as near to a budget as its pruner comes.

    Filters are ranked over the whole network and removed a few per cent at a time; the criterion looks at what is left
    before every step, and the last step is halved until it meets the budget.

    Args:
        network: The cut network with its fitted head.
        criterion: ``magnitude`` ranks by the weights' norms, ``taylor`` by the loss's first-order change.
        budget: Multiply–accumulates for one image.
        input_shape: Channels, height and width.
        gradients: Computes the loss's gradients.

    Raises:
        SurgeryError: If the pruner fails, or cannot make the network so small.

    Source: Fang et al. 2023, "DepGraph: Towards any structural pruning"; https://github.com/VainF/Torch-Pruning.
    """
    step = STEP
    for _ in range(STEPS):
        if criterion == "taylor":
            gradients.compute(network)
        smaller = _pruned(network, criterion, step, input_shape)
        if network_cost(smaller, input_shape).macs <= budget:
            return _last_step(network, smaller, criterion, step, budget, input_shape)
        if _width(smaller) < _width(network):
            network = smaller
        else:
            step *= 1.5
        if step > LARGEST_STEP:
            break
    left = network_cost(network, input_shape).macs
    raise SurgeryError(f"Torch-Pruning cannot make it so small: {left:,} MACs are left, wanted were {budget:,.0f}")


class TaskGradients:
    """The gradients of a task's loss on some training images.

    Args:
        task: The task.
        split: The trial's partition.
        loss: Which loss.
        loader: How images reach the network.
        rows: The images.
    """

    def __init__(self, task: Satellite, split: Split, loss: Loss, loader: ImageLoader, rows: NDArray[np.intp]) -> None:
        self._targets, self._loss, self._loader, self._rows = task.targets, loss, loader, rows
        train = self._targets[split.train]
        self._unit = np.ones(train.shape[1]) if loss in LOSSES_ON_LOGITS else spread_of_known(train)

    def compute(self, network: TaskNetwork) -> None:
        """Leave the mean loss's gradients in a network's parameters; it is in evaluation mode, as it is finetuned."""
        network.to(self._loader.device).eval().zero_grad()
        unit = torch.from_numpy(self._unit).float()
        batches = [np.arange(i, min(i + _BATCH, len(self._rows))) for i in range(0, len(self._rows), _BATCH)]
        for rows, inputs in self._loader.batches(self._rows, batches):
            outputs = network(inputs) / unit.to(inputs.device)
            loss = training_loss(outputs, self._targets[rows] / self._unit, self._loss)
            (loss * len(rows) / len(self._rows)).backward()  # type: ignore[no-untyped-call]


def _last_step(
    before: TaskNetwork,
    after: TaskNetwork,
    criterion: Criterion,
    step: float,
    budget: float,
    input_shape: Sequence[int],
) -> TaskNetwork:
    """Return the network nearest to the budget between one that is larger and one that is not."""
    best, low, high = after, 0.0, step
    distance = abs(network_cost(after, input_shape).macs - budget)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = _pruned(before, criterion, middle, input_shape)
        macs = network_cost(tried, input_shape).macs
        if abs(macs - budget) < distance:
            best, distance = tried, abs(macs - budget)
        low, high = (low, middle) if macs <= budget else (middle, high)
    return best


def _pruned(network: TaskNetwork, criterion: Criterion, share: float, input_shape: Sequence[int]) -> TaskNetwork:
    """Return a copy without about a share of its channels."""
    import torch_pruning as tp  # type: ignore[import-untyped]

    smaller = copy.deepcopy(network)
    for own, theirs in zip(smaller.parameters(), network.parameters(), strict=True):
        own.grad = None if theirs.grad is None else theirs.grad.clone()
    importance: Any = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "taylor": tp.importance.GroupTaylorImportance,
    }
    example = (next(smaller.parameters()).new_zeros(1, *input_shape),)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = tp.MetaPruner(
                smaller,
                example,
                importance[criterion](),
                global_pruning=True,
                pruning_ratio=share,
                ignored_layers=smaller.linear,
            )
            pruner.step()
            with torch.no_grad():
                smaller(*example)
    except Exception as error:  # whatever it meets
        raise SurgeryError(f"Torch-Pruning fails on this network ({type(error).__name__}: {error})") from error
    smaller.zero_grad()
    return smaller.eval()


def _width(network: TaskNetwork) -> int:
    """Return how many parameters a network has."""
    return sum(parameter.numel() for parameter in network.parameters())
