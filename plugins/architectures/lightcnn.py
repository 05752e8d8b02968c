"""LightCNN with 9 and with 29 layers: max-feature-map networks, 128×128 grey to a 256-D embedding.

A max-feature-map layer (MFM) computes twice its channels and keeps the larger of channel k and channel k + n; there is
no other activation. Modules are named as in the publisher's checkpoints, so that these load as they are.

The publisher's classifier (``fc2``, 79,077 or 80,013 people) serves training only and is left out, unless ``classes``
asks for it: the base network ends at the embedding, and its size is counted as the paper counts it.

Source: X. Wu, R. He, Z. Sun, T. Tan, "A Light CNN for Deep Face Representation with Noisy Labels" (arXiv 1511.02683),
and the layout of the published weights, https://github.com/AlfredXiangWu/LightCNN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from facetask import Architecture, ConfigPath, Params, Preprocessing, Weights, WeightsError, hookimpl, read_state_dict
from facetask.plugins.architectures.mean_face import upright

_SIZE = 128
_EMBEDDING = 256
_FLATTENED = 128 * 8 * 8
_FACE = upright(eyes_y=40, mouth_y=88, centre_x=64)  # the publisher's test images: ec_y 40, ec_mc_y 48
_PUBLISHER = "https://github.com/AlfredXiangWu/LightCNN"

_FOLLOWS_9 = {
    "features.2.conv_a": "features.0",
    "features.4.conv_a": "features.2.conv",
    "features.6.conv_a": "features.4.conv",
    "features.7.conv_a": "features.6.conv",
}
_TAPS_9 = ("features.0", *(f"features.{i}.{layer}" for i in (2, 4, 6, 7) for layer in ("conv_a", "conv")))

_STAGES_29 = {1: (1, 48, 96), 2: (2, 96, 192), 3: (3, 192, 128), 4: (4, 128, 128)}  # stage: blocks, width, next width
_POOLED_29 = (1, 2, 4)  # the stages that end with a pool
_FOLLOWS_29 = {f"group{i}.conv_a": f"block{i}.{blocks - 1}" for i, (blocks, _, _) in _STAGES_29.items()}


class LightCNNParams(Params):
    """Settings of a LightCNN.

    Attributes:
        weights: A checkpoint in the publisher's layout.
        classes: Outputs of the classifier ``fc2``, to count it in the base network's size; it is cut off with the other
            fully connected layers before anything is learned. Without it the network ends at the embedding.
        resize: Height and width to which an image is resized before its central 128×128 pixels are taken: 144 for
            faces aligned as the publisher's training images, 128 for its test images.
    """

    weights: ConfigPath | None
    classes: PositiveInt | None = None
    resize: Annotated[int, Field(ge=_SIZE)] = 136


class MaxFeatureMap(nn.Module):
    """A layer of twice the channels, and the larger of channels k and k + n."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.filter = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return half as many channels as the layer computes."""
        first, second = self.filter(x).chunk(2, dim=1)
        return torch.max(first, second)  # type: ignore[no-any-return]


def _mfm(in_channels: int, channels: int, size: int) -> MaxFeatureMap:
    """A convolutional MFM that keeps height and width."""
    return MaxFeatureMap(nn.Conv2d(in_channels, 2 * channels, size, padding=size // 2))


class Group(nn.Module):
    """An MFM 1×1 as wide as its input, then an MFM 3×3."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv_a = _mfm(in_channels, in_channels, 1)
        self.conv = _mfm(in_channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, height, width)``."""
        return self.conv(self.conv_a(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two MFMs 3×3 plus the input; no activation follows the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _mfm(channels, channels, 3)
        self.conv2 = _mfm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, of the input's shape."""
        return self.conv2(self.conv1(x)) + x  # type: ignore[no-any-return]


class MaxAveragePool(nn.Module):
    """The sum of max-pool and average-pool 2×2, at half the size."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, height / 2, width / 2)``."""
        return functional.max_pool2d(x, 2) + functional.avg_pool2d(x, 2)


def _max_pool() -> nn.Module:
    """The publisher's max-pool, which keeps an odd last row."""
    return nn.MaxPool2d(2, ceil_mode=True)


class LightCNN9(nn.Module):
    """Nine layers with weights: an MFM 5×5 and four groups, then the embedding, itself an MFM."""

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _mfm(1, 48, 5),
            _max_pool(),
            Group(48, 96),
            _max_pool(),
            Group(96, 192),
            _max_pool(),
            Group(192, 128),
            Group(128, 128),
            _max_pool(),
        )
        self.fc1 = MaxFeatureMap(nn.Linear(_FLATTENED, 2 * _EMBEDDING))
        self.fc2 = nn.Linear(_EMBEDDING, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings ``(batch, 256)``, or ``(batch, classes)``, for ``(batch, 1, 128, 128)``."""
        return self.fc2(self.fc1(self.features(x).flatten(1)))  # type: ignore[no-any-return]


class LightCNN29(nn.Module):
    """Twenty-nine layers with weights: an MFM 5×5, then four stages of residual blocks and a group."""

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        self.conv1 = _mfm(1, 48, 5)
        for i, (blocks, width, next_width) in _STAGES_29.items():
            self.add_module(f"block{i}", nn.Sequential(*(Block(width) for _ in range(blocks))))
            self.add_module(f"group{i}", Group(width, next_width))
        self.pool = self.make_pool()
        self.fc = self.make_embedding()
        self.fc2 = self.make_classifier(classes) if classes else nn.Identity()

    def make_pool(self) -> nn.Module:
        """Return what halves height and width."""
        return _max_pool()

    def make_embedding(self) -> nn.Module:
        """Return the layer from the flattened maps to the embedding."""
        return MaxFeatureMap(nn.Linear(_FLATTENED, 2 * _EMBEDDING))

    def make_classifier(self, classes: int) -> nn.Module:
        """Return the layer from the embedding to the publisher's classes."""
        return nn.Linear(_EMBEDDING, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings ``(batch, 256)``, or ``(batch, classes)``, for ``(batch, 1, 128, 128)``."""
        x = self.pool(self.conv1(x))
        for i in _STAGES_29:
            x = self.get_submodule(f"group{i}")(self.get_submodule(f"block{i}")(x))
            if i in _POOLED_29:
                x = self.pool(x)
        return self.fc2(self.fc(x.flatten(1)))  # type: ignore[no-any-return]


class LightCNN29v2(LightCNN29):
    """The second version: max plus average pooling, a linear embedding, a classifier without bias."""

    def make_pool(self) -> nn.Module:
        """Return the sum of both poolings."""
        return MaxAveragePool()

    def make_embedding(self) -> nn.Module:
        """Return a linear layer."""
        return nn.Linear(_FLATTENED, _EMBEDDING)

    def make_classifier(self, classes: int) -> nn.Module:
        """Return a linear layer without bias."""
        return nn.Linear(_EMBEDDING, classes, bias=False)


def _taps_29() -> tuple[str, ...]:
    """The taps of both 29-layer networks: every MFM, but the second of each block at its sum with the input."""
    taps = ["conv1"]
    for i, (blocks, _, _) in _STAGES_29.items():
        taps += [f"block{i}.{j}{layer}" for j in range(blocks) for layer in (".conv1", "")]
        taps += [f"group{i}.conv_a", f"group{i}.conv"]
    return tuple(taps)


def _weights(published: str, params: LightCNNParams) -> Weights:
    """Return a checkpoint's weights; the publisher's repository is MIT-licensed, but says nothing of its weights.

    Raises:
        WeightsError: If no file is named, or it cannot be read or holds another classifier.
    """
    if params.weights is None:
        raise WeightsError(
            f"no weights: set base_network.params.weights to a LightCNN checkpoint, the publisher's {published} or one "
            f"of the same layout (.pth.tar, .pth, .safetensors); it is linked at {_PUBLISHER}"
        )
    state = read_state_dict(params.weights)
    if params.classes is None:
        state = _without_classifier(params.weights, state)
    return Weights(state=state, licence="not stated", source=params.weights.name)


def _without_classifier(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict that ends at the embedding; a classifier of any number of classes is taken off."""
    left = dict(state)
    weight, bias = left.pop("fc2.weight", None), left.pop("fc2.bias", None)
    if weight is not None and (weight.dim() != 2 or weight.shape[1] != _EMBEDDING):
        raise WeightsError(f"{path}: fc2.weight has shape {tuple(weight.shape)} instead of (classes, {_EMBEDDING})")
    if bias is not None and (weight is None or bias.shape != weight.shape[:1]):
        expected = "is there without fc2.weight" if weight is None else f"instead of ({weight.shape[0]},)"
        raise WeightsError(f"{path}: fc2.bias of shape {tuple(bias.shape)} {expected}")
    return left


def _architecture(
    name: str,
    published: str,
    network: Callable[[int | None], nn.Module],
    taps: Sequence[str],
    follows: Mapping[str, str],
) -> Architecture:
    """The record of one of the networks."""
    return Architecture(
        name=name,
        build=lambda params: network(params.classes),
        weights=partial(_weights, published),
        preprocessing=lambda params: Preprocessing(
            size=(_SIZE, _SIZE),
            colour="grey",
            mean=(0.0,),
            std=(255.0,),
            resize=(params.resize, params.resize),
            face=_FACE,
        ),
        params=LightCNNParams,
        taps=lambda params: taps,
        follows=lambda params: follows,
        portable=lambda params: params.model_copy(update={"weights": None}),
    )


@hookimpl
def facetask_architectures() -> list[Architecture]:
    """Return the three published networks."""
    taps_29 = _taps_29()
    return [
        _architecture("lightcnn-9", "LightCNN_9Layers_checkpoint.pth.tar", LightCNN9, _TAPS_9, _FOLLOWS_9),
        _architecture("lightcnn-29", "LightCNN_29Layers_checkpoint.pth.tar", LightCNN29, taps_29, _FOLLOWS_29),
        _architecture("lightcnn-29v2", "LightCNN_29Layers_V2_checkpoint.pth.tar", LightCNN29v2, taps_29, _FOLLOWS_29),
    ]
