"""One page for every experiment: sentences, tables and figures in the order given, in the report's style.

:func:`write_page` writes the page, :func:`write_figures` its figures as SVG and PNG for use elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from markupsafe import Markup

from facetask.errors import RunDirError
from facetask.report.marks import WIDTH
from facetask.report.svg import write_png, write_svg
from facetask.report.tables import Table
from facetask.report.task_view import figure_twice
from facetask.report.template import template_environment
from facetask.whole_file import write_output


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: Its file's name, without ending.
        draw: Returns it as SVG of a width in pixels, by :func:`facetask.report.svg.render`; empty for none.
        caption: What is drawn, and how to read it.
    """

    name: str
    draw: Callable[[int], str]
    caption: str = ""

    @property
    def svg(self) -> Markup:
        """The figure for wide and narrow windows."""
        return figure_twice(_draw, self)


@dataclass(frozen=True)
class Shown:
    """A table with its caption."""

    table: Table
    caption: str = ""


@dataclass(frozen=True)
class Folded:
    """Parts that are shown when the reader asks for them."""

    summary: str
    parts: Sequence[Part]


Part: TypeAlias = "str | Table | Shown | Figure | Folded"
"""A text is a paragraph; what may hold tags is a :class:`markupsafe.Markup`, every other text is escaped."""


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading.

    Attributes:
        title: The heading.
        parts: What follows, in this order.
        headline: What was found, in one or two sentences; it stands out.
        small: What is added to the heading, smaller.
    """

    title: str
    parts: Sequence[Part] = ()
    headline: str = ""
    small: str = ""


def render_page(title: str, sections: Sequence[Section], *, lede: str = "", kind: str = "experiment") -> str:
    """Return an experiment's page as self-contained HTML.

    Args:
        title: What was done, in a few words.
        sections: The page's sections.
        lede: A paragraph under the title.
        kind: What the page is, after ``facetask``: ``experiment``, ``sweep``.
    """
    from facetask import __version__

    environment = template_environment("facetask.experiments")
    environment.globals["kind_of"] = _kind_of
    return environment.get_template("page.html.j2").render(
        title=title, lede=lede, kind=kind, sections=sections, version=__version__
    )


def write_page(
    path: Path, title: str, sections: Sequence[Section], *, lede: str = "", kind: str = "experiment"
) -> None:
    """Write an experiment's page as self-contained HTML, whole or not at all; see :func:`render_page`.

    Raises:
        RunDirError: If it cannot be written.
    """
    write_output(path, render_page(title, sections, lede=lede, kind=kind))


def write_figures(folder: Path, sections: Sequence[Section]) -> list[Path]:
    """Write the sections' figures into a folder, each as SVG and PNG in the light palette, and return their paths.

    Raises:
        RunDirError: If they cannot be written.
    """
    written = []
    try:
        for figure in _figures([part for section in sections for part in section.parts]):
            svg = figure.draw(WIDTH)
            for ending, write in (("svg", write_svg), ("png", write_png)) if svg else ():
                folder.mkdir(parents=True, exist_ok=True)
                written.append(folder / f"{figure.name}.{ending}")
                write(svg, written[-1])
    except OSError as error:
        raise RunDirError(f"{folder}: cannot be written ({error.strerror})") from None
    return written


def _figures(parts: Sequence[Part]) -> Iterator[Figure]:
    """Yield the figures among parts, folded ones included."""
    for part in parts:
        if isinstance(part, Figure):
            yield part
        elif isinstance(part, Folded):
            yield from _figures(part.parts)


def _draw(figure: Figure, width: int) -> str:
    """Return a figure as SVG."""
    return figure.draw(width)


def _kind_of(part: Part) -> str:
    """Return how the template lays a part out."""
    return "text" if isinstance(part, str) else type(part).__name__.lower()
