from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from toy_runs import ROOT, TINY, Recorder, Toy
from typer.testing import CliRunner

from facetask import ConfigError, FacetaskError, load_model
from facetask.cli import app
from facetask.experiments import pretrain as module
from facetask.experiments.pretrain import Pretrained, pretrain
from facetask.experiments.pretrain_results import PretrainResults
from facetask.plugin_manager import PluginManager
from facetask.training.training_file import TrainingFile

BRIGHTNESS, TINT = 0, 1
Run = Callable[..., tuple[Pretrained, Recorder]]


@dataclass
class Primary:
    """Pretraining of the toy network for one of its tasks."""

    toy: Toy
    folder: Path

    def values(self, task: int = BRIGHTNESS, **changes: Any) -> dict[str, Any]:
        """Return a configuration with one task and no word on trials."""
        values = {key: value for key, value in self.toy.values.items() if key != "trials"}
        tasks = [self.toy.values["satellite_tasks"][task]]
        return {**values, "satellite_tasks": tasks, "finetune": {"epochs": 3}, **changes}

    def run(self, name: str = "a", task: int = BRIGHTNESS, **changes: Any) -> tuple[Pretrained, Recorder]:
        """Pretrain in this process."""
        recorder = Recorder()
        values = self.values(task, **changes)
        return pretrain(values, self.folder / name, plugins=self.toy.plugins, reporter=recorder), recorder


@pytest.fixture
def primary(toy: Toy, tmp_path: Path) -> Primary:
    return Primary(toy, tmp_path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_base_network_is_trained_measured_and_saved(primary: Primary) -> None:
    done, recorder = primary.run(task=TINT, finetune={"epochs": 6, "learning_rate": 0.03})
    found = done.results
    assert (found.task, found.kind, found.base_network, found.cut, found.n_filters) == (
        "tint",
        "binary",
        "tiny",
        "3",
        16,
    )
    (trial,) = found.trials
    assert [epoch.epoch for epoch in trial.epochs] == list(range(7))
    rmses = [epoch.validation["rmse"] for epoch in trial.epochs]
    assert rmses == [epoch.validation_rmse for epoch in trial.epochs]
    assert trial.best_epoch == int(np.argmin(rmses))
    assert trial.metrics == trial.epochs[trial.best_epoch].test
    assert found.metrics["accuracy"].mean == trial.metrics["accuracy"] > 0.8
    times = [epoch.wall_s for epoch in trial.epochs]
    assert times == sorted(times)
    assert trial.wall_s >= times[-1] > 0
    assert PretrainResults.model_validate_json((done.path / "pretrain.json").read_text()) == found
    assert recorder.said("epoch 6 of 6: validation accuracy", "test accuracy")
    assert not list(done.path.rglob("*.pt"))


def test_the_saved_model_predicts_as_was_measured(primary: Primary) -> None:
    done, _ = primary.run()
    model = load_model(done.model, primary.toy.plugins)
    told = [value["value"] for value in model.predict(primary.toy.images)]
    table = Path(primary.toy.values["data"]["params"]["root"]) / "labels.csv"
    labels = np.genfromtxt(table, delimiter=",", skip_header=1, usecols=2)
    known = np.isfinite(labels)
    rmse = float(np.sqrt(np.mean((np.array(told)[known] - labels[known]) ** 2)))
    (trial,) = done.results.trials
    best = trial.epochs[trial.best_epoch]
    assert rmse < 2 * max(best.validation["rmse"] or 0, best.test["rmse"] or 0)
    assert done.results.unit == "grey levels"


def test_the_model_is_a_base_network_for_runs_with_all_its_filters(primary: Primary) -> None:
    done, _ = primary.run()
    again, _ = primary.toy.run(
        primary.folder / "run",
        primary.toy.config(base_network={"model": str(done.model)}, trials=1, finetune=False),
        until="regress",
    )
    assert [(tap.tap, tap.n_filters) for tap in again.results.tasks[0].regress.taps] == [
        ("0", 8),
        ("2.conv", 8),
        ("3", 16),
    ]
    further, _ = primary.run("b", TINT, base_network={"model": str(done.model)})
    rounds = json.loads((further.model / "model.json").read_text())["rounds"]
    assert [part["cuts"] for part in rounds] == [["3"], ["3"]]


def test_the_cut_may_be_named(primary: Primary) -> None:
    done, _ = primary.run(prune={"cut": "2.conv"})
    assert (done.results.cut, done.results.n_filters) == ("2.conv", 8)
    assert not [key for key in weights(done.model) if key.startswith("backbone.3")]


def test_from_scratch_the_given_weights_do_not_count(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("from scratch needs no responses of the given weights")

    monkeypatch.setattr(module, "respond", never)
    done, _ = primary.run(finetune={"epochs": 8, "start": "scratch"})
    assert done.results.start == "scratch"
    scores = [epoch.validation_rmse or 0 for epoch in done.results.trials[0].epochs]
    assert min(scores) < scores[0]
    description = json.loads((done.model / "model.json").read_text())
    assert description["weights_source"] == "trained for brightness from random weights"


def test_from_scratch_no_file_of_weights_is_needed(primary: Primary, tmp_path: Path) -> None:
    text = TINY.replace("Weights(state=", "Weights(state=1 / 0, absent=")
    assert "1 / 0" in text
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/tiny.py").write_text(text)
    toy = replace(primary.toy, plugins=PluginManager(tmp_path / "plugins"))
    with pytest.raises(ZeroDivisionError):
        Primary(toy, tmp_path).run()
    for name in ("one", "two"):
        done, _ = Primary(toy, tmp_path).run(name, finetune={"epochs": 2, "start": "scratch"})
        assert (done.model / "model.json").is_file()
    _, recorder = Primary(toy, tmp_path).run("two", finetune={"epochs": 2, "start": "scratch"})
    assert recorder.said("finished already")


def test_training_one_trial_leaves_the_next_one_s_start_alone(primary: Primary) -> None:
    one, _ = primary.run("one")
    three, _ = primary.run("three", trials=3)
    assert [trial.seed for trial in three.results.trials] == [0, 1, 2]
    assert one.results.trials[0].epochs[1].train_loss == three.results.trials[0].epochs[1].train_loss
    alone, _ = primary.run("alone", seed=1)
    assert alone.results.trials[0].metrics == three.results.trials[1].metrics
    assert three.results.metrics["rmse"].mean == pytest.approx(
        np.mean([trial.metrics["rmse"] for trial in three.results.trials])
    )
    for key, value in weights(one.model).items():
        assert torch.equal(value, weights(three.model)[key])


def test_an_interrupted_training_goes_on_and_gives_the_same(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = primary.run("whole")
    save = TrainingFile.save

    def interrupted(file: TrainingFile, state: Any) -> None:
        save(file, state)
        if len(state["epochs"]) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFile, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            primary.run("parts")
    assert not (primary.folder / "parts/base").exists()
    parts, recorder = primary.run("parts")
    assert recorder.said("goes on after epoch 2 of 3")
    assert not recorder.said("epoch 2 of 3: validation")

    def timeless(done: Pretrained) -> dict[str, Any]:
        found = done.results.model_dump()
        for part in (*found["trials"], *found["trials"][0]["epochs"]):
            del part["wall_s"]
        return found

    assert timeless(parts) == timeless(whole)
    assert all(torch.equal(value, weights(parts.model)[key]) for key, value in weights(whole.model).items())
    times = [epoch.wall_s for epoch in parts.results.trials[0].epochs]
    assert times == sorted(times)
    assert parts.results.trials[0].wall_s > times[-1] * 0.99


def test_what_is_finished_is_not_done_again_unless_its_model_is_gone(primary: Primary) -> None:
    first, _ = primary.run()
    again, recorder = primary.run()
    assert again == first
    assert recorder.said("finished already")
    shutil.rmtree(first.model)
    third, recorder = primary.run()
    assert not recorder.said("finished already")
    assert third.results.metrics == first.results.metrics
    assert (third.model / "model.json").is_file()


def test_another_configuration_needs_force(primary: Primary) -> None:
    primary.run()
    with pytest.raises(FacetaskError, match=r"another configuration; different: finetune\.epochs"):
        primary.run(finetune={"epochs": 2})
    values = primary.values(finetune={"epochs": 2})
    done = pretrain(values, primary.folder / "a", force=True, plugins=primary.toy.plugins)
    assert len(done.results.trials[0].epochs) == 3


def test_distillation_holds_the_network_to_what_it_was(primary: Primary) -> None:
    losses = []
    for weight in (0.0, 1.0, 1e4):
        done, _ = primary.run(
            f"weight {weight}", TINT, finetune={"epochs": 1, "learning_rate": 0.03, "distill": weight}
        )
        losses.append(done.results.trials[0].epochs[1].train_loss or 0)
    assert losses[0] < losses[1] < losses[2]


def test_distillation_from_the_weights_that_a_fresh_network_does_not_have(primary: Primary) -> None:
    settings = {"epochs": 6, "start": "scratch", "learning_rate": 0.03}
    plain, _ = primary.run("plain", finetune=settings)
    taught, _ = primary.run("taught", finetune={**settings, "distill": 10.0})
    first, last = (taught.results.trials[0].epochs[i].train_loss or 0 for i in (1, 6))
    assert last < 0.9 * first
    assert first > (plain.results.trials[0].epochs[1].train_loss or 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune": False}, "finetune: false trains nothing"),
        ({"finetune": {"trains": "head"}}, "finetune.trains: head leaves the base network as it was"),
        ({"prune": {"cut": {"within": 0.1}}}, "prune.cut: within counts from the best tap's error"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    primary: Primary, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        primary.run(**changes)
    assert not (primary.folder / "a").exists()


def test_more_than_one_task_is_refused(primary: Primary) -> None:
    tasks = primary.toy.values["satellite_tasks"]
    with pytest.raises(ConfigError, match="trained for one primary task, found 5; leave one"):
        primary.run(satellite_tasks=tasks)


def test_a_tap_that_does_not_exist_is_told(primary: Primary) -> None:
    with pytest.raises(FacetaskError, match=r"no tap '2\.convv' in this network; did you mean '2\.conv'"):
        primary.run(prune={"cut": "2.convv"})


def test_the_command(primary: Primary) -> None:
    path = primary.folder / "primary.yaml"
    path.write_text(yaml.safe_dump(primary.values()))
    out = primary.folder / "out"
    arguments = ["pretrain", str(path), "--out", str(out), "-o", "finetune.epochs=1"]
    found = CliRunner().invoke(app, [*arguments, "--plugins-dir", str(primary.toy.plugins_dir)])
    assert found.exit_code == 0, found.output
    assert f"{out / 'base'}: a base network" in found.stdout
    assert (out / "base/model.json").is_file()


def test_the_example_of_drawn_faces(tmp_path: Path) -> None:
    pytest.importorskip("face_recognition_models")
    done = pretrain(ROOT / "examples/paper/pretrain_smoke.yaml", tmp_path / "smoke")
    assert len(done.results.trials[0].epochs) == 3
    assert (done.model / "model.safetensors").stat().st_size > 100_000
