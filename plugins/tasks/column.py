"""A satellite task whose labels stand in the dataset's table: in one column, or in one column a label."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from facetask import DataError, FaceData, Flip, Kind, Labels, Params, Task, hookimpl

_MAX_BINS = 1000


class ColumnParams(Params):
    """Which column, and what its values mean.

    Attributes:
        column: The column's name, and the task's.
        columns: The labels' columns, instead of one column (multilabel).
        kind: continuous, binary, multilabel, binned or nominal.
        unit: Unit of continuous and binned values.
        positive: The value that counts as 1 (binary, multilabel); by default the later one in sort order.
        classes: The class of each value of the column (binary, nominal); values may share one, and ``null`` makes a
            value a missing label.
        edges: Inner bin edges, ascending (binned); a value on an edge belongs to the bin above.
        width: Width of the bins, whose edges are its multiples over the data's range (binned, instead of edges): 10
            for the decades of an age.
        flip: What a mirrored image's label is: the same, negated, or unknown.
    """

    column: str | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    kind: Kind
    unit: str = ""
    positive: bool | int | float | str | None = None
    classes: Annotated[dict[bool | int | float | str, str | None], Field(min_length=1)] | None = None
    edges: list[float] | None = None
    width: float | None = None
    flip: Flip = "keep"

    @model_validator(mode="after")
    def _belongs_to_the_kind(self) -> ColumnParams:
        """Refuse settings that another kind would need."""
        several = self.kind == "multilabel"
        if (self.columns is not None) != several or (self.column is not None) == several:
            wanted = "columns (a list of names)" if several else "column (a name)"
            raise ValueError(f"kind: {self.kind} needs {wanted}, and not the other")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns must differ, found {', '.join(self.columns)}")
        if self.kind not in ("binary", "multilabel") and self.positive is not None:
            raise ValueError(f"positive is for kind: binary and multilabel, not {self.kind}")
        if self.kind not in ("binary", "nominal") and self.classes is not None:
            raise ValueError(f"classes is for kind: binary and nominal, not {self.kind}")
        if self.kind != "binned" and (self.edges is not None or self.width is not None):
            raise ValueError(f"edges and width are for kind: binned, not {self.kind}")
        if self.kind == "binned" and (self.edges is None) == (self.width is None):
            raise ValueError("kind: binned needs either edges (a list) or width (a number)")
        if self.edges is not None and not _ascending(self.edges):
            raise ValueError(f"edges must be one or more finite numbers in ascending order, found {self.edges}")
        if self.width is not None and not 0 < self.width < np.inf:
            raise ValueError(f"width must be positive, found {self.width}")
        if self.flip == "negate" and self.kind in ("binary", "multilabel", "nominal"):
            raise ValueError(f"flip: negate needs numbers; for kind: {self.kind} use keep or never")
        return self


def _ascending(edges: list[float]) -> bool:
    """Whether there are edges, finite and strictly ascending."""
    return bool(edges) and bool(np.isfinite(edges).all()) and bool((np.diff(edges) > 0).all())


def labels(data: FaceData, params: ColumnParams) -> Labels:
    """Return a column's values, or several columns', as labels.

    Raises:
        DataError: If a column is absent, has no label or only one value, holds text or infinity where numbers are
            asked for, has not exactly two values for a binary or multilabel task, or a value that ``classes`` lacks.
    """
    if params.columns is not None:
        return _several(data, params.columns, params)
    assert params.column is not None
    column, missing, where = _column(data, params.column)
    if params.classes is not None:
        column = _renamed(column, missing, params.classes, where)
        missing = _missing(column)
        if missing.all():
            raise DataError(f"{where}: classes makes all labels missing; name a class for at least two values")
    if params.kind in ("continuous", "binned"):
        values = _numbers(data, column, params.kind, where)
    else:
        known, index = np.unique(column[~missing], return_inverse=True)
        values = np.full(len(column), np.nan)
        values[~missing] = index
    if params.kind != "binary" and len(np.unique(values[~missing])) < 2:
        raise DataError(f"{where}: all of {(~missing).sum()} labels are {column[~missing][0]!s}; nothing to learn")

    classes: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    if params.kind == "binary":
        positive = _positive(known, index, params.positive, where)
        values = np.where(missing, np.nan, values == positive)
        classes = (_name(known[1 - positive]), _name(known[positive]))
    elif params.kind == "nominal":
        classes = tuple(_name(value) for value in known)
    elif params.kind == "binned":
        inner, classes = _bins(values[~missing], params, where)
        edges = (inner,)
    return Labels(
        name=params.column,
        kind=params.kind,
        values=values[:, None],
        unit=params.unit,
        classes=classes,
        edges=edges,
        flip=params.flip,
        source=f"column {params.column!r} of {Path(data.source).name or 'the dataset'}",
        licence=data.licence,
    )


def _several(data: FaceData, columns: list[str], params: ColumnParams) -> Labels:
    """Return the labels of several columns of two values each."""
    values = np.full((len(data), len(columns)), np.nan)
    for label, name in enumerate(columns):
        column, missing, where = _column(data, name)
        known, index = np.unique(column[~missing], return_inverse=True)
        values[~missing, label] = index == _positive(known, index, params.positive, where)
    shown = ", ".join(repr(name) for name in columns)
    return Labels(
        name=columns[0] if len(columns) == 1 else f"{columns[0]} and {len(columns) - 1} more",
        kind=params.kind,
        values=values,
        classes=tuple(columns),
        flip=params.flip,
        source=f"columns {shown} of {Path(data.source).name or 'the dataset'}",
        licence=data.licence,
    )


def _column(data: FaceData, name: str) -> tuple[NDArray[Any], NDArray[np.bool_], str]:
    """Return a column, which of its rows have no label, and its place for a message.

    Raises:
        DataError: If it is absent, or has no label or an infinite one.
    """
    column = data.column(name)
    where = f"{data.source or 'dataset'}: column {name!r}"
    missing = _missing(column)
    if missing.all():
        raise DataError(f"{where}: all of {len(column)} labels are missing")
    if column.dtype != object:
        infinite = np.flatnonzero(np.isinf(column))
        if len(infinite):
            raise DataError(
                f"{where}: {len(infinite)} labels are infinite, in {_images(data, infinite)}; correct or empty them"
            )
    return column, missing, where


def _renamed(
    column: NDArray[Any], missing: NDArray[np.bool_], classes: dict[Any, str | None], where: str
) -> NDArray[np.object_]:
    """Return the class of each row, ``(n,)``, None where there is none.

    Raises:
        DataError: If a value has no class.
    """
    renamed = np.full(len(column), None, dtype=object)
    for value in np.unique(column[~missing]):
        named = [given for given in classes if _same(value, given)]
        if not named:
            raise DataError(
                f"{where}: classes has no entry for the value {_quoted(value)} ({np.sum(column == value)} images); "
                "name its class, or null to leave these labels out"
            )
        renamed[column == value] = classes[named[0]]
    return renamed


def _missing(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have no label, ``(n,)``."""
    if column.dtype == object:
        return np.array([value is None for value in column], dtype=bool)
    return np.asarray(np.isnan(column), dtype=bool)


def _images(data: FaceData, rows: NDArray[np.intp]) -> str:
    """The first five images of some rows, for a message."""
    return ", ".join(data.paths[row].name for row in rows[:5]) + (", …" if len(rows) > 5 else "")


def _numbers(data: FaceData, column: NDArray[Any], kind: str, where: str) -> NDArray[np.float64]:
    """The column as numbers, ``(n,)``.

    Raises:
        DataError: If it is text; names the first cell that is no number.
    """
    if column.dtype != object:
        return column.astype(np.float64)
    texts = [row for row, value in enumerate(column) if value is not None]
    row = next((row for row in texts if not _is_number(column[row])), texts[0])
    raise DataError(
        f"{where}: kind: {kind} needs numbers, but row {row + 1} ({data.paths[row].name}) has {column[row]!r}; "
        "correct it, or use kind: nominal or binary"
    )


def _is_number(text: str) -> bool:
    """Whether a cell's text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _positive(known: NDArray[Any], index: NDArray[np.intp], positive: Any, where: str) -> int:
    """Which of a binary column's two values is the positive one: 0 or 1.

    Raises:
        DataError: If there are not two values, or the positive one is neither.
    """
    if len(known) != 2:
        counts = np.bincount(index)
        shown = ", ".join(f"{_quoted(v)} ({n})" for v, n in zip(known[:10], counts[:10], strict=True))
        more = f", … ({len(known)} in all)" if len(known) > 10 else ""
        raise DataError(f"{where}: a yes or no needs exactly two values, found {shown}{more}; use kind: nominal?")
    if positive is None:
        return 1
    wanted = [_same(value, positive) for value in known]
    if not any(wanted):
        raise DataError(
            f"{where}: positive is {positive!r}, but the values are {_quoted(known[0])} and {_quoted(known[1])}"
        )
    return wanted.index(True)


def _same(value: Any, positive: Any) -> bool:
    """Whether a column's value is the configured one; numbers are compared as numbers."""
    if isinstance(value, str):
        return value == (positive if isinstance(positive, str | bool) else _name(positive))
    return not isinstance(positive, str) and float(value) == float(positive)


def _bins(values: NDArray[np.float64], params: ColumnParams, where: str) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Inner edges and names of the bins, for values without missing ones.

    Raises:
        DataError: If all values fall into one bin, or there are too many bins.
    """
    if params.edges is not None:
        inner = np.array(params.edges)
        names = [f"<{_name(inner[0])}", *_between(inner), f"≥{_name(inner[-1])}"]
    else:
        assert params.width is not None
        low, high = (np.floor(float(limit) / params.width + 1e-9) for limit in (values.min(), values.max()))
        if not high - low < _MAX_BINS:
            raise DataError(
                f"{where}: values of {values.min():g} to {values.max():g} make more than {_MAX_BINS} bins of width "
                f"{params.width:g}; choose a larger width"
            )
        # Twelve digits, so that 3 × 0.1 is the edge 0.3 that the user means.
        multiples = np.array([float(f"{i * params.width:.12g}") for i in np.arange(low, high + 2)])
        inner, names = multiples[1:-1], list(_between(multiples))
    filled = np.unique(np.searchsorted(inner, values, side="right"))
    if len(filled) < 2:
        raise DataError(
            f"{where}: all labels, {values.min():g} to {values.max():g}, fall into the bin {names[filled[0]]}"
        )
    return tuple(inner.tolist()), tuple(names)


def _between(edges: NDArray[np.float64]) -> Iterable[str]:
    """Names of the bins between neighbouring edges."""
    return (f"{_name(low)}–{_name(high)}" for low, high in pairwise(edges))


def _name(value: Any) -> str:
    """A value as the name of a class."""
    return value if isinstance(value, str) else f"{value:.15g}"


def _quoted(value: Any) -> str:
    """A value as shown in a message: text in quotes."""
    return repr(value) if isinstance(value, str) else _name(value)


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``column``."""
    return [Task(name="column", labels=labels, params=ColumnParams)]
