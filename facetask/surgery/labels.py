"""Channel labels: what stands in for numbers while a network's graph is read.

Every value of the graph is represented by an integer tensor of its shape whose entries are labels. Equal labels, and
labels that were merged, live or die together. Label tensors are kept *compact*: a dimension along which the labels do
not vary has stride 0, so that spatial size costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor


def compact(labels: Tensor) -> Tensor:
    """Return the same labels with stride 0 along every dimension that does not vary."""
    shape = labels.shape
    for d in range(labels.dim()):
        if shape[d] > 1 and labels.stride(d) != 0 and bool((labels == labels.narrow(d, 0, 1)).all()):
            labels = labels.narrow(d, 0, 1).expand(shape)
    return labels


def varying(labels: Tensor) -> list[int]:
    """Return the dimensions along which compact labels vary."""
    return [d for d in range(labels.dim()) if labels.shape[d] > 1 and labels.stride(d) != 0]


def squeezed(*labels: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of one shape, narrowed to size 1 where none of them varies."""
    for d in range(labels[0].dim()):
        if all(x.stride(d) == 0 for x in labels):
            labels = tuple(x.narrow(d, 0, 1) for x in labels)
    return labels


def spread(vector: Tensor, shape: torch.Size | tuple[int, ...], dim: int) -> Tensor:
    """Return labels of a shape that vary along one dimension only."""
    dim %= len(shape)
    return vector.view([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)


@dataclass(frozen=True)
class Fix:
    """Labels that must always be kept, and the operation to blame, if the engine did not know it."""

    labels: Tensor
    operation: str | None = None
    where: str = ""


@dataclass(frozen=True)
class Components:
    """The solution: which component each label belongs to.

    Attributes:
        of_label: Component of each label, ``(n_labels,)``.
        fixed: Whether a component must always be kept, ``(n_components,)``.
        blamed: For each fix with an operation: that operation, where it is, and the components that it fixed.
    """

    of_label: NDArray[np.intp]
    fixed: NDArray[np.bool_]
    blamed: tuple[tuple[str, str, NDArray[np.intp]], ...]

    def of(self, labels: Tensor) -> NDArray[np.intp]:
        """Return the components of labels, in their shape."""
        found: NDArray[np.intp] = self.of_label[labels.numpy()]
        return found


class LabelSpace:
    """Hands out labels and records which of them must agree."""

    def __init__(self) -> None:
        self._size = 0
        self._pairs: list[Tensor] = []
        self._fixes: list[Fix] = []
        self._boxes: list[Tensor] = []

    def fresh(self, count: int) -> Tensor:
        """Return labels that nothing else has, ``(count,)``."""
        self._size += count
        return torch.arange(self._size - count, self._size)

    def merge(self, left: Tensor, right: Tensor) -> None:
        """Let labels at the same position (after broadcasting) live or die together."""
        shape = np.broadcast_shapes(left.shape, right.shape)
        left, right = squeezed(left.expand(shape), right.expand(shape))
        left, right = left.reshape(-1), right.reshape(-1)
        differ = left != right
        if bool(differ.any()):
            self._pairs.append(torch.stack([left[differ], right[differ]]))

    def merge_along(self, labels: Tensor, dim: int) -> None:
        """Let labels that differ only in their position along a dimension live or die together."""
        self.merge(labels, labels.narrow(dim, 0, 1))

    def vector(self, labels: Tensor, dim: int) -> Tensor:
        """Return one label for each position along a dimension, merging all that share a position."""
        dim %= labels.dim()
        for d in varying(labels):
            if d != dim:
                self.merge_along(labels, d)
                labels = labels.narrow(d, 0, 1).expand(labels.shape)
        return labels.movedim(dim, 0).flatten(1)[:, 0] if labels.dim() > 1 else labels

    def fix(self, labels: Tensor, operation: str | None = None, where: str = "") -> None:
        """Keep labels always."""
        self._fixes.append(Fix(squeezed(labels)[0].reshape(-1), operation, where))

    def keep_rectangular(self, labels: Tensor) -> None:
        """See to it that a tensor with these labels can be pruned along one dimension only."""
        if len(varying(labels)) > 1:
            self._boxes.append(squeezed(labels)[0])

    def solve(self) -> Components:
        """Return the components once every tensor is rectangular."""
        while True:
            components = self._connected()
            merged = [self._flatten(box, components) for box in self._boxes]
            if not any(merged):
                return components

    def _connected(self) -> Components:
        """Return the connected components of the labels merged so far."""
        pairs = torch.cat(self._pairs, dim=1).numpy() if self._pairs else np.zeros((2, 0), dtype=np.intp)
        links = coo_matrix((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(self._size,) * 2)
        count, of_label = connected_components(links, directed=False)
        fixed = np.zeros(count, dtype=np.bool_)
        for fix in self._fixes:
            fixed[of_label[fix.labels.numpy()]] = True
        blamed = tuple(
            (fix.operation, fix.where, np.unique(of_label[fix.labels.numpy()])) for fix in self._fixes if fix.operation
        )
        return Components(of_label.astype(np.intp), fixed, blamed)

    def _flatten(self, box: Tensor, components: Components) -> bool:
        """Merge along all dimensions but the one with most components; return whether anything was merged."""
        of_box = components.of(box)
        if components.fixed[of_box].all():
            return False
        found = compact(torch.from_numpy(of_box))
        dims = varying(found)
        if len(dims) < 2:
            return False
        distinct = {d: len(torch.unique(self._line(found, d))) for d in dims}
        best = max(dims, key=lambda d: distinct[d])
        for d in dims:
            if d != best:
                self.merge_along(box, d)
        return True

    @staticmethod
    def _line(labels: Tensor, dim: int) -> Tensor:
        """Return the labels along one dimension at the start of all others."""
        return labels.movedim(dim, 0).flatten(1)[:, 0]
