from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from facetask.cost import network_cost, second_opinion
from facetask.regression import LinearModel
from facetask.task_network import TaskNetwork


class Net(nn.Module):
    """A plain, a strided, a grouped and a depthwise convolution, batch norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 5, stride=2, bias=False)
        self.grouped = nn.Conv2d(12, 6, 3, groups=3)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = self.depthwise(self.grouped(self.second(x)))
        return self.head(x.mean((2, 3)))


# 16×20 → 16×20 → 6×8 → 4×6 → 2×4
CONV_MACS = 16 * 20 * 8 * 27 + 6 * 8 * 12 * 8 * 25 + 4 * 6 * 6 * 4 * 9 + 2 * 4 * 6 * 9
CONV_PARAMS = (8 * 27 + 8) + 12 * 8 * 25 + (6 * 4 * 9 + 6) + (6 * 9 + 6)
PARAMS = CONV_PARAMS + 16 + (6 * 4 + 4)
SHAPE = (3, 16, 20)


def test_macs_and_parameters_as_counted_by_hand() -> None:
    cost = network_cost(Net().eval(), SHAPE)
    assert cost.macs == CONV_MACS + 24
    assert cost.conv_macs == CONV_MACS
    assert cost.params == PARAMS
    assert cost.conv_params == CONV_PARAMS
    assert cost.size_bytes == 4 * (PARAMS + 16) + 8  # running mean and variance, and how many batches they saw


def test_double_precision_costs_twice_the_bytes() -> None:
    cost = network_cost(Net().double().eval(), SHAPE)
    assert cost.size_bytes == 8 * (PARAMS + 16) + 8
    assert cost.macs == CONV_MACS + 24


def test_a_network_without_products_costs_none() -> None:
    cost = network_cost(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval(), SHAPE)
    assert (cost.macs, cost.conv_macs, cost.params, cost.conv_params) == (0, 0, 6, 0)


def test_counting_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    network = Net().eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network_cost(network, SHAPE)
    second_opinion(network, SHAPE, 1)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert capfd.readouterr() == ("", "")


def test_thop_agrees_on_plain_networks() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32 * 784, 10))
    macs = network_cost(network.eval(), (3, 32, 32)).macs
    assert second_opinion(network, (3, 32, 32), macs) == ""
    note = second_opinion(network, (3, 32, 32), 2 * macs)
    assert note == f"thop counts {macs / 1e6:,.1f} M MACs, torch's flop counter {2 * macs / 1e6:,.1f} M"


@pytest.mark.parametrize(("counted", "noted"), [(104.9, False), (105.1, True), (95.1, False), (94.9, True)])
def test_a_difference_of_more_than_five_per_cent_is_noted(
    counted: float, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = types.SimpleNamespace(profile=lambda *args, **options: (counted * 1e6, 0))
    monkeypatch.setitem(sys.modules, "thop", fake)
    assert bool(second_opinion(Net(), SHAPE, 100_000_000)) == noted


def test_the_head_takes_a_linear_model(tmp_path: Path) -> None:
    network = TaskNetwork(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3, 2).eval()
    rng = np.random.default_rng(0)
    model = LinearModel(coef=rng.standard_normal((3, 2)), intercept=rng.standard_normal(2))
    network.set_head(model)
    images = torch.randn(5, 3, 4, 6)
    np.testing.assert_allclose(network(images).detach().numpy(), model.predict(images.mean((2, 3)).numpy()), atol=1e-6)
    assert network.head.weight.requires_grad
