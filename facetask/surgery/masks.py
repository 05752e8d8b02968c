"""The reference for pruning: the network at its original size, with nothing read from the dropped channels."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, fx, nn

from facetask.surgery import rebuild
from facetask.surgery.kept import Kept
from facetask.surgery.labelling import Labelling, tensors_in
from facetask.surgery.labels import varying
from facetask.surgery.operations import operation_of
from facetask.surgery.tracing import share


def mask(network: fx.GraphModule, labelling: Labelling, kept: Kept) -> fx.GraphModule:
    """Return a copy of the network whose layers read zero from every dropped channel.

    The columns of dropped channels are zeroed in every layer that mixes its inputs, and in the network's output. What
    is computed over channels (layer and group norms, means and maxima over channels) is computed over the kept ones.
    """
    graph, copies = rebuild.copy_graph(network.graph)
    masked = copy.deepcopy(share(network))
    for target, layer in labelling.layers.items():
        if layer.columns is None:
            continue
        parameter, dim = layer.columns
        weight, labels = getattr(masked.get_submodule(target), parameter), layer.slices[parameter][dim]
        if labels is not None:
            shape = [-1 if d == dim else 1 for d in range(weight.dim())]
            weight.data.mul_(kept.along(labels, 0).view(shape).to(weight))
    for number, node in enumerate(labelling.statistics):
        name = f"over_kept_{number}"
        masked.add_submodule(name, _OverKept(network, labelling, kept, node))
        old = copies[node]
        with graph.inserting_before(old):
            new = graph.call_module(name, tuple(old.all_input_nodes))
        old.replace_all_uses_with(new)
        graph.erase_node(old)
    for node in network.graph.nodes:
        if node.op == "output" and isinstance(node.args[0], fx.Node):
            labels = labelling.values[node.args[0]]
            if isinstance(labels, Tensor) and varying(labels):
                masked.add_submodule("output_mask", _Mask(kept.mask(labels[:1]), like=next(masked.parameters(), None)))
                with graph.inserting_before(copies[node]):
                    copies[node].args = (graph.call_module("output_mask", (copies[node.args[0]],)),)
    graph.lint()
    return rebuild.bare(fx.GraphModule(masked, graph, type(network).__name__))


class _Mask(nn.Module):
    """Zeroes dropped outputs."""

    kept: Tensor

    def __init__(self, kept: Tensor, like: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("kept", kept.to(like) if like is not None else kept.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, ``(batch, n)``, with zeros at the dropped ones."""
        return x * self.kept


class _OverKept(nn.Module):
    """One operation of a network, computed over the kept channels and put back at the original size."""

    def __init__(self, network: fx.GraphModule, labelling: Labelling, kept: Kept, node: fx.Node) -> None:
        super().__init__()
        call = labelling.calls[node]
        graph = fx.Graph()
        inputs = {source: graph.placeholder(source.name) for source in node.all_input_nodes}
        inner = graph.node_copy(node, inputs.__getitem__)
        operation = operation_of(node, call.module)
        if operation is not None and operation.resize is not None:
            operation.resize(kept, call, inner)
        graph.output(inner)
        root: dict[str, Any] = {}
        if call.module is not None:
            target = str(node.target)
            root[target] = rebuild.slice_module(call.module, labelling.layers[target], kept)
        self.inner = fx.GraphModule(root, graph)
        self._inputs = [_kept_positions(labelling.values[source], kept) for source in node.all_input_nodes]
        self._outputs = [_kept_positions(labels, kept) for labels in tensors_in(labelling.values[node])]
        self._shapes = [labels.shape for labels in tensors_in(labelling.values[node])]

    def forward(self, *inputs: Any) -> Any:
        """Return the operation's result on the kept channels, with zeros elsewhere."""
        gathered = [
            x.index_select(where[0], where[1]) if where is not None else x
            for x, where in zip(inputs, self._inputs, strict=True)
        ]
        result = self.inner(*gathered)
        where = self._outputs[0]
        if where is None:
            return result
        shape = list(result.shape)
        shape[where[0]] = self._shapes[0][where[0]]
        return result.new_zeros(shape).index_copy(where[0], where[1], result)


def _kept_positions(labels: Any, kept: Kept) -> tuple[int, Tensor] | None:
    """Return the dimension that is made of channels, and the kept positions along it."""
    if not isinstance(labels, Tensor):
        return None
    for d in varying(labels):
        if not bool(kept.along(labels, d).all()):
            return d, kept.indices(labels, d)
    return None
