"""Meshes made of grids of points, and the soft steps and bumps that shape them.

Lengths are half head heights. The head's own axes: x to the subject's left (right in the picture), y down, z forward;
the crown is at y = -1, the eyes near 0, the chin at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]


def bump(values: Array, centre: float, width: float) -> Array:
    """Return a Gaussian bump of height 1."""
    z = (values - centre) * (1 / width)
    return np.exp(-z * z)


def smooth(values: Array, low: float, high: float) -> Array:
    """Return 0 below ``low``, 1 above ``high`` and a smooth step between."""
    t = np.minimum(np.maximum((values - low) * (1 / (high - low)), 0), 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Part:
    """A mesh with what its surface looks like.

    Attributes:
        points: ``(3, n)``.
        normals: Unit normals, outwards, ``(3, n)``.
        uv: Place in the part's texture, column and row as fractions of it, ``(2, n)``.
        triangles: Vertex indices, clockwise seen from outside, ``(3, m)``.
        texture: Name of the texture.
        shade: Share of the light that reaches a vertex, ``(n,)``: less than 1 in a fold.
        gloss: Strength of the highlights.
    """

    points: Array
    normals: Array
    uv: Array
    triangles: NDArray[np.intp]
    texture: str
    shade: Array
    gloss: float = 0.0


@lru_cache
def _topology(rows: int, columns: int, back_from: int) -> NDArray[np.intp]:
    """Return the triangles of a grid of vertices, and from row ``back_from`` on their backs as well."""
    row = np.arange(rows - 1)[:, None]
    corner = row * columns + np.arange(columns - 1)
    right, below, across = corner + 1, corner + columns, corner + columns + 1
    front = np.stack([np.stack([corner, right, across]), np.stack([corner, across, below])], axis=1)
    back = front[::-1, :, back_from:]
    return np.concatenate([front.reshape(3, -1), back.reshape(3, -1)], axis=1)


@lru_cache
def _unit_square(rows: int, columns: int) -> NDArray[np.float32]:
    """Return texture places that spread over a whole grid, ``(2, rows, columns)``."""
    return np.stack(np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))).astype(np.float32)


def grid(
    points: Sequence[Array] | Array,
    texture: str,
    *,
    uv: Sequence[Array] | None = None,
    shade: Array | float = 1.0,
    gloss: float = 0.0,
    back_from: int | None = None,
    shown: NDArray[np.bool_] | None = None,
) -> Part:
    """Return a part from a grid of points, seen from its front with columns to the right and rows down.

    Args:
        points: x, y and z, each ``(rows, columns)`` or broadcast to it.
        texture: Name of the texture.
        uv: Place in the texture, column and row, each ``(rows, columns)`` or broadcast to it.
        shade: Share of the light that reaches a point.
        gloss: Strength of the highlights.
        back_from: First row whose back can be seen too.
        shown: Where the surface may be seen, ``(rows, columns)``; triangles wholly elsewhere are left out.
    """
    rows, columns = np.broadcast_shapes(*(axis.shape for axis in points))
    places = np.empty((3, rows, columns), np.float32)
    for axis in range(3):
        places[axis] = points[axis]
    right, down = np.empty_like(places), np.empty_like(places)
    np.subtract(places[:, :, 2:], places[:, :, :-2], out=right[:, :, 1:-1])
    right[:, :, 0], right[:, :, -1] = places[:, :, 1] - places[:, :, 0], places[:, :, -1] - places[:, :, -2]
    np.subtract(places[:, 2:], places[:, :-2], out=down[:, 1:-1])
    down[:, 0], down[:, -1] = places[:, 1] - places[:, 0], places[:, -1] - places[:, -2]
    normals = right[[1, 2, 0]] * down[[2, 0, 1]] - right[[2, 0, 1]] * down[[1, 2, 0]]
    normals /= np.sqrt((normals * normals).sum(axis=0)) + 1e-9
    if uv is None:
        spread = _unit_square(rows, columns)
    else:
        spread = np.empty((2, rows, columns), np.float32)
        spread[0], spread[1] = uv
    lit = np.empty((rows, columns), np.float32)
    lit[:] = shade
    triangles = _topology(rows, columns, rows if back_from is None else back_from)
    if shown is not None:
        triangles = triangles[:, shown.ravel().take(triangles).any(axis=0)]
    return Part(
        points=places.reshape(3, -1),
        normals=normals.reshape(3, -1),
        uv=spread.reshape(2, -1),
        triangles=triangles,
        texture=texture,
        shade=lit.ravel(),
        gloss=gloss,
    )
