"""A folder of images and a table with one row an image, CSV or Parquet.

A column is numeric if each of its cells is a number or missing, or true or false or missing (then 1 and 0); any other
column is text. In a CSV file an empty cell, ``NA``, ``N/A``, ``NaN``, ``nan`` and ``null`` mean missing.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, did_you_mean, hookimpl
from facetask.plugins.datasets.reading import shown, what_is_at

_MISSING = frozenset(("", "NA", "N/A", "NaN", "nan", "null"))
_TRUTH = {"true": 1.0, "false": 0.0}
_PARQUET = (".parquet", ".pq")


class TableParams(Params):
    """Where the images and their table are.

    Attributes:
        root: The dataset's folder.
        labels: The table, CSV or Parquet (``.parquet``, ``.pq``), in the root.
        images: The images' folder, in the root.
        image_column: The column of the images' names, in the images' folder.
        group_column: The column whose equal values must stay on one side of a split (a person, a clip), if any.
    """

    root: ConfigPath
    labels: str = "labels.csv"
    images: str = "images"
    image_column: str = "image"
    group_column: str | None = None


def load(params: TableParams) -> FaceData:
    """Return the table's rows and the paths of their images, whether the images exist or not.

    Raises:
        DataError: If the folder, the table or the images' folder is missing or empty, the table cannot be parsed, a
            named column is absent, or image names are missing, repeated or outside the images' folder.
    """
    root, table, folder = params.root, params.root / params.labels, params.root / params.images
    expected = f"expected a folder with the table {params.labels!r} and the images' folder {params.images!r}"
    if not root.is_dir():
        raise DataError(f"{root}: {expected}, found {what_is_at(root)}")
    if not table.is_file():
        raise DataError(f"{table}: no such table; {expected}, found {what_is_at(root)}")
    read = _read_parquet if table.suffix.lower() in _PARQUET else _read_csv
    columns = read(table, params.image_column)
    if params.image_column not in columns:
        hint = did_you_mean(params.image_column, columns)
        raise DataError(f"{table}: no column {params.image_column!r} with the images' names (image_column){hint}")
    names = columns[params.image_column]
    if not len(names):
        raise DataError(f"{table}: the table has a header and no rows; expected one row an image")
    if not folder.is_dir() or not any(folder.iterdir()):
        raise DataError(f"{folder}: expected a folder with the images of {table.name}, found {what_is_at(folder)}")
    data = FaceData(
        paths=_image_paths(folder, names, table), columns=columns, group_column=params.group_column, source=str(table)
    )
    if params.group_column is not None:
        data.column(params.group_column)
    return data


def _read_csv(path: Path, text_column: str) -> dict[str, NDArray[Any]]:
    """Read a UTF-8 CSV file with a header; ``text_column`` is text even where its cells look like numbers."""
    raw = path.read_bytes()
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x}); save it as UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if rows and row and len(row) != len(rows[0]):
                raise DataError(f"{path}: line {reader.line_num}: expected {len(rows[0])} cells, found {len(row)}")
            if row:
                rows.append(row)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not a CSV row ({error})") from None
    if not rows:
        raise DataError(f"{path}: the table is empty; expected a header and one row an image")
    header = [name.strip() for name in rows[0]]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: line 1: {len(repeated)} column names repeat: {shown(map(repr, repeated))}")
    cells = zip(*rows[1:], strict=True) if len(rows) > 1 else ((),) * len(header)
    return {
        name: _text_cells(column) if name == text_column else _parsed_cells(column)
        for name, column in zip(header, cells, strict=True)
    }


def _text_cells(cells: tuple[str, ...]) -> NDArray[np.object_]:
    """Cells as text, ``(n,)``, None where missing."""
    return np.array([None if cell.strip() in _MISSING else cell for cell in cells], dtype=object)


def _parsed_cells(cells: tuple[str, ...]) -> NDArray[Any]:
    """Cells as numbers where each of them is one, ``(n,)``, else as text."""
    try:
        return np.array([_number(cell.strip()) for cell in cells], dtype=np.float64)
    except ValueError:
        pass
    truth = [_TRUTH.get(cell.strip().lower(), np.nan) for cell in cells if cell.strip() not in _MISSING]
    if np.isnan(truth).any():
        return _text_cells(cells)
    return np.array([_TRUTH.get(cell.strip().lower(), np.nan) for cell in cells])


def _number(cell: str) -> float:
    """A cell's number, NaN where missing.

    Raises:
        ValueError: If it is text; so are identifiers that a float would merge (``12_3``, twenty digits).
    """
    if cell in _MISSING:
        return np.nan
    if "_" in cell or (len(cell) > 15 and cell.isdigit()):
        raise ValueError(cell)
    return float(cell)


def _read_parquet(path: Path, text_column: str) -> dict[str, NDArray[Any]]:
    """Read a Parquet file: numbers and truth values as float64, everything else and ``text_column`` as text."""
    import pyarrow
    from pyarrow import parquet, types

    numeric = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal)
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None
    columns: dict[str, NDArray[Any]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            raise DataError(f"{path}: the column name {name!r} repeats")
        values = column.to_pylist()
        if name != text_column and any(test(column.type) for test in numeric):
            columns[name] = np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
        else:
            columns[name] = np.array([None if value is None else str(value) for value in values], dtype=object)
    return columns


def _image_paths(folder: Path, names: NDArray[np.object_], table: Path) -> tuple[Path, ...]:
    """The path of each named image.

    Raises:
        DataError: If a name is missing, repeated, or leads out of the folder.
    """
    rows = [str(i + 1) for i, name in enumerate(names) if not name]
    if rows:
        raise DataError(f"{table}: {len(rows)} rows have no image name: rows {', '.join(rows[:5])}")
    plain = [os.path.normpath(name) for name in names]
    outside = [
        name
        for name, path in zip(names, plain, strict=True)
        if os.path.isabs(path) or path.split(os.sep)[0] in ("..", ".")
    ]
    if outside:
        raise DataError(f"{table}: {len(outside)} image names lead out of {folder}: {shown(map(repr, outside))}")
    repeated = [name for name, count in Counter(plain).items() if count > 1]
    if repeated:
        raise DataError(
            f"{table}: {len(repeated)} image names stand in more than one row: {shown(map(repr, repeated))}; "
            "keep one row an image"
        )
    return tuple(folder / path for path in plain)


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``table``."""
    return [Dataset(name="table", load=load, params=TableParams)]
