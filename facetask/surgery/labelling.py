"""Reading a graph on labels: what every value, layer and parameter of a network is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from facetask.errors import SurgeryError
from facetask.surgery.labels import Components, LabelSpace, compact
from facetask.surgery.tracing import VALUE


@dataclass(frozen=True)
class Call:
    """One node of the graph with labels in place of tensors.

    Attributes:
        node: The node.
        args: Positional arguments.
        kwargs: Keyword arguments.
        result: The node's value, tensors being fake: it tells the shapes.
        module: The module called, if the node calls one.
    """

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    module: nn.Module | None = None

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by its position or its name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return tensors_in((self.args, self.kwargs))

    @property
    def where(self) -> str:
        """The module that the node belongs to, or the node's own name."""
        stack = list(self.node.meta.get("nn_module_stack") or {})
        return (
            str(self.node.target) if self.node.op == "call_module" else (stack[-1] if stack else "") or self.node.name
        )


@dataclass(frozen=True)
class Layer:
    """How a module's parameters follow the labels.

    Attributes:
        slices: For each parameter or buffer, the labels along each of its dimensions (``None``: always whole).
        counts: For each integer attribute, the labels that it counts; a tuple of labels for a tuple of integers.
        columns: The parameter and dimension that the layer's inputs run along, if it mixes them.
    """

    slices: Mapping[str, tuple[Tensor | None, ...]]
    counts: Mapping[str, Tensor | tuple[Tensor, ...]] = field(default_factory=dict)
    columns: tuple[str, int] | None = None


class Labelling:
    """The labels of one network.

    Attributes:
        space: Where the labels come from.
        calls: Every node of the graph on labels, in order.
        values: Labels, sizes and numbers of every node.
        layers: The modules whose parameters follow labels.
        parameters: Labels of the tensors that the graph uses directly.
        statistics: Nodes that reduce or normalise over channels, and so do it over the kept ones.
    """

    def __init__(self, network: fx.GraphModule, *, output_is_fixed: bool) -> None:
        self.space = LabelSpace()
        self.calls: dict[fx.Node, Call] = {}
        self.values: dict[fx.Node, Any] = {}
        self.layers: dict[str, Layer] = {}
        self.parameters: dict[str, Tensor] = {}
        self.statistics: list[fx.Node] = []
        self._network = network
        for node in network.graph.nodes:
            if node.op == "output":
                if output_is_fixed:
                    for labels in tensors_in(fx.node.map_arg(node.args, self.values.__getitem__)):
                        self.space.fix(labels)
                continue
            self.values[node] = self._tidy(self._read(node))
        self._tie()
        self.components: Components = self.space.solve()

    def freeze(self, call: Call, why: str = "") -> Any:
        """Keep whole what an operation touches, and say so; return labels of its result."""
        operation = why or operation_name(call)
        for labels in call.tensors:
            self.space.fix(labels, operation, call.where)
        return self.whole(call.result)

    def whole(self, result: Any) -> Any:
        """Return labels, always kept, for a value."""

        def label(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            labels = self.space.fresh(1)
            self.space.fix(labels)
            return labels.expand(value.shape) if value.dim() else labels[0]

        return torch.utils._pytree.tree_map(label, result)

    def add_layer(self, call: Call, layer: Layer) -> None:
        """Record how a module's parameters follow labels; a module that is used again uses the same."""
        known = self.layers.setdefault(str(call.node.target), layer)
        for name, dims in layer.slices.items():
            for mine, theirs in zip(dims, known.slices[name], strict=True):
                if mine is not None and theirs is not None:
                    self.space.merge(mine, theirs)

    def parameter(self, target: str, value: Tensor) -> Tensor:
        """Return the labels of a tensor that the graph uses directly."""
        if target not in self.parameters:
            self.parameters[target] = compact(self.space.fresh(value.numel()).view(value.shape))
        return self.parameters[target]

    def _read(self, node: fx.Node) -> Any:
        """Return the labels of one node's result."""
        from facetask.surgery.operations import operation_of

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        module = self._network.get_submodule(str(node.target)) if node.op == "call_module" else None
        call = self.calls[node] = Call(node, args, kwargs, node.meta[VALUE], module)
        if node.op == "placeholder":
            shape = call.result.shape
            labels = self.space.fresh(shape[1])
            self.space.fix(labels)
            return labels.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)
        if node.op == "get_attr":
            value = call.result
            return self.parameter(str(node.target), value) if isinstance(value, Tensor) else value
        if not tensors_in(call.result):
            return call.result
        operation = operation_of(node, module)
        if operation is None:
            return self.freeze(call)
        try:
            return operation.label(self, call)
        except SurgeryError:
            raise
        except Exception as error:
            raise SurgeryError(
                f"{call.where}: the operation {operation_name(call)!r} could not be followed "
                f"({type(error).__name__}: {error})"
            ) from error

    def _tidy(self, value: Any) -> Any:
        """Return a value with compact labels; tensors with two pruned dimensions are asked to have one."""

        def tidy(item: Any) -> Any:
            if not isinstance(item, Tensor):
                return item
            labels = compact(item)
            self.space.keep_rectangular(labels)
            return labels

        return torch.utils._pytree.tree_map(tidy, value)

    def _tie(self) -> None:
        """Merge the labels of parameters that several modules share; keep whole what cannot be matched."""
        owners: dict[int, tuple[Tensor | None, ...]] = {}
        used = {
            id(call.result): str(node.target)
            for node, call in self.calls.items()
            if node.op == "get_attr" and any(tensors_in(self.calls[user].result) for user in node.users)
        }
        for target, layer in self.layers.items():
            module = self._network.get_submodule(target)
            for name, dims in layer.slices.items():
                tensor = getattr(module, name, None)
                if tensor is None:
                    continue
                first = owners.setdefault(id(tensor), dims)
                lonely = id(tensor) in used
                for mine, theirs in zip(dims, first, strict=True):
                    if mine is not None and theirs is not None and not lonely:
                        self.space.merge(mine, theirs)
                    elif mine is not None or theirs is not None:
                        for labels in (mine, theirs):
                            if labels is not None:
                                self.space.fix(labels, "a parameter shared in two roles", target)
                if lonely:
                    self.space.fix(self.parameters[used[id(tensor)]])


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors inside nested tuples, lists and dictionaries."""
    return [item for item in torch.utils._pytree.tree_leaves(value) if isinstance(item, Tensor)]


def operation_name(call: Call) -> str:
    """Return an operation's name for messages."""
    if call.module is not None:
        return type(call.module).__name__
    target = call.node.target
    return str(target if isinstance(target, str) else getattr(target, "__name__", target))
