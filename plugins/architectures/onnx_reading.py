"""ONNX files: read with care, reduced to what a network is made of, and packed as text without their weights.

External data is read from the file's own folder only, and checked before a byte of it is loaded.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, external_data_helper, numpy_helper

from facetask import WeightsError, did_you_mean

DOMAINS = ("", "ai.onnx")  # two names of the standard operators
_KEPT = 16  # tensors of at most so many numbers may be settings, not weights: a packed structure keeps them
_STRIPPED = (
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE),
    *(TensorProto.INT8, TensorProto.UINT8),
)
_LARGEST_STRUCTURE = 1 << 26  # bytes; a structure is some kilobytes


def read_model(path: Path) -> ModelProto:
    """Return the model that a file holds, its external data loaded.

    Raises:
        WeightsError: If the file is missing, no ONNX file or damaged as a whole, or if its external data is missing,
            too short or outside the file's folder.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: the ONNX file cannot be read ({error.strerror})") from None
    if content.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: expected an ONNX file, found a git-lfs pointer; fetch the file itself")
    try:
        model = ModelProto.FromString(content)
    except DecodeError:
        model = ModelProto()
    if not model.ir_version or not model.graph.node:
        found = f"{len(content)} bytes that are none, or damaged ones" if content else "an empty file"
        raise WeightsError(f"{path}: expected an ONNX file with a network in it, found {found}")
    for tensor in _all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            _load_external(path, tensor)
    try:
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:  # what is wrong with them decides the kind
        raise WeightsError(f"{path}: its functions cannot be followed ({_first_line(error)})") from None


def check(model: ModelProto, source: str) -> None:
    """Check a reduced model's operators and tensors by the standard's rules.

    Raises:
        WeightsError: If one breaks them.
    """
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {item.domain: item.version for item in model.opset_import}
    what = "the file"
    try:
        for tensor in model.graph.initializer:
            what = f"the tensor {tensor.name!r}"
            onnx.checker.check_tensor(tensor, context)
            numpy_helper.to_array(tensor)
        for node in model.graph.node:
            what = f"the operator {node.op_type} ({node.name or node.output[0]!r})"
            onnx.checker.check_node(node, context)
    except Exception as error:  # what is damaged decides the kind
        raise WeightsError(f"{source}: not a sound ONNX file: {what}: {_first_line(error)}") from None


def _load_external(path: Path, tensor: TensorProto) -> None:
    """Load a tensor's external data, which must be a file inside the ONNX file's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what = f"{path}: the tensor {tensor.name!r} lies in the external file {location!r}"
    folder = path.parent.resolve()
    parts = location.replace("\\", "/").split("/")
    absolute = location.startswith(("/", "\\")) or Path(location).is_absolute() or bool(re.match("[A-Za-z]:", location))
    if not location or "\0" in location or absolute or ".." in parts:
        raise WeightsError(f"{what}, which is not a plain path inside the file's folder; it is not read")
    try:
        target = Path(os.path.realpath(folder / location, strict=True))
        size = target.stat().st_size
    except OSError as error:
        raise WeightsError(
            f"{what}, which cannot be read ({error.strerror}); it belongs beside the ONNX file"
        ) from None
    if not target.is_relative_to(folder):
        raise WeightsError(f"{what}, a link that leads out of the file's folder; it is not read")
    if not target.is_file():
        raise WeightsError(f"{what}, which is not a file")
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size:
        raise WeightsError(
            f"{what} at byte {entries.get('offset', 0)}, {entries.get('length', 'all')} bytes long, but that file has "
            f"{size} bytes"
        )
    try:
        external_data_helper.load_external_data_for_tensor(tensor, str(folder))
    except Exception as error:  # onnx has checks of its own
        raise WeightsError(f"{what}, which is not read ({_first_line(error)})") from None
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a model, wherever it hides."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield a graph's tensors."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    """Yield the tensors among a node's attributes."""
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(graph)


def metadata(model: ModelProto) -> dict[str, str]:
    """Return what a model says about itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def reduced(model: ModelProto, source: str, output: str | None = None) -> ModelProto:
    """Return a model with nothing in it but the operators that its outputs need, and the tensors that those need.

    Tensors written into operators become the graph's own; names of machines and files in comments go.

    Args:
        model: A model.
        source: Where it comes from, for messages.
        output: The value to end at, by default all outputs.

    Raises:
        WeightsError: If there is no such value, or if the model has no input or more than one.
    """
    graph = model.graph
    made_by = {value: node for node in graph.node for value in node.output if value}
    ends = [value.name for value in graph.output] if output is None else [output]
    if output is not None and output not in made_by:
        raise WeightsError(f"{source}: no value {output!r} in this network{did_you_mean(output, list(made_by))}")
    needed = _needed(made_by, ends)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    if graph.sparse_initializer:
        raise WeightsError(f"{source}: sparse tensors are not read; write the file with dense ones")
    inputs = [value for value in graph.input if value.name not in tensors and value.name in needed]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise WeightsError(f"{source}: expected a network with one input, the image, found {len(inputs)}: {names}")

    small = ModelProto(ir_version=model.ir_version)
    for opset in model.opset_import:
        small.opset_import.add(domain=opset.domain, version=opset.version)
    small.graph.name = "network"
    small.graph.input.add(name=inputs[0].name).type.CopyFrom(inputs[0].type)
    for end in ends:
        small.graph.output.add(name=end)
    for node in graph.node:
        if not needed.isdisjoint(node.output):
            tensor = _constant(node)
            if tensor is not None:
                tensors[node.output[0]] = tensor
            else:
                copy = small.graph.node.add()
                copy.CopyFrom(node)
                copy.ClearField("doc_string")
                copy.ClearField("metadata_props")
    for name, tensor in tensors.items():
        if name in needed:
            copy = small.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = name
            copy.ClearField("doc_string")
            copy.ClearField("metadata_props")
    return small


def _needed(made_by: dict[str, NodeProto], ends: Collection[str]) -> set[str]:
    """Return all values that some values are computed from, themselves included."""
    needed: set[str] = set()
    waiting = list(ends)
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            waiting.extend(made_by[value].input if value in made_by else ())
    return needed - {""}


def _constant(node: NodeProto) -> TensorProto | None:
    """Return the tensor that a node stands for, if it is a constant."""
    if node.op_type != "Constant" or node.domain not in DOMAINS or len(node.attribute) != 1:
        return None
    attribute: AttributeProto = node.attribute[0]
    if attribute.name == "value":
        return attribute.t
    types: dict[str, Any] = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    if attribute.name not in types:
        return None
    return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(attribute), types[attribute.name]))


def array(tensor: TensorProto) -> NDArray[Any]:
    """Return a tensor's numbers, floating-point ones as float32; zeros if they have been stripped."""
    stripped = math.prod(tensor.dims) > 0 and not any(
        field.name.endswith("_data") and field.name != "external_data" for field, _ in tensor.ListFields()
    )
    if stripped:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        values = np.zeros(tuple(tensor.dims), np.float32 if tensor.data_type in _STRIPPED[:4] else kind)
    else:
        values = numpy_helper.to_array(tensor)
    is_float = tensor.data_type in _STRIPPED[:4]
    return values.astype(np.float32) if is_float else values


def pack(model: ModelProto) -> str:
    """Return a reduced model without its weights, of which only the shapes are left, as text; the same for the same."""
    structure = ModelProto()
    structure.CopyFrom(model)
    for tensor in structure.graph.initializer:
        if tensor.data_type in _STRIPPED and math.prod(tensor.dims) > _KEPT:
            bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(bare)
    return base64.b64encode(zlib.compress(structure.SerializeToString(deterministic=True), 9)).decode()


def unpack(text: str) -> ModelProto:
    """Return the model that :func:`pack` wrote, with zeros for weights.

    Raises:
        WeightsError: If the text is no packed model.
    """
    try:
        unzip = zlib.decompressobj()
        content = unzip.decompress(base64.b64decode(text, validate=True), _LARGEST_STRUCTURE)
        if not unzip.eof:
            raise WeightsError("structure: the packed ONNX structure is cut off, or far too large")
        return ModelProto.FromString(content)
    except (binascii.Error, zlib.error, DecodeError, ValueError) as error:
        raise WeightsError(f"structure: not a packed ONNX structure ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
