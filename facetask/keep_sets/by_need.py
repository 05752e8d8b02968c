"""Keep sets by need: each task's label decides at its cut, and what is kept there decides everything below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from facetask.keep_sets.by_curve import Choice, GroupChoice, Groups, TaskAtCut, choose
from facetask.keep_sets.widths import give_every_tap_one, rounded
from facetask.networks.heads import fit_head
from facetask.statistics.knees import ranked

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from facetask.config import PruneConfig
    from facetask.keep_sets.budget import Budget
    from facetask.running.results import NetworkCost
    from facetask.surgery import ChannelGraph

IMAGES = 256


def choose_needed(
    graph: ChannelGraph,
    tasks: Sequence[TaskAtCut],
    settings: PruneConfig,
    budget: Budget,
    images: Tensor,
    base: NetworkCost,
) -> tuple[dict[str, NDArray[np.intp]], Groups]:
    """Return a keep set for every tap of a cut graph, and how each task came to its part of each coupled group.

    Args:
        graph: The graph that ends at all the tasks' cuts.
        tasks: The tasks, one or more; each one's label decides at its own cut.
        settings: The knee's rule for the cuts' own curves, and the rounding.
        budget: What the network and its heads may cost.
        images: Normalised training images.
        base: What the whole base network costs.
    """
    choices = [
        choose([trial.curves.taps[each.cut] for trial in each.trials], each.graph.taps[-1].n_filters, settings)
        for each in tasks
    ]
    wanted: dict[str, NDArray[np.intp]] = {}
    heads: dict[str, NDArray[np.float64]] = {}
    for each, choice in zip(tasks, choices, strict=True):
        wanted[each.cut] = np.union1d(wanted.get(each.cut, choice.support), choice.support)
        weights = _head(each, choice)
        heads[each.cut] = np.hstack([heads.get(each.cut, weights[:, :0]), weights])
    size = None if budget.size is None else budget.size * base.size_bytes
    needed = graph.needed(wanted, heads, images[:IMAGES], budget.macs * base.macs, size)
    keep: dict[str, NDArray[np.intp]] = {}
    told: list[list[GroupChoice]] = [[] for _ in tasks]
    for group, need in zip(graph.groups, needed, strict=True):
        if group.fixed.all():
            continue
        at_cut = [(each, choice) for each, choice in zip(tasks, choices, strict=True) if each.cut in group.taps]
        own = [(group.component[each.cut][choice.ranking], len(choice.support)) for each, choice in at_cut]
        first, rest = [order[:n] for order, n in own], [order for order, _ in own]
        ranking = ranked(np.concatenate([*first, need.order, *rest]), group.n_components)
        kept = need.kept | group.fixed
        give_every_tap_one(kept, group, ranking)
        kept = rounded(kept, group, ranking, settings.round_to)
        keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
        note = f"what the layers above need, at {budget}"
        for each, choice, groups in zip(tasks, choices, told, strict=True):
            if not set(group.taps) & {tap.name for tap in each.graph.taps}:
                continue
            reads = each.cut in group.taps
            alone = reads and len(group.taps) == 1
            groups.append(
                GroupChoice(
                    group.taps,
                    group.n_components,
                    each.trials[0].curves.taps[each.cut] if alone else None,
                    choice.knee if alone else None,
                    int(kept.sum()),
                    choice.notes if alone else (*(choice.notes if reads else ()), note),
                )
            )
    return keep, tuple(tuple(groups) for groups in told)


def _head(each: TaskAtCut, choice: Choice) -> NDArray[np.float64]:
    """Return the weights of a task's head on the cut's filters that its label chooses, ``(n_filters, n_outputs)``."""
    weights = np.zeros((each.responses.shape[1], each.task.targets.shape[1]))
    head = fit_head(each.responses[:, choice.support], each.task, each.trials[0].split)
    weights[choice.support] = head.model.coef
    return weights
