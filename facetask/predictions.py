"""The ``predict`` command: images in, values out."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from facetask.checkpoint import load_model
from facetask.errors import DataError

if TYPE_CHECKING:
    from facetask.plugin_manager import PluginManager


def find_images(given: Sequence[Path]) -> list[Path]:
    """Return image files as given, and all images below given folders, sorted.

    Raises:
        DataError: If something does not exist, or a folder holds no image.
    """
    from PIL import Image

    endings = set(Image.registered_extensions())
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in endings and p.is_file())
            if not inside:
                raise DataError(f"{path}: no image in this folder")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path}: no such image or folder")
    return found


def print_predictions(
    model: Path, images: Sequence[Path], form: Literal["text", "csv", "json"], plugins: PluginManager
) -> None:
    """Print one prediction an image, in the order given; an image that cannot be read is named and passed over.

    Raises:
        DataError: After all others were printed, if an image could not be read.
        CheckpointError: If the model cannot be read.
    """
    loaded = load_model(model, plugins)
    rows, bad = [], []
    for path in images:
        try:
            rows.append({"image": str(path), **next(loaded.predict([path]))})
        except DataError as error:
            bad.append(str(error))
    if form == "json":
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif form == "csv" and rows:
        writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    else:
        for row in rows:
            value = f"{row['value']:.4g}" if isinstance(row["value"], float) else row["value"]
            score = f" ({row['score']:.2f})" if "score" in row else ""
            print(f"{row['image']}: {value}{' ' + row['unit'] if row.get('unit') else ''}{score}")
    if bad:
        raise DataError(f"{len(bad)} of {len(images)} images cannot be read: {'; '.join(bad)}")
