"""Knees: rules that choose how many filters of a characteristic curve are kept, and which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from facetask.errors import CurveError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.config import PruneConfig
    from facetask.statistics.curves import Curve

ROUNDING = 1e-12


class Points(Protocol):
    """RMSE against number of filters: a curve, or one that was read back from ``results.json``."""

    @property
    def n_filters(self) -> Sequence[int]:
        """Number of filters kept at each point."""

    @property
    def rmse(self) -> Sequence[float]:
        """RMSE at each point."""


@dataclass(frozen=True)
class Knee:
    """What a rule keeps of one curve.

    Attributes:
        n_filters: How many components.
        support: Which, sorted.
    """

    n_filters: int
    support: NDArray[np.intp]


def find_knee(curve: Curve, settings: PruneConfig, n_components: int, others: Sequence[Curve] = ()) -> Knee:
    """Return what the configured rule keeps of a curve.

    Args:
        curve: The curve.
        settings: Rule and threshold.
        n_components: How many components the curve chooses from.
        others: The same tap's or group's curves of the other trials, for ``one-standard-error``.

    Raises:
        CurveError: If the curve is empty, its RMSE is not finite, or the rule needs other trials and there is none.
    """
    rule = settings.knee
    if rule == "threshold":
        index = knee(curve, settings.threshold)
    elif rule == "elbow":
        index = elbow(curve)
    elif rule == "one-standard-error":
        index = best_within(curve, one_standard_error([curve, *others]))
    else:
        return _of_size(curve, rule.of(n_components), n_components)
    return Knee(curve.n_filters[index], curve.supports[index])


def knee(curve: Points, threshold: float) -> int:
    """Return the index of the point with the fewest filters whose RMSE stays within the threshold of the best.

    Among points with equally many filters it is the one with the lowest RMSE.

    Args:
        curve: A curve with at least one point.
        threshold: Allowed increase, as a fraction of the curve's RMSE range, in [0, 1].

    Raises:
        CurveError: If the curve is empty, its RMSE is not finite, or the threshold is outside [0, 1].

    Source: arXiv 1901.02675, eq. 2.
    """
    if not 0 <= threshold <= 1:
        raise CurveError(f"knee threshold {threshold}: a fraction of the curve's RMSE range, from 0 to 1, is needed")
    rmse = _finite(curve)
    allowed = rmse.min() + threshold * (rmse.max() - rmse.min())
    # max: rounding of the line above must not exclude the best point itself.
    return _fewest(curve, rmse, np.flatnonzero(rmse <= max(allowed, rmse.min())))


def sweep(curve: Points, thresholds: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Return ``(filters kept, RMSE)`` at the knee of each threshold; nothing is fitted again.

    Raises:
        CurveError: As :func:`knee` does.
    """
    indices = [knee(curve, threshold) for threshold in thresholds]
    return tuple((curve.n_filters[index], float(curve.rmse[index])) for index in indices)


def elbow(curve: Points) -> int:
    """Return the index of the point where the curve bends most.

    That is the point of the lower envelope (the lowest RMSE with at most k filters) that lies farthest below the line
    from the envelope's first to its last point, both axes scaled to [0, 1]: Kneedle's greatest difference, without its
    smoothing, since an envelope does not waver. Of equals it is the one with the fewest filters; where the envelope
    bends nowhere, it is the best point.

    Raises:
        CurveError: If the curve is empty or its RMSE is not finite.

    Source: Satopää, Albrecht, Irwin and Raghavan 2011, "Finding a 'Kneedle' in a Haystack".
    """
    rmse = _finite(curve)
    sizes = np.unique(curve.n_filters)
    lowest = envelope(curve, sizes)
    x = (sizes - sizes[0]) / max(sizes[-1] - sizes[0], 1)
    fall = lowest[0] - lowest[-1]
    y = (lowest - lowest[-1]) / (fall if fall > 0 else 1)
    difference = 1 - y - x if fall > 0 else np.zeros(len(sizes))
    if difference.max() <= ROUNDING:
        return best_within(curve, int(sizes[-1]))
    # Where rounding alone tells equals apart, the fewest filters win.
    size = sizes[np.flatnonzero(difference >= difference.max() - ROUNDING)[0]]
    return _fewest(curve, rmse, np.flatnonzero(np.asarray(curve.n_filters) == size))


def one_standard_error(curves: Sequence[Points]) -> int:
    """Return the fewest filters whose mean RMSE over the trials is within one standard error of the lowest mean.

    Each trial's lower envelope is read at all the numbers of filters that occur in any trial and that every trial
    reaches. The standard error (sample standard deviation / √trials) is that at the lowest mean.

    Args:
        curves: One curve for each trial, at least two.

    Raises:
        CurveError: If there are fewer than two, or an RMSE is not finite.

    Source: Breiman, Friedman, Olshen and Stone 1984, "Classification and Regression Trees", sec. 3.4.3.
    """
    if len(curves) < 2:
        raise CurveError("one-standard-error: it compares trials, and there is one only; set trials to 2 or more")
    for curve in curves:
        _finite(curve)
    sizes = np.unique(np.concatenate([curve.n_filters for curve in curves]))
    sizes = sizes[sizes >= max(min(curve.n_filters) for curve in curves)]
    trials = np.stack([envelope(curve, sizes) for curve in curves])
    mean = trials.mean(axis=0)
    best = int(mean.argmin())
    allowed = mean[best] + trials[:, best].std(ddof=1) / math.sqrt(len(curves))
    return int(sizes[np.flatnonzero(mean <= max(allowed, mean[best]))[0]])


def envelope(curve: Points, sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the lowest RMSE with at most so many filters, ``(n_sizes,)``; infinite where no point has so few."""
    n_filters, rmse = np.asarray(curve.n_filters), np.asarray(curve.rmse, dtype=np.float64)
    order = np.argsort(n_filters, kind="stable")
    lowest = np.concatenate([[np.inf], np.minimum.accumulate(rmse[order])])
    return np.asarray(lowest[np.searchsorted(n_filters[order], sizes, side="right")])


def best_within(curve: Points, n: int) -> int:
    """Return the index of the lowest RMSE with at most n filters; of equals, the one with the fewest filters.

    Raises:
        CurveError: If the RMSE is not finite, or no point has so few filters.
    """
    rmse = _finite(curve)
    few = np.flatnonzero(np.asarray(curve.n_filters) <= n)
    if not len(few):
        raise CurveError(f"no point of the curve has at most {n} filters; the fewest are {min(curve.n_filters)}")
    return min(map(int, few), key=lambda index: (rmse[index], curve.n_filters[index]))


def exactly(
    chosen: NDArray[np.bool_], n: int, ranking: NDArray[np.intp], first: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return exactly n components: those of ``first``, then those chosen, then the others, each in their ranking.

    Args:
        chosen: Which components are wanted, ``(n_components,)``.
        n: How many are kept.
        ranking: All components, the best first, ``(n_components,)``.
        first: Which are kept before all others, ``(n_components,)``; these are kept even if they are more than n.
    """
    first = np.zeros_like(chosen) if first is None else first
    rank = np.empty(len(ranking), dtype=np.intp)
    rank[ranking] = np.arange(len(ranking))
    kept = np.zeros_like(chosen)
    kept[np.lexsort((rank, ~chosen, ~first))[: max(n, int(first.sum()))]] = True
    return kept


def ranked(order: NDArray[np.intp], n_components: int) -> NDArray[np.intp]:
    """Return all components, ``(n_components,)``: as they first appear in an order, then those that never do."""
    used, first = np.unique(order, return_index=True)
    return np.concatenate([used[np.argsort(first)], np.setdiff1d(np.arange(n_components), used)]).astype(np.intp)


def _of_size(curve: Curve, n: int, n_components: int) -> Knee:
    """Return the point with the most filters up to n, filled up to n in the order of first appearance."""
    rmse, sizes = _finite(curve), np.asarray(curve.n_filters)
    chosen = np.zeros(n_components, dtype=bool)
    if (sizes <= n).any():
        most = np.flatnonzero(sizes == sizes[sizes <= n].max())
        chosen[curve.supports[_fewest(curve, rmse, most)]] = True
    return Knee(n, np.flatnonzero(exactly(chosen, n, ranked(curve.order, n_components))))


def _fewest(curve: Points, rmse: NDArray[np.float64], among: NDArray[np.intp]) -> int:
    """Return the index of the point with the fewest filters; of equals, the lowest RMSE."""
    return min(map(int, among), key=lambda index: (curve.n_filters[index], rmse[index]))


def _finite(curve: Points) -> NDArray[np.float64]:
    """Return a curve's RMSE, or raise where there is none or one is not finite."""
    rmse = np.asarray(curve.rmse, dtype=np.float64)
    if not len(rmse) or not np.isfinite(rmse).all():
        raise CurveError(f"a curve of {len(rmse)} points, {int((~np.isfinite(rmse)).sum())} not finite, has no knee")
    return rmse
