"""Reads the weights that Keras 1 and 2 save (``.h5``): of a model or its weights alone.

Each layer is a group, listed in order in the attribute ``layer_names``; its tensors are listed in ``weight_names``.
In a file with the whole model, all of it lies in the group ``model_weights``.

Source: ``save_weights_to_hdf5_group`` of Keras 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facetask import WeightsError
from facetask.plugins.architectures.vgg_layouts.stored import Stored, StoredLayers, check_is_file

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Return whether a file begins as HDF5 does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def read_layers(path: Path) -> StoredLayers:
    """Return every layer that has weights, in the model's order.

    Raises:
        WeightsError: If the file is missing, truncated or no Keras file, or if h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise WeightsError(
            f"{path}: h5py, which reads it, is not installed; install it with: pip install 'facetask[vgg]'"
        ) from None
    check_is_file(path)
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if "layer_names" not in group.attrs:
                raise WeightsError(
                    f"{path}: not a Keras 1 or 2 weights file: no attribute 'layer_names', found {sorted(file)[:5]}"
                )
            return {name: stored for name in _names(group, "layer_names") if (stored := _layer(path, group, name))}
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # h5py's errors, on files that are damaged
        raise WeightsError(f"{path}: not a readable HDF5 file ({error}); fetch it again") from None


def _layer(path: Path, group: Any, name: str) -> list[Stored]:
    """Return a layer's tensors."""
    if name not in group:
        raise WeightsError(f"{path}: layer {name!r} is listed but missing; fetch it again")
    stored = []
    for key in _names(group[name], "weight_names"):
        values = group[name][key][()] if key in group[name] else None
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            raise WeightsError(f"{path}: {name}/{key}: expected numbers, found {type(values).__name__}")
        stored.append(Stored(f"{name}/{key}", values))
    return stored


def _names(group: Any, attribute: str) -> list[str]:
    """Return a list of names, which older files store as bytes."""
    names = group.attrs.get(attribute, ())
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names]
