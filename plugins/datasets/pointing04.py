"""Head Pose Image Database (Pointing'04): fifteen people before a neutral background, looking at 93 marked points.

The labels stand in the file names, ``person01146+0-90.jpg``: person 01, series 1, number 46, tilt +0, pan −90 degrees.
Each face is cut out (see :mod:`.crops`) at the rectangle in the text file beside its image. The group column is
``person``. The folder ``Front``, which repeats the frontal images, is not read.

Source: Gourier, Hall, Crowley 2004, Estimating Face Orientation from Robust Detection of Salient Facial Features, and
the form of the names and text files that its web page states.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from pydantic import Field

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.crops import Squares, cut_faces
from facetask.plugins.datasets.reading import image_names, need_folder, numbers, shown, text, what_is_at

TERMS = "free to use, citing Gourier, Hall, Crowley 2004"
_EXPECTED = "folders Person01 … Person15 of images such as person01146+0-90.jpg, each with a .txt beside it"
_FOLDER = re.compile(r"person\d\d(-\d)?", re.IGNORECASE)
_NAME = re.compile(
    r"person(?:ne)?(?P<person>\d\d)(?P<series>\d)(?P<number>\d\d)(?P<tilt>[+-]\d+)(?P<pan>[+-]\d+)", re.IGNORECASE
)


class Pointing04Params(Params):
    """Where the data is.

    Attributes:
        root: The folder that has a folder for each person.
        margin: Share of the face rectangle's longer side that is kept on each side of it.
    """

    root: ConfigPath
    margin: float = Field(default=0.2, ge=0, le=2)


def load(params: Pointing04Params) -> FaceData:
    """Return all faces of the people's folders.

    Columns are ``person`` (text), ``series``, ``number``, ``tilt`` (degrees, positive up), ``pan`` (degrees, signs as
    published), and the rectangle ``face_x``, ``face_y`` (its centre), ``face_w``, ``face_h`` (pixels of the image).

    Raises:
        DataError: If there is no person's folder, an image's name or text file is malformed or missing, or a face image
            cannot be written.
    """
    root = params.root
    need_folder(root, _EXPECTED)
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and _FOLDER.fullmatch(entry.name))
    if not folders:
        raise DataError(f"{root}: expected {_EXPECTED}, found {what_is_at(root)}")
    pictures = [root / folder / name for folder in folders for name in image_names(root / folder, _EXPECTED)]
    matches = [_NAME.fullmatch(picture.stem) for picture in pictures]
    fields = [match for match in matches if match]
    if len(fields) < len(pictures):
        foreign = [path.name for path, match in zip(pictures, matches, strict=True) if not match]
        raise DataError(f"{root}: expected {_EXPECTED}; {len(foreign)} names are of another form: {shown(foreign)}")
    bare = [picture.name for picture in pictures if not picture.with_suffix(".txt").is_file()]
    if bare:
        raise DataError(f"{root}: {len(bare)} images have no .txt with the face's place beside them: {shown(bare)}")
    x, y, w, h = np.array([_rectangle(picture.with_suffix(".txt")) for picture in pictures]).T
    squares = Squares.around(np.stack((x - w / 2, y - h / 2, w, h), axis=1), params.margin)
    return FaceData(
        paths=cut_faces("pointing04", root, pictures, squares),
        columns={
            "person": text(match["person"] for match in fields),
            **{name: numbers(int(match[name]) for match in fields) for name in ("series", "number", "tilt", "pan")},
            "face_x": x,
            "face_y": y,
            "face_w": w,
            "face_h": h,
        },
        group_column="person",
        licence=TERMS,
        source=str(root),
    )


def _rectangle(path: Path) -> tuple[float, ...]:
    """Return the centre's x and y, width and height of the face that a text file describes, in pixels.

    Raises:
        DataError: If the file is malformed.
    """
    lines = [(i, line.strip()) for i, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)]
    lines = [(i, line) for i, line in lines if line]
    start = next((at for at, (_, line) in enumerate(lines, start=1) if line == "Face"), len(lines))
    found = lines[start : start + 4]
    for i, line in found:
        if not re.fullmatch(r"-?\d+(\.\d+)?", line):
            raise DataError(f"{path}: line {i}: expected a number of pixels, found {line[:40]!r}")
    if len(found) < 4:
        raise DataError(
            f"{path}: expected the image's name, 'Face', and the face's centre x, centre y, width and height, a line "
            f"each; found {len(found)} numbers after 'Face'"
        )
    return tuple(float(line) for _, line in found)


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``pointing04``."""
    return [Dataset(name="pointing04", load=load, params=Pointing04Params)]
