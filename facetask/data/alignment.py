"""Faces turned, scaled and shifted so that eyes, nose and mouth lie where a base network expects them.

A face is five points, named as the viewer sees them: left eye, right eye, nose tip, left and right corner of the mouth,
each ``(x, y)`` in pixels whose centres are whole numbers, y growing downwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from PIL import Image

POINTS = ("left eye", "right eye", "nose tip", "left corner of the mouth", "right corner of the mouth")
EYES = slice(0, 2)
N_IBUG = 68
LEAST_EYES_PX = 1.0

# The average face of iBUG 300-W as dlib frames its chips: nose, eyes and upper lip, the landmarks that move least with
# an expression. Its x and y, in shares of a square from the eyebrows to the lower lip.
_RIGID = [*range(27, 55), *range(60, 65)]
# fmt: off
_MEAN_X = (
    0.490127, 0.490127, 0.490127, 0.490127, 0.36688, 0.426036, 0.490127, 0.554217, 0.613373,
    0.121737, 0.187122, 0.265825, 0.334606, 0.260918, 0.182743,
    0.645647, 0.714428, 0.793132, 0.858516, 0.79751, 0.719335,
    0.254149, 0.340985, 0.428858, 0.490127, 0.551395, 0.639268, 0.726104,
    0.290379, 0.428096, 0.490127, 0.552157, 0.689874,
)
_MEAN_Y = (
    0.203352, 0.307009, 0.409805, 0.515625, 0.587326, 0.609345, 0.628106, 0.609345, 0.587326,
    0.216423, 0.178758, 0.179852, 0.231733, 0.245099, 0.244077,
    0.231733, 0.179852, 0.178758, 0.216423, 0.244077, 0.245099,
    0.780233, 0.745405, 0.727388, 0.742578, 0.727388, 0.745405, 0.780233,
    0.784792, 0.778746, 0.785343, 0.778746, 0.784792,
)
# fmt: on
_MEAN_FACE = np.stack([_MEAN_X, _MEAN_Y], axis=1)
_POINT_OF = ((36, 42), (42, 48), (30, 31), (48, 49), (54, 55))  # the landmarks whose mean is each of the five points
_MEAN_POINTS = np.array([_MEAN_FACE[a - _RIGID[0] : b - _RIGID[0]].mean(axis=0) for a, b in _POINT_OF])


def five_points(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the five points of faces, ``(n, 5, 2)``, NaN where unknown.

    Of 68 landmarks they are those of an average face that is brought nearest to the landmarks of nose, eyes and upper
    lip: no single landmark then decides, and dlib's chips come out as dlib makes them.

    Args:
        landmarks: ``(n, k, 2)``: the 68 of iBUG, the five points themselves, or the two eyes.

    Raises:
        ValueError: If there are not 68, 5 or 2 of them.
    """
    n, k = landmarks.shape[:2]
    if k not in (N_IBUG, len(POINTS), 2):
        raise ValueError(f"expected 68, 5 or 2 landmarks a face, found {k}")
    points = np.full((n, len(POINTS), 2), np.nan)
    if k < N_IBUG:
        points[:, :k] = landmarks
        return points
    for face, own in zip(points, landmarks[:, _RIGID], strict=True):
        fit = similarity(_MEAN_FACE, own)
        face[:] = _MEAN_POINTS @ fit[:, :2].T + fit[:, 2]
    return points


def is_known(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which faces can be aligned, ``(…)`` for points ``(…, 5, 2)``: both eyes are known, and apart."""
    eyes = points[..., EYES, :]
    distance = np.linalg.norm(eyes[..., 1, :] - eyes[..., 0, :], axis=-1)
    return np.asarray(distance >= LEAST_EYES_PX)  # NaN is not


def similarity(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return the similarity that brings points nearest to others by least squares, ``(2, 3)``: target ≈ M · (x, y, 1).

    Args:
        source: ``(n, 2)``, at least two points apart.
        target: ``(n, 2)``.

    Source: S. Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns" (1991), in
    the plane, without mirroring.
    """
    s, t = (np.asarray(points, dtype=np.float64) @ (1, 1j) for points in (source, target))
    centred = s - s.mean()
    turn = np.vdot(centred, t - t.mean()) / np.vdot(centred, centred).real
    shift = t.mean() - turn * s.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def aligned(
    image: Image.Image, points: NDArray[np.float64], to: ArrayLike, size: tuple[int, int], resample: Any
) -> Image.Image:
    """Return an image of a size in which a face lies as wanted; what lies outside of the given one is black.

    The similarity is the one that brings the wanted points nearest to the found ones, in the image's pixels, as dlib
    does. A big face is averaged down by a whole factor first, so that no pixel of it is passed over.

    Args:
        image: Of mode ``L`` or ``RGB``.
        points: The face's five points, ``(5, 2)``, NaN where unknown; both eyes are known.
        to: Where they shall lie, ``(5, 2)``.
        size: Height and width wanted.
        resample: One of Pillow's ``Resampling``.
    """
    import PIL.Image

    known = np.isfinite(points).all(axis=1)
    matrix = similarity(np.asarray(to)[known], points[known])
    factor = int(np.hypot(matrix[0, 0], matrix[1, 0]))
    matrix[:, 2] += 0.5 - 0.5 * matrix[:, :2].sum(axis=1)  # Pillow counts from a pixel's corner
    if factor > 1:
        image = image.reduce(factor)
        matrix /= factor
    height, width = size
    return image.transform((width, height), PIL.Image.Transform.AFFINE, tuple(matrix.ravel()), resample=resample)


def with_margin(to: ArrayLike, size: tuple[int, int], margin: float) -> tuple[tuple[float, float], ...]:
    """Return wanted points moved towards the input's centre, so that a share of its sides is added around the face."""
    centre = (np.array(size[::-1]) - 1) / 2
    return tuple((float(x), float(y)) for x, y in centre + (np.asarray(to) - centre) / (1 + 2 * margin))
