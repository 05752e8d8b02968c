"""Stage 2: every tap's characteristic curve, error against number of filters kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.data.splits import group_codes
from facetask.errors import CurveError, FacetaskError
from facetask.records import SelectionPath, SelectionProblem
from facetask.stages.regress import scaled_targets
from facetask.statistics.curves import Curve, Refit, characteristic_curve, columns_of
from facetask.statistics.known import KnownTogether, available_moments, joined, known_together, path_for, taylor_terms
from facetask.statistics.regression import fit_ridge
from facetask.statistics.stability import order_of_appearance, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facetask.data.splits import Split
    from facetask.progress import Advance
    from facetask.records import Selector
    from facetask.responses import Responses
    from facetask.statistics.moments import Moments
    from facetask.statistics.rows import Rows
    from facetask.tasks.satellite import Satellite

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
        refit: Whether each support's model is fitted anew.
        bootstrap: On how many resamples of the training images the selector is asked again.
    """

    selector: Selector
    params: Any
    weights: FilterWeights
    seed: int
    refit: Refit = "least-squares"
    bootstrap: int = 0

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
        x_train, y_train = x[split.train], y[split.train]
        where = taps[0] if len(taps) == 1 else f"{len(taps)} taps from {taps[0]} to {taps[-1]}"
        try:
            parts = known_together(x_train, y_train, x[split.validation], y[split.validation])
            train = parts[0].train if len(parts) == 1 else available_moments(x_train, y_train)
            if train.dead_columns.all() and not train.constant_outputs.all():
                return joined([_dead_curve(part, component) for part in parts], parts)
            problem = self._problem(x_train, y_train, taps, component, train, self.seed)
            path = self.selector.select(problem, self.params)
            _check_form(path.supports)
            # A path's supports are for all outputs; each is refitted and measured on the images where it is known.
            paths = [path_for(part, path, problem.moments) for part in parts]
            curves = [
                characteristic_curve(part.train, part.validation, component, of_part, None, self.refit)
                for part, of_part in zip(parts, paths, strict=True)
            ]
            drawn = joined(curves, parts) if len(parts) > 1 else curves[0]
            orders = self._resampled(x_train, y_train, taps, component, task, split)
        except FacetaskError as error:
            raise CurveError(f"task {task.spec.name!r}, {where}, selector {self.selector.name!r}: {error}") from error
        notes = drawn.notes
        if len(orders) < self.bootstrap:
            notes += (f"{self.bootstrap - len(orders)} of {self.bootstrap} resamples left out: nothing to choose from",)
        return replace(drawn, resampled=orders, notes=notes)

    def _resampled(
        self,
        x: Rows,
        y: NDArray[np.float64],
        taps: Sequence[str],
        component: NDArray[np.intp],
        task: Satellite,
        split: Split,
    ) -> tuple[NDArray[np.intp], ...]:
        """Return the components in the order in which they first appear on each resample of the training images."""
        if not self.bootstrap:
            return ()
        orders: list[NDArray[np.intp]] = []
        groups = _groups(task, split)
        for index in range(self.bootstrap):
            rng = np.random.default_rng((self.seed, index))  # the same resamples for every tap
            times = resample(groups, rng)
            rows = np.repeat(np.arange(len(x)), times)
            draw = int(rng.integers(2**31))
            try:
                moments = available_moments(x, y, times)
                problem = self._problem(x[rows], y[rows], taps, component, moments, draw)
                path = self.selector.select(problem, self.params)
            except FacetaskError:  # a resample may hold constant targets, say, where the images themselves do not
                continue
            _check_form(path.supports)
            columns_of(path.supports, component)
            orders.append(order_of_appearance(path, component))
        return tuple(orders)

    def _problem(
        self,
        x: Rows,
        y: NDArray[np.float64],
        taps: Sequence[str],
        component: NDArray[np.intp],
        train: Moments,
        seed: int,
    ) -> SelectionProblem:
        """Return what the selector needs, and no more; one that needs responses sees the images with all labels."""
        needs = self.selector.needs
        whole = ~np.isnan(y).any(axis=1)
        if "responses" in needs and not whole.all():
            if not whole.any():
                raise CurveError(
                    "it needs images that have all of the task's labels, and in training there is none; use a selector "
                    "that works from moments, such as lasso"
                )
            x, y = x[np.flatnonzero(whole)], y[whole]
            train = available_moments(x, y)
        gradients = None
        if "gradients" in needs:
            gradients = taylor_terms(fit_ridge(train, 1e-3), x, y)
        return SelectionProblem(
            moments=train,
            component=component,
            responses=x.array() if "responses" in needs else None,
            targets=y if "responses" in needs else None,
            weights=tuple(row for tap in taps for row in self.weights[tap]) if "weights" in needs else None,
            gradients=gradients,
            seed=seed,
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


def _groups(task: Satellite, split: Split) -> NDArray[np.intp]:
    """Return the group of each training image, ``(n_train,)``: what the split keeps together."""
    return group_codes(task.data.column(task.group_by))[split.train] if task.group_by else split.train


def _dead_curve(part: KnownTogether, component: NDArray[np.intp]) -> Curve:
    """Return the curve where there is nothing to choose from: one component, which tells no more than the mean."""
    path = SelectionPath(
        supports=(component[:1],), notes=(f"all {len(component)} filters are dead: constant over the training images",)
    )
    return characteristic_curve(part.train, part.validation, component, path, None)


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
        "order": curve.order.tolist(),
        "resampled": [order.tolist() for order in curve.resampled],
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
        order=np.array(fields["order"], dtype=np.intp),
        resampled=tuple(np.array(order, dtype=np.intp) for order in fields["resampled"]),
        strengths=None if fields["strengths"] is None else tuple(fields["strengths"]),
        notes=tuple(fields["notes"]),
    )
