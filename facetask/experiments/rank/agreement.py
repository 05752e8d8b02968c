"""How far two orders agree, and how often chance alone agrees as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.stats import spearmanr, weightedtau

MOST_ORDERED = 6
"""Things up to which all orders are tried: 720."""


@dataclass(frozen=True)
class Orders:
    """Two orders compared.

    Attributes:
        n: How many things have a number in both.
        weighted_tau: Kendall's tau in which exchanges among the highest count most, mean over both orders' weights;
            None where there are fewer than two things, or all numbers of one order are equal.
        spearman: The correlation of the ranks; None likewise.
    """

    n: int
    weighted_tau: float | None
    spearman: float | None


def compare_orders(first: Sequence[float | None], second: Sequence[float | None]) -> Orders:
    """Return how far two lists of numbers, the higher the better, order the same things alike.

    Source: Vigna 2015, "A weighted correlation index for rankings with ties".
    """
    a, b = _known(first, second)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Orders(len(a), None, None)
    return Orders(len(a), float(weightedtau(a, b).statistic), float(spearmanr(a, b).statistic))


def chance_of(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """Return the share of all orders of the first list's numbers whose weighted tau is at least as high as its own.

    None for more than six things, and where there is no tau.
    """
    tau = compare_orders(first, second).weighted_tau
    a, b = _known(first, second)
    if tau is None or len(a) > MOST_ORDERED:
        return None
    found = [float(weightedtau(np.array(order), b).statistic) for order in permutations(a)]
    return sum(other >= tau - 1e-12 for other in found) / len(found)


def _known(
    first: Sequence[float | None], second: Sequence[float | None]
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return the pairs in which both are numbers."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    pairs = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    return np.array([a for a, _ in pairs], dtype=np.float64), np.array([b for _, b in pairs], dtype=np.float64)
