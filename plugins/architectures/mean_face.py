"""Where eyes, nose tip and mouth lie in an average frontal face, to place them in a network's input.

Source: the mean landmarks of iBUG 300-W by which dlib frames its face chips, of which these are the five points.
"""

from __future__ import annotations

_EYES_Y, _MOUTH_Y, _CENTRE_X = 0.2159903, 0.780233, 0.490127
_MEAN_FACE = (
    (0.2254918, _EYES_Y),
    (0.754761, _EYES_Y),
    (_CENTRE_X, 0.515625),
    (0.254149, _MOUTH_Y),
    (0.726104, _MOUTH_Y),
)


def chip(side: int, padding: float) -> tuple[tuple[float, float], ...]:
    """Return the average face's points in dlib's face chip of a height and width, in pixels.

    Args:
        side: The chip's height and width.
        padding: Share of the face that is added on each side; the face is a square from the eyebrows to the lower lip.
    """
    scale = side / (1 + 2 * padding)
    return tuple(((x + padding) * scale - 0.5, (y + padding) * scale - 0.5) for x, y in _MEAN_FACE)


def upright(eyes_y: float, mouth_y: float, centre_x: float) -> tuple[tuple[float, float], ...]:
    """Return the average face's points with its eyes and its mouth at given heights, in pixels."""
    scale = (mouth_y - eyes_y) / (_MOUTH_Y - _EYES_Y)
    return tuple((centre_x + scale * (x - _CENTRE_X), eyes_y + scale * (y - _EYES_Y)) for x, y in _MEAN_FACE)
