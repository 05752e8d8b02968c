"""Writes small VGG-16s in the layouts of the published weights files."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

Layers = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Each layer's weights (outputs, inputs, height, width) or (outputs, inputs), and its biases."""


def write_state_dict(path: Path, layers: Layers, name: str = "{}") -> None:
    """A PyTorch checkpoint; ``name`` makes the layer's name."""
    state = {}
    for layer, (weight, bias) in layers.items():
        state[f"{name.format(layer)}.weight"] = torch.from_numpy(weight)
        state[f"{name.format(layer)}.bias"] = torch.from_numpy(bias)
    torch.save(state, path)


# --- Caffe ------------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a Protocol Buffers message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(values: NDArray[np.float32], *, new: bool = False) -> bytes:
    if new:
        shape = field(7, field(1, b"".join(map(varint, values.shape))))
    else:
        sizes = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(field(number, size) for number, size in enumerate(sizes, 1))
    return shape + field(5, values.astype("<f4").tobytes())


def caffe_bytes(layers: Layers, *, new: bool = False) -> bytes:
    """A caffemodel of V1 layers, or of newer ones; a layer without parameters stands before each."""
    number, name_number, blobs_number, type_field = (100, 1, 7, field(2, b"X")) if new else (2, 4, 6, field(5, 18))
    content = field(1, b"VGG_FACE_16_Layer")
    for name, arrays in layers.items():
        content += field(number, field(name_number, b"relu") + type_field)
        blobs = b"".join(field(blobs_number, blob(values, new=new)) for values in arrays)
        content += field(number, field(name_number, name.encode()) + type_field + blobs)
    return content


# --- Torch7 -----------------------------------------------------------------------------------------------------------


class Torch7Writer:
    """What ``torch.save`` of Lua Torch writes on a 64-bit machine."""

    def __init__(self) -> None:
        self.index = 0

    def number(self, value: float) -> bytes:
        return struct.pack("<id", 1, value)

    def raw_text(self, value: str) -> bytes:
        return struct.pack("<i", len(value)) + value.encode()

    def text(self, value: str) -> bytes:
        return struct.pack("<i", 2) + self.raw_text(value)

    def boolean(self, value: bool) -> bytes:
        return struct.pack("<ii", 5, value)

    def function(self) -> bytes:
        self.index += 1
        return struct.pack("<iii", 8, self.index, 3) + b"\x1bLJ" + self.table({})

    def table(self, items: Mapping[str | int, bytes]) -> bytes:
        self.index += 1
        parts = [struct.pack("<iii", 3, self.index, len(items))]
        for key, value in items.items():
            parts += [self.text(key) if isinstance(key, str) else self.number(key), value]
        return b"".join(parts)

    def torch_object(self, kind: str, content: bytes) -> bytes:
        self.index += 1
        return struct.pack("<ii", 4, self.index) + self.raw_text("V 1") + self.raw_text(kind) + content

    def module(self, kind: str, items: Mapping[str | int, bytes]) -> bytes:
        return self.torch_object(f"nn.{kind}", self.table(items))

    def tensor(self, values: NDArray[np.float32], kind: str = "Float", skip: int = 0) -> bytes:
        """A tensor that begins ``skip`` numbers into its storage."""
        dtype = "<f8" if kind == "Double" else "<f4"
        numbers = np.concatenate([np.full(skip, 7.0), values.ravel()]).astype(dtype)
        storage = self.torch_object(f"torch.{kind}Storage", struct.pack("<q", numbers.size) + numbers.tobytes())
        strides = [stride // values.itemsize for stride in values.strides]
        head = struct.pack(f"<i{2 * values.ndim + 1}q", values.ndim, *values.shape, *strides, skip + 1)
        return self.torch_object(f"torch.{kind}Tensor", head + storage)


def torch7_bytes(layers: Layers, *, matrices: bool = False, kind: str = "Float") -> bytes:
    """A sequential network; ``matrices``: convolutions' weights are stored as (outputs, inputs·height·width)."""
    writer = Torch7Writer()
    modules: list[bytes] = []
    for weight, bias in layers.values():
        items = {"train": writer.boolean(False), "bias": writer.tensor(bias, kind), "hook": writer.function()}
        if weight.ndim == 4:
            names = ("nOutputPlane", "nInputPlane", "kH", "kW")
            items |= {name: writer.number(size) for name, size in zip(names, weight.shape, strict=True)}
        stored = weight.reshape(len(weight), -1) if matrices else weight
        items["weight"] = writer.tensor(stored, kind, skip=3)
        modules.append(writer.module("SpatialConvolutionMM" if weight.ndim == 4 else "Linear", items))
        modules.append(writer.module("ReLU", {"inplace": writer.boolean(True)}))
    return writer.module("Sequential", {"modules": writer.table(dict(enumerate(modules, 1)))})


# --- Keras ------------------------------------------------------------------------------------------------------------


def write_keras(
    path: Path, layers: Iterable[tuple[str, tuple[NDArray[np.float32], ...]]], *, model: bool = False
) -> None:
    """A Keras 2 file of layers in their order, kernels as Keras stores them; ``model``: the whole model is saved."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if model else file
        group.attrs["backend"] = b"tensorflow"
        names = []
        for name, arrays in layers:
            names.append(name.encode())
            layer = group.create_group(name)
            keys = [f"{name}/{part}:0" for part in ("kernel", "bias")][: len(arrays)]
            layer.attrs["weight_names"] = np.array([key.encode() for key in keys], dtype="S64")
            for key, values in zip(keys, arrays, strict=True):
                layer[key] = values
        group.attrs["layer_names"] = np.array(names, dtype="S64")
