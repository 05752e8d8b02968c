"""Base networks: weights that fit, and fingerprints that change when the responses may."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_runs import Toy

from facetask import Architecture, Params, PluginError, Preprocessing, SurgeryError, WeightsError
from facetask.networks.base_network import BaseNetwork, Round, following, load_network, load_state, trace_architecture


@pytest.fixture(scope="module")
def network(toy: Toy) -> BaseNetwork:
    return load_network("tiny", Params(), toy.plugins)


def test_the_weights_are_the_plugins(network: BaseNetwork, toy: Toy) -> None:
    record: Any = toy.plugins.find("architecture", "tiny")
    state = record.weights(Params()).state
    built = record.build(Params()).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.module.state_dict().items())
    assert not torch.equal(built["0.weight"], state["0.weight"])  # else the line above could not fail
    assert not network.module.training
    assert (network.licence, network.source) == ("CC0-1.0", "chance")


def test_an_unknown_architecture(toy: Toy) -> None:
    with pytest.raises(PluginError, match="unknown architecture 'tinny'; did you mean 'tiny'"):
        load_network("tinny", Params(), toy.plugins)


def test_fingerprints(network: BaseNetwork, toy: Toy) -> None:
    same = load_network("tiny", Params(), toy.plugins)
    assert same.fingerprint() == network.fingerprint()
    other = Preprocessing(size=(32, 32), colour="bgr", mean=(127.5,) * 3, std=(127.5,) * 3)
    revised = replace(network.architecture, revision="2")
    with torch.no_grad():
        same.module.get_parameter("2.conv.weight")[0, 0, 0, 0] += 1
    prints = [
        found.fingerprint()
        for found in (network, same, replace(network, preprocessing=other), replace(network, architecture=revised))
    ]
    assert len(set(prints)) == 4


def test_filter_weights_are_rows(network: BaseNetwork) -> None:
    weights = network.filter_weights()
    assert {tap: rows.shape for tap, rows in weights.items()} == {"0": (8, 27), "2.conv": (8, 72), "3": (16, 72)}
    filters = network.module.get_parameter("0.weight").detach().double().numpy()
    assert np.array_equal(weights["0"][5], filters[5].ravel())


def test_filters_of_max_feature_maps_lie_side_by_side(network: BaseNetwork) -> None:
    tap = replace(network.graph.taps[0], n_filters=4)  # of eight channels, channel i competes with channel i + 4
    halved = replace(network, graph=type("Graph", (), {"taps": (tap,)})())  # type: ignore[arg-type]
    filters = network.module.get_parameter("0.weight").detach().double().numpy()
    expected = [np.concatenate([filters[i].ravel(), filters[i + 4].ravel()]) for i in range(4)]
    assert np.array_equal(halved.filter_weights()["0"], np.array(expected))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_filter_holds_what_its_output_weighs_its_inputs_by(
    network: BaseNetwork, transposed: bool, groups: int
) -> None:
    convolution = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 6, 3, groups=groups, bias=False)
    tap = replace(network.graph.taps[0], n_filters=6)
    graph = type("Graph", (), {"taps": (tap,)})()
    found = replace(network, module=nn.Sequential(convolution), graph=graph).filter_weights()["0"]
    # One bright input channel at a time: what each output makes of it is its weights there.
    seen = np.zeros((6, 4, 9))
    for channel in range(4):
        image = torch.zeros(1, 4, 5, 5)
        image[0, channel, 2, 2] = 1
        with torch.no_grad():
            around = convolution(image)[0]
        start = 2 if transposed else 0
        part = around[:, start : start + 3, start : start + 3]
        seen[:, channel] = (part if transposed else part.flip(1, 2)).flatten(1).numpy()
    own = [np.concatenate([row for row in rows if row.any()]) for rows in seen]
    np.testing.assert_allclose(found, own, rtol=1e-6)


def test_filters_that_are_not_those_of_one_convolution(network: BaseNetwork) -> None:
    tap = replace(network.graph.taps[0], n_filters=12)
    joined = replace(network, graph=type("Graph", (), {"taps": (tap,)})())  # type: ignore[arg-type]
    with pytest.raises(SurgeryError, match=r"tap '0': 12 filters cannot be told apart .* '0', which has 8; use"):
        joined.filter_weights()


def test_weights_that_do_not_fit_are_told_key_by_key() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {**before, "0.weight": torch.zeros(3, 9), "1.wieght": torch.zeros(1)}
    del state["1.weight"]
    with pytest.raises(WeightsError) as caught:
        load_state(module, state, "face.dat")
    assert str(caught.value) == (
        "face.dat: does not fit the network: 1 keys are missing: 1.weight; 1 keys are unknown: 1.wieght; did you mean "
        "'1.weight'?; 1 keys are of another shape: 0.weight has shape (3, 9) instead of (3, 2)"
    )
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


# --- what the architecture says of its taps


def with_taps(network: BaseNetwork, taps: list[str] | None = None, **follows: str) -> Architecture:
    return replace(network.architecture, taps=lambda params: taps, follows=lambda params: follows)


def test_an_architecture_names_its_taps(network: BaseNetwork) -> None:
    record = with_taps(network, ["1", "2"])
    graph = trace_architecture(record, Params(), network.module, network.preprocessing)
    assert [tap.name for tap in graph.taps] == ["1", "2"]
    named = replace(network, graph=graph)
    assert {tap: weights.shape for tap, weights in named.filter_weights().items()} == {"1": (8, 27), "2": (8, 72)}


def test_a_network_without_a_tap_is_no_base_network(network: BaseNetwork) -> None:
    with pytest.raises(SurgeryError, match="tiny: no tap found"):
        trace_architecture(network.architecture, Params(), nn.Flatten(), network.preprocessing)


def test_who_follows_whom(network: BaseNetwork) -> None:
    record = with_taps(network, **{"2.conv": "0"})
    assert following(record, Params(), network.graph) == {"2.conv": "0"}
    same, other = np.array([0, 2]), np.array([1, 2])
    assert following(record, Params(), network.graph, [Round(("3",), {"0": same, "2.conv": same})]) == {"2.conv": "0"}
    assert following(record, Params(), network.graph, [Round(("3",), {"0": same, "2.conv": other})]) == {}
    assert following(record, Params(), network.graph.cut("0"), [Round(("0",), {"0": same})]) == {}


@pytest.mark.parametrize(
    ("follows", "message"),
    [
        ({"2.cnv": "0"}, "follows: no tap '2.cnv'; did you mean '2.conv'"),
        ({"2.conv": "9"}, "follows: no tap '9'"),
        ({"3": "0"}, "follows: '3' has 16 filters, '0' 8"),
    ],
)
def test_taps_that_cannot_follow(network: BaseNetwork, follows: dict[str, str], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        following(with_taps(network, **follows), Params(), network.graph)


def test_old_files_without_counts_of_batches(network: BaseNetwork) -> None:
    state = {k: v + 1 for k, v in network.module.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(state) < len(network.module.state_dict())
    module = copy.deepcopy(network.module)
    load_state(module, state, "net.pth")
    assert all(torch.equal(module.state_dict()[key], value) for key, value in state.items())
