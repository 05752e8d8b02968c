"""mini-XCEPTION, a network of 57,000 parameters for 64×64 grey faces, as Keras computes it.

Two convolutions, then four blocks of two separable convolutions beside a 1×1 convolution of stride 2, then seven maps
whose means are the classes' scores. Keras's padding ``same`` at stride 2 puts the odd row and column at the end, and
its batch normalisation divides by √(variance + 0.001).

Source: O. Arriaga, P. Plöger and M. Valdenegro, "Real-time Convolutional Neural Networks for Emotion and Gender
Classification", arXiv 1710.07557.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from facetask import WeightsError
from facetask.plugins.architectures.vgg_layouts.keras_h5 import read_layers

SIDE = 64
_EPSILON = 1e-3
_STEM = 8
_BLOCKS = (16, 32, 64, 128)  # output channels


class SeparableConv(nn.Module):
    """A 3×3 convolution of each channel by itself, then a 1×1 convolution of all, at the same size."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, height, width)``."""
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two separable convolutions and a max-pool, beside a 1×1 convolution; height and width are halved."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = SeparableConv(in_channels, channels), nn.BatchNorm2d(channels, eps=_EPSILON)
        self.conv2, self.norm2 = SeparableConv(channels, channels), nn.BatchNorm2d(channels, eps=_EPSILON)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride=2, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(channels, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, height / 2, width / 2)``, rounded up."""
        branch = functional.relu(self.norm1(self.conv1(x)))
        branch = _max_pool_same(self.norm2(self.conv2(branch)))
        return branch + self.shortcut_norm(self.shortcut(x))  # type: ignore[no-any-return]


def _max_pool_same(x: Tensor) -> Tensor:
    """Return the max-pool 3×3 of stride 2 with Keras's padding: an even side grows by one at its end only."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        pads += [side % 2, 1]
    return functional.max_pool2d(functional.pad(x, pads, value=-torch.inf), 3, stride=2)


class MiniXception(nn.Module):
    """The network.

    Args:
        n_classes: How many classes it tells apart.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, _STEM, 3, bias=False), nn.BatchNorm2d(_STEM, eps=_EPSILON)
        self.conv2, self.norm2 = nn.Conv2d(_STEM, _STEM, 3, bias=False), nn.BatchNorm2d(_STEM, eps=_EPSILON)
        widths = (_STEM, *_BLOCKS)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in zip(widths, _BLOCKS, strict=False))
        self.conv3 = nn.Conv2d(widths[-1], n_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores before the softmax, ``(batch, n_classes)``, of ``(batch, 1, 64, 64)`` grey levels in −1…1."""
        x = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(self.norm2(self.conv2(x)))
        for block in self.blocks:
            x = block(x)
        return self.conv3(x).mean(dim=(2, 3))  # type: ignore[no-any-return]


def _layer_names() -> Iterator[tuple[str, str]]:
    """Yield the name of each of our modules with weights, and of its layer in Keras's file."""
    yield from (("conv1", "conv2d_1"), ("norm1", "batch_normalization_1"))
    yield from (("conv2", "conv2d_2"), ("norm2", "batch_normalization_2"))
    for index in range(len(_BLOCKS)):
        place, first = f"blocks.{index}", 3 * (index + 1)  # a block's shortcut is numbered before its branch
        yield f"{place}.shortcut", f"conv2d_{index + 3}"
        yield f"{place}.shortcut_norm", f"batch_normalization_{first}"
        for branch in (1, 2):
            yield f"{place}.conv{branch}", f"separable_conv2d_{2 * index + branch}"
            yield f"{place}.norm{branch}", f"batch_normalization_{first + branch}"
    yield "conv3", f"conv2d_{len(_BLOCKS) + 3}"


def load(path: Path, n_classes: int) -> MiniXception:
    """Return the network with the weights of a Keras file, ready to classify.

    Raises:
        WeightsError: If the file is missing, damaged or of another network, or h5py is not installed.
    """
    network = MiniXception(n_classes).eval()
    state, layers = network.state_dict(), read_layers(path)
    for ours, theirs in _layer_names():
        keys = _keys(network.get_submodule(ours))
        stored = layers.get(theirs, [])
        if len(stored) != len(keys):
            raise WeightsError(
                f"{path}: not the mini-XCEPTION that is expected: layer {theirs!r} has {len(stored)} tensors, not "
                f"{len(keys)}; its layers are {', '.join(list(layers)[:5])}, …"
            )
        for key, tensor in zip(keys, stored, strict=True):
            values = tensor.values
            if values.ndim == 4:  # height, width, inputs, outputs; depthwise has a multiplier of 1 for outputs
                values = values.transpose((2, 3, 0, 1) if "depthwise" in key else (3, 2, 0, 1))
            place = f"{ours}.{key}"
            if values.shape != state[place].shape:
                raise WeightsError(
                    f"{path}: {tensor.key}: expected the numbers of {place}, {tuple(state[place].shape)}, found "
                    f"{tensor.values.shape}"
                )
            state[place] = torch.from_numpy(np.array(values, np.float32, order="C"))
    network.load_state_dict(state)
    return network


def _keys(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's tensors in the order in which Keras stores them."""
    if isinstance(module, nn.BatchNorm2d):
        return ("weight", "bias", "running_mean", "running_var")
    if isinstance(module, SeparableConv):
        return ("depthwise.weight", "pointwise.weight")
    return ("weight",) if module.bias is None else ("weight", "bias")
