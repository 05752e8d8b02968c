"""What a pruned network may cost: said, neared step by step, exceeded."""

from __future__ import annotations

import pytest

from facetask.keep_sets.budget import Budget
from facetask.running.results import NetworkCost

BASE = NetworkCost(params=250, conv_params=250, macs=1000, conv_macs=1000, size_bytes=1000)


def cost(macs: int, size_bytes: int) -> NetworkCost:
    return BASE.model_copy(update={"macs": macs, "size_bytes": size_bytes})


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (Budget(0.25), "25% of the base network's MACs"),
        (Budget(1.0), "100% of the base network's MACs"),
        (Budget(0.125, 0.014), "12.5% of the base network's MACs and 1.4% of its size"),
    ],
)
def test_it_can_be_read(budget: Budget, told: str) -> None:
    assert str(budget) == told


def test_every_step_leaves_the_same_share() -> None:
    start, aim = cost(800, 400), Budget(0.05, 0.025)
    steps = [aim.on_the_way(start, BASE, done / 4) for done in range(1, 5)]
    assert [step.macs for step in steps] == pytest.approx([0.4, 0.2, 0.1, 0.05])
    assert [step.size for step in steps] == pytest.approx([0.2, 0.1, 0.05, 0.025])
    assert Budget(0.05).on_the_way(start, BASE, 0.5).size is None


@pytest.mark.parametrize(
    ("macs", "size", "words"),
    [
        (209, 14, ()),
        (211, 14, ()),  # what heads compute is no part of the search
        (300, 14, ("takes 30% of the base network's MACs, more than prune.macs allows",)),
        (200, 20, ("takes 2% of the base network's size, more than prune.size allows",)),
        (300, 20, ("30% of the base network's MACs and 2% of", "more than prune.macs and prune.size allow:")),
    ],
)
def test_what_exceeds_it_is_told(macs: int, size: int, words: tuple[str, ...]) -> None:
    told = Budget(0.21, 0.014).excess(cost(macs, size), BASE)
    assert bool(told) == bool(words)
    assert all(word in told for word in words)
    assert "prune.size" not in Budget(0.21).excess(cost(macs, 999), BASE)
