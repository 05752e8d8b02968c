"""Poor labels through the command line: what a run makes of them, and the words in which it refuses them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet
from toy_runs import Toy
from typer.testing import CliRunner

from facetask import cli

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Command:
    """What a command printed."""

    status: int
    said: str


@pytest.fixture
def facetask(toy: Toy, tmp_path: Path) -> Callable[..., Command]:
    """Run a command on toy faces whose table was changed, with one task of their column."""
    given = Path(toy.values["data"]["params"]["root"])

    def go(change: Callable[[Rows], object], *command: str, data: dict[str, Any] | None = None, **task: Any) -> Command:
        root = tmp_path / "faces"
        shutil.copytree(given / "images", root / "images", dirs_exist_ok=True)
        with (given / "labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        change(rows)
        with (root / "labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        params = {"root": str(root), "group_column": "person"}
        config = toy.config(
            data={"name": "table", "params": params, **(data or {})},
            satellite_tasks=[{"name": "column", "label": "task", "params": task}],
            trials=1,
        )
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        out = ["--out", str(tmp_path / "run")] if command[0] == "run" else []
        done = CliRunner().invoke(
            cli.app, [*command, str(tmp_path / "run.yaml"), *out, "--plugins-dir", str(toy.plugins_dir)]
        )
        return Command(done.exit_code, done.output)

    return go


def every(name: str, value: Callable[[int], str]) -> Callable[[Rows], object]:
    """Set a column."""

    def change(rows: Rows) -> None:
        for i, row in enumerate(rows):
            row[name] = value(i)

    return change


def test_an_age_of_2014_is_left_out_and_counted_wherever_labels_are_described(
    facetask: Callable[..., Command], tmp_path: Path
) -> None:
    ages = every("age", lambda i: "2014" if i == 7 else str(20 + i))
    task = {"column": "age", "kind": "continuous", "unit": "years"}
    assert "task: continuous from 20 to 2014 years, 60 labelled, 0 missing" in facetask(ages, "check", **task).said
    done = facetask(ages, "run", range=[0, 116], **task)
    note = "column 'age': 1 labels lie outside of range, 0 to 116, and count as missing: 0007.png (2014)"
    assert f"labels task: {note}" in done.said
    (found,) = json.loads((tmp_path / "run/results.json").read_text())["tasks"]
    assert (found["labels"]["notes"], found["labels"]["n_missing"]) == ([note], 1)
    assert "1 labels lie outside of range, 0 to 116" in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    table = parquet.read_table(tmp_path / "run/labels/task.parquet")
    assert json.loads(table.schema.metadata[b"facetask"])["notes"] == [note]
    assert [i for i, value in enumerate(table.column("value").to_pylist()) if value is None] == [7]


def test_a_bin_with_one_example_takes_part(facetask: Callable[..., Command], tmp_path: Path) -> None:
    levels = every("level", lambda i: "95" if i == 4 else str(i % 30))
    done = facetask(levels, "run", column="level", kind="binned", edges=[10, 20, 90])
    assert done.status == 0
    (found,) = json.loads((tmp_path / "run/results.json").read_text())["tasks"]
    assert found["labels"]["counts"] == {"<10": 19, "10–20": 20, "20–90": 20, "≥90": 1}
    assert all(0 <= found["finetune"]["metrics"][name]["mean"] <= 1 for name in ("accuracy", "within_one"))


@pytest.mark.parametrize("kind", ["continuous", "nominal"])
def test_constant_labels_are_refused_and_described(facetask: Callable[..., Command], kind: str) -> None:
    said = "column 'age': all of 60 labels are 5; nothing to learn"
    task = {"column": "age", "kind": kind}
    refused = facetask(every("age", lambda i: "5"), "check", **task)
    assert (refused.status, said in refused.said) == (2, True)
    assert f"labels.csv: {said}" in facetask(every("age", lambda i: "5"), "data", "describe", **task).said


def test_a_class_that_training_never_sees_is_told_before_and_does_not_stop_a_run(
    facetask: Callable[..., Command], tmp_path: Path
) -> None:
    def one_person(n: int) -> Callable[[Rows], object]:
        def change(rows: Rows) -> None:
            for row in rows[n : n + 6]:
                row |= {"person": "the only one", "tint": "blue"}

        return change

    task = {"column": "tint", "kind": "nominal"}
    seen = [facetask(one_person(n), "check", **task) for n in range(6, 54, 8)]
    unlucky = [i for i, done in enumerate(seen) if "no training image of blue (trial 0)" in done.said]
    assert unlucky
    assert facetask(one_person(6 + 8 * unlucky[0]), "run", **task).status == 0
    (found,) = json.loads((tmp_path / "run/results.json").read_text())["tasks"]
    assert found["regress"]["classifier"]["accuracy"]["mean"] < 1


def test_names_that_repeat_and_landmarks_that_are_not_there(facetask: Callable[..., Command]) -> None:
    task = {"column": "brightness", "kind": "continuous"}
    said = facetask(every("image", lambda i: f"{max(i, 1):04d}.png"), "check", **task).said
    assert "1 image names stand in more than one row: '0001.png'; keep one row an image" in said
    to = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]
    align = {"align": {"landmarks": "columns", "to": to}}
    assert "0 columns named x0, x1" in facetask(lambda rows: None, "check", data=align, **task).said

    def eyes(value: str) -> Callable[[Rows], object]:
        def change(rows: Rows) -> None:
            for row in rows:
                row |= {"x0": value, "y0": "10", "x1": "20", "y1": "10"}

        return change

    assert (
        "the eyes are not known, in pixels, of any of 60 images" in facetask(eyes(""), "check", data=align, **task).said
    )
    assert "column 'x0' holds text" in facetask(eyes("left"), "check", data=align, **task).said


def test_copies_of_an_image_in_two_groups_are_told(facetask: Callable[..., Command], tmp_path: Path) -> None:
    task = {"column": "tint", "kind": "binary"}
    facetask(lambda rows: None, "check", **task)
    first = (tmp_path / "faces/images/0000.png").read_bytes()

    def same(rows: Rows) -> None:
        for row in rows[:30]:
            (tmp_path / "faces/images" / row["image"]).write_bytes(first)

    assert "images of validation and test are copies of training images" in facetask(same, "check", **task).said
    said = facetask(same, "data", "describe", **task).said
    assert "copies of 1 contents stand in different groups" in said
