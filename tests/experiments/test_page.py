"""The experiments' page: self-contained, in the order given, safe; and its figures as files."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from facetask.errors import RunDirError
from facetask.experiments.cost_figure import CostFigure, Point, cost_figure, log_ticks
from facetask.experiments.page import Figure, Folded, Section, Shown, render_page, write_figures, write_page
from facetask.report.tables import Table
from facetask.running.results import Metric

EVIL = '<script>alert("1")</script>'
TABLE = Table(["what", "how much"], [["one & only", "1"], [EVIL, "2"]], {0: "front"}, {(0, 1): 0.5})


def draw(width: int) -> str:
    points = [Point(EVIL, 10 * i, Metric(mean=9.0 - i, std=0.3), f"n{i}", True) for i in (1, 2, 3)]
    return cost_figure(CostFigure(points, "rmse", "degrees", "MACs", lines=[[0, 1, 2]], level=(7.5, "all")), width)


SECTIONS = [
    Section(
        "First", [f"plain {EVIL}", Markup("with <b>tags</b>"), Figure("drawn", draw, "a caption")], "headline & all"
    ),
    Section(
        "Second", [TABLE, Shown(TABLE, "its caption"), Folded("more", ["inside", Figure("folded", draw)])], small="x"
    ),
]


class Reader(HTMLParser):
    """The page's tags and words; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "body" in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_page_shows_its_parts_in_order_and_escapes_texts() -> None:
    page = Reader(render_page(f"About {EVIL}", SECTIONS, lede="leading", kind="sweep"))
    expected = ["facetask sweep", "About", "leading", "First", "headline & all", "plain", "tags", "a caption", "Second"]
    expected += ["one & only", "its caption", "more", "inside", "Limits"]
    places = [page.text.index(word) for word in expected]
    assert places == sorted(places)
    assert "script" not in page.tags
    assert page.links == []
    assert page.tags.count("b") == 1 + 2  # the text's own, and a bar in each table
    assert page.tags.count("figure") == 2
    assert page.tags.count("svg") == 4  # each for wide and for narrow windows


def test_a_page_is_written_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_page(path, "Title", SECTIONS)
    assert "http" not in path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", "Title", SECTIONS)


def test_figures_are_written_as_svg_and_png_folded_ones_too(tmp_path: Path) -> None:
    nothing = Section("Empty", [Figure("nothing", lambda width: "")])
    paths = write_figures(tmp_path / "figures", [*SECTIONS, nothing])
    assert [path.name for path in paths] == ["drawn.svg", "drawn.png", "folded.svg", "folded.png"]
    assert ElementTree.parse(paths[0]).getroot().tag.endswith("svg")
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RunDirError, match="cannot be written"):
        write_figures(paths[0], SECTIONS)


def test_a_figure_without_a_finite_point_is_empty() -> None:
    unknown = [Point("a", 5.0, Metric(mean=None, std=None)), Point("a", 0.0, Metric(mean=1.0, std=0.0))]
    assert cost_figure(CostFigure(unknown, "rmse", "", "MACs")) == ""


def test_a_single_point_and_a_share_in_per_cent_can_be_drawn() -> None:
    svg = cost_figure(CostFigure([Point("a", 5e6, Metric(mean=0.9, std=None), "here")], "accuracy", "", "MACs"))
    assert ">90<" in svg or ">90.0<" in svg
    assert "here" in svg
    assert "accuracy (%) on test images, higher is better" in svg


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.3), (3.0, 80.0), (4e7, 9.9e8), (0.001, 5e6)])
def test_ticks_lie_inside_and_are_neither_few_nor_many(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert all(low <= tick <= high for tick in ticks)
    assert 1 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))
