"""What a pruned network will cost, told from its labels alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surgery_networks import BLOCKS, Network, randomise
from torch import nn

from facetask.networks.cost import network_cost
from facetask.surgery import ChannelGraph
from facetask.surgery.expenses import Limit, bytes_of, macs_of

SHAPE = (3, 16, 16)


def pruned_at_random(graph: ChannelGraph) -> tuple[nn.Module, np.ndarray]:
    """A smaller network, and which components it keeps."""
    rng = np.random.default_rng(0)
    keep = {}
    for group in graph.groups:
        kept = group.fixed | (rng.random(group.n_components) < 0.6)
        kept[rng.integers(group.n_components)] = True
        keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
    keep = {tap: kept for tap, kept in keep.items() if len(kept)}
    return graph.pruned(keep).module(), graph._kept(keep)


@pytest.mark.parametrize("block", BLOCKS)
def test_bytes_and_macs_are_those_of_the_pruned_network(block: str) -> None:
    graph = ChannelGraph.trace(randomise(Network([(block, 8), ("plain", 12)]), 0), SHAPE)
    sizes = Limit(bytes_of(graph.module(), graph._labelling), 1.0)
    macs = Limit(macs_of(graph._network, graph._labelling), 1.0)
    everything = np.ones(len(graph._labelling.components.fixed), dtype=bool)
    assert sizes.total(everything) == network_cost(graph.module(), SHAPE).size_bytes
    network, kept = pruned_at_random(graph)
    assert 0 < kept.sum() < len(kept)
    cost = network_cost(network, SHAPE)
    assert (sizes.total(kept), macs.total(kept)) == (cost.size_bytes, cost.macs)


def test_a_filter_pays_what_the_network_without_it_saves() -> None:
    graph = ChannelGraph.trace(randomise(Network([("residual", 8), ("plain", 12)]), 0), SHAPE)
    everything = np.ones(len(graph._labelling.components.fixed), dtype=bool)
    place = np.arange(len(everything))
    for parts in (bytes_of(graph.module(), graph._labelling), macs_of(graph._network, graph._labelling)):
        limit = Limit(parts, 1.0)
        costs = limit.costs(len(everything), place, everything)
        for component in np.flatnonzero(~graph._labelling.components.fixed)[::5]:
            without = everything.copy()
            without[component] = False
            saved = limit.total(everything) - limit.total(without)
            # Where a layer's input and output are one component, what it pays for both is told twice.
            assert saved <= costs[component] <= 2 * saved
            assert saved > 0


def test_a_tensor_that_two_layers_share_pays_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(self.stem(x)))

    graph = ChannelGraph.trace(Tied(), SHAPE)
    everything = np.ones(len(graph._labelling.components.fixed), dtype=bool)
    total = Limit(bytes_of(graph.module(), graph._labelling), 1.0).total(everything)
    assert total == 4 * (4 * 27 + 4 + 16 + 4 + 4)
