"""Reads the networks that Lua Torch writes (``.t7``, binary), in pure Python; functions in the file are stepped over.

An object is its type's number and its value. Tables, Torch objects and functions carry an index first, under which a
second mention refers to the first. Tensors hold sizes, strides, an offset and a storage; storages hold raw numbers,
little-endian, of which views are returned. Any other Torch object is its class's name and a table.

Source: ``File.lua``, ``generic/Tensor.c`` and ``generic/Storage.c`` of torch7, as written on a 64-bit machine.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from facetask import WeightsError
from facetask.plugins.architectures.vgg_layouts.stored import Stored, StoredLayers, mapped

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN = range(6)
_FUNCTIONS = (6, 7, 8)
_MAX_DEPTH = 64  # of objects in objects; networks have a dozen
_MAX_DIMENSIONS = 8
_DTYPES = {
    "Byte": "u1",
    "Char": "i1",
    "Short": "<i2",
    "Int": "<i4",
    "Long": "<i8",
    "Float": "<f4",
    "Double": "<f8",
    "Cuda": "<f4",
    "CudaDouble": "<f8",
}
_TENSORS = {f"torch.{name}Tensor": dtype for name, dtype in _DTYPES.items()}
_STORAGES = {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()}


@dataclass
class Table:
    """A Lua table, or a Torch object that is one.

    Attributes:
        kind: The Torch class; empty for a plain table.
        items: Its items, by text or number; other keys are left out.
    """

    kind: str = ""
    items: dict[str | float, Any] = field(default_factory=dict)


def read_layers(path: Path) -> StoredLayers:
    """Return every module of a sequential network that has weights, in order; a layer's name is ``modules[i]``.

    Raises:
        WeightsError: If the file is missing, truncated, damaged or holds something else.
    """
    network = read_object(path)
    modules = network.items.get("modules") if isinstance(network, Table) else None
    if not isinstance(modules, Table):
        found = network.kind or "a table" if isinstance(network, Table) else type(network).__name__
        raise WeightsError(f"{path}: expected a Torch7 network with modules, found {found}")
    layers: StoredLayers = {}
    for i, module in sorted((key, value) for key, value in modules.items.items() if isinstance(key, float)):
        name = f"modules[{i:g}]"
        if isinstance(module, Table):
            tensors = {key: module.items.get(key) for key in ("weight", "bias")}
            stored = [Stored(f"{name}.{key}", value) for key, value in tensors.items() if isinstance(value, np.ndarray)]
            if stored:
                layers[name] = [_unrolled(stored[0], module), *stored[1:]]
    return layers


def _unrolled(weight: Stored, module: Table) -> Stored:
    """Return a weight as four-dimensional where a convolution stores it as a matrix (``SpatialConvolutionMM``)."""
    sizes = [module.items.get(key) for key in ("nOutputPlane", "nInputPlane", "kH", "kW")]
    shape = [int(size) for size in sizes if isinstance(size, float) and size.is_integer()]
    if len(shape) != 4 or weight.values.shape != (shape[0], math.prod(shape[1:])):
        return weight
    return Stored(weight.key, weight.values.reshape(shape))


def read_object(path: Path) -> Any:
    """Return the object that a file holds: None, a number, a text, an array or a :class:`Table`.

    Raises:
        WeightsError: If the file is missing, truncated, damaged or has a class of tensors that is not known here.
    """
    return _Reader(path, mapped(path)).object()


class _Reader:
    """A position in a file's bytes, and one method for each thing that Torch writes."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0
        self.depth = 0
        self.known: dict[int, Any] = {}

    def fail(self, at: int, expected: str, found: object) -> NoReturn:
        """Raise the error that names the byte."""
        raise WeightsError(
            f"{self.path}: not a whole Torch7 file: at byte {at}: expected {expected}, found {found}; fetch it again"
        )

    def take(self, count: int, what: str) -> int:
        """Step over ``count`` bytes and return where they begin."""
        begin, left = self.at, len(self.data) - self.at
        if not 0 <= count <= left:
            self.fail(begin, f"{what} of {count} bytes", f"the file's end after {left}")
        self.at = begin + count
        return begin

    def integer(self) -> int:
        """Read a C int."""
        return int(struct.unpack_from("<i", self.data, self.take(4, "an integer"))[0])

    def longs(self, count: int) -> tuple[int, ...]:
        """Read C longs of a 64-bit machine."""
        return struct.unpack_from(f"<{count}q", self.data, self.take(8 * count, "integers"))

    def text(self) -> str:
        """Read a string."""
        size = self.integer()
        begin = self.take(size, "a text")
        return self.data[begin : begin + size].decode("utf-8", "replace")

    def object(self) -> Any:
        """Read any object."""
        begin = self.at
        kind = self.integer()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            return float(struct.unpack_from("<d", self.data, self.take(8, "a number"))[0])
        if kind == _STRING:
            return self.text()
        if kind == _BOOLEAN:
            return self.integer() == 1
        if kind not in (_TABLE, _TORCH, *_FUNCTIONS):
            self.fail(begin, "an object's type, 0 to 8", kind)
        index = self.integer()
        if index not in self.known:
            self.depth += 1
            if self.depth > _MAX_DEPTH:
                self.fail(begin, f"at most {_MAX_DEPTH} objects in each other", "more")
            self.known[index] = None  # a function may mention itself
            if kind == _TABLE:
                self.table(index, Table())
            elif kind == _TORCH:
                self.torch_object(index)
            else:
                self.take(self.integer(), "a function")
                self.object()  # what the function refers to
            self.depth -= 1
        return self.known[index]

    def table(self, index: int, table: Table) -> None:
        """Read the items of a table, which may mention the table itself."""
        self.known[index] = table
        for _ in range(self.integer()):
            begin = self.at
            key, value = self.object(), self.object()
            if key is None:
                self.fail(begin, "a table's key", "nil")
            if isinstance(key, str | float):
                table.items[key] = value

    def torch_object(self, index: int) -> None:
        """Read a tensor, a storage or an object of another class, which is a table."""
        begin = self.at
        kind = self.text()
        if kind.startswith("V "):  # files from before versions have the class's name here
            kind = self.text()
        if kind in _TENSORS:
            self.known[index] = self.tensor(np.dtype(_TENSORS[kind]))
        elif kind in _STORAGES:
            self.known[index] = self.storage(np.dtype(_STORAGES[kind]))
        elif kind.startswith("torch."):
            self.fail(begin, "a class that can be read here", repr(kind[:80]))
        else:
            table = Table(kind)
            self.known[index] = table
            content = self.object()
            if not isinstance(content, Table):
                self.fail(begin, f"the table of a {kind[:80]!r}", type(content).__name__)
            table.items = content.items

    def storage(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Read raw numbers."""
        (size,) = self.longs(1)
        begin = self.take(size * dtype.itemsize, f"{size} numbers")
        return np.frombuffer(self.data, dtype, size, begin)

    def tensor(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Read a tensor as a view of its storage."""
        begin = self.at
        dimensions = self.integer()
        if not 0 <= dimensions <= _MAX_DIMENSIONS:
            self.fail(begin, f"at most {_MAX_DIMENSIONS} dimensions", dimensions)
        sizes, strides = self.longs(dimensions), self.longs(dimensions)
        first = self.longs(1)[0] - 1  # Lua counts from one
        storage = self.object()
        if storage is None or dimensions == 0:
            return np.zeros(0, dtype)
        last = first + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if not isinstance(storage, np.ndarray) or storage.dtype != dtype or storage.ndim != 1:
            self.fail(begin, f"a tensor's storage of {dtype}", type(storage).__name__)
        inside = first >= 0 and min(sizes) > 0 and min(strides) >= 0 and last < storage.size
        if not inside or math.prod(sizes) > storage.size:
            self.fail(begin, f"a tensor within its {storage.size} numbers", f"sizes {sizes} and strides {strides}")
        return np.lib.stride_tricks.as_strided(
            storage[first:], sizes, [stride * dtype.itemsize for stride in strides], writeable=False
        )
