"""Linear erasure: responses changed as little as possible so that no linear model can tell a task's labels.

Source: Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh, svd

from facetask.statistics.known import moments_of_known
from facetask.statistics.regression import RANK_TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.statistics.moments import Moments

    Array = NDArray[np.float64]

_NOTHING_LEFT = 1e-6
"""A response whose spread falls below this share of what it was holds rounding errors only, and is made constant."""


@dataclass(frozen=True)
class Eraser:
    """An affine map that takes a few directions out of responses.

    Attributes:
        mean: Of the training images' responses, ``(n_filters,)``; it stays.
        read: What is read of a response, ``(n_filters, n_directions)``.
        write: What is taken off it for each of them, ``(n_directions, n_filters)``.
        constant: Responses of which nothing is left, ``(n_filters,)``.
    """

    mean: Array
    read: Array
    write: Array
    constant: NDArray[np.bool_]

    @property
    def n_directions(self) -> int:
        """How many directions are erased."""
        return len(self.write)

    def erased(self, x: Array) -> Array:
        """Return responses ``(n, n_filters)`` without these directions."""
        left = x - (x - self.mean) @ self.read @ self.write
        left[:, self.constant] = self.mean[self.constant]
        return left


def fit_eraser(train: Moments, most: int | None = None) -> Eraser:
    """Return the map after which responses and targets are uncorrelated on the images behind the moments.

    With Σ the responses' covariance and C theirs with the targets, it takes off x − μ its oblique projection
    C (Cᵀ Σ⁻¹ C)⁻¹ Cᵀ Σ⁻¹: the coefficients Σ⁻¹ C of the targets' regression then read nothing. Of all such maps it
    moves the responses least, in mean square.

    Args:
        train: Moments of the training images.
        most: At most so many directions, those in which whitened responses vary most with the targets; None for all,
            which is the rank of C.
    """
    live = np.flatnonzero(~train.dead_columns)
    read, write = np.zeros((train.n_columns, 0)), np.zeros((0, train.n_columns))
    constant = np.zeros(train.n_columns, dtype=bool)
    if len(live):
        gram, cross = train.standardised(live)
        values, vectors = eigh(gram, driver="evd")
        inside = values > RANK_TOLERANCE * values[-1]
        root, basis = np.sqrt(values[inside]), vectors[:, inside]
        whitened = (basis.T @ cross) / root[:, None]
        directions, size, _ = svd(whitened, full_matrices=False)
        found = int((size > RANK_TOLERANCE * size[0]).sum()) if size.size and size[0] > RANK_TOLERANCE else 0
        chosen = directions[:, : found if most is None else min(found, most)]
        spread = train.std_x[live]
        read, write = np.zeros((train.n_columns, chosen.shape[1])), np.zeros((chosen.shape[1], train.n_columns))
        read[live] = basis @ (chosen / root[:, None]) / spread[:, None]
        write[:, live] = (basis @ (chosen * root[:, None])).T * spread
        total = np.square(basis * root).sum(axis=1)
        left = total - np.square(basis @ (chosen * root[:, None])).sum(axis=1)
        constant[live] = left <= _NOTHING_LEFT**2 * total
    return Eraser(train.mean_x, read, write, constant)


def erase(x: Array, targets: Array, train: NDArray[np.intp], most: int | None = None) -> tuple[Array, int]:
    """Return responses from which targets are erased, and how many directions that took.

    Targets known on different images are erased one after the other; what is erased stays so.

    Args:
        x: Responses of all images, ``(n_images, n_filters)``.
        targets: ``(n_images, n_outputs)``, NaN where missing.
        train: Rows of the training images, on which the directions are found.
        most: At most so many directions, for targets that are known together.
    """
    n_directions = 0
    patterns = [outputs for outputs, _ in moments_of_known(x[train], targets[train])]
    for outputs in patterns:
        for _, moments in moments_of_known(x[train], targets[train][:, outputs]):
            eraser = fit_eraser(moments, most)
            x = eraser.erased(x)
            n_directions += eraser.n_directions
    return x, n_directions
