"""Filters chosen by what the layers above them need."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from surgery_networks import BLOCKS, Network, conv, images, randomise
from torch import Tensor, nn

from facetask.errors import SurgeryError
from facetask.networks.cost import network_cost
from facetask.surgery import ChannelGraph

SHAPE = (3, 16, 16)


def cut_graph(network: nn.Module) -> ChannelGraph:
    graph = ChannelGraph.trace(network, SHAPE)
    return graph.cut(graph.taps[-1].name)


def keep_sets(graph: ChannelGraph, at_cut: list[int], share: float, size: float | None = None) -> dict[str, np.ndarray]:
    """What is kept of every tap at a share of the cut graph's own multiply–accumulates, and one of its size."""
    whole = network_cost(graph.module(), SHAPE)
    size_bytes = None if size is None else size * whole.size_bytes
    cut = graph.taps[-1]
    heads = {cut.name: head(cut.n_filters, at_cut)}
    found = graph.needed({cut.name: at_cut}, heads, images(SHAPE, batch=8), share * whole.macs, size_bytes)
    return {
        tap: np.flatnonzero(need.kept[group.component[tap]])
        for group, need in zip(graph.groups, found, strict=True)
        for tap in group.taps
    }


def head(n_filters: int, kept: list[int], n_outputs: int = 2) -> np.ndarray:
    """Random weights on the kept filters, ``(n_filters, n_outputs)``."""
    weights = np.zeros((n_filters, n_outputs))
    weights[kept] = np.random.default_rng(0).normal(size=(len(kept), n_outputs))
    return weights


class Chain(nn.Module):
    """Three convolutions."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.low, self.middle, self.top = conv(3, width), conv(width, 8), conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.top(torch.relu(self.middle(torch.relu(self.low(x))))))


def test_what_the_kept_filters_do_not_read_goes_first() -> None:
    network = randomise(Chain(), 0)
    with torch.no_grad():
        network.top.weight[1, [0, 2, 3, 5, 6]] = 0.0  # filter 1 of the cut reads 1, 4 and 7
        network.middle.weight[[1, 4, 7]][:, [0, 3]] = 0.0
    keep = keep_sets(cut_graph(network), [1], 1.0)
    assert keep["top"].tolist() == [1]
    assert keep["middle"].tolist() == [1, 4, 7]


def test_of_filters_that_say_the_same_one_is_enough() -> None:
    network = randomise(Chain(8), 0)
    with torch.no_grad():
        for parameter in (network.low.weight, network.low.bias):
            parameter[4:] = 2 * parameter[:4]
    keep = keep_sets(cut_graph(network), [0, 1, 2, 3], 1.0)
    assert sorted(keep["low"] % 4) == [0, 1, 2, 3]


def test_the_ranking_starts_with_the_filter_that_least_squares_gets_most_from() -> None:
    """Against a brute force on the pixels themselves."""
    network = randomise(Chain(), 3)
    graph = cut_graph(network)
    batch = images(SHAPE, batch=8)
    weights = head(4, [0, 2], 1)
    macs = network_cost(graph.module(), SHAPE).macs
    found = graph.needed({"top": [0, 2]}, {"top": weights}, batch, macs)
    order = next(need.order for group, need in zip(graph.groups, found, strict=True) if group.taps == ("middle",))
    with torch.no_grad():
        x = torch.relu(network.middle(torch.relu(network.low(batch))))
    y = network.top(x).requires_grad_()
    outputs = torch.relu(y).mean((2, 3)) @ torch.from_numpy(weights)
    (gradient,) = torch.autograd.grad(outputs.sum(), y)
    sensitivity = gradient.square().sum((2, 3)).mean(0).numpy()[[0, 2]]
    pixels = x.movedim(1, -1).flatten(0, -2).numpy()
    columns = network.top.weight.detach().numpy()[[0, 2]].reshape(2, 8, -1) * np.sqrt(sensitivity)[:, None, None]

    def missed(kept: tuple[int, ...]) -> float:
        few = pixels[:, list(kept)]
        back, *_ = np.linalg.lstsq(few, pixels, rcond=None)
        return float(np.square(np.einsum("ocs,nc->nos", columns, pixels - few @ back)).sum())

    first = min(range(8), key=lambda one: missed((one,)))
    second = min((one for one in range(8) if one != first), key=lambda one: missed((first, one)))
    assert order[:2].tolist() == [first, second]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_budget_is_kept_to(block: str, share: float) -> None:
    """Whatever the network is made of, what is chosen can be cut out, computes as it should, and costs no more."""
    graph = cut_graph(randomise(Network([(block, 8), ("plain", 12)]), 0))
    keep = keep_sets(graph, [0, 3, 7], share)
    whole = network_cost(graph.module(), SHAPE).macs
    pruned = graph.pruned(keep).module()
    dropped = sum(len(kept) < tap.n_filters for tap, kept in zip(graph.taps, keep.values(), strict=True))
    assert dropped
    assert {0, 3, 7} <= set(keep[graph.taps[-1].name].tolist())
    # Depthwise layers, gates and fixed parts are counted alike; a layer always keeps one filter.
    assert network_cost(pruned.float(), SHAPE).macs <= max(share, 0.4) * whole
    batch = images(SHAPE)
    with torch.no_grad():
        expected = graph.masked(keep)(batch)[:, keep[graph.taps[-1].name]]
        assert torch.allclose(pruned.double()(batch), expected, atol=1e-8)


class Narrowing(nn.Module):
    """Large maps with few filters below small ones with many: operations are down there, parameters up here."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.middle, self.high, self.top = conv(3, 16), conv(16, 16), conv(16, 48), conv(48, 48)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.middle(torch.relu(self.low(x)))), 4)
        return torch.relu(self.top(torch.relu(self.high(x))))


@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.parametrize("smaller", [0.8, 0.5])
def test_two_limits_are_met_together(share: float, smaller: float) -> None:
    graph = cut_graph(randomise(Narrowing(), 0))
    whole = network_cost(graph.module(), SHAPE)

    def used(share: float, size: float | None) -> tuple[float, float]:
        cost = network_cost(graph.pruned(keep_sets(graph, [0, 1, 2, 3], share, size)).module(), SHAPE)
        return cost.macs / whole.macs, cost.size_bytes / whole.size_bytes

    _, alone = used(share, None)
    limit = smaller * alone
    macs, size = used(share, limit)
    assert 0.9 * limit < size <= limit
    most, _ = used(1.0, limit)  # where size alone is limited
    assert 0.9 * min(share, most) < macs <= share


def test_a_limit_that_is_never_reached_changes_nothing() -> None:
    graph = cut_graph(randomise(Narrowing(), 0))
    at_cut = [0, 1, 2, 3]
    assert_same(keep_sets(graph, at_cut, 0.3), keep_sets(graph, at_cut, 0.3, 1.0))
    small = keep_sets(graph, at_cut, 0.9, 0.05)
    assert_same(small, keep_sets(graph, at_cut, 1.0, 0.05))
    cost = network_cost(graph.pruned(small).module(), SHAPE)
    assert cost.size_bytes <= 0.05 * network_cost(graph.module(), SHAPE).size_bytes


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert {tap: kept.tolist() for tap, kept in one.items()} == {tap: kept.tolist() for tap, kept in other.items()}


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_the_choice_loses_less_than_most_random_ones_of_the_same_cost(share: float) -> None:
    network = randomise(Network([("residual", 8), ("plain", 12), ("residual", 12)]), 1)
    graph = cut_graph(network)
    cut = graph.taps[-1].name
    batch, wanted = images(SHAPE, batch=8), [1, 2, 5]

    def error(keep: dict[str, np.ndarray]) -> float:
        kept = graph.resolve(keep)[cut]
        with torch.no_grad():
            found = graph.pruned(keep, batch).module()(batch)[:, np.isin(kept, wanted)]
            return float((found - graph.module()(batch)[:, wanted]).square().mean())

    chosen = keep_sets(graph, wanted, share)
    limit = network_cost(graph.pruned(chosen).module().float(), SHAPE).macs
    rng, others = np.random.default_rng(0), []
    for _ in itertools.count():
        keep = {}
        for group in graph.groups:
            kept = rng.random(group.n_components) < rng.uniform(0.2, 1)
            if cut in group.taps:
                kept[group.component[cut][wanted]] = True
            kept[rng.integers(group.n_components)] = True
            keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
        if 0.8 * limit <= network_cost(graph.pruned(keep).module().float(), SHAPE).macs <= limit:
            others.append(error(keep))
        if len(others) == 20:
            break
    assert error(chosen) < np.quantile(others, 0.25)


def test_what_is_not_there_is_an_error() -> None:
    graph = cut_graph(randomise(Chain(), 0))
    weights = head(4, [0])
    with pytest.raises(SurgeryError, match="filter 4 is out of range"):
        graph.needed({"top": [4]}, {"top": weights}, images(SHAPE), 1e9)
    with pytest.raises(SurgeryError, match=r"unknown tap 'tpo'; did you mean 'top'"):
        graph.needed({"tpo": [0]}, {"top": weights}, images(SHAPE), 1e9)
    with pytest.raises(SurgeryError, match=r"no tap 'tpo' in this network; did you mean 'top'"):
        graph.needed({"top": [0]}, {"tpo": weights}, images(SHAPE), 1e9)
    with pytest.raises(SurgeryError, match=r"top: a head's weights are \(3, 2\) instead of \(4, n_outputs\)"):
        graph.needed({"top": [0]}, {"top": weights[:3]}, images(SHAPE), 1e9)
