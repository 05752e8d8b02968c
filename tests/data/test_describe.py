"""What a dataset holds: counts, labels, groups, copies and the first split, without any base network."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_runs import ROOT, Recorder, Toy
from typer.testing import CliRunner

from facetask import DataError, cli
from facetask.config import config_from_dict
from facetask.data.describe import Description, Histogram, TaskDescription, describe_data
from facetask.data.describe_text import MOST_ROWS, description_lines
from facetask.data.splits import PARTS

Describe = Callable[..., Description]
TINT = {"name": "column", "params": {"column": "tint", "kind": "binary"}}


@pytest.fixture
def describe(toy: Toy) -> Describe:
    def described(**changes: Any) -> Description:
        config = config_from_dict(toy.config(**changes), base=Path.cwd(), plugins=toy.plugins)
        return describe_data(config, toy.plugins, Recorder())

    return described


@pytest.fixture
def copied(toy: Toy, tmp_path: Path) -> dict[str, Any]:
    """The toy faces with two copies within a person, one across persons, and a broken image; the data section."""
    given = Path(toy.values["data"]["params"]["root"])
    (tmp_path / "images").mkdir()
    for path in toy.images:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    with (given / "labels.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    person = {row[0]: row[1] for row in rows}
    names = [name for name in person if person[name]]
    same = next(a for a in names[1:] if person[a] == person[names[0]])
    other = next(a for a in names if person[a] != person[names[0]])
    for name in (same, other):
        (tmp_path / "images" / name).write_bytes((tmp_path / "images" / names[0]).read_bytes())
    (tmp_path / "images" / names[-1]).write_bytes(b"")
    (tmp_path / "labels.csv").write_text((given / "labels.csv").read_text())
    return {"name": "table", "params": {"root": str(tmp_path), "group_column": "person"}}


def task(found: Description, name: str) -> Any:
    return next(each for each in found.tasks if each.name == name)


def test_each_kind_of_task_is_counted(describe: Describe, toy: Toy) -> None:
    found = describe()
    with (Path(toy.values["data"]["params"]["root"]) / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (found.n_images, found.unreadable, found.n_faceless) == (60, (), None)
    brightness = task(found, "brightness")
    assert (brightness.n_labelled, brightness.n_missing, brightness.unit) == (59, 1, "grey levels")
    assert brightness.missing_share == pytest.approx(1 / 60)
    values = [float(row["brightness"]) for row in rows if row["brightness"]]
    assert list(brightness.histograms[0].counts) == np.histogram(values, 10)[0].tolist()
    tint = dict(zip(task(found, "tint").histograms[0].rows, task(found, "tint").histograms[0].counts, strict=True))
    assert tint == {name: sum(row["tint"] == name for row in rows) for name in tint}
    bins = task(found, "bins").histograms[0]
    assert list(bins.counts) == np.histogram(values, [-np.inf, 100, 150, np.inf])[0].tolist()
    bright, warm = task(found, "marks").histograms
    assert (bright.name, bright.rows) == ("bright", ("no", "yes", "missing"))
    assert bright.counts == tuple(sum(row["bright"] == value for row in rows) for value in ("0", "1", ""))
    assert warm.counts[2] == 0
    assert task(found, "marks").n_partly == bright.counts[2]
    for each in found.tasks:
        assert sum(each.split[part] for part in PARTS) == each.n_labelled
        assert (each.n_leaked, each.problem) == (0, "")


def test_groups_are_counted_with_images_that_have_none(describe: Describe, toy: Toy) -> None:
    with (Path(toy.values["data"]["params"]["root"]) / "labels.csv").open(newline="") as file:
        people = [row["person"] for row in csv.DictReader(file)]
    sizes = [people.count(person) for person in set(people) - {""}]
    groups = describe().groups
    assert groups is not None
    assert (groups.column, groups.n, groups.n_without) == ("person", len(sizes), people.count(""))
    assert (groups.smallest, groups.median, groups.largest) == (min(sizes), np.median(sizes), max(sizes))


def test_copies_in_different_groups_are_warned_of(describe: Describe, copied: dict[str, Any]) -> None:
    found = describe(data=copied)
    assert (found.n_images, len(found.unreadable)) == (59, 1)
    assert (found.copies.n_contents, found.copies.n_extra, found.copies.n_across) == (1, 2, 1)
    assert len(found.copies.first) == 3
    text = "\n".join(description_lines(found))
    assert "copies: 2 images repeat another (1 contents occur more than once)" in text
    assert "warning: copies of 1 contents stand in different groups, so a split may part them: " in text
    assert "59 images, 1 unreadable" in text


def test_copies_of_training_images_are_counted_as_the_split_parts_them(
    describe: Describe, copied: dict[str, Any]
) -> None:
    leaks = [task(describe(data=copied, seed=seed, satellite_tasks=[TINT]), "tint").n_leaked for seed in range(12)]
    assert 0 in leaks
    assert max(leaks) in (1, 2)


def test_without_groups_copies_may_always_be_parted(describe: Describe, copied: dict[str, Any]) -> None:
    data = {**copied, "params": {"root": copied["params"]["root"]}}
    found = describe(data=data, satellite_tasks=[TINT])
    assert found.groups is None
    assert found.copies.n_across is None
    text = "\n".join(description_lines(found))
    assert "a split may part copies, since there are no groups" in text
    assert "groups: none" in text


def test_a_task_that_cannot_be_had_is_told_beside_the_others(describe: Describe) -> None:
    absent = {"name": "column", "label": "sex", "params": {"column": "sex", "kind": "binary"}}
    found = describe(satellite_tasks=[absent, TINT])
    assert "no column 'sex'" in found.tasks[0].problem
    assert found.tasks[1].kind == "binary"
    alone = describe(split={"group_by": "tint"}, satellite_tasks=[TINT]).tasks[0]
    assert "cannot split 2 groups" in alone.problem
    assert alone.split is None
    assert alone.n_labelled == 60
    assert "  problem: cannot split 2 groups" in "\n".join(description_lines(describe(split={"group_by": "tint"})))


def test_classes_that_are_too_small_are_named(describe: Describe) -> None:
    level = {"name": "column", "params": {"column": "level", "kind": "nominal"}}
    (whole,) = describe(satellite_tasks=[level]).tasks[0].histograms
    smallest, middle, _ = sorted(whole.counts)
    assert smallest // 3 < middle // 3
    found = describe(satellite_tasks=[level], split={"min_per_class": smallest // 3 + 1})
    name = whole.rows[whole.counts.index(smallest)]
    assert found.tasks[0].left_out == {name: smallest}
    assert f"  left out, too few images: {name} ({smallest})" in list(description_lines(found))


def test_of_many_classes_the_fullest_are_shown(describe: Describe) -> None:
    counts = tuple(range(1, MOST_ROWS + 6))
    many = TaskDescription(name="many", kind="nominal", histograms=(Histogram("", tuple(map(str, counts)), counts),))
    lines = list(description_lines(replace(describe(satellite_tasks=[TINT]), tasks=(many,))))
    assert [int(line.split()[0]) for line in lines if "█" in line] == sorted(counts)[: -MOST_ROWS - 1 : -1]
    assert lines[-1] == "    … and 5 more, none of them fuller"


def test_nothing_of_the_base_network_is_needed(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetask.networks.base_network.load_network", None)
    monkeypatch.setattr("facetask.models.checkpoint.load_base", None)
    arguments = ["data", "describe", str(toy.config_path), "--plugins-dir", str(toy.plugins_dir)]
    changed = ["-o", "base_network.name=vgg-face", "-o", "base_network.params.weights=nowhere.pth"]
    found = CliRunner().invoke(cli.app, [*arguments, *changed])
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[0].endswith("labels.csv: 60 images, 0 unreadable")
    assert "tint: binary, 60 labelled, 0 missing (0.0 %)" in lines
    assert any(line.startswith("    warm  █") for line in lines)
    assert any(line.startswith("  trial 0: ") and line.endswith(" test") for line in lines)
    as_json = json.loads(CliRunner().invoke(cli.app, [*arguments, "--json"]).stdout)
    assert as_json["n_images"] == 60
    assert as_json["tasks"][0]["split"].keys() == set(PARTS)


def test_bars_are_as_long_as_counts_are_great(describe: Describe) -> None:
    lines = list(description_lines(describe(satellite_tasks=[TINT])))
    (tint,) = describe(satellite_tasks=[TINT]).tasks[0].histograms
    drawn = {line.split()[0]: line.count("█") for line in lines if "█" in line}
    most = max(tint.counts)
    assert drawn == {row: round(30 * count / most) for row, count in zip(tint.rows, tint.counts, strict=True)}


def test_faces_to_be_aligned_are_counted(describe: Describe, copied: dict[str, Any]) -> None:
    root = Path(copied["params"]["root"])
    header, *rows = (root / "labels.csv").read_text().splitlines()
    eyes = [f"{row},10,12,20,12" if i > 2 else f"{row},,,," for i, row in enumerate(rows)]
    (root / "labels.csv").write_text("\n".join([f"{header},x0,y0,x1,y1", *eyes]))
    found = describe(data={**copied, "align": {"landmarks": "columns"}}, satellite_tasks=[TINT])
    assert found.n_faceless == 3
    assert "  no face known on: 3 images" in list(description_lines(found))
    with pytest.raises(DataError, match="0 columns named u0"):
        describe(data={**copied, "align": {"landmarks": "columns", "x": "u{}"}})


def test_the_quickstart_can_be_described() -> None:
    found = CliRunner().invoke(
        cli.app, ["data", "describe", str(ROOT / "examples/quickstart.yaml"), "-o", "data.params.count=60", "--json"]
    )
    assert found.exit_code == 0, found.output
    described = json.loads(found.stdout)
    assert described["n_images"] == 60
    assert [each["kind"] for each in described["tasks"]] == ["continuous", "binary"]
    assert described["groups"]["column"] == "identity"
