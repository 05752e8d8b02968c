"""Operations that move values without changing them: they are executed literally on labels.

Each comes with its resizing: the constants among its arguments (sizes, offsets, pads) that count channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from typing import Any, cast

import torch
from torch import Tensor, fx

from facetask.surgery.kept import Kept
from facetask.surgery.labelling import Call, Labelling, tensors_in
from facetask.surgery.labels import spread, varying
from facetask.surgery.tracing import BATCH


def execute(state: Labelling, call: Call) -> Any:
    """Execute the operation on labels instead of numbers."""
    if call.module is not None:
        return call.module(*call.args, **call.kwargs)
    if call.node.op == "call_function":
        return cast(Any, call.node.target)(*call.args, **call.kwargs)
    method = {"view": "reshape", "view_as": "reshape_as"}.get(str(call.node.target), str(call.node.target))
    return getattr(call.args[0], method)(*call.args[1:], **call.kwargs)


def same(state: Labelling, call: Call) -> Any:
    """Pass the first argument through."""
    return call.args[0]


def first(state: Labelling, call: Call) -> Any:
    """Take the values or the positions that a reduction returns: their labels are the same."""
    return call.args[0][0]


def concatenate(state: Labelling, call: Call) -> Any:
    """Join labels along a dimension, at one position of the dimensions that do not vary."""
    parts, dim = list(call.args[0] if call.args else call.kwargs["tensors"]), call.argument(1, "dim", 0)
    if any(part.dim() != parts[0].dim() for part in parts):
        return state.freeze(call)
    dim %= parts[0].dim()
    for d in range(parts[0].dim()):
        if d != dim and all(d not in varying(part) for part in parts):
            parts = [part.narrow(d, 0, 1) for part in parts]
    return torch.cat(parts, dim).expand(call.result.shape)


def index(state: Labelling, call: Call) -> Any:
    """Take items: of a sequence, or slices and positions of a tensor."""
    x, items = call.args
    if not isinstance(x, Tensor):
        return x[items]
    if tensors_in(items):
        return state.freeze(call, "indexing by a tensor")
    for _, d, item in _entries(items, x.dim()):
        if d in varying(x) and isinstance(item, slice) and item.step not in (None, 1):
            return state.freeze(call, "a slice with a step over channels")
        if d in varying(x) and isinstance(item, int):
            state.space.fix(x.select(d, item))
    return x[items]


def resize_index(kept: Kept, call: Call, node: fx.Node) -> None:
    """Move slices and positions to where the kept channels are."""
    x, items = call.args
    if not isinstance(x, Tensor):
        return
    packed = isinstance(items, tuple)
    written: list[Any] = list(node.args[1] if packed else node.args[1:2])  # type: ignore[arg-type]
    for position, d, item in _entries(items, x.dim()):
        along = kept.along(x, d)
        if bool(along.all()):
            continue  # what is computed from sizes or is a tensor stays so
        if isinstance(item, slice) and item != slice(None):
            start, stop, _ = item.indices(len(along))
            written[position] = slice(int(along[:start].sum()), int(along[: max(start, stop)].sum()))
        elif isinstance(item, int):
            written[position] = int(along[: item % len(along)].sum())
    node.args = (node.args[0], tuple(written) if packed else written[0])


def select(state: Labelling, call: Call) -> Any:
    """Take one position along a dimension; if that is a channel, it is always kept."""
    x, dim, position = call.args[0], call.argument(1, "dim"), call.argument(2, "index")
    if dim % x.dim() in varying(x):
        state.space.fix(x.select(dim, position))
    return x.select(dim, position)


def resize_select(kept: Kept, call: Call, node: fx.Node) -> None:
    """Move the position to where its channel is."""
    x, dim, position = call.args[0], call.argument(1, "dim"), call.argument(2, "index")
    along = kept.along(x, dim)
    if not bool(along.all()):
        node.args, node.kwargs = (node.args[0], dim, int(along[: position % len(along)].sum())), {}


def resize_narrow(kept: Kept, call: Call, node: fx.Node) -> None:
    """Move a narrowed range to where the kept channels are."""
    x, dim = call.args[0], call.argument(1, "dim")
    start, length = call.argument(2, "start"), call.argument(3, "length")
    along = kept.along(x, dim)
    if not bool(along.all()):
        start, stop = int(along[:start].sum()), int(along[: start + length].sum())
        node.args, node.kwargs = (node.args[0], dim, start, stop - start), {}


def resize_split(kept: Kept, call: Call, node: fx.Node) -> None:
    """Split into as many channels as each part keeps."""
    parts = kept.values[call.node]
    dim = call.argument(2, "dim", 0)
    sizes = [kept.sizes(part)[dim] for part in parts]
    if sizes != [part.shape[dim] for part in parts]:
        node.op, node.target = "call_function", torch.split
        node.args, node.kwargs = (node.args[0] if node.args else node.kwargs["input"], sizes, dim), {}


def unbind(state: Labelling, call: Call) -> Any:
    """Take a tensor apart; not along channels, whose number would be that of the parts."""
    x, dim = call.args[0], call.argument(1, "dim", 0) % call.args[0].dim()
    if dim in varying(x):
        if len(varying(x)) == 1:
            return state.freeze(call, "unbind along channels")
        state.space.merge_along(x, dim)
    return execute(state, call)


def expand(state: Labelling, call: Call) -> Any:
    """Repeat a single value along a dimension: the copies may be dropped, the value not."""
    x, shape = call.args[0], call.result.shape
    result = execute(state, call)
    lead = len(shape) - x.dim()
    for d in (0, 1):
        grown = d < len(shape) and shape[d] > 1 and (d < lead or x.shape[d - lead] == 1)
        if grown and not (d == 0 and shape[d] == BATCH):
            state.space.fix(x)
            return spread(state.space.fresh(shape[d]), shape, d)
    return result


def resize_sizes(kept: Kept, call: Call, node: fx.Node) -> None:
    """Replace the sizes that count channels: those of ``view(x, a, b)`` and of ``view(x, (a, b))``."""
    result = kept.values[call.node]
    changed = [before != after for before, after in zip(result.shape, kept.sizes(result), strict=True)]
    _write_sizes(kept, call, node, lambda d, size: changed[d] and size != -1)


def pin_sizes(kept: Kept, call: Call, node: fx.Node, numbers: Container[fx.Node]) -> None:
    """Replace the sizes that are given by some numbers of the graph."""
    _write_sizes(kept, call, node, lambda d, size: isinstance(size, fx.Node) and size in numbers)


def _write_sizes(kept: Kept, call: Call, node: fx.Node, chosen: Callable[[int, Any], bool]) -> None:
    """Write what is kept in place of the chosen sizes among a node's arguments."""
    sizes = kept.sizes(kept.values[call.node])
    lead = 1 if call.args and isinstance(call.args[0], Tensor) else 0
    keyword = next((name for name in ("shape", "size") if name in node.kwargs), None)
    given = node.kwargs[keyword] if keyword else node.args[lead]
    packed = isinstance(given, list | tuple)
    if isinstance(given, fx.Node) and not isinstance(call.argument(lead, keyword or ""), int):
        return  # the whole shape of another tensor, which has been pruned itself
    before = list(given) if packed else list(node.args[lead:])  # type: ignore[arg-type]
    written = [sizes[d] if chosen(d, size) else size for d, size in enumerate(before)]
    computed = [d for d, size in enumerate(before) if isinstance(size, fx.Node) and chosen(d, size)]
    if computed and -1 not in before and node.target in ("view", "reshape", torch.reshape):
        written[computed[0]] = -1  # it may count images too
    if keyword:
        node.kwargs = {**node.kwargs, keyword: tuple(written)}
    else:
        node.args = (*node.args[:lead], tuple(written)) if packed else (*node.args[:lead], *written)


def unflatten(state: Labelling, call: Call) -> Any:
    """Take one dimension apart into several."""
    return call.args[0].reshape(call.result.shape)


def resize_unflatten(kept: Kept, call: Call, node: fx.Node) -> None:
    """Take one dimension apart into as many channels as are kept."""
    x, result = call.args[0], kept.values[call.node]
    dim = (call.module.dim if call.module is not None else call.argument(1, "dim")) % x.dim()
    own = slice(dim, dim + result.dim() - x.dim() + 1)
    sizes = kept.sizes(result)[own]
    if sizes == list(result.shape[own]):
        return
    node.op, node.target = "call_function", torch.unflatten
    node.args, node.kwargs = (node.args[0], dim, sizes), {}


def shuffle(state: Labelling, call: Call) -> Any:
    """Interleave groups of channels: the same positions are kept in each."""
    x = call.args[0]
    groups = call.module.groups if call.module is not None else call.argument(1, "groups")
    channels = state.space.vector(x, 1).view(int(groups), -1)  # type: ignore[arg-type]
    state.space.keep_rectangular(channels)
    return spread(channels.T.reshape(-1), call.result.shape, 1)


def pixel_shuffle(state: Labelling, call: Call) -> Any:
    """Move channels into space: the channels of one block live or die together."""
    x, shape = call.args[0], call.result.shape
    blocks = state.space.vector(x, 1).view(shape[1], -1)
    state.space.merge_along(blocks, 1)
    return spread(blocks[:, 0], shape, 1)


def pixel_unshuffle(state: Labelling, call: Call) -> Any:
    """Move space into channels: each channel becomes a block."""
    x, shape = call.args[0], call.result.shape
    return spread(state.space.vector(x, 1).repeat_interleave(shape[1] // x.shape[1]), shape, 1)


def roll(state: Labelling, call: Call) -> Any:
    """Shift along dimensions that are not made of channels."""
    x, dims = call.args[0], call.argument(2, "dims")
    listed = [dims] if isinstance(dims, int) else list(dims or range(x.dim()))
    return state.freeze(call) if any(d % x.dim() in varying(x) for d in listed) else x


def take(state: Labelling, call: Call) -> Any:
    """Take rows by a tensor of indices, along a dimension that is not made of channels."""
    x, dim = call.args[0], call.argument(1, "dim", 0)
    if dim % x.dim() in varying(x):
        return state.freeze(call)
    return x.narrow(dim, 0, 1).expand(call.result.shape)


def pad(state: Labelling, call: Call) -> Any:
    """Add a border; channels that a pad adds are constant: they couple nothing and follow what they are added to."""
    x, amounts = call.args[0], _pads(call)
    for d in range(x.dim()):
        before, after = amounts.get(d, (0, 0))
        if (before, after) == (0, 0):
            continue
        if (d == 1 and x.dim() > 2) or d in varying(x):
            if call.argument(2, "mode", "constant") != "constant":
                return state.freeze(call, "a pad of channels that is not constant")
            x = x.narrow(d, max(-before, 0), x.shape[d] - max(-before, 0) - max(-after, 0))
            new = [spread(state.space.fresh(max(n, 0)), _resized(x, d, max(n, 0)), d) for n in (before, after)]
            narrow = squeezed_except(d, new[0], x, new[1])
            x = torch.cat(narrow, d).expand(_resized(x, d, x.shape[d] + max(before, 0) + max(after, 0)))
        else:
            x = x.narrow(d, 0, 1).expand(_resized(x, d, x.shape[d] + before + after))
    return x


def resize_pad(kept: Kept, call: Call, node: fx.Node) -> None:
    """Pad with as many channels as are kept of the pad."""
    x, result, amounts = call.args[0], kept.values[call.node], _pads(call)
    written = list(node.args[1] if len(node.args) > 1 else node.kwargs["pad"])  # type: ignore[arg-type]
    for d, (before, after) in amounts.items():
        if kept.sizes(result)[d] == result.shape[d] and kept.sizes(x)[d] == x.shape[d]:
            continue
        inside, outside = kept.along(x, d), kept.along(result, d)
        at = 2 * (x.dim() - 1 - d)
        written[at] = int(outside[:before].sum()) if before > 0 else -int(inside[:-before].sum())
        end = len(inside) + after
        written[at + 1] = int(outside[len(outside) - after :].sum()) if after > 0 else -int(inside[end:].sum())
    if len(node.args) > 1:
        node.args = (node.args[0], tuple(written), *node.args[2:])
    else:
        node.kwargs = {**node.kwargs, "pad": tuple(written)}


def constant(state: Labelling, call: Call) -> Any:
    """Label a tensor of constants: it couples nothing and follows what it is joined with."""
    shape = call.result.shape
    return spread(state.space.fresh(shape[1]), shape, 1) if len(shape) > 1 else state.whole(call.result)


def squeezed_except(dim: int, *labels: Tensor) -> list[Tensor]:
    """Return tensors narrowed to size 1 where none of them varies, but for one dimension."""
    moved = [x.movedim(dim, -1) for x in labels]
    for d in range(moved[0].dim() - 1):
        if all(x.stride(d) == 0 or x.numel() == 0 or x.shape[d] == 1 for x in moved):
            moved = [x.narrow(d, 0, 1) for x in moved]
    return [x.movedim(-1, dim) for x in moved]


def _resized(x: Tensor, dim: int, size: int) -> tuple[int, ...]:
    """Return a tensor's shape with another size along one dimension."""
    return tuple(size if d == dim else n for d, n in enumerate(x.shape))


def _pads(call: Call) -> dict[int, tuple[int, int]]:
    """Return the amounts before and after for each padded dimension."""
    dims = call.args[0].dim()
    flat = [int(n) for n in call.argument(1, "pad")]
    return {dims - 1 - i: (flat[2 * i], flat[2 * i + 1]) for i in range(math.ceil(len(flat) / 2))}


def _entries(items: Any, dims: int) -> list[tuple[int, int, Any]]:
    """Return position in the index, dimension and entry for every entry that takes up a dimension."""
    listed = items if isinstance(items, tuple) else (items,)
    taken = sum(item is not None and item is not Ellipsis for item in listed)
    found, d = [], 0
    for position, item in enumerate(listed):
        if item is Ellipsis:
            d += dims - taken
        elif item is not None:
            found.append((position, d, item))
            d += 1
    return found
