"""How much the heads' outputs depend on each channel."""

from __future__ import annotations

import torch
from surgery_networks import images, randomise
from torch import Tensor, fx, nn

from facetask.surgery.sensitivity import IMAGES_AT_ONCE, sensitivities

SHAPE = (3, 10, 10)


class Two(nn.Module):
    """Two convolutions, of which the second has a filter that is never read."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.relu, self.top = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.top(self.relu(self.low(x))))


def measured(network: nn.Module, weights: Tensor, batch: Tensor) -> dict[str, Tensor]:
    traced = fx.symbolic_trace(network.eval())
    nodes = {node.name: node for node in traced.graph.nodes}
    heads = {nodes["relu_1"]: weights}
    found = sensitivities(traced, [nodes["low"], nodes["top"]], heads, batch)
    return {node.name: value for node, value in found.items()}


def test_it_is_the_mean_square_of_the_gradient_summed_over_pixels() -> None:
    network, weights = randomise(Two(), 0), torch.tensor([[1.0], [-2.0], [0.0]], dtype=torch.float64)
    batch = images(SHAPE, batch=IMAGES_AT_ONCE + 3)
    found = measured(network, weights, batch)
    low = network.low(batch).detach().requires_grad_()
    top = network.top(torch.relu(low))
    outputs = torch.relu(top).mean((2, 3)) @ weights
    for name, value in [("low", low), ("top", top)]:
        (gradient,) = torch.autograd.grad(outputs.sum(), value, retain_graph=True)
        expected = (gradient / outputs.std(correction=0)).square().sum((2, 3)).mean(0).detach()
        torch.testing.assert_close(found[name], expected)
    assert found["top"][2] == 0  # no head reads it


def test_outputs_count_alike_whatever_their_units() -> None:
    network, batch = randomise(Two(), 1), images(SHAPE, batch=64)
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    alone = [measured(network, weights[:, [index]], batch)["low"] for index in (0, 1)]
    found = measured(network, weights * torch.tensor([1.0, 1000.0]), batch)["low"]
    assert torch.allclose(found, alone[0] + alone[1], rtol=0.5)


def test_the_smaller_error_of_the_outputs_is_told_from_the_larger() -> None:
    """Noise on the more sensitive channel moves the outputs more, as much as it says."""
    network, batch = randomise(Two(), 3), images(SHAPE, batch=32)
    weights = torch.ones(3, 1, dtype=torch.float64)
    sensitivity = measured(network, weights, batch)["low"]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        low = network.low(batch)
        outputs = torch.relu(network.top(torch.relu(low))).mean((2, 3)) @ weights
        for channel in range(4):
            moved = []
            for _ in range(50):
                noisy = low.clone()
                noise = torch.randn(low[:, channel].shape, dtype=torch.float64, generator=generator)
                noisy[:, channel] += 1e-3 * noise
                moved.append(torch.relu(network.top(torch.relu(noisy))).mean((2, 3)) @ weights - outputs)
            error = torch.stack(moved).square().mean() / outputs.var(correction=0)
            torch.testing.assert_close(error, 1e-6 * sensitivity[channel], rtol=0.2, atol=0)


def test_an_output_that_is_constant_needs_nothing_and_the_images_stay() -> None:
    network, batch = randomise(Two(), 0), images(SHAPE, batch=4)
    before = batch.clone()
    found = measured(network, torch.zeros(3, 1, dtype=torch.float64), batch)
    assert not any(value.any() for value in found.values())
    assert torch.equal(batch, before)


def test_where_there_is_no_gradient_nothing_is_added() -> None:
    class Rooted(Two):
        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.top(self.relu(self.low(x)).sqrt()))

    found = measured(randomise(Rooted(), 0), torch.ones(3, 1, dtype=torch.float64), images(SHAPE, batch=4))
    assert all(value.isfinite().all() and value.any() for value in found.values())
