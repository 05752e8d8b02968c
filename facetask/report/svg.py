"""Altair charts to inline SVG whose colours follow the page's light or dark mode, and SVG to PNG.

Charts are drawn in the light palette; afterwards each colour becomes ``var(--fig-NAME, #colour)``, so that a page can
set it and a lone SVG file still has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import altair as alt
import vl_convert

PALETTE = {
    "ink": "#26323c",
    "muted": "#76828d",
    "faint": "#e3e7ea",
    "accent": "#0e6b82",
    "knee": "#c2560f",
    "second": "#7a4fa0",
    "full": "#c8d7de",
    "paper": "#fdfdfc",
}
FONT = "Inter, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
_NAME_OF = {colour: name for name, colour in PALETTE.items()}
_NOT_NEEDED = ("aria-hidden", "aria-label", "aria-roledescription", "role", "class", "pointer-events", "font-family")
_CONFIG = {
    "aria": False,
    "background": "transparent",
    "font": FONT,
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelColor": PALETTE["muted"],
        "titleColor": PALETTE["ink"],
        "gridColor": PALETTE["faint"],
        "domainColor": PALETTE["muted"],
        "tickColor": PALETTE["muted"],
        "labelFontSize": 12,
        "titleFontSize": 12.5,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelLimit": 150,
    },
}
_VARIABLE = re.compile(r"var\(--fig-[a-z]+, (#[0-9a-f]{6})\)")

Rows = Sequence[Mapping[str, Any]]
AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart


def source(name: str) -> alt.NamedData:
    """Return a reference to rows that :func:`render` is given under this name."""
    return alt.NamedData(name=name)


def render(chart: AnyChart, data: Mapping[str, Rows], description: str) -> str:
    """Return a chart as themed SVG text.

    Args:
        chart: A chart whose data are :func:`source` references. Rows are handed over beside the chart because Altair
            would otherwise validate each one of them, which takes longer than drawing.
        data: Rows for each reference, without NaN or infinity.
        description: What a screen reader says.
    """
    spec = chart.to_dict(validate=False)
    spec["config"] = _CONFIG
    spec["datasets"] = {name: list(rows) for name, rows in data.items()}
    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    drawn = vl_convert.vegalite_to_svg(spec, vl_version=version, allowed_base_urls=[])
    return _themed(drawn, description)


def write_svg(svg: str, path: Path) -> None:
    """Write a figure as SVG in the light palette, on paper colour."""
    path.write_text(_alone(svg) + "\n", encoding="utf-8")


def write_png(svg: str, path: Path, scale: float = 2.0) -> None:
    """Write a figure as a PNG in the light palette, on paper colour."""
    path.write_bytes(vl_convert.svg_to_png(_alone(svg), scale=scale))


def _alone(svg: str) -> str:
    """Return a figure with colours of its own, where no page gives it any."""
    plain = _VARIABLE.sub(r"\1", svg)
    return re.sub(r"(<svg[^>]*>)", rf'\1<rect width="100%" height="100%" fill="{PALETTE["paper"]}" />', plain, count=1)


def _themed(svg: str, description: str) -> str:
    """Return the SVG with themed colours, one description, and without what only Vega's own scripts need."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in _NOT_NEEDED:
            element.attrib.pop(name, None)
        if element.get("opacity") == "1":
            del element.attrib["opacity"]
        for name in ("fill", "stroke"):
            themed = _NAME_OF.get(element.get(name, ""))
            if themed:
                element.set(name, f"var(--fig-{themed}, {PALETTE[themed]})")
        if element.tag == "text" and element.get("stroke"):
            element.set("paint-order", "stroke")
    _drop_empty(root)
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "width": root.attrib["width"],
        "height": root.attrib["height"],
        "font-family": FONT,
        "role": "img",
        "aria-label": description,
    }
    return ElementTree.tostring(root, encoding="unicode")


def _drop_empty(element: ElementTree.Element) -> None:
    """Remove groups without content and paths that paint nothing, from the leaves up."""
    for child in list(element):
        _drop_empty(child)
        hollow = child.tag == "g" and len(child) == 0
        unpainted = child.tag in ("path", "rect") and child.get("stroke") is None and _paints_nothing(child)
        if hollow or unpainted:
            element.remove(child)


def _paints_nothing(shape: ElementTree.Element) -> bool:
    """Return whether a stroke-less shape is a transparent background or an empty path."""
    return shape.get("fill") in (None, "none", "transparent") or not shape.get("d", "-")
