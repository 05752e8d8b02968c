"""Slices: the groups of images, by a column of the dataset's table, by which metrics are reported too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.data.splits import missing_values
from facetask.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import Slice
    from facetask.records import FaceData

NOT_KNOWN = "not known"
"""The group of images whose value is missing."""
MOST_GROUPS = 40


@dataclass(frozen=True, eq=False)
class Slicing:
    """One column's groups.

    Attributes:
        column: The column.
        names: The groups that occur: values in order, or intervals, ascending; those whose value is missing come last.
        groups: The number of each image's group, ``(n_images,)``.
    """

    column: str
    names: tuple[str, ...]
    groups: NDArray[np.intp]


def slicings(slices: Iterable[Slice], data: FaceData) -> tuple[Slicing, ...]:
    """Return the groups of each column that a configuration names.

    Raises:
        DataError: If a column does not exist, has too many values, or is text where there are edges.
    """
    return tuple(
        _by_value(each, data) if isinstance(each, str) else _by_interval(each.column, each.edges, data)
        for each in slices
    )


def _by_value(name: str, data: FaceData) -> Slicing:
    """Return a group for each value of a column."""
    column = _column(name, data)
    known = ~missing_values(column)
    values, inverse = np.unique(column[known], return_inverse=True)
    if len(values) > MOST_GROUPS:
        what = f"{_where(data)}: column {name!r} has {len(values):,} different values"
        if column.dtype == object:
            raise DataError(f"{what}, {_ends(values)}; a slice is for a column of at most {MOST_GROUPS}")
        edges = ", ".join(f"{edge:.4g}" for edge in np.unique(np.quantile(column[known], [0.25, 0.5, 0.75])))
        raise DataError(f"{what}; give the edges of intervals, such as {{column: {name}, edges: [{edges}]}}")
    names = [str(value) if column.dtype == object else f"{value:.15g}" for value in values]
    return _slicing(name, names, known, inverse)


def _by_interval(name: str, edges: tuple[float, ...], data: FaceData) -> Slicing:
    """Return a group for each interval of a column of numbers in which there is an image."""
    column = _column(name, data)
    if column.dtype == object:
        known = column[~missing_values(column)]
        found = f", such as {known[0]!r}" if len(known) else ""
        raise DataError(f"{_where(data)}: column {name!r} is text{found}, which has no edges; write {name} alone")
    known = ~missing_values(column)
    between = [f"{low:.15g}–{high:.15g}" for low, high in pairwise(edges)]
    names = np.array([f"<{edges[0]:.15g}", *between, f"≥{edges[-1]:.15g}"])
    occurring, inverse = np.unique(np.searchsorted(edges, column[known], side="right"), return_inverse=True)
    return _slicing(name, names[occurring].tolist(), known, inverse)


def _slicing(name: str, names: list[str], known: NDArray[np.bool_], inverse: NDArray[np.intp]) -> Slicing:
    """Return groups of known values; the images without one are the last group."""
    groups = np.full(len(known), len(names), dtype=np.intp)
    groups[known] = inverse
    return Slicing(name, (*names, *(() if known.all() else (NOT_KNOWN,))), groups)


def _column(name: str, data: FaceData) -> NDArray[Any]:
    """Return a column."""
    try:
        return data.column(name)
    except DataError as error:
        raise DataError(f"slices: {error}") from None


def _where(data: FaceData) -> str:
    """Return what a message begins with."""
    return f"slices: {data.source or 'dataset'}"


def _ends(values: NDArray[Any]) -> str:
    """Return the ends of sorted values, for a message."""
    return f"{values[0]!r} to {values[-1]!r}"
