"""Published networks: pruned equals masked, nothing silently wrong."""

from __future__ import annotations

import pytest
import torch
from surgery_networks import assert_exact

from facetask.surgery import ChannelGraph

timm = pytest.importorskip("timm")

EXACT = [
    *("resnet18", "densenet121", "mobilenetv3_small_050", "regnety_002", "ghostnet_050", "vgg11", "nf_regnet_b0"),
    *("efficientnet_b0", "convnextv2_atto", "resnest14d"),
]


@pytest.mark.parametrize("model", EXACT)
def test_exact(model: str) -> None:
    assert assert_exact(timm.create_model(model), (3, 64, 64)).frozen == ()


def test_attention_over_channels_is_frozen_and_named() -> None:
    graph = assert_exact(timm.create_model("ecaresnet26t"), (3, 64, 64))
    assert {"Conv1d along an axis that is made of channels"} == {frozen.operation for frozen in graph.frozen}
    assert all(frozen.where.endswith("se.conv") and frozen.taps for frozen in graph.frozen)


def test_the_attention_of_a_vision_transformer_is_frozen_and_named() -> None:
    network = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64)
    graph = ChannelGraph.trace(network, (3, 64, 64))
    assert [tap.name for tap in graph.taps] == ["patch_embed.proj"]
    assert {(f.operation, f.where) for f in graph.frozen} == {
        ("scaled_dot_product_attention", f"blocks.{block}.attn") for block in (0, 1)
    }
    with torch.no_grad():
        assert graph.prune({})(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
