"""The task ``column`` where its columns hold numbers: what is permitted, and bins by edges or of one width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from facetask import DataError, FaceData
from facetask.plugins.tasks.binning import bin_names
from facetask.plugins.tasks.column_cells import first_images, first_text, need_variety, read_cells, text_of

_MAX_BINS = 1000


@dataclass(frozen=True)
class Bins:
    """The bins of one column: inner edges, ascending, and their names."""

    edges: tuple[float, ...]
    names: tuple[str, ...]


def read_numbers(
    data: FaceData, name: str, kind: str, permitted: Sequence[float] | None
) -> tuple[NDArray[np.float64], list[str]]:
    """Return a column's numbers, ``(n,)``, NaN where missing or not permitted, and what to note.

    Args:
        data: The dataset.
        name: The column.
        kind: Of the task, for messages.
        permitted: The least and the greatest number that is a label; None permits all.

    Raises:
        DataError: If the column is absent, has no number that is permitted or only one, or holds text or infinity.
    """
    column, _, where = read_cells(data, name)
    if column.dtype == object:
        wrong = first_text(data, column)
        raise DataError(f"{where}: kind: {kind} needs numbers, but {wrong}; correct it, or use kind: nominal or binary")
    values, notes = column.astype(np.float64), []
    if permitted is not None:
        low, high = permitted
        outside = np.flatnonzero((values < low) | (values > high))
        if len(outside):
            listed = first_images([f"{data.paths[row].name} ({text_of(values[row])})" for row in outside])
            said = f"{len(outside)} labels lie outside of range, {text_of(low)} to {text_of(high)}"
            if len(outside) == np.isfinite(values).sum():
                raise DataError(f"{where}: all of {said}: {listed}; is the range in the column's unit?")
            notes.append(f"column {name!r}: {said}, and count as missing: {listed}")
            values[outside] = np.nan
    need_variety(values[~np.isnan(values)], where)
    return values, notes


def bins_of(
    data: FaceData, name: str, values: NDArray[np.float64], edges: Sequence[float] | None, width: float | None
) -> Bins:
    """Return the bins of a column's numbers: between given edges, or of a width.

    Raises:
        DataError: If all values fall into one bin, or there are too many bins.
    """
    where = f"{data.source or 'dataset'}: column {name!r}"
    low, high = np.nanmin(values), np.nanmax(values)
    bins = Bins(tuple(map(float, edges)), bin_names(edges)) if edges else _of_width(low, high, width or 1.0, where)
    filled = np.unique(np.searchsorted(bins.edges, values[~np.isnan(values)], side="right"))
    if len(filled) < 2:
        raise DataError(f"{where}: all labels, {low:g} to {high:g}, fall into the bin {bins.names[filled[0]]}")
    return bins


def joint_bins(names: Sequence[str], bins: Sequence[Bins]) -> tuple[str, ...]:
    """Return the names of several columns' bins together; the last column's vary fastest."""
    if len(names) == 1:
        return bins[0].names
    parts = ([f"{name} {bin_name}" for bin_name in own.names] for name, own in zip(names, bins, strict=True))
    return tuple(", ".join(together) for together in product(*parts))


def _of_width(lowest: float, highest: float, width: float, where: str) -> Bins:
    """Return bins whose edges are the multiples of a width over a range.

    Raises:
        DataError: If there are too many.
    """
    low, high = (np.floor(float(limit) / width + 1e-9) for limit in (lowest, highest))
    if not high - low < _MAX_BINS:
        raise DataError(
            f"{where}: values of {lowest:g} to {highest:g} make more than {_MAX_BINS} bins of width {width:g}; choose "
            "a larger width, or a range"
        )
    # Twelve digits, so that 3 × 0.1 is the edge 0.3 that the user means.
    multiples = [float(f"{i * width:.12g}") for i in np.arange(low, high + 2)]
    names = tuple(f"{text_of(left)}–{text_of(right)}" for left, right in pairwise(multiples))
    return Bins(tuple(multiples[1:-1]), names)
