"""Runs side by side: what is shown of each, and when they must not be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_runs import Finished
from typer.testing import CliRunner

from facetask import cli
from facetask.errors import RunDirError
from facetask.experiments.compare import (
    RunComparison,
    as_text,
    compare_runs,
    comparison_table,
    not_comparable,
    write_comparison,
)
from facetask.report.tables import Table

Change = Callable[[dict[str, Any]], object]
Copies = Callable[..., Path]


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Copies:
    """Return copies of a finished run under other names, with its results changed."""

    def make(name: str, change: Change = lambda raw: None) -> Path:
        folder = finished.copy(tmp_path).rename(tmp_path / name)
        raw = json.loads((folder / "results.json").read_text())
        change(raw)
        (folder / "results.json").write_text(json.dumps(raw))
        return folder

    return make


def change_stage(folder: Path, key: str) -> None:
    path = folder / "stages" / "tint" / "trial-0" / "regress.json"
    raw = json.loads(path.read_text())
    raw["depends"][key] = "something else"
    path.write_text(json.dumps(raw))


def of_task(comparison: RunComparison, name: str) -> Any:
    return next(task for task in comparison.tasks if task.name == name)


def test_each_task_has_a_row_for_each_run_that_has_it(finished: Finished, copy: Copies) -> None:
    other = copy("other", lambda raw: raw["tasks"].pop(0))
    found = compare_runs([finished.path, other])
    results = finished.result.results
    assert [task.name for task in found.tasks] == [task.name for task in results.tasks]
    assert [len(task.runs) for task in found.tasks] == [1, 2, 2, 2, 2]
    for task, compared in zip(results.tasks, found.tasks, strict=True):
        assert task.prune is not None
        assert task.finetune is not None
        row = compared.runs[0]
        assert (row.cut, row.cost, row.cost_base) == (task.prune.cut, task.prune.pruned, task.prune.base)
        assert row.kept == sum(task.prune.kept.values()) <= (row.full or 0) == sum(task.prune.full.values())
        assert row.metrics["all filters"] == task.prune.metrics_unpruned
        assert row.metrics["pruned"] == task.prune.metrics_pruned
        assert row.metrics["finetuned"] == task.finetune.metrics
        assert all(run.not_comparable == [] for run in compared.runs)


def test_a_run_that_stopped_early_has_dashes(finished: Finished, copy: Copies) -> None:
    def stop(raw: dict[str, Any]) -> None:
        for task in raw["tasks"]:
            task |= {"prune": None, "finetune": None, "model": None}

    table = comparison_table(of_task(compare_runs([finished.path, copy("early", stop)]), "brightness"))
    assert len({len(row) for row in (table.head, *table.rows)}) == 1
    assert table.rows[1][3:] == ["–", table.rows[1][4], "–", "–", "–", "–", table.rows[1][-1]]
    assert re.fullmatch(r"\d+\.\d+.±.\d+\.\d+", table.rows[1][4])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: raw["data"].update(n_images=77), r"other images \(table, 77, not table, 60\)"),
        (lambda raw: raw.update(seed=5), r"another seed \(5, not 0\)"),
        (lambda raw: raw.update(trials=1), "1 random partition, not 2"),
        (lambda raw: raw["tasks"][1]["labels"].update(kind="nominal"), "another kind of label"),
        (lambda raw: raw["tasks"][1]["trials"][0].update(n_test=3), r"other sizes .* 3, not"),
    ],
)
def test_runs_on_other_data_are_marked(finished: Finished, copy: Copies, change: Change, why: str) -> None:
    task = of_task(compare_runs([finished.path, copy("other", change)]), "tint")
    assert [bool(run.not_comparable) for run in task.runs] == [False, True]
    (told,) = not_comparable(task)
    assert re.search(why, told)
    table = comparison_table(task)
    assert [row[0][-1] for row in table.rows] == ["y", "*"]
    assert table.marked == {1: "aside"}


@pytest.mark.parametrize(
    ("key", "why"), [("images", "other images"), ("labels", "other labels"), ("split", "another split")]
)
def test_what_looks_alike_but_is_not_is_marked(finished: Finished, copy: Copies, key: str, why: str) -> None:
    other = copy("other")
    change_stage(other, key)
    found = compare_runs([finished.path, other])
    assert of_task(found, "tint").runs[1].not_comparable == [why]
    assert of_task(found, "bins").runs[1].not_comparable == []


def test_runs_of_one_name_are_told_apart_by_their_parents(copy: Copies, tmp_path: Path) -> None:
    folders = []
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
        folders.append(copy("run").rename(tmp_path / parent / "run"))
    assert [run.run for run in compare_runs(folders).tasks[0].runs] == ["a/run", "b/run"]


def test_wrong_folders_are_named(finished: Finished, copy: Copies, tmp_path: Path) -> None:
    other = copy("other")
    with pytest.raises(RunDirError, match=r"othre: no such folder; did you mean 'other'\?"):
        compare_runs([finished.path, tmp_path / "othre"])
    with pytest.raises(RunDirError, match=r"no run's folder \(it has no results.json\); it holds the runs other"):
        compare_runs([finished.path, tmp_path])
    with pytest.raises(RunDirError, match="two different runs"):
        compare_runs([other, other])
    (other / "results.json").write_text("{")
    with pytest.raises(RunDirError, match="not a results file"):
        compare_runs([finished.path, other])


def test_a_table_for_the_terminal_is_aligned() -> None:
    assert as_text(Table(["a", "long"], [["name", "1"], ["b", "22"]])).splitlines() == [
        "a     long",
        "----------",
        "name     1",
        "b       22",
    ]


def test_the_command_prints_tables_or_json_and_writes_a_page(finished: Finished, copy: Copies, tmp_path: Path) -> None:
    folders = [str(finished.path), str(copy("other", lambda raw: raw.update(seed=5)))]
    page = tmp_path / "out" / "both.html"
    found = CliRunner().invoke(cli.app, ["compare", *folders, "--out", str(page)])
    assert found.exit_code == 0, found.output
    assert "other: not comparable with" in found.stdout
    assert "brightness" in page.read_text()
    assert len(list((tmp_path / "out" / "both_figures").iterdir())) == 2 * 5
    found = CliRunner().invoke(cli.app, ["compare", *folders, "--json"])
    assert RunComparison.model_validate_json(found.stdout) == compare_runs([Path(folder) for folder in folders])
    found = CliRunner().invoke(cli.app, ["compare", folders[0], str(tmp_path / "none")])
    assert found.exit_code == 2
    assert "no such folder" in found.stderr


def test_a_page_is_written_for_runs_without_pruning(finished: Finished, copy: Copies, tmp_path: Path) -> None:
    def stop(raw: dict[str, Any]) -> None:
        for task in raw["tasks"]:
            task |= {"curve": None, "prune": None, "finetune": None, "model": None, "wall_s": {"regress": 1.0}}

    found = compare_runs([copy("one", stop), copy("two", stop)])
    assert found.tasks[0].runs[0].stage == "regress"
    assert write_comparison(found, tmp_path / "page.html") == [tmp_path / "page.html"]  # nothing to draw against
