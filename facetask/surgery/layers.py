"""Layers: how the parameters of torch's modules follow the labels of what goes through them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from facetask.surgery.labelling import Call, Labelling, Layer
from facetask.surgery.labels import spread, varying


def convolution(state: Labelling, call: Call) -> Any:
    """Give every filter its own label; tie the channels that a grouped convolution forces together."""
    module, x = call.module, call.args[0]
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    if varying(x) and 1 not in varying(x):
        return state.freeze(call, f"{type(module).__name__} along an axis that is made of channels")
    inputs, outputs = state.space.vector(x, 1), _outputs(state, call, "weight", 0, module.out_channels)
    counts = {"in_channels": inputs, "out_channels": outputs}
    columns: Tensor | None = inputs
    if module.groups > 1:
        rows_in, rows_out = inputs.view(module.groups, -1), outputs.view(module.groups, -1)
        if module.groups >= rows_in.shape[1]:  # many small groups: each lives or dies as one
            state.space.merge(rows_in, rows_in[:, :1])
            state.space.merge(rows_out, rows_in[:, :1])
            columns, counts["groups"] = None, rows_in[:, 0]
        else:  # few large groups: the same positions are kept in each
            state.space.merge(rows_in, rows_in[:1])
            state.space.merge(rows_out, rows_out[:1])
            columns = rows_in[0]
    spatial = (None,) * (module.weight.dim() - 2)
    slices = {"weight": (outputs, columns, *spatial), "bias": (outputs,)}
    state.add_layer(call, Layer(slices, counts, ("weight", 1) if columns is not None else None))
    return spread(outputs, call.result.shape, 1)


def transposed_convolution(state: Labelling, call: Call) -> Any:
    """Give every filter its own label; the weight's first dimension runs along the inputs."""
    module, x = call.module, call.args[0]
    assert isinstance(module, nn.ConvTranspose2d)
    if module.groups > 1 or (varying(x) and 1 not in varying(x)):
        return state.freeze(call, "grouped ConvTranspose2d" if module.groups > 1 else "")
    inputs, outputs = state.space.vector(x, 1), _outputs(state, call, "weight", 1, module.out_channels)
    slices = {"weight": (inputs, outputs, None, None), "bias": (outputs,)}
    state.add_layer(call, Layer(slices, {"in_channels": inputs, "out_channels": outputs}, ("weight", 0)))
    return spread(outputs, call.result.shape, 1)


def linear(state: Labelling, call: Call) -> Any:
    """Give every output its own label, or, along an axis that is not made of channels, pass the channels through."""
    module, x = call.module, call.args[0]
    assert isinstance(module, nn.Linear)
    last = x.dim() - 1
    if varying(x) and last not in varying(x):
        return x.narrow(last, 0, 1).expand(call.result.shape)
    inputs, outputs = state.space.vector(x, last), _outputs(state, call, "weight", 0, module.out_features)
    slices = {"weight": (outputs, inputs), "bias": (outputs,)}
    state.add_layer(call, Layer(slices, {"in_features": inputs, "out_features": outputs}, ("weight", 1)))
    return spread(outputs, call.result.shape, last)


def batch_norm(state: Labelling, call: Call) -> Any:
    """Follow the channels: every entry belongs to one."""
    channels = state.space.vector(call.args[0], 1)
    names = ("weight", "bias", "running_mean", "running_var")
    state.add_layer(call, Layer({name: (channels,) for name in names}, {"num_features": channels}))
    return spread(channels, call.result.shape, 1)


def group_norm(state: Labelling, call: Call) -> Any:
    """Follow the channels; the statistics are taken over the kept ones of each group."""
    module = call.module
    assert isinstance(module, nn.GroupNorm)
    channels = state.space.vector(call.args[0], 1)
    counts = {"num_channels": channels}
    if tie_groups(state, channels, module.num_groups):
        counts["num_groups"] = channels.view(module.num_groups, -1)[:, 0]
    state.add_layer(call, Layer({"weight": (channels,), "bias": (channels,)}, counts))
    state.statistics.append(call.node)
    return spread(channels, call.result.shape, 1)


def tie_groups(state: Labelling, channels: Tensor, groups: int) -> bool:
    """Tie a normalisation's channels within or across its groups; return whether whole groups live or die."""
    rows = channels.view(groups, -1)
    whole = groups > 1 and groups >= rows.shape[1]
    if groups > 1:
        state.space.merge(rows, rows[:, :1] if whole else rows[:1])
    return whole


def layer_norm(state: Labelling, call: Call) -> Any:
    """Follow the trailing dimensions; the statistics are taken over what is kept of them."""
    module, x = call.module, call.args[0]
    assert isinstance(module, nn.LayerNorm)
    lead = x.dim() - len(module.normalized_shape)
    if any(d >= lead for d in varying(x)):
        state.statistics.append(call.node)
        dims = tuple(state.space.vector(x, d) if d in varying(x) else None for d in range(lead, x.dim()))
        sizes = tuple(x.movedim(d, 0).flatten(1)[:, 0] for d in range(lead, x.dim()))
        state.add_layer(call, Layer({"weight": dims, "bias": dims}, {"normalized_shape": sizes}))
    return x


def prelu(state: Labelling, call: Call) -> Any:
    """Follow the channels, if there is a slope for each."""
    module, x = call.module, call.args[0]
    assert isinstance(module, nn.PReLU)
    if module.weight.numel() == 1:
        return x
    channels = state.space.vector(x, 1)
    state.add_layer(call, Layer({"weight": (channels,)}, {"num_parameters": channels}))
    return spread(channels, call.result.shape, 1)


def pool(state: Labelling, call: Call) -> Any:
    """Follow the channels through an operation that works on each channel's map alone."""
    x = call.tensors[0]
    if varying(x) and 1 not in varying(x):
        return state.freeze(call, f"{type(call.module).__name__} along an axis that is made of channels")
    labels = spread(state.space.vector(x, 1), call.result[0].shape if _is_pair(call) else call.result.shape, 1)
    return (labels, labels) if _is_pair(call) else labels


def _is_pair(call: Call) -> bool:
    """Whether a pool returns its maxima's positions too."""
    return isinstance(call.result, tuple)


def _outputs(state: Labelling, call: Call, parameter: str, dim: int, count: int) -> Tensor:
    """Return a layer's output labels: fresh ones, or those of its first use."""
    known = state.layers.get(str(call.node.target))
    labels = known.slices[parameter][dim] if known else None
    return state.space.fresh(count) if labels is None else labels
