"""A column of the dataset's table as a task reads it: its cells, which are missing, and how messages name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facetask import DataError, FaceData

_SHOWN = 5


def read_cells(data: FaceData, name: str) -> tuple[NDArray[Any], NDArray[np.bool_], str]:
    """Return a column, which of its rows have no label, and its place for a message.

    Raises:
        DataError: If it is absent, or has no label or an infinite one.
    """
    column = data.column(name)
    where = f"{data.source or 'dataset'}: column {name!r}"
    missing = missing_cells(column)
    if missing.all():
        raise DataError(f"{where}: all of {len(column)} labels are missing")
    if column.dtype != object:
        infinite = np.flatnonzero(np.isinf(column))
        if len(infinite):
            listed = first_images([data.paths[row].name for row in infinite])
            raise DataError(f"{where}: {len(infinite)} labels are infinite, in {listed}; correct or empty them")
    return column, missing, where


def missing_cells(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have no label, ``(n,)``."""
    if column.dtype == object:
        return np.array([value is None for value in column], dtype=bool)
    return np.asarray(np.isnan(column), dtype=bool)


def first_text(data: FaceData, column: NDArray[np.object_]) -> str:
    """Return what is wrong with a text column where numbers are needed: the first cell that is no number."""
    texts = np.flatnonzero(~missing_cells(column))
    row = next((row for row in texts if not _is_number(column[row])), texts[0])
    return f"row {row + 1} ({data.paths[row].name}) has {column[row]!r}"


def _is_number(text: str) -> bool:
    """Return whether a cell's text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def need_variety(column: NDArray[Any], where: str) -> None:
    """Check that labels without missing ones are not all the same.

    Raises:
        DataError: If they are.
    """
    if len(np.unique(column)) < 2:
        raise DataError(f"{where}: all of {len(column)} labels are {text_of(column[0])}; nothing to learn")


def origin(data: FaceData, names: list[str]) -> str:
    """Return where the labels of some columns come from."""
    shown = ", ".join(repr(name) for name in names)
    return f"column{'s' if len(names) > 1 else ''} {shown} of {Path(data.source).name or 'the dataset'}"


def joint_name(names: list[str]) -> str:
    """Return the name of a task of some columns."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def first_images(texts: list[str]) -> str:
    """Return the first five of some texts, for a message."""
    return ", ".join(texts[:_SHOWN]) + (", …" if len(texts) > _SHOWN else "")


def text_of(value: Any) -> str:
    """Return a value as the name of a class."""
    return value if isinstance(value, str) else f"{value:.15g}"


def quoted(value: Any) -> str:
    """Return a value as shown in a message: text in quotes."""
    return repr(value) if isinstance(value, str) else text_of(value)
