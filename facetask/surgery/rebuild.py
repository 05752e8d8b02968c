"""Rebuilding a network smaller: slice every parameter, and rewrite every constant that counts channels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from facetask.errors import SurgeryError
from facetask.surgery import movement
from facetask.surgery.kept import Kept
from facetask.surgery.labelling import Call, Labelling, Layer, tensors_in
from facetask.surgery.operations import operation_of
from facetask.surgery.tracing import VALUE, evaluate, share


def prune(
    network: fx.GraphModule, labelling: Labelling, kept: Kept, input_shape: tuple[int, int, int]
) -> fx.GraphModule:
    """Return the network with the kept channels only, its nodes with their values; it shares nothing with the original.

    Raises:
        SurgeryError: If the result would not fit together, which is a fault of the engine.
    """
    graph, copies = copy_graph(network.graph)
    for old, new in copies.items():
        call = labelling.calls.get(old)
        operation = operation_of(old, call.module) if call is not None and old.op.startswith("call") else None
        if call is not None and operation is not None and tensors_in(call.result) and operation.resize is not None:
            operation.resize(kept, call, new)
    pruned = fx.GraphModule(slice_parameters(share(network), labelling, kept), graph, type(network).__name__)
    _fit(pruned, copies, labelling, kept, input_shape)
    return pruned.eval()


def same(network: fx.GraphModule) -> fx.GraphModule:
    """Return the same network, which shares the tensors, in evaluation mode."""
    graph, _ = copy_graph(network.graph)
    return bare(fx.GraphModule(share(network), graph, type(network).__name__))


def ending_at(network: fx.GraphModule, nodes: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the network that gives the globally average-pooled maps of some nodes, joined, and no more.

    It shares the network's tensors. A map is pooled as soon as it is there, so that none is held for longer than the
    network needs it.
    """
    graph, copies = copy_graph(network.graph)
    pooled = []
    for node in nodes:
        with graph.inserting_after(copies[node]):
            pooled.append(graph.call_method("mean", (copies[node], (2, 3))))
        pooled[-1].meta[VALUE] = node.meta[VALUE].mean((2, 3))
    (output,) = (node for node in graph.nodes if node.op == "output")
    if len(pooled) == 1:
        output.args = (pooled[0],)
    else:
        with graph.inserting_before(output):
            joined = graph.call_function(torch.cat, (pooled, 1))
        joined.meta[VALUE] = torch.cat([node.meta[VALUE] for node in pooled], 1)
        output.args = (joined,)
    _forget_unused(graph, output)
    return fx.GraphModule(share(network), graph, type(network).__name__)


def bare(network: fx.GraphModule) -> fx.GraphModule:
    """Return a network in evaluation mode, without the fake tensors that its nodes carry."""
    for node in network.graph.nodes:
        node.meta.pop(VALUE, None)
    return network.eval()


def _forget_unused(graph: fx.Graph, output: fx.Node) -> None:
    """Remove what the output does not depend on; in-place operations are in the data flow by now."""
    needed, stack = set[fx.Node](), [output]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    for node in reversed(list(graph.nodes)):
        if node not in needed and node.op != "placeholder":
            graph.erase_node(node)


def copy_graph(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """Return a copy of a graph, and the copy of each node."""
    new, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        copies[node] = new.node_copy(node, copies.__getitem__)
        copies[node].meta = dict(node.meta)
    return new, copies


def slice_parameters(network: fx.GraphModule, labelling: Labelling, kept: Kept) -> fx.GraphModule:
    """Slice a network's tensors in place, and copy those that stay whole; tensors that were one stay one."""
    sliced: dict[int, Tensor] = {}

    def replace(owner: nn.Module, name: str, dims: tuple[Tensor | None, ...]) -> None:
        tensor = getattr(owner, name)
        if id(tensor) not in sliced:
            sliced[id(tensor)] = _slice(tensor, dims, kept)
        setattr(owner, name, sliced[id(tensor)])

    for target, layer in labelling.layers.items():
        module = network.get_submodule(target)
        for name, dims in layer.slices.items():
            if isinstance(getattr(module, name, None), Tensor):
                replace(module, name, dims)
        recount(module, layer, kept)
    for target, labels in labelling.parameters.items():
        owner, _, name = target.rpartition(".")
        vectors = tuple(labels.movedim(d, 0) if labels.stride(d) else None for d in range(labels.dim()))
        replace(network.get_submodule(owner), name, vectors)
    done = {id(tensor) for tensor in sliced.values()}
    for module in network.modules():
        held = {**module._parameters, **module._buffers}
        for name in [name for name, tensor in held.items() if tensor is not None and id(tensor) not in done]:
            replace(module, name, ())
    return network


def recount(module: nn.Module, layer: Layer, kept: Kept) -> None:
    """Set the attributes of a module that count channels."""
    for name, labels in layer.counts.items():
        setattr(
            module,
            name,
            tuple(kept.count(dim) for dim in labels) if isinstance(labels, tuple) else kept.count(labels),
        )


def slice_module(module: nn.Module, layer: Layer, kept: Kept) -> nn.Module:
    """Return a smaller copy of one module."""
    smaller = copy.deepcopy(module)
    for name, dims in layer.slices.items():
        if isinstance(getattr(smaller, name, None), Tensor):
            setattr(smaller, name, _slice(getattr(smaller, name), dims, kept))
    recount(smaller, layer, kept)
    return smaller


def _slice(tensor: Tensor, dims: tuple[Tensor | None, ...], kept: Kept) -> Tensor:
    """Return a copy of what is kept of a tensor, as a parameter if it was one."""
    values = tensor.detach()
    for d, labels in enumerate(dims):
        if labels is not None and not bool(kept.along(labels, 0).all()):
            values = values.index_select(d, kept.indices(labels).to(values.device))
    values = values.clone(memory_format=torch.contiguous_format) if values.is_contiguous() else copy.deepcopy(values)
    return nn.Parameter(values, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def _fit(
    pruned: fx.GraphModule,
    copies: Mapping[fx.Node, fx.Node],
    labelling: Labelling,
    kept: Kept,
    input_shape: tuple[int, int, int],
) -> None:
    """Follow the shapes through the pruned network, compare them with what the labels say, and settle numbers."""
    values: dict[fx.Node, Any] = {}
    for old, new in copies.items():
        if old.op == "output":
            break
        changed = {copies[n] for n in old.all_input_nodes if _is_number(n) and values[copies[n]] != n.meta[VALUE]}
        if changed and isinstance(old.meta[VALUE], Tensor):
            _settle(labelling.calls[old], new, kept, changed, copies)
        try:
            values[new] = evaluate(pruned, new, values, input_shape)
        except Exception as error:  # whatever torch says about shapes that do not fit
            raise SurgeryError(_unfit(old, f"{type(error).__name__}: {error}")) from error
        expected = [kept.sizes(labels) for labels in tensors_in(kept.values[old])]
        found = [list(tensor.shape) for tensor in tensors_in(values[new])]
        if found != expected and old.op != "get_attr":  # a parameter may be asked for no more than its device
            raise SurgeryError(_unfit(old, f"shapes {found} where {expected} were expected"))
        new.meta[VALUE] = values[new]
    pruned.recompile()


def _settle(call: Call, node: fx.Node, kept: Kept, changed: set[fx.Node], copies: Mapping[fx.Node, fx.Node]) -> None:
    """Replace numbers that the code computes from channel counts: sizes by the new ones, factors by the old ones."""
    operation = operation_of(call.node, call.module)
    if operation is not None and operation.resize is movement.resize_sizes:
        movement.pin_sizes(kept, call, node, changed)
    elif operation is None or operation.resize is None:
        before = {copies[n]: n.meta[VALUE] for n in call.node.all_input_nodes}
        node.args, node.kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: before[n] if n in changed else n)


def _is_number(node: fx.Node) -> bool:
    """Whether a node's value is a number, or a sequence of numbers."""
    return isinstance(node.meta[VALUE], int | float)


def _unfit(node: fx.Node, found: str) -> str:
    """Say that a pruned network does not fit together."""
    stack = list(node.meta.get("nn_module_stack") or {})
    return (
        f"{stack[-1] if stack else node.name}: `{node.name}` does not fit in the pruned network ({found}); the sizes "
        "in its code cannot be rewritten: compute them from shapes, or leave the taps that it depends on whole"
    )
