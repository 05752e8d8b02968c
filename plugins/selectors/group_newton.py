"""Newton's direction for the group lasso on the groups that are not zero, its preconditioner kept while it serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.intp]

CONJUGATE_STEPS = 60
ACCURACY = 0.1
JITTER = 1e-8
FEW_STEPS = 4
ROWS_AN_OUTPUT = 16
MOST_NEW = 0.2


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """The Hessian on some rows: G, the same for each output, plus ``penalty · (I − uuᵀ)`` for each group.

    Attributes:
        rows: Which rows of the problem, sorted, ``(a,)``.
        group: Group of each of them, ascending, ``(a,)``.
        starts: The place of each group's first row, ``(n_groups,)``.
        unit: The coefficients divided by their group's norm, ``(a, m)``: the u above.
        penalty: λ · weight / norm of each row's group, ``(a,)``.
        gram: Returns G on these rows, ``(a, a)``.
        image: Multiplies an array ``(a, m)`` by G on these rows.
        diagonal: That of G, ``(a,)``.
    """

    rows: Index
    group: Index
    starts: Index
    unit: Array
    penalty: Array
    gram: Callable[[], Array]
    image: Callable[[Array], Array]
    diagonal: Array

    def radial(self, rows: Array) -> Array:
        """Return each group's part along its own direction, ``(n_groups,)``."""
        return np.asarray(np.add.reduceat(np.einsum("am,am->a", self.unit, rows), self.starts))

    def times(self, rows: Array) -> Array:
        """Return the Hessian times an array ``(a, m)``."""
        across = rows - self.radial(rows)[self.group, None] * self.unit
        return np.asarray(self.image(rows) + self.penalty[:, None] * across)


class NewtonSteps:
    """Solves Newton's systems one after the other, which differ little from each other.

    Each is solved by conjugate gradients. They are preconditioned by the inverse of the Hessian of an earlier system,
    and of the diagonal on the rows that have come since; where a few steps of them are not enough, by its own.
    """

    def __init__(self) -> None:
        self._rows: Index = np.empty(0, dtype=np.intp)
        self._inverse: Callable[[Array], Array] = lambda rows: rows

    def direction(self, hessian: Curvature, target: Array) -> Array:
        """Return the solution ``(a, m)`` of Hessian · step = target, to a tenth of the target's length."""
        goal = ACCURACY * float(np.sqrt((target * target).sum()))
        step = np.zeros_like(target)
        new = len(np.setdiff1d(hessian.rows, self._rows))
        # With many outputs a step costs as much as an inverse.
        if new <= MOST_NEW * len(hessian.rows) and len(target) > ROWS_AN_OUTPUT * target.shape[1]:
            step = _conjugate_gradients(hessian, self._preconditioner(hessian), target, goal, FEW_STEPS)
            target = target - hessian.times(step)
            if np.sqrt((target * target).sum()) <= goal:
                return step
        self._rows, self._inverse = hessian.rows, _inverse(hessian)
        return step + _conjugate_gradients(hessian, self._inverse, target, goal, CONJUGATE_STEPS)

    def _preconditioner(self, hessian: Curvature) -> Callable[[Array], Array]:
        """Return the kept inverse for the rows of a Hessian."""
        if np.array_equal(self._rows, hessian.rows):
            return self._inverse
        _, here, there = np.intersect1d(hessian.rows, self._rows, assume_unique=True, return_indices=True)
        diagonal = (hessian.diagonal + hessian.penalty)[:, None]

        def apply(rows: Array) -> Array:
            padded = np.zeros((len(self._rows), rows.shape[1]))
            padded[there] = rows[here]
            result = rows / diagonal
            result[here] = self._inverse(padded)[there]
            return np.asarray(result)

        return apply


def _conjugate_gradients(
    hessian: Curvature, precondition: Callable[[Array], Array], target: Array, goal: float, limit: int
) -> Array:
    """Return the step ``(a, m)`` after so many steps, or when what is left of the target is no longer than the goal."""
    step, remainder = np.zeros_like(target), target
    ahead = direction = precondition(remainder)
    progress = float((remainder * ahead).sum())
    for _ in range(limit):
        image = hessian.times(direction)
        bend = float((direction * image).sum())
        if bend <= 0:
            break
        step = step + progress / bend * direction
        remainder = remainder - progress / bend * image
        if np.sqrt((remainder * remainder).sum()) <= goal:
            break
        ahead = precondition(remainder)
        following = float((remainder * ahead).sum())
        direction = ahead + following / progress * direction
        progress = following
    return step


def _inverse(hessian: Curvature) -> Callable[[Array], Array]:
    """Return the Hessian's inverse, all but exactly.

    With several outputs and coefficients scaled by the roots of the penalties it is K ⊗ I − UUᵀ, with K = I + G scaled,
    the same for each output, and one column of U a group: two small matrices, by Woodbury's identity.
    """
    unit, starts, penalty = hessian.unit, hessian.starts, hessian.penalty
    if unit.shape[1] == 1:
        matrix = hessian.gram().copy()
        matrix[np.diag_indices_from(matrix)] += penalty
        for start, stop in zip(starts, [*starts[1:], len(unit)], strict=True):
            matrix[start:stop, start:stop] -= penalty[start] * unit[start:stop] * unit[start:stop, 0]
        return _solver(matrix)
    scale = 1 / np.sqrt(penalty)
    inner = hessian.gram() * (scale[:, None] * scale)
    inner[np.diag_indices_from(inner)] += 1
    factor, _ = lapack.dpotrf(inner.T, lower=1, overwrite_a=1)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = inverse + inverse.T
    inverse[np.diag_indices_from(inverse)] /= 2
    outer = unit @ unit.T
    outer *= -inverse
    if len(starts) < len(outer):
        outer = np.add.reduceat(np.add.reduceat(outer, starts, axis=0), starts, axis=1)
    outer[np.diag_indices_from(outer)] += 1
    solve = _solver(outer)

    def apply(rows: Array) -> Array:
        result = inverse @ (scale[:, None] * rows)
        along = solve(hessian.radial(result)[:, None])[:, 0]
        result += inverse @ (along[hessian.group, None] * unit)
        return np.asarray(scale[:, None] * result)

    return apply


def _solver(matrix: Array) -> Callable[[Array], Array]:
    """Return the solver of a symmetric system by Cholesky, by its diagonal alone where the matrix is singular."""
    matrix[np.diag_indices_from(matrix)] += JITTER * np.diagonal(matrix).mean()
    diagonal = np.diagonal(matrix).copy()
    # The transpose is the same matrix in LAPACK's own order, which saves it a slow copy.
    factor, failed = lapack.dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)

    def solve(rows: Array) -> Array:
        if failed:
            return np.asarray((rows.T / diagonal).T)
        return np.asarray(lapack.dpotrs(factor, rows, lower=1)[0])

    return solve
