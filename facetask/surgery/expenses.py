"""What a network costs by its labels: multiply–accumulates and bytes, for any choice of components, from shapes alone.

Both are sums of products of channel counts: a convolution's multiply–accumulates grow with the kept channels on either
side of it, a batch norm's bytes with those of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from facetask.surgery.labelling import Labelling
from facetask.surgery.labels import varying

Indices = NDArray[np.intp]

_FLOAT = 4  # bytes
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_COUNTS = {False: ("in_channels", "out_channels"), True: ("in_features", "out_features")}  # of linear layers or not


@dataclass(frozen=True)
class Part:
    """What is paid for every combination of some channels.

    Attributes:
        each: The price of one combination.
        dims: Component of each channel along each of its dimensions, ``(n_channels,)``; none for what is always paid.
    """

    each: float
    dims: tuple[Indices, ...]

    def total(self, kept: NDArray[np.bool_]) -> float:
        """Return what the kept components pay."""
        return self.each * math.prod(int(kept[own].sum()) for own in self.dims)


@dataclass(frozen=True)
class Limit:
    """How much a network may cost.

    Attributes:
        parts: What is paid.
        most: The most that may be paid.
    """

    parts: tuple[Part, ...]
    most: float

    def total(self, kept: NDArray[np.bool_]) -> float:
        """Return what the kept components pay."""
        return sum(part.total(kept) for part in self.parts)

    def costs(self, n: int, place: Indices, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return what each of some components would pay with all else that is kept, ``(n,)``.

        Args:
            n: How many they are.
            place: For each component of the network its place among them; negative for the others.
            kept: Which components are kept.
        """
        cost = np.zeros(n)
        for part in self.parts:
            for index, own in enumerate(part.dims):
                others = math.prod(int(kept[dim].sum()) for dim in (*part.dims[:index], *part.dims[index + 1 :]))
                mine = place[own]
                np.add.at(cost, mine[mine >= 0], part.each * others)
        return cost


def macs_of(network: fx.GraphModule, labelling: Labelling) -> tuple[Part, ...]:
    """Return what every use of a layer with weights pays in multiply–accumulates for one image."""
    found = []
    for node, call in labelling.calls.items():
        layer = weighted_layer(network, labelling, node)
        if layer is None:
            continue
        inputs, outputs = channels(layer, labelling, node)
        linear, transposed = isinstance(layer, nn.Linear), isinstance(layer, nn.ConvTranspose2d)
        maps = labelling.calls[node.all_input_nodes[0]].result if transposed else call.result
        weight = layer.get_parameter("weight")
        each = float(math.prod(maps.shape[1:-1] if linear else maps.shape[2:]) * math.prod(weight.shape[2:]))
        mixes = labelling.layers[str(node.target)].columns is not None
        groups = getattr(layer, "groups", 1)
        found.append(Part(each / groups, (outputs, inputs)) if mixes else Part(each * weight.shape[1], (outputs,)))
    return tuple(found)


def bytes_of(network: nn.Module, labelling: Labelling) -> tuple[Part, ...]:
    """Return what every tensor of a network pays in bytes, once, even where several modules share it."""
    along: dict[int, list[Tensor]] = {}
    for target, layer in labelling.layers.items():
        module = network.get_submodule(target)
        for name, own in layer.slices.items():
            along.setdefault(id(getattr(module, name, None)), [labels for labels in own if labels is not None])
    for target, labels in labelling.parameters.items():
        owner, _, name = target.rpartition(".")
        tensor = getattr(network.get_submodule(owner), name)
        along.setdefault(id(tensor), [labels.movedim(d, 0) for d in varying(labels)])
    found = []
    for tensor in [*network.parameters(), *network.buffers()]:
        dims = tuple(labelling.components.of(_vector(labels)) for labels in along.get(id(tensor), ()))
        found.append(Part(tensor.numel() * tensor.element_size() / math.prod(map(len, dims)), dims))
    return tuple(found)


def head_bytes(filters: Indices, n_outputs: int) -> tuple[Part, Part]:
    """Return what the weights and biases of a linear head, or of several, pay in bytes.

    Args:
        filters: Component of each filter that it reads, ``(n_filters,)``.
        n_outputs: Its outputs.
    """
    return Part(_FLOAT * n_outputs, (filters,)), Part(_FLOAT * n_outputs, ())


def weighted_layer(network: nn.Module, labelling: Labelling, node: fx.Node) -> nn.Module | None:
    """Return the convolution or linear layer that a node calls; None where it calls none, or one kept whole."""
    if node.op != "call_module" or str(node.target) not in labelling.layers:
        return None
    layer = network.get_submodule(str(node.target))
    return layer if isinstance(layer, _WEIGHTED) else None


def channels(layer: nn.Module, labelling: Labelling, node: fx.Node) -> tuple[Indices, Indices]:
    """Return the component of each input channel and of each output channel of a layer with weights."""
    labels = labelling.layers[str(node.target)].counts
    inputs, outputs = (labels[name] for name in _COUNTS[isinstance(layer, nn.Linear)])
    assert isinstance(inputs, Tensor)
    assert isinstance(outputs, Tensor)
    return labelling.components.of(inputs), labelling.components.of(outputs)


def _vector(labels: Tensor) -> Tensor:
    """Return the labels along the first dimension."""
    return labels if labels.dim() == 1 else labels.flatten(1)[:, 0]
