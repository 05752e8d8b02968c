"""How single filters respond to a continuous label: binned, so that no image can be told from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from facetask.running.results import FilterResponse, ResponseBin
from facetask.statistics.known import moments_of_known

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.responses import Responses
    from facetask.tasks.satellite import Satellite

CONTINUOUS = ("continuous", "binned")
MOST_BINS = 24
LEAST_IMAGES = 5
IMAGES_PER_BIN = 20


def closest_filter(
    task: Satellite, responses: Responses, tap: str, among: Sequence[int], rows: NDArray[np.intp]
) -> int:
    """Return the filter whose responses follow the task's targets most closely: the largest sum of squared r.

    Args:
        task: The satellite task.
        responses: All taps' responses.
        tap: The tap.
        among: Filters of the tap to choose from, at least one.
        rows: The images that decide: those of training.
    """
    squares = np.zeros(len(among))
    for _, moments in moments_of_known(responses.taps([tap])[rows], task.targets[rows]):
        spread = np.outer(np.diagonal(moments.xx), np.diagonal(moments.yy))
        tells = ~(moments.dead_columns[:, None] | moments.constant_outputs)
        explained = np.where(tells, moments.xy**2 / np.where(tells, spread, 1.0), 0.0).sum(axis=1)
        squares += explained[list(among)]
    return int(among[int(squares.argmax())])


def responses_to(task: Satellite, responses: Responses, tap: str, index: int) -> list[FilterResponse]:
    """Return how a filter responds to each output of a task with continuous labels; nothing for other kinds.

    Args:
        task: The satellite task.
        responses: All taps' responses.
        tap: The tap.
        index: The filter.
    """
    if task.spec.kind not in CONTINUOUS:
        return []
    x = responses.tap(tap)[:, index].astype(np.float64)
    found = []
    for output, values in enumerate(task.values.T):
        known = np.isfinite(values)
        y, shown = values[known], x[known]
        found.append(
            FilterResponse(
                tap=tap,
                filter=index,
                output=output,
                correlation=_correlation(shown, y),
                n_images=len(y),
                bins=_binned(shown, y),
            )
        )
    return found


def _binned(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[ResponseBin]:
    """Return the responses in equally wide intervals of the label, without those of very few images."""
    n_bins = int(np.clip(len(y) // IMAGES_PER_BIN, 2, MOST_BINS))
    edges = np.linspace(y.min(), y.max(), n_bins + 1)
    number = np.searchsorted(edges[1:-1], y, side="right")
    bins = []
    for index in range(n_bins):
        inside = number == index
        if inside.sum() >= LEAST_IMAGES:
            low, high = np.percentile(x[inside], [10, 90])
            bins.append(
                ResponseBin(
                    label=float(y[inside].mean()),
                    response=float(x[inside].mean()),
                    low=float(low),
                    high=float(high),
                    n_images=int(inside.sum()),
                )
            )
    return bins


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Return Pearson's r, or nothing where one of the two is constant."""
    if len(x) < 2 or not np.ptp(x) or not np.ptp(y):
        return None
    return float(np.corrcoef(x, y)[0, 1])
