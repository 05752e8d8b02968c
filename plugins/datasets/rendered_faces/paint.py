"""The face's texture: eyes, brows, lips, wrinkles, beard and hair roots, painted with soft edges; and hair strands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facetask.plugins.datasets.rendered_faces.head import FACE_S, FACE_Y, Features
from facetask.plugins.datasets.rendered_faces.mesh import bump, smooth
from facetask.plugins.datasets.rendered_faces.noise import patch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetask.plugins.datasets.rendered_faces.mesh import Array
    from facetask.plugins.datasets.rendered_faces.people import Person

    Colour = Sequence[float] | Array

TEXELS = 96  # to a half head height
_SKIN = np.array([(0.29, 0.18, 0.125), (0.46, 0.30, 0.21), (0.66, 0.46, 0.34), (0.84, 0.65, 0.52), (0.95, 0.80, 0.70)])
_BEARD_S = np.array([0.0, 0.08, 0.2, 0.36, 0.55, 0.72, 0.88, 1.0, 1.15])


def skin_colour(lightness: float, undertone: float) -> Array:
    """Return the skin's red, green and blue in [0, 1]."""
    place = np.linspace(0, 1, len(_SKIN))
    colour = np.array([np.interp(lightness, place, channel) for channel in _SKIN.T])
    return np.clip(colour * (1 + undertone * np.array([0.02, 0.0, -0.05])), 0, 1).astype(np.float32)


def hair_texture(colour: Array, grey: float, curly: bool, rng: np.random.Generator) -> Array:
    """Return hair, ``(3, 96, 288)``; ``grey`` in [0, 1] is about the share of grey strands."""
    rows, columns = 96, 288
    tone = smooth(patch("strands", rows, columns, rng), 1.2 - 3.6 * grey, 3.0 - 3.6 * grey) if grey else np.float32(0)
    strands = np.clip(
        1 + (0.10 if curly else 0.16) * patch("curls" if curly else "strands", rows, columns, rng), 0.6, 1.4
    )
    base = colour.astype(np.float32)[:, None, None]
    return (base + (np.float32(0.72) - base) * tone) * strands


def beard_cover(spec: Features, goatee: bool, s: Array, t: Array) -> Array:
    """Return how densely a beard grows, 0 to 1, at distances ``(m,)`` from the middle and heights ``(n, 1)``."""
    a, mouth = np.abs(s), spec.mouth_y
    line = np.array([mouth + 0.11, mouth + 0.115, mouth + 0.05, mouth - 0.05, 0.43, 0.27, 0.05, -0.1, -0.1])
    top = np.interp(a, _BEARD_S, line).astype(a.dtype)
    full = smooth(t - top, -0.02, 0.07) * (1 - smooth(a, 0.98, 1.12))
    if goatee:
        full = full * (1 - smooth(a, 0.22, 0.33))
    width = spec.mouth_width
    beside = smooth(a, width - 0.005, width + 0.03) * (1 - smooth(a, width + 0.06, width + 0.11))
    beside = beside * (smooth(t, mouth - 0.09, mouth - 0.03) * (t < mouth + 0.2))
    moustache = bump(t - (0.05 / 0.0625) * a * a, mouth - 0.062, 0.05) * (1 - smooth(a, 0.26, 0.34))
    return np.maximum(np.maximum(full, beside), moustache * (t < mouth - 0.012))


class FacePainter:
    """Paints one face, texture coordinates being s and y of the head.

    Attributes:
        pixels: The texture, ``(3, rows, columns)`` in [0, 1].
        s: Distance of each column from the middle, ``(columns,)``.
        t: Height of each row, ``(rows, 1)``.
    """

    def __init__(self, spec: Features, person: Person, skin: Array, rng: np.random.Generator) -> None:
        self.spec, self.person, self.skin, self._rng = spec, person, skin, rng
        rows, columns = round(2 * FACE_Y * TEXELS), round(2 * FACE_S * TEXELS)
        self.s = ((np.arange(columns) + 0.5) / TEXELS - FACE_S).astype(np.float32)
        self.t = ((np.arange(rows) + 0.5) / TEXELS - FACE_Y).astype(np.float32)[:, None]
        mottle = 1 + (0.012 + 0.012 * spec.age) * patch("mottle", rows, columns, rng)
        self.pixels = skin[:, None, None] * mottle

    def _window(self, s: float, t: float, half_s: float, half_t: float) -> tuple[Array, Array, Array]:
        """Return part of the texture (a view), its columns' s and its rows' t."""
        column, row = (s + FACE_S) * TEXELS, (t + FACE_Y) * TEXELS
        columns = slice(max(int(column - half_s * TEXELS), 0), int(column + half_s * TEXELS) + 1)
        rows = slice(max(int(row - half_t * TEXELS), 0), int(row + half_t * TEXELS) + 1)
        return self.pixels[:, rows, columns], self.s[columns], self.t[rows]

    def skin_tones(self) -> None:
        """Paint blush, shade around the eyes, freckles and the folds beside the mouth."""
        spec = self.spec
        grin = max(spec.smile, 0.0)
        window, s, t = self._window(0, 0.3, 0.85, 0.4)
        blush = (0.16 * (1 - 0.4 * spec.age) * bump(np.abs(s), 0.45, 0.22)) * bump(t, 0.26, 0.17)
        _darken(window, blush + 0.10 * bump(s, 0, 0.16) * bump(t, spec.nose_y - 0.03, 0.1), (-0.12, 0.75, 0.7))
        window, s, t = self._window(0, spec.eye_y, 0.62, 0.26)
        socket = (0.11 + 0.08 * spec.age) * bump(np.abs(s), spec.eye_s - 0.03, 0.17) * bump(t, spec.eye_y - 0.02, 0.11)
        _darken(window, socket, (0.8, 1.0, 0.9))
        if self.person.freckles > 0:
            window, s, t = self._window(0, 0.2, 0.7, 0.26)
            dots = smooth(patch("curls", len(t), len(s), self._rng), 1.3, 1.9) * (
                bump(np.abs(s), 0.25, 0.3) * bump(t, 0.2, 0.16)
            )
            _darken(window, 0.3 * self.person.freckles * dots, (0.6, 1.0, 1.2))
        window, s, t = self._window(0, 0.55, 0.45, 0.30)
        along = np.minimum(np.maximum((t - spec.nose_y + 0.05) / 0.27, 0), 1)
        fold = spec.nose_width + 0.02 + (0.11 + 0.05 * grin) * along**1.2
        strength = min(0.05 + 0.34 * spec.age + 0.14 * grin, 0.5)
        _crease(window, fold - np.abs(s), 0.016, strength * bump(t, spec.nose_y + 0.09, 0.14))

    def age_lines(self) -> None:
        """Paint what the years leave: forehead lines, crow's feet, bags under the eyes, lines beside the chin."""
        spec, age = self.spec, self.spec.age
        if age < 0.05:
            return
        for number, height in enumerate((-0.36, -0.45, -0.54)):
            strength = 0.30 * min(1.35 * age - 0.22 * number, 1.0)
            if strength <= 0:
                break
            window, s, t = self._window(0, height - 0.02, 0.5, 0.07)
            wave = height + 0.018 * np.cos(7 * s + number) - 0.10 * s * s
            _crease(window, t - wave, 0.012, strength * (1 - smooth(np.abs(s), 0.22 + 0.2 * age, 0.5)))
        for side in (-1.0, 1.0):
            window, s, t = self._window(side * (spec.eye_s + spec.eye_width + 0.12), spec.eye_y, 0.12, 0.13)
            away, b = side * s - spec.eye_s - spec.eye_width - 0.035, t - spec.eye_y
            reach = smooth(away, -0.01, 0.03) * (1 - smooth(away, 0.06 + 0.05 * age, 0.12 + 0.08 * age))
            fan = bump(b + 0.42 * away, 0, 0.009) + bump(b + 0.05 * away, 0, 0.009) + bump(b - 0.34 * away, 0, 0.009)
            _darken(window, 0.34 * age * reach * fan, (0.8, 1.0, 1.1))
            window, s, t = self._window(side * spec.eye_s, spec.eye_y + 0.15, 0.18, 0.12)
            a = side * s - spec.eye_s
            bag = spec.eye_y + spec.eye_open * 0.55 - 2.6 * a * a
            there = age * (1 - smooth(np.abs(a), 0.09, 0.17))
            _crease(window, t - bag - 0.075, 0.014, 0.30 * there)
            _crease(window, t - bag - 0.125, 0.014, 0.22 * there)
            window, s, t = self._window(side * (spec.mouth_width + 0.05), spec.mouth_y + 0.12, 0.07, 0.13)
            below = (t - spec.mouth_y) / 0.2
            length = smooth(below, 0.05, 0.25) * (1 - smooth(below, 0.7, 1.1))
            _crease(window, side * s - spec.mouth_width - 0.035 - 0.03 * below, 0.014, 0.28 * age * length)
        window, s, t = self._window(0, spec.brow_y, 0.10, 0.10)
        _crease(window, np.abs(s) - 0.045, 0.010, 0.3 * age * bump(t, spec.brow_y + 0.01, 0.06))

    def eyes(self, gaze: tuple[float, float], glint: float) -> None:
        """Paint both eyes with lids, lashes, iris and a glint on the side of the light.

        Args:
            gaze: How far the irises stand from the middle.
            glint: −1 or 1, the side of the light.
        """
        spec, iris_colour = self.spec, np.asarray(self.person.iris, np.float32)[:, None, None]
        for side in (-1.0, 1.0):
            window, s, t = self._window(side * spec.eye_s, spec.eye_y, 0.24, 0.17)
            a = side * s - spec.eye_s
            b = t - spec.eye_y + (spec.eye_tilt / spec.eye_width) * a
            u = np.minimum(np.abs(a) / spec.eye_width, 1)
            arch = np.maximum(1 - u**2.2, 0)
            upper = b + spec.eye_open * arch**0.7
            lower = spec.eye_open * 0.62 * arch**0.85 - b
            inside = _edge(np.minimum(np.minimum(upper, lower), (1 - u) * spec.eye_width))
            shadow = 1 - 0.34 * bump(upper, 0, 0.035) - 0.25 * u**3
            white = np.array([0.95, 0.94 - 0.02 * spec.age, 0.93 - 0.06 * spec.age], np.float32)[:, None, None] * shadow
            _lay(window, white, inside)
            _lay(window, (0.80, 0.52, 0.48), inside * (0.8 * bump(a, -spec.eye_width, 0.03)))
            x, y = s - np.float32(side * spec.eye_s + gaze[0]), b + np.float32(0.008 - gaze[1])
            radius = np.sqrt(x * x + y * y)
            tone = (0.75 + 0.5 * smooth(y, -0.05, 0.05)) * (1 - 0.65 * smooth(radius, 0.054, 0.072)) * shadow
            _lay(window, iris_colour * tone, inside * _edge(0.072 - radius))
            _lay(window, (0.03, 0.025, 0.03), inside * _edge(0.032 - radius))
            spark = np.sqrt((x - 0.026 * glint) ** 2 + (y + 0.026) ** 2)
            _lay(window, (1.0, 1.0, 1.0), inside * _edge(0.018 - spark) * 0.95)
            ends = 1 - smooth(np.abs(a), spec.eye_width * 0.92, spec.eye_width * 1.12)
            lash = (0.012 + 0.010 * smooth(a, -0.05, 0.13)) * ends
            _lay(window, self.skin * 0.18, _edge(lash - np.abs(upper + 0.002)) * (0.95 * ends))
            _lay(window, self.skin * 0.45, _edge(0.008 - np.abs(lower + 0.004)) * (0.55 * ends))
            reach = 0.38 * (1 - smooth(np.abs(a), 0.09, spec.eye_width * 1.1))
            _crease(window, -0.038 + 0.015 * spec.age - upper, 0.011, reach)

    def brows(self, colour: Array) -> None:
        """Paint the eyebrows in the hair's colour."""
        spec, shape = self.spec, self.person.shape
        for side in (-1.0, 1.0):
            window, s, t = self._window(side * spec.eye_s, spec.brow_y, 0.27, 0.13)
            u = (side * s - spec.eye_s) / 0.22
            arch = 0.015 - (0.03 + 0.018 * shape["brow_arch"]) * (1 - (u - 0.25) ** 2) - spec.brow_slope * u
            thick = (0.036 + 0.011 * shape["brow_weight"]) * np.clip(1.05 - 0.34 * np.maximum(u + 1, 0), 0.12, 1)
            ends = smooth(u, -1.12, -0.9) * (1 - smooth(u, 0.9, 1.12))
            hairs = 0.005 * patch("strands", len(s), len(t), self._rng).T
            cover = _edge(thick + hairs - np.abs(t - spec.brow_y - arch), 0.024)
            _lay(window, colour * 0.62, cover * ((0.88 - 0.2 * spec.age) * ends))

    def nose(self) -> None:
        """Paint nostrils and the shade around the nose."""
        spec = self.spec
        window, s, t = self._window(0, spec.nose_y, 0.24, 0.13)
        a, b = np.abs(s), t - spec.nose_y
        shade = 0.30 * bump(b, 0.032, 0.03) * (1 - smooth(a, spec.nose_width * 0.8, spec.nose_width * 1.25))
        _darken(
            window, shade + 0.26 * bump(a, spec.nose_width + 0.012, 0.022) * bump(b, -0.012, 0.045), (0.75, 1.0, 1.0)
        )
        hole = ((a - 0.47 * spec.nose_width) / (0.30 * spec.nose_width)) ** 2 + ((b - 0.014) / 0.018) ** 2
        _lay(window, self.skin * 0.22, _edge(1 - hole, 0.9) * 0.85)

    def mouth(self) -> None:
        """Paint the lips and, where the mouth is open, teeth and tongue."""
        spec, width, opened = self.spec, self.spec.mouth_width, self.spec.mouth_open
        window, s, t = self._window(0, spec.mouth_y + 0.4 * opened, width + 0.08, 0.15 + 0.9 * opened)
        a = np.abs(s)
        u = np.minimum(a / width, 1)
        arch = np.maximum(1 - u * u, 0)
        middle = spec.mouth_y + (0.062 * spec.smile) * (arch - 0.6)
        gap = opened * arch**0.55
        top, bottom = middle - 0.35 * gap, middle + 1.05 * gap
        bow = 1 + 0.14 * bump(a, 0.05, 0.04) - 0.22 * bump(a, 0, 0.03)
        upper = t - (top - (0.045 * spec.lips) * arch**0.8 * bow)
        lower = bottom + (0.068 * spec.lips) * arch**0.75 - t
        lip = self.skin * np.array([0.88, 0.56, 0.56], np.float32) + np.array([0.03, 0.0, 0.01], np.float32)
        inside = _edge(np.minimum(np.minimum(upper, lower), (1 - u) * width), 0.016)
        tone = 1 - 0.16 * _edge(middle - t, 0.02) + 0.10 * bump(t - bottom, 0.03, 0.018)
        _lay(window, lip[:, None, None] * tone, inside * 0.9)
        if opened:
            cave = _edge(np.minimum(t - top, bottom - t))
            _lay(window, (0.24, 0.07, 0.07), cave)
            _lay(window, (0.66, 0.30, 0.31), cave * (smooth(t - bottom, -0.07, -0.03) * (opened > 0.05)))
            teeth = _edge(np.minimum(t - top, top + np.minimum(0.034, 0.9 * gap) - t)) * (1 - smooth(u, 0.55, 0.85))
            _lay(window, (0.94, 0.92, 0.88), cave * teeth * 0.95)
        else:
            seam = _edge(0.008 - np.abs(t - middle)) * (1 - smooth(a, width * 0.9, width * 1.02))
            _lay(window, lip * 0.32, seam * 0.85)
        shade = 0.38 * bump(a, width + 0.005, 0.022) * bump(t, spec.mouth_y - 0.037 * spec.smile, 0.022)
        _darken(
            window,
            shade + 0.16 * bump(t - bottom, 0.068 * spec.lips + 0.035, 0.025) * bump(a, 0, 0.12),
            (1.0, 1.0, 1.0),
        )

    def beard(self, goatee: bool, colour: Array) -> None:
        """Paint a beard over everything below the nose; the mouth comes after it."""
        window, s, t = self._window(0, 0.55, 1.15, 0.65)
        strands = patch("strands", len(t), len(s), self._rng)
        cover = beard_cover(self.spec, goatee, s, t)
        cover = smooth(cover + 0.30 * strands * cover * (1 - cover), 0.18, 0.75)
        _lay(window, colour[:, None, None] * (0.92 + 0.14 * strands), 0.93 * cover)

    def roots(self, cover: Array, colour: Array) -> None:
        """Paint the scalp where hair grows; ``cover`` in [0, 1] is ``(rows, columns)``."""
        lowest = int((0.85 + FACE_Y) * TEXELS)
        _lay(self.pixels[:, :lowest], colour, cover[:lowest])

    def hat_shadow(self) -> None:
        """Darken the forehead below a hat."""
        lowest = int((-0.1 + FACE_Y) * TEXELS)
        self.pixels[:, :lowest] *= 1 - 0.45 * (1 - smooth(self.t[:lowest], -0.42, -0.1))


def _edge(distance: Array, blur: float = 0.014) -> Array:
    """Return how far a signed distance lies inside, 0 to 1."""
    return np.minimum(np.maximum(distance * (1 / blur) + 0.5, 0), 1)


def _lay(window: Array, colour: Colour, cover: Array) -> None:
    """Lay a colour ``(3,)`` or ``(3, rows, columns)`` over a window, as far as ``cover`` in [0, 1] says."""
    paint = np.asarray(colour, np.float32)
    if paint.ndim == 1:
        paint = paint[:, None, None]
    window += (paint - window) * cover


def _darken(window: Array, amount: Array, weights: tuple[float, float, float]) -> None:
    """Darken a window by an amount in [0, 1], each channel with its own weight."""
    window *= 1 - np.array(weights, np.float32)[:, None, None] * amount


def _crease(window: Array, distance: Array, width: float, strength: Array | float) -> None:
    """Press a crease into the skin: dark at distance 0, with a light edge beyond."""
    _darken(
        window, (bump(distance, 0, width) - 0.35 * bump(distance, 1.7 * width, width)) * strength, (0.8, 1.05, 1.15)
    )
