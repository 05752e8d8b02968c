"""A run's folder: whose it is, what is stored in it, and what is reused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_runs import Finished, Toy

from facetask import RunConfig, RunDirError
from facetask.config import config_from_dict
from facetask.running.rundir import RunDir

DEPENDS = {"seed": 1, "prune": {"threshold": 0.01, "cut": "best"}, "labels": "abc"}


@pytest.fixture
def config(toy: Toy) -> RunConfig:
    return config_from_dict(toy.values, base=Path.cwd(), plugins=toy.plugins)


@pytest.fixture
def changed(toy: Toy) -> RunConfig:
    return config_from_dict(toy.config(seed=7), base=Path.cwd(), plugins=toy.plugins)


@pytest.fixture
def folder(config: RunConfig, tmp_path: Path) -> RunDir:
    """A folder in which one stage has been computed."""
    folder = RunDir.open(tmp_path / "deep/run", config)
    folder.begin()
    folder.save_stage("age", 0, "regress", DEPENDS, {"best_tap": "a"}, 1.5)
    return folder


def test_opening_writes_nothing(config: RunConfig, tmp_path: Path) -> None:
    RunDir.open(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_beginning_writes_configuration_and_environment(folder: RunDir, toy: Toy, config: RunConfig) -> None:
    loaded = config_from_dict(
        yaml.safe_load((folder.path / "resolved.yaml").read_text()), base=Path.cwd(), plugins=toy.plugins
    )
    assert loaded == config
    assert json.loads((folder.path / "environment.json").read_text())["seed"] == config.seed


def test_an_empty_folder_can_be_used_and_a_strange_one_cannot(config: RunConfig, tmp_path: Path) -> None:
    RunDir.open(tmp_path, config).begin()
    RunDir.open(tmp_path, config).begin()
    (tmp_path / "resolved.yaml").unlink()
    for force in (False, True):
        with pytest.raises(RunDirError, match=r"not empty and no run's folder \(it has no resolved\.yaml\)"):
            RunDir.open(tmp_path, config, force=force)


def test_another_configuration_needs_force(folder: RunDir, changed: RunConfig) -> None:
    with pytest.raises(RunDirError, match=r"holds a run of another configuration; different: seed; .*--force"):
        RunDir.open(folder.path, changed)
    RunDir.open(folder.path, changed, force=True)
    (folder.path / "resolved.yaml").write_text("data: [")
    with pytest.raises(RunDirError, match=r"different: resolved\.yaml \(damaged\)"):
        RunDir.open(folder.path, changed)


def test_a_folder_without_results_belongs_to_nobody(config: RunConfig, changed: RunConfig, tmp_path: Path) -> None:
    RunDir.open(tmp_path, config).begin()
    RunDir.open(tmp_path, changed).begin()
    assert "seed: 7" in (tmp_path / "resolved.yaml").read_text()


def test_a_folder_that_cannot_be_made(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(RunDirError, match=r"cannot be written .*; name another folder with --out"):
            RunDir.open(path, config).begin()


# --- stages


def test_a_stage_comes_back_while_nothing_changes(folder: RunDir) -> None:
    record, changed = folder.load_stage("age", 0, "regress", DEPENDS)
    assert record is not None
    assert (record["result"], record["wall_s"], changed) == ({"best_tap": "a"}, 1.5, "")
    assert folder.load_stage("age", 1, "regress", DEPENDS) == (None, "")
    assert folder.load_stage("age", 0, "curve", DEPENDS) == (None, "")


@pytest.mark.parametrize(
    ("depends", "said"),
    [
        ({**DEPENDS, "seed": 2}, "seed"),
        ({**DEPENDS, "prune": {"threshold": 0.1, "cut": {"within": 0.1}}}, "prune.threshold, prune.cut"),
        ({"seed": 1, "labels": "abc"}, "prune"),
        ({**DEPENDS, "more": 1}, "more"),
        ({**DEPENDS, "seed": True}, "seed"),
    ],
)
def test_what_changed_is_said(folder: RunDir, depends: dict[str, Any], said: str) -> None:
    assert folder.load_stage("age", 0, "regress", depends) == (None, said)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"depends": {}}', '{"depends"', "\xff"])
def test_a_damaged_stage_is_not_used(folder: RunDir, text: str) -> None:
    (path,) = folder.path.rglob("regress.json")
    path.write_bytes(text.encode("latin-1"))
    assert folder.load_stage("age", 0, "regress", DEPENDS) == (None, "regress.json is damaged")


def test_a_forgotten_stage_is_gone(folder: RunDir) -> None:
    folder.forget_stage("age", 0, "regress")
    folder.forget_stage("age", 0, "regress")
    assert folder.load_stage("age", 0, "regress", DEPENDS) == (None, "")


def test_a_stage_that_cannot_be_stored(folder: RunDir) -> None:
    (folder.path / "stages/sex").write_text("")
    with pytest.raises(RunDirError, match=r"regress\.json: cannot be written"):
        folder.save_stage("sex", 0, "regress", DEPENDS, {}, 0.0)


# --- finished runs


def test_what_counts_as_finished(finished: Finished, toy: Toy, config: RunConfig, tmp_path: Path) -> None:
    path = finished.copy(tmp_path)
    folder = RunDir.open(path, config)
    for stage in ("regress", "finetune"):
        assert folder.finished(stage) == finished.result.results
    (path / "model/tint/model.json").rename(tmp_path / "model.json")
    assert folder.finished("finetune") is None
    (tmp_path / "model.json").rename(path / "model/tint/model.json")
    results = json.loads(folder.results_path.read_text())
    for text in (json.dumps({**results, "finished": False}), json.dumps({**results, "format_version": 0}), "{"):
        folder.results_path.write_text(text)
        assert folder.finished("regress") is None
    folder.results_path.write_text(json.dumps({**results, "stage": "curve"}))
    assert folder.finished("curve") is not None
    assert folder.finished("prune") is None
    folder.report_path.unlink()
    assert folder.finished("curve") is None


def test_results_of_another_configuration_are_dropped(
    finished: Finished, config: RunConfig, changed: RunConfig, tmp_path: Path
) -> None:
    path = finished.copy(tmp_path)
    RunDir.open(path, config).begin()
    assert (path / "results.json").is_file()
    RunDir.open(path, changed, force=True).begin()
    assert not (path / "results.json").exists()
    assert not (path / "report.html").exists()
    assert (path / "stages").is_dir()


def test_a_run_s_folder_holds_the_labels_tables_of_its_tasks(toy: Toy, tmp_path: Path) -> None:
    def run(*labels: str) -> set[str]:
        tasks = [
            {"name": "column", "label": label, "params": {"column": "brightness", "kind": "continuous"}}
            for label in labels
        ]
        toy.run(tmp_path / "run", toy.config(satellite_tasks=tasks, trials=1), until="regress", force=True)
        return {path.name for path in (tmp_path / "run/labels").iterdir()}

    assert run("light", "level") == {"light.parquet", "level.parquet"}
    own = {"light-of-mine.parquet", "broken.parquet", "notes.txt"}
    shutil.copy(tmp_path / "run/labels/light.parquet", tmp_path / "run/labels/light-of-mine.parquet")
    for name in ("broken.parquet", "notes.txt"):
        (tmp_path / "run/labels" / name).write_text("mine")
    assert run("level", "glow") == {"level.parquet", "glow.parquet", *own}
    assert run("level") == {"level.parquet", *own}


def test_tables_of_a_run_that_went_no_further_are_dropped_too(
    finished: Finished, changed: RunConfig, tmp_path: Path
) -> None:
    path = finished.copy(tmp_path)
    shutil.rmtree(path / "stages")
    (path / "results.json").unlink()
    RunDir.open(path, changed).begin()
    assert list((path / "labels").iterdir()) == []


def test_a_training_lies_beside_its_stage_and_counts_for_what_it_depends_on(folder: RunDir) -> None:
    file = folder.training_file("age", 0, "finetune", DEPENDS)
    file.save({"wall_s": 1.0, "epoch": 2})
    assert (folder.path / "stages/age/trial-0/finetune.training.pt").is_file()
    state = folder.training_file("age", 0, "finetune", DEPENDS).load()
    assert state is not None
    assert state["epoch"] == 2
    assert folder.training_file("age", 0, "finetune", {**DEPENDS, "seed": 2}).load() is None
    assert folder.training_file("age", 1, "finetune", DEPENDS).load() is None
