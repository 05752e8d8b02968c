"""Torch-Pruning as a second oracle: the same filters removed by both, compared entry by entry and in numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from surgery_networks import BLOCKS, Network, images
from torch import nn

from facetask.surgery import ChannelGraph
from facetask.surgery.trials import marked, randomise, restored, tensors

timm = pytest.importorskip("timm")
tp = pytest.importorskip("torch_pruning", reason="the second oracle is in the test extra")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the rival warns about operations it does not know

SAME = "the same entries of the same tensors, and so the same numbers"
OTHER_ENTRIES = "other entries, the same numbers"
OTHER_NUMBERS = "other numbers"
FAILS = "does not run"
REFUSES = "refuses"

WRITTEN_SIZE = "a size that the code fixes (of a split, slice or view) stays as it was"
RESHAPED = "channels that a reshape takes apart, such as k and k + n, are not tied"
WHOLE_GROUPS = "whole groups of a grouped convolution go, but it keeps their number and takes the first columns"
NORM_GROUPS = "a group norm that loses a whole group keeps the number of groups"
SHARED_WEIGHT = "a weight that two layers share is sliced for one of them"
COMPUTED_WEIGHT = "a weight that is computed from another one: sliced before it is computed, or not at all"
FOLDED_WEIGHT = "the network holds a computed weight; ours holds its value instead"
LONE_PARAMETER = "a parameter of the network's own is taken for one entry a channel"

# where Torch-Pruning's network is not the same as ours: how it differs for each tap, and why; the rest must agree
KNOWN: dict[str, dict[str, tuple[str, str]]] = {
    "max-feature-map by amax": {"blocks.0.filter": (OTHER_NUMBERS, RESHAPED)},
    "max-feature-map by max": {"blocks.0.filter": (OTHER_NUMBERS, RESHAPED)},
    "depthwise, two filters a channel": {
        "stem.0": (FAILS, WHOLE_GROUPS),
        "blocks.0.0": (OTHER_NUMBERS, WHOLE_GROUPS),
    },
    "many groups": {"blocks.0.0": (OTHER_NUMBERS, WHOLE_GROUPS), "blocks.0.2": (FAILS, WHOLE_GROUPS)},
    "split paths": {"blocks.0.body": (REFUSES, WRITTEN_SIZE), "blocks.0.middle": (FAILS, WRITTEN_SIZE)},
    "shuffled": {"blocks.0.body": (FAILS, WRITTEN_SIZE), "blocks.0.right": (FAILS, WRITTEN_SIZE)},
    "norm: instance": {"blocks.0.body": (FAILS, NORM_GROUPS)},
    "tied": {tap: (OTHER_NUMBERS, SHARED_WEIGHT) for tap in ("blocks.0.0", "blocks.0.2", "blocks.0.4")},
    "computed weight": {
        "stem.0": (OTHER_NUMBERS, COMPUTED_WEIGHT),
        **{tap: (REFUSES, COMPUTED_WEIGHT) for tap in ("blocks.0.0", "blocks.0.2")},
        **{tap: (OTHER_ENTRIES, FOLDED_WEIGHT) for tap in ("blocks.0.4", "blocks.1.0")},
    },
    "written sizes": {"blocks.0.body": (FAILS, WRITTEN_SIZE)},
    "indexed by a tensor": {"blocks.0.body": (FAILS, LONE_PARAMETER)},
    "regnety_002": {"s4.b1.conv1.conv": (OTHER_NUMBERS, WHOLE_GROUPS)},
    "resnest14d": {"layer2.0.conv2.conv": (FAILS, RESHAPED)},
    "skresnet18": {"conv1": (FAILS, WRITTEN_SIZE)},
    "nf_regnet_b0": {"stem.conv": (FAILS, COMPUTED_WEIGHT)},
}

TIMM = {
    "resnet18": ("conv1", "layer2.1.conv2"),
    "legacy_seresnet18": ("layer2.0.conv1",),
    "mobilenetv3_small_050": ("blocks.2.2.conv_dw",),
    "convnextv2_atto": ("stages.2.blocks.1.mlp.fc1",),
    "regnety_002": ("s4.b1.conv1.conv",),
    "resnest14d": ("layer2.0.conv2.conv",),
    "skresnet18": ("conv1",),
    "nf_regnet_b0": ("stem.conv",),
}


def half_dropped(
    graph: ChannelGraph, tap: str, rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.intp]], list[int]]:
    """Return keep sets that drop half of what one tap can lose, and the filters that it loses."""
    (group,) = (group for group in graph.groups if tap in group.taps)
    own = np.unique(group.component[tap][~group.fixed[group.component[tap]]])
    lost = rng.permutation(own)[: len(own) // 2]
    keep = {name: np.flatnonzero(~np.isin(group.component[name], lost)) for name in group.taps}
    return keep, np.flatnonzero(np.isin(group.component[tap], lost)).tolist()


def without(module: nn.Module, shape: tuple[int, int, int], conv: str, filters: list[int]) -> nn.Module:
    """Return a copy from which Torch-Pruning removed some filters of a convolution and all that depends on them."""
    smaller = copy.deepcopy(module)
    example = torch.zeros(1, *shape, dtype=torch.float64)
    dependencies = tp.DependencyGraph().build_dependency(smaller, example, verbose=False)
    dependencies.get_pruning_group(smaller.get_submodule(conv), tp.prune_conv_out_channels, filters).prune()
    return smaller


def differences(module: nn.Module, shape: tuple[int, int, int], taps: tuple[str, ...] = ()) -> dict[str, str]:
    """Drop half of each tap in turn, with both; return how Torch-Pruning's network differs, where it does."""
    rng, x, found = np.random.default_rng(0), images(shape, batch=1), {}
    graph, twin = ChannelGraph.trace(module, shape), marked(module)
    places = ChannelGraph.trace(twin, shape)
    for tap in taps or [tap.name for tap in graph.taps]:
        keep, lost = half_dropped(graph, tap, rng)
        assert lost
        try:
            rival = without(twin, shape, tap, lost)
        except Exception:
            found[tap] = REFUSES
            continue
        ours, left = tensors(places.prune(keep)), tensors(rival)
        same = all(name in left and torch.equal(ours[name], left[name]) for name in ours)
        with torch.no_grad():
            expected, mine = graph.masked(keep)(x), graph.prune(keep)(x)
            assert (mine - expected).abs().max() <= 1e-10 * expected.abs().max()
            try:
                result = restored(rival, module)(x)
            except Exception:
                found[tap] = FAILS
                continue
        equal = bool((result - expected).abs().max() <= 1e-10 * expected.abs().max())
        assert equal or not same, f"{tap}: the same entries, but other numbers"
        if not same:
            found[tap] = OTHER_ENTRIES if equal else OTHER_NUMBERS
    return found


def hows(known: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return known differences without their reasons."""
    return {tap: how for tap, (how, _) in known.items()}


@pytest.mark.parametrize("block", BLOCKS)
def test_both_remove_the_same(block: str) -> None:
    network = randomise(Network([(block, 8), ("plain", 8)], "flatten"), 0)
    assert differences(network, (3, 16, 16)) == hows(KNOWN.get(block, {}))


@pytest.mark.parametrize("model", TIMM)
def test_both_remove_the_same_from_published_networks(model: str) -> None:
    network = randomise(timm.create_model(model), 0)
    assert differences(network, (3, 64, 64), TIMM[model]) == hows(KNOWN.get(model, {}))
