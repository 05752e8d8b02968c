"""A satellite task whose labels stand in the dataset's table: in one column, or in several."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from facetask import DataError, FaceData, Flip, Kind, Labels, Params, Task, hookimpl
from facetask.plugins.tasks.column_cells import (
    joint_name,
    missing_cells,
    need_variety,
    origin,
    quoted,
    read_cells,
    text_of,
)
from facetask.plugins.tasks.column_numbers import bins_of, joint_bins, read_numbers

_NUMBERS = ("continuous", "binned")


class ColumnParams(Params):
    """Which columns, and what their values mean.

    Attributes:
        column: The column's name, and the task's.
        columns: Instead of one column: those of several labels (multilabel), or of several numbers that are regressed
            together (continuous, binned).
        kind: continuous, binary, multilabel, binned or nominal.
        unit: Unit of continuous and binned values.
        range: The least and the greatest number that is a label (continuous, binned), as of ages ``[0, 116]``; others
            count as missing, and a run says how many there are.
        positive: The value that counts as 1 (binary, multilabel); by default the later one in sort order.
        classes: The class of each value of the column (binary, nominal); values may share one, and ``null`` makes a
            value a missing label.
        edges: Inner bin edges, ascending (binned); a value on an edge belongs to the bin above. Of several columns a
            list each.
        width: Width of the bins, whose edges are its multiples over the data's range (binned, instead of edges): 10
            for the decades of an age.
        flip: What a mirrored image's label is: the same, negated, or unknown. Of several numbers it may be a list, as
            ``[negate, keep]`` for yaw and pitch.
    """

    column: str | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    kind: Kind
    unit: str = ""
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    positive: bool | int | float | str | None = None
    classes: Annotated[dict[bool | int | float | str, str | None], Field(min_length=1)] | None = None
    edges: list[float] | list[list[float]] | None = None
    width: float | None = None
    flip: Flip | list[Flip] = "keep"

    @model_validator(mode="after")
    def _names_its_columns(self) -> ColumnParams:
        """Refuse no column, both ways to name them, and names that repeat."""
        one, several = self.column is not None, self.columns is not None
        allowed = {"multilabel": (several, not one), **dict.fromkeys(_NUMBERS, (one != several,))}
        if not all(allowed.get(self.kind, (one, not several))):
            wanted = {"multilabel": "columns (a list of names)", **dict.fromkeys(_NUMBERS, "column or columns")}
            raise ValueError(f"kind: {self.kind} needs {wanted.get(self.kind, 'column (a name)')}, and not the other")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"columns must differ, found {', '.join(self.names)}")
        return self

    @model_validator(mode="after")
    def _belongs_to_the_kind(self) -> ColumnParams:
        """Refuse settings that another kind would need."""
        if self.kind not in ("binary", "multilabel") and self.positive is not None:
            raise ValueError(f"positive is for kind: binary and multilabel, not {self.kind}")
        if self.kind not in ("binary", "nominal") and self.classes is not None:
            raise ValueError(f"classes is for kind: binary and nominal, not {self.kind}")
        if self.kind not in _NUMBERS and self.range is not None:
            raise ValueError(f"range is for kind: continuous and binned, not {self.kind}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range must be the least and the greatest number, found {self.range}")
        rules = [self.flip] if isinstance(self.flip, str) else self.flip
        if "negate" in rules and self.kind not in _NUMBERS:
            raise ValueError(f"flip: negate needs numbers; for kind: {self.kind} use keep or never")
        if isinstance(self.flip, list) and len(rules) != len(self.names):
            raise ValueError(f"flip must be one rule, or one for each of {len(self.names)} columns; found {len(rules)}")
        return self

    @model_validator(mode="after")
    def _has_bins(self) -> ColumnParams:
        """Refuse bins where there are none, and edges that make none."""
        if self.kind != "binned" and (self.edges is not None or self.width is not None):
            raise ValueError(f"edges and width are for kind: binned, not {self.kind}")
        if self.kind == "binned" and (self.edges is None) == (self.width is None):
            raise ValueError("kind: binned needs either edges (a list) or width (a number)")
        if self.width is not None and not 0 < self.width < np.inf:
            raise ValueError(f"width must be positive, found {self.width}")
        if self.edges is not None and not all(_ascending(own) for own in self.edges_of_each):
            raise ValueError(f"edges must be one or more finite numbers in ascending order, found {self.edges}")
        if self.edges is not None and len(self.edges_of_each) != len(self.names):
            raise ValueError(f"edges must be a list for each of {len(self.names)} columns, found {self.edges}")
        return self

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [self.column] if self.column is not None else list(self.columns or ())

    @property
    def edges_of_each(self) -> list[list[float]]:
        """Each column's inner edges, if there are any."""
        edges: list[Any] = self.edges or []
        return edges if edges and all(isinstance(own, list) for own in edges) else [edges]


def _ascending(edges: list[float]) -> bool:
    """Return whether there are edges, finite and strictly ascending."""
    return bool(edges) and bool(np.isfinite(edges).all()) and bool((np.diff(edges) > 0).all())


def labels(data: FaceData, params: ColumnParams) -> Labels:
    """Return a column's values, or several columns', as labels.

    Raises:
        DataError: If a column is absent, has no label or only one value, holds text or infinity where numbers are
            asked for, has not exactly two values for a binary or multilabel task, or a value that ``classes`` lacks.
    """
    if params.kind in _NUMBERS:
        return _of_numbers(data, params)
    if params.kind == "multilabel":
        return _of_labels(data, params)
    column, missing, where = read_cells(data, params.names[0])
    if params.classes is not None:
        column = _renamed(column, missing, params.classes, where)
        missing = missing_cells(column)
        if missing.all():
            raise DataError(f"{where}: classes makes all labels missing; name a class for at least two values")
    known, index = np.unique(column[~missing], return_inverse=True)
    if params.kind == "nominal":
        need_variety(column[~missing], where)
        classes = tuple(text_of(value) for value in known)
    else:
        positive = _positive(known, index, params.positive, where)
        index, classes = index == positive, (text_of(known[1 - positive]), text_of(known[positive]))
    values = np.full((len(column), 1), np.nan)
    values[~missing, 0] = index
    return _labels(data, params, values, classes=classes)


def _of_numbers(data: FaceData, params: ColumnParams) -> Labels:
    """Return the labels of one or several columns of numbers."""
    read = [read_numbers(data, name, params.kind, params.range) for name in params.names]
    values = np.stack([column for column, _ in read], axis=1)
    notes = tuple(chain.from_iterable(notes for _, notes in read))
    if params.kind == "continuous":
        return _labels(data, params, values, unit=params.unit, notes=notes)
    edges = params.edges_of_each if params.edges is not None else [None] * len(params.names)
    bins = [
        bins_of(data, name, column, own, params.width)
        for name, column, own in zip(params.names, values.T, edges, strict=True)
    ]
    return _labels(
        data,
        params,
        values,
        unit=params.unit,
        notes=notes,
        classes=joint_bins(params.names, bins),
        edges=tuple(own.edges for own in bins),
    )


def _of_labels(data: FaceData, params: ColumnParams) -> Labels:
    """Return the labels of several columns of two values each."""
    values = np.full((len(data), len(params.names)), np.nan)
    for label, name in enumerate(params.names):
        column, missing, where = read_cells(data, name)
        known, index = np.unique(column[~missing], return_inverse=True)
        values[~missing, label] = index == _positive(known, index, params.positive, where)
    return _labels(data, params, values, classes=tuple(params.names))


def _labels(data: FaceData, params: ColumnParams, values: NDArray[np.float64], **fields: Any) -> Labels:
    """Return labels with what all kinds have."""
    return Labels(
        name=joint_name(params.names),
        kind=params.kind,
        values=values,
        flip=params.flip if isinstance(params.flip, str) else tuple(params.flip),
        source=origin(data, params.names),
        licence=data.licence,
        **fields,
    )


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
                f"{where}: classes has no entry for the value {quoted(value)} ({np.sum(column == value)} images); "
                "name its class, or null to leave these labels out"
            )
        renamed[column == value] = classes[named[0]]
    return renamed


def _positive(known: NDArray[Any], index: NDArray[np.intp], positive: Any, where: str) -> int:
    """Which of a binary column's two values is the positive one: 0 or 1.

    Raises:
        DataError: If there are not two values, or the positive one is neither.
    """
    if len(known) != 2:
        counts = np.bincount(index)
        shown = ", ".join(f"{quoted(v)} ({n})" for v, n in zip(known[:10], counts[:10], strict=True))
        more = f", … ({len(known)} in all)" if len(known) > 10 else ""
        raise DataError(f"{where}: a yes or no needs exactly two values, found {shown}{more}; use kind: nominal?")
    if positive is None:
        return 1
    wanted = [_same(value, positive) for value in known]
    if not any(wanted):
        raise DataError(
            f"{where}: positive is {positive!r}, but the values are {quoted(known[0])} and {quoted(known[1])}"
        )
    return wanted.index(True)


def _same(value: Any, positive: Any) -> bool:
    """Whether a column's value is the configured one; numbers are compared as numbers."""
    if isinstance(value, str):
        return value == (positive if isinstance(positive, str | bool) else text_of(positive))
    return not isinstance(positive, str) and float(value) == float(positive)


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``column``."""
    return [Task(name="column", labels=labels, params=ColumnParams)]
