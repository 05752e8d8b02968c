"""Head pose from 68 landmarks: a scaled-orthographic camera fitted to a 3D morphable model's mean face.

The affine camera that maps the model's points to the landmarks is found by linear least squares; the rotation nearest
to it gives yaw (positive: towards the subject's left), pitch (positive: down) and roll, in degrees.

Source: P. Huber et al., "A Multiresolution 3D Morphable Face Model and Fitting Framework" (2016); the linear fit of
R. Hartley and A. Zisserman, "Multiple View Geometry", algorithm 7.2 (affine cameras).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from facetask import ConfigPath, DataError, FaceData, Labels, Params, Task, detect_landmarks, hookimpl
from facetask.plugins.datasets.reading import shown
from facetask.plugins.tasks.binning import Edges, bin_names
from facetask.plugins.tasks.face_landmarks import DETECTED_LICENCE, from_columns
from facetask.plugins.tasks.surrey_model import LICENCE, read_model

_YAW_EDGES = (-15.0, 15.0)
_PITCH_EDGES = (-10.0, 10.0)
_ROWS, _PLACES = ("top", "centre", "bottom"), ("left", "centre", "right")


class PoseParams(Params):
    """Which angle, and where the model and the landmarks are.

    Attributes:
        angle: yaw, pitch or roll in degrees, or ``bins`` of pitch and yaw: by default 3×3, named as the viewer sees
            where the face looks, from top-left to bottom-right.
        model: The folder with the eos project's ``sfm_shape_3448.bin`` and ``ibug_to_sfm.txt``.
        landmarks: ``columns`` of the dataset's table, or ``detect`` them in the images by dlib (extra ``landmarks``).
        x: Name of a landmark's column of x, ``{}`` standing for its index from 0 (iBUG order).
        y: Name of a landmark's column of y, which grows downwards.
        yaw_edges: Inner edges of the bins of yaw, in degrees; by default -15 and 15.
        pitch_edges: Inner edges of the bins of pitch, in degrees; by default -10 and 10.
    """

    angle: Literal["yaw", "pitch", "roll", "bins"] = "yaw"
    model: ConfigPath
    landmarks: Literal["columns", "detect"] = "columns"
    x: str = "x{}"
    y: str = "y{}"
    yaw_edges: Edges | None = None
    pitch_edges: Edges | None = None

    @model_validator(mode="after")
    def _edges_are_for_bins(self) -> PoseParams:
        """Refuse edges where there are no bins."""
        if self.angle != "bins" and (self.yaw_edges or self.pitch_edges):
            raise ValueError(f"yaw_edges and pitch_edges are for angle: bins, not {self.angle}")
        return self

    @field_validator("x", "y")
    @classmethod
    def _has_a_place_for_the_index(cls, pattern: str) -> str:
        """Refuse a pattern that names one column only."""
        if pattern.count("{}") != 1:
            raise ValueError(f"expected a column name with {{}} in place of the landmark's index, found {pattern!r}")
        return pattern


def labels(data: FaceData, params: PoseParams) -> Labels:
    """Return each image's angle, or its pitch and yaw, in degrees; missing where a landmark of the fit is.

    Raises:
        DataError: If a landmark's column is absent or not numeric, no image has all landmarks, or the model's files are
            missing or damaged.
        WeightsError: If landmarks are to be detected, and dlib or its predictor is not installed.
    """
    vertices, indices = read_model(params.model)
    detect = params.landmarks == "detect"
    landmarks = detect_landmarks(data) if detect else from_columns(data, params.x, params.y, "pose-3dmm")
    angles = pose_deg(landmarks[:, indices], vertices)
    notes = _unfitted(data, landmarks, indices, np.isnan(angles["yaw"]), params)
    source = f"linear fit of a 3D morphable model to 68 {'detected ' if detect else ''}landmarks"
    licence = f"{LICENCE}; {DETECTED_LICENCE}" if detect else LICENCE
    if params.angle == "bins":
        edges = tuple(params.pitch_edges or _PITCH_EDGES), tuple(params.yaw_edges or _YAW_EDGES)
        return Labels(
            name="pose",
            kind="binned",
            values=np.stack([angles["pitch"], angles["yaw"]], axis=1),
            unit="degrees",
            classes=pose_names(*edges),
            edges=edges,
            flip=("keep", "negate"),  # a mirrored face looks up as far, and as far to the other side
            source=source,
            licence=licence,
            notes=notes,
        )
    return Labels(
        name=params.angle,
        kind="continuous",
        values=angles[params.angle][:, None],
        unit="degrees",
        flip="keep" if params.angle == "pitch" else "negate",
        source=source,
        licence=licence,
        notes=notes,
    )


def _unfitted(
    data: FaceData,
    landmarks: NDArray[np.float64],
    indices: NDArray[np.intp],
    unknown: NDArray[np.bool_],
    params: PoseParams,
) -> tuple[str, ...]:
    """Return what to note of images without a fit, ``unknown (n,)``.

    Raises:
        DataError: If no image has one.
    """
    detect, rows = params.landmarks == "detect", np.flatnonzero(unknown)
    lack = "no face was found" if detect else f"not all {len(indices)} landmarks that the fit needs are known"
    if unknown.all():
        patterns = () if detect else enumerate((params.x, params.y))
        empty = [
            pattern.replace("{}", str(i))
            for k, pattern in patterns
            for i in indices
            if not np.isfinite(landmarks[:, i, k]).any()
        ]
        raise DataError(
            f"{data.source or 'dataset'}: {lack} on any of {len(data)} images"
            + (f"; there is no number in {shown(empty)}" if empty else "")
            + ("; they should show whole faces" if detect else "")
        )
    names = shown(data.paths[row].name for row in rows)
    return (f"{lack} on {len(rows):,} of {len(data):,} images, which get no label: {names}",) if len(rows) else ()


def pose_names(pitch_edges: tuple[float, ...], yaw_edges: tuple[float, ...]) -> tuple[str, ...]:
    """Return the names of the bins, row by row from the top; those of 3×3 are places in the picture."""
    if len(pitch_edges) == len(yaw_edges) == 2:
        return tuple("centre" if row == place == "centre" else f"{row}-{place}" for row in _ROWS for place in _PLACES)
    return tuple(f"pitch {row}, yaw {place}" for row in bin_names(pitch_edges) for place in bin_names(yaw_edges))


def pose_deg(landmarks: NDArray[np.float64], vertices: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return yaw, pitch and roll of many faces, each ``(n,)`` in degrees; NaN where there is no fit.

    Args:
        landmarks: Points in the image, ``(n, n_points, 2)``, y growing downwards.
        vertices: The same points of the model, ``(n_points, 3)``: x to the subject's left, y up, z to the viewer.
    """
    rotation = rotations(landmarks, vertices)
    angles = {
        "yaw": np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2]),
        "pitch": np.arcsin(np.clip(-rotation[:, 1, 2], -1, 1)),
        "roll": np.arctan2(rotation[:, 1, 0], rotation[:, 1, 1]),
    }
    return {name: np.degrees(values) for name, values in angles.items()}


def rotations(landmarks: NDArray[np.float64], vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotations that turn the model as the faces are turned, ``(n, 3, 3)``; NaN where there is no fit.

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
    found = np.full((len(landmarks), 3, 3), np.nan)
    found[usable[fits]] = u @ vt
    return found


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``pose-3dmm``."""
    return [Task(name="pose-3dmm", labels=labels, params=PoseParams)]
