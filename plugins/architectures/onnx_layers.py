"""ONNX operators with learned tensors, and pools, as layers of torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import fx, nn
from torch.nn import functional

from facetask.plugins.architectures.onnx_conversion import Building, UnsupportedError
from facetask.plugins.architectures.onnx_folding import Step


def convolution(b: Building, step: Step) -> fx.Node:
    """Conv; where its border is uneven, a pad before it."""
    weight, bias = b.constant(step, 1), b.constant(step, 2)
    rank = weight.ndim - 2
    if rank not in (1, 2):
        raise UnsupportedError(f"a convolution over {rank} dimensions")
    a = step.attributes
    window = _window(b, step, weight.shape[2:])
    x = b.value(step.inputs[0])
    even = all(before == after for before, after in window)
    if not even:
        x = b.call(functional.pad, x, torch_pads(window))
    layer = (nn.Conv1d, nn.Conv2d)[rank - 1](
        weight.shape[1] * a.get("group", 1),
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(a.get("strides", (1,) * rank)),
        padding=tuple(before for before, _ in window) if even else 0,
        dilation=tuple(a.get("dilations", (1,) * rank)),
        groups=a.get("group", 1),
        bias=bias is not None,
    )
    return b.layer(step, layer, x, weight=weight, bias=bias)


def transposed_convolution(b: Building, step: Step) -> fx.Node:
    """ConvTranspose with even borders."""
    weight, bias = b.constant(step, 1), b.constant(step, 2)
    a = step.attributes
    pads = a.get("pads", (0,) * 4)
    if weight.ndim != 4 or a.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in a or pads[:2] != pads[2:]:
        raise UnsupportedError("a transposed convolution that is not two-dimensional, or whose border is uneven")
    layer = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1] * a.get("group", 1),
        tuple(weight.shape[2:]),
        stride=tuple(a.get("strides", (1, 1))),
        padding=tuple(pads[:2]),
        output_padding=tuple(a.get("output_padding", (0, 0))),
        groups=a.get("group", 1),
        bias=bias is not None,
        dilation=tuple(a.get("dilations", (1, 1))),
    )
    return b.layer(step, layer, b.value(step.inputs[0]), weight=weight, bias=bias)


def gemm(b: Building, step: Step) -> fx.Node:
    """Gemm with constant factors: a linear layer."""
    a = step.attributes
    weight, bias = b.constant(step, 1), b.constant(step, 2)
    weight = (weight if a.get("transB") else weight.T) * np.float32(a.get("alpha", 1.0))
    if a.get("transA") or (bias is not None and bias.size not in (1, len(weight))):
        raise UnsupportedError("a product of the transposed image, or with a bias for every image of a batch")
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), len(weight)) * np.float32(a.get("beta", 1.0))
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return b.layer(step, layer, b.value(step.inputs[0]), weight=weight, bias=bias)


def product(b: Building, step: Step) -> fx.Node:
    """MatMul: a linear layer where the right side is constant."""
    left, right = step.inputs
    weight = b.folded.constants.get(right)
    if weight is None or weight.ndim != 2:
        return b.call(torch.matmul, b.value(left, scalar=False), b.value(right, scalar=False))
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=False)
    return b.layer(step, layer, b.value(left), weight=weight.T)


def batch_norm(b: Building, step: Step) -> fx.Node:
    """BatchNormalization by stored statistics."""
    scale, shift, mean, variance = (b.constant(step, position) for position in range(1, 5))
    a = step.attributes
    if a.get("training_mode") or not a.get("spatial", 1):
        raise UnsupportedError("a batch normalisation in training mode, or with a statistic for every pixel")
    kind = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(len(b.shape(step.inputs[0])), nn.BatchNorm1d)
    layer = kind(scale.size, eps=a.get("epsilon", 1e-5), momentum=1 - a.get("momentum", 0.9))
    tensors = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
    return b.layer(step, layer, b.value(step.inputs[0]), **tensors)


def instance_norm(b: Building, step: Step) -> fx.Node:
    """InstanceNormalization."""
    scale, shift = b.constant(step, 1), b.constant(step, 2)
    kind = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d}.get(len(b.shape(step.inputs[0])))
    if kind is None:
        raise UnsupportedError("an instance normalisation that is not over one or two dimensions")
    layer = kind(scale.size, eps=step.attributes.get("epsilon", 1e-5), affine=True)
    return b.layer(step, layer, b.value(step.inputs[0]), weight=scale, bias=shift)


def group_norm(b: Building, step: Step) -> fx.Node:
    """GroupNormalization with a scale for every channel."""
    scale, shift = b.constant(step, 1), b.constant(step, 2)
    channels = b.shape(step.inputs[0])[1]
    if scale.size != channels:
        raise UnsupportedError("a group normalisation with a scale for every group")
    layer = nn.GroupNorm(step.attributes["num_groups"], channels, eps=step.attributes.get("epsilon", 1e-5))
    return b.layer(step, layer, b.value(step.inputs[0]), weight=scale, bias=shift)


def layer_norm(b: Building, step: Step) -> fx.Node:
    """LayerNormalization over the last axes."""
    scale, shift = b.constant(step, 1), b.constant(step, 2)
    shape = b.shape(step.inputs[0])
    sizes = shape[step.attributes.get("axis", -1) % len(shape) :]
    if scale.shape != sizes or len(step.proto.output) > 1:
        raise UnsupportedError("a layer normalisation whose scale is of another shape, or that returns its statistics")
    layer = nn.LayerNorm(sizes, eps=step.attributes.get("epsilon", 1e-5), bias=shift is not None)
    return b.layer(step, layer, b.value(step.inputs[0]), weight=scale, bias=shift)


def prelu(b: Building, step: Step) -> fx.Node:
    """PRelu with one slope, or one for every channel."""
    slope, shape = b.constant(step, 1), b.shape(step.inputs[0])
    by_channel = (1,) * (len(shape) - slope.ndim) + slope.shape == (1, shape[1], *(1,) * (len(shape) - 2))
    if slope.size != 1 and not by_channel:
        raise UnsupportedError(f"slopes of shape {slope.shape} for {shape[1]} channels")
    return b.layer(step, nn.PReLU(slope.size), b.value(step.inputs[0]), weight=slope.reshape(-1))


def _window(b: Building, step: Step, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Return the border before and after along each dimension, automatic ones computed."""
    a, rank = step.attributes, len(kernel)
    how = a.get("auto_pad", "NOTSET")
    if how in ("NOTSET", "VALID"):
        pads = list(a.get("pads", (0,) * (2 * rank))) if how == "NOTSET" else [0] * (2 * rank)
        return list(zip(pads[:rank], pads[rank:], strict=True))
    window = []
    for d, size in enumerate(b.shape(step.inputs[0])[2:]):
        stride = a.get("strides", (1,) * rank)[d]
        reach = (kernel[d] - 1) * a.get("dilations", (1,) * rank)[d] + 1
        missing = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
        few, many = missing // 2, missing - missing // 2
        window.append((few, many) if how == "SAME_UPPER" else (many, few))
    return window


def torch_pads(window: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return borders in torch's order, last dimension first."""
    return tuple(amount for pair in reversed(window) for amount in pair)


def pool(b: Building, step: Step) -> Any:
    """MaxPool and AveragePool, automatic borders computed first."""
    window = _window(b, step, step.attributes["kernel_shape"])
    node = NodeProto()
    node.CopyFrom(step.proto)
    kept = [item for item in node.attribute if item.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute("pads", [n for side in zip(*window, strict=True) for n in side]))
    if len(step.proto.output) > 1:
        raise UnsupportedError("a pool that also returns positions")
    module = converted(b, node, {})
    for part in module.modules():
        if hasattr(part, "return_indices"):
            part.return_indices = False
    x = b.value(step.inputs[0])
    if isinstance(module, nn.Sequential):
        border, module = module
        x = b.module(step, border, x)
    return b.module(step, module, x)


def converted(b: Building, node: NodeProto, constants: dict[str, Any]) -> nn.Module:
    """Return onnx2pytorch's module for a node; its warnings say that numbers might differ, so they are errors here."""
    from onnx2pytorch.convert.operations import convert_operations  # slow to import

    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "operator", [], [], tensors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ((_, _, module),) = convert_operations(graph, b.folded.opset, 0, False)
    except Exception as error:  # it raises errors of several kinds
        raise UnsupportedError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    if not isinstance(module, nn.Module):
        raise UnsupportedError("no conversion is known")
    return module.eval()
