"""Stage 2: every tap's characteristic curve, error against number of filters kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.curves import Curve, characteristic_curve
from facetask.errors import CurveError, FacetaskError
from facetask.records import SelectionProblem
from facetask.regression import fit_ridge
from facetask.stages.regress import scaled_targets, split_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facetask.moments import Moments
    from facetask.progress import Advance
    from facetask.records import Selector
    from facetask.responses import Responses
    from facetask.satellite import Satellite
    from facetask.splits import Split

FilterWeights = Mapping[str, "NDArray[np.float64]"]


@dataclass(frozen=True)
class Curves:
    """The characteristic curve of every tap in one trial."""

    taps: dict[str, Curve]

    def to_json(self) -> dict[str, Any]:
        """Return the curves as JSON values."""
        return {tap: curve_to_json(curve) for tap, curve in self.taps.items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Curves:
        """Return the curves that :meth:`to_json` described."""
        return cls({tap: curve_from_json(curve) for tap, curve in fields.items()})


@dataclass(frozen=True)
class Chooser:
    """A selector with its params, for one task and trial.

    Attributes:
        selector: The plugin's record.
        params: Its params.
        weights: One flattened filter a row for each tap, ``(n_filters, n_weights)``; only read where it needs them.
        seed: For selectors that draw random numbers.
    """

    selector: Selector
    params: Any
    weights: FilterWeights
    seed: int

    def curve(
        self,
        responses: Responses,
        taps: Sequence[str],
        component: NDArray[np.intp],
        task: Satellite,
        split: Split,
    ) -> Curve:
        """Draw one curve over the columns of some taps.

        Args:
            responses: All taps' responses.
            taps: The taps whose columns are chosen from, side by side.
            component: Component of each of these columns.
            task: The satellite task.
            split: The trial's partition.

        Raises:
            CurveError: If the selector returns no valid path.
        """
        x = responses.taps(taps)
        y, _ = scaled_targets(task, split)
        train, validation = split_moments(x, y, split)
        problem = self._problem(x[split.train], y[split.train], taps, component, train)
        where = taps[0] if len(taps) == 1 else f"{len(taps)} taps from {taps[0]} to {taps[-1]}"
        try:
            path = self.selector.select(problem, self.params)
            _check_form(path.supports)
            return characteristic_curve(train, validation, component, path, None)
        except FacetaskError as error:
            raise CurveError(f"task {task.spec.name!r}, {where}, selector {self.selector.name!r}: {error}") from error

    def _problem(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        taps: Sequence[str],
        component: NDArray[np.intp],
        train: Moments,
    ) -> SelectionProblem:
        """Return what the selector needs, and no more."""
        needs = self.selector.needs
        gradients = None
        if "gradients" in needs:
            model = fit_ridge(train, 1e-3)
            slope = (model.predict(x) - y) @ model.coef.T  # ∂(½ squared error)/∂response
            gradients = np.abs(slope * x).mean(axis=0)
        return SelectionProblem(
            moments=train,
            component=component,
            responses=x.astype(np.float64) if "responses" in needs else None,
            targets=y if "responses" in needs else None,
            weights=tuple(row for tap in taps for row in self.weights[tap]) if "weights" in needs else None,
            gradients=gradients,
            seed=self.seed,
        )


def curve(
    responses: Responses, task: Satellite, split: Split, chooser: Chooser, advance: Advance = lambda done: None
) -> Curves:
    """Draw the characteristic curve of every tap on its own."""
    curves = {}
    for tap, columns in responses.columns.items():
        component = np.arange(columns.stop - columns.start)
        curves[tap] = chooser.curve(responses, [tap], component, task, split)
        advance(1)
    return Curves(curves)


def _check_form(supports: Sequence[NDArray[np.intp]]) -> None:
    """Raise unless supports are lists of indices, not masks, say; what indices they hold, the curve checks."""
    for support in supports:
        if not (isinstance(support, np.ndarray) and support.ndim == 1 and np.issubdtype(support.dtype, np.integer)):
            raise CurveError(f"a support must be a one-dimensional array of component indices, found {support!r}")


def curve_to_json(curve: Curve) -> dict[str, Any]:
    """Return a curve as JSON values."""
    return {
        "n_filters": list(curve.n_filters),
        "rmse": list(curve.rmse),
        "supports": [support.tolist() for support in curve.supports],
        "unpruned_rmse": curve.unpruned_rmse,
        "strengths": None if curve.strengths is None else list(curve.strengths),
        "notes": list(curve.notes),
    }


def curve_from_json(fields: dict[str, Any]) -> Curve:
    """Return the curve that :func:`curve_to_json` described."""
    return Curve(
        n_filters=tuple(fields["n_filters"]),
        rmse=tuple(fields["rmse"]),
        supports=tuple(np.array(support, dtype=np.intp) for support in fields["supports"]),
        unpruned_rmse=fields["unpruned_rmse"],
        strengths=None if fields["strengths"] is None else tuple(fields["strengths"]),
        notes=tuple(fields["notes"]),
    )
