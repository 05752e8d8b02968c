from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_runs import Finished, Toy

from facetask import load_model
from facetask.networks.cost import ModelCost, base_network, model_cost, network_cost, second_opinion
from facetask.networks.latency import Comparison, Latency
from facetask.networks.task_network import TaskNetwork
from facetask.statistics.regression import LinearModel
from facetask.testing import tiny_network


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
    network = TaskNetwork(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), [(slice(0, 3), 2)]).eval()
    rng = np.random.default_rng(0)
    model = LinearModel(coef=rng.standard_normal((3, 2)), intercept=rng.standard_normal(2))
    network.set_heads([model])
    images = torch.randn(5, 3, 4, 6)
    np.testing.assert_allclose(network(images).detach().numpy(), model.predict(images.mean((2, 3)).numpy()), atol=1e-6)
    assert network.heads[0].weight.requires_grad


# --- a saved model beside its base network


@pytest.fixture(scope="module")
def toy_cost(finished: Finished, toy: Toy) -> ModelCost:
    """The cost of the toy run's nominal model, hardly measured."""
    return model_cost(finished.path / "model/level", batches=(1, 3, 1), seconds=0, plugins=toy.plugins)


def test_a_model_is_counted_beside_the_whole_base_network(toy_cost: ModelCost, finished: Finished, toy: Toy) -> None:
    folder = finished.path / "model/level"
    assert (toy_cost.task, toy_cost.architecture) == ("level", "tiny")
    assert toy_cost.base == network_cost(tiny_network(), (3, 32, 32))
    assert toy_cost.pruned == network_cost(load_model(folder, toy.plugins).network, (3, 32, 32))
    assert toy_cost.pruned.params < toy_cost.base.params
    assert toy_cost.file_bytes == (folder / "model.safetensors").stat().st_size
    assert toy_cost.onnx_bytes["pruned"] > 4 * toy_cost.pruned.params
    assert toy_cost.onnx_bytes.keys() == {"base", "pruned"}
    assert toy_cost.notes == ()


def test_each_batch_size_is_measured_once_in_each_runtime(toy_cost: ModelCost) -> None:
    measured = [(row.batch, row.runtime) for row in toy_cost.latency]
    assert measured == [(1, "torch"), (1, "onnxruntime"), (3, "torch"), (3, "onnxruntime")]
    assert toy_cost.threads == torch.get_num_threads()
    for row in toy_cost.latency:
        for latency in (row.base, row.pruned):
            assert 0 < latency.q1_ms <= latency.median_ms <= latency.q3_ms
            assert latency.rounds >= 5


def test_without_onnxruntime_torch_is_measured(finished: Finished, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = model_cost(finished.path / "model/level", batches=[2], seconds=0, plugins=toy.plugins)
    assert [(row.batch, row.runtime) for row in found.latency] == [(2, "torch")]
    assert found.onnx_bytes == {}
    (note,) = found.notes
    assert note.startswith("onnxruntime is left out: ")
    assert "pip install 'facetask[onnx]'" in note
    assert found.lines()[-1] == f"note: {note}"


def made_up() -> ModelCost:
    """A cost of round numbers."""
    return ModelCost(
        task="yaw",
        architecture="tiny",
        base=network_cost(Net().eval(), SHAPE).model_copy(update={"params": 4_000_000}),
        pruned=network_cost(Net().eval(), SHAPE).model_copy(update={"params": 1_000_000}),
        file_bytes=1_230_000,
        onnx_bytes={},
        threads=2,
        latency=(Comparison(10, "torch", Latency.of([0.5, 0.5], 10), Latency.of([0.1, 0.3], 10)),),
        notes=(),
    )


def test_a_cost_as_json_and_for_readers() -> None:
    found = json.loads(json.dumps(made_up().to_json()))
    assert found["base"]["params"] == 4_000_000
    assert found["pruned"]["conv_params"] == CONV_PARAMS
    (row,) = found["latency"]
    assert (row["batch"], row["runtime"], row["base"]["median_ms"], row["pruned"]["median_ms"]) == (10, "torch", 50, 20)
    assert row["speedup"] == pytest.approx(2.5)
    assert (row["pruned"]["q1_ms"], row["pruned"]["q3_ms"]) == pytest.approx((15, 25))
    words = {line.split()[0]: " ".join(line.split()) for line in made_up().lines() if line}
    assert words["parameters"] == "parameters 4.00 M 1.00 M -75.0 %"
    assert words["safetensors"] == "safetensors file – 1.23 MB"
    assert words["ONNX"] == "ONNX file – –"
    assert words["10"] == "10 torch 50.00 (50.00–50.00) 20/s 20.00 (15.00–25.00) 50/s 2.50×"
    assert "2 threads" in words["ms"]


def test_the_base_network_has_weights_that_let_signals_through(finished: Finished, toy: Toy) -> None:
    model = load_model(finished.path / "model/level", toy.plugins)
    network, again = base_network(model, toy.plugins), base_network(model, toy.plugins)
    shapes = {name: value.shape for name, value in tiny_network().state_dict().items()}
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = network(images)
        assert torch.equal(outputs, again(images))
    assert not network.training
    assert 0.1 < outputs.std() < 10
