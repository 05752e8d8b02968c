"""The operator table: how each ONNX operator becomes operations of torch.

Operators with learned tensors, and those that move values or take sizes, are written here, so that their tensors become
layers and their sizes plain numbers. All others (activations, pools, functions of one value) are onnx2pytorch's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto
from torch import fx, nn

from facetask.plugins.architectures import onnx_layers as layers
from facetask.plugins.architectures import onnx_movement as movement
from facetask.plugins.architectures.onnx_conversion import Building, Emitter, UnsupportedError
from facetask.plugins.architectures.onnx_folding import Step
from facetask.plugins.architectures.onnx_layers import converted
from facetask.plugins.architectures.onnx_reading import DOMAINS


def emitter_of(step: Step) -> Emitter:
    """Return what adds a step to a network."""
    return _TABLE.get(step.operator, _other)


def unknown_operators(nodes: Sequence[NodeProto], opset: int) -> list[str]:
    """Return the operators among nodes that nothing is known about, each with its name."""
    return [
        f"{node.domain + '.' if node.domain else ''}{node.op_type} ({node.name or node.output[0]!r})"
        for node in nodes
        if node.domain not in DOMAINS or not _is_defined(node.op_type, opset)
    ]


def _is_defined(operator_type: str, opset: int) -> bool:
    """Whether the ONNX standard has an operator."""
    try:
        return not onnx.defs.get_schema(operator_type, opset, "").deprecated
    except onnx.defs.SchemaError:
        return False


def _binary(function: Callable[..., Any]) -> Emitter:
    """An operation on two values; old files say where the second one's axes lie."""

    def emit(b: Building, step: Step) -> fx.Node:
        if step.attributes.get("axis") is not None and b.folded.opset < 7:
            raise UnsupportedError("its way to broadcast is that of ONNX before 1.2; convert the file to a newer opset")
        first, second = (b.value(name) for name in step.inputs)
        return b.call(function, first, second)

    return emit


def _extreme(function: Callable[..., Any], bound: str) -> Emitter:
    """Max or Min of any number of values."""

    def join(b: Building, first: Any, second: Any) -> fx.Node:
        first, second = (second, first) if isinstance(first, float | int) else (first, second)
        if isinstance(second, float | int):
            return b.graph.call_function(torch.clamp, (first,), {bound: second})
        return b.call(function, first, second)

    def emit(b: Building, step: Step) -> fx.Node:
        result: fx.Node = reduce(lambda first, second: join(b, first, second), map(b.value, step.inputs))
        return result

    return emit


def _sum(b: Building, step: Step) -> fx.Node:
    """Sum of any number of values."""
    values = [b.value(name) for name in step.inputs]
    return reduce(lambda first, second: b.call(operator.add, first, second), values)


def _clip(b: Building, step: Step) -> fx.Node:
    """Clip between two constants; the usual ones have names."""
    low, high = b.constant(step, 1, step.attributes.get("min")), b.constant(step, 2, step.attributes.get("max"))
    bounds = tuple(None if bound is None else float(np.asarray(bound).item()) for bound in (low, high))
    x = b.value(step.inputs[0])
    if bounds == (0.0, 6.0):
        return b.module(step, nn.ReLU6(), x)
    if bounds == (None, None):
        return x
    # a Clip ends a layer as an activation does, and only Hardtanh is one to the search for taps
    return b.module(step, nn.Hardtanh(*bounds), x) if None not in bounds else b.call(torch.clamp, x, *bounds)


def _hard_sigmoid(b: Building, step: Step) -> fx.Node:
    """HardSigmoid; torch has the one with a slope of 1/6."""
    slope, shift = step.attributes.get("alpha", 0.2), step.attributes.get("beta", 0.5)
    x = b.value(step.inputs[0])
    if abs(slope - 1 / 6) < 1e-6 and shift == 0.5:
        return b.module(step, nn.Hardsigmoid(), x)
    return b.module(step, nn.Hardtanh(0.0, 1.0), b.call(operator.add, b.call(operator.mul, x, slope), shift))


def _softmax(function: Callable[..., Any]) -> Emitter:
    """Softmax along an axis; before opset 13 over all axes from that one on."""

    def emit(b: Building, step: Step) -> fx.Node:
        rank, old = len(b.shape(step.inputs[0])), b.folded.opset < 13
        axis = step.attributes.get("axis", 1 if old else -1) % rank
        if old and axis != rank - 1:
            return _other(b, step)
        return b.call(function, b.value(step.inputs[0]), axis)

    return emit


def _global_pool(function: Callable[..., Any]) -> Emitter:
    """A pool of whole maps."""

    def emit(b: Building, step: Step) -> fx.Node:
        return b.call(function, b.value(step.inputs[0]), tuple(range(2, len(b.shape(step.inputs[0])))), True)

    return emit


def _reduction(function: Callable[..., Any]) -> Emitter:
    """A reduction over axes."""

    def emit(b: Building, step: Step) -> fx.Node:
        axes = b.integers(step, 1, "axes")
        if not axes:
            raise UnsupportedError("a reduction over everything, the batch included")
        rank = len(b.shape(step.inputs[0]))
        dims = tuple(axis % rank for axis in axes)
        return b.call(function, b.value(step.inputs[0]), dims, bool(step.attributes.get("keepdims", 1)))

    return emit


def _reduced_length(b: Building, step: Step) -> fx.Node:
    """ReduceL2."""
    node: fx.Node = _reduction(torch.linalg.vector_norm)(b, step)
    x, dims, keep = node.args
    node.args = (x, 2, dims, keep)
    return node


class WithConstants(nn.Module):
    """An operation some of whose inputs are constants.

    Attributes:
        operation: The operation.
        constants: Its constant inputs by position.
    """

    def __init__(self, operation: nn.Module, constants: dict[int, torch.Tensor | None]) -> None:
        super().__init__()
        self.operation = operation
        self.constants = constants

    def forward(self, *values: torch.Tensor) -> Any:
        """Return the operation's result for the inputs that are not constant."""
        inputs, given = dict(self.constants), iter(values)
        count = len(values) + len(inputs)
        return self.operation(*(inputs[i] if i in inputs else next(given) for i in range(count)))


def _other(b: Building, step: Step) -> Any:
    """Any other operator: what onnx2pytorch has for it."""
    constants = {i: b.folded.constants[name] for i, name in enumerate(step.inputs) if name in b.folded.constants}
    module = converted(b, step.proto, {step.inputs[i]: value for i, value in constants.items()})
    values = [b.value(name) for i, name in enumerate(step.inputs) if name and i not in constants]
    omitted: dict[int, torch.Tensor | None] = {i: None for i, name in enumerate(step.inputs) if not name}
    if constants or omitted:
        bound = omitted | {i: torch.from_numpy(np.array(value)) for i, value in constants.items()}
        module = WithConstants(module, bound)
    function = vars(module).get("forward")  # it wraps plain functions of torch, which surgery knows by name
    return b.module(step, module, *values) if function is None else b.call(function, *values)


_TABLE: dict[str, Emitter] = {
    "Conv": layers.convolution,
    "ConvTranspose": layers.transposed_convolution,
    "Gemm": layers.gemm,
    "MatMul": layers.product,
    "BatchNormalization": layers.batch_norm,
    "InstanceNormalization": layers.instance_norm,
    "GroupNormalization": layers.group_norm,
    "LayerNormalization": layers.layer_norm,
    "PRelu": layers.prelu,
    "MaxPool": layers.pool,
    "AveragePool": layers.pool,
    "Reshape": movement.reshape,
    "Flatten": movement.reshape,
    "Squeeze": movement.squeeze,
    "Unsqueeze": movement.unsqueeze,
    "Transpose": movement.transpose,
    "Concat": movement.concat,
    "Split": movement.split,
    "Slice": movement.sliced,
    "Gather": movement.gather,
    "Expand": movement.expand,
    "Pad": movement.pad,
    "Resize": movement.resize,
    "Upsample": movement.resize,
    "Add": _binary(operator.add),
    "Sub": _binary(operator.sub),
    "Mul": _binary(operator.mul),
    "Div": _binary(operator.truediv),
    "Pow": _binary(operator.pow),
    "Max": _extreme(torch.maximum, "min"),
    "Min": _extreme(torch.minimum, "max"),
    "Sum": _sum,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "GlobalAveragePool": _global_pool(torch.mean),
    "GlobalMaxPool": _global_pool(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMin": _reduction(torch.amin),
    "ReduceL2": _reduced_length,
}
