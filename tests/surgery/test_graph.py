"""The channel graph's taps, groups, cuts and keep sets."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from surgery_networks import Function, Network, assert_exact, conv, images, parameters
from torch import Tensor, nn

from facetask.errors import SurgeryError
from facetask.surgery import ChannelGraph
from facetask.surgery.trials import random_keep_sets, randomise

SHAPE = (3, 16, 16)


def graph_of(*blocks: tuple[str, int], head: str = "pool") -> ChannelGraph:
    return ChannelGraph.trace(randomise(Network(list(blocks), head), 0), SHAPE)


def names(graph: ChannelGraph) -> list[str]:
    return [tap.name for tap in graph.taps]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("plain", {"blocks.0.0": (8, "blocks_0_2")}),
        ("residual", {"blocks.0.first": (8, "relu"), "blocks.0.second": (8, "relu_1")}),
        ("zero-padded", {"blocks.0.first": (8, "relu"), "blocks.0.second": (8, "relu_1")}),
        ("max-feature-map by split", {"blocks.0.filter": (8, "max_1")}),
        ("max-feature-map by slice", {"blocks.0.filter": (8, "max_1")}),
        ("max-feature-map by amax", {"blocks.0.filter": (8, "amax")}),
        ("max-feature-map by max", {"blocks.0.filter": (8, "getitem_2")}),
        ("squeeze-excite", {"blocks.0.body": (8, "silu")}),
        ("affine by mul and add", {"blocks.0.body": (8, "relu")}),
        ("affine by addcmul", {"blocks.0.body": (8, "relu")}),
        (
            "pre-activated",
            {"blocks.0.stem": (8, "relu"), "blocks.0.first": (8, "relu_1"), "blocks.0.second": (8, "relu_2")},
        ),
        ("depthwise", {"blocks.0.0": (8, "blocks_0_2"), "blocks.0.3": (8, "blocks_0_4")}),
    ],
)
def test_taps_are_read_after_what_belongs_to_the_convolution(block: str, expected: dict[str, tuple[int, str]]) -> None:
    found = {tap.name: (tap.n_filters, tap.node) for tap in graph_of((block, 8)).taps}
    assert found["stem.0"] == (8, "stem_2")
    assert expected.items() <= found.items()
    assert not {name for name in found if "squeeze" in name or "expand" in name}


def test_a_projection_shares_its_place_with_the_main_branch() -> None:
    graph = graph_of(("residual", 12), ("residual", 12))
    assert names(graph) == ["stem.0", "blocks.0.first", "blocks.0.second", "blocks.1.first", "blocks.1.second"]
    (trunk,) = [group for group in graph.groups if len(group.taps) > 1]
    assert trunk.taps == ("blocks.0.second", "blocks.1.second")
    assert trunk.n_components == 12
    assert not trunk.fixed.any()
    np.testing.assert_array_equal(trunk.component["blocks.0.second"], trunk.component["blocks.1.second"])


def test_zero_padding_couples_only_the_channels_that_exist() -> None:
    graph = graph_of(("zero-padded", 12))
    (trunk,) = [group for group in graph.groups if len(group.taps) > 1]
    assert trunk.taps == ("stem.0", "blocks.0.second")
    assert trunk.n_components == 12
    np.testing.assert_array_equal(trunk.component["stem.0"], trunk.component["blocks.0.second"][:8])
    smaller = graph.prune({"stem.0": [1, 6], "blocks.0.second": [1, 6, 9, 10, 11]})
    assert smaller.get_submodule("stem.0").out_channels == 2
    assert smaller.get_submodule("blocks.0.second").out_channels == 5


def test_every_tap_is_in_one_group_and_group_numbers_are_dense() -> None:
    graph = graph_of(("dense", 8), ("few groups", 8), ("residual", 8))
    assert sorted(tap for group in graph.groups for tap in group.taps) == sorted(names(graph))
    for group in graph.groups:
        used = np.unique(np.concatenate(list(group.component.values())))
        np.testing.assert_array_equal(used, np.arange(group.n_components))
        assert group.fixed.shape == (group.n_components,)
        assert [len(group.component[tap]) for tap in group.taps] == [graph.tap(tap).n_filters for tap in group.taps]


def test_max_feature_map_keeps_k_and_k_plus_n() -> None:
    graph = graph_of(("max-feature-map by chunk", 8))
    pruned = graph.prune({"blocks.0.filter": [5, 1]})
    original = graph.prune({}).get_submodule("blocks.0.filter").weight
    torch.testing.assert_close(pruned.get_submodule("blocks.0.filter").weight, original[[1, 5, 9, 13]])


def test_responder_equals_hooks() -> None:
    module = randomise(Network([("residual", 12), ("depthwise", 8), ("plain", 8)]), 0)
    graph = ChannelGraph.trace(module, SHAPE)
    seen: dict[str, Tensor] = {}
    for name in ("stem.2", "blocks.1.2", "blocks.1.4", "blocks.2.2"):
        module.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.__setitem__(name, output.mean((2, 3)))
        )
    with torch.no_grad():
        module(images(SHAPE))
        found = graph.responder()(images(SHAPE))
    columns = dict(zip(names(graph), found.split([tap.n_filters for tap in graph.taps], 1), strict=True))
    assert found.shape == (3, sum(tap.n_filters for tap in graph.taps))
    for tap, place in [("stem.0", "stem.2"), ("blocks.1.0", "blocks.1.2"), ("blocks.1.3", "blocks.1.4")]:
        torch.testing.assert_close(columns[tap], seen[place])
    assert names(graph)[-1] == "blocks.2.0"
    torch.testing.assert_close(columns["blocks.2.0"], seen["blocks.2.2"])


def test_a_cut_network_gives_the_taps_responses_and_holds_nothing_else() -> None:
    graph = graph_of(("residual", 12), ("plain", 8), ("plain", 8))
    start = 0
    with torch.no_grad():
        responses = graph.responder()(images(SHAPE))
        for tap in graph.taps:
            cut = graph.cut(tap.name)
            assert cut.taps[-1].name == tap.name
            whole = cut.prune({})
            torch.testing.assert_close(whole(images(SHAPE)), responses[:, start : start + tap.n_filters])
            start += tap.n_filters
            assert not [name for name in whole.state_dict() if name.startswith("head")]
    assert set(graph.cut("stem.0").prune({}).state_dict()) == {
        f"stem.{key}"
        for key in (
            "0.weight",
            "0.bias",
            "1.weight",
            "1.bias",
            "1.running_mean",
            "1.running_var",
            "1.num_batches_tracked",
        )
    }


def test_pruning_leaves_the_original_alone() -> None:
    module = randomise(Network([("residual", 12)]), 0)
    before, state = copy.deepcopy(module.state_dict()), {key: id(value) for key, value in module.named_parameters()}
    graph = ChannelGraph.trace(module, SHAPE)
    pruned = graph.prune({"stem.0": [0, 3]})
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.add_(1)
    assert {key: id(value) for key, value in module.named_parameters()} == state
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert set(pruned.state_dict()) == set(before)


def test_pruned_networks_can_be_copied_trained_and_pruned_again() -> None:
    graph = graph_of(("residual", 12), ("squeeze-excite", 8), ("zero-padded", 8))
    rng = np.random.default_rng(0)
    once = graph.cut(names(graph)[-1]).prune(random_keep_sets(graph.cut(names(graph)[-1]), rng, 0.7))
    again = ChannelGraph.trace(once, SHAPE).cut(names(graph)[-1])
    keep = random_keep_sets(again, rng, 0.7)
    twice, masked = again.prune(keep), again.masked(keep)
    kept = torch.from_numpy(again.resolve(keep)[names(graph)[-1]])
    with torch.no_grad():
        torch.testing.assert_close(twice(images(SHAPE)), masked(images(SHAPE))[:, kept], rtol=1e-10, atol=1e-12)
    assert parameters(twice) < parameters(once)
    clone = copy.deepcopy(twice).train()
    clone(images(SHAPE)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in clone.parameters())


def test_an_untrained_twin_takes_the_state_of_a_pruned_network() -> None:
    build = lambda: Network([("residual", 12), ("max-feature-map by split", 8), ("computed weight", 8)])  # noqa: E731
    graph = ChannelGraph.trace(randomise(build(), 0), SHAPE).cut("blocks.2.4")
    keep = random_keep_sets(graph, np.random.default_rng(0))
    pruned = graph.prune(keep)
    twin = ChannelGraph.trace(build().double(), SHAPE).cut("blocks.2.4").prune(keep)
    twin.load_state_dict(pruned.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(twin(images(SHAPE)), pruned(images(SHAPE)))


def test_a_pruned_network_can_be_exported() -> None:
    graph = graph_of(("zero-padded", 12), ("max-feature-map by slice", 8)).cut("blocks.1.filter")
    pruned = graph.prune(random_keep_sets(graph, np.random.default_rng(0)))
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(pruned, (images(SHAPE),), dynamic_shapes=({0: batch},)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images(SHAPE, batch=5)), pruned(images(SHAPE, batch=5)))


def test_the_pruned_network_takes_other_input_sizes() -> None:
    graph = graph_of(("residual", 12), ("zero-padded", 12), ("sizes of images and channels", 12))
    keep = random_keep_sets(graph, np.random.default_rng(0))
    larger = images((3, 32, 32))
    with torch.no_grad():
        torch.testing.assert_close(graph.prune(keep)(larger), graph.masked(keep)(larger), rtol=1e-10, atol=1e-12)


def test_resolve_adds_what_is_coupled() -> None:
    graph = graph_of(("residual", 12), ("residual", 12))
    resolved = graph.resolve({"blocks.1.second": [7, 2]})
    np.testing.assert_array_equal(resolved["blocks.0.second"], [2, 7])
    np.testing.assert_array_equal(resolved["blocks.1.second"], [2, 7])
    np.testing.assert_array_equal(resolved["stem.0"], np.arange(8))


def test_resolve_leaves_no_layer_without_inputs() -> None:
    network = Network([("split paths", 4)])
    graph = ChannelGraph.trace(randomise(network, 0), SHAPE)
    body = next(name for name in names(graph) if name.endswith("body"))
    np.testing.assert_array_equal(graph.resolve({body: [9]})[body], [0, 4, 9])  # `middle` reads a sum, 0 with 4
    assert len(graph.prune({body: [9]})(images(SHAPE))) == 3


def test_unknown_operations_freeze_what_they_touch_and_say_so() -> None:
    network = Function(
        lambda m, x: F.relu(m.last(torch.cumsum(F.relu(m.odd(F.relu(m.first(x)))), 1))).mean((2, 3)),
        first=conv(3, 8),
        odd=conv(8, 8),
        last=conv(8, 8),
    )
    graph = assert_exact(network, SHAPE, cut="last")
    (frozen,) = graph.frozen
    assert (frozen.operation, frozen.taps) == ("cumsum", ("odd",))
    assert [group.fixed.all() for group in graph.groups] == [False, True, False]
    np.testing.assert_array_equal(graph.resolve({"odd": [1]})["odd"], np.arange(8))


def test_a_weight_that_two_layers_share_stays_one() -> None:
    graph = graph_of(("tied", 8), ("plain", 8))
    resolved = graph.resolve({"blocks.0.0": [1, 4, 6]})
    np.testing.assert_array_equal(resolved["blocks.0.2"], [1, 4, 6])
    pruned = graph.prune({"blocks.0.0": [1, 4, 6]})
    first, second = (pruned.get_submodule(f"blocks.0.{place}") for place in (2, 4))
    assert first.weight is second.weight
    assert first.weight.shape == (3, 3, 3, 3)
    assert first.bias is not second.bias


def test_a_network_with_in_place_operations_leaves_its_input_alone() -> None:
    graph = graph_of(("in place", 8))
    keep = random_keep_sets(graph, np.random.default_rng(0))
    x = images(SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(graph.prune(keep)(x), graph.masked(keep)(images(SHAPE)), rtol=1e-10, atol=1e-12)
    assert torch.equal(x, images(SHAPE))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"stem.0": []}, r"'stem.0'.*empty.*8 filters"),
        ({"stem.0": [0, 8]}, r"'stem.0'.*filter 8 is out of range.*0 to 7"),
        ({"stem.0": [-1]}, r"'stem.0'.*filter -1 is out of range"),
        ({"stem.0": [3, 1, 3]}, r"'stem.0'.*filter 3 .*more than once"),
        ({"stem.0": [0.5]}, r"'stem.0'.*indices.*float64"),
        ({"stem.1": [0]}, r"unknown tap 'stem.1'; did you mean 'stem.0'"),
        (
            {"blocks.0.second": [0, 1, 2], "blocks.1.second": [0, 1, 3]},
            r"'blocks.0.second' and 'blocks.1.second' are coupled.*filter 2 of 'blocks.1.second' is dropped",
        ),
        ({"blocks.2.0": [0], "blocks.2.1": [0]}, r"unknown tap 'blocks.2.1'"),
    ],
)
def test_bad_keep_sets(keep: dict[str, list[int]], message: str) -> None:
    graph = graph_of(("residual", 12), ("residual", 12), ("plain", 8))
    for ask in (graph.resolve, graph.prune, graph.masked):
        with pytest.raises(SurgeryError, match=message):
            ask(keep)


def test_channels_of_one_tap_that_go_together_must_agree() -> None:
    with pytest.raises(SurgeryError, match=r"filter \d+ of 'blocks.0.2' is dropped, but filter 0 of 'blocks.0.2'"):
        graph_of(("few groups", 8)).prune({"blocks.0.2": [0]})


def test_a_cut_at_an_unknown_tap() -> None:
    with pytest.raises(SurgeryError, match=r"no tap 'blocks.0.secnd'.*did you mean 'blocks.0.second'"):
        graph_of(("residual", 12)).cut("blocks.0.secnd")


def test_control_flow_on_pixels_is_refused() -> None:
    network = Function(lambda m, x: m.first(x) if x.mean() > 0 else m.first(-x), first=conv(3, 8))
    with pytest.raises(SurgeryError, match=r"Function is not traceable.*test_graph.py:\d+: `.*x.mean\(\) > 0"):
        ChannelGraph.trace(network, SHAPE)


def test_a_network_that_does_not_fit_its_input_is_refused() -> None:
    with pytest.raises(SurgeryError, match=r"not traceable with an input of \(1, 16, 16\)"):
        ChannelGraph.trace(nn.Sequential(conv(3, 8), nn.ReLU()), (1, 16, 16))


def test_code_that_reads_numbers_is_refused() -> None:
    network = Function(lambda m, x: m.first(x) * float(x.numpy().mean()), first=conv(3, 8))
    with pytest.raises(SurgeryError, match="not traceable"):
        ChannelGraph.trace(network, SHAPE)
