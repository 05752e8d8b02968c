"""Pruned networks equal the masked originals, for every kind of block and for random combinations of them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from surgery_networks import BLOCKS, Network, assert_exact, images

SHAPE = (3, 16, 16)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("head", ["pool", "flatten"])
def test_pruned_equals_masked(block: str, head: str) -> None:
    graph = assert_exact(Network([(block, 8), ("plain", 8)], head), SHAPE)
    assert graph.frozen == ()


@pytest.mark.parametrize("block", BLOCKS)
def test_pruned_equals_masked_after_a_cut(block: str) -> None:
    network = Network([(block, 12), ("plain", 8)])
    last = assert_exact(network, SHAPE).taps[-2].name
    graph = assert_exact(network, SHAPE, cut=last)
    assert graph.taps[-1].name == last
    assert graph.taps[-1].n_filters == graph.prune({})(images(SHAPE)).shape[1]


networks = st.builds(
    Network,
    st.lists(st.tuples(st.sampled_from(sorted(BLOCKS)), st.sampled_from([4, 8, 12])), min_size=1, max_size=3),
    st.sampled_from(["pool", "flatten"]),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(network=networks, seed=st.integers(0, 2**16), data=st.data())
def test_random_networks(network: Network, seed: int, data: st.DataObject) -> None:
    graph = assert_exact(network, SHAPE, seed)
    tap = data.draw(st.sampled_from([tap.name for tap in graph.taps]))
    assert_exact(network, SHAPE, seed, cut=tap, may_be_whole=True)
