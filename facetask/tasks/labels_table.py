"""A task's labels table: one row an image, with its label, confidence, source, licence and split."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.data.splits import PARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.data.splits import Split
    from facetask.records import FaceData, Labels
    from facetask.tasks.satellite import Satellite


def labels_table(task: Satellite, split: Split) -> Any:
    """Return the labels as the task's plugin gave them, as a ``pyarrow.Table``; what is missing is null.

    Its columns are ``image``; ``value`` (the class's name, or a number in the unit) or, of several outputs,
    ``value[…]`` each with the label's name or its number from 1; ``bin`` of a binned task; ``confidence``, ``source``,
    ``licence`` and ``split``. An image that has a label and no split belongs to a class that was left out as too small.
    """
    import pyarrow

    labels, n = task.given, len(task.data)
    parts = np.full(n, None, dtype=object)
    for name in PARTS:
        parts[getattr(split, name)] = name
    repeated = pyarrow.array(np.zeros(n, dtype=np.int32))
    cells = {
        "image": pyarrow.array(image_names(task.data), pyarrow.string()),
        **_value_columns(labels),
        "confidence": _numbers(np.full(n, np.nan) if labels.confidence is None else labels.confidence),
        "source": pyarrow.DictionaryArray.from_arrays(repeated, [labels.source]),
        "licence": pyarrow.DictionaryArray.from_arrays(repeated, [labels.licence]),
        "split": pyarrow.array(parts, pyarrow.string()),
    }
    about = {
        "task": task.spec.name,
        "plugin": task.plugin,
        "kind": labels.kind,
        "unit": labels.unit,
        "classes": labels.classes,
        "notes": labels.notes,
    }
    return pyarrow.table(cells).replace_schema_metadata({"facetask": json.dumps(about, ensure_ascii=False)})


def is_labels_table(path: Path) -> bool:
    """Return whether a file is a run's own table of the task that it is named after, and nobody else's."""
    import pyarrow
    from pyarrow import parquet

    try:
        about = (parquet.read_schema(path).metadata or {}).get(b"facetask", b"{}")
        return bool(json.loads(about).get("task") == path.stem)
    except (pyarrow.ArrowException, OSError, ValueError, AttributeError):
        return False


def image_names(data: FaceData) -> list[str]:
    """Return each image's path within the dataset's folder, or within the deepest folder that holds them all."""
    source = Path(data.source or ".").absolute()
    paths = [path.absolute() for path in data.paths]
    root = source if source.is_dir() else source.parent
    if not data.source or not all(path.is_relative_to(root) for path in paths):
        root = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(root).as_posix() for path in paths]


def _value_columns(labels: Labels) -> dict[str, Any]:
    """Return the columns that hold the labels."""
    import pyarrow

    values = labels.values
    if labels.kind in ("binary", "nominal"):
        return {"value": pyarrow.array(_names(values[:, 0], labels.classes), pyarrow.string())}
    if labels.kind == "multilabel":
        return {f"value[{name}]": _numbers(values[:, i]) for i, name in enumerate(labels.classes)}
    several = values.shape[1] > 1
    columns = {f"value[{i + 1}]" if several else "value": _numbers(column) for i, column in enumerate(values.T)}
    if labels.kind == "binned":
        known = ~np.isnan(values).any(axis=1)
        bins = [np.searchsorted(edges, values[known, i], side="right") for i, edges in enumerate(labels.edges)]
        index = np.full(len(values), np.nan)
        index[known] = np.ravel_multi_index(tuple(bins), [len(edges) + 1 for edges in labels.edges])
        columns["bin"] = pyarrow.array(_names(index, labels.classes), pyarrow.string())
    return columns


def _names(index: NDArray[np.float64], classes: tuple[str, ...]) -> list[str | None]:
    """Return the class of each index, None where it is NaN."""
    return [None if np.isnan(i) else classes[int(i)] for i in index]


def _numbers(values: NDArray[np.float64]) -> Any:
    """Return numbers as an Arrow column, null where NaN."""
    import pyarrow

    return pyarrow.array(values, mask=np.isnan(values))
