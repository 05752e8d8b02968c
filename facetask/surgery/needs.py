"""What the layers above need: filters chosen so that what is kept above them can still be computed.

A layer that mixes channels reads kept channels x̃ of its input x and should still give its kept outputs y = W x. The
best that least squares can do, pixel by pixel, is W B x̃ (see ``reconstruct``), and what it misses of y is known from
the second moments of x alone, for any choice of channels. What is missed counts as much as the heads' outputs suffer
from it (see ``sensitivity``). So the channels of a coupled group are ranked by forward selection: the one that
explains most of what its readers have still to be told, for what it costs, comes first. Groups are done from the cut
downwards, several times over, since what is kept of one decides what the others must tell and what they cost. One
price for all groups then meets the limit, of multiply–accumulates, say. With two limits, cost is a mixture of both,
and it is the mixture at which both are met together.

Source: the idea of choosing channels by what the next layer can be given is that of J.-H. Luo, J. Wu, W. Lin,
"ThiNet" (arXiv 1707.06342); weighing all layers by one price, needs restricted to what is kept above, in units of the
heads' outputs, and groups that several layers read are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from facetask.surgery.expenses import Limit, channels, weighted_layer
from facetask.surgery.groups import CoupledGroup
from facetask.surgery.labelling import Labelling
from facetask.surgery.sensitivity import Heads, sensitivities
from facetask.surgery.values import Values, affordable, evenly

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

MOST_PIXELS = 20_000
PASSES = 4
SMALLEST_PIVOT = 1e-8  # of the largest mean square: less is rounding
SMALLEST_GAIN = 1e-9  # of all that is needed
HALVINGS = 6  # of the mixture of two costs
CLOSE = 0.01  # to both limits


@dataclass(frozen=True)
class Reader:
    """One use of a layer that mixes channels.

    Attributes:
        inputs: Component of each input channel, ``(n_in,)``.
        outputs: Component of each output channel, ``(n_out,)``.
        moments: Second moments of the input channels, ``(n_in, n_in)``.
        weights: Each output's weights times the root of its sensitivity, ``(n_out, n_in, n_offsets)``.
    """

    inputs: Indices
    outputs: Indices
    moments: Array
    weights: Array


@dataclass(frozen=True)
class Ranking:
    """The components of one coupled group in the order in which they are worth keeping.

    Attributes:
        order: Components, those that nothing above reads left out.
        worth: For each of them the share of its readers' needs that it meets for what it costs, never rising.
    """

    order: Indices
    worth: Array

    def kept(self, price: float) -> Indices:
        """Return the components that are worth a price, at least one."""
        return self.order[: max(int((self.worth >= price).sum()), 1)]


@torch.no_grad()
def find_readers(network: fx.GraphModule, labelling: Labelling, heads: Heads, images: Tensor) -> tuple[Reader, ...]:
    """Return every use of a layer that mixes channels, with what it reads of some images.

    Args:
        network: The traced network.
        labelling: Its labels.
        heads: What the network is for.
        images: Normalised images, ``(n, channels, height, width)``; where their maps would take too much memory, only
            the first are used.
    """
    images = affordable(network, images)
    layers = {node: layer for node in network.graph.nodes if (layer := _mixing(network, labelling, node)) is not None}
    sensitivity = sensitivities(network, layers, heads, images)
    values = Values(network, images)
    found = []
    for node in network.graph.nodes:
        if node in layers:
            inputs, outputs = channels(layers[node], labelling, node)
            moments = _moments(values.of[node.all_input_nodes[0]], channels_last=isinstance(layers[node], nn.Linear))
            weights = _weights(layers[node]) * sensitivity[node].sqrt()[:, None, None]
            found.append(Reader(inputs, outputs, moments.numpy(), weights.numpy()))
        values.step(node)
    return tuple(found)


def choose_by_needs(
    readers: Sequence[Reader], groups: Sequence[Indices], wanted: NDArray[np.bool_], limits: Sequence[Limit]
) -> tuple[NDArray[np.bool_], Mapping[int, Ranking]]:
    """Return which components are kept, and the ranking of every group that anything reads.

    Args:
        readers: Every use of a layer that mixes channels.
        groups: The components of each coupled group, input side first. Of a group that nothing reads only what is
            wanted is kept; where nothing is, all of it.
        wanted: Components that are kept in any case.
        limits: What the whole network may cost, one limit or two. Where the wanted components alone cost more, every
            group keeps only them, or one.
    """

    def used(kept: NDArray[np.bool_]) -> list[float]:
        return [limit.total(kept) / limit.most for limit in limits]

    best = _choose(readers, groups, wanted, limits, 0.0)
    if len(limits) == 1 or _is_met_first(used(best[0]), 0):
        return best
    other = _choose(readers, groups, wanted, limits, 1.0)
    if _is_met_first(used(other[0]), 1):
        return other
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        second = (low + high) / 2
        found = _choose(readers, groups, wanted, limits, second)
        if min(used(found[0])) > min(used(best[0])):
            best = found
        if min(used(best[0])) > 1 - CLOSE:
            break
        low, high = (second, high) if _is_met_first(used(found[0]), 1) else (low, second)
    return best


def components_of(group: CoupledGroup, of_tap: Mapping[str, Indices]) -> Indices:
    """Return a coupled group's components in the network's numbering, ``(n_components,)``.

    Args:
        group: The group.
        of_tap: For each tap the network's component of each filter.
    """
    found = np.empty(group.n_components, dtype=np.intp)
    for tap in group.taps:
        found[group.component[tap]] = of_tap[tap]
    return found


def _is_met_first(used: Sequence[float], index: int) -> bool:
    """Return whether of two limits one is the nearer, given the share of each that is used."""
    return used[index] >= used[1 - index]


def _choose(
    readers: Sequence[Reader],
    groups: Sequence[Indices],
    wanted: NDArray[np.bool_],
    limits: Sequence[Limit],
    second: float,
) -> tuple[NDArray[np.bool_], Mapping[int, Ranking]]:
    """Return which components are kept, where cost is a mixture of what is limited.

    Args:
        readers: See :func:`choose_by_needs`, as for the following.
        groups: The groups.
        wanted: What is kept in any case.
        limits: The limits.
        second: The second limit's share of the mixture, in which each counts in units of the whole network's cost.
    """
    kept = np.ones(len(wanted), dtype=bool)
    shares = [1 - second, second][: len(limits)]
    rates = [share / limit.total(kept) for share, limit in zip(shares, limits, strict=True)]
    price = 0.0
    rankings: dict[int, Ranking] = {}
    for _ in range(PASSES):
        for index in reversed(range(len(groups))):
            ranking = _ranking(readers, groups[index], wanted, kept, limits, rates)
            if ranking is not None:
                rankings[index] = ranking
                _keep(kept, groups[index], ranking, wanted, price)
            elif wanted[groups[index]].any():
                kept[groups[index]] = wanted[groups[index]]
        price = _price(groups, rankings, wanted, kept, limits)
        for index, ranking in rankings.items():
            _keep(kept, groups[index], ranking, wanted, price)
    return kept, rankings


def _mixing(network: nn.Module, labelling: Labelling, node: fx.Node) -> nn.Module | None:
    """Return the layer that a node calls, if it mixes channels."""
    layer = weighted_layer(network, labelling, node)
    return None if layer is None or labelling.layers[str(node.target)].columns is None else layer


def _weights(layer: nn.Module) -> Tensor:
    """Return a layer's weights, ``(n_out, n_in, n_offsets)``."""
    weight = layer.get_parameter("weight").double()
    weight = weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight
    weight = weight.flatten(2) if weight.dim() > 2 else weight[:, :, None]
    groups = getattr(layer, "groups", 1)
    return _dense(weight, groups) if groups > 1 else weight


def _dense(weight: Tensor, groups: int) -> Tensor:
    """Return a grouped convolution's weight with zeros where it does not look, ``(n_out, n_in, n_offsets)``."""
    n_out, width, offsets = weight.shape
    dense = weight.new_zeros(n_out, width * groups, offsets)
    for group, rows in enumerate(torch.arange(n_out).chunk(groups)):
        dense[rows, group * width : (group + 1) * width] = weight[rows]
    return dense


def _moments(maps: Tensor, *, channels_last: bool) -> Tensor:
    """Return the second moments of maps' channels, ``(n_channels, n_channels)``, over evenly drawn pixels."""
    pixels = (maps if channels_last else maps.movedim(1, -1)).flatten(0, -2)
    few = pixels[evenly(len(pixels), MOST_PIXELS)].double()
    return few.T @ few / len(few)


def _keep(kept: NDArray[np.bool_], group: Indices, ranking: Ranking, wanted: NDArray[np.bool_], price: float) -> None:
    """Keep of one group what is wanted and what is worth the price."""
    kept[group] = wanted[group]
    kept[ranking.kept(price)] = True


def _price(
    groups: Sequence[Indices],
    rankings: Mapping[int, Ranking],
    wanted: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    limits: Sequence[Limit],
) -> float:
    """Return the lowest price at which what is kept exceeds no limit."""
    prices = np.unique(np.concatenate([[0.0], *(ranking.worth for ranking in rankings.values())]))
    low, high = 0, len(prices) - 1
    trial = kept.copy()
    while low < high:
        middle = (low + high) // 2
        for index, ranking in rankings.items():
            _keep(trial, groups[index], ranking, wanted, prices[middle])
        if any(limit.total(trial) > limit.most for limit in limits):
            low = middle + 1
        else:
            high = middle
    return float(prices[low])


def _ranking(
    readers: Sequence[Reader],
    group: Indices,
    wanted: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    limits: Sequence[Limit],
    rates: Sequence[float],
) -> Ranking | None:
    """Rank one group's components by forward selection; None where nothing reads them.

    Args:
        readers: All readers.
        group: The group's components.
        wanted: What comes first.
        kept: What is kept of everything else.
        limits: What is paid.
        rates: What each of these counts.
    """
    place = np.full(len(kept), -1, dtype=np.intp)
    place[group] = np.arange(len(group))
    needs = [need for reader in readers if (need := _need(reader, place, kept)) is not None]
    if not needs:
        return None
    cost = np.zeros(len(group))
    for limit, rate in zip(limits, rates, strict=True):
        cost += rate * limit.costs(len(group), place, kept)
    cost = np.maximum(cost, 1e-12)
    left = np.ones(len(group), dtype=bool)
    first = np.flatnonzero(wanted[group])
    whole = sum(need.size for need in needs)
    order, worth = [], []
    for step in range(len(group)):
        gain = np.zeros(len(group))
        for need in needs:
            need.add_gain(gain)
        ratio = np.where(left, gain / cost, -1.0)
        if step < len(first):
            best, value = int(first[step]), np.inf
        else:
            best = int(ratio.argmax())
            value = float(ratio[best])
        if step >= len(first) and gain[best] <= SMALLEST_GAIN * whole:
            break
        left[best] = False
        order.append(best)
        worth.append(value)
        for need in needs:
            need.take(best)
    return Ranking(group[np.array(order, dtype=np.intp)], np.minimum.accumulate(worth) if worth else np.zeros(0))


def _need(reader: Reader, place: Indices, kept: NDArray[np.bool_]) -> _Need | None:
    """Return what a reader needs of a group's components, given what is kept of its other inputs."""
    mine, outputs = place[reader.inputs], kept[reader.outputs]
    if not (mine >= 0).any() or not outputs.any():
        return None
    weights = reader.weights[outputs].transpose(1, 0, 2).reshape(len(mine), -1)
    values, vectors = np.linalg.eigh(weights @ weights.T)  # as few columns as say the same
    inside = values > 1e-9 * values[-1]
    need = _Need(reader.moments, vectors[:, inside] * np.sqrt(values[inside]), mine)
    for channel in np.flatnonzero((mine < 0) & kept[reader.inputs]):
        need.take_channel(int(channel))
    return need


class _Need:
    """What is left to be told to one reader: residual moments of its inputs, and their products with its outputs."""

    def __init__(self, moments: Array, weights: Array, place: Indices) -> None:
        self._moments, self._cross, self._place = moments.copy(), moments @ weights, place
        self.size = float((weights * self._cross).sum())
        self._floor = SMALLEST_PIVOT * float(moments.diagonal().max(initial=0.0))
        self._inside = np.flatnonzero(place >= 0)

    def add_gain(self, gain: Array) -> None:
        """Add what each component would tell."""
        pivots = self._moments.diagonal()[self._inside]
        told = np.square(self._cross[self._inside]).sum(axis=1)
        told = np.where(pivots > self._floor, told / np.where(pivots > self._floor, pivots, 1.0), 0.0)
        np.add.at(gain, self._place[self._inside], told)

    def take(self, component: int) -> None:
        """Note that a component is kept."""
        for channel in np.flatnonzero(self._place == component):
            self.take_channel(int(channel))

    def take_channel(self, channel: int) -> None:
        """Note that a channel is kept: only what it does not tell is left."""
        pivot = self._moments[channel, channel]
        if pivot <= self._floor:
            return
        column = self._moments[:, channel] / pivot
        self._cross -= np.outer(column, self._cross[channel])
        self._moments -= np.outer(column, self._moments[channel].copy())
