"""The bundled architectures and the example's: pruned equals masked, whole and cut."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
from surgery_networks import assert_exact
from torch import nn
from toy_runs import ROOT

from facetask.plugins.architectures.dlib_face_resnet import DlibFaceResNet
from facetask.plugins.architectures.lightcnn import LightCNN9, LightCNN29, LightCNN29v2
from facetask.plugins.architectures.vgg16 import WIDTHS, layer_shapes, uninitialised


def separable_net() -> nn.Module:
    """The network of examples/new_architecture."""
    spec = importlib.util.spec_from_file_location("s", ROOT / "examples/new_architecture/_separable_net.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.SeparableNet()
    return network


NARROW = {name: width // 16 for name, width in WIDTHS.items()}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], str]] = {
    "dlib-face-resnet": (DlibFaceResNet, (3, 150, 150), "128_1.conv1"),
    "vgg-face, narrow, with its top": (
        lambda: uninitialised(layer_shapes(10, widths=NARROW, hidden=32)),
        (3, 224, 224),
        "conv4_2",
    ),
    "vgg-face without its top": (lambda: uninitialised(layer_shapes(None)), (3, 64, 64), "conv5_3"),
    "lightcnn-9": (LightCNN9, (1, 128, 128), "features.6.conv_a.filter"),
    "lightcnn-29": (LightCNN29, (1, 128, 128), "group2.conv.filter"),
    "lightcnn-29v2": (LightCNN29v2, (1, 128, 128), "block3.1.conv2.filter"),
    "examples/new_architecture": (separable_net, (3, 64, 64), "blocks.3.pointwise"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_exact(name: str) -> None:
    build, shape, cut = NETWORKS[name]
    assert assert_exact(build(), shape).frozen == ()
    assert_exact(build(), shape, seed=1, cut=cut)
