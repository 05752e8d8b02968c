"""What the tests of dataset plugins share: small image files, a checked load, and the words of a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facetask import DataError, Dataset, FaceData, PluginManager
from facetask.data.images import scan_images
from facetask.testing import check_dataset


def load(name: str, root: Path, **params: Any) -> FaceData:
    """What a bundled dataset gives for a root, after the check that plugin authors are offered."""
    record = PluginManager().find("dataset", name)
    assert isinstance(record, Dataset)
    return check_dataset(record, record.params(root=root, **params))


def refusal(name: str, root: Path, **params: Any) -> str:
    """The words with which a bundled dataset refuses a root."""
    record = PluginManager().find("dataset", name)
    assert isinstance(record, Dataset)
    with pytest.raises(DataError) as caught:
        record.load(record.params(root=root, **params))
    return str(caught.value)


def write_image(path: Path, size: tuple[int, int] = (12, 10), value: int = 90) -> Path:
    """An image file of one grey, in its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def write_ramp(path: Path, width: int = 200, height: int = 120) -> Path:
    """An image whose red is its column and whose green is its row, so that a crop shows where it was cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:height, :width]
    Image.fromarray(np.stack((columns, rows, np.zeros_like(rows)), axis=2).astype(np.uint8)).save(path)
    return path


def corners(path: Path) -> tuple[list[float], list[float]]:
    """Column and row of the picture that a crop of a ramp has in its first and in its last pixel."""
    with Image.open(path) as image:
        pixels = np.asarray(image, dtype=float)
    return pixels[0, 0, :2].tolist(), pixels[-1, -1, :2].tolist()


def unusable(data: FaceData) -> tuple[str, ...]:
    """What a run reports of images that it cannot use."""
    return scan_images(data, 0.999).bad
