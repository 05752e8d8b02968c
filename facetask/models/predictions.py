"""The ``predict`` command: images in, values out."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facetask.errors import DataError
from facetask.models.checkpoint import load_model

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
    """Print predictions, a row an image, in the order given; an image that cannot be read is named and passed over.

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
        flat = [_flat(row) for row in rows]
        writer = csv.DictWriter(sys.stdout, fieldnames=list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    else:
        for row in rows:
            print(f"{row['image']}: {_text(row)}")
    if bad:
        raise DataError(f"{len(bad)} of {len(images)} images cannot be read: {'; '.join(bad)}")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prediction as one cell a value: ``value[label]``, ``score[label]`` where there are several labels.

    Cells of a model of several tasks have the task before them: ``age.value``.
    """
    cells: dict[str, Any] = {}
    for key, value in row.items():
        if key == "tasks":
            cells |= {f"{task}.{name}": cell for task, own in value.items() for name, cell in _flat(own).items()}
        elif isinstance(value, dict):
            cells |= {f"{key}[{label}]": inner for label, inner in value.items()}
        elif isinstance(value, list):
            cells |= {f"{key}[{index}]": inner for index, inner in enumerate(value, start=1)}
        else:
            cells[key] = value
    return cells


def _text(row: Mapping[str, Any]) -> str:
    """Return a prediction as a line for a reader."""
    alone = "" if row.get("face_found", True) else " (no face found: taken as it is)"
    if "tasks" in row:
        return "; ".join(f"{task}: {_value_text(own)}" for task, own in row["tasks"].items()) + alone
    return _value_text(row) + alone


def _value_text(row: Mapping[str, Any]) -> str:
    """Return one task's prediction for a reader."""
    value = row["value"]
    if isinstance(value, dict):
        return ", ".join(f"{label} {found} ({row['score'][label]:.2f})" for label, found in value.items())
    values = [f"{number:.4g}" if isinstance(number, float) else str(number) for number in _listed(value)]
    unit = f" {row['unit']}" if row.get("unit") else ""
    score = f" ({row['score']:.2f})" if "score" in row else ""
    return f"{', '.join(values)}{unit}{score}"


def _listed(value: Any) -> list[Any]:
    """Return one or several values as a list."""
    return value if isinstance(value, list) else [value]
