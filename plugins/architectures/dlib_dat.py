"""Reads the networks that dlib writes with its serialisation (``.dat`` files), in pure Python.

The layout: integers are a control byte (bit 7 the sign, low four bits the number of bytes) and a little-endian
magnitude; floats are two integers, mantissa and binary exponent; tensors hold raw little-endian float32. A file holds
the loss, one version number for each nested layer from the outermost in, and then the layers from the innermost out.

Source: the ``serialize`` functions of dlib's ``float_details.h``, ``tensor.h`` and ``dnn/{core,layers,input,loss}.h``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from facetask import WeightsError

_MAX_BYTES = 1 << 28  # the published face networks have 22 MB: a larger file is another one, not worth reading
_MAX_LAYERS = 10_000
_TAG, _LAYER, _INNERMOST = 1, 2, 3  # the version numbers of dlib's add_tag_layer/add_skip_layer and add_layer
_NO_PARAMS = np.zeros(0, np.float32)
_SPECIAL = {32000: math.inf, 32001: -math.inf, 32002: math.nan}


@dataclass(frozen=True)
class Layer:
    """One layer as stored.

    Attributes:
        kind: dlib's name of the layer with its version (``con_4``), or ``tag``.
        offset: The byte at which the layer begins.
        settings: Its numbers in the file's order, without learning-rate and decay multipliers.
        params: Its parameters as stored, flat float32; empty where it has none.
    """

    kind: str
    offset: int
    settings: tuple[float, ...]
    params: NDArray[np.float32]


def read_layers(path: Path) -> list[Layer]:
    """Return a metric-learning network's layers, input first.

    Raises:
        WeightsError: If the file is missing, truncated, damaged or of another layout; says at which byte.
    """
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path}: expected a dlib .dat file, found a folder or device")
        if path.exists() and path.stat().st_size > _MAX_BYTES:
            raise WeightsError(f"{path}: {path.stat().st_size} bytes, too large for a dlib face network (22 MB)")
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: the dlib .dat file cannot be read ({error.strerror})") from None
    if data.startswith(b"BZh"):
        raise WeightsError(f"{path}: at byte 0: expected a dlib .dat file, found a bzip2 archive; unpack it first")
    return _Reader(path, data).network()


class _Reader:
    """A position in a file's bytes, and one method for each thing that dlib writes."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def fail(self, at: int, expected: str, found: str) -> NoReturn:
        """Raise the error that names the byte."""
        raise WeightsError(f"{self.path}: at byte {at}: expected {expected}, found {found}; fetch the file again")

    def take(self, count: int, what: str) -> int:
        """Step over ``count`` bytes and return where they begin."""
        begin = self.at
        if count > len(self.data) - begin:
            self.fail(begin, f"{what} of {count} bytes", f"the file's end after {len(self.data) - begin}")
        self.at = begin + count
        return begin

    def integer(self) -> int:
        """Read an integer of up to eight bytes."""
        begin = self.take(1, "an integer")
        control = self.data[begin]
        if control & 0x70 or control & 0x0F > 8:
            self.fail(begin, "an integer's control byte", f"0x{control:02x}")
        size = control & 0x0F
        first = self.take(size, "an integer")
        magnitude = int.from_bytes(self.data[first : first + size], "little")
        return -magnitude if control & 0x80 else magnitude

    def expect(self, expected: int, what: str) -> None:
        """Read an integer that can only have one value."""
        begin = self.at
        found = self.integer()
        if found != expected:
            self.fail(begin, f"{what} {expected}", str(found))

    def integers(self, count: int) -> tuple[int, ...]:
        """Read several integers."""
        return tuple(self.integer() for _ in range(count))

    def floating(self) -> float:
        """Read a floating-point number."""
        begin = self.at
        mantissa, exponent = self.integers(2)
        if exponent in _SPECIAL:
            return _SPECIAL[exponent]
        if abs(exponent) > 1100 or abs(mantissa) >= 1 << 63:
            self.fail(begin, "a floating-point number", f"{mantissa}·2^{exponent}")
        try:
            return math.ldexp(mantissa, exponent)
        except OverflowError:
            self.fail(begin, "a floating-point number", f"{mantissa}·2^{exponent}")

    def floats(self, count: int) -> tuple[float, ...]:
        """Read several floating-point numbers."""
        return tuple(self.floating() for _ in range(count))

    def flag(self) -> None:
        """Step over a truth value."""
        begin = self.take(1, "a truth value")
        if self.data[begin] not in b"01":
            self.fail(begin, "a truth value, '0' or '1'", f"0x{self.data[begin]:02x}")

    def text(self) -> str:
        """Read a string of printable ASCII, as the names of layers are."""
        begin = self.at
        size = self.integer()
        if not 0 < size <= 64:
            self.fail(begin, "the length of a layer's name", str(size))
        first = self.take(size, "a layer's name")
        raw = self.data[first : first + size]
        if not raw.isascii() or not raw.decode("ascii").isprintable():
            self.fail(first, "a layer's name", repr(raw))
        return raw.decode("ascii")

    def tensor(self) -> NDArray[np.float32]:
        """Read a tensor, flat, as a view of the file's bytes."""
        self.expect(2, "a tensor of version")
        begin = self.at
        shape = self.integers(4)
        if min(shape) < 0:
            self.fail(begin, "a tensor's four sizes", str(shape))
        first = self.take(4 * math.prod(shape), f"a tensor {shape}")
        values = np.frombuffer(self.data, "<f4", math.prod(shape), first)
        finite = np.isfinite(values)
        if not finite.all():
            bad = int(np.argmin(finite))
            self.fail(first + 4 * bad, "a finite number", str(values[bad]))
        return values

    def alias(self) -> tuple[int, ...]:
        """Read the shape of a part of a tensor."""
        self.expect(1, "an alias tensor of version")
        return self.integers(4)

    def network(self) -> list[Layer]:
        """Read the whole file."""
        self.expect(1, "a loss layer of version")
        begin = self.at
        loss = self.text()
        if loss != "loss_metric_2":
            self.fail(begin, "a metric-learning network, 'loss_metric_2'", repr(loss))
        self.floats(2)
        versions = self.versions()
        begin = self.at
        kind = self.text()
        if kind != "input_rgb_image_sized":
            self.fail(begin, "the input layer 'input_rgb_image_sized'", repr(kind))
        layers = [Layer(kind, begin, (*self.floats(3), *self.integers(2)), _NO_PARAMS)]
        layers += [self.layer(version) for version in reversed(versions)]
        if self.at != len(self.data):
            self.fail(self.at, "the file's end", f"{len(self.data) - self.at} more bytes")
        return layers

    def versions(self) -> list[int]:
        """Read the version numbers of the nested layers, outermost first."""
        versions: list[int] = []
        while not versions or versions[-1] != _INNERMOST:
            begin = self.at
            versions.append(self.integer())
            if versions[-1] not in (_TAG, _LAYER, _INNERMOST) or len(versions) > _MAX_LAYERS:
                self.fail(begin, f"a layer's version 1, 2 or 3, at most {_MAX_LAYERS} of them", str(versions[-1]))
        return versions

    def layer(self, version: int) -> Layer:
        """Read one layer and step over its state of training."""
        begin = self.at
        if version == _TAG:
            return Layer("tag", begin, (), _NO_PARAMS)
        kind = self.text()
        if kind not in _DETAILS:
            self.fail(begin, f"a layer of {', '.join(_DETAILS)}", repr(kind))
        settings, params = _DETAILS[kind](self)
        for _ in range(3):
            self.flag()
        for _ in range(3):  # gradients and cached output, empty in a published file
            self.tensor()
        if version == _INNERMOST:
            self.integer()
        return Layer(kind, begin, settings, params)


_Details = tuple[tuple[float, ...], NDArray[np.float32]]


def _con(reader: _Reader) -> _Details:
    """Convolution: filters, kernel, stride and padding, shapes of weights and biases."""
    params = reader.tensor()
    settings = (*reader.integers(7), *reader.alias(), *reader.alias())
    reader.floats(4)
    return settings, params


def _affine(reader: _Reader) -> _Details:
    """Affine: shapes of scale and shift, mode (0: for each channel)."""
    params = reader.tensor()
    return (*reader.alias(), *reader.alias(), reader.integer()), params


def _fc(reader: _Reader) -> _Details:
    """Fully connected: outputs, inputs, shapes of weights and biases, mode (1: no bias)."""
    sizes = reader.integers(2)
    params = reader.tensor()
    settings = (*sizes, *reader.alias(), *reader.alias(), reader.integer())
    reader.floats(4)
    return settings, params


def _pool(reader: _Reader) -> _Details:
    """Pooling: window, stride and padding."""
    return reader.integers(6), _NO_PARAMS


def _plain(reader: _Reader) -> _Details:
    """A layer without settings."""
    return (), _NO_PARAMS


_DETAILS: dict[str, Callable[[_Reader], _Details]] = {
    "con_4": _con,
    "affine_": _affine,
    "fc_2": _fc,
    "max_pool_2": _pool,
    "avg_pool_2": _pool,
    "relu_": _plain,
    "add_prev_": _plain,
}
