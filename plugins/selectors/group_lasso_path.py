"""The group lasso's path from a Gram matrix: min ½ tr BᵀGB − tr BᵀQ + λ Σ_g w_g ‖B_g‖_F, for lasso and head2toe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from facetask.plugins.selectors.group_newton import Curvature, NewtonSteps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.intp]

MAX_ROUNDS = 2000
BLOCK_ENTRIES = 2**20
UNEXPLAINED = 1e-3
SUFFICIENT = 1e-4
SHORTEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Rows that are sorted by group.

    Attributes:
        group: Group of each row, ascending, ``(p,)``.
        starts: First row of each group, ``(n_groups,)``.
        weights: Penalty weight of each group, ``(n_groups,)``.
    """

    group: Index
    starts: Index
    weights: Array

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(self.starts)


@dataclass(frozen=True, kw_only=True)
class GroupedProblem(Groups):
    """A penalised regression whose rows are sorted by group.

    Attributes:
        gram: ``(p, p)``.
        cross: ``(p, m)``.
    """

    gram: Array
    cross: Array

    @classmethod
    def from_groups(cls, gram: Array, cross: Array, group: Index) -> GroupedProblem:
        """Return the problem whose groups are weighted by the root of their number of rows."""
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        return cls(gram=gram, cross=cross, group=group, starts=starts, weights=np.sqrt(np.bincount(group)))

    @property
    def largest_strength(self) -> float:
        """The smallest λ that zeroes every coefficient."""
        return float((group_norms(self, self.cross) / self.weights).max())


def group_norms(problem: Groups, rows: Array) -> Array:
    """Return each group's Frobenius norm, ``(n_groups,)`` or ``(n_groups, k)``, of ``(p, m)`` or ``(p, k, m)``."""
    squares = np.einsum("...m,...m->...", rows, rows)
    if problem.n_groups < len(squares):
        squares = np.add.reduceat(squares, problem.starts, axis=0)
    return np.asarray(np.sqrt(squares))


def kkt_violations(problem: GroupedProblem, path: Array, strengths: Array) -> Array:
    """Return the largest violation of the optimality conditions at each strength, relative to λ and the weight."""
    largest = np.empty(len(path))
    several = max(1, BLOCK_ENTRIES // problem.cross.size)
    for start in range(0, len(path), several):
        part = slice(start, start + several)
        coef = np.ascontiguousarray(path[part].transpose(1, 0, 2))
        residual = problem.cross[:, None, :] - np.tensordot(problem.gram, coef, 1)
        largest[part] = _violation(problem, residual, coef, strengths[part]).max(axis=0)
    return largest / strengths


def _violation(problem: GroupedProblem, residual: Array, coef: Array, strength: Array | float) -> Array:
    """Return each group's violation of the optimality conditions, divided by its weight.

    Args:
        problem: Gram, cross products and groups.
        residual: ``(p, m)``, or ``(p, k, m)`` for k models.
        coef: The same.
        strength: λ, or those of the models ``(k,)``.
    """
    norms = group_norms(problem, coef)
    weights = problem.weights.reshape(-1, *[1] * (norms.ndim - 1))
    pull = strength * weights / np.where(norms > 0, norms, np.inf)
    excess = group_norms(problem, residual - pull[problem.group, ..., None] * coef) / weights
    return np.maximum(np.where(norms > 0, excess, excess - strength), 0)


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
        self.steps = NewtonSteps()

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
        inverse_step = np.abs(active.gram).sum(axis=1).max()
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
        gradient = (strength * part.weights)[part.group, None] * unit - self.residual[active.rows]
        hessian = Curvature(
            rows=active.rows,
            group=part.group,
            starts=part.starts,
            unit=unit,
            penalty=(strength * part.weights / norms)[part.group],
            gram=lambda: active.gram,
            image=active.inside,
            diagonal=np.diagonal(self.problem.gram)[active.rows],
        )
        step = self.steps.direction(hessian, -gradient)
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
        self.everything = problem.gram
        self.rows = np.flatnonzero(np.isin(problem.group, groups))
        group = np.searchsorted(groups, problem.group[self.rows])
        self.part = Groups(
            group=group, starts=np.flatnonzero(np.diff(group, prepend=-1)), weights=problem.weights[groups]
        )

    @cached_property
    def gram(self) -> Array:
        """The Gram on these rows, which takes long to gather."""
        return np.asarray(self.everything[np.ix_(self.rows, self.rows)])

    def inside(self, step: Array) -> Array:
        """Return the Gram on these rows times a step on them."""
        if 2 * len(self.rows) < len(self.everything):
            return np.asarray(self.gram @ step)
        return np.asarray(self.image(step)[self.rows])

    def image(self, step: Array) -> Array:
        """Return the Gram times a step on the rows, ``(p, m)``."""
        everywhere = np.zeros((len(self.everything), step.shape[1]))
        everywhere[self.rows] = step
        return np.asarray(self.everything @ everywhere)
