"""What a head wears: hair in ten styles, three kinds of hats, glasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facetask.plugins.datasets.rendered_faces.head import ARC, Head
from facetask.plugins.datasets.rendered_faces.mesh import Part, bump, grid, smooth
from facetask.plugins.datasets.rendered_faces.noise import noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.plugins.datasets.rendered_faces.mesh import Array

HATS = ("beanie", "cap", "brim")


@dataclass(frozen=True)
class Style:
    """A hair style.

    Attributes:
        thick: How far the hair stands off the skull.
        top: Added on top of the head.
        front: Height of the hairline in the middle of the forehead.
        nape: Height where the hair ends at the back.
        length: Height where hanging hair ends, if it hangs.
        rough: Depth of curls or spikes.
        side: How far the hair is swept to one side.
        bare_top: Whether hair grows around the sides only.
        bun: Whether there is a bun.
    """

    thick: float
    top: float = 0.0
    front: float = -0.62
    nape: float = 0.55
    length: float = 0.0
    rough: float = 0.0
    side: float = 0.0
    bare_top: bool = False
    bun: bool = False


STYLES: dict[str, Style | None] = {
    "bald": None,
    "receding": Style(thick=0.06, front=-0.95, bare_top=True),
    "buzz": Style(thick=0.035, nape=0.45),
    "short": Style(thick=0.09, top=0.06),
    "side-part": Style(thick=0.09, top=0.09, front=-0.58, side=1.0),
    "spiky": Style(thick=0.10, top=0.14, rough=0.07),
    "curly": Style(thick=0.22, top=0.05, rough=0.05, nape=0.6),
    "bob": Style(thick=0.10, top=0.03, front=-0.34, length=0.78),
    "long": Style(thick=0.09, top=0.04, front=-0.66, length=1.55),
    "bun": Style(thick=0.055, front=-0.66, nape=0.45, bun=True),
}
_LINE_THETA = np.array([0.0, 0.3, 0.55, 0.75, 0.92, 1.02, 1.22, 1.36, 1.72, 1.95, 2.4, np.pi])
_THETA = np.linspace(-np.pi, np.pi, 45)
_SKULL_ROWS = np.concatenate([-np.cos(np.linspace(0, 1.2, 11)[:-1]), np.linspace(-0.36, 0.68, 15)])
_HANGING_FROM = 0.68
_OPENING = (0.92, 1.12)  # angles between which hanging hair begins, beside the face


def hairline(style: Style, theta: Array) -> Array:
    """Return the height below which no hair grows, at each angle."""
    front, nape = style.front, style.nape
    line = np.array(
        [front, front + 0.01, front + 0.05, front * 0.8, -0.3, 0.05, 0.16, 0.0, -0.04, nape - 0.12, nape, nape]
    )
    if style.bare_top:
        line[:5] = (-1.2, -1.2, -1.1, -0.9, -0.5)
    if style.length:
        line[5:] = (0.0, 0.6, 0.7, 0.75, 0.8, 0.8, 0.8)
    swept = style.side * 0.12 * np.sin(np.clip(2 * theta, -np.pi / 2, np.pi / 2))
    return np.interp(np.abs(theta), _LINE_THETA, line) + swept


def roots(style: Style, s: Array, t: Array) -> Array:
    """Return how far roots cover the face, 0 to 1, at distances ``(m,)`` from its middle and heights ``(n, 1)``."""
    line = hairline(style, s / ARC).astype(np.float32)
    cover = smooth(line - t, -0.015, 0.05)
    return cover * smooth(t, -0.62, -0.5) if style.bare_top else cover


def bare(style: Style | None, hat: bool, theta: Array, y: Array) -> NDArray[np.bool_]:
    """Return where neither hair nor hat covers the skull for certain, at angles ``(m,)`` and heights ``(n,)``."""
    heights = np.repeat(y[:, None], len(theta), axis=1)
    seen = heights > -0.55 if hat else np.ones(heights.shape, bool)
    return seen if style is None or style.bare_top else seen & (heights > hairline(style, theta) - 0.14)


def hair(head: Head, style: Style, hat: bool, rng: np.random.Generator) -> list[Part]:
    """Return the hair's meshes; a hat presses the hair down."""
    rows, theta = _SKULL_ROWS, _THETA
    if style.length:
        rows = np.concatenate([rows, np.linspace(_HANGING_FROM, style.length, 8 if style.length > 1 else 3)[1:]])
    x, y, z = head.surface(theta, np.minimum(rows, 0.75))
    y = rows[:, None]
    inside = smooth(hairline(style, theta) - y, -0.02, 0.16)
    crown = smooth(-y, 0.35, 0.95)
    thick = style.thick + style.top * crown * (1 + 0.6 * style.side * np.sin(theta))
    if style.rough:
        row, column = rng.integers(0, 128, 2)
        tile = noise("curls")[row : row + 3 * len(rows) : 3, column : column + 2 * len(theta) : 2]
        tile = tile - np.linspace(0, 1, len(theta)) * (tile[:, -1:] - tile[:, :1])  # closes behind the head
        thick = thick + style.rough * np.clip(tile, -1, 1.5) * (0.4 + 0.6 * crown)
    if style.bare_top:
        inside = inside * smooth(y, -0.62, -0.45)
    if hat:
        thick = np.where(y < -0.28, np.minimum(thick, 0.035), thick)
    lift = thick * np.sqrt(inside) - 0.035 * (1 - inside)
    up = np.minimum(y, 0)
    lift = lift / np.sqrt(x * x + up * up + z * z)
    x, y, z = x * (1 + lift), y + up * lift, z * (1 + lift)
    shown = inside > 0
    if hat:
        shown &= y > -0.55
    if style.length:
        shown |= (y > -0.1) & (np.abs(theta) > _OPENING[0])
        x, y, z = _hang(style, (x, y, z), rows, theta)
    uv = (theta / (2 * np.pi) + 0.5, (rows[:, None] + 1) / 2.6)
    shade = 0.72 + 0.28 * smooth(-rows, -0.5, 0.6)[:, None]
    back_from = 19 if style.length else None
    parts = [grid((x, y, z), "hair", uv=uv, shade=shade, gloss=0.22, back_from=back_from, shown=shown)]
    if style.bun and not hat:
        angle, fall = np.linspace(-np.pi, np.pi, 15), np.linspace(0, np.pi, 9)[:, None]
        out = 0.30 * np.sin(fall)
        ball = (out * np.sin(angle), -0.82 - 0.30 * np.cos(fall), out * np.cos(angle) - 0.72)
        parts.append(grid(ball, "hair", gloss=0.22))
    return parts


def _hang(style: Style, points: tuple[Array, ...], rows: Array, theta: Array) -> tuple[Array, ...]:
    """Return the hair's points with the part below the temples hanging straight down, open in front of the face."""
    x, y, z = points
    heights = rows[:, None]
    wide, back = 0.80 + 0.06 * smooth(heights, 0.3, style.length), 0.84 - 0.25 * smooth(heights, 0.5, 1.6)
    sine, cosine = np.sin(theta), np.cos(theta)
    radius = (np.abs(sine / wide) ** 2.3 + np.abs(cosine / np.where(cosine > 0, 0.62, back)) ** 2.3) ** (-1 / 2.3)
    opened = smooth(np.abs(theta), *_OPENING)
    radius = (0.12 + (radius - 0.12) * opened) * np.where(heights > style.length - 0.05, 0.93, 1.0)
    share = np.where(heights > _HANGING_FROM, 1.0, smooth(heights, -0.1, 0.35) * opened)
    return x + (radius * sine - x) * share, y + (heights - y) * share, z + (radius * cosine - z) * share


def hat(head: Head, kind: str) -> list[Part]:
    """Return the meshes of one of :data:`HATS`."""
    theta = np.linspace(-np.pi, np.pi, 37)
    edge_y = -0.34 + 0.05 * (1 - np.cos(theta))
    steps = np.linspace(0, 1, 13)[:, None]
    x, y, z = head.surface(theta, (-1 + 0.75 * steps**1.6)[:, 0])
    lift = {"beanie": 0.10 + 0.035 * smooth(steps, 0.66, 0.74), "cap": 0.085, "brim": 0.09}[kind]
    lift = lift / np.sqrt(x * x + y * y + z * z)
    x, y, z = x * (1 + lift), y * (1 + lift), z * (1 + lift)
    if kind == "beanie":
        y = y - 0.10 * (1 - steps) ** 1.5
    if kind == "brim":
        y = y - 0.16 * smooth(1 - steps, 0.15, 0.6) + 0.10 * bump(x, 0, 0.16) * smooth(1 - steps, 0.75, 1.0)
    y = y + (edge_y - y[-1]) * steps**2
    rim_x, rim_y, rim_z = x[-1], y[-1], z[-1]
    closed = [np.concatenate([axis, axis[-1:] * turn_in]) for axis, turn_in in ((x, 0.9), (y, 1.0), (z, 0.9))]
    parts = [grid(closed, "hat", gloss=0.05)]
    if kind == "cap":
        angle, out = np.linspace(-0.95, 0.95, 15), np.linspace(0, 1, 6)[:, None]
        reach = np.sqrt(np.maximum(np.cos(angle / 0.95 * np.pi / 2), 0)) * out
        inner = [np.interp(angle, theta, axis) for axis in (0.97 * rim_x, rim_y, 0.97 * rim_z)]
        visor = (inner[0], inner[1] + 0.10 * reach + 0.10 * inner[0] ** 2 * out, inner[2] + 0.50 * reach)
        parts.append(grid(visor, "visor", gloss=0.08, back_from=0))
    if kind == "brim":
        length = np.sqrt(rim_x**2 + rim_z**2)
        out = np.linspace(-0.05, 0.36, 5)[:, None]
        brim_y = rim_y + 0.05 * out - 0.25 * out * (rim_x / length) ** 2
        parts.append(
            grid((rim_x * (1 + out / length), brim_y, rim_z * (1 + out / length)), "hat", gloss=0.05, back_from=0)
        )
    return parts


def glasses(head: Head, squareness: float, size: float) -> tuple[list[Part], list[Part]]:
    """Return the frame's meshes and the lenses'.

    Args:
        head: The head that wears them.
        squareness: 2 for round glasses, more for squarer ones.
        size: About 1.
    """
    spec = head.spec
    angle = np.linspace(0, 2 * np.pi, 23)
    cosine, sine = np.cos(angle), np.sin(angle)
    radius = (np.abs(cosine) ** squareness + np.abs(sine) ** squareness) ** (-1 / squareness)
    wide, tall, middle, y = 0.205 * size, 0.165 * size, spec.eye_s - 0.005, spec.eye_y + 0.025
    front = 0.90 + 0.018 * head.shape["nose_bridge"]

    def sheet(at_x: Array, at_y: Array) -> tuple[Array, Array, Array]:
        """Return points on the curved sheet in which the glasses lie."""
        return at_x, at_y, front - 0.30 * at_x**2 - 0.06 * (at_y - spec.eye_y)

    frame, lenses = [], []
    outline, fill = np.array([1 + 0.02 / wide, 1 - 0.02 / wide])[:, None], np.array([1.0, 0.02])[:, None]
    half_arm = np.array([-0.022, 0.022])[:, None]
    for side in (-1.0, 1.0):
        for rings, parts, texture in ((outline, frame, "frame"), (fill, lenses, "lens")):
            ring = sheet(side * middle + wide * rings * radius * cosine, y + tall * rings * radius * sine)
            parts.append(grid(ring, texture, gloss=0.5, back_from=0))
        hinge_x, hinge_y, hinge_z = sheet(np.array(side * (middle + wide)), np.array(y - 0.06 * size))
        ear_x, ear_y, ear_z = head.surface(np.array([side * 1.62]), np.array([y - 0.01]))
        arm_x = np.array([hinge_x, hinge_x + 0.02 * side, side * 0.70, 1.05 * ear_x[0, 0]])
        arm_y = np.array([hinge_y, hinge_y, y - 0.05 * size, ear_y[0, 0]])
        arm_z = np.array([hinge_z, hinge_z - 0.08, 0.36, ear_z[0, 0]])
        frame.append(grid((arm_x, arm_y + half_arm, arm_z), "frame", gloss=0.3, back_from=0))
    across = np.linspace(-(middle - wide), middle - wide, 7)
    bridge = y - 0.03 - 0.03 * np.cos(across / (middle - wide) * np.pi / 2)
    frame.append(grid(sheet(across, bridge + 0.7 * half_arm), "frame"))
    return frame, lenses
