"""Which channels of every value of a graph are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from facetask.surgery.labels import Components


class Kept:
    """The kept components of a network, asked by label.

    Attributes:
        values: Labels of every node of the graph.
    """

    def __init__(self, components: Components, mask: NDArray[np.bool_], values: Mapping[fx.Node, Any]) -> None:
        self._of_label = torch.from_numpy(mask[components.of_label])
        self.values = values

    def mask(self, labels: Tensor) -> Tensor:
        """Return whether each label is kept, in the labels' shape."""
        return self._of_label[labels]

    def along(self, labels: Tensor, dim: int) -> Tensor:
        """Return whether each position along a dimension is kept, ``(size,)``."""
        dim %= labels.dim()
        for d in range(labels.dim()):
            if d != dim and labels.stride(d) == 0:
                labels = labels.narrow(d, 0, 1)
        return self.mask(labels).movedim(dim, 0).flatten(1).any(1) if labels.dim() > 1 else self.mask(labels)

    def indices(self, labels: Tensor, dim: int = 0) -> Tensor:
        """Return the kept positions along a dimension."""
        return self.along(labels, dim).nonzero()[:, 0]

    def count(self, labels: Tensor, dim: int = 0) -> int:
        """Return how many positions are kept along a dimension."""
        return int(self.along(labels, dim).sum())

    def sizes(self, labels: Tensor) -> list[int]:
        """Return the shape of what is kept."""
        return [labels.shape[d] if labels.stride(d) == 0 else self.count(labels, d) for d in range(labels.dim())]
