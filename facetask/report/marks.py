"""Parts that several figures share: labels with a halo, the axis of taps, colours of the taps that stand out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from facetask.report.metrics import MetricStyle
from facetask.report.svg import PALETTE

WIDTH = 940
MARGIN = 62
"""What axis labels and title take of the width, about; fitting exactly would make Vega lay out everything twice."""
_LABEL_ROOM = 135
_TAP_PITCH = 12


def label(base: alt.Chart, size: float, **encoding: Any) -> alt.Chart:
    """Return texts with a halo in paper colour; each row says its own ``align``, ``dx`` and ``dy``."""
    texts: alt.Chart = base.mark_text(
        color=PALETTE["ink"],
        stroke=PALETTE["paper"],
        strokeWidth=4,
        strokeJoin="round",
        fontSize=size,
        align=alt.ExprRef("datum.align"),
        dx=alt.ExprRef("datum.dx"),
        dy=alt.ExprRef("datum.dy"),
    )
    return texts.encode(**encoding)


def place(align: str, dy: float) -> dict[str, Any]:
    """Return a label's place beside its point, for :func:`label`."""
    return {"align": align, "dx": {"left": -8, "right": 8}.get(align, 0), "dy": dy}


def alignment(fraction: float, width: int) -> str:
    """Return how a label at a fraction of the width is aligned so that it stays inside the picture."""
    margin = min(_LABEL_ROOM / width, 0.5)
    return "left" if fraction < margin else "right" if fraction > 1 - margin else "center"


def role_colour() -> alt.Color:
    """Return the colours of the best tap, the cut and all others, without a legend."""
    shades = [PALETTE["accent"], PALETTE["second"], PALETTE["muted"]]
    return alt.Color("role:N", legend=None, scale=alt.Scale(domain=["best", "cut", "other"], range=shades))


def tap_axis(taps: Sequence[str], width: int) -> alt.X:
    """Return a horizontal axis of taps in network order, labelled as densely as stays readable."""
    pitch = width / max(len(taps), 1)
    every = math.ceil(_TAP_PITCH / pitch)
    axis = alt.Axis(
        title=None,
        values=list(taps)[::every] if every > 1 else alt.Undefined,
        labelAngle=-35 if pitch > 70 else -90,
        labelFontSize=12 if pitch > 20 else 10,
        labelOverlap=False,
        grid=False,
        domain=False,
        ticks=False,
        labelPadding=6,
    )
    return alt.X("tap:N", sort=None, scale=alt.Scale(domain=list(taps), paddingInner=0.25), axis=axis)


def axis_title(name: str, unit: str) -> str:
    """Return ``name (unit)``, or the name alone."""
    return f"{name} ({unit})" if unit else name


def metric_title(shown: MetricStyle, unit: str, where: str = "") -> str:
    """Return a metric's axis title: its name, its unit, and which direction is better.

    Args:
        shown: How the metric is shown.
        unit: The label's unit.
        where: What follows the unit: `` on test images``.
    """
    unit = {"unit": unit, "percent": "%"}.get(shown.scale, "")
    return axis_title(shown.label, unit) + where + (f", {shown.better} is better" if shown.better else "")


def padded(low: float, high: float, below: float, above: float) -> list[float]:
    """Return an axis domain with room below and above, in fractions of the range; never empty."""
    room = (high - low) or abs(high) or 1.0
    return [low - below * room, high + above * room]
