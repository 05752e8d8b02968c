"""Least-squares reconstruction: what the dropped channels told a layer, the kept ones tell it as well as they can.

A layer of the pruned network reads the kept channels x̃ of its input, where the original read all channels x. With B
the least-squares map from x̃ to x over the pixels of some images, weights W B in place of W's kept columns give the
layer's own response to the best linear guess of x, pixel by pixel. A filter sees the neighbouring pixels too, and
what these tell of the dropped channels is fitted next: the correction of all its weights, and of its bias, that
brings the layer's outputs nearest to the original's. Layers are done in order, each on what the layers before it,
already reconstructed, really give.

Source: the idea, and to fit the layer's outputs, is of Y. He, X. Zhang, J. Sun, "Channel Pruning for Accelerating
Very Deep Neural Networks" (arXiv 1707.06168). The map of the inputs, from which the fit starts and which needs few
pixels, is ours.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from facetask.surgery.kept import Kept
from facetask.surgery.labelling import Labelling
from facetask.surgery.values import Values, affordable, evenly

RIDGE = 1e-4
MOST_PIXELS = 50_000
PIXELS_FOR_A_WEIGHT = 8
MOST_WEIGHTS = 2_500  # of one filter: a larger system takes minutes
PIXELS_AT_ONCE = 8_192


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
            target, source = str(node.target), node.args[0]
            layer, new = network.get_submodule(target), small.get_submodule(target)
            if isinstance(layer, nn.Conv2d) and isinstance(new, nn.Conv2d) and layer.groups == 1:
                outputs = labelling.layers[target].slices["weight"][0]
                if outputs is not None and not bool(kept.along(labelling.values[source], 1).all()):
                    wide, narrow = original.of[source], pruned.of[copy.args[0]]
                    _refit(layer, new, layer.weight[kept.indices(outputs)], wide, narrow)
        original.step(node)
        pruned.step(copy)


def _refit(layer: nn.Conv2d, new: nn.Conv2d, weight: Tensor, x: Tensor, narrow: Tensor) -> None:
    """Change a pruned layer's weights.

    Args:
        layer: The original.
        new: The layer of the pruned network.
        weight: The original's weights of the kept filters, ``(n_kept_filters, n_channels, height, width)``.
        x: What the original reads.
        narrow: What the pruned layer reads.
    """
    back = _map_back(x, narrow)
    if back is None:
        return
    new.weight.copy_(torch.einsum("ochw,ck->okhw", weight.double(), back))
    if _is_plain(layer):
        _correct(new, weight, x, narrow)


def _map_back(x: Tensor, narrow: Tensor) -> Tensor | None:
    """Return the least-squares map from kept channels to all, ``(n_channels, n_kept)``, or None for too few pixels."""
    wide, few = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (x, narrow))
    if len(few) < PIXELS_FOR_A_WEIGHT * few.shape[1]:
        return None
    chosen = evenly(len(few), MOST_PIXELS)
    wide, few = wide[chosen].double(), few[chosen].double()
    found = _solve(few.T @ few, few.T @ wide)
    return None if found is None else found.T


def _correct(new: nn.Conv2d, weight: Tensor, x: Tensor, narrow: Tensor) -> None:
    """Bring a pruned layer's outputs nearer to the original's, where there are pixels enough for all its weights."""
    windows, original = _Windows.of(new, narrow), _Windows.of(new, x)
    n = new.weight[0].numel()
    if n > MOST_WEIGHTS or len(windows) < PIXELS_FOR_A_WEIGHT * n:
        return
    has_bias = new.bias is not None
    moments = torch.zeros(n + has_bias, n + has_bias, dtype=torch.float64, device=x.device)
    cross = moments.new_zeros(n + has_bias, len(weight))
    pixels = evenly(len(windows), max(MOST_PIXELS, PIXELS_FOR_A_WEIGHT * n))
    for chosen in torch.split(pixels, PIXELS_AT_ONCE):
        seen = windows[chosen]
        missed = original[chosen] @ weight.flatten(1).T - seen @ new.weight.flatten(1).T
        if has_bias:
            seen = F.pad(seen, (0, 1), value=1.0)
        moments += seen.T @ seen
        cross += seen.T @ missed
    found = _solve(moments, cross)
    if found is None:
        return
    new.weight.add_(found[:n].T.reshape(new.weight.shape))
    if new.bias is not None:
        new.bias.add_(found[n])


@dataclass(frozen=True)
class _Windows:
    """What a convolution with zero padding sees for each pixel of its output.

    Attributes:
        layer: The convolution.
        maps: What it reads, ``(n, channels, height, width)``.
        size: Height and width of its output.
    """

    layer: nn.Conv2d
    maps: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, layer: nn.Conv2d, maps: Tensor) -> _Windows:
        """Return the windows of some maps."""
        right, bottom = layer._reversed_padding_repeated_twice[1::2]
        left, top = layer._reversed_padding_repeated_twice[::2]
        spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        whole = (maps.shape[2] + top + bottom, maps.shape[3] + left + right)
        height, width = ((n - span) // s + 1 for n, span, s in zip(whole, spans, layer.stride, strict=True))
        return cls(layer, maps, (height, width))

    def __len__(self) -> int:
        """Return the number of pixels of all images' outputs."""
        return len(self.maps) * self.size[0] * self.size[1]

    def __getitem__(self, pixels: Tensor) -> Tensor:
        """Return what is seen for some pixels, in the order of a filter's weights, ``(n, channels × kernel)``."""
        image, place = pixels // (self.size[0] * self.size[1]), pixels % (self.size[0] * self.size[1])
        left, top = self.layer._reversed_padding_repeated_twice[::2]
        corner = place // self.size[1] * self.layer.stride[0] - top, place % self.size[1] * self.layer.stride[1] - left
        seen = [self._at(image, *corner, *offset) for offset in product(*map(range, self.layer.kernel_size))]
        return torch.stack(seen, dim=2).flatten(1)

    def _at(self, image: Tensor, top: Tensor, left: Tensor, row: int, column: int) -> Tensor:
        """Return the channels at one place of each window, ``(n, channels)``, zeros outside of the image."""
        y, x = top + row * self.layer.dilation[0], left + column * self.layer.dilation[1]
        height, width = self.maps.shape[2:]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        return self.maps[image, :, y.clamp(0, height - 1), x.clamp(0, width - 1)] * inside[:, None]


def _solve(moments: Tensor, cross: Tensor) -> Tensor | None:
    """Return the ridge regression of given moments; None where nothing comes through, from which to tell anything."""
    size = moments.diagonal().mean()
    if size == 0:
        return None
    moments.diagonal().add_(RIDGE * size)
    solution: Tensor = torch.linalg.solve(moments, cross)
    return solution


def _is_plain(layer: nn.Conv2d) -> bool:
    """Return whether a layer pads its input with zeros as it says, and does nothing else to it."""
    return type(layer).forward is nn.Conv2d.forward and layer.padding_mode == "zeros"
