"""Stage 3 in rounds: the network is finetuned, then pruned a part of the way, again and again, down to its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from facetask.cost import network_cost
from facetask.heads import fit_head
from facetask.keep_sets import GroupChoice, KeepSets, TaskAtCut, TrialCurves
from facetask.needed_filters import choose_needed
from facetask.responses import Responses
from facetask.stages.curve import Curves
from facetask.task_network import TaskNetwork, side_by_side

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.config import PruneConfig
    from facetask.network import BaseNetwork
    from facetask.regression import LinearModel
    from facetask.surgery import ChannelGraph

Forward = Callable[["nn.Module"], "NDArray[np.float32]"]
Train = Callable[[TaskNetwork, "Sequence[LinearModel]", int], None]
"""Trains a network in place, given the heads from which training starts and the round, from 1."""


@dataclass(frozen=True)
class Carved:
    """A network that ends at the cuts, with the kept filters only.

    Attributes:
        graph: Its channel graph.
        keep: Keep set of each of its taps, in the base network's numbering.
        groups: For each task, how its coupled groups came to theirs.
    """

    graph: ChannelGraph
    keep: KeepSets
    groups: tuple[tuple[GroupChoice, ...], ...]


def carve_in_rounds(
    network: BaseNetwork,
    graph: ChannelGraph,
    tasks: Sequence[TaskAtCut],
    settings: PruneConfig,
    images: Tensor,
    forward: Forward,
    train: Train,
) -> Carved:
    """Return what is left of a network after several rounds, each of which leaves the same share of its MACs.

    In every round all weights are trained, the cuts' curves are drawn again on the trained network's responses, and the
    filters are chosen by what the layers above need.

    Args:
        network: The base network.
        graph: Its graph that ends at all the tasks' cuts.
        tasks: The tasks, one or more.
        settings: The rounds, the budget, the knee's rule, reconstruction.
        images: Normalised training images.
        forward: Returns a backbone's pooled responses for all images, ``(n_images, n_filters)``.
        train: Trains.
    """
    assert settings.budget is not None
    shape = network.preprocessing.input_shape
    base_macs = network_cost(network.module, shape).macs
    whole = network_cost(graph.module(), shape).macs / base_macs
    keep: KeepSets = everything(graph)
    groups: tuple[tuple[GroupChoice, ...], ...] = ()
    for done in range(1, settings.rounds + 1):
        own = graph.pruned(everything(graph))  # with tensors that training may change
        trained = with_heads(own, [(each.cut, each.task.targets.shape[1]) for each in tasks])
        x = forward(trained.backbone)
        heads = [
            fit_head(x[:, columns], each.task, each.trials[0].split)
            for columns, each in zip(trained.reads, tasks, strict=True)
        ]
        trained.set_heads([head.model for head in heads])
        train(trained, [head.gentle for head in heads], done)
        graph = trained_graph(graph, trained.backbone)
        x = forward(trained.backbone)
        at_cut = [
            TaskAtCut(each.task, graph.cut(each.cut), [redrawn(network, graph, each, x[:, columns])])
            for columns, each in zip(trained.reads, tasks, strict=True)
        ]
        share = whole * (settings.budget / whole) ** (done / settings.rounds)
        step = settings.model_copy(update={"macs": min(share, 1.0)})
        wanted, groups = choose_needed(graph, at_cut, step, images, base_macs)
        kept = graph.resolve(wanted)
        graph = graph.pruned(kept, images if settings.reconstruct else None)
        keep = {tap: keep[tap][left] for tap, left in kept.items()}
    return Carved(graph, keep, groups)


def with_heads(graph: ChannelGraph, heads: Sequence[tuple[str, int]]) -> TaskNetwork:
    """Return the network of a graph that ends at some cuts, whose tensors it shares, with untrained heads.

    Args:
        graph: The graph.
        heads: For each task the tap that its head reads, and the head's outputs.
    """
    read = [tap for tap in graph.taps if tap.name in dict(heads)]
    columns = dict(zip([tap.name for tap in read], side_by_side([tap.n_filters for tap in read]), strict=True))
    return TaskNetwork(graph.module(), [(columns[cut], n_outputs) for cut, n_outputs in heads]).eval()


def everything(graph: ChannelGraph) -> dict[str, NDArray[np.intp]]:
    """Return keep sets that drop nothing."""
    return {tap.name: np.arange(tap.n_filters) for tap in graph.taps}


def trained_graph(graph: ChannelGraph, backbone: nn.Module) -> ChannelGraph:
    """Return a graph with the weights that training gave a copy of its network."""
    trained = graph.pruned(everything(graph))
    trained.module().load_state_dict(backbone.state_dict())
    return trained


def redrawn(network: BaseNetwork, graph: ChannelGraph, each: TaskAtCut, x: NDArray[np.float32]) -> TrialCurves:
    """Return the curve of a task's cut, drawn again on another network's responses there.

    Args:
        network: The base network.
        graph: The other network's graph.
        each: The task with its curves on the base network.
        x: The responses, ``(n_images, n_filters)``.
    """
    trial = each.trials[0]
    chooser = trial.chooser
    if "weights" in chooser.selector.needs:
        chooser = replace(chooser, weights=replace(network, graph=graph, module=graph.module()).filter_weights())
    responses = Responses(x, {each.cut: slice(0, x.shape[1])})
    curve = chooser.curve(responses, (each.cut,), np.arange(x.shape[1]), each.task, trial.split)
    return TrialCurves(trial.split, Curves({each.cut: curve}), chooser)
