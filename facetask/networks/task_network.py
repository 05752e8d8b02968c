"""A pruned network with its heads, one for each task that it serves: what is finetuned, saved and used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facetask.statistics.regression import LinearModel


class TaskNetwork(nn.Module):
    """A backbone that ends at one or more cuts' global average pools, and each task's linear head on its own cut's.

    Args:
        backbone: Maps normalised images ``(batch, channels, height, width)`` to pooled responses
            ``(batch, n_filters)``.
        heads: For each task the columns of the pooled responses that its head reads, and the head's outputs.

    Attributes:
        backbone: The backbone.
        heads: The heads, in the order of the tasks.
        reads: The columns that each reads.
    """

    def __init__(self, backbone: nn.Module, heads: Sequence[tuple[slice, int]]) -> None:
        super().__init__()
        self.backbone = backbone
        self.reads = tuple(columns for columns, _ in heads)
        self.heads = nn.ModuleList(nn.Linear(columns.stop - columns.start, n_outputs) for columns, n_outputs in heads)

    @property
    def n_outputs(self) -> tuple[int, ...]:
        """Outputs of each head."""
        return tuple(head.out_features for head in self.linear)

    @property
    def linear(self) -> list[nn.Linear]:
        """The heads, by their type."""
        return list(self.heads)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return all heads' outputs side by side, ``(batch, n_outputs)``."""
        return torch.cat(self.read(self.backbone(x)), 1)

    def read(self, responses: Tensor) -> tuple[Tensor, ...]:
        """Return each head's outputs, ``(batch, n_outputs)``, for pooled responses ``(batch, n_filters)``."""
        return tuple(head(own) for head, own in zip(self.heads, self.read_by(responses), strict=True))

    def read_by(self, responses: Tensor) -> tuple[Tensor, ...]:
        """Return what each head reads of pooled responses ``(batch, n_filters)``."""
        if len(self.reads) == 1:
            return (responses,)
        return tuple(responses[:, columns] for columns in self.reads)

    @torch.no_grad()
    def set_heads(self, models: Sequence[LinearModel]) -> None:
        """Give each head a linear model's coefficients."""
        for head, model in zip(self.linear, models, strict=True):
            head.weight.copy_(torch.from_numpy(model.coef.T))
            head.bias.copy_(torch.from_numpy(model.intercept))

    @torch.no_grad()
    def scale_outputs(self, factor: NDArray[np.float64]) -> None:
        """Multiply each of all heads' outputs by a factor, ``(n_outputs,)``."""
        for head, own in zip(self.linear, side_by_side(self.n_outputs), strict=True):
            factors = torch.from_numpy(factor[own]).to(head.weight)
            head.weight.mul_(factors[:, None])
            head.bias.mul_(factors)


def side_by_side(widths: Sequence[int]) -> tuple[slice, ...]:
    """Return the columns of parts that lie side by side."""
    ends = [sum(widths[: index + 1]) for index in range(len(widths))]
    return tuple(slice(end - width, end) for end, width in zip(ends, widths, strict=True))
