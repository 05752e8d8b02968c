"""A small software rasteriser: triangles to pixels with a depth buffer, in whole-array numpy steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.intp]

FAR = np.float32(-1e9)


@dataclass(frozen=True)
class Fragments:
    """The pixels that triangles cover, nearest surface only.

    Attributes:
        pixels: Flat pixel indices, row by row, ``(n,)``.
        values: The vertices' attributes, interpolated at the pixels' centres, ``(n_attributes, n)``.
    """

    pixels: Indices
    values: Floats


def rasterise(points: Floats, attributes: Floats, triangles: Indices, depth: Floats, width: int) -> Fragments:
    """Return the visible pixels of front-facing triangles, and bring the depth buffer up to date in place.

    Args:
        points: Vertices on the screen, ``(3, n_vertices)``: x to the right and y down in pixels, z towards the viewer.
        attributes: What to interpolate, ``(n_attributes, n_vertices)``.
        triangles: Vertex indices, ``(3, n_triangles)``, clockwise on the screen when seen from their front.
        depth: The nearest z at each pixel so far, ``(height * width,)``, :data:`FAR` where there is none.
        width: The screen's width in pixels.
    """
    height = len(depth) // width
    x, y = points[0].take(triangles), points[1].take(triangles)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    first = np.ceil(np.maximum(np.minimum(np.minimum(y[0], y[1]), y[2]), 0) - 0.5).astype(np.intp)
    last = np.floor(np.minimum(np.maximum(np.maximum(y[0], y[1]), y[2]), height) - 0.5).astype(np.intp)
    seen = np.flatnonzero((area > 1e-4) & (last >= first))
    triangles, x, y, area = triangles[:, seen], x[:, seen], y[:, seen], area[seen]
    first, lines = first[seen], last[seen] - first[seen] + 1

    # One entry for each line of pixels that a triangle crosses, then one for each pixel of that line's span.
    owner = np.repeat(np.arange(len(lines)), lines)
    line = np.arange(len(owner)) + (first - np.cumsum(lines) + lines).take(owner)
    centre = line.astype(np.float32) + np.float32(0.5)
    left, right = np.zeros(len(line), np.float32), np.full(len(line), width, np.float32)
    for slope, low, high in _edge_limits(x, y):
        reach = slope.take(owner) * centre
        np.maximum(left, reach + low.take(owner), out=left)
        np.minimum(right, reach + high.take(owner), out=right)
    start = np.ceil(left - np.float32(0.5)).astype(np.intp)
    span_length = np.floor(right - np.float32(0.5)).astype(np.intp) - start + 1
    filled = np.flatnonzero(span_length > 0)
    owner, line, start, span_length = owner[filled], line[filled], start[filled], span_length[filled]
    span = np.repeat(np.arange(len(owner)), span_length)
    offset = np.cumsum(span_length) - span_length
    step = np.arange(len(span))
    step -= offset.take(span)
    pixel = (line * width + start).take(span)
    pixel += step

    planes = _planes(x, y, area, np.concatenate([points[2:], attributes])[:, triangles])
    across, down, base = planes[0, 0].take(owner), planes[1, 0].take(owner), planes[2, 0].take(owner)
    z_start = across * (start + np.float32(0.5)) + down * (line + np.float32(0.5)) + base
    z = across.take(span)
    z *= step.astype(np.float32)
    z += z_start.astype(np.float32).take(span)
    np.maximum.at(depth, pixel, z)
    nearest = np.flatnonzero(z == depth.take(pixel))
    winner = np.full(len(depth), -1, np.intp)
    winner[pixel.take(nearest)] = owner.take(span.take(nearest))
    pixels = np.flatnonzero(winner >= 0)
    of = winner.take(pixels)
    row = pixels // width
    at_y = row.astype(np.float32) + np.float32(0.5)
    at_x = (pixels - row * width).astype(np.float32) + np.float32(0.5)
    values = np.empty((len(attributes), len(pixels)), np.float32)
    for k in range(len(attributes)):
        np.multiply(planes[0, k + 1].take(of), at_x, out=values[k])
        values[k] += planes[1, k + 1].take(of) * at_y
        values[k] += planes[2, k + 1].take(of)
    return Fragments(pixels, values)


def _edge_limits(x: Floats, y: Floats) -> list[tuple[Floats, Floats, Floats]]:
    """Return for each edge its x as slope and offset over y: the offset as a lower limit and as an upper one.

    Going clockwise, an edge that rises bounds the triangle on the left and one that falls on the right.
    """
    limits = []
    for edge in range(3):
        dx, dy = x[edge - 2] - x[edge], y[edge - 2] - y[edge]
        level = np.abs(dy) < 1e-6
        slope = np.where(level, np.float32(0), dx / np.where(level, np.float32(1), dy))
        offset = x[edge] - slope * y[edge]
        low = np.where(dy < -1e-6, offset, np.float32(-1e9))
        limits.append((slope, low, np.where(dy > 1e-6, offset, np.float32(1e9))))
    return limits


def _planes(x: Floats, y: Floats, area: Floats, corners: Floats) -> Floats:
    """Return each triangle's attributes as planes over the screen, ``(3, n_attributes, n)``: slopes and offset.

    Args:
        x: Corners' x, ``(3, n)``.
        y: Corners' y, ``(3, n)``.
        area: Twice the triangles' area, ``(n,)``.
        corners: Corners' attributes, ``(n_attributes, 3, n)``.
    """
    zero = corners[:, 0]
    one, two = (corners[:, 1] - zero) / area, (corners[:, 2] - zero) / area
    across = one * (y[2] - y[0]) - two * (y[1] - y[0])
    down = two * (x[1] - x[0]) - one * (x[2] - x[0])
    return np.stack([across, down, zero - across * x[0] - down * y[0]])
