"""Stage 3 in rounds: the network is finetuned, then pruned a part of the way, again and again, down to its budget."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from facetask.keep_sets.by_curve import Groups, KeepSets, TaskAtCut, TrialCurves
from facetask.networks.cost import network_cost
from facetask.networks.heads import Head, fit_head
from facetask.networks.task_network import TaskNetwork, side_by_side
from facetask.responses import Responses
from facetask.stages.curve import Curves

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.keep_sets.budget import Budget
    from facetask.networks.base_network import BaseNetwork
    from facetask.statistics.regression import LinearModel
    from facetask.surgery import ChannelGraph

Forward = Callable[["nn.Module"], "NDArray[np.float32]"]
"""Returns a backbone's pooled responses for all images, ``(n_images, n_filters)``."""
Choose = Callable[["ChannelGraph", Sequence[TaskAtCut], "Budget"], tuple[KeepSets, Groups]]
"""Returns keep sets of a graph that ends at the cuts, within a budget."""
Train = Callable[[TaskNetwork, "Sequence[LinearModel]", KeepSets, int], None]
"""Trains a network in place, given the heads from which training starts, what it keeps and the round, from 1."""


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
    groups: Groups


def carve_in_rounds(
    network: BaseNetwork,
    graph: ChannelGraph,
    tasks: Sequence[TaskAtCut],
    rounds: int,
    budget: Budget,
    images: Tensor | None,
    forward: Forward,
    choose: Choose,
    train: Train,
) -> Carved:
    """Return what is left of a network after several rounds, each of which leaves the same share of its cost.

    In every round all weights are trained, the cuts' curves are drawn again on the trained network's responses, and the
    filters are chosen by them.

    Args:
        network: The base network.
        graph: Its graph that ends at all the tasks' cuts.
        tasks: The tasks, one or more.
        rounds: How many, at least one.
        budget: What the last round leaves.
        images: Normalised images for the reconstruction of dropped inputs; None for none.
        forward: Runs a network.
        choose: Chooses filters.
        train: Trains a network.
    """
    shape = network.preprocessing.input_shape
    start, base = network_cost(graph.module(), shape), network_cost(network.module, shape)
    keep: KeepSets = graph.everything()
    groups: Groups = ()
    for done in range(1, rounds + 1):
        # A copy, for training changes its tensors; to label a copied graph again would take longer.
        trained = copy.deepcopy(with_heads(graph, [(each.cut, each.task.targets.shape[1]) for each in tasks]))
        heads = fit_heads(trained, forward(trained.backbone), tasks)
        train(trained, [head.gentle for head in heads], keep, done)
        graph = _trained(graph, trained.backbone)
        x = forward(trained.backbone)
        at_cut = [
            TaskAtCut(each.task, graph.cut(each.cut), x[:, columns], [_redrawn(network, graph, each, x[:, columns])])
            for columns, each in zip(trained.reads, tasks, strict=True)
        ]
        kept, groups = choose(graph, at_cut, budget.on_the_way(start, base, done / rounds))
        graph = graph.pruned(kept, images)
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


def fit_heads(network: TaskNetwork, x: NDArray[np.float32], tasks: Sequence[TaskAtCut]) -> list[Head]:
    """Return each task's head, fitted on the network's pooled responses ``(n_images, n_filters)``, and set them."""
    heads = [
        fit_head(x[:, columns], each.task, each.trials[0].split)
        for columns, each in zip(network.reads, tasks, strict=True)
    ]
    network.set_heads([head.model for head in heads])
    return heads


def _trained(graph: ChannelGraph, backbone: nn.Module) -> ChannelGraph:
    """Return a graph with the weights that training gave a copy of its network."""
    trained = graph.pruned(graph.everything())
    trained.module().load_state_dict(backbone.state_dict())
    return trained


def _redrawn(network: BaseNetwork, graph: ChannelGraph, each: TaskAtCut, x: NDArray[np.float32]) -> TrialCurves:
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
