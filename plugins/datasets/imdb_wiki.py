"""IMDB-WIKI: celebrities' photographs with an age computed from two dates, described by ``wiki.mat`` or ``imdb.mat``.

By default the images are taken as they are: those of the archives ``wiki_crop`` and ``imdb_crop`` are faces already.
For the archives of whole photographs, ``crop: true`` cuts the faces out. The group column is ``celeb_id`` for IMDb, and
``name`` for Wikipedia, which has no number.

Source: Rothe, Timofte, Van Gool 2015, DEX: Deep EXpectation of apparent age from a single image, and the fields that
its web page states. Age is here the year of the photograph less the year of birth, so it may be a year too high.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.crops import Squares, cut_faces
from facetask.plugins.datasets.reading import listed_images, need_folder, shown, text, what_is_at

TERMS = "academic research only; the images' owners keep their copyright"
GENDERS = ("female", "male")
_EXPECTED = "a folder with wiki.mat or imdb.mat and the numbered folders of images, as in wiki_crop or imdb_crop"
_DAY_OF_1970 = 719529  # MATLAB's serial number of 1970-01-01
_FIELDS = (*("dob", "photo_taken", "full_path", "gender", "name", "face_location", "face_score", "second_face_score"),)


class IMDBWIKIParams(Params):
    """Where the data is, and which images are worth having.

    Attributes:
        root: The folder with ``wiki.mat`` or ``imdb.mat`` and the images.
        min_age: Ages below it, in years, are wrong dates: missing.
        max_age: Ages above it, in years, are wrong dates: missing.
        min_face_score: The least score of the detected face; by default any finite one, so that there is a face.
        single_face: Whether images with a second face are left out, on which the label may be the other face's.
        crop: Whether to cut out the faces, in the archives of whole photographs.
        margin: Share of the face's size that a cut leaves on each side.
    """

    root: ConfigPath
    min_age: float = 0.0
    max_age: float = 100.0
    min_face_score: float | None = None
    single_face: bool = True
    crop: bool = False
    margin: float = Field(default=0.4, ge=0, le=2)

    @model_validator(mode="after")
    def _ages_are_a_range(self) -> IMDBWIKIParams:
        """Refuse a range without an age in it."""
        if not self.min_age < self.max_age:
            raise ValueError(f"min_age must be below max_age, found {self.min_age:g} and {self.max_age:g}")
        return self


def load(params: IMDBWIKIParams) -> FaceData:
    """Return the images that the params keep; ``source`` says how many of how many, and how many ages cannot be.

    Columns are ``age`` (years), ``gender`` (words), ``name``, ``face_score``, ``second_face_score``, ``photo_year``
    and, for IMDb, ``celeb_id`` (text).

    Raises:
        DataError: If the .mat file or the images are missing, the file is of another layout, or no image is kept.
    """
    path = _find_mat(params.root)
    fields = _read_mat(path)
    score, second = _numbers(fields["face_score"]), _numbers(fields["second_face_score"])
    kept = np.isfinite(score) & (score >= (-np.inf if params.min_face_score is None else params.min_face_score))
    if params.single_face:
        kept &= np.isnan(second)
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise DataError(
            f"{path}: none of {len(kept)} images has the faces asked for (min_face_score: {params.min_face_score}, "
            f"single_face: {params.single_face})"
        )
    year = _numbers(fields["photo_taken"])[rows]
    age = year - _birth_year(_numbers(fields["dob"])[rows])
    impossible = np.isfinite(age) & ~((age >= params.min_age) & (age <= params.max_age))
    age[impossible] = np.nan
    said = [f"{len(rows)} of {len(kept)} images have the faces asked for"]
    if impossible.any():
        said.append(f"{impossible.sum()} ages outside {params.min_age:g} to {params.max_age:g} years are missing")
    gender = _numbers(fields["gender"])[rows]
    columns: dict[str, NDArray[Any]] = {
        "age": age,
        "gender": text(GENDERS[int(code)] if code in (0, 1) else None for code in gender),
        "name": _words(fields["name"])[rows],
        "face_score": score[rows],
        "second_face_score": second[rows],
        "photo_year": year,
    }
    group = "name"
    if "celeb_id" in fields:
        ids = _numbers(fields["celeb_id"])[rows]
        columns["celeb_id"] = text(None if np.isnan(value) else f"{value:.0f}" for value in ids)
        group = "celeb_id"
    names = _words(fields["full_path"])[rows]
    nameless = rows[[not name for name in names]]
    if len(nameless):
        raise DataError(
            f"{path}: full_path is empty in {len(nameless)} rows: {shown(str(row + 1) for row in nameless)}"
        )
    paths = listed_images(params.root, names.tolist(), path)
    if params.crop:
        squares = Squares.around(_boxes(fields["face_location"], path)[rows], params.margin)
        paths = cut_faces("imdb-wiki", params.root, paths, squares)
    return FaceData(
        paths=paths,
        columns=columns,
        group_column=group,
        licence=TERMS,
        source=f"{path} ({'; '.join(said)})",
    )


def _find_mat(root: Path) -> Path:
    """Return the only .mat file that describes the images.

    Raises:
        DataError: If there is none, or both are there.
    """
    need_folder(root, _EXPECTED)
    found = [root / name for name in ("wiki.mat", "imdb.mat") if (root / name).is_file()]
    if len(found) != 1:
        raise DataError(f"{root}: expected {_EXPECTED}, one of the two files; found {what_is_at(root)}")
    return found[0]


def _read_mat(path: Path) -> dict[str, NDArray[Any]]:
    """Return the fields of the file's struct, each ``(n,)``.

    Raises:
        DataError: If the file cannot be read, or fields are missing or of unequal lengths.
    """
    from scipy.io import loadmat

    try:
        struct: Any = loadmat(path, variable_names=[path.stem]).get(path.stem)
    except Exception as error:  # scipy raises errors of many kinds on broken files and on MATLAB 7.3's
        raise DataError(
            f"{path}: not a readable MATLAB file before version 7.3 ({type(error).__name__}: {error}); fetch the "
            "published file again"
        ) from None
    names = () if struct is None else struct.dtype.names or ()
    missing = [name for name in _FIELDS if name not in names]
    if missing or struct.size != 1:
        raise DataError(
            f"{path}: expected one struct {path.stem!r} with the fields {', '.join(_FIELDS)}, found "
            + (f"no field {', '.join(missing)} among {', '.join(names)}" if names else "no such struct")
        )
    fields = {name: struct[name].flat[0].reshape(-1) for name in (*_FIELDS, "celeb_id") if name in names}
    lengths = {name: len(values) for name, values in fields.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(f"{path}: the fields of {path.stem!r} must be equally long, found {listed}")
    return fields


def _numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return a field of numbers, ``(n,)``."""
    return values.astype(np.float64)


def _words(cells: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return a field of text, ``(n,)``, None where a cell is empty."""
    return text(str(cell.flat[0]) if cell.size and str(cell.flat[0]) else None for cell in cells)


def _birth_year(dob: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the years of MATLAB's serial dates, ``(n,)``, NaN where there is no such day."""
    days = np.where(np.abs(dob) < 4e6, np.floor(dob) - _DAY_OF_1970, np.nan)
    dates = np.nan_to_num(days).astype(np.int64).astype("datetime64[D]")
    years = dates.astype("datetime64[Y]").astype(np.int64) + 1970.0
    return np.where(np.isnan(days), np.nan, years)


def _boxes(cells: NDArray[np.object_], path: Path) -> NDArray[np.float64]:
    """Return left, top, width and height of each face, ``(n, 4)``, in pixels from 0.

    Raises:
        DataError: If a face has other than four numbers.
    """
    wrong = [str(row + 1) for row, cell in enumerate(cells) if cell.size != 4]
    if wrong:
        raise DataError(f"{path}: face_location needs four numbers; {len(wrong)} rows have not: {shown(wrong)}")
    left, top, right, bottom = np.stack([cell.reshape(-1) for cell in cells]).astype(np.float64).T
    return np.stack((left - 1, top - 1, right - left + 1, bottom - top + 1), axis=1)  # counted from 1, last included


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``imdb-wiki``."""
    return [Dataset(name="imdb-wiki", load=load, params=IMDBWIKIParams)]
