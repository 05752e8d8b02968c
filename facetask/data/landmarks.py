"""Landmarks of faces: from columns of a dataset's table, or found by dlib.

dlib's detector looks for faces in the image as it is, then at twice and at four times its size; of several faces the
most certain one counts. Where it finds none the landmarks are missing.

Source: V. Kazemi and J. Sullivan, "One Millisecond Face Alignment with an Ensemble of Regression Trees" (2014); the
predictor is dlib's, trained on iBUG 300-W, whose terms exclude commercial use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.data.alignment import N_IBUG, POINTS, five_points, is_known
from facetask.data.preprocessing import eight_bits, open_image
from facetask.errors import DataError, WeightsError
from facetask.networks.weights import package_file, sha256_file
from facetask.tasks.label_source import label_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import AlignConfig
    from facetask.records import FaceData

DETECTED_LICENCE = "landmarks by dlib's 68-point predictor, which excludes commercial use"
_UPSAMPLINGS = 3
_CELEBA = [(f"{name}_x", f"{name}_y") for name in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")]
_COUNTS = {N_IBUG: "the 68 of iBUG", len(POINTS): ", ".join(POINTS), 2: "the two eyes"}


def face_points(data: FaceData, choice: AlignConfig) -> NDArray[np.float64]:
    """Return five points of each image's face as a configuration says, ``(n, 5, 2)`` in pixels, NaN where unknown.

    Raises:
        DataError: If columns are absent, not numeric or not what they should be, or no image has a face.
        WeightsError: If landmarks are to be detected, and dlib or its predictor is not installed.
    """
    detect = choice.landmarks == "detect"
    points = five_points(detect_landmarks(data) if detect else _from_columns(data, choice.x, choice.y))
    known = is_known(points)
    where = f"data.align: {data.source or 'dataset'}"
    if not known.any():
        why = "no face was found on any" if detect else "the eyes are not known, in pixels, of any"
        raise DataError(f"{where}: {why} of {len(data)} images")
    if not detect and np.median(points[known, 1, 0] - points[known, 0, 0]) < 0:
        raise DataError(
            f"{where}: the landmarks' left eye lies to the right of their right eye; the first eye must be the one on "
            "the left of the image, as the viewer sees it"
        )
    points[~known] = np.nan
    return points


def detect_landmarks(data: FaceData) -> NDArray[np.float64]:
    """Return the 68 landmarks (iBUG order) that dlib finds, ``(n, 68, 2)`` in pixels, NaN where it finds no face.

    They are looked for once for each image's content and kept in the cache folder.

    Raises:
        WeightsError: If dlib or its predictor is not installed.
    """
    finder = landmark_finder()
    names = [f"{axis}{i}" for i in range(N_IBUG) for axis in "xy"]
    source = f"landmarks: dlib, {finder.path.name} {sha256_file(finder.path)[:16]}"
    found = label_images(data, source, finder, columns=names)
    return np.stack([found[name] for name in names], axis=1).reshape(len(data), N_IBUG, 2)


@cache
def landmark_finder() -> LandmarkFinder:
    """Return dlib's detector and landmark predictor, the same each time.

    Raises:
        WeightsError: If the predictor's package is not installed.
    """
    return LandmarkFinder(
        package_file("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat", extra="landmarks")
    )


class LandmarkFinder:
    """dlib's detector and landmark predictor: images in, landmarks out.

    Args:
        path: The predictor's file. It is read when the first image comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, paths: Sequence[Path]) -> NDArray[np.float64]:
        """Return x0, y0, … x67, y67 of each image's face, ``(n, 136)`` in pixels, NaN where there is none.

        Raises:
            DataError: If an image cannot be read.
            WeightsError: If dlib is not installed, or the predictor's file is damaged.
        """
        detector, predictor = self._dlib
        rows = np.full((len(paths), 2 * N_IBUG), np.nan)
        for row, path in zip(rows, paths, strict=True):
            image = np.array(eight_bits(open_image(path)).convert("RGB"))
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
                "finding landmarks needs dlib, which is not installed; install it with: "
                "pip install 'facetask[landmarks]'"
            ) from None
        try:
            return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(self.path))
        except RuntimeError as error:
            raise WeightsError(f"{self.path}: not a readable landmark predictor ({error}); fetch it again") from None


def _most_certain(detector: Any, image: NDArray[np.uint8]) -> Any:
    """Return the box of the face that the detector is surest of; None where it finds none."""
    for upsampling in range(_UPSAMPLINGS):
        boxes, scores, _ = detector.run(image, upsampling, 0.0)
        if len(boxes):
            return boxes[int(np.argmax(scores))]
    return None


def _from_columns(data: FaceData, x: str, y: str) -> NDArray[np.float64]:
    """Return a table's landmarks, ``(n, 68, 2)``, ``(n, 5, 2)`` or ``(n, 2, 2)``."""
    names: list[tuple[str, str]] = []
    while (pair := (x.replace("{}", str(len(names))), y.replace("{}", str(len(names)))))[0] in data.columns:
        names.append(pair)
    if not names and all(name in data.columns for pair in _CELEBA for name in pair):
        names = _CELEBA
    where = f"data.align: {data.source or 'dataset'}"
    if len(names) not in _COUNTS:
        wanted = "; or ".join(f"{count}: {what}" for count, what in _COUNTS.items())
        raise DataError(
            f"{where}: {len(names)} columns named {x.replace('{}', '0')}, {x.replace('{}', '1')} …; as many are needed "
            f"as there are landmarks ({wanted}), or CelebA's lefteye_x … rightmouth_y; name them with align.x and "
            "align.y, or use landmarks: detect"
        )
    columns = [data.column(name) for pair in names for name in pair]
    for name, column in zip((name for pair in names for name in pair), columns, strict=True):
        if column.dtype == object:
            raise DataError(f"{where}: column {name!r} holds text; a landmark's coordinate must be a number")
    return np.stack(columns, axis=1).reshape(len(data), len(names), 2)
