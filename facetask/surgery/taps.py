"""Finding the taps of a graph: by rule, or where an architecture names them.

The rule: for every convolution, the place where its filters' responses are read. From the convolution, follow its
result downstream through what belongs to it (norm, affine, the addition that it feeds, a gate, the max over its halves)
until after the first activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from facetask.errors import SurgeryError, did_you_mean
from facetask.surgery.operations import MODULES, Role, operation_of
from facetask.surgery.tracing import VALUE

_PASS_ALONE = frozenset({"norm", "activation", "addition", "scaling", "padding"})
_PASS_AMONG_OTHERS = frozenset({"norm", "activation", "scaling"})


@dataclass(frozen=True)
class Tap:
    """A place where one layer's filter responses are read.

    Attributes:
        name: Qualified name of the convolution whose filters are read, unless the architecture names its taps.
        n_filters: How many filters there are.
        node: Name of the graph's node that holds the responses, ``(batch, n_filters, height, width)``.
        convolution: Qualified name of the convolution whose filters are read.
    """

    name: str
    n_filters: int
    node: str
    convolution: str


def find_taps(network: fx.GraphModule, names: Sequence[str] | None = None) -> tuple[Tap, ...]:
    """Return the taps of a traced network, input side first.

    Args:
        network: The network; its nodes carry their values.
        names: The modules whose outputs are the taps. By default every place where a convolution is read is one, named
            after the deepest convolution that is read there.

    Raises:
        SurgeryError: If a name is no module's, or the module's output is no feature map of a convolution.
    """
    read_at = _read_at(network)
    if names is None:
        return tuple(_tap(convolution, where, convolution) for where, convolution in read_at.items())
    places = [(_output_of(network, name), name) for name in names]
    order = {node: position for position, node in enumerate(network.graph.nodes)}
    places.sort(key=lambda place: order[place[0]])
    return tuple(_tap(name, where, read_at.get(where) or _last_convolution(network, name)) for where, name in places)


def _tap(name: str, where: fx.Node, convolution: str) -> Tap:
    """Return the tap at a node."""
    return Tap(name, int(where.meta[VALUE].shape[1]), where.name, convolution)


def _output_of(network: fx.GraphModule, name: str) -> fx.Node:
    """Return the last node of a module, which must hold a feature map."""
    stacks = {
        node: [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()] for node in network.graph.nodes
    }
    own: list[fx.Node] = [node for node, paths in stacks.items() if name in paths]
    if not own:
        modules = dict.fromkeys(path for paths in stacks.values() for path in paths)
        raise SurgeryError(f"no module {name!r} to be a tap in this network{did_you_mean(name, modules)}")
    value = own[-1].meta.get(VALUE)
    if not isinstance(value, Tensor) or value.dim() != 4:
        raise SurgeryError(
            f"module {name!r} cannot be a tap: its output is no feature map (batch, channels, height, width)"
        )
    return own[-1]


def _last_convolution(network: fx.GraphModule, name: str) -> str:
    """Return the last convolution inside a module."""
    inside = network.get_submodule(name).named_modules(prefix=name)
    found: list[str] = [path for path, module in inside if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    if not found:
        raise SurgeryError(f"module {name!r} cannot be a tap: no convolution's filters are read there")
    return found[-1]


def _read_at(network: fx.GraphModule) -> dict[fx.Node, str]:
    """Return the places where convolutions are read, in the graph's order, each with its deepest convolution."""
    search = _Search(network)
    depths = _depths(network)
    readers: dict[fx.Node, list[fx.Node]] = {}
    named: set[object] = set()
    for node in network.graph.nodes:
        if search.is_convolution(node) and node.target not in named and not search.is_pooled(node.args[0]):
            named.add(node.target)
            readers.setdefault(search.response(node), []).append(node)
    order = {node: position for position, node in enumerate(network.graph.nodes)}
    found = {where: max(nodes, key=lambda node: (depths[node], order[node])) for where, nodes in readers.items()}
    return {where: str(found[where].target) for where in sorted(found, key=order.__getitem__)}


class _Search:
    """Walks a graph downstream from its convolutions."""

    def __init__(self, network: fx.GraphModule) -> None:
        self._modules = dict(network.named_modules())
        self._roles: dict[fx.Node, Role] = {}
        self._pooled: set[fx.Node] = set()
        self._constant: set[fx.Node] = set()
        for node in network.graph.nodes:
            operation = operation_of(node, self._module(node)) if node.op.startswith("call") else None
            self._roles[node] = operation.role if operation else "other"
            sources = [source for source in node.all_input_nodes if _is_tensor(source)]
            if node.op == "get_attr" or (sources and all(source in self._constant for source in sources)):
                self._constant.add(node)
            elif self._pools_everything(node) or (
                any(source in self._pooled for source in sources) and not _has_space(node)
            ):
                self._pooled.add(node)

    def is_convolution(self, node: fx.Node) -> bool:
        """Whether a node calls a two-dimensional convolution."""
        return isinstance(self._module(node), nn.Conv2d | nn.ConvTranspose2d)

    def is_pooled(self, node: object) -> bool:
        """Whether a value has been pooled over the whole image: what follows is a gate or a head."""
        return node in self._pooled

    def response(self, node: fx.Node) -> fx.Node:
        """Return the node where a convolution's responses are read."""
        while not self._is_activation(node):
            following = self._next(node) or self._max_over_parts(node)
            if following is None:
                break
            node = following
        return node

    def _next(self, node: fx.Node) -> fx.Node | None:
        """Return the user of a value that still belongs to the same convolution, if there is exactly one."""
        users = [user for user in node.users if _is_tensor(user)]
        passable = _PASS_ALONE if len(users) == 1 else _PASS_AMONG_OTHERS
        own = [user for user in users if self._carries(node, user, passable)]
        return own[0] if len(own) == 1 else None

    def _carries(self, node: fx.Node, user: fx.Node, passable: frozenset[str]) -> bool:
        """Whether a user passes a value's channels on, position by position."""
        role, module = self._roles[user], self._module(user)
        transparent = isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d) or user.target == "contiguous"
        before, after = node.meta[VALUE].shape, getattr(user.meta[VALUE], "shape", ())
        same = before[:2] == after[:2] if role == "padding" else before == after
        if role == "scaling" and len(node.users) > 1:
            others = [other for other in user.all_input_nodes if other is not node and _is_tensor(other)]
            return same and all(other in self._pooled or other in self._constant for other in others)
        return same and (role in passable or transparent)

    def _max_over_parts(self, node: fx.Node) -> fx.Node | None:
        """Return the maximum that all of a value goes into, in parts (max-feature-map), if it does."""
        ends: set[fx.Node] = set()
        reach = [node]
        for source in reach:
            for user in (user for user in source.users if _is_tensor(user)):
                if self._roles[user] == "move":
                    reach.append(user)
                else:
                    ends.add(user)
        end = next(iter(ends)) if len(ends) == 1 else None
        if end is None or len(reach) == 1 or self._roles[end] != "maximum":
            return None
        if isinstance(end.meta[VALUE], tuple):  # max(x, dim) returns values and positions
            values = [user for user in end.users if user.target is getattr or user.args[1] == 0]
            end = values[0] if len(values) == 1 else None
        return end if end is not None and end.meta[VALUE].dim() == 4 else None

    def _is_activation(self, node: fx.Node) -> bool:
        """Whether a node ends with an activation; some norms have one inside."""
        module = self._module(node)
        inside = [] if module is None else [part for part in module.modules() if part is not module]
        return self._roles[node] == "activation" or any(
            MODULES[base].role == "activation" for part in inside for base in type(part).__mro__ if base in MODULES
        )

    def _pools_everything(self, node: fx.Node) -> bool:
        """Whether a node reduces every map to one number."""
        return self._roles[node] == "pool" and _is_tensor(node) and not _has_space(node)

    def _module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls."""
        return self._modules[str(node.target)] if node.op == "call_module" else None


def _is_tensor(node: fx.Node) -> bool:
    """Whether a node's value is a tensor, or several."""
    value = node.meta.get(VALUE)
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return any(isinstance(item, Tensor) for item in value)
    return isinstance(value, Tensor)


def _has_space(node: fx.Node) -> bool:
    """Whether a value has maps of more than one pixel."""
    value = node.meta.get(VALUE)
    return isinstance(value, Tensor) and value.dim() == 4 and value.shape[2] * value.shape[3] > 1


def _depths(network: fx.GraphModule) -> Mapping[fx.Node, int]:
    """Return for every node how many layers lie between it and the input, itself included."""
    depths: dict[fx.Node, int] = {}
    for node in network.graph.nodes:
        before = max((depths[source] for source in node.all_input_nodes), default=0)
        depths[node] = before + (node.op == "call_module")
    return depths
