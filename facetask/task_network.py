"""A pruned network with its head: what is finetuned, saved and used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facetask.regression import LinearModel


class TaskNetwork(nn.Module):
    """A backbone that ends at the cut's global average pool, and a linear head on it.

    Args:
        backbone: Maps normalised images ``(batch, channels, height, width)`` to pooled responses
            ``(batch, n_filters)``.
        n_filters: Filters kept at the cut.
        n_outputs: Outputs of the head.
    """

    def __init__(self, backbone: nn.Module, n_filters: int, n_outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(n_filters, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's outputs, ``(batch, n_outputs)``."""
        outputs: Tensor = self.head(self.backbone(x))
        return outputs

    @torch.no_grad()
    def set_head(self, model: LinearModel) -> None:
        """Give the head a linear model's coefficients."""
        self.head.weight.copy_(torch.from_numpy(model.coef.T))
        self.head.bias.copy_(torch.from_numpy(model.intercept))

    @torch.no_grad()
    def scale_outputs(self, factor: NDArray[np.float64]) -> None:
        """Multiply each of the head's outputs by a factor, ``(n_outputs,)``."""
        factors = torch.from_numpy(factor).to(self.head.weight)
        self.head.weight.mul_(factors[:, None])
        self.head.bias.mul_(factors)
