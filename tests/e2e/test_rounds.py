"""`prune: {rounds: n}`: the network is finetuned before it is pruned, as often as is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from toy_runs import Recorder, Toy

from facetask import ConfigError, RunResult, load_model
from facetask.config import config_from_dict
from facetask.experiments.config import load_experiment
from facetask.experiments.pretrain import pretrain
from facetask.experiments.pruning_table.config import PruningTableConfig
from facetask.experiments.pruning_table.run import run_pruning_table
from facetask.networks.cost import count_macs
from facetask.testing import tiny_network
from facetask.training.objective import Objective
from facetask.training.training_file import TrainingFile

Run = tuple[RunResult, Recorder]
CUT, BUDGET = "3", 0.4


def settings(toy: Toy, rounds: int = 2, **changes: Any) -> dict[str, Any]:
    """A run of one task, pruned in rounds."""
    prune = {"cut": CUT, "below_cut": "need", "macs": BUDGET, "rounds": rounds, **changes.pop("prune", {})}
    tasks = toy.values["satellite_tasks"][:1]
    return toy.config(**{"satellite_tasks": tasks, "finetune": {"epochs": 2}, "trials": 1, **changes}, prune=prune)


def stage(folder: Path, name: str, task: str = "brightness") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"stages/{task}/trial-0/{name}.json").read_text())["result"]
    return found


@pytest.fixture(scope="module", autouse=True)
def training_counts() -> Iterator[None]:
    """On toy faces no training improves on a regression; so that it counts, the worst epoch is taken for the best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "judged", lambda self, rmse: -float(np.mean(rmse)))
        yield


@pytest.fixture(scope="module")
def in_rounds(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return toy.run(tmp_path_factory.mktemp("rounds") / "run", settings(toy))


def test_one_round_is_what_pretraining_and_a_run_on_its_network_give(toy: Toy, tmp_path: Path) -> None:
    one, _ = toy.run(tmp_path / "one", settings(toy, rounds=1))
    base = settings(toy, rounds=0, prune={"below_cut": "label", "macs": None})
    trained = pretrain(base, tmp_path / "base", plugins=toy.plugins)
    (task,) = one.results.tasks
    assert task.prune is not None
    cut_macs = load_model(trained.model, toy.plugins)
    share = BUDGET * task.prune.base.macs / _macs(cut_macs.network.backbone)
    again = settings(toy, rounds=0, prune={"macs": share}, base_network={"model": str(trained.model)})
    toy.run(tmp_path / "again", again)
    found, expected = stage(tmp_path / "one", "prune"), stage(tmp_path / "again", "prune")
    assert found["keep"] == expected["keep"]
    assert any(len(kept) < found["full"][tap] for tap, kept in found["keep"].items())
    for key, value in expected["metrics_pruned"].items():
        assert found["metrics_pruned"][key] == pytest.approx(value, rel=1e-4), key


def _macs(backbone: torch.nn.Module) -> int:
    found = count_macs(backbone, (3, 32, 32))
    assert found is not None
    return found


def test_the_budget_is_kept_to_and_the_results_say_how(in_rounds: Run) -> None:
    result, recorder = in_rounds
    (task,) = result.results.tasks
    assert task.prune is not None
    assert task.prune.rounds == 2
    assert task.prune.macs <= BUDGET * task.prune.base.macs * 1.01
    assert recorder.said("round 1 of 2")
    assert recorder.said("round 2 of 2")
    assert "MACs. That was reached in 2 rounds" in (result.path / "report.html").read_text(encoding="utf-8")


def test_a_budget_that_what_must_stay_exceeds_is_told(toy: Toy, tmp_path: Path) -> None:
    changes = {"finetune": False, "prune": {"macs": 0.9, "size": 0.001, "knee": {"filters": 4}}}
    _, recorder = toy.run(tmp_path / "run", settings(toy, rounds=0, **changes))
    (warning,) = (text for text in recorder.warnings if text.startswith("prune"))
    assert warning.startswith("prune brightness: in 1 of 1 trials the network takes ")
    assert "more than prune.size allows" in warning
    assert "Over its budget:" in (tmp_path / "run/report.html").read_text()


def test_training_came_before_pruning(in_rounds: Run, toy: Toy, tmp_path: Path) -> None:
    toy.run(tmp_path / "run", settings(toy, rounds=0), until="prune")
    at_once, rounds = (stage(path, "prune") for path in (tmp_path / "run", in_rounds[0].path))
    assert rounds["metrics_unpruned"] == at_once["metrics_unpruned"]
    assert rounds["cost_base"] == at_once["cost_base"]
    first = tiny_network(seed=0).state_dict()["0.weight"]  # whose inputs are the image's: none is reconstructed
    for path, pruned, trained in ((tmp_path / "run", at_once, False), (in_rounds[0].path, rounds, True)):
        if trained:
            file = path / "stages/brightness/trial-0/prune.network.training.pt"
            state = torch.load(file, weights_only=True)["network"]
        else:
            state = load_file(path / "model/brightness/model.safetensors")
        assert torch.allclose(state["backbone.0.weight"], first[pruned["keep"]["0"]], atol=1e-6) == (not trained)


def test_the_saved_model_predicts_what_the_run_measured(in_rounds: Run, toy: Toy) -> None:
    result = in_rounds[0]
    table = pq.read_table(result.path / "labels/brightness.parquet").to_pydict()
    test = [i for i, part in enumerate(table["split"]) if part == "test"]
    model = load_model(result.models["brightness"], toy.plugins)
    by_name = {path.name: path for path in toy.images}
    paths = [by_name[Path(table["image"][i]).name] for i in test]
    predicted = np.array([row["value"] for row in model.predict(paths)], dtype=float)
    truth = np.array([table["value"][i] for i in test], dtype=float)
    rmse = result.results.tasks[0].trials[0].finetune
    assert rmse is not None
    assert float(np.sqrt(np.mean((predicted - truth) ** 2))) == pytest.approx(rmse["rmse"], rel=1e-4)


def test_an_interrupted_run_goes_on_wherever_it_stopped(
    in_rounds: Run, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, stops = TrainingFile.save, 0

    def interrupted(file: TrainingFile, state: Any) -> None:
        save(file, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFile, "save", interrupted)
        for _ in range(10):
            try:
                toy.run(tmp_path / "run", settings(toy))
                break
            except KeyboardInterrupt:
                stops += 1
    # Two epochs in each of two rounds and in the end, and once the network that the rounds leave. Whoever is stopped
    # there, before the stage's result is stored, prunes again, but does not train again.
    assert stops >= 6
    toy.run(tmp_path / "run", settings(toy))
    for name in ("prune", "finetune"):
        assert stage(tmp_path / "run", name) == stage(in_rounds[0].path, name)
    one, other = (
        load_file(path / "model/brightness/model.safetensors") for path in (tmp_path / "run", in_rounds[0].path)
    )
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert [path.name for path in (tmp_path / "run").rglob("*.training.pt")] == ["prune.network.training.pt"]


def test_a_finished_prune_stage_is_not_trained_again(in_rounds: Run, toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(in_rounds[0].path, tmp_path / "run")
    for path in folder.rglob("finetune.json"):
        path.unlink()
    (folder / "results.json").unlink()
    _, recorder = toy.run(folder, settings(toy))
    assert not recorder.said("round 1 of 2")
    assert stage(folder, "finetune") == stage(in_rounds[0].path, "finetune")


def test_it_prunes_again_where_the_trained_network_is_gone(in_rounds: Run, toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(in_rounds[0].path, tmp_path / "run")
    (folder / "stages/brightness/trial-0/prune.network.training.pt").unlink()
    (folder / "results.json").unlink()
    _, recorder = toy.run(folder, settings(toy))
    assert recorder.said("round 1 of 2")
    assert stage(folder, "prune") == stage(in_rounds[0].path, "prune")


def test_tasks_that_share_a_network_are_trained_together_in_every_round(toy: Toy, tmp_path: Path) -> None:
    tasks = toy.values["satellite_tasks"][:2]
    shared = settings(toy, rounds=1, satellite_tasks=tasks, prune={"share": True, "cut": "best", "macs": 0.5})
    result, recorder = toy.run(tmp_path / "run", shared)
    assert recorder.said("brightness, tint", "round 1 of 1")
    assert stage(tmp_path / "run", "prune")["keep"] == stage(tmp_path / "run", "prune", "tint")["keep"]
    model = load_model(result.models["tint"], toy.plugins)
    assert [task.name for task in model.tasks] == ["brightness", "tint"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prune": {"below_cut": "label", "macs": None}}, ("rounds", "below_cut: need")),
        ({"finetune": False}, ("prune.rounds", "false")),
        ({"finetune": {"start": "scratch"}}, ("finetune.start: pruned",)),
        ({"finetune": {"trains": "head"}}, ("finetune.trains: all",)),
        ({"finetune": {"distill": 1.0}}, ("distill", "leave one out")),
        ({"prune": {"knee": "one-standard-error"}, "trials": 2}, ("one-standard-error", "threshold")),
        ({"prune": {"stable": 0.5}, "trials": 2}, ("curve.bootstrap",)),
        ({"prune": {"rounds": -1}}, ("rounds", "-1")),
    ],
)
def test_what_makes_no_sense_is_refused(
    changes: dict[str, Any], words: tuple[str, ...], toy: Toy, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(settings(toy, **changes), base=tmp_path, plugins=toy.plugins)
    for word in words:
        assert word in str(caught.value)


def test_the_pruning_table_has_rounds_of_its_own(toy: Toy, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(json.dumps({"run": settings(toy)}))
    table = load_experiment(path, PruningTableConfig)
    with pytest.raises(ConfigError, match="leave it out of the run"):
        run_pruning_table(table, tmp_path / "out", plugins=toy.plugins)
