"""What a pruned network may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facetask.running.results import NetworkCost


HARDLY_MORE = 0.01
"""What heads compute is no part of the search, and is no more than this."""


@dataclass(frozen=True)
class Budget:
    """Shares of the whole base network's cost.

    Attributes:
        macs: Of its multiply–accumulates.
        size: Of its size in bytes; None where that does not matter.
    """

    macs: float
    size: float | None = None

    def __str__(self) -> str:
        """Return the budget as a reader would say it."""
        size = f" and {100 * self.size:.3g}% of its size" if self.size is not None else ""
        return f"{100 * self.macs:.3g}% of the base network's MACs{size}"

    def excess(self, cost: NetworkCost, base: NetworkCost) -> str:
        """Return in what a network exceeds the budget, and what to do; empty where it keeps to it."""
        shares = [
            (cost.macs / base.macs, self.macs, "MACs", "prune.macs"),
            (cost.size_bytes / base.size_bytes, self.size or 1.0, "size", "prune.size"),
        ]
        over = [each for each in shares if each[0] > each[1] * (1 + HARDLY_MORE)]
        if not over:
            return ""
        told = " and ".join(f"{100 * share:.3g}% of the base network's {what}" for share, _, what, _ in over)
        keys = " and ".join(key for *_, key in over)
        return (
            f"the network takes {told}, more than {keys} {'allow' if len(over) > 1 else 'allows'}: so much is kept in "
            "any case (the cut's own filters, one of every layer, widths rounded by round_to); allow more, or let "
            "prune.knee keep fewer filters at the cut"
        )

    def on_the_way(self, start: NetworkCost, base: NetworkCost, step: float) -> Budget:
        """Return where a network is after a step towards this budget, when every step leaves the same share.

        Args:
            start: What the network costs before the first step.
            base: What the whole base network costs.
            step: How far it has come, 1 at the end.
        """
        macs = _between(start.macs / base.macs, self.macs, step)
        return Budget(macs, self.size and _between(start.size_bytes / base.size_bytes, self.size, step))


def _between(start: float, end: float, step: float) -> float:
    """Return the geometric interpolation of two shares."""
    return min(float(start * (end / start) ** step), 1.0)
