from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from toy_runs import ROOT, Recorder, Toy
from typer.testing import CliRunner

from facetask import ConfigError, cli, load_model
from facetask.config import load_config
from facetask.errors import RunDirError, SurgeryError
from facetask.experiments.config import load_experiment
from facetask.experiments.pruning_table import measured, rivals
from facetask.experiments.pruning_table import run as experiment
from facetask.experiments.pruning_table.carved import Carver
from facetask.experiments.pruning_table.config import PruningTableConfig
from facetask.experiments.pruning_table.page import pruning_lines
from facetask.experiments.pruning_table.recalibrate import recalibrate
from facetask.experiments.pruning_table.results import PruningTableResults, read_pruning_table
from facetask.experiments.pruning_table.variants import RIVALS, VARIANTS
from facetask.keep_sets.budget import Budget
from facetask.networks.cost import network_cost
from facetask.networks.task_network import TaskNetwork
from facetask.running.outcomes import TaskRecord
from facetask.running.prepare import prepare, respond
from facetask.running.results import TaskResult
from facetask.running.stage_work import StageWork
from facetask.stages.rounds import carve_in_rounds

BRIGHTNESS, TINT, LEVEL = 0, 1, 3
HAS_RIVALS = rivals.installed_version() is not None
HERE = [name for name, variant in VARIANTS.items() if HAS_RIVALS or variant.source not in RIVALS]
needs_torch_pruning = pytest.mark.skipif(not HAS_RIVALS, reason="torch-pruning, a rival, is in the test extra")
PRUNE = {"cut": "3", "threshold": 0.3}
NEED = {**PRUNE, "below_cut": "need", "macs": 0.5}
TRAIN = {"epochs": 2, "learning_rate": 0.02}


def run_of(toy: Toy, task: int = BRIGHTNESS, **changes: Any) -> dict[str, Any]:
    """Return a run's configuration of one task, cut at the last tap."""
    tasks = [toy.values["satellite_tasks"][task]]
    return toy.config(**{"satellite_tasks": tasks, "prune": PRUNE, "finetune": TRAIN, **changes})


def make(
    toy: Toy, folder: Path, run: dict[str, Any] | None = None, reporter: Recorder | None = None, **changes: Any
) -> PruningTableResults:
    """Write a table's configuration and measure it into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.yaml").write_text(yaml.safe_dump({"run": run or run_of(toy), **changes}))
    config = load_experiment(folder / "table.yaml", PruningTableConfig)
    return experiment.run_pruning_table(config, folder / "out", plugins=toy.plugins, reporter=reporter)


@pytest.fixture(scope="module")
def whole(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[PruningTableResults, Path]:
    """A table of all variants at the label's own MACs, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return make(toy, folder), folder


def metrics_of(results: PruningTableResults) -> dict[str, list[dict[str, float | None]]]:
    """Return every variant's test metrics, trial by trial."""
    return {row.name: [trial.test for trial in row.trials] for row in results.tasks[0].variants}


# --- what the rows are


def test_every_row_stands_in_the_table_in_its_order(whole: tuple[PruningTableResults, Path]) -> None:
    (task,) = whole[0].tasks
    assert [row.name for row in task.variants] == HERE
    assert {trial.cut for row in task.variants for trial in row.trials} == {"3"}
    assert all(len(row.trials) == 2 and row.trials[0].seed != row.trials[1].seed for row in task.variants)
    trained = {row.name: {trial.epochs for trial in row.trials} for row in task.variants}
    assert all(
        found == {2}
        for name, found in trained.items()
        if name.endswith(("finetuned", "distilled", "scratch")) and not name.startswith("rounds")
    )
    assert trained["rounds-finetuned"] == {2 + 2 * whole[0].rounds}
    assert trained["need-refitted"] == {0}


@pytest.mark.parametrize(
    ("changes", "step", "name"),
    [
        ({}, "unpruned", "unpruned"),
        ({}, "pruned", "label-refitted"),
        ({}, "finetuned", "label-finetuned"),
        ({"prune": {**PRUNE, "reconstruct": 0}}, "pruned", "sliced-refitted"),
    ],
)
def test_rows_of_the_label_are_what_a_run_measures(
    whole: tuple[PruningTableResults, Path], toy: Toy, tmp_path: Path, changes: dict[str, Any], step: str, name: str
) -> None:
    task = toy.run(tmp_path / "run", run_of(toy, **changes))[0].results.tasks[0]
    check_against(task, step, whole[0], name)


@pytest.mark.parametrize(
    ("finetune", "step", "name"),
    [
        ({}, "pruned", "need-refitted"),
        ({}, "finetuned", "need-finetuned"),
        ({"distill": 1.0}, "finetuned", "need-distilled"),
        ({"start": "scratch"}, "finetuned", "need-scratch"),
    ],
)
def test_rows_of_need_are_what_a_run_measures(
    toy: Toy, tight: PruningTableResults, tmp_path: Path, finetune: dict[str, Any], step: str, name: str
) -> None:
    run = run_of(toy, prune=NEED, finetune={**TRAIN, **finetune}, trials=1)
    task = toy.run(tmp_path / "run", run)[0].results.tasks[0]
    check_against(task, step, tight, name)


@pytest.fixture(scope="module")
def tight(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> PruningTableResults:
    """A table of need, its budget just what a run's network costs, so that the table need not search."""
    folder = tmp_path_factory.mktemp("tight")
    found = toy.run(folder / "run", run_of(toy, prune=NEED, finetune=False, trials=1))[0].results.tasks[0].prune
    assert found is not None
    names = ["need-refitted", "need-finetuned", "need-distilled", "need-scratch"]
    return make(toy, folder, run_of(toy, trials=1), variants=names, macs=found.macs / found.base.macs)


def check_against(task: TaskResult, step: str, results: PruningTableResults, name: str) -> None:
    """Compare a row with a run's own result."""
    row = next(row for row in results.tasks[0].variants if row.name == name)
    assert task.prune is not None
    assert task.finetune is not None
    expected = {
        "unpruned": task.prune.metrics_unpruned,
        "pruned": task.prune.metrics_pruned,
        "finetuned": task.finetune.metrics,
    }[step]
    cost = task.prune.unpruned_at_cut if step == "unpruned" else task.prune.pruned
    assert row.trials[0].cost == cost
    for metric, value in expected.items():
        assert row.test[metric].mean == pytest.approx(value.mean, rel=1e-4)
        assert row.test[metric].std == pytest.approx(value.std, rel=1e-3, abs=1e-6)


@pytest.fixture(scope="module")
def at_half(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> PruningTableResults:
    """A table of the label and of need at half the base network's MACs."""
    run = run_of(toy, finetune=False, trials=1)
    return make(toy, tmp_path_factory.mktemp("half"), run, variants=["label-refitted", "need-refitted"], macs=0.5)


def test_a_head_that_is_only_sliced_is_the_unpruned_one_where_nothing_is_dropped(toy: Toy, tmp_path: Path) -> None:
    run = run_of(toy, prune={"cut": "3", "knee": {"fraction": 1.0}})
    names = ["unpruned", "sliced-head-sliced", "label-head-sliced", "label-refitted"]
    found = metrics_of(make(toy, tmp_path, run, variants=names))
    for name in names[1:]:
        for trial, expected in zip(found[name], found["unpruned"], strict=True):
            assert trial == pytest.approx(expected, rel=1e-3)


def test_a_head_that_is_only_sliced_reads_the_kept_filters_by_the_old_coefficients(
    whole: tuple[PruningTableResults, Path], toy: Toy
) -> None:
    rows = metrics_of(whole[0])
    for sliced, refitted in zip(rows["sliced-head-sliced"], rows["sliced-refitted"], strict=True):
        assert (sliced["rmse"] or 0) > 1.5 * (refitted["rmse"] or 0)


def test_training_finds_what_it_is_told_to(whole: tuple[PruningTableResults, Path]) -> None:
    rows = {row.name: row for row in whole[0].tasks[0].variants}
    for name, row in rows.items():
        if name.endswith("finetuned") and not name.startswith("rounds"):
            before = rows["unpruned" if row.source == "unpruned" else f"{row.source}-refitted"]
            for trained, untrained in zip(row.trials, before.trials, strict=True):
                assert (trained.validation["rmse"] or 0) <= (untrained.validation["rmse"] or 0) * 1.0001


# --- equal MACs


def test_without_a_budget_all_get_what_the_label_leaves(whole: tuple[PruningTableResults, Path]) -> None:
    for row in whole[0].tasks[0].variants:
        label = next(other for other in whole[0].tasks[0].variants if other.name == "label-refitted")
        if row.source == "unpruned":
            assert row.macs_off is None
            continue
        assert [trial.budget for trial in row.trials] == [trial.cost.macs for trial in label.trials]
        off = max(abs(trial.cost.macs / trial.budget - 1) for trial in row.trials)
        assert row.macs_off == pytest.approx(off)


def test_the_label_s_threshold_comes_as_near_to_the_budget_as_any(
    toy: Toy, at_half: PruningTableResults, tmp_path: Path
) -> None:
    (task,) = at_half.tasks
    row = next(row for row in task.variants if row.name == "label-refitted")
    assert "threshold" in row.trials[0].notes[0]
    assert row.trials[0].budget == round(0.5 * task.base.macs)
    reached = abs(row.trials[0].cost.macs - row.trials[0].budget)
    for index, threshold in enumerate([0.01, 0.1, 0.3, 0.6]):
        run = run_of(toy, prune={"cut": "3", "threshold": threshold, "reconstruct": 0}, finetune=False, trials=1)
        (found,) = toy.run(tmp_path / str(index), run)[0].results.tasks
        assert found.prune is not None
        assert reached <= abs(found.prune.macs - row.trials[0].budget) + 0.01 * row.trials[0].budget


def test_a_limit_of_size_holds_where_need_chooses(toy: Toy, at_half: PruningTableResults, tmp_path: Path) -> None:
    (free,) = (row for row in at_half.tasks[0].variants if row.name == "need-refitted")
    limit = 0.8 * free.size_share
    run = run_of(toy, prune={**NEED, "size": limit}, finetune=False, trials=1)
    found = make(toy, tmp_path, run, variants=["label-refitted", "need-refitted"])
    label, need = found.tasks[0].variants
    assert need.size_share <= limit < free.size_share
    assert label.macs == at_half.tasks[0].variants[0].macs  # the label knows no limit of size
    assert found.size == limit
    assert "where need chooses, to " in (tmp_path / "out/ablate.html").read_text(encoding="utf-8")


def test_a_budget_needs_a_rule_with_a_threshold(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the run's prune\.knee is 'elbow', which has no threshold"):
        make(toy, tmp_path, run_of(toy, prune={"cut": "3", "knee": "elbow"}), macs=0.5, variants=["label-refitted"])


# --- rounds


def test_one_round_prunes_the_finetuned_network(
    whole: tuple[PruningTableResults, Path], toy: Toy, tmp_path: Path
) -> None:
    once = make(toy, tmp_path, variants=["unpruned-finetuned", "rounds-finetuned"], rounds=1)
    rows = {row.name: row for row in once.tasks[0].variants}
    assert {trial.epochs for trial in rows["rounds-finetuned"].trials} == {4}
    assert metrics_of(once)["unpruned-finetuned"] == metrics_of(whole[0])["unpruned-finetuned"]
    assert metrics_of(once)["rounds-finetuned"] != metrics_of(whole[0])["rounds-finetuned"]
    assert rows["rounds-finetuned"].macs < rows["unpruned-finetuned"].macs


def test_rounds_prune_the_network_as_it_was_trained(toy: Toy, tmp_path: Path) -> None:
    carver = carver_of(toy, tmp_path)
    given: list[tuple[int, int]] = []

    def train(network: TaskNetwork, start: Any, keep: Any, done: int) -> None:
        given.append((done, sum(len(own) for own in keep.values())))
        with torch.no_grad():
            for parameter in network.backbone.parameters():
                parameter.mul_(1.5)

    left = carve_in_rounds(
        carver.base, carver.graph, [carver.at_cut], 2, Budget(0.4), None, carver.forward, carver.needed, train
    )
    first = carver.base.module.state_dict()["0.weight"]
    torch.testing.assert_close(left.graph.module().state_dict()["0.weight"], first[left.keep["0"]] * 1.5**2)
    everything = sum(tap.n_filters for tap in carver.graph.taps)
    assert [done for done, _ in given] == [1, 2]
    assert given[0][1] == everything > given[1][1] > sum(len(own) for own in left.keep.values())
    assert network_cost(left.graph.module(), carver.shape).macs <= 0.4 * carver.base_cost.macs * 1.01


def carver_of(toy: Toy, folder: Path) -> Carver:
    """Return what carves the networks of one trial of the toy run."""
    (folder / "table.yaml").write_text(yaml.safe_dump({"run": run_of(toy, trials=1), "macs": 0.5}))
    settings = load_experiment(folder / "table.yaml", PruningTableConfig)
    config = settings.run.config(toy.plugins)
    materials = prepare(config, toy.plugins, Recorder())
    work = StageWork(materials, respond(materials, Recorder()), config, 0, 0)
    record = TaskRecord(work.task, 1)
    for stage in ("regress", "curve"):
        record.trials[0].add(stage, work.compute(stage, record), 0.0)
    return Carver(work, record, settings)


def test_networks_of_one_budget_share_nothing(toy: Toy, tmp_path: Path) -> None:
    carver = carver_of(toy, tmp_path)
    unpruned, before = carver.carved("unpruned"), carver.base.module.state_dict()["0.weight"].clone()
    with torch.no_grad():
        for parameter in unpruned.network.parameters():
            parameter.zero_()
    assert torch.equal(carver.base.module.state_dict()["0.weight"], before)


def test_gradients_are_those_of_the_loss(toy: Toy, tmp_path: Path) -> None:
    carver = carver_of(toy, tmp_path)
    network, work = carver.carved("unpruned").copy(), carver.work
    rows = work.split.train[:20]
    rivals.TaskGradients(work.task, work.split, "mse", work.materials.loader, rows).compute(network)
    found = network.heads[0].bias.grad
    assert found is not None
    spread = work.task.targets[work.split.train].std()
    outputs = work.materials.loader.all_outputs(network, rows)
    expected = 2 * ((outputs - work.task.targets[rows]) / spread**2).mean()
    assert found.item() == pytest.approx(expected, rel=1e-3)


# --- resuming


def test_what_is_finished_is_not_measured_again(
    whole: tuple[PruningTableResults, Path], toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured.Measurer, "_measure", lambda *arguments: pytest.fail("measured again"))
    assert make(toy, whole[1]) == whole[0]


def test_an_interrupted_table_goes_on_to_the_same_result(
    whole: tuple[PruningTableResults, Path], toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["need-finetuned", "rounds-finetuned", "rounds-distilled"]
    trained: Callable[..., Any] = measured.finetune
    for most in (2, 1, 1):  # trainings until the next interruption: in the midst of rounds, too
        left = [most]

        def interrupted(*arguments: Any, left: list[int] = left, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return trained(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(measured, "finetune", interrupted)
            with pytest.raises(KeyboardInterrupt):
                make(toy, tmp_path, variants=names)
    found, expected = metrics_of(make(toy, tmp_path, variants=names)), metrics_of(whole[0])
    for name in names:
        for trial, other in zip(found[name], expected[name], strict=True):
            assert trial == pytest.approx(other, rel=1e-6)
    left_over = {path.name for path in (tmp_path / "out").rglob("*.pt")}
    assert left_over == {"unpruned-finetuned.network.training.pt"}


def test_another_run_s_folder_is_refused(whole: tuple[PruningTableResults, Path], toy: Toy) -> None:
    with pytest.raises(RunDirError, match="another configuration; different: trials"):
        make(toy, whole[1], run_of(toy, trials=1))


# --- rivals


@needs_torch_pruning
@pytest.mark.parametrize("share", [0.7, 0.4])
def test_a_rival_comes_near_its_budget(toy: Toy, tmp_path: Path, share: float) -> None:
    network, shape = task_network(toy, tmp_path), (3, 32, 32)
    before = network_cost(network, shape).macs
    smaller = rivals.prune_by_rival(network, "magnitude", share * before, shape, NO_GRADIENTS)
    found = network_cost(smaller, shape).macs
    assert found == pytest.approx(share * before, rel=0.15)  # so few filters allow no better
    assert network_cost(network, shape).macs == before
    assert smaller(torch.zeros(2, *shape)).shape == network(torch.zeros(2, *shape)).shape


@needs_torch_pruning
def test_what_a_rival_cannot_do_is_told(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(SurgeryError, match=r"Torch-Pruning cannot make it so small: .* wanted were 10"):
        rivals.prune_by_rival(task_network(toy, tmp_path), "magnitude", 10, (3, 32, 32), NO_GRADIENTS)


NO_GRADIENTS: Any = None
"""The magnitude criterion asks for none."""


def task_network(toy: Toy, folder: Path) -> TaskNetwork:
    """Return a toy network that nothing was pruned of, with its head."""
    run = run_of(toy, prune={"cut": "3", "knee": {"fraction": 1.0}}, finetune=False, trials=1)
    network = load_model(toy.run(folder / "model", run)[0].models["brightness"], toy.plugins).network
    assert isinstance(network, TaskNetwork)
    return network


def test_rivals_that_are_not_installed_are_left_out_and_named(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "installed_version", lambda: None)
    recorder = Recorder()
    names = ["unpruned", "magnitude-refitted", "taylor-refitted"]
    results = make(toy, tmp_path, reporter=recorder, variants=names)
    assert [row.name for row in results.tasks[0].variants] == ["unpruned"]
    assert results.torch_pruning is None
    reason = "torch-pruning is not installed; pip install torch-pruning"
    assert results.tasks[0].left_out == dict.fromkeys(names[1:], reason)
    assert recorder.warnings == [f"magnitude-refitted, taylor-refitted: left out, {reason}"]
    assert reason in (tmp_path / "out/ablate.html").read_text(encoding="utf-8")


@needs_torch_pruning
def test_a_rival_that_fails_stops_nothing(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> TaskNetwork:
        raise SurgeryError("it fails")

    monkeypatch.setattr("facetask.experiments.pruning_table.carved.prune_by_rival", fails)
    results = make(toy, tmp_path, variants=["magnitude-refitted", "need-refitted"])
    assert [row.name for row in results.tasks[0].variants] == ["need-refitted"]
    assert results.tasks[0].left_out == {"magnitude-refitted": "trial 0: it fails"}


# --- batch norm


def test_batch_norm_s_statistics_become_those_of_the_images() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))
    weights = {name: value.clone() for name, value in network.named_parameters()}
    images = 2 + 3 * torch.randn(40, 3, 9, 9)
    recalibrate(network, images)
    assert not network.training
    with torch.no_grad():
        given = network(images)  # one batch: exactly normalised
    torch.testing.assert_close(given.mean((0, 2, 3)), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(given.var((0, 2, 3)), torch.ones(5), atol=1e-2, rtol=0)
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    assert network[1].momentum == 0.1


def test_a_recalibrated_row_is_the_same_network_with_other_statistics(whole: tuple[PruningTableResults, Path]) -> None:
    rows = {row.name: row for row in whole[0].tasks[0].variants}
    refitted, recalibrated = rows["sliced-refitted"], rows["sliced-recalibrated"]
    assert recalibrated.label == "label, sliced: recalibrated"
    assert [trial.cost for trial in recalibrated.trials] == [trial.cost for trial in refitted.trials]
    assert recalibrated.test["rmse"].mean != pytest.approx(refitted.test["rmse"].mean, rel=1e-3)


# --- other kinds of tasks, files and the command


@pytest.mark.parametrize("task", [TINT, LEVEL])
def test_tasks_with_classes(toy: Toy, tmp_path: Path, task: int) -> None:
    names = ["unpruned", "sliced-head-sliced", "need-refitted", "taylor-refitted", "rounds-distilled"]
    names = [name for name in names if name in HERE]
    results = make(toy, tmp_path, run_of(toy, task, trials=1), variants=names)
    (found,) = results.tasks
    assert [row.name for row in found.variants] == names
    assert (found.main_metric, found.higher_is_better) == ("accuracy", True)
    assert all(0 <= (row.test["accuracy"].mean or 0) <= 1 for row in found.variants)


def test_without_finetuning_trained_rows_are_left_out(toy: Toy, tmp_path: Path) -> None:
    results = make(toy, tmp_path, run_of(toy, finetune=False, trials=1), variants=["need-refitted", "need-scratch"])
    assert [row.name for row in results.tasks[0].variants] == ["need-refitted"]
    assert results.tasks[0].left_out == {"need-scratch": "the run's configuration says finetune: false"}
    assert results.epochs == 0


def test_files(whole: tuple[PruningTableResults, Path]) -> None:
    results, folder = whole
    assert read_pruning_table(folder / "out/ablate.json") == results
    page = (folder / "out/ablate.html").read_text(encoding="utf-8")
    for row in results.tasks[0].variants:
        assert row.label in page
    assert (folder / "out/figures/brightness_variants.png").stat().st_size > 10_000
    lines = list(pruning_lines(results))
    assert any(line.startswith("  need: finetuned") for line in lines)
    (folder / "bad.json").write_text(json.dumps({"format_version": 9}))
    with pytest.raises(RunDirError, match="not a pruning table"):
        read_pruning_table(folder / "bad.json")


def test_the_best_row_is_one_that_keeps_to_the_budget(whole: tuple[PruningTableResults, Path]) -> None:
    (task,) = whole[0].tasks
    pruned = [row for row in task.variants if row.macs_off is not None and row.macs_off <= 0.02]
    best = min(pruned, key=lambda row: row.validation["rmse"].mean or 0)
    assert f"Best pruned network on validation: {best.label}, " in next(pruning_lines(whole[0]))


def test_speed_is_measured_where_it_is_asked_for(toy: Toy, tmp_path: Path) -> None:
    changes = {"variants": ["unpruned", "need-refitted"], "latency_s": 0.01}
    first, again = (make(toy, tmp_path, run_of(toy, trials=1), **changes) for _ in range(2))
    for row in first.tasks[0].variants:
        assert [speed.batch for speed in row.speed] == [1, 32]
        assert all(speed.speedup == pytest.approx(speed.base_ms / speed.network_ms) for speed in row.speed)
    assert again == first


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"variants": ["need-finetuend"]}, "unknown variant 'need-finetuend'; did you mean 'need-finetuned'"),
        ({"variants": []}, "variants: expected a list of at least 1"),
        ({"macs": 0}, "macs: expected"),
        ({"rounds": 0}, "rounds: expected"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(toy: Toy, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make(toy, tmp_path, **changes)


def test_the_command(toy: Toy, tmp_path: Path) -> None:
    values = {"run": run_of(toy, finetune=False, trials=1), "variants": ["unpruned", "label-refitted"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    arguments = ["ablate", str(tmp_path / "mine.yaml"), "--plugins-dir", str(toy.plugins_dir), "-o", "macs=0.5"]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "brightness: Best pruned network on validation: label: head refitted" in done.stdout
    assert read_pruning_table(tmp_path / "out/ablate.json").macs == 0.5


@pytest.mark.parametrize("name", ["yaw", "gender", "age", "emotion"])
def test_the_paper_s_tables_are_configurations(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACETASK_DATA", str(tmp_path))
    config = load_experiment(ROOT / f"examples/paper/pruning_{name}.yaml", PruningTableConfig)
    run = config.run.source if isinstance(config.run.source, Path) else dict(config.run.source)
    assert load_config(run).trials == 3 if isinstance(run, Path) else run["finetune"]["epochs"] == 6
    assert config.variants == tuple(VARIANTS)


def test_the_example_of_drawn_faces(tmp_path: Path) -> None:
    pytest.importorskip("face_recognition_models")
    config = load_experiment(ROOT / "examples/paper/pruning_smoke.yaml", PruningTableConfig)
    (task,) = experiment.run_pruning_table(config, tmp_path / "smoke").tasks
    recalibrated = [name for name in HERE if VARIANTS[name].step == "recalibrated"]
    assert [row.name for row in task.variants] == [name for name in HERE if name not in recalibrated]
    assert task.left_out == dict.fromkeys(recalibrated, "the network has no batch norm")
    assert all((row.macs_off or 0) < 0.02 for row in task.variants)
