"""Characteristic curves: the validation error of a refit on each support of a selector's path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg import blas, lapack

from facetask.errors import CurveError
from facetask.statistics.moments import Moments
from facetask.statistics.regression import (
    RANK_TOLERANCE,
    check_same_shape,
    fit_ridge,
    output_weights,
    rmse_from_moments,
    rmse_of_models,
)
from facetask.statistics.stability import order_of_appearance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.records import SelectionPath

    Supports = Sequence[NDArray[np.intp]]

Refit = Literal["least-squares", "none"]

IMAGES_PER_COLUMN = 10
RIDGE_STRENGTHS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
INDEPENDENT = 1e-10
CHUNK = 128


@dataclass(frozen=True, kw_only=True)
class Curve:
    """RMSE against the number of filters kept, one point for each point of a selector's path.

    Attributes:
        n_filters: Number of components kept at each point.
        rmse: Validation RMSE at each point, of the refit or of the selector's own model, in the unit that ``scale``
            gave it.
        supports: The components kept at each point, sorted.
        unpruned_rmse: Validation RMSE of the regression on all columns, fitted as refits are.
        order: The components of all supports as they first appear along the path.
        resampled: The same order on each bootstrap resample of the training images.
        strengths: The selector's penalty at each point (lasso's λ, relative to the largest), where there is one.
        notes: What the user should know about the path and the refits.
    """

    n_filters: tuple[int, ...]
    rmse: tuple[float, ...]
    supports: tuple[NDArray[np.intp], ...]
    unpruned_rmse: float
    order: NDArray[np.intp]
    resampled: tuple[NDArray[np.intp], ...] = ()
    strengths: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


def characteristic_curve(
    train: Moments,
    validation: Moments,
    component: NDArray[np.intp],
    path: SelectionPath,
    scale: NDArray[np.float64] | None,
    refit: Refit = "least-squares",
) -> Curve:
    """Return the validation RMSE of the model on each support of a path.

    The model is refitted by least squares; with fewer than ten training images a column by ridge, its strength tuned
    on validation. Without refit it is the selector's own. Everything is computed from moments.

    Args:
        train: Moments of the training images.
        validation: Moments of the validation images, same columns and outputs.
        component: Component of each column, ``(n_columns,)``.
        path: A selector's supports, in components.
        scale: What each output's error is divided by, ``(n_outputs,)``; ``None`` divides nothing.
        refit: ``none`` takes the path's own coefficients.

    Raises:
        CurveError: If the path is empty, a support is empty or names a component that has no column, the
            moments, components, coefficients and scale do not fit each other, or coefficients are needed but missing.
    """
    check_same_shape(train, validation)
    if component.shape != (train.n_columns,):
        raise CurveError(f"{component.shape} components for {train.n_columns} columns; one for each column is needed")
    columns = columns_of(path.supports, component)
    check_coefficients(path, columns, train)
    if refit == "none":
        everything = replace(path, supports=(np.unique(component),), strengths=None, coefficients=None, notes=())
        unpruned = characteristic_curve(train, validation, component, everything, scale)
        rmse = _rmse_of_path(path, train, validation, scale)
        return _curve(path, component, rmse, unpruned.unpruned_rmse, path.notes)
    # Consecutive equal supports are one model (a lasso path holds many); the unpruned level is one more.
    first = [index for index, _ in enumerate(columns) if not index or not _equal(columns[index], columns[index - 1])]
    distinct = [*(columns[index] for index in first), np.arange(train.n_columns)]
    few = np.array([train.n < IMAGES_PER_COLUMN * len(chosen) for chosen in distinct])
    rmse = np.empty(len(distinct))
    for small, strengths in ((False, (0.0,)), (True, RIDGE_STRENGTHS)):
        where = np.flatnonzero(few == small)
        if len(where):
            refits = _Refits(train, validation, [distinct[index] for index in where])
            rmse[where] = refits.rmse(strengths, scale)
    point_of = np.cumsum(np.isin(np.arange(len(columns)), first)) - 1
    notes = list(path.notes)
    if few[point_of].any():
        notes.append(
            f"{int(few[point_of].sum())} of {len(columns)} points: ridge refit tuned on validation "
            f"(fewer than {IMAGES_PER_COLUMN} training images a column)"
        )
    return _curve(path, component, rmse[point_of], float(rmse[-1]), notes)


def columns_of(supports: Supports, component: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the columns of each support's components.

    Raises:
        CurveError: If there is no support, one is not sorted and unique, or names a component that has no column.
    """
    if not supports:
        raise CurveError("the selector's path is empty: it must hold at least one support")
    known = int(component.max()) + 1
    columns = []
    for index, support in enumerate(supports):
        # Sorted, so that its ends say whether it is inside.
        if not len(support) or support[0] < 0 or support[-1] >= known or (support[1:] <= support[:-1]).any():
            raise CurveError(
                f"support {index} of the selector's path is {support.tolist()[:8]}; sorted unique components "
                f"from 0 to {known - 1} are needed"
            )
        chosen = np.zeros(known, dtype=bool)
        chosen[support] = True
        columns.append(np.flatnonzero(chosen[component]))
        if not len(columns[-1]):
            raise CurveError(f"support {index} of the selector's path has no column")
    return columns


def check_coefficients(path: SelectionPath, columns: Supports, train: Moments) -> None:
    """Check that a path's coefficients, if it has any, are finite and 0 off each point's support.

    Args:
        path: A selector's path.
        columns: The columns of each support.
        train: The moments that the selector saw.

    Raises:
        CurveError: If they are not.
    """
    if path.coefficients is None:
        return
    expected, found = (len(path.supports), train.n_columns, train.n_outputs), np.shape(path.coefficients)
    if found != expected or not np.isfinite(path.coefficients).all():
        raise CurveError(f"the selector's coefficients have the shape {found}; finite ones of {expected} are needed")
    off = np.ones(train.n_columns, dtype=bool)
    for index, chosen in enumerate(columns):
        off[chosen] = False
        if path.coefficients[index][off].any():
            raise CurveError(f"the selector's coefficients of point {index} are not 0 off its support")
        off[chosen] = True


def _curve(
    path: SelectionPath,
    component: NDArray[np.intp],
    rmse: NDArray[np.float64],
    unpruned_rmse: float,
    notes: Sequence[str],
) -> Curve:
    """Return a path's curve."""
    return Curve(
        n_filters=tuple(len(support) for support in path.supports),
        rmse=tuple(float(value) for value in rmse),
        supports=path.supports,
        unpruned_rmse=unpruned_rmse,
        order=order_of_appearance(path, component),
        strengths=None if path.strengths is None else tuple(float(strength) for strength in path.strengths),
        notes=tuple(notes),
    )


def _rmse_of_path(
    path: SelectionPath, train: Moments, validation: Moments, scale: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the validation RMSE ``(n_points,)`` of the selector's own models."""
    if path.coefficients is None:
        raise CurveError(
            "it gives supports but no coefficients of its own, which `curve: {refit: none}` needs; "
            "use refit: least-squares, or a selector such as lasso"
        )
    unit = np.where(train.dead_columns, np.inf, train.std_x)
    coef = np.asarray(path.coefficients, dtype=np.float64).transpose(1, 0, 2) / unit[:, None, None]
    intercept = train.mean_y - np.einsum("p,pkm->km", train.mean_x, coef)
    return rmse_of_models(coef, intercept, validation, scale)


class _Refits:
    """Refits on many column sets by one factorisation.

    With all columns ordered by first appearance, a support is a prefix of the order less some columns D. In the
    coordinates ζ in which the prefix's penalised Gram is the identity, its refit is the projection of the prefix's
    solution on the null space of D's rows, so that no support needs a factorisation of its own size.
    """

    def __init__(self, train: Moments, validation: Moments, supports: Supports) -> None:
        dead = train.dead_columns
        self.train, self.validation = train, validation
        self.supports = [support[~dead[support]] for support in supports]
        self.order, self.prefix = _by_first_appearance(self.supports, train.n_columns)
        self.gram, self.cross = train.standardised(self.order)
        unit = 1 / train.std_x[self.order]
        self.check_gram = validation.xx[np.ix_(self.order, self.order)] * (unit[:, None] * unit)
        self.check_cross = validation.xy[self.order] * unit[:, None]
        self.check_shift = (validation.mean_x - train.mean_x)[self.order] * unit
        self.target_shift = validation.mean_y - train.mean_y

    def rmse(self, strengths: Sequence[float], scale: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the validation RMSE ``(n_supports,)`` of each support's refit at its best ridge strength."""
        return np.asarray(np.min([self._rmse_at(strength, scale) for strength in strengths], axis=0))

    def _rmse_at(self, strength: float, scale: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the validation RMSE ``(n_supports,)`` at one ridge strength."""
        gram = self.gram.copy()
        gram[np.diag_indices_from(gram)] += strength
        factor = _factor(gram)
        kept, prefix = np.arange(len(gram)), self.prefix
        alone = np.zeros(len(self.supports), dtype=bool)
        if factor is None:
            kept = _independent(gram)
            # A skipped column adds nothing to the columns before it, which every support of a nested path holds.
            if not _nested(self.supports):
                skipped = np.delete(self.order, kept)
                alone = np.array([bool(np.isin(skipped, support).any()) for support in self.supports])
            prefix = np.searchsorted(kept, prefix)
            factor = lapack.dpotrf(gram[np.ix_(kept, kept)], lower=1)[0]
        weights = output_weights(scale, self.train.n_outputs)
        rmse = np.empty(len(self.supports))
        together = np.flatnonzero(~alone)
        for start in range(0, len(together), CHUNK):
            chunk = together[start : start + CHUNK]
            coef = np.zeros((len(gram), len(chunk), self.cross.shape[1]))
            coef[kept] = self._coefficients(factor, kept, prefix[chunk], [self.supports[index] for index in chunk])
            rmse[chunk] = np.sqrt((self._mean_squares(coef) * weights).mean(axis=1))
        for index in np.flatnonzero(alone):
            columns = self.supports[index]
            model = fit_ridge(self.train.columns(columns), strength)
            rmse[index] = rmse_from_moments(model, self.validation.columns(columns), scale)
        return rmse

    def _coefficients(
        self, factor: NDArray[np.float64], kept: NDArray[np.intp], prefix: NDArray[np.intp], supports: Supports
    ) -> NDArray[np.float64]:
        """Return the standardised coefficients ``(n_kept, n_supports, m)`` of some refits."""
        whitened = blas.dtrsm(1.0, factor, self.cross[kept], lower=1)
        zeta = np.zeros((len(kept), len(supports), whitened.shape[1]))
        dropped = self._dropped(self.order[kept], prefix, supports)
        everyone = np.unique(np.concatenate(dropped))
        # Only these columns of the factor's inverse are needed.
        unit = np.zeros((len(kept), len(everyone)), order="F")
        unit[everyone, np.arange(len(everyone))] = 1
        inverse = blas.dtrsm(1.0, factor, unit, lower=1, overwrite_b=1)
        for slot, (size, out) in enumerate(zip(prefix, dropped, strict=True)):
            zeta[:size, slot] = whitened[:size]
            if len(out):
                rows = inverse[:size, np.searchsorted(everyone, out)]
                zeta[:size, slot] -= rows @ lapack.dposv(rows.T @ rows, rows.T @ whitened[:size])[1]
        # ζᵀ times the factor's inverse: on this side it is in LAPACK's own order already.
        flat = zeta.reshape(len(kept), len(supports) * whitened.shape[1])
        return np.asarray(blas.dtrsm(1.0, factor, flat.T, side=1, lower=1, overwrite_b=1).T).reshape(zeta.shape)

    def _dropped(self, order: NDArray[np.intp], prefix: NDArray[np.intp], supports: Supports) -> Supports:
        """Return which of its prefix of an order each support does not hold, as positions in the order."""
        held = np.zeros(self.train.n_columns, dtype=bool)
        dropped = []
        for size, support in zip(prefix, supports, strict=True):
            held[support] = True
            dropped.append(np.flatnonzero(~held[order[:size]]))
            held[support] = False
        return dropped

    def _mean_squares(self, coef: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return validation mean squared errors ``(k, m)`` of k models with coefficients ``(n_columns, k, m)``."""
        image = np.tensordot(self.check_gram, coef, 1) - 2 * self.check_cross[:, None, :]
        spread = np.diagonal(self.validation.yy) + np.einsum("pkm,pkm->km", coef, image)
        shift = self.target_shift - np.einsum("p,pkm->km", self.check_shift, coef)
        return np.asarray(np.maximum(spread, 0) / self.validation.n + shift**2)


def _by_first_appearance(supports: Supports, n_columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return all columns in order of first appearance, and how long a prefix of them each support needs."""
    everyone = np.concatenate(supports)
    first = np.full(n_columns, len(everyone))
    first[everyone[::-1]] = np.arange(len(everyone))[::-1]  # of several assignments the last one stays
    order = np.argsort(first)[: int((first < len(everyone)).sum())]
    position = np.empty(n_columns, dtype=np.intp)
    position[order] = np.arange(len(order))
    prefix = np.array([position[support].max(initial=-1) + 1 for support in supports])
    return order, prefix


def _factor(gram: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the lower Cholesky factor, ``None`` where rows nearly are combinations of others."""
    if not len(gram):
        return gram
    # The transpose is the same matrix in LAPACK's own order, which saves it a slow copy.
    factor, failed = lapack.dpotrf(gram.T, lower=1)
    norm = float(np.abs(gram).sum(axis=0).max())
    if failed or lapack.dpocon(factor, norm, uplo="L")[0] < RANK_TOLERANCE:
        return None
    return np.asarray(factor)


def _independent(gram: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the rows that are no linear combination of the rows before them."""
    kept: list[int] = []
    rows = np.zeros_like(gram)
    for index in range(len(gram)):
        done = len(kept)
        row = gram[index] - rows[:done, index] @ rows[:done]
        if row[index] > INDEPENDENT:
            rows[done] = row / np.sqrt(row[index])
            kept.append(index)
    return np.array(kept, dtype=np.intp)


def _nested(supports: Supports) -> bool:
    """Return whether each support holds the one before."""
    return all(np.isin(supports[i], supports[i + 1]).all() for i in range(len(supports) - 1))


def _equal(one: NDArray[np.intp], other: NDArray[np.intp]) -> bool:
    """Return whether two supports are the same."""
    return len(one) == len(other) and bool((one == other).all())
