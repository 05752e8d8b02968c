"""A reduced ONNX model for one input size: what does not depend on the image is computed, all shapes are known.

Exported networks compute sizes while they run (Shape, Gather, Concat, then Reshape). Here these computations are done
once. The batch stays free: it is given a size that no other axis has, a large prime, so that every size that depends on
it can be told from all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from facetask import WeightsError
from facetask.plugins.architectures.onnx_reading import DOMAINS, array

BATCH = 99991  # a prime: what it divides depends on the batch
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
_SMALL = 4096  # numbers; constants that shapes are computed from are far smaller


@dataclass(frozen=True)
class Step:
    """One operator whose result depends on the image.

    Attributes:
        operator: Its type.
        proto: Its node.
        inputs: Names of its inputs, empty for those left out.
        attributes: Its settings.
    """

    operator: str
    proto: NodeProto
    inputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def title(self) -> str:
        """The operator and its name, for messages."""
        return f"{self.operator} ({self.proto.name or self.proto.output[0]!r})"


@dataclass(frozen=True)
class Folded:
    """What is left of a model.

    Attributes:
        opset: The version of the standard operators.
        input: The image's name.
        outputs: The outputs' names.
        steps: What is computed from the image, in order.
        constants: All other values.
        shapes: The shape of every value that depends on the image; see :data:`BATCH`.
        origins: For each constant computed from one of the file's tensors, that tensor's name.
    """

    opset: int
    input: str
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]
    origins: dict[str, str]


def fold(model: ModelProto, input_shape: Sequence[int], source: str) -> Folded:
    """Return a reduced model with everything computed that does not depend on the image.

    Args:
        model: The model.
        input_shape: The input's shape in the file's own order of axes, without the batch.
        source: Where it comes from, for messages.

    Raises:
        WeightsError: If a shape cannot be computed, or mixes the batch with other axes.
    """
    return _Folding(model, input_shape, source).run()


class _Folding:
    """Walks through a model, input side first."""

    def __init__(self, model: ModelProto, input_shape: Sequence[int], source: str) -> None:
        self._model, self._source = model, source
        self._opset = opset(model)
        (image,) = model.graph.input
        self._input = image.name
        batch = image.type.tensor_type.shape.dim[0].dim_value
        self._fixed_batch = batch if batch > 0 else None
        self._constants = {tensor.name: array(tensor) for tensor in model.graph.initializer}
        self._shapes = {image.name: (BATCH, *input_shape)}
        self._types = {image.name: _tensor_type(onnx.TensorProto.FLOAT, self._shapes[image.name])}
        self._same: dict[str, str] = {}
        self._origins = {name: name for name in self._constants}

    def run(self) -> Folded:
        """Return what is left."""
        steps = []
        for node in self._model.graph.node:
            inputs = tuple(self._same.get(name, name) for name in node.input)
            step = Step(node.op_type, node, inputs, _attributes(node))
            if not self._is_computed(step):
                steps.append(step)
        outputs = tuple(self._same.get(value.name, value.name) for value in self._model.graph.output)
        if any(name in self._constants for name in outputs):
            outputs = tuple(name for name in outputs if name not in self._constants)
        if not outputs:
            raise WeightsError(f"{self._source}: no output of this network depends on the image")
        return Folded(
            opset=self._opset,
            input=self._input,
            outputs=outputs,
            steps=tuple(steps),
            constants=self._constants,
            shapes=self._shapes,
            origins=self._origins,
        )

    def _is_computed(self, step: Step) -> bool:
        """Do with a node what can be done now; return whether nothing is left of it."""
        given = [name for name in step.inputs if name]
        unknown = [name for name in given if name not in self._constants and name not in self._shapes]
        if unknown:
            raise WeightsError(f"{self._source}: {step.title} uses {unknown[0]!r} before it is computed")
        result = step.proto.output[0]
        if step.operator in ("Shape", "Size") and given[0] in self._shapes:
            shape = self._shapes[given[0]]
            part = shape[step.attributes.get("start", 0) : step.attributes.get("end", len(shape))]
            self._constants[result] = np.array(part if step.operator == "Shape" else math.prod(shape), np.int64)
        elif all(name in self._constants for name in given):
            self._evaluate(step)
        elif step.operator in ("Identity", "Dropout") or (
            step.operator == "Cast" and step.attributes["to"] in FLOATS and self._is_float(given[0])
        ):
            self._same[result] = given[0]
        else:
            self._infer(step)
            return False
        return True

    def _is_float(self, name: str) -> bool:
        """Whether a value that depends on the image is made of floating-point numbers."""
        kind: int = self._types[name].tensor_type.elem_type
        return kind in FLOATS

    def _evaluate(self, step: Step) -> None:
        """Compute a node of constants."""
        feeds = {name: self._constants[name] for name in dict.fromkeys(step.inputs) if name}
        sized_by_batch = [value for value in feeds.values() if value.dtype.kind == "i" and _by_batch(value)]
        if sized_by_batch and step.operator in ("ConstantOfShape", "Expand", "Tile", "Range", "RandomNormal"):
            raise WeightsError(
                f"{self._source}: {step.title} makes a tensor as long as the batch, which is not supported; "
                "export the network without it"
            )
        node = onnx.NodeProto()
        node.CopyFrom(step.proto)
        node.input[:] = step.inputs
        if node.op_type == "Cast" and step.attributes["to"] in FLOATS:
            node.attribute[0].i = onnx.TensorProto.FLOAT
        try:
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(_one_node(node, feeds, self._model), verbose=0).run(None, feeds)
        except Exception as error:  # the evaluator is numpy, which fails in many ways
            raise WeightsError(f"{self._source}: {step.title} cannot be computed ({error})") from None
        origins = {self._origins[name] for name in feeds if name in self._origins and feeds[name].dtype.kind == "f"}
        for name, value in zip([name for name in node.output if name], results, strict=True):
            computed = np.asarray(value)
            self._constants[name] = computed.astype(np.float32) if computed.dtype.kind == "f" else computed
            if len(origins) == 1:
                self._origins[name] = next(iter(origins))

    def _infer(self, step: Step) -> None:
        """Find out the shapes of a node's results."""
        if step.operator == "Reshape":
            found = [self._reshaped(step)]
            kinds = [self._types[step.inputs[0]].tensor_type.elem_type]
        else:
            found, kinds = self._inferred(step)
        for name, shape, kind in zip(step.proto.output, found, kinds, strict=False):
            if not name:
                continue
            if sum(_by_batch(size) for size in shape) != 1:
                raise WeightsError(
                    f"{self._source}: {step.title} mixes the batch with other axes, or leaves it out (its result is of "
                    f"shape {_readable(shape)}); networks are needed that treat every image of a batch alike"
                )
            self._shapes[name] = shape
            self._types[name] = _tensor_type(kind, shape)

    def _inferred(self, step: Step) -> tuple[list[tuple[int, ...]], list[int]]:
        """Return the shapes and types of a node's results, by onnx's own rules."""
        node = onnx.NodeProto()
        node.CopyFrom(step.proto)
        node.input[:] = step.inputs
        schema = onnx.defs.get_schema(node.op_type, self._opset, "")
        node.domain = ""
        types, data = {}, {}
        for name in filter(None, step.inputs):
            types[name] = self._types.get(name) or _type_of(self._constants[name])
            if name in self._constants and self._constants[name].size <= _SMALL:
                data[name] = numpy_helper.from_array(self._with_free_batch(step, name), name)
        try:
            results = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[helper.make_opsetid("", self._opset)]
            )
            found = [results[name].tensor_type for name in node.output if name in results]
            shapes = [tuple(dim.dim_value for dim in kind.shape.dim) for kind in found]
            complete = len(found) == len([name for name in node.output if name]) and all(
                kind.HasField("shape") and all(dim.dim_value > 0 for dim in kind.shape.dim) for kind in found
            )
        except Exception as error:  # inference errors and lookups
            raise WeightsError(
                f"{self._source}: {step.title} does not fit an input of shape "
                f"{_readable(self._shapes[self._input])} ({str(error).splitlines()[0]})"
            ) from None
        if not complete:
            raise WeightsError(f"{self._source}: the shape of what {step.title} computes depends on the image")
        by_name = iter(zip(shapes, (kind.elem_type for kind in found), strict=True))
        pairs = [next(by_name) if name else ((), 0) for name in node.output]
        return [shape for shape, _ in pairs], [kind for _, kind in pairs]

    def _with_free_batch(self, step: Step, name: str) -> NDArray[Any]:
        """Return a constant input; where it is the size that a Resize gives, a batch fixed in the file is set free."""
        value = self._constants[name]
        if step.operator == "Resize" and name in step.inputs[3:] and value.size and value[0] == self._fixed_batch:
            return np.concatenate([[BATCH], value[1:]])
        return value

    def _reshaped(self, step: Step) -> tuple[int, ...]:
        """Return the shape that a Reshape gives; a batch fixed in the file is set free."""
        before = self._shapes[step.inputs[0]]
        target = self._constants.get(step.inputs[1]) if len(step.inputs) > 1 else step.attributes.get("shape")
        if target is None:
            raise WeightsError(f"{self._source}: {step.title} takes a shape that depends on the image")
        sizes = [int(size) for size in np.asarray(target)]
        leading = bool(self._fixed_batch) and _by_batch(before[0]) and not any(map(_by_batch, sizes))
        start = before[0] // BATCH * (self._fixed_batch or 1) if leading else before[0]
        source = (start, *before[1:])
        if not step.attributes.get("allowzero"):
            sizes = [source[d] if size == 0 else size for d, size in enumerate(sizes)]
        total = math.prod(source)
        if -1 in sizes:
            sizes[sizes.index(-1)] = total // max(math.prod(size for size in sizes if size != -1), 1)
        if math.prod(sizes) != total or (leading and sizes[0] % (self._fixed_batch or 1)):
            raise WeightsError(
                f"{self._source}: {step.title} cannot give {_readable(before)} the shape "
                f"{_readable(np.asarray(target))}; if the file fixes its batch, export it with a dynamic one"
            )
        return (sizes[0] // (self._fixed_batch or 1) * BATCH, *sizes[1:]) if leading else tuple(sizes)


def opset(model: ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    return next((int(item.version) for item in model.opset_import if item.domain in DOMAINS), 1)


def _attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's settings, texts decoded."""
    found = {}
    for item in node.attribute:
        value = helper.get_attribute_value(item)
        found[item.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return found


def _by_batch(size: Any) -> bool:
    """Whether a size, or any of several, depends on the batch."""
    sizes = np.asarray(size)
    return bool(((sizes % BATCH == 0) & (sizes > 0)).any())


def _readable(shape: Sequence[int] | NDArray[Any]) -> str:
    """Return a shape for messages."""
    sizes = [int(size) for size in shape]
    words = [f"{size // BATCH}·batch".removeprefix("1·") if _by_batch(size) else str(size) for size in sizes]
    return f"({', '.join(words)})"


def _tensor_type(kind: int, shape: Sequence[int]) -> TypeProto:
    """Return the type of a tensor."""
    return helper.make_tensor_type_proto(kind, list(shape))


def _type_of(value: NDArray[Any]) -> TypeProto:
    """Return the type of an array."""
    return _tensor_type(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _one_node(node: NodeProto, feeds: dict[str, NDArray[Any]], model: ModelProto) -> ModelProto:
    """Return a model of one node."""
    inputs = [helper.make_value_info(name, _type_of(value)) for name, value in feeds.items()]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
