"""Running from Python; what a run gives and reuses is checked in e2e/test_run.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from toy_runs import ROOT, Finished, Toy

from facetask import ConfigError, load_config, run

SMALL = {"trials": 1, "finetune": False}


def test_a_mapping_a_file_and_a_configuration_are_the_same(
    toy: Toy, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = finished.copy(tmp_path)
    loaded = load_config(toy.config_path, plugins=toy.plugins)
    for config in (toy.values, toy.config_path, str(toy.config_path), loaded):
        assert run(config, path, plugins=toy.plugins).results == finished.result.results  # type: ignore[arg-type]


def test_the_default_folder(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = run(toy.config_path, until="regress", plugins=toy.plugins)
    assert found.path == Path("runs/toy")
    assert (tmp_path / "runs/toy/report.html").is_file()
    assert run(toy.values, until="regress", plugins=toy.plugins).path == Path("runs/run")


def test_without_finetuning_a_run_ends_with_pruning(toy: Toy, tmp_path: Path) -> None:
    found, recorder = toy.run(tmp_path / "run", toy.config(**SMALL))
    assert (found.results.stage, found.results.finished) == ("prune", True)
    assert all(task.finetune is None for task in found.results.tasks)
    assert all((folder / "model.json").is_file() for folder in found.models.values())
    assert len(found.models) == 5
    again, recorder = toy.run(tmp_path / "run", toy.config(**SMALL))
    assert again == found
    assert recorder.said("finished already")


def test_a_result_is_frozen(finished: Finished) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        finished.result.path = Path()  # type: ignore[misc]


def test_a_wrong_mapping_is_told(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trails: unknown key; did you mean 'trials'"):
        toy.run(tmp_path / "run", toy.config(trails=2))
    assert not (tmp_path / "run").exists()


def test_the_loop_is_short_enough_to_be_read_first() -> None:
    assert len((ROOT / "facetask/runner.py").read_text().splitlines()) <= 150
