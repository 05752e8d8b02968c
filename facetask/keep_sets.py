"""From curves to keep sets: what every tap up to the cut keeps, one coupled group at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facetask.curves import Curve, knee
from facetask.surgery import CoupledGroup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import PruneConfig
    from facetask.responses import Responses
    from facetask.satellite import Satellite
    from facetask.splits import Split
    from facetask.stages.curve import Chooser, Curves
    from facetask.surgery import ChannelGraph

KeepSets = Mapping[str, "NDArray[np.intp]"]


@dataclass(frozen=True)
class GroupChoice:
    """One coupled group's curve and what was kept.

    Attributes:
        taps: The group's taps.
        n_components: How many components it has.
        curve: Its curve; None where every tap's own curve decided (``couple: union`` or ``intersection``).
        kept: How many components were kept.
    """

    taps: tuple[str, ...]
    n_components: int
    curve: Curve | None
    kept: int


def choose_keep_sets(
    graph: ChannelGraph,
    follows: Mapping[str, str],
    responses: Responses,
    task: Satellite,
    split: Split,
    curves: Curves,
    chooser: Chooser,
    settings: PruneConfig,
) -> tuple[dict[str, NDArray[np.intp]], tuple[GroupChoice, ...]]:
    """Return a keep set for every tap of a cut graph, and how each coupled group came to its own.

    Args:
        graph: The graph that ends at the cut.
        follows: Taps that keep the same indices as another.
        responses: All taps' responses.
        task: The satellite task.
        split: The trial's partition.
        curves: The curves of single taps.
        chooser: The selector, for coupled groups.
        settings: Threshold, coupling and rounding.
    """
    following = _following(graph, follows) if settings.couple != "free" else {}
    groups = tuple(group for group in graph.groups if not following.keys() & set(group.taps))
    if chooser.selector.scope == "all":
        groups = (_everything(groups),)
    by_tap = settings.couple in ("union", "intersection") and chooser.selector.scope == "group"
    keep: dict[str, NDArray[np.intp]] = {}
    choices = []
    for group in groups:
        if group.fixed.all():
            continue
        curve = None if by_tap else _group_curve(group, responses, task, split, curves, chooser)
        if curve is None:
            kept, order = _by_tap_curves(group, curves, settings)
        else:
            kept, order = _mask(curve.supports[knee(curve, settings.threshold)], group.n_components), [*curve.supports]
        ranking = _by_first_appearance(np.concatenate(order), group.n_components)
        kept |= group.fixed
        _give_every_tap_one(kept, group, ranking)
        kept = _rounded(kept, group, ranking, settings.round_to)
        choices.append(GroupChoice(group.taps, group.n_components, curve, int(kept.sum())))
        keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
    for tap in following:
        if following[tap] in keep:
            keep[tap] = keep[following[tap]]
    return keep, tuple(choices)


def _following(graph: ChannelGraph, follows: Mapping[str, str]) -> dict[str, str]:
    """Return the taps that follow another in this graph.

    A tap that is coupled with others has its group's curve, and the one at the cut, which feeds the head, its own.
    """
    alone = {group.taps[0] for group in graph.groups if len(group.taps) == 1}
    names = {tap.name for tap in graph.taps}
    cut = graph.taps[-1].name
    return {tap: leader for tap, leader in follows.items() if tap in alone and tap != cut and leader in names}


def _group_curve(
    group: CoupledGroup, responses: Responses, task: Satellite, split: Split, curves: Curves, chooser: Chooser
) -> Curve:
    """Return one curve over all the group's taps together."""
    component = np.concatenate([group.component[tap] for tap in group.taps])
    if len(group.taps) == 1 and np.array_equal(component, np.arange(len(component))):
        return curves.taps[group.taps[0]]
    return chooser.curve(responses, group.taps, component, task, split)


def _by_tap_curves(
    group: CoupledGroup, curves: Curves, settings: PruneConfig
) -> tuple[NDArray[np.bool_], list[NDArray[np.intp]]]:
    """Keep what any tap's own knee wants (union), or what all taps that have the component want (intersection)."""
    wanted = np.zeros(group.n_components, dtype=bool)
    refused = np.zeros(group.n_components, dtype=bool)
    order: list[NDArray[np.intp]] = []
    for tap in group.taps:
        curve, component = curves.taps[tap], group.component[tap]
        chosen = _mask(component[curve.supports[knee(curve, settings.threshold)]], group.n_components)
        wanted |= chosen
        refused |= _mask(component, group.n_components) & ~chosen
        order += [component[support] for support in curve.supports]
    return wanted if settings.couple == "union" else wanted & ~refused, order


def _by_first_appearance(order: NDArray[np.intp], n_components: int) -> NDArray[np.intp]:
    """Return all components, ``(n_components,)``: as they first appear in an order, then those that never do."""
    used, first = np.unique(order, return_index=True)
    return np.concatenate([used[np.argsort(first)], np.setdiff1d(np.arange(n_components), used)]).astype(np.intp)


def _rounded(
    kept: NDArray[np.bool_], group: CoupledGroup, ranking: NDArray[np.intp], multiple: int
) -> NDArray[np.bool_]:
    """Return a keep set with which every tap's width is the nearest multiple, at least one, or all that there is.

    Components that the same taps have are rounded together. The last ranked of those kept go, or the first ranked of
    the others come; what is fixed stays.
    """
    if multiple == 1:
        return kept
    membership = np.stack([np.bincount(group.component[tap], minlength=group.n_components) for tap in group.taps])
    rank = np.empty(group.n_components, dtype=np.intp)
    rank[ranking] = np.arange(group.n_components)
    rounded = np.zeros_like(kept)
    patterns, pattern = np.unique(membership, axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        members = np.flatnonzero(pattern.ravel() == index)
        channels = math.gcd(*patterns[:, index].tolist()) or 1  # of each tap that one component owns
        step = multiple // math.gcd(multiple, channels)
        n_kept = int(kept[members].sum())
        wanted = step * max(math.floor(n_kept / step + 0.5), int(n_kept > 0))
        wanted = max(min(wanted, len(members)), int(group.fixed[members].sum()))
        order = np.lexsort((rank[members], ~kept[members], ~group.fixed[members]))
        rounded[members[order[:wanted]]] = True
    return rounded


def _give_every_tap_one(kept: NDArray[np.bool_], group: CoupledGroup, ranking: NDArray[np.intp]) -> None:
    """Keep the first ranked component of every tap that would be left with none."""
    for tap in group.taps:
        own = group.component[tap]
        if not kept[own].any():
            kept[ranking[np.isin(ranking, own)][0]] = True


def _everything(groups: tuple[CoupledGroup, ...]) -> CoupledGroup:
    """Return all groups as one, for selectors whose scope is everything below the cut."""
    offset = 0
    component: dict[str, NDArray[np.intp]] = {}
    for group in groups:
        component |= {tap: group.component[tap] + offset for tap in group.taps}
        offset += group.n_components
    return CoupledGroup(
        taps=tuple(component),
        component=component,
        n_components=offset,
        fixed=np.concatenate([group.fixed for group in groups]),
    )


def _mask(indices: NDArray[np.intp], n: int) -> NDArray[np.bool_]:
    """Return where indices point, ``(n,)``."""
    mask = np.zeros(n, dtype=bool)
    mask[indices] = True
    return mask
