"""68 landmarks of each face (iBUG order), from columns of the dataset's table or found by dlib.

dlib's detector looks for faces in the image as it is, then at twice and at four times its size; of several faces the
most certain one counts. Where it finds none the landmarks are missing: taking the whole image, or its middle, for the
face gave a yaw that is wrong by 13 degrees (root mean square) on face crops, where the detector's box gave 4.

Source: V. Kazemi and J. Sullivan, "One Millisecond Face Alignment with an Ensemble of Regression Trees" (2014); the
predictor is dlib's, trained on iBUG 300-W, whose terms exclude commercial use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facetask import DataError, FaceData, WeightsError, label_images, package_file
from facetask.plugins.tasks.surrey_model import N_LANDMARKS
from facetask.plugins.tasks.weights_files import fingerprint

DETECTED_LICENCE = "landmarks by dlib's 68-point predictor, which excludes commercial use"
_UPSAMPLINGS = 3


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
    columns = [data.columns[name] for name in names]
    text = next((name for name, column in zip(names, columns, strict=True) if column.dtype == object), None)
    if text is not None:
        raise DataError(f"{where}: column {text!r} holds text; a landmark's coordinate must be a number")
    return np.stack(columns, axis=1).reshape(len(data), N_LANDMARKS, 2)


def detected(data: FaceData) -> NDArray[np.float64]:
    """Return the landmarks that dlib finds, ``(n, 68, 2)`` in pixels, NaN where it finds no face.

    Raises:
        WeightsError: If dlib or its predictor is not installed.
    """
    path = package_file("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat", extra="landmarks")
    names = [f"{axis}{i}" for i in range(N_LANDMARKS) for axis in "xy"]
    found = label_images(data, f"landmarks: dlib, {fingerprint(path)}", LandmarkFinder(path), columns=names)
    return np.stack([found[name] for name in names], axis=1).reshape(len(data), N_LANDMARKS, 2)


class LandmarkFinder:
    """dlib's detector and landmark predictor: images in, landmarks out.

    Args:
        path: The predictor's file. It is read when the first image comes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, paths: Sequence[Path]) -> NDArray[np.float64]:
        """Return x0, y0, … x67, y67 of each image's face, ``(n, 136)`` in pixels, NaN where there is none.

        Raises:
            OSError: If an image cannot be read.
            WeightsError: If dlib is not installed, or the predictor's file is damaged.
        """
        detector, predictor = self._dlib
        rows = np.full((len(paths), 2 * N_LANDMARKS), np.nan)
        for row, path in zip(rows, paths, strict=True):
            image = _rgb(path)
            box = _most_certain(detector, image)
            if box is not None:
                row[:] = [value for point in predictor(image, box).parts() for value in (point.x, point.y)]
        return rows

    @cached_property
    def _dlib(self) -> tuple[Any, Callable[..., Any]]:
        """The detector and the predictor."""
        try:
            import dlib
        except ImportError:
            raise WeightsError(
                "landmarks: detect needs dlib, which is not installed; install it with: "
                "pip install 'facetask[landmarks]'"
            ) from None
        try:
            return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(self._path))
        except RuntimeError as error:
            raise WeightsError(f"{self._path}: not a readable landmark predictor ({error}); fetch it again") from None


def _rgb(path: Path) -> NDArray[np.uint8]:
    """Return an image's pixels at its own size, ``(height, width, 3)``."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def _most_certain(detector: Any, image: NDArray[np.uint8]) -> Any:
    """Return the box of the face that the detector is surest of; None where it finds none."""
    for upsampling in range(_UPSAMPLINGS):
        boxes, scores, _ = detector.run(image, upsampling, 0.0)
        if len(boxes):
            return boxes[int(np.argmax(scores))]
    return None
