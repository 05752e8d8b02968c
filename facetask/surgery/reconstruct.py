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

    Layers that are used more than once and layers that see too few pixels for a fit (of a gate, on pooled maps) are
    left as they are. The filters of a grouped convolution read no other channels than before; they are fitted to what
    the pruned network gives of these.

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
        copy, target = copies[node.name], str(node.target)
        outputs = _outputs_to_fit(network, labelling, kept, node) if uses[target] == 1 else None
        if outputs is None:
            original.step(node)
        else:
            layer, new = network.get_submodule(target), small.get_submodule(target)
            assert isinstance(layer, nn.Conv2d)
            assert isinstance(new, nn.Conv2d)
            x, narrow = original.of[node.all_input_nodes[0]], pruned.of[copy.all_input_nodes[0]]
            original.step(node)
            if _mapped_back(layer, new, outputs, x, narrow) and _is_plain(layer):
                _correct(new, narrow, original.of[node], outputs)
        pruned.step(copy)


def _outputs_to_fit(network: nn.Module, labelling: Labelling, kept: Kept, node: fx.Node) -> Tensor | None:
    """Return which outputs are kept of the convolution that a node calls; None unless it is one that lost inputs."""
    if node.op != "call_module" or not isinstance(network.get_submodule(str(node.target)), nn.Conv2d):
        return None
    labels = labelling.layers[str(node.target)].slices["weight"][0]
    if labels is None or bool(kept.along(labelling.values[node.all_input_nodes[0]], 1).all()):
        return None
    return kept.indices(labels)


def _mapped_back(layer: nn.Conv2d, new: nn.Conv2d, outputs: Tensor, x: Tensor, narrow: Tensor) -> bool:
    """Give a pruned convolution the weights that read its input's best guess of all channels; tell whether that can be.

    Args:
        layer: The original.
        new: The convolution of the pruned network.
        outputs: The original's outputs that it has.
        x: What the original reads.
        narrow: What the pruned one reads.
    """
    if layer.groups > 1:  # each filter has all that it read
        return True
    wide, few = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (x, narrow))
    if len(few) < PIXELS_FOR_A_WEIGHT * few.shape[1]:
        return False
    chosen = evenly(len(few), MOST_PIXELS)
    wide, few = wide[chosen].double(), few[chosen].double()
    moments = few.T @ few
    if not moments.any():  # nothing comes through, from which anything could be told
        return False
    back = _solve(moments, few.T @ wide)
    new.weight.copy_(torch.einsum("ochw,kc->okhw", layer.weight[outputs].double(), back))
    return True


def _is_plain(layer: nn.Conv2d) -> bool:
    """Return whether a convolution does nothing to its input but pad it with zeros, as it says."""
    return type(layer).forward is nn.Conv2d.forward and layer.padding_mode == "zeros"


def _correct(new: nn.Conv2d, narrow: Tensor, y: Tensor, outputs: Tensor) -> None:
    """Bring a pruned convolution's outputs nearer to the original's, where there are pixels enough for all its weights.

    Args:
        new: The convolution.
        narrow: What it reads.
        y: What the original gives.
        outputs: Which of its channels the pruned one has.
    """
    windows, groups, n = _Windows(new, narrow, (y.shape[2], y.shape[3])), new.groups, new.weight[0].numel()
    if n > MOST_WEIGHTS or len(windows) < PIXELS_FOR_A_WEIGHT * n:
        return
    weight = new.weight.reshape(groups, -1, n)
    if new.bias is not None:
        weight = torch.cat([weight, new.bias.reshape(groups, -1, 1)], dim=2)
    width = weight.shape[2]
    moments = torch.zeros(groups, width, width, dtype=torch.float64, device=y.device)
    cross = moments.new_zeros(groups, width, weight.shape[1])
    pixels = evenly(len(windows), max(MOST_PIXELS, PIXELS_FOR_A_WEIGHT * n)).to(y.device)
    for chosen in torch.split(pixels, PIXELS_AT_ONCE):
        image, row, column = windows.places(chosen)
        seen = windows[chosen].reshape(len(chosen), groups, n).movedim(1, 0)
        seen = F.pad(seen, (0, width - n), value=1.0)
        wanted = y[image, :, row, column][:, outputs].reshape(len(chosen), groups, -1).movedim(1, 0)
        moments += seen.mT @ seen
        cross += seen.mT @ (wanted - seen @ weight.mT)
    correction = _solve(moments, cross).mT.flatten(0, 1)
    new.weight.add_(correction[:, :n].reshape(new.weight.shape))
    if new.bias is not None:
        new.bias.add_(correction[:, n])


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

    def __len__(self) -> int:
        """Return the number of pixels of all images' outputs."""
        return len(self.maps) * self.size[0] * self.size[1]

    def places(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image, row and column of some pixels, counted through all images, row by row."""
        height, width = self.size
        return pixels // (height * width), pixels // width % height, pixels % width

    def __getitem__(self, pixels: Tensor) -> Tensor:
        """Return what is seen for some pixels, in the order of a filter's weights, ``(n, channels × kernel)``."""
        image, row, column = self.places(pixels)
        top, left = _padding(self.layer)
        corner = row * self.layer.stride[0] - top, column * self.layer.stride[1] - left
        seen = [self._at(image, *corner, *offset) for offset in product(*map(range, self.layer.kernel_size))]
        return torch.stack(seen, dim=2).flatten(1)

    def _at(self, image: Tensor, top: Tensor, left: Tensor, row: int, column: int) -> Tensor:
        """Return the channels at one place of each window, ``(n, channels)``, zeros outside of the image."""
        y, x = top + row * self.layer.dilation[0], left + column * self.layer.dilation[1]
        height, width = self.maps.shape[2:]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        return self.maps[image, :, y.clamp(0, height - 1), x.clamp(0, width - 1)] * inside[:, None]


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    """Return how many zeros a convolution puts before the first row and before the first column."""
    if layer.padding == "same":
        top, left = (d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    else:
        top, left = (0, 0) if isinstance(layer.padding, str) else layer.padding
    return int(top), int(left)


def _solve(moments: Tensor, cross: Tensor) -> Tensor:
    """Return the ridge regressions of given moments ``(…, n, n)``; zeros where nothing comes through to tell from."""
    size = moments.diagonal(dim1=-2, dim2=-1).mean(-1)
    penalty = torch.where(size > 0, RIDGE * size, 1.0)
    moments.diagonal(dim1=-2, dim2=-1).add_(penalty[..., None])
    solution: Tensor = torch.linalg.solve(moments, cross)
    return solution
