from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facetask import SurgeryError
from facetask.networks.base_network import trace_architecture
from facetask.plugin_manager import PluginManager
from facetask.surgery import ChannelGraph
from facetask.testing import tiny_network
from facetask.training.fresh import start_afresh


class Affine(nn.Module):
    def __init__(self, channels: int, scale: str = "gamma") -> None:
        super().__init__()
        self.register_parameter(scale, nn.Parameter(torch.full((channels,), 7.0)))
        self.beta = nn.Parameter(torch.full((channels,), 7.0))

    def forward(self, x: Tensor) -> Tensor:
        scale = next(value for name, value in self.named_parameters() if name != "beta")
        return x * scale.view(-1, 1, 1) + self.beta.view(-1, 1, 1)


class Residual(nn.Module):
    """Without batch norm: each block adds to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.affine = nn.Conv2d(8, 8, 3, padding=1, bias=False), Affine(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.affine(self.conv(x)))


def everything() -> nn.Sequential:
    """A layer of each kind, its parameters without meaningful values."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.PReLU(),
        Residual(),
        nn.GroupNorm(2, 8),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
        network[1].running_mean.fill_(5.0)
    return network


@pytest.fixture
def images() -> Tensor:
    return torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_no_parameter_and_no_statistic_keeps_its_value(images: Tensor) -> None:
    network = everything()
    start_afresh(network, images)
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert (network[1].running_mean == 0).all()
    assert (network[1].running_var == 1).all()
    assert (network[1].num_batches_tracked == 0).all()
    assert (network[3].affine.gamma == 1).all()
    assert (network[3].affine.beta == 0).all()
    assert all((layer.bias == 0).all() for layer in (network[0], network[5], network[8]))


def test_seeds_decide(images: Tensor) -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        network = everything()
        start_afresh(network, images)
        drawn.append(network[0].weight.clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_every_layer_s_outputs_have_unit_variance_however_deep_the_network_is(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), *(Residual() for _ in range(20)))
    start_afresh(network, images)
    spreads: list[float] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, outputs: spreads.append(float(outputs.std())))
    with torch.no_grad():
        assert float(network(images).std()) < 20  # 2**10, were it doubled in variance by every block
    assert spreads == pytest.approx([1.0] * 21, rel=1e-4)


def test_a_pruned_network_is_drawn_anew(images: Tensor) -> None:
    graph = ChannelGraph.trace(tiny_network(), (3, 32, 32)).cut("3")
    backbone = graph.pruned({"3": [0, 3, 5]}).module()
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    start_afresh(backbone, torch.randn(4, 3, 32, 32))
    for name, value in backbone.named_parameters():
        if value.ndim > 1:
            assert not torch.isclose(value, before[name]).any(), name


def test_a_parameter_of_unknown_meaning_is_named(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), Affine(8, scale="constant_7"))
    with pytest.raises(SurgeryError, match=r"start: scratch does not know how 1\.constant_7 of shape \(8,\) starts"):
        start_afresh(network, images)


def test_a_layer_that_gives_nothing_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    start_afresh(network, torch.zeros(2, 3, 8, 8))
    assert network[0].weight.isfinite().all()
    assert float(network[0].weight.detach().std()) == pytest.approx((2 / 27) ** 0.5, rel=0.2)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("dlib-face-resnet", {}),
        ("lightcnn-9", {"weights": "absent.pth"}),
        ("vgg-face", {"weights": None}),
    ],
)
def test_the_bundled_networks_are_drawn_anew(name: str, params: dict[str, str | None]) -> None:
    record: Any = PluginManager().find("architecture", name)
    chosen = record.params.model_validate_json(json.dumps(params))
    preprocessing = record.preprocessing(chosen)
    module = record.build(chosen)
    with torch.no_grad():
        for value in module.state_dict().values():
            value.fill_(float("nan"))
    graph = trace_architecture(record, chosen, module, preprocessing)
    backbone = graph.cut(graph.taps[-1].name).module()
    inputs = torch.randn(2, *preprocessing.input_shape)
    start_afresh(backbone, inputs)
    with torch.inference_mode():
        responses = backbone(inputs)
    assert responses.isfinite().all()
    assert 0.02 < float(responses.std()) < 20
