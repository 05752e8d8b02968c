"""AFLW: faces of Flickr photographs with head pose, described by a sqlite database.

A photograph may show several faces; each is cut out at its rectangle (see :mod:`.crops`). The group column is
``file_id``, so that one photograph's faces stay together; nobody knows who they are.

Source: Köstinger et al. 2011, Annotated Facial Landmarks in the Wild; the database's layout is general knowledge.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.crops import Squares, cut_faces
from facetask.plugins.datasets.reading import find_file, need_folder, need_some, numbers, shown, text

TERMS = "non-commercial research only; the photographs' owners keep their copyright"
SEXES = {"m": "male", "f": "female"}
_EXPECTED = "AFLW's folder, with data/aflw.sqlite and the photographs in data/flickr"
# A face with two rows in one table keeps one of them: sqlite takes bare columns from any row of a group.
_QUERY = """
    SELECT f.face_id, f.file_id, i.filepath, r.x, r.y, r.w, r.h, p.yaw, p.pitch, p.roll, m.sex, m.glasses, m.occluded
    FROM Faces f
    LEFT JOIN FaceImages i ON i.file_id = f.file_id AND i.db_id = f.db_id
    LEFT JOIN FaceRect r ON r.face_id = f.face_id
    LEFT JOIN FacePose p ON p.face_id = f.face_id
    LEFT JOIN FaceMetaData m ON m.face_id = f.face_id
    GROUP BY f.face_id ORDER BY f.face_id
"""


class AFLWParams(Params):
    """Where the data is.

    Attributes:
        root: The folder with ``data/aflw.sqlite``.
        images: The folder, in the root, that the database's file paths count from.
        margin: Share of the face rectangle's size that is kept on each side of it.
    """

    root: ConfigPath
    images: str = "data/flickr"
    margin: float = Field(default=0.1, ge=0, le=2)


def load(params: AFLWParams) -> FaceData:
    """Return all annotated faces.

    Columns are ``face_id``, ``file_id`` (text), ``yaw``, ``pitch``, ``roll`` (degrees, signs as published), ``sex``
    (words), ``glasses``, ``occluded`` (0 or 1), and the rectangle ``face_x``, ``face_y``, ``face_w``, ``face_h``
    (pixels of the photograph). What the database lacks for a face is missing.

    Raises:
        DataError: If the database or the photographs are missing, the database is of another layout, or a face image
            cannot be written.
    """
    path = find_file(params.root, ("data/aflw.sqlite",), _EXPECTED)
    rows = _read(path)
    face, file, filepath, x, y, w, h, yaw, pitch, roll, sex, glasses, occluded = zip(*rows, strict=True)
    lost = [str(face_id) for face_id, place in zip(face, filepath, strict=True) if not place]
    if lost:
        raise DataError(f"{path}: {len(lost)} faces have no photograph in FaceImages: face_id {shown(lost)}")
    images = params.root / params.images
    need_folder(images, _EXPECTED)
    outside = {place for place in filepath if ".." in Path(place).parts or Path(place).is_absolute()}
    if outside:
        raise DataError(f"{path}: {len(outside)} file paths lead out of {images}: {shown(outside)}")
    pictures = tuple(images / place for place in filepath)
    need_some(pictures, images, path)
    try:
        box = [numbers(np.nan if value is None else value for value in side) for side in (x, y, w, h)]
        angles = [np.degrees(numbers(np.nan if v is None else v for v in angle)) for angle in (yaw, pitch, roll)]
        flags = [numbers(np.nan if v is None else float(bool(int(v))) for v in flag) for flag in (glasses, occluded)]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: a rectangle, an angle or a flag is no number ({error})") from None
    return FaceData(
        paths=cut_faces("aflw", images, pictures, Squares.around(np.stack(box, axis=1), params.margin)),
        columns={
            "face_id": text(map(str, face)),
            "file_id": text(map(str, file)),
            **dict(zip(("yaw", "pitch", "roll"), angles, strict=True)),
            "sex": text(SEXES.get(str(value).lower()) for value in sex),
            **dict(zip(("glasses", "occluded"), flags, strict=True)),
            **dict(zip(("face_x", "face_y", "face_w", "face_h"), box, strict=True)),
        },
        group_column="file_id",
        licence=TERMS,
        source=str(path),
    )


def _read(path: Path) -> list[tuple[Any, ...]]:
    """Return a row for each face.

    Raises:
        DataError: If the file is no such database, or has no face.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(_QUERY).fetchall()
    except sqlite3.Error as error:
        tables = "Faces, FaceImages, FaceRect, FacePose and FaceMetaData"
        raise DataError(f"{path}: expected a sqlite database with the tables {tables} of AFLW ({error})") from None
    if not rows:
        raise DataError(f"{path}: the table Faces is empty; is the file whole?")
    return rows


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``aflw``."""
    return [Dataset(name="aflw", load=load, params=AFLWParams)]
