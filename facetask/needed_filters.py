"""Keep sets by need: the label decides at the cut, and what is kept there decides everything below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from facetask.keep_sets import GroupChoice, TrialCurves, choose, give_every_tap_one, rounded
from facetask.knees import ranked

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from facetask.config import PruneConfig
    from facetask.surgery import ChannelGraph

IMAGES = 256


def choose_needed(
    graph: ChannelGraph, trials: Sequence[TrialCurves], settings: PruneConfig, images: Tensor, base_macs: int
) -> tuple[dict[str, NDArray[np.intp]], tuple[GroupChoice, ...]]:
    """Return a keep set for every tap of a cut graph, and how each coupled group came to its own.

    Args:
        graph: The graph that ends at the cut.
        trials: The trial's curves, then those of the other trials, which only some settings need.
        settings: The knee's rule for the cut's own curve, the budget and the rounding.
        images: Normalised training images.
        base_macs: Multiply–accumulates of the whole base network for one image.
    """
    cut = graph.taps[-1]
    curves = [trial.curves.taps[cut.name] for trial in trials]
    choice = choose(curves, cut.n_filters, settings)
    share = settings.budget
    assert share is not None
    needed = graph.needed({cut.name: choice.support}, images, share * base_macs)
    keep: dict[str, NDArray[np.intp]] = {}
    choices = []
    for group, need in zip(graph.groups, needed, strict=True):
        if group.fixed.all():
            continue
        at_cut = cut.name in group.taps
        own = group.component[cut.name][choice.ranking] if at_cut else need.order[:0]
        ranking = ranked(np.concatenate([own[: len(choice.support)], need.order, own]), group.n_components)
        kept = need.kept | group.fixed
        give_every_tap_one(kept, group, ranking)
        kept = rounded(kept, group, ranking, settings.round_to)
        note = f"what the layers above need, at {share:.0%} of the base network's MACs"
        alone = at_cut and len(group.taps) == 1
        choices.append(
            GroupChoice(
                group.taps,
                group.n_components,
                curves[0] if alone else None,
                choice.knee if alone else None,
                int(kept.sum()),
                choice.notes if alone else (*(choice.notes if at_cut else ()), note),
            )
        )
        keep |= {tap: np.flatnonzero(kept[group.component[tap]]) for tap in group.taps}
    return keep, tuple(choices)
