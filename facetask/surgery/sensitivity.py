"""How much the heads' outputs depend on each channel of each layer.

An error of a layer's output y moves the heads' outputs f by ∂f/∂y times that error, to first order. Where the errors
of pixels and channels have nothing to do with each other, the squared errors of f add up to Σ s_c e_c², with e_c² the
mean squared error of channel c and s_c the sum over pixels of (∂f/∂y)², averaged over images: the channel's
sensitivity. It puts all layers into one unit, that of what the network is for.

Source: gradients as a measure of what a channel is worth go back to Y. LeCun, J. Denker, S. Solla, "Optimal brain
damage" (1989), and M. Mozer, P. Smolensky, "Skeletonization" (1988).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, fx

from facetask.surgery.values import Values

IMAGES_AT_ONCE = 16
SMALLEST_SPREAD = 1e-9

Heads = Mapping[fx.Node, Tensor]
"""For each node whose global average pool heads read, their weights: ``(n_channels, n_outputs)``."""


def sensitivities(
    network: fx.GraphModule, nodes: Collection[fx.Node], heads: Heads, images: Tensor
) -> dict[fx.Node, Tensor]:
    """Return the sensitivity of each channel of some nodes' values, ``(n_channels,)``.

    Outputs count alike: each in units of its standard deviation over the images.

    Args:
        network: The traced network.
        nodes: Nodes whose values are feature maps ``(n, channels, height, width)`` or ``(n, …, channels)``.
        heads: What the network is for.
        images: Normalised images, ``(n, channels, height, width)``.
    """
    with torch.no_grad():
        outputs = torch.cat([_run(network, (), heads, part)[0] for part in torch.split(images, IMAGES_AT_ONCE)])
        unit = outputs.std(0, correction=0)
        weight = torch.where(unit > SMALLEST_SPREAD * unit.max(), 1 / unit, 0.0)
    chance = torch.Generator().manual_seed(0)
    found: dict[fx.Node, Tensor] = {}
    for part in torch.split(images, IMAGES_AT_ONCE):
        with torch.enable_grad():
            outputs, moved = _run(network, nodes, heads, part)
            # Signs by lots: the squared gradient of such a sum is, on average, the sum of the squared gradients.
            signs = torch.randint(0, 2, outputs.shape, generator=chance).to(outputs) * 2 - 1
            total = (outputs * weight * signs).sum()
            gradients = torch.autograd.grad(total, list(moved.values()), materialize_grads=True)
        for node, gradient in zip(moved, gradients, strict=True):
            channels = gradient.movedim(1 if gradient.dim() == 4 else -1, 0).flatten(1).double()
            finite = torch.where(channels.isfinite(), channels, 0.0)  # a root has no gradient at zero
            found[node] = found.get(node, 0) + finite.square().sum(1) / len(images)
    return found


def _run(
    network: fx.GraphModule, nodes: Collection[fx.Node], heads: Heads, images: Tensor
) -> tuple[Tensor, dict[fx.Node, Tensor]]:
    """Return the heads' outputs without biases, ``(n, n_outputs)``, and zeros that were added to nodes' values."""
    values = Values(network, images)
    moved: dict[fx.Node, Tensor] = {}
    outputs: list[Tensor] = []
    for node in network.graph.nodes:
        values.step(node)
        if node in nodes:
            moved[node] = torch.zeros_like(values.of[node]).requires_grad_()
            values.of[node] = values.of[node] + moved[node]
        if node in heads:
            outputs.append(values.of[node].mean((2, 3)) @ heads[node].to(values.of[node]))
    return torch.cat(outputs, dim=1), moved
