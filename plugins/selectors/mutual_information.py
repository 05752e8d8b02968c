"""Mutual information: components ranked by what each knows of the targets on its own, linear or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from facetask import CurveError, Params, SelectionPath, SelectionProblem, Selector, hookimpl
from facetask.plugins.selectors.nested_path import nested_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_ENTRIES = 2**20


class MutualInformationParams(Params):
    """How finely responses and targets are binned.

    Attributes:
        bins: Number of equally frequent bins; ``None`` takes the cube root of the number of images.
    """

    bins: Annotated[int, Field(ge=2)] | None = None


def mutual_information(problem: SelectionProblem, params: MutualInformationParams) -> SelectionPath:
    """Return nested supports in the order of the mutual information between responses and targets.

    It is estimated from equally frequent bins (equal values share one) and corrected for its bias. One-hot targets are
    one class. Over several outputs it is the sum; where a component owns several columns, the largest of them counts
    for each output: the component knows at least that. Dead components and copies of earlier ones are left out.

    Raises:
        CurveError: If a response or target is not finite, every target is constant or every filter dead.

    Source: Miller 1955, "Note on the bias of information estimates".
    """
    assert problem.responses is not None
    assert problem.targets is not None
    screening = problem.moments.screen(problem.component)
    bins = params.bins or max(2, round(len(problem.targets) ** (1 / 3)))
    targets = _target_bins(problem.targets, bins)
    information = _information(problem.responses, screening.columns, targets, bins)
    group = np.searchsorted(screening.components, problem.component[screening.columns])
    first = np.flatnonzero(np.diff(group, prepend=-1))
    score = np.maximum.reduceat(information, first).sum(axis=1)
    return nested_path(screening.components[np.argsort(-score, kind="stable")], screening.notes)


def _target_bins(targets: NDArray[np.float64], bins: int) -> list[NDArray[np.intp]]:
    """Return the bin ``(n,)`` of each output's values, or the class if the outputs are one-hot."""
    _check_finite(targets, "targets", np.arange(targets.shape[1]))
    if targets.shape[1] > 1 and np.isin(targets, (0, 1)).all() and (targets.sum(axis=1) == 1).all():
        return [targets.argmax(axis=1)]
    binned = []
    for values in targets.T:
        distinct, index = np.unique(values, return_inverse=True)
        if len(distinct) > bins:
            order, ranked = _ranked_bins(values[None], bins)
            index[order[0]] = ranked[0]
        binned.append(index)
    return binned


def _ranked_bins(rows: NDArray[np.float64], bins: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return each row's order, ascending, and the bins of its values in that order, both ``(n_rows, n)``.

    A value's bin is that of the middle of its ranks: equal values share a bin, and a rare value is not put in with a
    frequent one, as the dead half of a ReLU's responses is.
    """
    n = rows.shape[1]
    order = np.argsort(rows, axis=1)
    ascending = np.take_along_axis(rows, order, axis=1)
    place = np.arange(n)
    rises = np.ones((len(rows), n + 1), dtype=bool)
    np.not_equal(ascending[:, 1:], ascending[:, :-1], out=rises[:, 1:-1])
    first = np.maximum.accumulate(np.where(rises[:, :-1], place, 0), axis=1)
    last = np.minimum.accumulate(np.where(rises[:, :0:-1], place[::-1], n), axis=1)[:, ::-1]
    return order, (first + last + 1) * bins // (2 * n)


def _information(
    responses: NDArray[np.float64], columns: NDArray[np.intp], targets: list[NDArray[np.intp]], bins: int
) -> NDArray[np.float64]:
    """Return the mutual information of some columns with each target, ``(n_columns, n_targets)``, in nats."""
    n = len(responses)
    width = max(1, BLOCK_ENTRIES // n)
    information = np.empty((len(columns), len(targets)))
    for start in range(0, len(columns), width):
        block = columns[start : start + width]
        rows = np.ascontiguousarray(responses[:, block].T)
        _check_finite(rows.T, "responses", block)
        order, ranked = _ranked_bins(rows, bins)
        ranked += bins * np.arange(len(block))[:, None]
        for index, target in enumerate(targets):
            classes = int(target.max()) + 1
            cells = ranked * classes
            cells += target[order]
            counts = np.bincount(cells.ravel(), minlength=len(block) * bins * classes)
            information[start : start + width, index] = _corrected(counts.reshape(len(block), bins, classes), n)
    return information


def _corrected(counts: NDArray[np.intp], n: int) -> NDArray[np.float64]:
    """Return the mutual information ``(k,)`` in k tables of counts ``(k, bins, classes)``, less its expected bias.

    The entropy of n counts is too low by about (occupied cells − 1) / 2n.
    """

    def entropy(table: NDArray[np.intp]) -> NDArray[np.float64]:
        share = table.reshape(len(table), -1) / n
        plain = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
        return np.asarray(plain + ((share > 0).sum(axis=1) - 1) / (2 * n))

    return np.asarray(entropy(counts.sum(axis=2)) + entropy(counts.sum(axis=1)) - entropy(counts))


def _check_finite(values: NDArray[np.float64], what: str, columns: NDArray[np.intp]) -> None:
    """Raise where values ``(n, n_columns)`` are not finite: ranks would pass over it in silence."""
    broken = (~np.isfinite(values)).sum(axis=0)
    if broken.any():
        first = int(np.flatnonzero(broken)[0])
        raise CurveError(
            f"{what}: {broken[first]} of {len(values)} values in column {columns[first]} are NaN or infinite; drop "
            "these images or repair the network that made them"
        )


@hookimpl
def facetask_selectors() -> list[Selector]:
    """Return the ranking by mutual information."""
    return [
        Selector(
            name="mutual-information",
            select=mutual_information,
            params=MutualInformationParams,
            needs=frozenset({"moments", "responses"}),
        )
    ]
