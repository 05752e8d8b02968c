"""A scene of meshes under one light, seen by one camera: textured, shaded and rendered to pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facetask.plugins.datasets.rendered_faces.mesh import Part, smooth
from facetask.plugins.datasets.rendered_faces.rasteriser import FAR, rasterise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.plugins.datasets.rendered_faces.mesh import Array

_DISTANCE = 7.0  # of the camera from the head's middle, in half head heights
_OVERSAMPLING = 2
_HIGHLIGHT_POWER = 18


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> NDArray[np.float64]:
    """Return the head's rotation, ``(3, 3)``: roll, then pitch (positive down), then yaw (positive: subject's left)."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return turn @ nod @ tilt


@dataclass(frozen=True, kw_only=True)
class Light:
    """A lamp and the sky.

    Attributes:
        side_deg: Where the lamp stands, positive on the subject's left (right in the picture).
        rise_deg: How high it stands.
        strength: The lamp's strength.
        ambient: The sky's strength.
    """

    side_deg: float
    rise_deg: float
    strength: float
    ambient: float

    def shade(self, normals: Array, shade: Array, gloss: Array) -> tuple[Array, Array]:
        """Return the factor on each vertex's colour ``(n,)`` and the highlight added to it ``(n,)``."""
        side, rise = np.radians([self.side_deg, self.rise_deg])
        lamp = np.array([np.sin(side) * np.cos(rise), -np.sin(rise), np.cos(side) * np.cos(rise)], np.float32)
        halfway = lamp + np.array([0, 0, 1], np.float32)
        halfway /= np.sqrt((halfway**2).sum())
        diffuse = np.maximum((lamp @ normals + 0.25) / 1.25, 0) ** 1.3
        factor = (self.ambient * (0.86 - 0.14 * normals[1]) + self.strength * diffuse) * shade
        return factor, np.maximum(halfway @ normals, 0) ** _HIGHLIGHT_POWER * gloss * shade


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is rendered.

    Attributes:
        head: Meshes that turn with the head.
        body: Meshes that do not.
        lenses: See-through meshes that turn with the head.
        lens_tint: How dark the lenses are, 0 to 1.
        textures: Colours by name, ``(3, rows, columns)`` in [0, 1].
        rotation: The head's, ``(3, 3)``.
        light: What lights it.
        centre: Where the head's middle stands in the picture, as fractions of its size.
        scale: Half a head height, as a fraction of the picture's size.
    """

    head: Sequence[Part]
    body: Sequence[Part]
    lenses: Sequence[Part]
    lens_tint: float
    textures: Mapping[str, Array]
    rotation: Array
    light: Light
    centre: tuple[float, float]
    scale: float

    def project(self, points: Array, size: int) -> Array:
        """Return points in the camera's axes ``(3, n)`` as pixels x and y, and depth."""
        nearer = (size * self.scale * _DISTANCE) / (_DISTANCE - points[2])
        return np.stack(
            [points[0] * nearer + size * self.centre[0], points[1] * nearer + size * self.centre[1], points[2]]
        )


def render(scene: Scene, size: int) -> tuple[Array, Array]:
    """Return colours ``(3, size, size)``, black where nothing is; and each pixel's cover in 0–1, ``(size, size)``."""
    wide = _OVERSAMPLING * size
    atlas, places = _atlas(scene.textures)
    parts = [*scene.head, *scene.body]
    turned = scene.rotation.astype(np.float32) @ np.concatenate(
        [
            np.concatenate([part.points for part in scene.head], 1),
            np.concatenate([part.normals for part in scene.head], 1),
        ],
        1,
    )
    points, normals = np.split(turned, 2, axis=1)
    points = np.concatenate([points, *(part.points for part in scene.body)], axis=1)
    normals = np.concatenate([normals, *(part.normals for part in scene.body)], axis=1)
    shade = np.concatenate([part.shade for part in parts])
    gloss = np.repeat(np.array([part.gloss for part in parts], np.float32), [len(part.shade) for part in parts])
    attributes = np.empty((4, len(shade)), np.float32)
    np.concatenate(
        [part.uv * places[part.texture][0] + places[part.texture][1] for part in parts], 1, out=attributes[:2]
    )
    attributes[2], attributes[3] = scene.light.shade(normals, shade, gloss)

    depth = np.full(wide * wide, FAR, np.float32)
    seen = rasterise(scene.project(points, wide), attributes, _triangles(parts), depth, wide)
    column, row, factor, highlight = seen.values
    texel = row.astype(np.intp) * atlas.shape[2] + column.astype(np.intp)
    canvas = np.zeros((4, wide * wide), np.float32)  # red, green, blue and cover
    for channel in range(3):
        canvas[channel, seen.pixels] = atlas[channel].ravel().take(texel) * factor + highlight
    canvas[3, seen.pixels] = 1
    if scene.lenses:
        _glaze(canvas, scene, depth, wide)
    lines = canvas.reshape(4, size, 2, wide).sum(axis=2)
    canvas = (lines[:, :, ::2] + lines[:, :, 1::2]) * np.float32(0.25)
    return canvas[:3], canvas[3]


def _glaze(canvas: Array, scene: Scene, depth: Array, wide: int) -> None:
    """Lay the lenses' tint and reflections over the canvas."""
    points = scene.rotation.astype(np.float32) @ np.concatenate([part.points for part in scene.lenses], axis=1)
    uv = np.concatenate([part.uv for part in scene.lenses], axis=1)
    glass = rasterise(scene.project(points, wide), uv, _triangles(scene.lenses), depth, wide).pixels
    streak = smooth(np.sin((glass % wide) * (27 / wide) + (glass // wide) * (15 / wide)), 0.6, 1.0).astype(np.float32)
    canvas[:, glass] *= 1 - scene.lens_tint
    canvas[:3, glass] += 0.04 * scene.lens_tint + 0.10 * streak
    canvas[3, glass] += scene.lens_tint


def _triangles(parts: Sequence[Part]) -> NDArray[np.intp]:
    """Return all parts' triangles as indices into their joined vertices."""
    first = np.cumsum([0, *(len(part.shade) for part in parts)])
    return np.concatenate([part.triangles + base for part, base in zip(parts, first[:-1], strict=True)], axis=1)


def _atlas(textures: Mapping[str, Array]) -> tuple[Array, dict[str, tuple[Array, Array]]]:
    """Return all textures in one, and for each the factor and offset that take its fractions to texels ``(2, 1)``."""
    shapes = {name: texture.shape[1:] for name, texture in textures.items()}
    atlas = np.zeros(
        (3, sum(rows for rows, _ in shapes.values()), max(columns for _, columns in shapes.values())), np.float32
    )
    places, top = {}, 0
    for name, (rows, columns) in shapes.items():
        atlas[:, top : top + rows, :columns] = textures[name]
        # Half a texel short at either end, so that rounding never reaches a neighbour.
        factor = np.array([[columns - 1], [rows - 1]], np.float32)
        places[name] = (factor, np.array([[0.5], [top + 0.5]], np.float32))
        top += rows
    return atlas, places
