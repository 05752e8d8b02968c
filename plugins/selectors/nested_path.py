"""Nested supports from an order of components, private to the selectors that rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facetask import SelectionPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

EVERY_SIZE = 512
GROWTH = 1.01


def nested_path(order: NDArray[np.intp], notes: Sequence[str] = ()) -> SelectionPath:
    """Return the supports that hold an order's first components, from one to all.

    There is one of every size up to 512; beyond, each is about one per cent larger than the one before, so that memory
    stays far from the square of thousands of components.

    Args:
        order: Components, the one to keep first in front, ``(n,)``.
        notes: What the user should know.
    """
    sizes = list(range(1, min(len(order), EVERY_SIZE) + 1))
    while sizes[-1] < len(order):
        sizes.append(min(len(order), int(np.ceil(sizes[-1] * GROWTH))))
    return SelectionPath(supports=tuple(np.sort(order[:size]) for size in sizes), notes=tuple(notes))
