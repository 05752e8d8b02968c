"""The images that drive one filter most and least, side by side: photographs, for the user's own eyes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.data.preprocessing import open_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from facetask.records import FaceData

COUNT, SIDE, GAP, LINE, LONGEST = 8, 112, 6, 18, 18
_PAPER, _INK = (253, 253, 252), (38, 50, 60)


def extremes(x: NDArray[Any], groups: NDArray[Any] | None, count: int = COUNT) -> tuple[list[int], list[int]]:
    """Return the rows of the largest and of the smallest responses, the most extreme first.

    Args:
        x: One filter's responses, ``(n_images,)``.
        groups: What images belong together (people, clips), ``(n_images,)``: one image of each is enough.
        count: How many of each.
    """
    order = np.argsort(-x, kind="stable")
    return _first(order, groups, count), _first(order[::-1], groups, count)


def write_strip(
    path: Path, data: FaceData, x: NDArray[Any], labels: Sequence[str], groups: NDArray[Any] | None
) -> None:
    """Write the images that drive a filter most (above) and least (below), each with its response and label.

    Args:
        path: The PNG file.
        data: The images.
        x: The filter's responses, ``(n_images,)``.
        labels: What the task says of each image.
        groups: What images belong together, as in :func:`extremes`.

    Raises:
        DataError: If an image cannot be read.
    """
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont
    import PIL.ImageOps

    most, least = extremes(x, groups)
    row_height = LINE + SIDE + 2 * LINE + GAP
    sheet = PIL.Image.new("RGB", (max(len(most), 3) * (SIDE + GAP) + GAP, 2 * row_height + GAP), _PAPER)
    draw, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(12)
    for row, (title, chosen) in enumerate((("drive it most", most), ("drive it least", least))):
        top = GAP + row * row_height
        draw.text((GAP, top), title, _INK, font)
        for place, index in enumerate(chosen):
            left = GAP + place * (SIDE + GAP)
            image = PIL.ImageOps.fit(open_image(data.paths[index]).convert("RGB"), (SIDE, SIDE))
            sheet.paste(image, (left, top + LINE))
            draw.text((left, top + LINE + SIDE + 1), f"response {x[index]:.3g}", _INK, font)
            draw.text((left, top + 2 * LINE + SIDE - 3), labels[index][:LONGEST], _INK, font)
    sheet.save(path)


def _first(order: NDArray[np.intp], groups: NDArray[Any] | None, count: int) -> list[int]:
    """Return the first rows of an order, of each group the first only."""
    seen: set[str] = set()
    rows: list[int] = []
    for row in order.tolist():
        group = str(row) if groups is None or groups[row] is None else f"group {groups[row]}"
        if group not in seen:
            seen.add(group)
            rows.append(row)
        if len(rows) == count:
            break
    return rows
