"""How many of a coupled group's components are kept in the end: one a tap at least, and round numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.surgery import CoupledGroup


def rounded(
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


def give_every_tap_one(kept: NDArray[np.bool_], group: CoupledGroup, ranking: NDArray[np.intp]) -> None:
    """Keep the first ranked component of every tap that would be left with none."""
    for tap in group.taps:
        own = group.component[tap]
        if not kept[own].any():
            kept[ranking[np.isin(ranking, own)][0]] = True
