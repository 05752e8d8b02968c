"""`prune: {share: true}`: one network with a head for each task, from the run to its saved model's use."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from toy_runs import ROOT, Recorder, Toy
from typer.testing import CliRunner

from facetask import CheckpointError, ConfigError, RunResult, cli, load_model, run
from facetask.config import config_from_dict, load_config
from facetask.experiments.compare import compare_runs
from facetask.experiments.config import load_experiment
from facetask.experiments.pruning_table.config import PruningTableConfig
from facetask.experiments.pruning_table.run import run_pruning_table
from facetask.experiments.together import together_table
from facetask.experiments.transfer.config import TransferConfig
from facetask.experiments.transfer.run import transfer
from facetask.models.checkpoint import load_base
from facetask.models.export import export_model
from facetask.models.predictions import print_predictions
from facetask.networks.cost import model_cost, network_cost
from facetask.progress import Silent
from facetask.running.prepare import prepare
from facetask.stages.finetune import Finetuned
from facetask.tasks.satellite import seed_of_trial
from facetask.training.training_file import TrainingFile

Run = tuple[RunResult, Recorder]
TASKS = ("brightness", "tint", "level", "marks")


def settings(toy: Toy, **changes: Any) -> dict[str, Any]:
    """A run of four tasks, of which nothing is known of some images."""
    tasks = [task for task in toy.values["satellite_tasks"] if task.get("label") != "bins"]
    prune = {"share": True, "cut": "best", **changes.pop("prune", {})}
    return toy.config(satellite_tasks=tasks, prune=prune, **{"finetune": {"epochs": 2}, **changes})


@pytest.fixture(scope="module")
def shared(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return toy.run(tmp_path_factory.mktemp("shared") / "run", settings(toy))


@pytest.fixture(scope="module")
def separate(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return toy.run(tmp_path_factory.mktemp("separate") / "run", settings(toy, prune={"share": False}))


@pytest.fixture(scope="module")
def model(shared: Run) -> Path:
    return shared[0].models["tint"]


def stage(folder: Path, task: str, name: str, trial: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"stages/{task}/trial-{trial}/{name}.json").read_text())["result"]
    return found


def stages(folder: Path) -> dict[str, Any]:
    """Every stored result."""
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())["result"] for path in sorted(folder.rglob("*.json"))
    }


def test_all_tasks_share_one_saved_network_and_the_results_say_so(shared: Run, toy: Toy, model: Path) -> None:
    result, recorder = shared
    assert set(result.models.values()) == {result.path / "model/shared"} == {model}
    assert sorted(path.name for path in (result.path / "model").iterdir()) == ["shared"]
    network = load_model(model, toy.plugins).network
    assert {task.name for task in result.results.tasks} == set(TASKS)
    for task in result.results.tasks:
        assert task.prune is not None
        assert task.prune.shared == list(TASKS)
        assert task.model == "model/shared"
        assert task.prune.pruned == network_cost(network, (3, 32, 32))
        assert task.prune.cut == task.regress.best_tap
    assert len({task.prune.cut for task in result.results.tasks if task.prune}) > 1
    assert recorder.said("one network for brightness, tint, level, marks")


def test_separate_networks_share_nothing(separate: Run) -> None:
    result = separate[0]
    assert {task.prune.shared == [] for task in result.results.tasks if task.prune} == {True}
    assert {path.name for path in result.models.values()} == set(TASKS)


def test_it_keeps_what_any_task_alone_would_keep(shared: Run, separate: Run) -> None:
    for trial in (0, 1):
        alone = [stage(separate[0].path, task, "prune", trial)["keep"] for task in TASKS]
        together = [stage(shared[0].path, task, "prune", trial)["keep"] for task in TASKS]
        assert all(keep == together[0] for keep in together)
        tied = [{"0", "2.conv"}, {"3"}]  # the residual addition's taps have the same components
        for tap, kept in together[0].items():
            (group,) = [taps for taps in tied if tap in taps]
            assert kept == sorted({index for keep in alone for own in group for index in keep.get(own, [])}), tap


def test_regressions_and_curves_are_those_of_separate_networks(shared: Run, separate: Run) -> None:
    for task in TASKS:
        for name in ("regress", "curve"):
            assert stage(shared[0].path, task, name) == stage(separate[0].path, task, name)
        own, other = (stage(each[0].path, task, "prune") for each in (shared, separate))
        assert own["cut"] == other["cut"]
        assert own["metrics_unpruned"] == other["metrics_unpruned"]


def test_a_head_reads_its_own_cut_only_and_all_that_is_kept_there(shared: Run, toy: Toy, model: Path) -> None:
    described = load_model(model, toy.plugins)
    keep = described.description.rounds[-1].keep
    state = load_file(model / "model.safetensors")
    for index, head in enumerate(described.description.heads):
        assert head.task.name == TASKS[index]
        assert head.cut == stage(shared[0].path, head.task.name, "prune")["cut"]
        assert state[f"heads.{index}.weight"].shape == (head.n_outputs, len(keep[head.cut]))


def test_the_saved_network_predicts_what_the_run_measured(shared: Run, toy: Toy, model: Path) -> None:
    loaded = load_model(model, toy.plugins)
    for index, task in enumerate(TASKS):
        table = pq.read_table(shared[0].path / f"labels/{task}.parquet").to_pylist()
        tested = [row["image"] for row in table if row["split"] == "test"]
        root = Path(toy.values["data"]["params"]["root"])
        paths = [next(root.rglob(Path(name).name)) for name in tested]
        stored = Finetuned.from_json(stage(shared[0].path, task, "finetune"))
        expected = stored.predicted.predictions(len(tested))
        pixels = torch.from_numpy(np.stack([loaded.preprocessing.load(path) for path in paths]))
        with torch.inference_mode():
            outputs = loaded.network.read(loaded.network.backbone(loaded.preprocessing.normalise(pixels)))[index]
        found = loaded.tasks[index].behaviour().activate(outputs.double().numpy())
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        saved = loaded.description.heads[index]
        assert saved.decision == stored.decision
        assert saved.metrics == pytest.approx({k: v for k, v in stored.metrics.items() if np.isfinite(v)}, nan_ok=True)


@pytest.mark.parametrize("split", [{}, {"stratify_by": "level"}, {"group_by": "person", "fractions": [0.4, 0.3, 0.3]}])
def test_no_image_trains_one_task_and_tests_another(toy: Toy, split: dict[str, Any]) -> None:
    config = config_from_dict(settings(toy, split=split), base=Path(), plugins=toy.plugins)
    materials = prepare(config, toy.plugins, Silent())
    labelled = [task.labelled for task in materials.tasks]
    assert any((one != other).any() for one, other in permutations(labelled, 2))
    for trial in range(3):
        splits = [task.split(seed_of_trial(0, trial)) for task in materials.tasks]
        for one, other in permutations(splits, 2):
            assert not np.intersect1d(one.train, np.concatenate([other.validation, other.test])).size
            assert not np.intersect1d(one.validation, other.test).size


# Going on


def test_a_run_that_lost_a_task_s_result_gives_the_same_again(shared: Run, toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(shared[0].path, tmp_path / "run")
    before = stages(folder / "stages")
    (folder / "stages/tint/trial-1/finetune.json").unlink()
    (folder / "stages/level/trial-0/prune.json").unlink()
    shutil.rmtree(folder / "model")
    (folder / "results.json").unlink()
    toy.run(folder, settings(toy))
    assert stages(folder / "stages") == before
    one, other = (load_file(path / "model/shared/model.safetensors") for path in (folder, shared[0].path))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_an_interrupted_training_goes_on(
    shared: Run, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = TrainingFile.save

    def interrupted(file: TrainingFile, state: Any) -> None:
        save(file, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFile, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            toy.run(tmp_path / "run", settings(toy))
    assert (tmp_path / "run/stages/brightness/trial-0/finetune.training.pt").is_file()
    _, recorder = toy.run(tmp_path / "run", settings(toy))
    assert recorder.said("training of brightness, tint, level, marks goes on after epoch 1 of 2")
    assert stages(tmp_path / "run/stages") == stages(shared[0].path / "stages")
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_another_task_beside_it_changes_the_network_of_all(shared: Run, toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(shared[0].path, tmp_path / "run")
    fewer = settings(toy)
    fewer["satellite_tasks"] = fewer["satellite_tasks"][:3]
    _, recorder = toy.run(folder, fewer, force=True)
    assert recorder.said("prune tint, trial 0: computed again, changed:", "tasks that share the network")
    assert not recorder.said("regress tint", "computed again")
    assert [head["task"]["name"] for head in described(folder / "model/shared")["heads"]] == list(TASKS[:3])


def test_a_model_of_an_older_format_is_saved_anew(shared: Run, toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(shared[0].path, tmp_path / "run")
    path = folder / "model/shared/model.json"
    path.write_text(json.dumps({**described(path.parent), "format_version": 2}))
    with pytest.raises(CheckpointError, match="format version 2, this facetask reads 3; run it again"):
        load_model(path.parent, toy.plugins)
    toy.run(folder, settings(toy))
    assert described(path.parent) == described(shared[0].path / "model/shared")


def described(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model / "model.json").read_text())
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"prune": {"below_cut": "need", "macs": 0.6, "knee": {"filters": 1}}},
        {"prune": {"cut": "2.conv", "reconstruct": 0, "couple": "union"}},
        {"finetune": {"epochs": 1, "start": "scratch"}},
        {"finetune": False, "selector": {"name": "head2toe"}},
        {"prune": {"stable": 0.5}, "finetune": {"epochs": 1, "distill": 0.5, "trains": "all"}},
    ],
)
def test_other_ways_to_prune_and_train(toy: Toy, tmp_path: Path, changes: dict[str, Any]) -> None:
    result, _ = toy.run(tmp_path / "run", settings(toy, **changes))
    loaded = load_model(result.models["tint"], toy.plugins)
    (found,) = loaded.predict(toy.images[:1])
    assert tuple(found["tasks"]) == TASKS
    for task in result.results.tasks:
        assert task.prune is not None
        measured = task.prune.metrics_pruned["rmse"].mean
        assert measured is not None
        if changes.get("prune", {}).get("below_cut") == "need":
            keep = loaded.description.rounds[-1].keep
            heads = sum(head.n_outputs * len(keep[head.cut]) for head in loaded.description.heads)
            assert task.prune.macs - heads <= 0.6 * task.prune.base.macs
            assert task.prune.budget == 0.6
        assert task.prune.params == sum(p.numel() for p in loaded.network.parameters())


def test_a_shared_network_can_be_pruned_further(toy: Toy, model: Path, tmp_path: Path) -> None:
    base, saved = load_base(model, toy.plugins), load_model(model, toy.plugins)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(base.module(x), saved.network.backbone(x))
    further = settings(toy, base_network={"model": str(model)}, prune={"knee": {"filters": 1}}, trials=1)
    result, _ = toy.run(tmp_path / "run", further)
    rounds = load_model(result.models["tint"], toy.plugins).description.rounds
    assert len(rounds) == 2
    assert len(rounds[0].cuts) > 1
    task = result.results.tasks[0]
    assert task.prune is not None
    assert task.prune.base.params == sum(p.numel() for p in saved.network.backbone.parameters())
    assert task.prune.params < task.prune.base.params


# Use


def test_predictions_in_every_form(toy: Toy, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = toy.images[:3]
    print_predictions(model, paths, "json", toy.plugins)
    rows = json.loads(capsys.readouterr().out)
    expected = list(load_model(model, toy.plugins).predict(paths, batch_size=1))
    assert [row["tasks"] for row in rows] == [json.loads(json.dumps(row["tasks"])) for row in expected]
    print_predictions(model, paths, "csv", toy.plugins)
    cells = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    print_predictions(model, paths, "text", toy.plugins)
    lines = capsys.readouterr().out.splitlines()
    for row, cell, line in zip(rows, cells, lines, strict=True):
        one = row["tasks"]
        assert list(cell)[:5] == ["image", "brightness.value", "brightness.unit", "tint.value", "tint.score"]
        assert cell["brightness.value"] == str(one["brightness"]["value"])
        assert cell["marks.score[warm]"] == str(one["marks"]["score"]["warm"])
        assert line.startswith(f"{row['image']}: brightness: {one['brightness']['value']:.4g} grey levels; tint: ")
        assert f"level: {one['level']['value']} ({one['level']['score']:.2f})" in line


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_an_exported_file_has_an_output_for_each_task(toy: Toy, model: Path, tmp_path: Path, form: str) -> None:
    done = export_model(model, form, tmp_path / f"m.{form}", toy.plugins)
    assert done.difference <= 1e-5
    loaded = load_model(model, toy.plugins)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = loaded.network.read(loaded.network.backbone(x))
    if form == "onnx":
        session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
        assert [output.name for output in session.get_outputs()] == list(TASKS)
        found = session.run(list(TASKS), {"images": x.numpy()})
        notes = session.get_modelmeta().custom_metadata_map
    else:
        extra = {"facetask.tasks": ""}
        outputs = torch.export.load(done.path, extra_files=extra).module()(x)
        assert isinstance(outputs, tuple)
        found, notes = [output.detach().numpy() for output in outputs], extra
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, wanted.numpy(), rtol=1e-3, atol=1e-4)
    tasks = json.loads(notes["facetask.tasks"])
    assert [task["name"] for task in tasks] == list(TASKS)
    assert [task["decision"] for task in tasks] == [head.decision for head in loaded.description.heads]
    assert tasks[1]["labels_licence"] == loaded.description.heads[1].labels_licence


def test_its_cost_is_that_of_the_whole(toy: Toy, shared: Run, model: Path) -> None:
    found = model_cost(model, batches=[1], seconds=0.01, plugins=toy.plugins)
    assert found.task == ", ".join(TASKS)
    assert found.pruned == shared[0].results.tasks[0].prune.pruned  # type: ignore[union-attr]
    assert found.lines()[0] == "brightness, tint, level, marks, carved out of tiny"


def test_the_report_tells_a_reader_whose_network_it_is(shared: Run, separate: Run) -> None:
    texts = [re.sub(r"\s+", " ", (each[0].path / "report.html").read_text()) for each in (shared, separate)]
    for words in (
        "One network serves all these tasks, with a head each: its size and MACs count once.",
        "in one network for brightness, tint, level and marks",
        "its sizes and MACs are those of the whole with all heads, and count once",
        "trained further for brightness, tint, level and marks together",
    ):
        assert [words in text for text in texts] == [True, False], words


def test_compared_with_separate_networks(shared: Run, separate: Run, tmp_path: Path) -> None:
    found = compare_runs([separate[0].path, shared[0].path])
    assert found.together is not None
    apart, one = found.together.runs
    costs = [task.prune.pruned for task in separate[0].results.tasks if task.prune]
    assert found.together.tasks == list(TASKS)
    assert (apart.n_networks, one.n_networks) == (4, 1)
    for field, value in apart.cost.model_dump().items():
        assert value == sum(getattr(cost, field) for cost in costs)
    assert one.cost == shared[0].results.tasks[0].prune.pruned  # type: ignore[union-attr]
    assert all(not run.not_comparable for task in found.tasks for run in task.runs)
    assert [row[1] for row in together_table(found.together).rows] == ["4", "1"]
    command = ["compare", str(separate[0].path), str(shared[0].path), "--out", str(tmp_path / "page.html")]
    printed = CliRunner().invoke(cli.app, command).output
    assert "The networks for brightness, tint, level and marks together" in printed.replace("\n", " ")
    assert "for 4 tasks" in printed
    assert "All tasks together" in (tmp_path / "page.html").read_text()


# What is refused


def test_one_task_cannot_share(toy: Toy) -> None:
    one = "satellite_tasks=[{name: column, params: {column: tint, kind: binary}}]"
    with pytest.raises(ConfigError, match=r"prune\.share: one task has nobody to share a network with"):
        load_config(toy.config_path, ["prune={share: true}", one], plugins=toy.plugins)


@pytest.mark.parametrize(
    ("split", "named"),
    [
        ({"group_by": None}, "group_by"),
        ({"stratify_by": "level"}, "stratify_by"),
        ({"fractions": [0.6, 0.2, 0.2], "stratify_by": "level"}, "fractions, stratify_by"),
    ],
)
def test_tasks_that_are_split_otherwise_cannot_share(toy: Toy, split: dict[str, Any], named: str) -> None:
    values = settings(toy, split={"group_by": "person"})
    values["satellite_tasks"] = [*values["satellite_tasks"][:1], {**values["satellite_tasks"][1], "split": split}]
    match = rf"satellite_tasks\.1\.split: prune\.share trains one network for all tasks.* leave {named} out here"
    with pytest.raises(ConfigError, match=match):
        config_from_dict(values, base=Path(), plugins=toy.plugins)
    values["prune"] = {}
    config_from_dict(values, base=Path(), plugins=toy.plugins)


def test_a_split_that_moves_no_image_may_differ(toy: Toy) -> None:
    values = settings(toy, split={"group_by": "person"})
    split = {"group_by": "person", "min_per_class": 2}
    values["satellite_tasks"] = [*values["satellite_tasks"][:2], {**values["satellite_tasks"][2], "split": split}]
    assert config_from_dict(values, base=Path(), plugins=toy.plugins).prune.share


def test_experiments_that_train_a_network_for_each_task_say_so(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump({"run": settings(toy)}))
    table = load_experiment(tmp_path / "experiment.yaml", PruningTableConfig)
    with pytest.raises(ConfigError, match=r"prune\.share: ablate takes a network for each task; leave share out"):
        run_pruning_table(table, tmp_path / "a", plugins=toy.plugins)
    methods = load_experiment(tmp_path / "experiment.yaml", TransferConfig, ["finetuning={epochs: 1}"])
    with pytest.raises(ConfigError, match=r"prune\.share: transfer takes a network for each task; leave share out"):
        transfer(methods, tmp_path / "b", plugins=toy.plugins)


# What ships


def test_the_example_on_drawn_faces_runs(tmp_path: Path) -> None:
    done = run(ROOT / "examples/paper/shared_smoke.yaml", tmp_path / "run")
    (found,) = load_model(done.models["yaw"]).predict([ROOT / "docs/images/rendered_faces.png"])
    assert found["tasks"]["glasses"]["value"] in ("yes", "no")
    assert found["tasks"]["yaw"]["unit"] == "degrees"
