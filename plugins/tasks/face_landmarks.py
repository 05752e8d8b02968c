"""68 landmarks of each face (iBUG order) from columns of the dataset's table.

Where ``facetask.detect_landmarks`` finds no face they are missing: taking the whole image, or its middle, for the face
gave a yaw that is wrong by 13 degrees (root mean square) on face crops, where the detector's box gave 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facetask import DataError, FaceData
from facetask.plugins.tasks.column_cells import first_text, missing_cells
from facetask.plugins.tasks.surrey_model import N_LANDMARKS

DETECTED_LICENCE = "landmarks by dlib's 68-point predictor, which excludes commercial use"


def from_columns(data: FaceData, x: str, y: str, who: str) -> NDArray[np.float64]:
    """Return the landmarks of a table, ``(n, 68, 2)`` in its unit, NaN where a cell is empty.

    Args:
        data: The dataset.
        x: Name of a landmark's column of x, ``{}`` standing for its index from 0.
        y: The same for y, which grows downwards.
        who: The task that asks, for messages.

    Raises:
        DataError: If a column is absent or not numeric.
    """
    names = [pattern.replace("{}", str(i)) for i in range(N_LANDMARKS) for pattern in (x, y)]
    missing = next((name for name in names if name not in data.columns), None)
    where = data.source or "dataset"
    if missing is not None:
        raise DataError(
            f"{where}: no column {missing!r}; {who} needs 68 landmarks in columns {names[0]}, {names[1]} … "
            f"{names[-2]}, {names[-1]} (params x and y name them), or params.landmarks: detect"
        )
    columns = []
    for name in names:
        column = data.columns[name]
        if column.dtype == object and not missing_cells(column).all():
            raise DataError(
                f"{where}: column {name!r}: {first_text(data, column)}; a landmark's coordinate must be a number, or "
                "an empty cell where it is not known"
            )
        columns.append(column if column.dtype != object else np.full(len(column), np.nan))
    return np.stack(columns, axis=1).reshape(len(data), N_LANDMARKS, 2)
