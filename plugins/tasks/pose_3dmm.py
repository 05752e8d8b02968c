"""Head pose from 68 landmarks: a scaled-orthographic camera fitted to a 3D morphable model's mean face.

The affine camera that maps the model's points to the landmarks is found by linear least squares; the rotation nearest
to it gives yaw (positive: towards the subject's left), pitch (positive: down) and roll, in degrees.

Source: P. Huber et al., "A Multiresolution 3D Morphable Face Model and Fitting Framework" (2016); the linear fit of
R. Hartley and A. Zisserman, "Multiple View Geometry", algorithm 7.2 (affine cameras).
"""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from facetask import ConfigPath, DataError, FaceData, Labels, Params, Task, hookimpl

N_LANDMARKS = 68
_MODEL = "sfm_shape_3448.bin"
_MAPPING = "ibug_to_sfm.txt"
_PUBLISHED = "https://github.com/patrikhuber/eos/tree/master/share"
_LICENCE = "made with the Surrey Face Model, free for non-commercial use"


class PoseParams(Params):
    """Which angle, and where the model and the landmarks are.

    Attributes:
        angle: yaw, pitch or roll.
        model: The folder with the eos project's ``sfm_shape_3448.bin`` and ``ibug_to_sfm.txt``.
        x: Name of a landmark's column of x, ``{}`` standing for its index from 0 (iBUG order).
        y: Name of a landmark's column of y, which grows downwards.
    """

    angle: Literal["yaw", "pitch", "roll"] = "yaw"
    model: ConfigPath
    x: str = "x{}"
    y: str = "y{}"

    @field_validator("x", "y")
    @classmethod
    def _has_a_place_for_the_index(cls, pattern: str) -> str:
        """Refuse a pattern that names one column only."""
        if pattern.count("{}") != 1:
            raise ValueError(f"expected a column name with {{}} in place of the landmark's index, found {pattern!r}")
        return pattern


def labels(data: FaceData, params: PoseParams) -> Labels:
    """Return one angle of each image's face, in degrees; missing where a landmark of the fit is.

    Raises:
        DataError: If a landmark's column is absent or not numeric, no image has all landmarks, or the model's files are
            missing or damaged.
    """
    names = [pattern.replace("{}", str(i)) for i in range(N_LANDMARKS) for pattern in (params.x, params.y)]
    missing = next((name for name in names if name not in data.columns), None)
    where = data.source or "dataset"
    if missing is not None:
        raise DataError(
            f"{where}: no column {missing!r}; pose-3dmm needs 68 landmarks in columns {names[0]}, {names[1]} … "
            f"{names[-2]}, {names[-1]} (params x and y name them)"
        )
    columns = [data.columns[name] for name in names]
    text = next((name for name, column in zip(names, columns, strict=True) if column.dtype == object), None)
    if text is not None:
        raise DataError(f"{where}: column {text!r} holds text; a landmark's coordinate must be a number")
    vertices, indices = _read_model(params.model)
    landmarks = np.stack(columns, axis=1).reshape(len(data), N_LANDMARKS, 2)
    angles = pose_deg(landmarks[:, indices], vertices)[params.angle]
    if np.isnan(angles).all():
        raise DataError(f"{where}: none of {len(data)} images has all {len(indices)} landmarks that the fit needs")
    return Labels(
        name=params.angle,
        kind="continuous",
        values=angles[:, None],
        unit="degrees",
        flip="keep" if params.angle == "pitch" else "negate",
        source="linear fit of a 3D morphable model to 68 landmarks",
        licence=_LICENCE,
    )


def pose_deg(landmarks: NDArray[np.float64], vertices: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return yaw, pitch and roll of many faces, each ``(n,)`` in degrees; NaN where there is no fit.

    Args:
        landmarks: Points in the image, ``(n, n_points, 2)``, y growing downwards.
        vertices: The same points of the model, ``(n_points, 3)``: x to the subject's left, y up, z to the viewer.
    """
    usable = np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))
    points = landmarks[usable] * (1.0, -1.0)
    centred = vertices - vertices.mean(axis=0)  # the camera's offset is then the landmarks' mean
    camera = np.einsum("ap,npd->nda", np.linalg.pinv(centred), points - points.mean(axis=1, keepdims=True))
    length = np.linalg.norm(camera, axis=2, keepdims=True)
    rows = camera / np.where(length > 0, length, 1.0)
    third = np.cross(rows[:, 0], rows[:, 1])
    fits = np.linalg.norm(third, axis=1) > 1e-3  # else the landmarks lie on a line or a point
    u, _, vt = np.linalg.svd(np.concatenate([rows, third[:, None]], axis=1)[fits])
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    rotation = u @ vt
    angles = {
        "yaw": np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2]),
        "pitch": np.arcsin(np.clip(-rotation[:, 1, 2], -1, 1)),
        "roll": np.arctan2(rotation[:, 1, 0], rotation[:, 1, 1]),
    }
    found = {name: np.full(len(landmarks), np.nan) for name in angles}
    for name, values in angles.items():
        found[name][usable[fits]] = np.degrees(values)
    return found


def _read_model(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Read the mean face's points that are landmarks, ``(n_points, 3)``, and the landmarks' indices, ``(n_points,)``.

    Raises:
        DataError: If a file is missing, damaged or does not fit the other.
    """
    mean, mapping = _read_mean(_present(folder, _MODEL)), _read_mapping(_present(folder, _MAPPING))
    wrong = [key for key, vertex in mapping.items() if not (1 <= key <= N_LANDMARKS and 0 <= vertex < len(mean))]
    if wrong or len(mapping) < 6:
        raise DataError(
            f"{folder / _MAPPING}: expected vertices of {_MODEL} (0 to {len(mean) - 1}) for six or more of the "
            f"landmarks 1 to {N_LANDMARKS}, found {len(mapping)}"
            + (f", the first wrong one {wrong[0]}" if wrong else "")
        )
    return mean[list(mapping.values())], np.array(list(mapping)) - 1


def _present(folder: Path, name: str) -> Path:
    """The path of one of the model's files.

    Raises:
        DataError: If it is not there; says where it is published.
    """
    if not (folder / name).is_file():
        raise DataError(
            f"{folder / name}: no such file; it is published in the eos project's share folder, {_PUBLISHED} (free for "
            f"non-commercial use): put it there, or set params.model to the folder that has it"
        )
    return folder / name


def _read_mean(path: Path) -> NDArray[np.float64]:
    """Read the model's mean points, ``(n_vertices, 3)``: a version, rows and columns, then float32 values."""
    raw = path.read_bytes()
    if len(raw) < 12:
        raise DataError(f"{path}: expected the Surrey shape model, found {len(raw)} bytes")
    version, rows, columns = struct.unpack_from("<Iii", raw)
    if version != 1 or columns != 1 or rows <= 0 or rows % 3 or len(raw) < 12 + 4 * rows:
        raise DataError(
            f"{path}: expected the Surrey shape model (version 1, a mean of 3 n rows and 1 column), found version "
            f"{version}, {rows} × {columns} in {len(raw)} bytes; fetch the file again from {_PUBLISHED}"
        )
    mean = np.frombuffer(raw, "<f4", rows, 12).astype(np.float64).reshape(-1, 3)
    if not np.isfinite(mean).all():
        raise DataError(f"{path}: the model's mean is not finite; fetch the file again from {_PUBLISHED}")
    return mean


def _read_mapping(path: Path) -> dict[int, int]:
    """Read which vertex each landmark, counted from 1, is: the TOML table ``landmark_mappings``."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))["landmark_mappings"]
        return {int(landmark): int(vertex) for landmark, vertex in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected a TOML table landmark_mappings of landmark = vertex ({error}); fetch the file "
            f"again from {_PUBLISHED}"
        ) from None


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``pose-3dmm``."""
    return [Task(name="pose-3dmm", labels=labels, params=PoseParams)]
