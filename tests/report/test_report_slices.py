"""What the page says of groups of test images: numbers, warnings and a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from test_report_page import Page

from facetask.report import render_report, slices_figure
from facetask.running.results import Results

Make = Callable[..., Results]


def metric(mean: float | None, std: float | None = 0.0) -> dict[str, float | None]:
    return {"mean": mean, "std": std}


def group(name: str, n: int, values: list[float | None], excess: list[float], grew: list[str], main: str) -> Any:
    """A group with the main metric unpruned, pruned and finetuned."""
    steps = dict(zip(["unpruned", "pruned", "finetuned"], values, strict=True))
    return {
        "group": name,
        "n_test": [n, n + 2, n + 1],
        "small": n < 20,
        "metrics": {"regress": {main: metric(values[0])}} | {k: {main: metric(v, 0.2)} for k, v in steps.items()},
        "excess": {step: metric(value, 0.1) for step, value in zip(["pruned", "finetuned"], excess, strict=True)},
        "grew": grew,
    }


def sliced(main: str = "rmse") -> Callable[[dict[str, Any]], None]:
    """Give a run's first task a slice of three groups."""
    share = main != "rmse"
    factor = 0.1 if share else 1.0

    def change(raw: dict[str, Any]) -> None:
        raw["tasks"][0]["slices"] = [
            {
                "column": "race",
                "groups": [
                    group("asian", 104, [8 * factor, 7.5 * factor, 5 * factor], [-0.2, -0.1], [], main),
                    group(
                        "white", 300, [7 * factor, 9 * factor, 6 * factor], [0.5, 0.25], ["pruned", "finetuned"], main
                    ),
                    group("not known", 3, [None, None, None], [0.1, 0.1], [], main),
                ],
            }
        ]

    return change


def test_groups_stand_below_the_whole_with_their_changes(make_results: Make) -> None:
    page = Page(render_report(make_results("yaw", change=sliced())))
    assert page.row("images")[1:] == [
        "in a test split",
        "RMSE, degrees: unpruned",
        "RMSE, degrees: pruned",
        "RMSE, degrees: finetuned",
        "error’s growth beyond the whole’s (degrees): pruned",
        "error’s growth beyond the whole’s (degrees): finetuned",
    ]
    whole = page.row("all test images")
    assert whole[2] == page.row("cut at")[7 - 2]
    assert (whole[1], whole[-2:]) == ("1,475", ["–", "–"])
    assert page.row("race: asian") == [
        "race: asian", "104–106", "8.00 ± 0.20", "7.50 ± 0.20", "5.00 ± 0.20", "−0.200 ± 0.100", "−0.100 ± 0.100"
    ]  # fmt: skip
    assert page.row("race: white")[-2:] == ["+0.500 ± 0.100", "+0.250 ± 0.100"]
    assert page.row("race: not known")[2:5] == ["–", "–", "–"]
    classes = [attributes.get("class") for tag, attributes in page.tags if tag == "tr"]
    assert [classes.count(name) for name in ("grew", "few")] == [1, 1]


def test_a_group_whose_error_grew_more_is_warned_of(make_results: Make) -> None:
    text = Page(render_report(make_results("yaw", change=sliced()))).text
    grew = "made the error grow more for race: white (by {} ± 0.100 degrees) than for all test images together."
    assert "Pruning " + grew.format("0.500") in text
    assert "Pruning and finetuning " + grew.format("0.250") in text
    assert "fewer than 20 test images in some trial" in text
    assert text.count("Warning.") == 2
    assert "of which only those of the run’s slices are shown here" in text
    text = Page(render_report(make_results("gender", change=sliced("accuracy")))).text
    assert "race: white (by 50.0 ± 10.0 points)" in text


def test_without_slices_nothing_is_said_of_them(make_results: Make) -> None:
    text = Page(render_report(make_results("yaw"))).text
    assert "For whom" not in text
    assert "are averaged here" in text
    assert slices_figure(make_results("yaw").tasks[0]) == ""


def test_a_run_without_pruning_shows_the_best_tap_s(make_results: Make) -> None:
    def change(raw: dict[str, Any]) -> None:
        sliced()(raw)
        for each in raw["tasks"][0]["slices"][0]["groups"]:
            each |= {"metrics": {"regress": each["metrics"]["regress"]}, "excess": {}, "grew": []}

    page = Page(render_report(make_results("yaw", change=change, stage="curve")))
    assert page.row("images")[1:] == ["in a test split", "RMSE, degrees: all filters"]
    assert page.row("race: asian")[2] == "8.00"
    assert "Growth beyond" not in page.text


def test_one_trial_says_that_it_cannot_tell(make_results: Make) -> None:
    text = Page(render_report(make_results("yaw", change=sliced(), trials=1))).text
    assert "With one trial there is no spread" in text


@pytest.mark.parametrize("width", [440, 940])
def test_the_figure_has_a_dot_for_each_known_group_and_step(make_results: Make, width: int) -> None:
    svg = slices_figure(make_results("yaw", change=sliced()).tasks[0], width)
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    named = [text for text in texts if text and text.startswith("race: ")]
    assert named == ["race: asian", "race: white", "race: not known"]
    assert [text for text in texts if text in ("unpruned", "pruned", "finetuned")] == [
        "unpruned",
        "pruned",
        "finetuned",
    ]
    assert "RMSE (degrees), lower is better" in texts
    assert float(root.get("width", "0")) <= width + 1
    painted = [e.get(name, "none") for e in root.iter() for name in ("fill", "stroke")]
    assert all(colour.startswith(("var(--fig-", "none", "transparent")) for colour in painted)
    written = [e.get("fill", "black") for e in root.iter() if e.tag.endswith("}text")]
    assert all(colour.startswith("var(--fig-") for colour in written)
    circles = [e for e in root.iter() if e.tag.endswith("}path") and e.get("fill", "").startswith("var(")]
    assert len(circles) == 3 + 2 * 3  # the legend's, and those of the groups whose metrics are known
