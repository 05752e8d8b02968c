"""The head's meshes: face and skull, ears, neck and shoulders, and where a person's features sit on them.

A place on the head is an angle θ around the vertical axis (0 in front, positive to the subject's left) and a height y;
``s = ARC * θ`` is about the distance from the middle of the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from facetask.plugins.datasets.rendered_faces.mesh import Part, bump, grid, smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.plugins.datasets.rendered_faces.mesh import Array
    from facetask.plugins.datasets.rendered_faces.people import Person, Picture

ARC = 0.78
FACE_S, FACE_Y = 1.5, 1.2  # the face's texture reaches this far from the middle

_KEYS = np.array([-1.0, -0.85, -0.6, -0.3, 0.0, 0.25, 0.5, 0.75, 0.92, 1.0])
_WIDTH = np.array([0.72, 0.74, 0.765, 0.745, 0.70, 0.685, 0.67, 0.62, 0.58, 0.57])
_FRONT = np.array([0.86, 0.86, 0.83, 0.795, 0.745, 0.755, 0.83, 1.00, 1.30, 1.40])
_BACK = np.array([1.12, 1.12, 1.07, 1.0, 0.90, 0.76, 0.55, 0.38, 0.32, 0.30])
_ROUNDNESS = 2.25

_COLUMNS = np.linspace(-1, 1, 49)
FACE_THETA = np.pi * np.sign(_COLUMNS) * (0.3 * np.abs(_COLUMNS) + 0.7 * np.abs(_COLUMNS) ** 2)
FACE_ROWS = np.concatenate(
    [-np.cos(np.linspace(0, 1.15, 8)[:-1]), np.linspace(-0.41, 0.86, 27), np.cos(np.linspace(0.48, 0, 6)[:-1]), [1.0]]
)


@dataclass(frozen=True)
class Features:
    """Where a person's features sit on the face, shared by the mesh and the painting; ``age`` runs from 0 to 1."""

    eye_s: float
    eye_y: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    brow_y: float
    brow_slope: float
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    mouth_open: float
    smile: float
    lips: float
    age: float


def features(person: Person, picture: Picture) -> Features:
    """Return a person's features with the picture's age and expression applied."""
    shape, mood = person.shape, picture.expression
    age = float(np.clip((picture.age_years - 22) / 58, 0, 1))
    eye_y = -0.01 + 0.03 * shape["eye_height"]
    eye_open = {"happy": 0.84, "sad": 0.85, "surprise": 1.35, "angry": 0.8}.get(mood, 1.0)
    lift = {"surprise": 0.075, "angry": -0.045, "happy": 0.01, "sad": 0.02}.get(mood, 0.0)
    nose_y = 0.38 + 0.04 * shape["nose_length"] + 0.02 * age
    wide = {"happy": 1.25, "surprise": 0.66, "sad": 0.92, "angry": 0.95}.get(mood, 1.0)
    return Features(
        eye_s=0.315 + 0.02 * shape["eye_gap"],
        eye_y=eye_y,
        eye_width=0.160 + 0.014 * shape["eye_size"],
        eye_open=(0.088 + 0.008 * shape["eye_size"]) * eye_open * (1 - 0.18 * age),
        eye_tilt=0.014 * shape["eye_tilt"] + 0.012 * age,
        brow_y=eye_y - 0.195 - 0.025 * shape["brow_height"] - lift + 0.02 * age,
        brow_slope={"sad": -0.05, "angry": 0.07, "surprise": -0.01}.get(mood, 0.0),
        nose_y=nose_y,
        nose_width=0.122 + 0.022 * shape["nose_width"] + 0.01 * age,
        mouth_y=nose_y + 0.215 + 0.02 * shape["mouth_height"],
        mouth_width=(0.240 + 0.022 * shape["mouth_width"]) * wide,
        mouth_open={"happy": 0.034, "surprise": 0.10}.get(mood, 0.0),
        smile={"happy": 1.0, "sad": -0.8, "angry": -0.35}.get(mood, 0.0),
        lips=(1.1 + 0.3 * shape["lips"]) * (1 - 0.28 * age),
        age=age,
    )


@lru_cache
def _spline(heights: bytes) -> NDArray[np.float64]:
    """Return the matrix that takes the profiles' values at their keys to the given float64 heights."""
    y = np.clip(np.frombuffer(heights), -1, 1)
    identity = np.eye(len(_KEYS))
    tangents = np.gradient(identity, _KEYS, axis=0)
    k = np.clip(np.searchsorted(_KEYS, y, side="right") - 1, 0, len(_KEYS) - 2)
    h = (_KEYS[k + 1] - _KEYS[k])[:, None]
    t = ((y - _KEYS[k]) / h[:, 0])[:, None]
    return (
        (2 * t**3 - 3 * t**2 + 1) * identity[k]
        + (t**3 - 2 * t**2 + t) * h * tangents[k]
        + (3 * t**2 - 2 * t**3) * identity[k + 1]
        + (t**3 - t**2) * h * tangents[k + 1]
    )


class Head:
    """A person's head: the smooth skull that carries the features and whatever is worn."""

    def __init__(self, person: Person, spec: Features) -> None:
        shape = person.shape
        self.shape, self.spec = shape, spec
        width = _WIDTH * (1 + 0.05 * shape["width"])
        width += 0.04 * shape["jaw"] * bump(_KEYS, 0.6, 0.25) + 0.03 * shape["cheeks"] * bump(_KEYS, 0.2, 0.2)
        width += 0.03 * shape["chin"] * bump(_KEYS, 0.92, 0.15) + 0.04 * spec.age * bump(_KEYS, 0.65, 0.2)
        front = _FRONT + 0.02 * shape["forehead"] * bump(_KEYS, -0.5, 0.3)
        front += 0.06 * shape["chin"] * bump(_KEYS, 0.95, 0.12)
        self._profiles = np.stack([width, front, _BACK * (1 + 0.05 * shape["depth"])], axis=1)

    def surface(self, theta: Array, y: Array) -> tuple[Array, Array, Array]:
        """Return the skull's x ``(n, m)``, y ``(n, 1)`` and z ``(n, m)`` at angles ``(m,)`` and heights ``(n,)``."""
        ring = np.sqrt(np.maximum(1 - np.minimum(y * y, 1), 1e-4))
        width, front, back = ((_spline(y.tobytes()) @ self._profiles) * ring[:, None]).T[:, :, None]
        sine, cosine = np.sin(theta), np.cos(theta)
        depth = np.where(cosine > 0, front, back)
        radius = (np.abs(sine / width) ** _ROUNDNESS + np.abs(cosine / depth) ** _ROUNDNESS) ** (-1 / _ROUNDNESS)
        return radius * sine, y[:, None], radius * cosine

    def face(self, beard: Array | None, shown: NDArray[np.bool_]) -> Part:
        """Return the skin's mesh with sockets, nose, lips and chin.

        Args:
            beard: How densely a beard grows at :data:`FACE_ROWS` and :data:`FACE_THETA`, ``(n, m)``, if there is one.
            shown: Which of these places no hair or hat covers, ``(n, m)``.
        """
        spec, shape = self.spec, self.shape
        x, _, z = self.surface(FACE_THETA, FACE_ROWS)
        s, y = np.abs(ARC * FACE_THETA), FACE_ROWS
        grin = max(spec.smile, 0.0)
        bridge, tip = spec.eye_y - 0.09, spec.nose_y - 0.05
        rise = np.clip((y - bridge) / (tip - bridge), 0, 1)
        ridge = (0.03 + 0.018 * shape["nose_bridge"]) * smooth(y, bridge - 0.1, bridge + 0.08)
        ridge = ridge + (0.19 + 0.035 * shape["nose_height"]) * (0.45 * rise + 0.55 * rise**2.2)
        ridge = ridge * (1 - smooth(y, tip + 0.015, spec.nose_y + 0.06))
        wide = 0.062 + (0.42 * spec.nose_width) * rise**1.5
        out = ridge[:, None] * np.exp(-((s / wide[:, None]) ** 2))
        cheek = 0.035 + 0.02 * shape["cheeks"] + 0.035 * grin
        for height, at_y, over_y, at_s, over_s in (
            (-0.075, spec.eye_y - 0.015, 0.085, spec.eye_s - 0.03, 0.14),  # sockets, filled again by the eyeballs
            (0.045, spec.eye_y, 0.07, spec.eye_s, 0.11),
            (0.03 + 0.012 * shape["brow_weight"], spec.brow_y, 0.06, spec.eye_s, 0.2),
            (cheek, 0.24 - 0.04 * grin, 0.13, 0.42, 0.16),
            (0.045 + 0.012 * spec.lips, spec.mouth_y, 0.085, 0.0, 0.24),
            (-0.02, spec.mouth_y + 0.12, 0.045, 0.0, 0.18),
            (0.04, 0.89, 0.09, 0.0, 0.15),
            (0.055, spec.nose_y - 0.015, 0.055, 0.78 * spec.nose_width, 0.05),  # the nose's wings
        ):
            out += (height * bump(y, at_y, over_y))[:, None] * bump(s, at_s, over_s)
        sine, front = np.sin(FACE_THETA), np.maximum(np.cos(FACE_THETA), 0)
        z = z + out * np.sqrt(front)
        x = x + 0.35 * out * sine * smooth(s, 0.2, 0.5)
        drop = 0.5 * spec.mouth_open * smooth(y, spec.mouth_y, spec.mouth_y + 0.12)[:, None] * front
        if beard is not None:
            x, z = x + 0.05 * beard * sine, z + 0.06 * beard * front
            drop = drop + 0.07 * beard * smooth(y, 0.75, 1.0)[:, None]
        uv = (np.clip(0.5 + ARC * FACE_THETA / (2 * FACE_S), 0.002, 0.998), (0.5 + y / (2 * FACE_Y))[:, None])
        under = 1 - 0.45 * smooth(y, 0.9, 1.0)[:, None]
        return grid((x, y[:, None] + drop, z), "face", uv=uv, shade=under, gloss=0.16, shown=shown)

    def ears(self) -> list[Part]:
        """Return the two ears."""
        radius, angle = np.array([0.0, 0.35, 0.62, 0.85, 1.0, 0.96])[:, None], np.linspace(0, 2 * np.pi, 15)
        height = np.array([0.015, 0.02, 0.05, 0.068, 0.045, -0.02])[:, None]
        shade = np.array([0.62, 0.7, 0.85, 1.0, 1.0, 0.8])[:, None]
        size = 0.88 + 0.12 * self.shape["ear_size"] + 0.12 * self.spec.age
        tilt = 0.55 + 0.2 * self.shape["ear_angle"]
        along = radius * np.sin(angle)
        across = radius * np.cos(angle) * (1 - 0.3 * smooth(along, 0.1, 1.0))  # narrower below
        back = 0.13 * size * (across + 0.55)
        parts = []
        for side in (-1.0, 1.0):
            x, _, z = self.surface(np.array([side * 1.58]), np.array([0.1]))
            points = (
                x[0] + side * (np.sin(tilt) * back + np.cos(tilt) * height),
                0.1 + size * (0.235 * along - 0.05 * across),
                z[0] - np.cos(tilt) * back + np.sin(tilt) * height,
            )
            outwards = [axis[:, :: -int(side)] for axis in points]
            parts.append(grid(outwards, "skin", shade=shade, gloss=0.1, back_from=0))
        return parts

    def neck(self, top: Array, shift: float) -> list[Part]:
        """Return neck and shoulders in the camera's axes.

        Args:
            top: Where the turned head's neck begins, ``(3,)``.
            shift: How far the shoulders turn, in radians.
        """
        angle = np.linspace(-np.pi * 0.6, np.pi * 0.6, 19)
        sine, cosine = np.sin(angle), np.cos(angle)
        rows = np.array([-0.12, 0.1, 0.35, 0.6, 0.8, 0.92, 1.0])[:, None]
        thick = 0.37 + 0.04 * self.shape["neck"] + 0.14 * smooth(rows, 0.55, 1.0) - 0.06 * (rows < 0)
        foot = np.array([0.25 * top[0], 1.36, -0.28])
        middle = top + rows * (foot - top)
        neck = (middle[:, :1] + thick * sine, middle[:, 1:2], middle[:, 2:] + 0.85 * thick * cosine)
        shade = 0.55 + 0.45 * smooth(rows, 0.15, 0.75)
        rows = np.linspace(0, 1, 9)[:, None]
        half = 0.48 + 0.92 * np.sin(rows * np.pi / 2) ** 0.8
        x, z = half * sine, (0.42 + 0.22 * rows) * cosine
        coat = (
            foot[0] + x * np.cos(shift) + z * np.sin(shift),
            1.20 + 0.42 * rows**1.6 + 0.9 * smooth(rows, 0.75, 1.0) + 0.16 * np.maximum(cosine, 0) * (1 - rows),
            foot[2] + z * np.cos(shift) - x * np.sin(shift),
        )
        return [grid(neck, "skin", shade=shade, gloss=0.08), grid(coat, "cloth")]
