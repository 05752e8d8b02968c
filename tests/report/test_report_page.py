"""The report as a page: self-contained, complete, true to the numbers, and safe."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from facetask.json_record import write_record
from facetask.report import render_report, write_report
from facetask.running.results import Results, read_results

Make = Callable[..., Results]
_VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}


class Page(HTMLParser):
    """A page's tags, texts and tables; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "svg" in self.open or "style" in self.open:
            return
        self.words.append(data)
        if "td" in self.open[-2:] or "th" in self.open[-2:]:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        """The page's words outside figures, with ordinary spaces."""
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u00a0", " "))

    def row(self, first: str) -> list[str]:
        """The first table row whose first cell starts so."""
        return next(
            [cell.replace("\u00a0", " ") for cell in row] for row in self.rows if row and row[0].startswith(first)
        )


def test_the_page_needs_nothing_from_elsewhere(make_results: Make) -> None:
    html = render_report(make_results("yaw"))
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "xlink:href", "data")
            assert not name.startswith("on")
            if name == "href":
                assert (value or "").startswith("#")
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<>]+", html)) - {"http://www.w3.org/2000/svg"}
    assert not addresses
    assert "@import" not in html
    assert "url(" not in html


def test_headline_and_table_say_the_real_numbers(make_results: Make) -> None:
    def numbers(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        task["regress"]["best_tap"] = task["prune"]["cut"] = "128_1.conv1"
        task["regress"]["baseline"]["rmse"] = {"mean": 19.3, "std": 0.0}
        task["prune"]["metrics_unpruned"]["rmse"] = {"mean": 7.71, "std": 0.11}
        task["prune"]["metrics_pruned"]["rmse"] = {"mean": 7.93, "std": 0.22}
        task["finetune"]["metrics"]["rmse"] = {"mean": 4.88, "std": 0.33}

    page = Page(render_report(make_results("yaw", change=numbers)))
    assert "128_1.conv1 (the 18th of 29 taps) tells yaw best" in page.text.replace(" ( ", " (")
    for words in ("7.71 ± 0.11 degrees", "7.93 ± 0.22 degrees", "4.88 ± 0.33 degrees", "−95.9 %", "−84.7 %"):
        assert words in page.text
    assert "guessing would give 19.3 degrees" in page.text
    assert page.row("network") == [
        "network",
        "parameters",
        "in convs",
        "MACs",
        "size",
        "RMSE, degrees",
        "MAE, degrees",
        "R²",
    ]
    assert page.row("base network")[1:5] == ["5.61 M", "5.57 M", "270 M", "22.4 MB"]
    assert page.row("cut at 128_1.conv1")[1:6] == ["1.40 M", "1.40 M", "202 M", "5.61 MB", "7.71 ± 0.11"]
    assert page.row("pruned")[1:6] == ["231 k", "229 k", "41.3 M", "926 kB", "7.93 ± 0.22"]
    assert page.row("finetuned")[1:6] == ["231 k", "229 k", "41.3 M", "926 kB", "4.88 ± 0.33"]


def test_every_tap_group_and_trial_has_its_row(make_results: Make) -> None:
    results = make_results("yaw")
    task = results.tasks[0]
    page = Page(render_report(results))
    assert task.prune is not None
    firsts = [row[0] for row in page.rows if row]
    start = firsts.index("tap") + 1
    assert firsts[start : start + 29] == [tap.tap for tap in task.regress.taps]
    start = firsts.index("taps that share components") + 1
    assert firsts[start : start + len(task.prune.groups)] == [", ".join(group.taps) for group in task.prune.groups]
    start = firsts.index("trial") + 1
    assert firsts[start : start + 3] == ["0", "1", "2"]
    trials = [row for row in page.rows if row][start : start + 3]
    assert trials[1][1:6] == ["1001", "2,951", "1,476", "1,475", "128_1.conv1"]


def test_budgets_are_named_and_what_exceeds_them(make_results: Make) -> None:
    def within(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["prune"] |= {"budget": 0.21, "size_budget": 0.05}

    def beyond(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["prune"] |= {"budget": 0.02, "size_budget": 0.014}

    text = Page(render_report(make_results("yaw", change=within))).text
    assert "within 21 % of the base network’s MACs and 5 % of its size" in text.replace("\xa0", " ")
    assert "Over its budget" not in text
    text = Page(render_report(make_results("yaw", change=beyond))).text.replace("\xa0", " ")
    assert "Over its budget: the network takes 15.3 % of the base network’s MACs and 4.13 % of the base" in text
    assert "more than prune.macs and prune.size allow" in text


def test_run_and_labels_are_described(make_results: Make) -> None:
    def details(raw: dict[str, Any]) -> None:
        raw["base_network"]["frozen"] = ["attention"]
        raw["tasks"][0]["prune"]["macs_note"] = "thop counts 1.2 % more"

    text = Page(render_report(make_results("emotion", change=details))).text
    for words in (
        "5,937",
        "0000.jpg",
        "CC0-1.0",
        "research use only",
        "attention",
        "thop counts 1.2 % more",
        "contempt (3)",
        "labels.csv, column emotion",
        "surprise",
        "images of equal person (287 groups)",
        "6 min 28 s",
        "0.1.0",
        "Limits",
        "decisions about people",
    ):
        assert words in text, words


def test_licences_of_labels_and_landmarks_and_what_is_noted_of_labels_are_shown(make_results: Make) -> None:
    def tell(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["labels"] |= {"licence": "the face model: non-commercial", "notes": ["sources 1 and 2: alike"]}
        raw["data"]["align"] = {"landmarks": "detect", "licence": "the predictor: non-commercial", "n_without_face": 41}

    text = Page(render_report(make_results("yaw", change=tell))).text
    assert "Licence the face model: non-commercial" in text
    assert "sources 1 and 2: alike" in text
    assert "Faces aligned by landmarks detected in the images" in text
    assert "Landmarks’ licence the predictor: non-commercial" in text
    assert "Images without a known face 41, used as they are" in text
    assert "aligned by" not in Page(render_report(make_results("yaw"))).text


def test_several_tasks_get_contents_and_a_summary_in_a_page_of_modest_size(make_results: Make) -> None:
    html = render_report(make_results("yaw", "age", "gender"))
    assert len(html.encode()) < 2_000_000
    page = Page(html)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    anchors = [f"#{attributes['id']}" for tag, attributes in page.tags if tag == "section" and "id" in attributes]
    assert links == anchors
    assert len(links) == 3
    assert page.row("yaw")[2:5] == ["−95.9 %", "−84.7 %", "RMSE, degrees"]
    assert page.row("gender")[4] == "accuracy, %"


@pytest.mark.parametrize(
    ("stage", "figures", "absent"),
    [
        ("regress", 1, "How many filters"),
        ("curve", 5, "What was kept"),
        ("prune", 7, "Finetuning"),
    ],
)
def test_a_run_that_stopped_shows_what_exists(stage: str, figures: int, absent: str, make_results: Make) -> None:
    html = render_report(make_results("age", stage=stage))
    assert html.count("<svg") == 2 * figures, "each for wide and for narrow windows"
    text = Page(html).text
    assert absent not in text
    assert "asked to stop after" in text


def test_tasks_at_different_stages_share_a_page(make_results: Make) -> None:
    def stop_second(raw: dict[str, Any]) -> None:
        raw["tasks"][1] |= {"curve": None, "prune": None, "finetune": None}
        raw["finished"] = False

    page = Page(render_report(make_results("yaw", "age", change=stop_second)))
    assert page.row("age")[2:4] == ["–", "–"]
    assert page.row("age")[-2:] == ["–", "–"]
    assert "not finished" in page.text
    assert "So far the run has reached the regressions" in page.text


def test_missing_numbers_are_dashes(make_results: Make) -> None:
    def holes(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"mean", "std"}:
                return {"mean": None, "std": None}
            return {key: holes(item) for key, item in value.items()}
        return [holes(item) for item in value] if isinstance(value, list) else value

    def empty(raw: dict[str, Any]) -> None:
        raw["tasks"] = holes(raw["tasks"])
        raw["tasks"][0]["labels"] |= {"mean": math.nan, "std": None, "source": ""}
        raw["tasks"][0]["wall_s"] = {"regress": math.nan}
        raw["tasks"][0]["trials"][0]["regress"] = {"rmse": None}
        raw["data"]["n_groups"] = None

    page = Page(render_report(make_results("yaw", change=empty)))
    assert page.row("finetuned")[5:] == ["–", "–", "–"]
    assert not re.search(r"\b(nan|None|inf)\b", page.text.replace("None of this", ""))


def test_unknown_metrics_are_shown_under_their_own_name(make_results: Make) -> None:
    def only_own(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        own = {"top_5_hits": {"mean": 12.5, "std": 0.5}}
        for tap in task["regress"]["taps"]:
            tap["metrics"] = own
        task["regress"]["baseline"] = {}
        task["trials"] = []

    text = Page(render_report(make_results("emotion", stage="regress", change=only_own))).text
    assert "Top 5 hits on test images is 12.5 ± 0.5" in text


def test_one_trial_claims_no_spread(make_results: Make) -> None:
    def one(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["regress"]["baseline"] = {"rmse": {"mean": 19.3, "std": 0.0}}

    text = Page(render_report(make_results("yaw", trials=1, stage="regress", change=one))).text
    assert "over one random partition" in text
    assert "±" not in text.replace("Mean ± standard deviation 33.1 ± 19.3", "")


def test_very_many_classes_are_cut_short(make_results: Make) -> None:
    def people(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["labels"]["counts"] = {f"person {i}": 3 + i for i in range(299)}

    text = Page(render_report(make_results("emotion", stage="regress", change=people))).text
    assert text.count("person ") <= 26
    assert "24 largest of 299 classes; the smallest has 3 images" in text


def test_hostile_names_stay_text(make_results: Make) -> None:
    evil = "<script>alert('x')</script>{{ 777 * 777 }}\"&"

    def rename(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        task["name"] = task["plugin"] = task["model"] = evil
        task["labels"] |= {"unit": evil, "source": evil, "licence": evil, "counts": {evil: 4}, "left_out": {evil: 1}}
        task["labels"]["notes"] = [evil]
        task["curve"]["unit"] = task["prune"]["macs_note"] = task["prune"]["cut"] = evil
        task["prune"]["groups"][0] |= {"taps": [evil], "notes": [evil]}
        task["regress"]["taps"][0]["tap"] = task["curve"]["taps"][0]["tap"] = task["regress"]["best_tap"] = evil
        task["regress"]["taps"][0]["metrics"][evil] = {"mean": 1.0, "std": 0.0}
        raw["base_network"] |= {"plugin": evil, "weights_source": evil, "weights_licence": evil, "frozen": [evil]}
        raw["data"] |= {"plugin": evil, "source": evil, "licence": evil, "group_by": evil}
        raw["data"]["bad_images"]["first"] = [evil]
        raw["wall_s"][evil] = 1.0
        raw["facetask_version"] = evil

    html = render_report(make_results("yaw", change=rename))
    assert "<script" not in html
    page = Page(html)
    assert "603729" not in page.text
    assert page.text.count(evil) > 15
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_has_a_dark_a_narrow_and_a_print_form(make_results: Make) -> None:
    html = render_report(make_results("yaw", stage="regress"))
    assert "@media screen and (prefers-color-scheme: dark)" in html
    assert "@media print" in html
    used = set(re.findall(r"var\((--[a-z-]+)", html))
    light = set(re.findall(r"(--[a-z-]+):", html.split("@media", 1)[0]))
    dark = set(re.findall(r"(--[a-z-]+):", html.split("@media", 2)[1]))
    assert used - {name for name in used if name.startswith("--fig-")} <= light
    assert {name for name in used if name.startswith("--fig-")} <= dark


def test_write_report_equals_one_from_the_results_file(make_results: Make, tmp_path: Path) -> None:
    results = make_results("gender", stage="prune")
    write_record(results, tmp_path / "results.json")
    write_report(read_results(tmp_path / "results.json"), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(results)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "report.html"}


def test_several_labels_have_a_row_each_and_are_judged_by_their_mean_auc(make_results: Make) -> None:
    def numbers(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        task["labels"]["counts"] = {"beard": 590, "hat": 59}
        task["regress"]["baseline"] |= {"auc": {"mean": 0.5, "std": 0.0}, "accuracy[hat]": {"mean": 0.99, "std": 0.0}}
        for step, value in (("metrics_unpruned", 0.943), ("metrics_pruned", 0.917)):
            task["prune"][step] |= {"auc": {"mean": value, "std": 0.004}, "auc[hat]": {"mean": value, "std": 0.006}}
        task["finetune"]["metrics"] |= {
            "auc": {"mean": 0.953, "std": 0.003},
            "auc[hat]": {"mean": 0.96, "std": 0.01},
            "accuracy[hat]": {"mean": 0.994, "std": 0.001},
            "f1[hat]": {"mean": 0.612, "std": 0.02},
        }

    page = Page(render_report(make_results("wear", change=numbers)))
    assert "AUC on test images is 0.943 ± 0.004 with all filters, 0.917 ± 0.004 pruned and 0.953 ± 0.003" in page.text
    assert page.row("network")[5:] == ["AUC", "accuracy, %", "balanced accuracy, %", "F1"]
    row = page.row("hat")
    assert row[:7] == ["hat", "5,890", "59", "0.500", "0.943 ± 0.006", "0.917 ± 0.006", "0.960 ± 0.010"]
    assert row[7:9] == ["99.0", "99.4 ± 0.1"]
    assert row[-1] == "0.612 ± 0.020"
    assert page.row("label")[3:9] == [
        "AUC: guessing",
        "AUC: all filters",
        "AUC: pruned",
        "AUC: finetuned",
        "accuracy, %: guessing",
        "accuracy, %: finetuned",
    ]
    assert "59 of 5,890" in page.text
    assert "With some labels only 12" in page.text
    assert not [cell for row in page.rows for cell in row if "[" in cell]


def test_the_outputs_of_a_task_with_two_numbers_have_their_own_errors(make_results: Make) -> None:
    def pair(raw: dict[str, Any]) -> None:
        task = raw["tasks"][0]
        task["labels"]["rmse_unit"] = "standard deviations"
        for metrics in (task["regress"]["baseline"], *(tap["metrics"] for tap in task["regress"]["taps"])):
            metrics |= {"rmse[1]": {"mean": 7.5, "std": 0.0}, "rmse[2]": {"mean": 3.25, "std": 0.0}}

    page = Page(render_report(make_results("yaw", stage="regress", change=pair)))
    assert page.row("network")[1:3] == ["RMSE, standard deviations", "MAE, degrees"]
    assert page.row("output")[1:3] == ["RMSE, degrees: guessing", "RMSE, degrees: all filters"]
    assert page.row("output 2")[1:3] == ["3.25", "3.25"]


def test_nominal_tasks_show_the_classifier_beside_least_squares(make_results: Make) -> None:
    def both(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["regress"]["classifier"] = {
            "accuracy": {"mean": 0.4412, "std": 0.01},
            "accuracy_least_squares": {"mean": 0.4375, "std": 0.02},
        }

    page = Page(render_report(make_results("emotion", stage="regress", change=both)))
    head, row = page.row("network"), page.row("base network")
    assert row[head.index("accuracy, %")] == "44.1 ± 1.0"
    assert row[head.index("accuracy, least squares, %")] == "43.8 ± 2.0"
