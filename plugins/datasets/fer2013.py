"""FER2013: 48×48 grey faces with seven emotions, as folders named after the emotions or as ``fer2013.csv``.

The numbers of the csv are written once as PNG files to the cache folder, each named after its row and a digest of its
pixels. Nobody knows who is on which image, so there is no group column; some images stand in the set more than once.

Source: Goodfellow et al. 2013, Challenges in Representation Learning; the csv's layout is general knowledge.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, cache_folder, did_you_mean, hookimpl
from facetask.plugins.datasets.reading import image_tree, need_folder, text, what_is_at

TERMS = "no licence stated (Kaggle challenge of 2013); for research"
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ("Training", "PublicTest", "PrivateTest")
_SIDE = 48
_COLUMNS = ("emotion", "pixels", "Usage")
_EXPECTED = f"fer2013.csv, or images in folders named {', '.join(EMOTIONS)} (or in such folders of train and test)"


class FER2013Params(Params):
    """Where the data is.

    Attributes:
        root: The folder with ``fer2013.csv``, or with a folder of images for each emotion.
    """

    root: ConfigPath


def load(params: FER2013Params) -> FaceData:
    """Return all images with ``emotion`` (words) and, where the layout has it, ``usage`` (as published).

    Raises:
        DataError: If neither layout is there, a folder is no emotion, a row of the csv is malformed, or the images
            cannot be written.
    """
    root = params.root
    need_folder(root, _EXPECTED)
    if (root / "fer2013.csv").is_file():
        return _from_csv(root / "fer2013.csv")
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise DataError(f"{root}: expected {_EXPECTED}, found {what_is_at(root)}")
    flat = any(folder.lower() in EMOTIONS for folder in folders)
    images = image_tree(root, 1 if flat else 2, _EXPECTED)
    emotions = [parts[-2].lower() for parts in images]
    for emotion in sorted(set(emotions)):
        if emotion not in EMOTIONS:
            raise DataError(f"{root}: the folder {emotion!r} is no emotion{did_you_mean(emotion, EMOTIONS)}")
    columns = {"emotion": text(emotions)}
    if not flat:
        columns["usage"] = text(parts[0] for parts in images)
    return FaceData(
        paths=tuple(root.joinpath(*parts) for parts in images), columns=columns, licence=TERMS, source=str(root)
    )


def _from_csv(path: Path) -> FaceData:
    """Return the rows of the csv and the files that their pixels are written to."""
    folder = cache_folder("face-images") / "fer2013"
    paths: list[Path] = []
    emotions: list[str] = []
    usages: list[str] = []
    try:
        folder.mkdir(exist_ok=True)
        there = set(os.listdir(folder))
        for line, emotion, pixels, usage in _rows(path):
            digest = hashlib.blake2b(pixels.encode(), digest_size=10).hexdigest()
            paths.append(folder / f"{len(paths):05d}-{digest}.png")
            if paths[-1].name not in there:
                _write(_face(pixels, path, line), paths[-1])
            emotions.append(emotion)
            usages.append(usage)
    except OSError as error:
        where = error.filename or folder
        raise DataError(f"{where}: cannot be read or written ({error.strerror or error})") from None
    if not paths:
        raise DataError(f"{path}: the table has a header and no rows; is the file whole?")
    columns = {"emotion": text(emotions), "usage": text(usages)}
    return FaceData(paths=tuple(paths), columns=columns, licence=TERMS, source=str(path))


def _rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield each row's line, emotion, pixels and usage.

    Raises:
        DataError: If the header, or a row's code or usage, is another than published.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        header = tuple(file.readline().strip().split(","))
        if header != _COLUMNS:
            raise DataError(f"{path}: line 1: expected {','.join(_COLUMNS)}, found {','.join(header)[:60]!r}")
        for line, row in enumerate(file, start=2):
            cells = row.strip().split(",")
            if len(cells) != len(_COLUMNS):
                raise DataError(f"{path}: line {line}: expected {len(_COLUMNS)} cells, found {len(cells)}")
            code, pixels, usage = cells
            if not (code.isdecimal() and int(code) < len(EMOTIONS)):
                raise DataError(f"{path}: line {line}: expected an emotion 0 … {len(EMOTIONS) - 1}, found {code!r}")
            if usage not in USAGES:
                raise DataError(f"{path}: line {line}: unknown Usage {usage!r}{did_you_mean(usage, USAGES)}")
            yield line, EMOTIONS[int(code)], pixels, usage


def _face(pixels: str, path: Path, line: int) -> NDArray[np.uint8]:
    """Return a row's pixels, ``(48, 48)``.

    Raises:
        DataError: If they are not 2,304 numbers of 0 to 255.
    """
    try:
        values = np.array(pixels.split(), dtype=np.uint8)
    except (ValueError, OverflowError):
        raise DataError(f"{path}: line {line}: expected pixels of 0 to 255, found {pixels[:40]!r} …") from None
    if len(values) != _SIDE**2:
        raise DataError(f"{path}: line {line}: expected {_SIDE**2} pixels, found {len(values)}")
    return values.reshape(_SIDE, _SIDE)


def _write(face: NDArray[np.uint8], path: Path) -> None:
    """Write a face, whole or not at all."""
    from PIL import Image

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    Image.fromarray(face).save(part, format="png", compress_level=1)
    part.replace(path)


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``fer2013``."""
    return [Dataset(name="fer2013", load=load, params=FER2013Params)]
