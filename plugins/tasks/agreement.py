"""How far two sources of one label agree, in a line each for the user."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def cohen_kappa(a: NDArray[np.intp], b: NDArray[np.intp]) -> float:
    """Return Cohen's κ of two sources' classes, each ``(n,)``; NaN where both always say the same one class.

    Source: J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement (1960).
    """
    n_classes = int(max(a.max(), b.max())) + 1
    shares = [np.bincount(x, minlength=n_classes) / len(x) for x in (a, b)]
    by_chance = float(shares[0] @ shares[1])
    return (float((a == b).mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else np.nan


def class_agreement(votes: NDArray[np.intp], what: str) -> list[str]:
    """Return a line for each pair of sources, from their classes, ``(n, n_sources)``, −1 where there is none."""
    lines = []
    for i, j in combinations(range(votes.shape[1]), 2):
        a, b = votes[(votes[:, i] >= 0) & (votes[:, j] >= 0)][:, [i, j]].T
        pair = f"sources {i + 1} and {j + 1}"
        if not len(a):
            lines.append(f"{pair}: no {what} in common")
            continue
        kappa = cohen_kappa(a, b)
        lines.append(
            f"{pair}: equal for {(a == b).mean():.1%} of {len(a):,} {what}"
            + ("" if np.isnan(kappa) else f", Cohen's κ {kappa:.2f}")
        )
    return lines


def number_agreement(values: NDArray[np.float64], unit: str) -> list[str]:
    """Return a line for each pair of sources, from their numbers, ``(n, n_sources)``, NaN where there is none."""
    lines = []
    for i, j in combinations(range(values.shape[1]), 2):
        a, b = values[np.isfinite(values[:, [i, j]]).all(axis=1)][:, [i, j]].T
        pair = f"sources {i + 1} and {j + 1}"
        if not len(a):
            lines.append(f"{pair}: no images in common")
            continue
        varied = np.ptp(a) > 0 and np.ptp(b) > 0
        lines.append(
            f"{pair}: {np.abs(a - b).mean():.3g}{f' {unit}' if unit else ''} apart on average over {len(a):,} images"
            + (f", correlation {np.corrcoef(a, b)[0, 1]:.2f}" if varied else "")
        )
    return lines
