"""Reads the parameters of a Caffe network (``.caffemodel``), in pure Python.

Such a file is one Protocol Buffers message. Its wire format is a sequence of fields, each a tag (field number and wire
type) and a value: a varint, four or eight bytes, or a length and that many bytes. Only the fields that name layers and
hold their blobs are looked at; numbers are views of the file's bytes.

Source: Protocol Buffers' encoding guide; the numbers of the fields are those of Caffe's ``caffe.proto``.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from facetask import WeightsError
from facetask.plugins.architectures.vgg_layouts.stored import Stored, StoredLayers, mapped

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LAYERS = {2: (4, 6), 100: (1, 7)}  # NetParameter: V1 layers and layers, and each one's fields for name and blobs
_LEGACY_SHAPE, _DATA, _SHAPE, _DIM = (1, 2, 3, 4), 5, 7, 1  # BlobProto; BlobShape's dim


def read_layers(path: Path) -> StoredLayers:
    """Return every layer that has blobs, in the file's order.

    Old blobs always have four dimensions; leading ones are taken off, so that a bias is ``(outputs,)``.

    Raises:
        WeightsError: If the file is missing, truncated, damaged or holds no such layer.
    """
    reader = _Reader(path, mapped(path))
    layers: StoredLayers = {}
    for field in reader.fields(0, len(reader.data)):
        if field.number in _LAYERS and field.wire_type == _BYTES:
            name, blobs = reader.layer(field)
            if blobs:
                layers[name] = blobs
    if not layers:
        raise WeightsError(f"{path}: no layer with parameters; not a caffemodel, or one without weights")
    return layers


@dataclass(frozen=True)
class _Field:
    """One field of a message: a varint's value, or where its bytes lie."""

    number: int
    wire_type: int
    begin: int
    end: int
    value: int = 0


class _Reader:
    """Takes the messages of a file apart."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data

    def fail(self, at: int, expected: str, found: str) -> NoReturn:
        """Raise the error that names the byte."""
        raise WeightsError(
            f"{self.path}: not a whole caffemodel: at byte {at}: expected {expected}, found {found}; fetch it again"
        )

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Return a varint and where it ends."""
        value = 0
        for i in range(10):
            if at + i >= end:
                self.fail(at, "a number", f"its message's end at {end}")
            byte = self.data[at + i]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value, at + i + 1
        self.fail(at, "a number of at most ten bytes", "a longer one")

    def fields(self, begin: int, end: int) -> Iterator[_Field]:
        """Yield the fields of the message between two places."""
        at = begin
        while at < end:
            tag, after = self.varint(at, end)
            number, wire_type, value = tag >> 3, tag & 7, 0
            if wire_type == _VARINT:
                value, stop = self.varint(after, end)
            elif wire_type == _BYTES:
                length, after = self.varint(after, end)
                stop = after + length
            elif wire_type in (_EIGHT_BYTES, _FOUR_BYTES):
                stop = after + (8 if wire_type == _EIGHT_BYTES else 4)
            else:
                self.fail(at, "a field", f"wire type {wire_type}")
            if number == 0:
                self.fail(at, "a field", "the number 0")
            if stop > end:
                self.fail(after, f"{stop - after} bytes", f"{end - after} up to the end of the message")
            yield _Field(number, wire_type, after, stop, value)
            at = stop

    def layer(self, message: _Field) -> tuple[str, list[Stored]]:
        """Return a layer's name and its blobs."""
        name_number, blobs_number = _LAYERS[message.number]
        name, blobs = "", []
        for field in self.fields(message.begin, message.end):
            if (field.number, field.wire_type) == (name_number, _BYTES):
                name = self.data[field.begin : field.end].decode("utf-8", "replace")
            elif (field.number, field.wire_type) == (blobs_number, _BYTES):
                blobs.append(field)
        return name, [self.blob(f"{name}.blobs[{i}]", field) for i, field in enumerate(blobs)]

    def blob(self, key: str, message: _Field) -> Stored:
        """Return a blob."""
        legacy = dict.fromkeys(_LEGACY_SHAPE, 0)
        shape: tuple[int, ...] | None = None
        parts: list[NDArray[np.float32]] = []
        for field in self.fields(message.begin, message.end):
            if field.number in legacy and field.wire_type == _VARINT:
                legacy[field.number] = field.value
            elif field.number == _SHAPE and field.wire_type == _BYTES:
                shape = tuple(self.dimensions(field))
            elif field.number == _DATA:
                if field.wire_type != _BYTES or (field.end - field.begin) % 4:
                    self.fail(field.begin, f"{key}'s numbers as packed float32", f"{field.end - field.begin} bytes")
                parts.append(np.frombuffer(self.data, "<f4", (field.end - field.begin) // 4, field.begin))
        if shape is None:
            shape = tuple(legacy.values())
        values = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])
        if math.prod(shape) != values.size:
            self.fail(message.begin, f"{key} of shape {shape}", f"{values.size} numbers")
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
        return Stored(key, values.reshape(shape))

    def dimensions(self, message: _Field) -> Iterator[int]:
        """Yield the dimensions of a blob's shape, which may be packed or not."""
        for field in self.fields(message.begin, message.end):
            if field.number == _DIM and field.wire_type == _VARINT:
                yield field.value
            elif field.number == _DIM and field.wire_type == _BYTES:
                at = field.begin
                while at < field.end:
                    value, at = self.varint(at, field.end)
                    yield value
