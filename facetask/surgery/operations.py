"""The operation table: for everything the engine knows, what it does to channel labels.

An operation that is not in the table freezes what it touches: those channels are always kept, and the user is told.
To teach the engine an operation, add it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import fx, nn

from facetask.surgery import arithmetic, layers, movement
from facetask.surgery.kept import Kept
from facetask.surgery.labelling import Call, Labelling

Role = Literal["layer", "norm", "activation", "addition", "scaling", "maximum", "pool", "move", "padding", "other"]


@dataclass(frozen=True)
class Operation:
    """One kind of operation.

    Attributes:
        label: Returns the labels of the result.
        role: What the operation is to the search for taps.
        resize: Rewrites, on the pruned graph's node, the constants that count channels.
    """

    label: Callable[[Labelling, Call], Any]
    role: Role = "other"
    resize: Callable[[Kept, Call, fx.Node], None] | None = None


def _named(names: str, operation: Operation) -> dict[str, Operation]:
    """Return one operation under several names."""
    return dict.fromkeys(names.split(), operation)


# functions and methods by name: ``torch.add``, ``x.add_`` and ``operator.add`` are all "add"
FUNCTIONS: dict[str, Operation] = {
    **_named(
        "relu relu6 silu gelu hardswish hardsigmoid leaky_relu sigmoid tanh elu selu celu mish softplus softsign "
        "hardtanh logsigmoid hardshrink softshrink tanhshrink threshold",
        Operation(arithmetic.elementwise, "activation"),
    ),
    **_named("add iadd sub isub rsub", Operation(arithmetic.elementwise, "addition")),
    **_named("mul imul truediv itruediv div addcmul", Operation(arithmetic.elementwise, "scaling")),
    **_named("maximum minimum", Operation(arithmetic.elementwise, "maximum")),
    **_named("max min", Operation(arithmetic.maximum, "maximum")),
    **_named("amax amin", Operation(arithmetic.reduction(1), "maximum")),
    **_named(
        "neg pos abs exp expm1 log log1p sqrt rsqrt square reciprocal pow ipow sin cos erf clamp clamp_min clamp_max "
        "clip floor round sign where lerp addcdiv fmod remainder masked_fill expand_as nan_to_num "
        "eq ne lt le gt ge logical_and logical_or logical_not zeros_like ones_like full_like empty_like",
        Operation(arithmetic.elementwise),
    ),
    **_named("dropout dropout2d alpha_dropout feature_alpha_dropout", Operation(arithmetic.elementwise, "move")),
    **_named("mean", Operation(arithmetic.reduction(1), "pool")),
    **_named("sum var std prod logsumexp", Operation(arithmetic.reduction(1))),
    **_named("norm vector_norm", Operation(arithmetic.reduction(2))),
    **_named("linalg_vector_norm linalg_norm", Operation(arithmetic.reduction(2))),
    **_named("softmax log_softmax softmin", Operation(arithmetic.softmax)),
    **_named("normalize", Operation(arithmetic.normalize, "norm")),
    **_named("glu", Operation(arithmetic.gated, "activation")),
    **_named("batch_norm instance_norm", Operation(arithmetic.channel_parameters, "norm")),
    **_named("prelu", Operation(arithmetic.channel_parameters, "activation")),
    **_named("group_norm", Operation(arithmetic.group_norm, "norm", arithmetic.resize_group_norm)),
    **_named("layer_norm", Operation(arithmetic.layer_norm, "norm", arithmetic.resize_layer_norm)),
    **_named("conv2d conv1d", Operation(arithmetic.depthwise, "layer", arithmetic.resize_depthwise)),
    **_named(
        "max_pool1d max_pool2d avg_pool1d avg_pool2d lp_pool2d adaptive_avg_pool1d adaptive_avg_pool2d "
        "adaptive_max_pool1d adaptive_max_pool2d interpolate upsample",
        Operation(layers.pool, "pool"),
    ),
    **_named(
        "flatten permute transpose swapaxes swapdims movedim moveaxis squeeze unsqueeze flip fliplr flipud stack "
        "repeat_interleave view_as reshape_as tile t T mT adjoint",
        Operation(movement.execute, "move"),
    ),
    **_named(
        "contiguous clone detach to type type_as float half double bfloat16 alias requires_grad",
        Operation(movement.same, "move"),
    ),
    **_named("cat concat concatenate", Operation(movement.concatenate, "move")),
    **_named("view reshape", Operation(movement.execute, "move", movement.resize_sizes)),
    **_named("expand broadcast_to", Operation(movement.expand, "move", movement.resize_sizes)),
    **_named("repeat", Operation(movement.execute, "move")),
    **_named("unflatten", Operation(movement.unflatten, "move", movement.resize_unflatten)),
    **_named("split chunk tensor_split split_with_sizes", Operation(movement.execute, "move", movement.resize_split)),
    **_named("narrow", Operation(movement.execute, "move", movement.resize_narrow)),
    **_named("select", Operation(movement.select, "move", movement.resize_select)),
    **_named("getitem", Operation(movement.index, "move", movement.resize_index)),
    **_named("unbind", Operation(movement.unbind, "move")),
    **_named("values indices", Operation(movement.first, "move")),
    **_named("roll", Operation(movement.roll, "move")),
    **_named("index_select", Operation(movement.take, "move")),
    **_named("pad", Operation(movement.pad, "padding", movement.resize_pad)),
    **_named("channel_shuffle native_channel_shuffle", Operation(movement.shuffle, "move")),
    **_named("pixel_shuffle", Operation(movement.pixel_shuffle, "move")),
    **_named("pixel_unshuffle", Operation(movement.pixel_unshuffle, "move")),
    **_named(
        "zeros ones full empty new_zeros new_ones new_full new_empty",
        Operation(movement.constant, resize=movement.resize_sizes),
    ),
}


def _classes(classes: Iterable[type[nn.Module]], operation: Operation) -> dict[type[nn.Module], Operation]:
    """Return one operation under several module classes."""
    return dict.fromkeys(classes, operation)


# modules by class; a subclass is treated as its nearest listed base
MODULES: dict[type[nn.Module], Operation] = {
    **_classes([nn.Conv1d, nn.Conv2d], Operation(layers.convolution, "layer")),
    **_classes([nn.ConvTranspose2d], Operation(layers.transposed_convolution, "layer")),
    **_classes([nn.Linear], Operation(layers.linear, "layer")),
    **_classes(
        [nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm], Operation(layers.batch_norm, "norm")
    ),
    **_classes([nn.GroupNorm], Operation(layers.group_norm, "norm")),
    **_classes([nn.LayerNorm], Operation(layers.layer_norm, "norm")),
    **_classes([nn.PReLU], Operation(layers.prelu, "activation")),
    **_classes(
        [
            *(nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.LeakyReLU),
            *(nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.RReLU, nn.LogSigmoid),
            *(nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold),
        ],
        Operation(movement.same, "activation"),
    ),
    **_classes([nn.GLU], Operation(arithmetic.gated, "activation")),
    **_classes([nn.Softmax], Operation(arithmetic.softmax)),
    **_classes(
        [nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout],
        Operation(movement.same, "move"),
    ),
    **_classes(
        [
            *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.LPPool1d, nn.LPPool2d, nn.FractionalMaxPool2d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample),
            *(nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d),
        ],
        Operation(layers.pool, "pool"),
    ),
    **_classes([nn.Flatten], Operation(movement.execute, "move")),
    **_classes([nn.Unflatten], Operation(movement.unflatten, "move", movement.resize_unflatten)),
    **_classes([nn.ChannelShuffle], Operation(movement.shuffle, "move")),
    **_classes([nn.PixelShuffle], Operation(movement.pixel_shuffle, "move")),
    **_classes([nn.PixelUnshuffle], Operation(movement.pixel_unshuffle, "move")),
}

_KNOWN_ORIGINS = ("torch", "_operator", "operator", "builtins", "math")


def operation_of(node: fx.Node, module: nn.Module | None) -> Operation | None:
    """Return the table's entry for a node, or ``None`` if there is none."""
    if module is not None:
        return next((MODULES[base] for base in type(module).__mro__ if base in MODULES), None)
    if isinstance(node.target, str):
        return FUNCTIONS.get(_plain(node.target))
    if node.target is getattr:
        return FUNCTIONS.get(str(node.args[1]))
    origin = getattr(node.target, "__module__", None) or "torch"
    if origin.split(".")[0] not in _KNOWN_ORIGINS:
        return None
    return FUNCTIONS.get(_plain(_function_name(node.target)))


def _function_name(function: Any) -> str:
    """Return a function's name, also of those that torch dispatches by an argument."""
    name = str(getattr(function, "__name__", ""))
    return _DISPATCHED.get(function, name)


_DISPATCHED = {
    getattr(nn.functional, name): name
    for name in ("max_pool1d", "max_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d")
}


def _plain(name: str) -> str:
    """Return a name without the underscore that marks in-place operations."""
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name
