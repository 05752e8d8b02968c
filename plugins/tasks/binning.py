"""What tasks with bins share: edges that a user may give, and the bins' names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import AfterValidator


def _ascending(edges: list[float]) -> list[float]:
    """Refuse edges that make no bins."""
    if not edges or not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
        raise ValueError(f"edges must be one or more finite numbers in ascending order, found {edges}")
    return edges


Edges = Annotated[list[float], AfterValidator(_ascending)]
"""Inner bin edges, ascending; a value on an edge belongs to the bin above."""


def bin_names(edges: Sequence[float]) -> tuple[str, ...]:
    """Return the names of the bins that inner edges make: ``<10``, ``10–20``, ``≥20``."""
    between = (f"{low:.15g}–{high:.15g}" for low, high in pairwise(edges))
    return (f"<{edges[0]:.15g}", *between, f"≥{edges[-1]:.15g}")
