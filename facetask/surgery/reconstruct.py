"""Least-squares reconstruction: what the dropped channels told a layer, the kept ones tell it as well as they can.

A layer of the pruned network reads the kept channels x̃ of its input, where the original read all channels x. With B the
least-squares map from x̃ to x over the pixels of some images, weights W B in place of W's kept columns give the layer's
own response to the best linear guess of x. Layers are done in order, each on what the layers before it, already
reconstructed, really give.

Source: the idea is that of Y. He, X. Zhang, J. Sun, "Channel Pruning for Accelerating Very Deep Neural Networks"
(arXiv 1707.06168), which fits the layer's outputs; fitting its inputs needs one small system for all filters.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn

from facetask.surgery.kept import Kept
from facetask.surgery.labelling import Labelling
from facetask.surgery.values import Values, affordable

RIDGE = 1e-4
MOST_PIXELS = 50_000
PIXELS_FOR_A_CHANNEL = 8


@torch.no_grad()
def reconstruct(
    network: fx.GraphModule, small: fx.GraphModule, labelling: Labelling, kept: Kept, images: Tensor
) -> None:
    """Fold what can be told of the dropped channels into the pruned network's weights, in place.

    Grouped convolutions, layers that are used more than once and layers that see too few pixels for a fit (of a gate,
    on pooled maps) are left as they are.

    Args:
        network: The original.
        small: The pruned network; its nodes have the original's names.
        labelling: The original's labels.
        kept: What was kept.
        images: Normalised images, ``(n, channels, height, width)``; where their maps would take too much memory, only
            the first are used.
    """
    images = affordable(network, images)
    uses = Counter(str(node.target) for node in network.graph.nodes if node.op == "call_module")
    copies = {node.name: node for node in small.graph.nodes}
    original, pruned = Values(network, images), Values(small, images)
    for node in network.graph.nodes:
        copy = copies[node.name]
        if node.op == "call_module" and uses[str(node.target)] == 1:
            _refit(
                str(node.target), network, small, labelling, kept, original.of, pruned.of, node.args[0], copy.args[0]
            )
        original.step(node)
        pruned.step(copy)


def _refit(
    target: str,
    network: fx.GraphModule,
    small: fx.GraphModule,
    labelling: Labelling,
    kept: Kept,
    original: dict[fx.Node, Any],
    pruned: dict[fx.Node, Any],
    source: Any,
    copy: Any,
) -> None:
    """Change the pruned network's weights of one layer, if it mixes inputs of which some were dropped."""
    layer = network.get_submodule(target)
    if not isinstance(layer, nn.Conv2d) or layer.groups > 1 or bool(kept.along(labelling.values[source], 1).all()):
        return
    outputs = labelling.layers[target].slices["weight"][0]
    back = _map_back(original[source], pruned[copy])
    if back is not None and outputs is not None:
        weight = torch.einsum("ochw,ck->okhw", layer.weight[kept.indices(outputs)].double(), back)
        small.get_submodule(target).get_parameter("weight").copy_(weight)


def _map_back(x: Tensor, narrow: Tensor) -> Tensor | None:
    """Return the least-squares map from kept channels to all, ``(n_channels, n_kept)``, or None for too few pixels."""
    wide, few = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (x, narrow))
    if len(few) < PIXELS_FOR_A_CHANNEL * few.shape[1]:
        return None
    chosen = torch.linspace(0, len(few) - 1, min(len(few), MOST_PIXELS)).long()
    wide, few = wide[chosen].double(), few[chosen].double()
    moments = few.T @ few
    size = moments.diagonal().mean()
    if size == 0:  # nothing comes through: there is nothing to tell x from
        return None
    moments.diagonal().add_(RIDGE * size)
    back: Tensor = torch.linalg.solve(moments, few.T @ wide).T
    return back
