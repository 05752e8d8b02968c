"""Reads the Surrey face model's mean face and which of its points are the 68 landmarks.

Source: P. Huber et al., "A Multiresolution 3D Morphable Face Model and Fitting Framework" (2016); its files
``sfm_shape_3448.bin`` and ``ibug_to_sfm.txt`` as the eos project publishes them.
"""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facetask import DataError

N_LANDMARKS = 68
LICENCE = "made with the Surrey Face Model, free for non-commercial use"
_MODEL = "sfm_shape_3448.bin"
_MAPPING = "ibug_to_sfm.txt"
_PUBLISHED = "https://github.com/patrikhuber/eos/tree/master/share"


def read_model(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Read the mean face's points that are landmarks, ``(n_points, 3)``, and the landmarks' indices, ``(n_points,)``.

    Raises:
        DataError: If a file is missing, damaged or does not fit the other.
    """
    mean, mapping = _read_mean(_present(folder, _MODEL)), _read_mapping(_present(folder, _MAPPING))
    wrong = [key for key, vertex in mapping.items() if not (1 <= key <= N_LANDMARKS and 0 <= vertex < len(mean))]
    if wrong or len(mapping) < 6:
        raise DataError(
            f"{folder / _MAPPING}: expected vertices of {_MODEL} (0 to {len(mean) - 1}) for six or more of the "
            f"landmarks 1 to {N_LANDMARKS}, found {len(mapping)}"
            + (f", the first wrong one {wrong[0]}" if wrong else "")
        )
    return mean[list(mapping.values())], np.array(list(mapping)) - 1


def _present(folder: Path, name: str) -> Path:
    """The path of one of the model's files.

    Raises:
        DataError: If it is not there; says where it is published.
    """
    if not (folder / name).is_file():
        raise DataError(
            f"{folder / name}: no such file; it is published in the eos project's share folder, {_PUBLISHED} (free for "
            f"non-commercial use): put it there, or set params.model to the folder that has it"
        )
    return folder / name


def _read_mean(path: Path) -> NDArray[np.float64]:
    """Read the model's mean points, ``(n_vertices, 3)``: a version, rows and columns, then float32 values."""
    raw = path.read_bytes()
    if len(raw) < 12:
        raise DataError(f"{path}: expected the Surrey shape model, found {len(raw)} bytes")
    version, rows, columns = struct.unpack_from("<Iii", raw)
    if version != 1 or columns != 1 or rows <= 0 or rows % 3 or len(raw) < 12 + 4 * rows:
        raise DataError(
            f"{path}: expected the Surrey shape model (version 1, a mean of 3 n rows and 1 column), found version "
            f"{version}, {rows} × {columns} in {len(raw)} bytes; fetch the file again from {_PUBLISHED}"
        )
    mean = np.frombuffer(raw, "<f4", rows, 12).astype(np.float64).reshape(-1, 3)
    if not np.isfinite(mean).all():
        raise DataError(f"{path}: the model's mean is not finite; fetch the file again from {_PUBLISHED}")
    return mean


def _read_mapping(path: Path) -> dict[int, int]:
    """Read which vertex each landmark, counted from 1, is: the TOML table ``landmark_mappings``."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))["landmark_mappings"]
        return {int(landmark): int(vertex) for landmark, vertex in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected a TOML table landmark_mappings of landmark = vertex ({error}); fetch the file "
            f"again from {_PUBLISHED}"
        ) from None
