"""Targets that are known for some images only: each output is computed from the images where it is known.

A target ``(n, n_outputs)`` is NaN where it is missing. Outputs that are known on the same images share one pass over
the responses; where everything is known, that is all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.errors import CurveError
from facetask.statistics.moments import Moments
from facetask.statistics.regression import LinearModel, fit_ridge, mean_squares, tune_ridge, tune_ridge_each
from facetask.statistics.rows import Rows, block_height

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.records import SelectionPath
    from facetask.statistics.curves import Curve
    from facetask.statistics.rows import Matrix

    Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KnownTogether:
    """Outputs that are known on the same images, with the moments of just these images.

    Attributes:
        outputs: Their indices, sorted.
        train: Moments of the training images, of these outputs only.
        validation: The same of the validation images.
    """

    outputs: NDArray[np.intp]
    train: Moments
    validation: Moments


@dataclass(frozen=True, kw_only=True)
class TunedRegression:
    """Ridge regressions with their strengths tuned on validation.

    Attributes:
        model: All outputs' regressions.
        strengths: Each output's ridge strength, ``(n_outputs,)``; 0 is least squares.
        mean_squares: Each output's mean squared error on the validation images where it is known, ``(n_outputs,)``.
    """

    model: LinearModel
    strengths: NDArray[np.float64]
    mean_squares: NDArray[np.float64]

    @property
    def validation_rmse(self) -> float:
        """The root of the mean over outputs of the mean squared error."""
        return float(np.sqrt(self.mean_squares.mean()))


def known_together(
    x_train: Matrix, y_train: Array, x_validation: Matrix, y_validation: Array
) -> tuple[KnownTogether, ...]:
    """Return the moments for each set of outputs that are known on the same images.

    Args:
        x_train: Responses, ``(n, n_columns)``.
        y_train: Targets, ``(n, n_outputs)``, NaN where missing.
        x_validation: The same of the validation images.
        y_validation: Their targets.

    Raises:
        CurveError: If an output is known for no image of one of the two.
    """
    n_train = len(y_train)
    parts = []
    for rows, outputs in _patterns(np.concatenate([y_train, y_validation])):
        train, validation = rows[rows < n_train], rows[rows >= n_train] - n_train
        parts.append(
            KnownTogether(
                outputs=outputs,
                train=_moments(x_train, y_train, train, outputs),
                validation=_moments(x_validation, y_validation, validation, outputs),
            )
        )
    return tuple(parts)


def tune_known(parts: Sequence[KnownTogether], *, together: bool = False) -> TunedRegression:
    """Return the ridge regression of every output on the images where it is known, its strength tuned on validation.

    Args:
        parts: All outputs, as :func:`known_together` returns them.
        together: Whether outputs that are known together share one strength, as the classes of a one-hot target do.
    """
    n_outputs, n_columns = sum(len(part.outputs) for part in parts), parts[0].train.n_columns
    coef, intercept = np.empty((n_columns, n_outputs)), np.empty(n_outputs)
    strengths, squares = np.empty(n_outputs), np.empty(n_outputs)
    for part in parts:
        model, chosen = (tune_ridge if together else tune_ridge_each)(part.train, part.validation)
        coef[:, part.outputs], intercept[part.outputs] = model.coef, model.intercept
        strengths[part.outputs] = chosen
        squares[part.outputs] = mean_squares(model, part.validation)
    return TunedRegression(model=LinearModel(coef=coef, intercept=intercept), strengths=strengths, mean_squares=squares)


def ridge_of_known(x: Matrix, y: Array, strength: float) -> LinearModel:
    """Return the ridge regression of every output on the images where it is known, at one strength."""
    coef, intercept = np.empty((x.shape[1], y.shape[1])), np.empty(y.shape[1])
    for outputs, moments in moments_of_known(x, y):
        model = fit_ridge(moments, strength)
        coef[:, outputs], intercept[outputs] = model.coef, model.intercept
    return LinearModel(coef=coef, intercept=intercept)


def moments_of_known(x: Matrix, y: Array) -> Iterator[tuple[NDArray[np.intp], Moments]]:
    """Yield the outputs that are known on the same images, and the moments of them and of just these images.

    Args:
        x: Responses, ``(n, n_columns)``.
        y: Targets, ``(n, n_outputs)``, NaN where missing.

    Raises:
        CurveError: If an output is known for no image.
    """
    for rows, outputs in _patterns(y):
        yield outputs, _moments(x, y, rows, outputs)


def available_moments(x: Matrix, y: Array, times: NDArray[np.intp] | None = None) -> Moments:
    """Return moments in which every image counts for what is known of it.

    Means and products of responses are those of all images. An output's mean, and its products with the responses, come
    from the images where it is known, scaled to the number of all images; products of two outputs from the images where
    both are. Where everything is known, these are the plain moments. The Gram matrix stays positive semidefinite and
    each output's products stay in its range, so that the lasso's problem is convex and bounded as ever.

    Args:
        x: Responses, ``(n, n_columns)``.
        y: Targets, ``(n, n_outputs)``, NaN where missing.
        times: How often each row counts, ``(n,)``; by default once.

    Raises:
        CurveError: If an output is known for no image, or a response is not finite.
    """
    known = ~np.isnan(y)
    if known.all():
        return Moments.from_arrays(x, y, times)
    everything = Moments.from_arrays(x, np.zeros((len(x), 0)), times)
    weight = known * (np.ones(len(x)) if times is None else times.astype(np.float64))[:, None]
    counts = weight.sum(axis=0)
    if not counts.all():
        raise CurveError(f"output {int(counts.argmin())} is known for no image")
    filled = np.where(known, y, 0.0)
    mean = (weight * filled).sum(axis=0) / counts
    centred = np.where(known, filled - mean, 0.0)
    xy = np.zeros((x.shape[1], y.shape[1]))
    for rows, block in Rows.of(x).blocks(block_height(sum(xy.shape))):
        xy += (block - everything.mean_x).T @ (weight[rows] * centred[rows])
    both = weight.T @ known
    return replace(
        everything,
        mean_y=mean,
        xy=xy * (everything.n / counts),
        yy=(weight * centred).T @ centred * (everything.n / np.where(both > 0, both, 1.0)),
    )


def taylor_terms(model: LinearModel, x: Matrix, y: Array) -> Array:
    """Return each column's mean over images of |response × ∂loss/∂response|, ``(n_columns,)``; the loss is ½ error².

    An output counts where it is known, there so much more than if it were known everywhere.

    Args:
        model: The linear model that the loss is of.
        x: Responses, ``(n, n_columns)``.
        y: Targets, ``(n, n_outputs)``, NaN where missing.
    """
    share = (~np.isnan(y)).mean(axis=0)
    terms = np.zeros(len(model.coef))
    for rows, block in Rows.of(x).blocks(block_height(sum(model.coef.shape))):
        residual = np.where(np.isnan(y[rows]), 0.0, model.predict(block) - y[rows]) / share
        terms += np.abs(residual @ model.coef.T * block).sum(axis=0)
    return terms / len(y)


def path_for(part: KnownTogether, path: SelectionPath, train: Moments) -> SelectionPath:
    """Return a path whose coefficients are those of some outputs, per standard deviation of *their* images' responses.

    Args:
        part: Some outputs.
        path: A selector's path, fitted to all outputs.
        train: The moments that the selector saw.
    """
    if path.coefficients is None or np.shape(path.coefficients)[1:] != (train.n_columns, train.n_outputs):
        return path  # the curve says what is wrong with the shape
    unit = part.train.std_x / np.where(train.dead_columns, 1.0, train.std_x)
    return replace(path, coefficients=np.asarray(path.coefficients)[:, :, part.outputs] * unit[:, None])


def joined(curves: Sequence[Curve], parts: Sequence[KnownTogether]) -> Curve:
    """Return one curve from the curves of some outputs each, along the same path: the root mean over all outputs."""
    weights = np.array([len(part.outputs) for part in parts], dtype=np.float64)

    def root_mean(values: Sequence[Any]) -> Any:
        return np.sqrt(np.average(np.square(np.array(values, dtype=np.float64)), axis=0, weights=weights))

    notes = dict.fromkeys(note for curve in curves for note in curve.notes)
    return replace(
        curves[0],
        rmse=tuple(float(value) for value in root_mean([curve.rmse for curve in curves])),
        unpruned_rmse=float(root_mean([curve.unpruned_rmse for curve in curves])),
        notes=tuple(notes),
    )


def mean_of_known(values: Array) -> Array:
    """Return each column's mean over its known entries, ``(n_columns,)``; NaN where none is known."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / np.where(counts > 0, counts, np.nan))


def spread_of_known(values: Array) -> Array:
    """Return each column's standard deviation over its known entries; 1 where they are equal, so as to divide by."""
    return np.array([column.std() if len(column) and np.ptp(column) > 0 else 1.0 for column in _columns(values)])


def _columns(values: Array) -> list[Array]:
    """Return each column's known entries."""
    return [column[~np.isnan(column)] for column in values.T]


def _patterns(y: Array) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return the rows on which outputs are known, and these outputs, for every distinct set of rows."""
    known = ~np.isnan(y)
    if known.all():
        return [(np.arange(len(y)), np.arange(y.shape[1]))]
    found: dict[bytes, list[int]] = {}
    for output in range(y.shape[1]):
        found.setdefault(known[:, output].tobytes(), []).append(output)
    return [(np.flatnonzero(known[:, outputs[0]]), np.array(outputs)) for outputs in found.values()]


def _moments(x: Matrix, y: Array, rows: NDArray[np.intp], outputs: NDArray[np.intp]) -> Moments:
    """Return the moments of some rows and outputs."""
    if not len(rows):
        raise CurveError(f"output {int(outputs[0])} is known for no image of a split")
    if len(rows) == len(x):
        return Moments.from_arrays(x, y[:, outputs])
    return Moments.from_arrays(Rows.of(x)[rows], y[np.ix_(rows, outputs)])
