"""The group lasso's path from a Gram matrix: min ½ tr BᵀGB − tr BᵀQ + λ Σ_g w_g ‖B_g‖_F, for lasso and head2toe."""

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

MAX_ROUNDS = 2000
UNEXPLAINED = 1e-3
CONJUGATE_STEPS = 60
NEWTON_ACCURACY = 0.1
JITTER = 1e-8
SUFFICIENT = 1e-4
SHORTEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class GroupedProblem:
    """A penalised regression whose rows are sorted by group.

    Attributes:
        gram: ``(p, p)``.
        cross: ``(p, m)``.
        group: Group of each row, ascending, ``(p,)``.
        starts: First row of each group, ``(n_groups,)``.
        weights: Penalty weight of each group, ``(n_groups,)``.
    """

    gram: Array
    cross: Array
    group: Index
    starts: Index
    weights: Array

    @classmethod
    def from_groups(cls, gram: Array, cross: Array, group: Index) -> GroupedProblem:
        """Return the problem whose groups are weighted by the root of their number of rows."""
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        return cls(gram=gram, cross=cross, group=group, starts=starts, weights=np.sqrt(np.bincount(group)))

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(self.starts)

    @property
    def largest_strength(self) -> float:
        """The smallest λ that zeroes every coefficient."""
        return float((group_norms(self, self.cross) / self.weights).max())


def group_norms(problem: GroupedProblem, rows: Array) -> Array:
    """Return each group's Frobenius norm ``(n_groups,)`` of an array ``(p, m)``."""
    squares = np.einsum("pm,pm->p", rows, rows)
    if problem.n_groups < len(squares):
        squares = np.add.reduceat(squares, problem.starts)
    return np.asarray(np.sqrt(squares))


def kkt_violations(problem: GroupedProblem, path: Array, strengths: Array) -> Array:
    """Return the largest violation of the optimality conditions at each strength, relative to λ and the weight."""
    k, p, m = path.shape
    image = (problem.gram @ path.transpose(1, 0, 2).reshape(p, k * m)).reshape(p, k, m)
    residual = problem.cross[:, None, :] - image
    return np.array([_violation(problem, residual[:, i], path[i], strengths[i]).max() / strengths[i] for i in range(k)])


def _violation(problem: GroupedProblem, residual: Array, coef: Array, strength: float) -> Array:
    """Return each group's violation of the optimality conditions, divided by its weight."""
    norms = group_norms(problem, coef)
    excess = group_norms(problem, residual) / problem.weights - strength
    if norms.any():
        safe = np.where(norms > 0, norms, 1)
        pull = (strength * problem.weights / safe)[problem.group, None] * coef
        inside = group_norms(problem, residual - pull) / problem.weights
        excess = np.where(norms > 0, inside, excess)
    return np.maximum(excess, 0)


def group_lasso_path(
    problem: GroupedProblem, strengths: Array, tolerance: float, variance: float | None = None
) -> Array:
    """Return coefficients ``(k, p, m)`` at the first k strengths; k is the first with a full support, or all.

    With fewer images than rows the fit comes to explain everything, and what follows takes long and means nothing:
    there the path ends.

    An active-set Newton method. At each strength, starting from the extrapolated path: groups whose residual exceeds
    λ·weight enter with a short proximal step; a Newton step, by preconditioned conjugate gradients, moves the
    groups that are not zero; those that it would turn round are set to zero instead; a line search keeps the objective
    falling. It ends when no group violates the optimality conditions by more than half of ``tolerance`` · λ.

    Args:
        problem: Gram, cross products and groups; no row of the Gram may be zero.
        strengths: λ, descending, ``(n,)``.
        tolerance: Largest violation allowed, relative to λ.
        variance: Of the targets, summed over outputs: the path ends where all but 1/1000 of it is explained.
    """
    solver = _Solver(problem)
    path: list[Array] = []
    for index, strength in enumerate(strengths):
        if index > 1:
            ahead = (strength - strengths[index - 1]) / (strengths[index - 1] - strengths[index - 2])
            solver.extrapolate(path[-1], path[-2], float(ahead), float(strength))
        solver.solve(float(strength), tolerance)
        path.append(solver.coef.copy())
        if (group_norms(problem, solver.coef) > 0).all():
            break
        if variance is not None and variance - solver.explained() < UNEXPLAINED * variance:
            break
    return np.stack(path)


class _Solver:
    """Coefficients ``(p, m)`` and their residual Q − GB, moved from one strength to the next."""

    def __init__(self, problem: GroupedProblem) -> None:
        self.problem = problem
        self.coef = np.zeros_like(problem.cross)
        self.residual = problem.cross.copy()
        self.active = _Active(problem, np.empty(0, dtype=np.intp))

    def explained(self) -> float:
        """Return the targets' variance that the coefficients explain, summed over outputs."""
        return float((self.coef * (self.problem.cross + self.residual)).sum())

    def extrapolate(self, last: Array, before: Array, ahead: float, strength: float) -> None:
        """Continue the last step where that lowers the objective: the path is nearly linear in λ."""
        active = self._activate((group_norms(self.problem, last) > 0) & (group_norms(self.problem, before) > 0))
        if len(active.rows):
            self._move(active, ahead * (last - before)[active.rows], strength, 0.0)

    def solve(self, strength: float, tolerance: float) -> None:
        """Minimise the objective at one strength."""
        for _ in range(MAX_ROUNDS):
            violation = _violation(self.problem, self.residual, self.coef, strength)
            if violation.max() <= tolerance / 2 * strength:
                return
            norms = group_norms(self.problem, self.coef)
            entering = (norms == 0) & (violation > tolerance / 2 * strength)
            if entering.any():
                self._proximal(_Active(self.problem, np.flatnonzero(entering)), strength)
            active = self._activate((norms > 0) | entering)
            if not self._newton(active, strength):
                self._proximal(active, strength)

    def _activate(self, groups: NDArray[np.bool_]) -> _Active:
        """Return the problem on some groups, kept while they stay the same."""
        indices = np.flatnonzero(groups)
        if not np.array_equal(indices, self.active.groups):
            self.active = _Active(self.problem, indices)
        return self.active

    def _proximal(self, active: _Active, strength: float) -> None:
        """Take a proximal-gradient step, short enough to lower the objective for all the groups together."""
        inverse_step = np.abs(active.part.gram).sum(axis=1).max()
        coef = self.coef[active.rows]
        moved = coef + self.residual[active.rows] / inverse_step
        bound = strength * active.part.weights / inverse_step
        norms = group_norms(active.part, moved)
        share = np.where(norms > bound, 1 - bound / np.maximum(norms, bound), 0)
        step = share[active.part.group, None] * moved - coef
        self.coef[active.rows] += step
        self.residual -= active.image(step)

    def _newton(self, active: _Active, strength: float) -> bool:
        """Take a Newton step on groups that are not zero; return whether the objective fell."""
        part, coef = active.part, self.coef[active.rows]
        norms = group_norms(part, coef)
        unit = coef / norms[part.group, None]
        curvature = (strength * part.weights / norms)[part.group, None]
        gradient = (strength * part.weights)[part.group, None] * unit - self.residual[active.rows]
        step = _newton_direction(part, unit, curvature, -gradient)
        slope = float((gradient * step).sum())
        length = 1.0
        while slope < 0 and length > SHORTEST:
            if self._move(active, length * step, strength, SUFFICIENT * length * slope):
                return True
            length /= 2
        return False

    def _move(self, active: _Active, step: Array, strength: float, bound: float) -> bool:
        """Move by a step, zeroing the groups that it turns round, if the objective falls by ``-bound`` or more."""
        part, coef = active.part, self.coef[active.rows]
        turned = np.add.reduceat(np.einsum("pm,pm->p", coef, coef + step), part.starts) <= 0
        step = np.where(turned[part.group, None], -coef, step)
        image = active.image(step)
        smooth = float((step * (image[active.rows] / 2 - self.residual[active.rows])).sum())
        penalty = strength * float(part.weights @ (group_norms(part, coef + step) - group_norms(part, coef)))
        if smooth + penalty > bound:
            return False
        self.coef[active.rows] = coef + step
        self.residual -= image
        return True


class _Active:
    """The problem on the rows of some groups."""

    def __init__(self, problem: GroupedProblem, groups: Index) -> None:
        self.groups = groups
        self.gram = problem.gram
        self.rows = np.flatnonzero(np.isin(problem.group, groups))
        group = np.searchsorted(groups, problem.group[self.rows])
        self.part = GroupedProblem(
            gram=problem.gram[np.ix_(self.rows, self.rows)],
            cross=problem.cross[self.rows],
            group=group,
            starts=np.flatnonzero(np.diff(group, prepend=-1)),
            weights=problem.weights[groups],
        )

    def image(self, step: Array) -> Array:
        """Return the Gram times a step on the rows, ``(p, m)``."""
        everywhere = np.zeros((len(self.gram), step.shape[1]))
        everywhere[self.rows] = step
        return np.asarray(self.gram @ everywhere)


def _newton_direction(part: GroupedProblem, unit: Array, curvature: Array, target: Array) -> Array:
    """Solve the Newton system by conjugate gradients.

    The Hessian is G, the same for each output, plus curvature · (I − uuᵀ) for each group.
    """
    precondition = _preconditioner(part, unit, curvature)
    step = np.zeros_like(target)
    remainder = target
    ahead = direction = precondition(remainder)
    progress = float((remainder * ahead).sum())
    goal = NEWTON_ACCURACY * np.sqrt((target * target).sum())
    for _ in range(CONJUGATE_STEPS):
        radial = np.add.reduceat(np.einsum("pm,pm->p", unit, direction), part.starts)[part.group, None]
        image = part.gram @ direction + curvature * (direction - radial * unit)
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


def _preconditioner(part: GroupedProblem, unit: Array, curvature: Array) -> Callable[[Array], Array]:
    """Return the inverse of the Hessian for one output, an approximation for several."""
    across = part.gram.copy()
    across[np.diag_indices_from(across)] += curvature[:, 0]
    if unit.shape[1] == 1:
        for start, stop in zip(part.starts, [*part.starts[1:], len(unit)], strict=True):
            across[start:stop, start:stop] -= curvature[start] * unit[start:stop] * unit[start:stop, 0]
        return _solver(across)
    along = unit @ unit.T
    along *= part.gram
    return _two_subspaces(part, unit, _solver(along, part.starts), _solver(across))


def _two_subspaces(
    part: GroupedProblem,
    unit: Array,
    solve_along: Callable[[Array], Array],
    solve_across: Callable[[Array], Array],
) -> Callable[[Array], Array]:
    """Return an approximate inverse of the Hessian: exact on each of two subspaces, blind to their coupling.

    Along the groups' own directions u the penalty has no curvature and the Hessian is one small matrix; across them
    it is G + curvature, the same for all outputs but for the projection. Two Cholesky factors serve both.
    """

    def radial(rows: Array) -> Array:
        return np.asarray(np.add.reduceat(np.einsum("pm,pm->p", unit, rows), part.starts))

    def apply(rows: Array) -> Array:
        length = radial(rows)
        tangent = solve_across(rows - length[part.group, None] * unit)
        length = solve_along(length) - radial(tangent)
        return np.asarray(tangent + length[part.group, None] * unit)

    return apply


def _solver(matrix: Array, starts: Index | None = None) -> Callable[[Array], Array]:
    """Return the solver of a symmetric system by Cholesky, by its diagonal alone where the matrix is singular.

    With ``starts``, the matrix is first summed over groups of rows and columns.
    """
    if starts is not None and len(starts) < len(matrix):
        matrix = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    matrix[np.diag_indices_from(matrix)] *= 1 + JITTER
    diagonal = np.diagonal(matrix).copy()
    # The transpose is the same matrix in LAPACK's own order, which saves it a slow copy.
    factor, failed = lapack.dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)

    def solve(rows: Array) -> Array:
        if failed:
            return np.asarray((rows.T / diagonal).T)
        return np.asarray(lapack.dpotrs(factor, rows, lower=1)[0])

    return solve
