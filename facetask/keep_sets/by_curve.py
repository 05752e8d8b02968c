"""From curves to keep sets: what every tap of a cut network keeps, one coupled group at a time.

Each task that reads the network chooses as if it were alone; what any of them chooses is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from facetask.config import KneeSize
from facetask.keep_sets.widths import give_every_tap_one, rounded
from facetask.statistics.curves import Curve
from facetask.statistics.knees import exactly, find_knee, ranked
from facetask.statistics.stability import selection_probability, stable_components
from facetask.surgery import CoupledGroup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import PruneConfig
    from facetask.data.splits import Split
    from facetask.responses import Responses
    from facetask.stages.curve import Chooser, Curves
    from facetask.surgery import ChannelGraph
    from facetask.tasks.satellite import Satellite

KeepSets = Mapping[str, "NDArray[np.intp]"]


@dataclass(frozen=True)
class TrialCurves:
    """The curves of one trial, and what draws more of them.

    Attributes:
        split: The trial's partition.
        curves: The curves of single taps.
        chooser: The selector, for coupled groups.
        groups: The coupled groups' curves drawn so far: other trials ask for the same.
    """

    split: Split
    curves: Curves
    chooser: Chooser
    groups: dict[tuple[tuple[str, ...], bytes], Curve] = field(default_factory=dict)

    def of(self, group: CoupledGroup, responses: Responses, task: Satellite) -> Curve:
        """Return one curve over all of a group's taps together."""
        component = np.concatenate([group.component[tap] for tap in group.taps])
        if len(group.taps) == 1 and np.array_equal(component, np.arange(len(component))):
            return self.curves.taps[group.taps[0]]
        key = (group.taps, component.tobytes())
        if key not in self.groups:
            self.groups[key] = self.chooser.curve(responses, group.taps, component, task, self.split)
        return self.groups[key]


@dataclass(frozen=True)
class GroupChoice:
    """One coupled group's curve and what was kept.

    Attributes:
        taps: The group's taps.
        n_components: How many components it has.
        curve: Its curve; None where every tap's own curve decided (``couple: union`` or ``intersection``).
        knee: How many components the rule keeps of the curve; None where there is none.
        kept: How many components were kept.
        notes: What the user should know about the choice.
    """

    taps: tuple[str, ...]
    n_components: int
    curve: Curve | None
    knee: int | None
    kept: int
    notes: tuple[str, ...] = ()


Groups = tuple[tuple[GroupChoice, ...], ...]
"""For each task, how the coupled groups came to what they keep."""


@dataclass(frozen=True)
class TaskAtCut:
    """A task with the cut that its head reads.

    Attributes:
        task: The task.
        graph: The graph that ends at its cut.
        responses: Those of the cut's filters, ``(n_images, n_filters)``.
        trials: The trial's curves, then those of the other trials, which only some settings need.
    """

    task: Satellite
    graph: ChannelGraph
    responses: NDArray[np.float32]
    trials: Sequence[TrialCurves]

    @property
    def cut(self) -> str:
        """The tap that its head reads."""
        return self.graph.taps[-1].name


@dataclass(frozen=True)
class _Wish:
    """What one task would keep of one coupled group.

    Attributes:
        group: The group, in the graph that ends at the task's cut.
        kept: Which components, ``(n_components,)``.
        ranking: All components, the one to keep first in front.
        curve: As in :class:`GroupChoice`.
        knee: As there.
        notes: As there.
    """

    group: CoupledGroup
    kept: NDArray[np.bool_]
    ranking: NDArray[np.intp]
    curve: Curve | None
    knee: int | None
    notes: tuple[str, ...]

    def choice(self, keep: KeepSets) -> GroupChoice:
        """Return how it was chosen, and how many components the keep sets hold in the end."""
        kept = np.zeros(self.group.n_components, dtype=bool)
        for tap, component in self.group.component.items():
            if tap in keep:
                kept[component[keep[tap]]] = True
        return GroupChoice(self.group.taps, self.group.n_components, self.curve, self.knee, int(kept.sum()), self.notes)


@dataclass(frozen=True)
class Choice:
    """What one curve, or the same curve of several trials, says is to be kept.

    Attributes:
        knee: How many components the rule keeps.
        support: Which are kept, sorted.
        ranking: All components, the one to keep first in front.
        notes: What the user should know.
    """

    knee: int
    support: NDArray[np.intp]
    ranking: NDArray[np.intp]
    notes: tuple[str, ...] = ()


def needs_all_trials(settings: PruneConfig) -> bool:
    """Return whether what one trial keeps depends on the others' curves."""
    return settings.knee == "one-standard-error" or settings.stable is not None


def choose(curves: Sequence[Curve], n_components: int, settings: PruneConfig) -> Choice:
    """Return what the configured rule keeps of a curve.

    Args:
        curves: The curve, and after it the same tap's or group's in the other trials.
        n_components: How many components there are.
        settings: The knee's rule, and how often a component must be chosen.

    Raises:
        CurveError: If a curve has no knee by this rule.
    """
    found = find_knee(curves[0], settings, n_components, curves[1:])
    ranking = ranked(curves[0].order, n_components)
    if settings.stable is None:
        return Choice(found.n_filters, found.support, ranking)
    orders = draws(curves)
    probability = selection_probability(orders, n_components, found.n_filters)
    support = stable_components(probability, settings.stable)
    note = (
        f"{len(support)} kept, {found.n_filters} at the knee: chosen in at least {settings.stable:.0%} of "
        f"{len(orders)} draws"
    )
    if probability[support].max() < settings.stable:
        note = f"1 kept: none is chosen in {settings.stable:.0%} of {len(orders)} draws, this one most often"
    likeliest = ranking[np.argsort(-probability[ranking], kind="stable")]
    return Choice(found.n_filters, support, likeliest, (note,))


def draws(curves: Sequence[Curve]) -> list[NDArray[np.intp]]:
    """Return the order in which components first appear in each trial and each of its resamples."""
    return [order for curve in curves for order in (curve.order, *curve.resampled)]


def choose_keep_sets(
    graph: ChannelGraph,
    follows: Mapping[str, str],
    responses: Responses,
    tasks: Sequence[TaskAtCut],
    settings: PruneConfig,
) -> tuple[dict[str, NDArray[np.intp]], Groups]:
    """Return a keep set for every tap of a cut graph, and how each task came to its part of each coupled group.

    Args:
        graph: The graph that ends at all the tasks' cuts.
        follows: Taps that keep the same indices as another.
        responses: All taps' responses.
        tasks: The tasks, one or more; what any of them chooses is kept.
        settings: The knee's rule, coupling and rounding.
    """
    following = _following(graph, follows, {each.cut for each in tasks}) if settings.couple != "free" else {}
    wishes = [_wishes(each, following, responses, settings) for each in tasks]
    keep: dict[str, NDArray[np.intp]] = {}
    for group in graph.groups:
        wanted = [wish for own in wishes for wish in own if set(group.taps) & set(wish.group.taps)]
        if wanted:
            kept, ranking = _of_any(wanted, group)
            give_every_tap_one(kept, group, ranking)
            kept = rounded(kept, group, ranking, settings.round_to)
            keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
    for tap in following:
        if following[tap] in keep:
            keep[tap] = keep[following[tap]]
    return keep, tuple(tuple(wish.choice(keep) for wish in own) for own in wishes)


def _wishes(
    each: TaskAtCut, following: Collection[str], responses: Responses, settings: PruneConfig
) -> tuple[_Wish, ...]:
    """Return what one task alone would keep of each coupled group below its cut; taps that follow another have none."""
    trials = each.trials if needs_all_trials(settings) else each.trials[:1]
    scope = trials[0].chooser.selector.scope
    groups = tuple(group for group in each.graph.groups if not set(following) & set(group.taps))
    if scope == "all":
        groups = (_everything(groups),)
    by_tap = settings.couple in ("union", "intersection") and scope == "group"
    wishes = []
    for group in groups:
        if group.fixed.all():
            continue
        curve, knee = None, None
        if by_tap:
            kept, ranking, notes = _by_tap_curves(group, [trial.curves for trial in trials], settings)
            kept |= group.fixed
        else:
            curves = [trial.of(group, responses, each.task) for trial in trials]
            choice = choose(curves, group.n_components, settings)
            curve, knee, ranking, notes = curves[0], choice.knee, choice.ranking, choice.notes
            kept = _with_fixed(_mask(choice.support, group.n_components), group.fixed, ranking, settings)
        wishes.append(_Wish(group, kept, ranking, curve, knee, notes))
    return tuple(wishes)


def _of_any(wishes: Sequence[_Wish], group: CoupledGroup) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which components of a group any task keeps, and all of them by the best place that any gives them.

    A task that cuts lower sees fewer of the group's taps, and perhaps fewer ties between their components.
    """
    kept, place = group.fixed.copy(), np.full(group.n_components, np.iinfo(np.intp).max)
    for wish in wishes:
        rank = np.empty(wish.group.n_components, dtype=np.intp)
        rank[wish.ranking] = np.arange(len(rank))
        for tap in group.taps:
            if tap in wish.group.component:
                own = wish.group.component[tap]
                np.logical_or.at(kept, group.component[tap], wish.kept[own])
                np.minimum.at(place, group.component[tap], rank[own])
    return kept, np.argsort(place, kind="stable")


def _following(graph: ChannelGraph, follows: Mapping[str, str], cuts: Collection[str]) -> dict[str, str]:
    """Return the taps that follow another in this graph.

    A tap that is coupled with others has its group's curve, and one at a cut, which feeds a head, its own.
    """
    alone = {group.taps[0] for group in graph.groups if len(group.taps) == 1}
    names = {tap.name for tap in graph.taps}
    return {tap: leader for tap, leader in follows.items() if tap in alone and tap not in cuts and leader in names}


def _with_fixed(
    kept: NDArray[np.bool_], fixed: NDArray[np.bool_], ranking: NDArray[np.intp], settings: PruneConfig
) -> NDArray[np.bool_]:
    """Keep what is fixed as well; where a number of filters is asked for, instead of the last ranked."""
    if isinstance(settings.knee, KneeSize) and settings.stable is None:
        return exactly(kept, int(kept.sum()), ranking, fixed)
    return kept | fixed


def _by_tap_curves(
    group: CoupledGroup, trials: Sequence[Curves], settings: PruneConfig
) -> tuple[NDArray[np.bool_], NDArray[np.intp], tuple[str, ...]]:
    """Keep what any tap's own knee wants (union), or what all taps that have the component want (intersection).

    Returns:
        Which components are kept, all of them ranked, and notes.
    """
    wanted = np.zeros(group.n_components, dtype=bool)
    refused = np.zeros(group.n_components, dtype=bool)
    order: list[NDArray[np.intp]] = []
    notes: list[str] = []
    for tap in group.taps:
        component = group.component[tap]
        choice = choose([curves.taps[tap] for curves in trials], len(component), settings)
        chosen = _mask(component[choice.support], group.n_components)
        wanted |= chosen
        refused |= _mask(component, group.n_components) & ~chosen
        # What never appears comes after what any tap has chosen.
        order.append(component[choice.ranking[np.isin(choice.ranking, trials[0].taps[tap].order)]])
        notes += [f"{tap}: {note}" for note in choice.notes]
    kept = wanted if settings.couple == "union" else wanted & ~refused
    return kept, ranked(np.concatenate(order), group.n_components), tuple(notes)


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
