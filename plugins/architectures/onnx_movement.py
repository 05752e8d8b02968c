"""ONNX operators that move values: every size, axis and position is a plain number, the batch is left free."""

from __future__ import annotations

import operator

import numpy as np
import torch
from torch import fx
from torch.nn import functional

from facetask.plugins.architectures.onnx_conversion import Building, UnsupportedError
from facetask.plugins.architectures.onnx_folding import BATCH, Step
from facetask.plugins.architectures.onnx_layers import torch_pads


def reshape(b: Building, step: Step) -> fx.Node:
    """Reshape and Flatten, the batch left free."""
    x, before, after = b.value(step.inputs[0]), b.shape(step.inputs[0]), b.shape(step.proto.output[0])
    if len(after) == 2 and after[0] == before[0] and len(before) > 2:
        return b.call(torch.flatten, x, 1)
    return b.call(torch.reshape, x, tuple(-1 if size % BATCH == 0 else size for size in after))


def squeeze(b: Building, step: Step) -> fx.Node:
    """Squeeze."""
    shape = b.shape(step.inputs[0])
    axes = b.integers(step, 1, "axes") or [d for d, size in enumerate(shape) if size == 1]
    x = b.value(step.inputs[0])
    for axis in sorted((axis % len(shape) for axis in axes), reverse=True):
        x = b.call(torch.squeeze, x, axis)
    return x


def unsqueeze(b: Building, step: Step) -> fx.Node:
    """Unsqueeze."""
    rank, x = len(b.shape(step.proto.output[0])), b.value(step.inputs[0])
    for axis in sorted(axis % rank for axis in b.integers(step, 1, "axes") or []):
        x = b.call(torch.unsqueeze, x, axis)
    return x


def transpose(b: Building, step: Step) -> fx.Node:
    """Transpose."""
    rank = len(b.shape(step.inputs[0]))
    return b.call(torch.permute, b.value(step.inputs[0]), tuple(step.attributes.get("perm", reversed(range(rank)))))


def concat(b: Building, step: Step) -> fx.Node:
    """Concat; constants among the parts must be as long as one image's."""
    if any(name in b.folded.constants for name in step.inputs):
        raise UnsupportedError("constants joined with the image")
    return b.call(torch.cat, [b.value(name) for name in step.inputs], step.attributes.get("axis", 1))


def split(b: Building, step: Step) -> fx.Node:
    """Split into parts of the sizes that the file gives them."""
    axis = step.attributes.get("axis", 0) % len(b.shape(step.inputs[0]))
    if any(not name for name in step.proto.output):
        raise UnsupportedError("a split whose parts have no names")
    sizes = [b.shape(name)[axis] for name in step.proto.output]
    return b.call(torch.split, b.value(step.inputs[0]), sizes, axis)


def sliced(b: Building, step: Step) -> fx.Node:
    """Slice; backwards by a list of positions."""
    shape, x = b.shape(step.inputs[0]), b.value(step.inputs[0])
    starts, ends = b.integers(step, 1, "starts") or [], b.integers(step, 2, "ends") or []
    axes = b.integers(step, 3, "axes") or list(range(len(starts)))
    strides = b.integers(step, 4, "steps") or [1] * len(starts)
    items = [slice(None)] * len(shape)
    for start, end, given, stride in zip(starts, ends, axes, strides, strict=True):
        axis = given % len(shape)
        taken = slice(start, max(end, -shape[axis] - 1), stride)
        if stride < 0:
            last = None if end < -shape[axis] else end
            x = _taken(b, x, list(range(shape[axis]))[slice(start, last, stride)], axis)
            continue
        begin, stop, _ = taken.indices(shape[axis])
        if (begin, stop, stride) != (0, shape[axis], 1):
            items[axis] = slice(begin, stop, None if stride == 1 else stride)
    return b.call(operator.getitem, x, tuple(items)) if any(item != slice(None) for item in items) else x


def gather(b: Building, step: Step) -> fx.Node:
    """Gather at constant positions."""
    indices, shape = b.constant(step, 1), b.shape(step.inputs[0])
    axis = step.attributes.get("axis", 0) % len(shape)
    positions = [int(position) % shape[axis] for position in indices.reshape(-1)]
    if indices.ndim > 1:
        raise UnsupportedError("positions in more than one dimension")
    x = b.value(step.inputs[0], scalar=False)
    return b.call(torch.select, x, axis, positions[0]) if indices.ndim == 0 else _taken(b, x, positions, axis)


def _taken(b: Building, x: fx.Node, positions: list[int], axis: int) -> fx.Node:
    """Take some positions along an axis, as parts joined again: those are known to surgery."""
    parts = [b.call(torch.narrow, x, axis, first, 1) for first in positions]
    return parts[0] if len(parts) == 1 else b.call(torch.cat, parts, axis)


def expand(b: Building, step: Step) -> fx.Node:
    """Expand along other axes than the batch."""
    before, after = b.shape(step.inputs[0]), b.shape(step.proto.output[0])
    aligned = (1,) * (len(after) - len(before)) + tuple(before)
    if any(size % BATCH == 0 and size != old for size, old in zip(after, aligned, strict=True)):
        raise UnsupportedError("a tensor made as long as the batch")
    sizes = [-1 if size == old else size for size, old in zip(after, aligned, strict=True)]
    if len(after) > len(before):
        sizes = [size if d < len(after) - len(before) else sizes[d] for d, size in enumerate(after)]
    return b.graph.call_method("expand", (b.value(step.inputs[0]), *sizes))


def pad(b: Building, step: Step) -> fx.Node:
    """Pad."""
    shape, a = b.shape(step.inputs[0]), step.attributes
    pads = b.integers(step, 1, "pads") or []
    value = b.constant(step, 2, a.get("value", 0.0))
    axes = b.integers(step, 3, "axes") or list(range(len(shape)))
    window = [(0, 0)] * len(shape)
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        window[axis] = (before, after)
    modes = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}
    mode = modes.get(a.get("mode", "constant"), "")
    if not mode or (mode != "constant" and any(pair != (0, 0) for pair in window[:2])):
        raise UnsupportedError(f"a pad of the kind {a.get('mode')!r} over batch or channels")
    while window and window[0] == (0, 0):
        window.pop(0)
    x = b.value(step.inputs[0])
    number = float(np.asarray(value).item()) if mode == "constant" else None
    if mode != "constant":
        window = [(0, 0)] * (len(shape) - 2 - len(window)) + window
    return b.call(functional.pad, x, torch_pads(window), mode, number) if window else x


_RESIZES = {  # mode and coordinates: what torch calls them, and whether corners are aligned
    ("nearest", "asymmetric"): ("nearest", None),
    ("linear", "half_pixel"): ("bilinear", False),
    ("linear", "pytorch_half_pixel"): ("bilinear", False),
    ("linear", "align_corners"): ("bilinear", True),
    ("cubic", "half_pixel"): ("bicubic", False),
    ("cubic", "pytorch_half_pixel"): ("bicubic", False),
    ("cubic", "align_corners"): ("bicubic", True),
}


def resize(b: Building, step: Step) -> fx.Node:
    """Resize in the ways that torch has too."""
    a, before, after = step.attributes, b.shape(step.inputs[0]), b.shape(step.proto.output[0])
    old = b.folded.opset < 11
    scales = b.constant(step, 1 if old else 2)
    mode = a.get("mode", "nearest")
    coordinates = a.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    same = (
        len(before) == 4
        and before[:2] == after[:2]
        and (scales is None or not scales.size or np.allclose(scales[2:] * before[2:], after[2:]))
        and (mode != "nearest" or a.get("nearest_mode", "floor" if old else "round_prefer_floor") == "floor")
        and abs(a.get("cubic_coeff_a", -0.75) + 0.75) < 1e-6
        and not a.get("antialias")
        and not a.get("exclude_outside")
    )
    if not same or (mode, coordinates) not in _RESIZES:
        raise UnsupportedError(f"resizing of the mode {mode!r} with {coordinates!r} coordinates, in a way not torch's")
    return b.call(functional.interpolate, b.value(step.inputs[0]), after[2:], None, *_RESIZES[mode, coordinates])
