"""Running a graph on images node by node, for what is asked of the values on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from facetask.surgery.labelling import tensors_in
from facetask.surgery.tracing import BATCH, VALUE

MOST_BYTES = 2**30  # of one layer's maps


def affordable(network: fx.GraphModule, images: Tensor) -> Tensor:
    """Return the first images, as many as keep the largest of a traced network's maps within a gibibyte."""
    maps = tensors_in([node.meta.get(VALUE) for node in network.graph.nodes])
    largest = max(value.numel() // BATCH for value in maps)
    return images[: max(1, MOST_BYTES // (largest * images.element_size()))]


def evenly(n: int, most: int) -> Tensor:
    """Return at most so many of n places, evenly spaced."""
    count = min(n, most)
    return torch.arange(count) * n // max(count, 1)


class Values:
    """Runs a graph node by node, and forgets a value after its last use."""

    def __init__(self, network: fx.GraphModule, images: Tensor) -> None:
        self.of: dict[fx.Node, Any] = {}
        self._network, self._images = network, images
        self._left = {node: len(node.users) for node in network.graph.nodes}

    def step(self, node: fx.Node) -> None:
        """Compute one node."""
        if node.op == "output":
            return
        if node.op == "placeholder":
            self.of[node] = self._images.clone()  # in-place operations must not reach the caller's
        else:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.of.__getitem__)
            self.of[node] = getattr(fx.Interpreter(self._network), node.op)(node.target, args, kwargs)
        for source in node.all_input_nodes:
            self._left[source] -= 1
            if not self._left[source]:
                del self.of[source]
