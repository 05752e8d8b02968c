"""Running from Python; what a run gives and reuses is checked in e2e/test_run.py."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_runs import ROOT, Finished, Toy

from facetask import ConfigError, Params, load_config, run
from facetask.data.loader import ImageLoader
from facetask.networks.base_network import load_network
from facetask.stages.finetune import Finetuned, finetune
from facetask.training.trainer import Teacher
from facetask.training.training_file import TrainingFile

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


TRAINED = {"trials": 1, "finetune": {"epochs": 3, "distill": 0.5}}


def test_an_interrupted_run_goes_on_with_its_training(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy.config(**{**TRAINED, "satellite_tasks": toy.values["satellite_tasks"][:1]})
    whole, _ = toy.run(tmp_path / "whole", config)
    save = TrainingFile.save

    def interrupted(file: TrainingFile, state: Any) -> None:
        save(file, state)
        if len(state["epochs"]) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFile, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            toy.run(tmp_path / "parts", config)
    assert [path.name for path in (tmp_path / "parts").rglob("*.pt")] == ["finetune.training.pt"]
    parts, recorder = toy.run(tmp_path / "parts", config)
    assert recorder.said("training of brightness goes on after epoch 2 of 3")
    assert parts.results.tasks[0].finetune == whole.results.tasks[0].finetune
    assert not list((tmp_path / "parts").rglob("*.pt"))
    one, other = (load_file(found.models["brightness"] / "model.safetensors") for found in (whole, parts))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_training_that_was_begun_otherwise_begins_anew(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy.config(**{**TRAINED, "satellite_tasks": toy.values["satellite_tasks"][:1]})
    with monkeypatch.context() as patch:
        patch.setattr(TrainingFile, "remove", lambda file: None)
        toy.run(tmp_path / "run", config)
    _, recorder = toy.run(tmp_path / "run", {**config, "finetune": {"epochs": 2}}, force=True)
    assert not recorder.said("goes on after")


def test_training_is_held_to_the_base_network_s_own_responses_of_the_kept_filters(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[Teacher, ImageLoader]] = []

    def noted(*arguments: Any, **others: Any) -> Finetuned:
        taught.append((others["teacher"], arguments[3]))
        return finetune(*arguments, **others)

    monkeypatch.setattr("facetask.running.trial_work.finetune", noted)
    toy.run(tmp_path / "run", toy.config(**{**TRAINED, "satellite_tasks": toy.values["satellite_tasks"][:1]}))
    pruned = json.loads((tmp_path / "run/stages/brightness/trial-0/prune.json").read_text())["result"]
    ((teacher, loader),) = taught
    backbone = load_network("tiny", Params(), toy.plugins).graph.cut(pruned["cut"]).module()
    responses = loader.all_outputs(backbone, np.arange(len(toy.images)))
    np.testing.assert_allclose(teacher.responses, responses[:, pruned["keep"][pruned["cut"]]], rtol=1e-4, atol=1e-5)
