"""Face images cut once out of bigger pictures, kept in the cache folder.

A dataset's images are whole files, and a face is part of one where a layout gives a rectangle. So each face is cut out
as a square, which no network's input distorts, shrunk to at most 256 pixels, and written as a JPEG file. Its name holds
a digest of the square and of what identifies the picture without reading it: place in the dataset, size and time. Files
appear whole or not at all; those that are there already are not cut again.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident

import numpy as np
from numpy.typing import NDArray

from facetask import DataError, cache_folder

REVISION = "1"
MAX_SIDE = 256
_BATCH = 256
_QUALITY = 95


@dataclass(frozen=True)
class Squares:
    """Squares around faces, in whole pixels of the pictures; they may reach beyond a picture's border.

    Attributes:
        left: First column, ``(n,)``, NaN where there is no face.
        top: First row, ``(n,)``, NaN where there is no face.
        side: Width and height, ``(n,)``, NaN where there is no face.
    """

    left: NDArray[np.float64]
    top: NDArray[np.float64]
    side: NDArray[np.float64]

    @classmethod
    def around(cls, boxes: NDArray[np.float64], margin: float) -> Squares:
        """Return the squares around rectangles: left, top, width and height in pixels, ``(n, 4)``.

        A square's side is the rectangle's longer one and ``margin`` of it on either side. NaN, or a rectangle without
        extent, is no face.
        """
        left, top, width, height = boxes.T
        longer = np.maximum(width, height)
        longer = np.where((np.minimum(width, height) > 0) & np.isfinite(boxes).all(axis=1), longer, np.nan)
        side = np.ceil(longer * (1 + 2 * margin))
        return cls(np.round(left + width / 2 - side / 2), np.round(top + height / 2 - side / 2), side)

    @property
    def scale(self) -> NDArray[np.float64]:
        """Pixels of the face image for one of the picture, ``(n,)``."""
        return np.minimum(1.0, MAX_SIDE / self.side)


def cut_faces(dataset: str, root: Path, pictures: Sequence[Path], squares: Squares) -> tuple[Path, ...]:
    """Return the face images, cutting those that are not in the cache folder yet.

    Where a picture cannot be read, its own path stands instead, and where it has no face, a path without a file: so a
    run reports both among the images that it cannot use.

    Args:
        dataset: Name of the cache's folder.
        root: The dataset's folder; the files' names do not depend on where it is.
        pictures: The pictures, in the root, ``(n,)``.
        squares: One for each picture.

    Raises:
        DataError: If a face image cannot be written.
    """
    folder = cache_folder("face-images") / dataset
    boxes = np.stack((squares.left, squares.top, squares.side), axis=1)
    paths = [folder / _name(picture, root, box) for picture, box in zip(pictures, boxes, strict=True)]
    try:
        folder.mkdir(exist_ok=True)
        there = set(os.listdir(folder))
        missing = [i for i, path in enumerate(paths) if path.name not in there and not np.isnan(boxes[i]).any()]
        # Decoding releases the GIL. Filters are set here, not in the threads, which would race for them.
        with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            warnings.simplefilter("ignore")  # Pillow's, on damaged EXIF data beside sound pixels
            for start in range(0, len(missing), _BATCH):
                rows = missing[start : start + _BATCH]
                for row, done in zip(
                    rows, pool.map(lambda i: _cut(pictures[i], boxes[i], paths[i]), rows), strict=True
                ):
                    if not done:
                        paths[row] = pictures[row]
    except OSError as error:
        raise DataError(f"{folder}: face images cannot be written ({error.strerror or error})") from None
    return tuple(paths)


def _name(picture: Path, root: Path, box: NDArray[np.float64]) -> str:
    """Return a face image's file name, which says the picture and what was cut out of it."""
    try:
        stat = os.stat(picture)
        state = f"{stat.st_size} {stat.st_mtime_ns}"
    except OSError:
        state = "missing"
    what = "\n".join((REVISION, picture.relative_to(root).as_posix(), state, *map(str, box)))
    return f"{picture.stem}-{hashlib.blake2b(what.encode(), digest_size=10).hexdigest()}.jpg"


def _cut(picture: Path, box: NDArray[np.float64], path: Path) -> bool:
    """Write one face image, repeating the border's pixels beyond it; return whether the picture can be read.

    Raises:
        OSError: If the face image cannot be written.
    """
    from PIL import Image

    left, top, side = (int(value) for value in box)
    try:
        with Image.open(picture) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception:  # Pillow's decoders raise errors of many kinds on broken files
        return False
    height, width = pixels.shape[:2]
    if left >= width or top >= height or left + side <= 0 or top + side <= 0:
        return True  # the square has nothing of the picture in it: no file, which the run reports
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    face = Image.fromarray(pixels[rows[:, None], columns])
    if side > MAX_SIDE:
        face = face.resize((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    part = path.with_name(f"{path.name}.{os.getpid()}.{get_ident()}.part")
    face.save(part, format="jpeg", quality=_QUALITY, subsampling=0)
    part.replace(path)
    return True
