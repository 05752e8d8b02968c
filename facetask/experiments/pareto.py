"""The Pareto front: what nothing else beats in both cost and quality."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(cost: Sequence[float], quality: Sequence[float | None], *, higher_is_better: bool) -> list[int]:
    """Return which points nothing else is both as cheap and as good as, and better in one, by ascending cost.

    Of points that are equal in both, the first is taken; points without a finite quality never are.

    Args:
        cost: Each point's cost, ``(n,)``.
        quality: Each point's quality, ``(n,)``; None where it is unknown.
        higher_is_better: Whether more quality is better, as of an accuracy; else less is, as of an error.
    """
    sign = -1.0 if higher_is_better else 1.0
    known = [(cost[i], sign * q, i) for i, q in enumerate(quality) if q is not None and math.isfinite(q)]
    front: list[int] = []
    best = math.inf
    for _, badness, index in sorted(known):
        if badness < best:
            front.append(index)
            best = badness
    return front
