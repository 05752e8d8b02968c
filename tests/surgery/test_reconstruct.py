"""Weights that make the kept channels stand in for the dropped ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surgery_networks import random_keep_sets, randomise
from torch import Tensor, nn

from facetask.surgery import ChannelGraph
from facetask.surgery.reconstruct import RIDGE
from facetask.testing import tiny_network

SHAPE = (3, 12, 12)


def chain() -> nn.Sequential:
    """Two convolutions, the first of which has each filter twice, at another scale."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1), nn.ReLU())
    randomise(network, 0)
    first = network[0]
    with torch.no_grad():
        scale = torch.linspace(0.5, 2, 8, dtype=torch.float64)
        first.weight[8:] = first.weight[:8] * scale.view(-1, 1, 1, 1)
        first.bias[8:] = first.bias[:8] * scale
    return network


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_nothing_is_lost_where_the_dropped_filters_are_combinations_of_the_kept(images: Tensor) -> None:
    network = chain()
    graph = ChannelGraph.trace(network, SHAPE).cut("2")
    keep = {"0": list(range(8))}
    with torch.no_grad():
        expected = network(images).mean((2, 3))
        plain = graph.pruned(keep).module()(images)
        found = graph.pruned(keep, images).module()(images)
    assert (plain - expected).abs().max() > 0.1 * expected.abs().max()
    assert (found - expected).abs().max() < 1e-3 * (plain - expected).abs().max()


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Ridge regression without an intercept, by stacking."""
    penalty = np.sqrt(RIDGE * np.square(x).sum(0).mean())
    stacked = np.vstack([x, penalty * np.eye(x.shape[1])])
    return np.linalg.lstsq(stacked, np.vstack([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, 1, 1), (2, 0, 1), ((1, 2), (0, 2), (2, 1)), (1, "same", 2)]
)
def test_the_weights_are_those_of_ridge_regression(
    *,
    bias: bool,
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] | str,
    dilation: int | tuple[int, int],
) -> None:
    """First of all channels on the kept, pixel by pixel; then of what the outputs miss on all that a filter sees."""
    images = torch.randn(32, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = chain()
    network[2] = nn.Conv2d(16, 8, 3, stride, padding, dilation, bias=bias)
    randomise(network, 1)
    keep = [1, 4, 6, 11, 15]
    found = ChannelGraph.trace(network, SHAPE).cut("2").pruned({"0": keep}, images).module().get_submodule("2")
    with torch.no_grad():
        x = network[:2](images)
        y = network[2](x).movedim(1, -1).flatten(0, 2).numpy()
        wide = x.movedim(1, -1).flatten(0, 2).numpy()
        start = np.einsum("ochw,kc->okhw", network[2].weight.numpy(), ridge(wide[:, keep], wide))
        zeros = dilation if padding == "same" else padding
        seen = nn.functional.unfold(x[:, keep], 3, dilation, zeros, stride).movedim(1, -1).flatten(0, 1).numpy()
    missed = y - seen @ start.reshape(8, -1).T
    if bias:
        missed -= network[2].bias.detach().numpy()
        seen = np.hstack([seen, np.ones((len(seen), 1))])
    correction = ridge(seen, missed)
    expected = start + correction[:45].T.reshape(start.shape)
    assert np.allclose(found.weight.detach().numpy(), expected, rtol=1e-7, atol=1e-9)
    if bias:
        moved = (found.bias - network[2].bias).detach().numpy()
        assert np.allclose(moved, correction[45], rtol=1e-7, atol=1e-9)


def test_with_few_pixels_each_channel_is_told_from_the_kept_at_its_own(images: Tensor) -> None:
    """Too few for all weights of a filter, enough for a map of channels."""
    network = randomise(chain(), 1)
    keep, few = [1, 4, 6, 11, 15], images[:2, :, :6, :6]
    graph = ChannelGraph.trace(network, (3, 6, 6)).cut("2")
    found = graph.pruned({"0": keep}, few).module().get_submodule("2")
    with torch.no_grad():
        wide = network[:2](few).movedim(1, -1).flatten(0, 2).numpy()
    expected = np.einsum("ochw,kc->okhw", network[2].weight.detach().numpy(), ridge(wide[:, keep], wide))
    assert np.allclose(found.weight.detach().numpy(), expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(found.bias, network[2].bias)


def test_neighbouring_pixels_tell_what_the_kept_channels_do_not(images: Tensor) -> None:
    """A filter that is another one, shifted by a pixel, is told by that one's neighbours."""
    network = chain()
    with torch.no_grad():
        first, second = network[0], network[2]
        first.weight[:] = 0.0
        first.weight[:8, :, 1, 1] = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        first.weight[8:, :, 1, 2] = first.weight[:8, :, 1, 1]
        first.bias[8:] = first.bias[:8]
        second.weight[:, 8:, :, 2] = 0.0  # of the shifted ones it sees what it could see of the others
        inner = nn.Sequential(first, network[1], second, network[3])
        second.padding = (0, 0)
        graph = ChannelGraph.trace(inner, SHAPE).cut("2")
        expected = inner(images).mean((2, 3))
        plain, found = (graph.pruned({"0": list(range(8))}, given).module()(images) for given in (None, images))
    assert (found - expected).abs().max() < 0.1 * (plain - expected).abs().max()


def test_the_layers_below_are_reconstructed_first(images: Tensor) -> None:
    """On a residual network the error shrinks everywhere, and the original is untouched."""
    network = randomise(tiny_network(), 0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    graph = ChannelGraph.trace(network, SHAPE).cut("3")
    keep = random_keep_sets(graph, np.random.default_rng(0), 0.7) | {"3": list(range(16))}
    with torch.no_grad():
        expected = network(images).mean((2, 3))
        plain, found = (graph.pruned(keep, given).module()(images) for given in (None, images))
    assert (found - expected).square().mean() < 0.5 * (plain - expected).square().mean()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_what_cannot_be_fitted_is_left_as_it_is(images: Tensor) -> None:
    graph = ChannelGraph.trace(chain(), (3, 1, 1)).cut("2")  # eight pixels for eight channels
    given = images[:, :, :1, :1]
    plain, found = (
        graph.pruned({"0": list(range(8))}, batch).module().get_submodule("2").weight for batch in (None, given)
    )
    assert torch.equal(plain, found)


@pytest.mark.parametrize("groups", [2, 16])
def test_the_filters_of_a_grouped_convolution_are_fitted_to_their_own_outputs(groups: int) -> None:
    """They read what is left of a layer that could not be told exactly."""
    images = torch.randn(32, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 16, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, padding=1, groups=groups),
        nn.ReLU(),
    )
    graph = ChannelGraph.trace(randomise(network, 2), SHAPE).cut("4")
    keep = graph.resolve({"0": list(range(6)), "2": [0, 1, 2, 8, 9, 10]})
    kept = keep["4"].tolist()
    assert len(kept) < 16 if groups == 16 else kept
    plain, found = (graph.pruned(keep, given).module() for given in (None, images))
    with torch.no_grad():
        wanted = network[:5](images)[:, kept].movedim(1, -1).flatten(0, 2).numpy()
        x = found.get_submodule("2")(torch.relu(found.get_submodule("0")(images))).relu()
        weight, bias = (getattr(plain.get_submodule("4"), name).numpy() for name in ("weight", "bias"))
    new = found.get_submodule("4")
    width = new.weight.shape[1]
    for index in range(len(kept)):
        own = x[:, index // (len(kept) // new.groups) * width :][:, :width]
        seen = nn.functional.unfold(own, 3, 1, 1, 2).movedim(1, -1).flatten(0, 1).detach().numpy()
        missed = wanted[:, [index]] - seen @ weight[index].reshape(-1, 1) - bias[index]
        correction = ridge(np.hstack([seen, np.ones((len(seen), 1))]), missed)[:, 0]
        expected = weight[index].ravel() + correction[:-1]
        assert np.allclose(new.weight[index].detach().numpy().ravel(), expected, rtol=1e-7, atol=1e-9)
        assert np.allclose(new.bias[index].item(), bias[index] + correction[-1], rtol=1e-7, atol=1e-9)


def test_a_layer_that_is_used_twice_keeps_its_weights(images: Tensor) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.top = nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            return torch.relu(self.top(torch.relu(self.shared(torch.relu(self.shared(x))))))

    graph = ChannelGraph.trace(randomise(Twice(), 0), SHAPE)
    graph = graph.cut(graph.taps[-1].name)
    keep = random_keep_sets(graph, np.random.default_rng(1))
    plain, found = (graph.pruned(keep, given).module() for given in (None, images))
    assert plain.get_submodule("shared").weight.shape[1] < 8
    assert torch.equal(plain.get_submodule("shared").weight, found.get_submodule("shared").weight)
    assert not torch.equal(plain.get_submodule("top").weight, found.get_submodule("top").weight)
