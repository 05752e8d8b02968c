"""A network that ends at several taps at once, for heads that read different ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surgery_networks import Network, images
from torch import Tensor

from facetask.errors import SurgeryError
from facetask.surgery import ChannelGraph
from facetask.surgery.trials import random_keep_sets, randomise

SHAPE = (3, 16, 16)
BLOCKS = [("residual", 12), ("depthwise", 8), ("plain", 8)]
PLACES = {"stem.0": "stem.2", "blocks.1.0": "blocks.1.2", "blocks.1.3": "blocks.1.4", "blocks.2.0": "blocks.2.2"}


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return randomise(Network(BLOCKS), 0)


@pytest.fixture(scope="module")
def graph(module: torch.nn.Module) -> ChannelGraph:
    return ChannelGraph.trace(module, SHAPE)


def pooled(module: torch.nn.Module) -> dict[str, Tensor]:
    """What hooks see of the maps' means."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.get_submodule(place).register_forward_hook(
            lambda _module, _inputs, output, tap=tap: seen.__setitem__(tap, output.mean((2, 3)))
        )
        for tap, place in PLACES.items()
    ]
    with torch.no_grad():
        module(images(SHAPE))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("blocks.1.3", "stem.0"), ("stem.0", "blocks.1.3")),
        (("blocks.1.0", "blocks.1.3", "blocks.1.0"), ("blocks.1.0", "blocks.1.3")),
        (("stem.0", "blocks.1.0", "blocks.2.0"), ("stem.0", "blocks.1.0", "blocks.2.0")),
        (("stem.0", "stem.0"), ("stem.0",)),
    ],
)
def test_it_gives_the_taps_responses_in_network_order_each_once(
    module: torch.nn.Module, graph: ChannelGraph, asked: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    cut = graph.cut(*asked)
    with torch.no_grad():
        found = cut.module()(images(SHAPE))
    torch.testing.assert_close(found, torch.cat([pooled(module)[tap] for tap in expected], 1))
    assert cut.taps[-1].name == expected[-1]
    assert [tap.name for tap in cut.taps] == [tap.name for tap in graph.cut(expected[-1]).taps]
    assert set(cut.module().state_dict()) == set(graph.cut(expected[-1]).module().state_dict())


@pytest.mark.parametrize("seed", range(4))
def test_it_is_pruned_exactly(graph: ChannelGraph, seed: int) -> None:
    cuts = ("stem.0", "blocks.1.0", "blocks.2.0")
    cut = graph.cut(*cuts)
    keep = random_keep_sets(cut, np.random.default_rng(seed))
    resolved = cut.resolve(keep)
    widths = [cut.tap(tap).n_filters for tap in cuts]
    columns = np.concatenate(
        [resolved[tap] + start for tap, start in zip(cuts, np.cumsum([0, *widths[:-1]]), strict=True)]
    )
    with torch.no_grad():
        found, expected = cut.pruned(keep).module()(images(SHAPE)), cut.masked(keep)(images(SHAPE))
    dropped = np.setdiff1d(np.arange(sum(widths)), columns)
    assert len(dropped) > 0
    assert not expected[:, dropped].any()
    assert found.shape == (3, len(columns))
    torch.testing.assert_close(found, expected[:, torch.from_numpy(columns)], rtol=1e-10, atol=1e-12)


def test_it_can_be_cut_again_where_it_was_pruned(graph: ChannelGraph) -> None:
    cuts = ("stem.0", "blocks.2.0")
    keep = {"stem.0": [0, 2, 5], "blocks.2.0": [1, 2]}
    smaller = graph.cut(*cuts).pruned(keep)
    with torch.no_grad():
        both = smaller.module()(images(SHAPE))
        again = smaller.cut("stem.0").module()(images(SHAPE))
    assert [smaller.tap(tap).n_filters for tap in cuts] == [3, 2]
    torch.testing.assert_close(again, both[:, :3])


def test_filters_that_a_lower_head_reads_are_kept_and_the_budget_is_met(graph: ChannelGraph) -> None:
    cuts = ("blocks.1.0", "blocks.2.0")
    cut = graph.cut(*cuts)
    wanted = {"blocks.1.0": [3, 7], "blocks.2.0": [0, 1]}
    base = sum(group.n_components for group in cut.groups)
    heads = {tap: np.eye(cut.tap(tap).n_filters)[:, filters] for tap, filters in wanted.items()}
    few, many = (cut.needed(wanted, heads, images(SHAPE, batch=8), budget) for budget in (1.0, 1e12))
    for needed in (few, many):
        for tap, filters in wanted.items():
            ((group, need),) = [each for each in zip(cut.groups, needed, strict=True) if tap in each[0].taps]
            assert need.kept[group.component[tap][filters]].all()
    assert sum(int(need.kept.sum()) for need in few) < sum(int(need.kept.sum()) for need in many) <= base


def test_an_unknown_tap_is_an_error(graph: ChannelGraph) -> None:
    with pytest.raises(SurgeryError, match=r"no tap 'stem\.1' in this network; did you mean 'stem\.0'"):
        graph.cut("blocks.1.0", "stem.1")
