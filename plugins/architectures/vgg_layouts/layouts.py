"""The published layouts of VGG-16's weights: what its layers are called in each file and in which order numbers lie.

Two things differ besides the names. Keras stores a convolution as (height, width, inputs, outputs) and a fully
connected layer as (inputs, outputs), where fc6's inputs are in the order row, column, channel. And deepface makes the
fully connected layers convolutions: fc6 one of 7×7, the others of 1×1.

Source: the publishers' own loaders: Caffe, Torch7, S. Albanie's mcnPyTorch, PyVGGFace, keras-vggface, deepface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from facetask import WeightsError, did_you_mean, read_state_dict
from facetask.plugins.architectures.vgg16 import TOP_SIDE, Shapes
from facetask.plugins.architectures.vgg_layouts import caffemodel, keras_h5, torch7
from facetask.plugins.architectures.vgg_layouts.stored import Stored, StoredLayers, check_is_file, mapped

LayoutName = Literal["dag", "pyvggface", "torch7", "caffe", "keras", "keras-notop", "deepface"]
_ARCHIVES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2"}


def read_state(
    path: Path, layout: LayoutName, shapes: Shapes, names: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Return the state dict of a :class:`Vgg16` that a file holds, float32.

    Args:
        path: The file.
        layout: The file's layout.
        shapes: Each layer's shape of weights, as :func:`layer_shapes` gives them.
        names: Layers that are called otherwise in this file, by our name: ``{"fc8": "fc8-101"}``.

    Raises:
        WeightsError: If the file is missing, damaged or of another layout; names the key as it stands in the file.
    """
    known = _DEEPFACE_H5 if layout == "deepface" and keras_h5.is_hdf5(path) else _LAYOUTS[layout]
    layers = known.read(path)
    places = _places(path, layout, known, layers, shapes, names or {})
    extra = [name for name in layers if name not in places.values()]
    if extra:
        raise WeightsError(
            f"{path}: not of layout {layout!r}: {len(extra)} layers are unknown: {', '.join(extra[:5])}; "
            f"expected {len(shapes)} layers, {next(iter(shapes))} to {list(shapes)[-1]}"
        )
    state: dict[str, Tensor] = {}
    for name, place in places.items():
        stored = layers.pop(place)  # so that what has been converted need not stay in memory
        if len(stored) != 2:
            raise WeightsError(
                f"{path}: layer {place!r}: expected weights and biases, found {[tensor.key for tensor in stored]}"
            )
        weight, bias = stored
        _check(path, weight, known.shape(name, shapes[name]))
        _check(path, bias, shapes[name][:1])
        state[f"{name}.weight"] = _converted(weight, known, name, shapes[name])
        state[f"{name}.bias"] = torch.from_numpy(np.array(bias.values, np.float32))
    return state


def detect(path: Path) -> LayoutName:
    """Return the layout of a file: by its suffix for ``.t7`` and ``.caffemodel``, by its contents otherwise.

    Raises:
        WeightsError: If the file is missing, damaged or of no layout known here.
    """
    check_is_file(path)
    if path.suffix.lower() == ".t7":
        return "torch7"
    if path.suffix.lower() == ".caffemodel":
        return "caffe"
    status = path.stat()
    return _detected(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _detected(path: Path, size: int, modified_ns: int) -> LayoutName:
    """Return the layout of a file by its contents; they are asked for several times in a run, and large."""
    for signature, kind in _ARCHIVES.items():
        if size and mapped(path)[: len(signature)] == signature:
            raise WeightsError(f"{path}: a {kind} archive; unpack it first")
    hdf5 = keras_h5.is_hdf5(path)
    layers = keras_h5.read_layers(path) if hdf5 else _read_state_dict(path)
    if hdf5 and "conv1_1" in layers:
        return "keras" if "fc6" in layers else "keras-notop"
    if hdf5 and len(layers) == 16 and all(stored[0].values.ndim == 4 for stored in layers.values()):
        return "deepface"
    if not hdf5 and "features.conv_1_1" in layers:
        return "pyvggface"
    if not hdf5 and "conv1_1" in layers:
        return "deepface" if any(tensor.values.ndim == 4 for tensor in layers.get("fc6", ())) else "dag"
    raise WeightsError(
        f"{path}: none of the layouts known for VGG-16; its layers with weights are {', '.join(list(layers)[:5])}, …; "
        "a file that is one all the same can be read by naming its layout"
    )


@dataclass(frozen=True)
class _Layout:
    """How one publisher stores VGG-16.

    Attributes:
        read: Reads the file.
        rename: Returns our layer's name in the file; None: layers are known by their order.
        channels_last: Whether axes are in Keras's order.
        convolutional: Whether fully connected layers are stored as convolutions.
    """

    read: Callable[[Path], StoredLayers]
    rename: Callable[[str], str] | None = lambda name: name
    channels_last: bool = False
    convolutional: bool = False

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that a layer's weights have in the file."""
        if self.convolutional and len(shape) == 2:
            side = TOP_SIDE if name == "fc6" else 1
            shape = (shape[0], shape[1] // side**2, side, side)
        return (*shape[2:], shape[1], shape[0]) if self.channels_last else shape


def _places(
    path: Path, layout: str, known: _Layout, layers: StoredLayers, shapes: Shapes, names: Mapping[str, str]
) -> dict[str, str]:
    """Return each of our layers' name in the file."""
    if known.rename is None:
        if len(layers) != len(shapes):
            raise WeightsError(
                f"{path}: not of layout {layout!r}: expected {len(shapes)} layers with weights, found {len(layers)}"
            )
        return dict(zip(shapes, layers, strict=True))
    places = {name: names.get(name) or known.rename(name) for name in shapes}
    missing = [place for place in places.values() if place not in layers]
    if missing:
        raise WeightsError(
            f"{path}: not of layout {layout!r}: {len(missing)} layers are missing: {', '.join(missing[:5])}"
            f"{did_you_mean(missing[0], layers)}"
        )
    return places


def _check(path: Path, stored: Stored, expected: tuple[int, ...]) -> None:
    """Check a tensor's shape."""
    if stored.values.shape != expected:
        raise WeightsError(f"{path}: {stored.key}: expected shape {expected}, found {stored.values.shape}")


def _converted(weight: Stored, layout: _Layout, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a layer's weights in our order."""
    values = weight.values
    if layout.channels_last and name == "fc6":
        values = values.reshape(TOP_SIDE, TOP_SIDE, -1, shape[0])
    if layout.channels_last:
        values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T
    return torch.from_numpy(np.array(values, np.float32, order="C").reshape(shape))


def _read_state_dict(path: Path) -> StoredLayers:
    """Return the layers of a PyTorch checkpoint."""
    layers: StoredLayers = {}
    for key, tensor in read_state_dict(path).items():
        layers.setdefault(key.rpartition(".")[0], []).append(Stored(key, tensor.numpy()))
    for stored in layers.values():
        stored.sort(key=lambda tensor: tensor.key.endswith(".bias"))
    return layers


def _pyvggface(name: str) -> str:
    """Return PyVGGFace's name of a layer."""
    return f"features.{name.replace('conv', 'conv_')}" if name.startswith("conv") else f"fc.{name}"


_LAYOUTS: Mapping[LayoutName, _Layout] = {
    "dag": _Layout(_read_state_dict),
    "pyvggface": _Layout(_read_state_dict, rename=_pyvggface),
    "torch7": _Layout(torch7.read_layers, rename=None),
    "caffe": _Layout(caffemodel.read_layers),
    "keras": _Layout(keras_h5.read_layers, channels_last=True),
    "keras-notop": _Layout(keras_h5.read_layers, channels_last=True),
    "deepface": _Layout(_read_state_dict, convolutional=True),
}
_DEEPFACE_H5 = _Layout(keras_h5.read_layers, rename=None, channels_last=True, convolutional=True)
