"""Operations that compute: element by element, reductions, and norms written as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from facetask.surgery.kept import Kept
from facetask.surgery.labelling import Call, Labelling
from facetask.surgery.labels import spread, varying
from facetask.surgery.layers import tie_groups


def elementwise(state: Labelling, call: Call) -> Any:
    """Tie the channels of tensors that meet element by element.

    A tensor of size 1 where another one has channels serves all of them: it is kept, and couples nothing.
    """
    tensors = call.tensors
    shape = np.broadcast_shapes(*[x.shape for x in tensors])
    aligned = [x.reshape((1,) * (len(shape) - x.dim()) + tuple(x.shape)) for x in tensors]
    live = []
    for x in aligned:
        stretched = [d for d in range(len(shape)) if x.shape[d] == 1 and shape[d] > 1]
        if any(d in varying(other) for d in stretched for other in aligned if other is not x):
            state.space.fix(x)
        else:
            live.append(x)
    if not live:
        return state.whole(call.result)
    result = live[0].expand(shape)
    for x in live[1:]:
        state.space.merge(result, x)
    for d in range(len(shape)):
        if any(d not in varying(x) for x in live):
            result = result.narrow(d, 0, 1).expand(shape)
    return result


def maximum(state: Labelling, call: Call) -> Any:
    """Follow ``max(a, b)`` element by element and ``max(x, dim)`` as a reduction."""
    return elementwise(state, call) if len(call.tensors) > 1 else reduction(1)(state, call)


def reduction(position: int) -> Callable[[Labelling, Call], Any]:
    """Return the rule of a reduction whose dimensions are the argument at a position."""

    def reduce(state: Labelling, call: Call) -> Any:
        """Drop the reduced dimensions; over channels, the reduction is taken over the kept ones."""
        x = call.args[0] if call.args else call.kwargs["input"]
        given = call.argument(position, "dim", call.kwargs.get("axis"))
        if given is None or isinstance(given, bool):
            return state.freeze(call, f"{call.node.target} over everything") if varying(x) else state.whole(call.result)
        reduced = [d % x.dim() for d in ([given] if isinstance(given, int) else given)]
        over = [d for d in varying(x) if d in reduced]
        if over and len(over) < len(varying(x)):
            for d in over:
                state.space.merge_along(x, d)
        elif over:
            state.statistics.append(call.node)
            return state.whole(call.result)
        for d in sorted(reduced, reverse=True):
            x = x.narrow(d, 0, 1) if _first(call.result).dim() == call.args[0].dim() else x.select(d, 0)
        return (x,) * len(call.result) if isinstance(call.result, tuple) else x

    return reduce


def softmax(state: Labelling, call: Call) -> Any:
    """Pass the labels through; along channels they cannot be told apart."""
    x = call.args[0]
    dim = getattr(call.module, "dim", None) if call.module is not None else call.argument(1, "dim")
    if not isinstance(dim, int):
        return state.freeze(call)
    if dim % x.dim() in varying(x):
        if len(varying(x)) == 1:
            return state.freeze(call, "softmax over channels")
        state.space.merge_along(x, dim % x.dim())
    return x


def normalize(state: Labelling, call: Call) -> Any:
    """Pass the labels through; over channels, the length is that of the kept ones."""
    x, dim = call.args[0], call.argument(2, "dim", 1)
    listed = [dim] if isinstance(dim, int) else list(dim)
    if any(d % x.dim() in varying(x) for d in listed):
        state.statistics.append(call.node)
    return x


def gated(state: Labelling, call: Call) -> Any:
    """Multiply the first half by the second: their channels go in pairs."""
    dim = call.module.dim if isinstance(call.module, nn.GLU) else call.argument(1, "dim", -1)
    first, second = call.args[0].chunk(2, dim)
    state.space.merge(first, second)
    return first


def channel_parameters(state: Labelling, call: Call) -> Any:
    """Tie the parameters given as arguments, one entry a channel, to the channels."""
    channels = state.space.vector(call.args[0], 1)
    for parameter in call.tensors[1:]:
        if parameter.numel() > 1:
            state.space.merge(channels, parameter.reshape(-1))
    return spread(channels, call.result.shape, 1)


def group_norm(state: Labelling, call: Call) -> Any:
    """Tie the channels of the groups; the statistics are taken over the kept ones of each group."""
    labels = channel_parameters(state, call)
    tie_groups(state, labels.movedim(1, 0).flatten(1)[:, 0], call.argument(1, "num_groups"))
    state.statistics.append(call.node)
    return labels


def resize_group_norm(kept: Kept, call: Call, node: fx.Node) -> None:
    """Drop the groups that lost all their channels."""
    groups = call.argument(1, "num_groups")
    rows = kept.along(call.args[0], 1).view(groups, -1).any(1)
    if not bool(rows.all()):
        node.args = (node.args[0], int(rows.sum()), *node.args[2:])
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "num_groups"}


def layer_norm(state: Labelling, call: Call) -> Any:
    """Tie the parameters to the trailing dimensions; the statistics are taken over what is kept of them."""
    x, lead = call.args[0], call.args[0].dim() - len(call.argument(1, "normalized_shape"))
    for parameter in call.tensors[1:]:
        state.space.merge(x, parameter)
    if any(d >= lead for d in varying(x)):
        state.statistics.append(call.node)
    return x


def resize_layer_norm(kept: Kept, call: Call, node: fx.Node) -> None:
    """Normalise over the sizes that are kept."""
    shape = tuple(kept.sizes(call.args[0])[call.args[0].dim() - len(call.argument(1, "normalized_shape")) :])
    if len(node.args) > 1:
        node.args = (node.args[0], shape, *node.args[2:])
    else:
        node.kwargs = {**node.kwargs, "normalized_shape": shape}


def depthwise(state: Labelling, call: Call) -> Any:
    """Follow a convolution called as a function if it works on each channel alone; freeze any other."""
    x, weight, groups = call.args[0], call.argument(1, "weight"), call.argument(6, "groups", 1)
    if groups != x.shape[1] or weight.shape[0] != groups or groups == 1:
        return state.freeze(call, f"{getattr(call.node.target, '__name__', 'conv')} with a computed weight")
    channels = state.space.vector(x, 1)
    for parameter in call.tensors[1:]:
        state.space.merge(channels, state.space.vector(parameter, 0))
    return spread(channels, call.result.shape, 1)


def resize_depthwise(kept: Kept, call: Call, node: fx.Node) -> None:
    """Have as many groups as channels are kept."""
    count = kept.count(call.args[0], 1)
    if count == call.args[0].shape[1]:
        return
    if len(node.args) > 6:
        node.args = (*node.args[:6], count)
    else:
        node.kwargs = {**node.kwargs, "groups": count}


def _first(result: Any) -> Tensor:
    """Return a result, or the first of several."""
    first: Tensor = result[0] if isinstance(result, tuple) else result
    return first
