"""Taps where an architecture names them, and graphs of pruned networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surgery_networks import random_keep_sets, randomise
from torch import Tensor, nn

from facetask import SurgeryError
from facetask.surgery import ChannelGraph

SHAPE = (3, 16, 16)


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + x)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.top = nn.Conv2d(8, 12, 1)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.top(self.blocks(self.stem(x))))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return randomise(Network(), 0)


def test_taps_are_the_outputs_of_the_named_modules(network: nn.Module) -> None:
    graph = ChannelGraph.trace(network, SHAPE, ["blocks.1", "stem", "blocks.0.conv1"])
    assert [(tap.name, tap.n_filters, tap.convolution) for tap in graph.taps] == [
        ("stem", 8, "stem.0"),
        ("blocks.0.conv1", 8, "blocks.0.conv1"),
        ("blocks.1", 8, "blocks.1.conv2"),
    ]
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        stem = network.stem(images)
        expected = [stem, network.blocks[0].conv1(stem), network.blocks(stem)]
        responses = graph.responder()(images)
    assert torch.allclose(responses, torch.cat([x.mean((2, 3)) for x in expected], 1))


def test_the_same_network_has_the_same_groups_under_other_names(network: nn.Module) -> None:
    graph = ChannelGraph.trace(network, SHAPE, ["stem", "blocks.0", "blocks.1"])
    assert [group.taps for group in graph.groups] == [("stem", "blocks.0", "blocks.1")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("block.1", "no module 'block.1' to be a tap in this network; did you mean 'blocks.1'"),
        ("fc", "module 'fc' cannot be a tap: its output is no feature map"),
        ("stem.2", "module 'stem.2' cannot be a tap: no convolution's filters are read there"),
    ],
)
def test_a_name_that_is_no_tap(network: nn.Module, name: str, message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        ChannelGraph.trace(network, SHAPE, [name])


@pytest.mark.parametrize("names", [None, ["stem", "blocks.0", "blocks.0.conv1", "blocks.1"]])
def test_the_graph_of_a_pruned_network_can_be_cut_and_pruned_again(network: nn.Module, names: list[str] | None) -> None:
    rng = np.random.default_rng(0)
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    graph = ChannelGraph.trace(network, SHAPE, names)
    for tap in [graph.taps[-1].name, graph.taps[-1].name, graph.taps[1].name]:
        below = graph.cut(tap)
        keep = below.resolve(random_keep_sets(below, rng, 0.7))
        pruned = below.pruned(keep)
        assert [(t.name, t.n_filters) for t in pruned.taps] == [(t.name, len(keep[t.name])) for t in below.taps]
        with torch.no_grad():
            expected = below.masked(keep)(images)[:, keep[tap]]
            found = pruned.module()(images)
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
            assert torch.equal(found, below.prune(keep)(images))
        before = sum(p.numel() for p in below.module().parameters())
        assert sum(p.numel() for p in pruned.module().parameters()) < before
        graph = pruned
