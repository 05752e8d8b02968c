"""VGG-16: thirteen 3×3 convolutions in five blocks and, where there is a top, three fully connected layers.

Its structure is a table: each layer's name and the shape of its weights. The readers of ``vgg_layouts`` check files
against the same table, so that another number of outputs is all that another VGG-16 needs.

Source: K. Simonyan and A. Zisserman, arXiv 1409.1556 (configuration D); layers are named as in its published weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS: Mapping[str, int] = {
    "conv1_1": 64,
    "conv1_2": 64,
    "conv2_1": 128,
    "conv2_2": 128,
    "conv3_1": 256,
    "conv3_2": 256,
    "conv3_3": 256,
    "conv4_1": 512,
    "conv4_2": 512,
    "conv4_3": 512,
    "conv5_1": 512,
    "conv5_2": 512,
    "conv5_3": 512,
}
INPUT_SIZE = 224
TOP_SIDE = 7  # height and width of the map that fc6 sees: 224 halved five times
_HIDDEN = 4096

Shapes = Mapping[str, tuple[int, ...]]


def layer_shapes(
    n_outputs: int | None, *, widths: Mapping[str, int] = WIDTHS, hidden: int = _HIDDEN
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer's weights, input side first.

    Convolutions have (outputs, inputs, 3, 3), fully connected layers (outputs, inputs); fc6's inputs are in the order
    channel, row, column.

    Args:
        n_outputs: Outputs of fc8; None for the convolutions only.
        widths: Outputs of each convolution.
        hidden: Outputs of fc6 and fc7.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for name, outputs in widths.items():
        shapes[name] = (outputs, inputs, 3, 3)
        inputs = outputs
    if n_outputs is not None:
        shapes["fc6"] = (hidden, inputs * TOP_SIDE**2)
        shapes["fc7"] = (hidden, hidden)
        shapes["fc8"] = (n_outputs, hidden)
    return shapes


class Vgg16(nn.Module):
    """The network that a table of shapes describes, for 224×224 images.

    224 is a multiple of 32, so the max-pools meet only even sizes: whether they round up, as Caffe's do, or down makes
    no difference.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self._blocks: dict[str, list[str]] = {}
        for name, (outputs, inputs, *kernel) in shapes.items():
            if kernel:
                self.add_module(name, nn.Conv2d(inputs, outputs, 3, padding=1))
                self._blocks.setdefault(name.partition("_")[0], []).append(name)
            else:
                self.add_module(name, nn.Linear(inputs, outputs))
        self.pool = nn.MaxPool2d(2)
        self.has_top = "fc8" in shapes
        if self.has_top:
            self.dropout = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        """Return scores before the softmax, ``(batch, n_outputs)``; without a top, maps ``(batch, 512, 7, 7)``."""
        for names in self._blocks.values():
            for name in names:
                x = functional.relu(self.get_submodule(name)(x), inplace=True)
            x = self.pool(x)
        if self.has_top:
            x = torch.flatten(x, 1)
            for name in ("fc6", "fc7"):
                x = self.dropout(functional.relu(self.get_submodule(name)(x), inplace=True))
            x = self.get_submodule("fc8")(x)
        return x


def uninitialised(shapes: Shapes) -> Vgg16:
    """Return the network with memory for its parameters, but no values in it: these come from a state dict.

    Drawing 145 million random numbers only to overwrite them would take seconds.
    """
    with torch.device("meta"):
        network = Vgg16(shapes)
    return network.to_empty(device="cpu")
