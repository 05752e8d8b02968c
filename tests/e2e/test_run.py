"""Whole runs on a tiny network: what they give, what they reuse, and what they say when something is wrong."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from toy_runs import ROOT, Finished, Toy, make_toy, process_environment

from facetask import ConfigError, DataError, PluginError, RunDirError, load_model
from facetask.cache import cache_folder
from facetask.data.splits import make_split
from facetask.plugin_manager import PluginManager
from facetask.testing import tiny_network

ONE_TASK = [{"name": "column", "params": {"column": "brightness", "kind": "continuous"}}]
STEPS = {"regress", "unpruned", "pruned", "finetuned"}


def stage_files(run: Path, stage: str) -> dict[Path, int]:
    """When each result of a stage was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(run.glob(f"stages/*/*/{stage}.json"))}


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


# --- what a run gives


def test_results_say_what_was_measured(finished: Finished) -> None:
    found = results(finished.path)
    assert found["finished"]
    assert [task["name"] for task in found["tasks"]] == ["brightness", "tint", "bins", "level", "marks"]
    assert [task["labels"]["kind"] for task in found["tasks"]] == [
        "continuous",
        "binary",
        "binned",
        "nominal",
        "multilabel",
    ]
    assert (found["tasks"][4]["labels"]["n_missing"], found["tasks"][4]["labels"]["n_partly"]) == (0, 7)
    for task in found["tasks"][2:4]:
        for result in (task["regress"], task["prune"], task["finetune"]):
            assert np.sum(result["confusion"]) == task["trials"][0]["n_test"]
        trial = task["trials"][0]
        assert np.trace(task["finetune"]["confusion"]) / trial["n_test"] == pytest.approx(trial["finetune"]["accuracy"])
    classifier = found["tasks"][3]["regress"]["classifier"]
    assert classifier == found["tasks"][3]["prune"]["metrics_unpruned"]  # in both trials cut at the best tap
    assert found["data"]["n_images"] == 60
    assert found["data"]["group_by"] == "person"
    assert found["data"]["n_groups"] == 29 + 2  # 30 pairs; the first pair's person is missing
    assert found["tasks"][0]["labels"]["n_missing"] == 1
    base_bytes = sum(value.numel() * value.element_size() for value in tiny_network().state_dict().values())
    for task in found["tasks"]:
        taps = task["regress"]["taps"]
        assert [(tap["tap"], tap["n_filters"]) for tap in taps] == [("0", 8), ("2.conv", 8), ("3", 16)]
        assert task["regress"]["best_tap"] == min(taps, key=lambda tap: tap["validation_rmse"])["tap"]
        for curve in task["curve"]["taps"]:
            n_filters = next(tap["n_filters"] for tap in taps if tap["tap"] == curve["tap"])
            assert 1 <= min(curve["n_filters"]) <= max(curve["n_filters"]) <= n_filters
            assert len(curve["rmse"]) == len(curve["n_filters"])
            assert curve["knee"] in curve["n_filters"]
        assert task["prune"]["cut"] == task["regress"]["best_tap"]
        state = load_file(finished.path / task["model"] / "model.safetensors")
        size = sum(value.numel() * value.element_size() for value in state.values())
        assert task["prune"]["size_bytes"] == size
        assert task["prune"]["size_reduction"] == pytest.approx(1 - size / base_bytes)
        assert 0 < task["prune"]["macs_reduction"] < 1
        assert task["prune"]["kept"]["0"] == state["backbone.0.weight"].shape[0]
        assert set(task["wall_s"]) == {"regress", "curve", "prune", "finetune"}
        for stage, field in (("prune", "metrics_pruned"), ("prune", "metrics_unpruned"), ("finetune", "metrics")):
            for name, metric in task[stage][field].items():
                trials = [trial["finetune" if stage == "finetune" else field][name] for trial in task["trials"]]
                assert metric["mean"] == pytest.approx(statistics.mean(trials))
                assert metric["std"] == pytest.approx(statistics.stdev(trials))


def test_a_saved_model_gives_the_metrics_of_the_results(finished: Finished, toy: Toy) -> None:
    with (Path(toy.values["data"]["params"]["root"]) / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    person = np.array([row["person"] or None for row in rows], dtype=object)
    test = make_split(60, (0.5, 0.25, 0.25), 0, groups=person).test
    first = {task["name"]: task["trials"][0]["finetune"] for task in results(finished.path)["tasks"]}
    paths = [toy.images[i] for i in test]

    found = load_model(finished.result.models["brightness"], toy.plugins).predict(paths)
    errors = [p["value"] - float(rows[i]["brightness"]) for p, i in zip(found, test, strict=True) if i != 3]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(first["brightness"]["rmse"], rel=1e-4)
    for name, column in (("tint", "tint"), ("level", "level")):
        found = load_model(finished.result.models[name], toy.plugins).predict(paths)
        right = [p["value"] == rows[i][column] for p, i in zip(found, test, strict=True)]
        assert np.mean(right) == pytest.approx(first[name]["accuracy"])
    found = list(load_model(finished.result.models["marks"], toy.plugins).predict(paths))
    for name in ("bright", "warm"):
        right = [p["value"][name] == int(rows[i][name]) for p, i in zip(found, test, strict=True) if rows[i][name]]
        assert np.mean(right) == pytest.approx(first["marks"][f"accuracy[{name}]"])


def test_a_run_leaves_its_products(finished: Finished, toy: Toy) -> None:
    resolved = yaml.safe_load((finished.path / "resolved.yaml").read_text())
    assert resolved["curve"] == {"refit": "least-squares", "bootstrap": 0}
    assert resolved["prune"]["threshold"] == 0.01
    assert (resolved["prune"]["knee"], resolved["prune"]["stable"]) == ("threshold", None)
    environment = json.loads((finished.path / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or environment["packages"]["torch"]
    assert "<html" in (finished.path / "report.html").read_text()
    assert not list(finished.path.rglob("*.tmp"))
    assert finished.result.models == {
        name: finished.path / "model" / name for name in ("brightness", "tint", "bins", "level", "marks")
    }
    assert finished.recorder.said("regress brightness", "grey levels")


# --- what a run reuses


def test_a_finished_run_answers_without_its_data(finished: Finished, toy: Toy) -> None:
    root = Path(toy.values["data"]["params"]["root"])
    before = (finished.path / "environment.json").stat().st_mtime_ns
    root.rename(root.with_name("away"))
    try:
        again, recorder = toy.run(finished.path)
        assert toy.run(finished.path, until="curve")[0].results == again.results
        with pytest.raises(DataError, match="faces"):
            toy.run(finished.path, force=True)
    finally:
        root.with_name("away").rename(root)
    assert again == finished.result
    assert recorder.said("finished already")
    assert (finished.path / "environment.json").stat().st_mtime_ns >= before
    assert toy.run(finished.path)[0] == finished.result  # the vain attempt has not spoilt it


def test_run_goes_on_where_regress_stopped(toy: Toy, tmp_path: Path) -> None:
    config = toy.config(satellite_tasks=toy.values["satellite_tasks"][:2])
    part, _ = toy.run(tmp_path / "run", config, until="regress")
    assert (part.results.stage, part.results.finished, part.models) == ("regress", True, {})
    assert part.results.tasks[0].curve is None
    before = stage_files(tmp_path / "run", "regress")
    assert len(before) == 2 * 2
    whole, recorder = toy.run(tmp_path / "run", config)
    assert stage_files(tmp_path / "run", "regress") == before
    assert whole.results.stage == "finetune"
    assert recorder.said("responses", "all from the cache")
    assert not recorder.said("computed again")


def test_rules_that_compare_trials_reuse_the_curves_of_all(toy: Toy, tmp_path: Path) -> None:
    config = toy.config(
        satellite_tasks=toy.values["satellite_tasks"][:1], finetune=False, curve={"refit": "none", "bootstrap": 2}
    )
    first, _ = toy.run(tmp_path / "run", config)
    curves = stage_files(tmp_path / "run", "curve")
    (task,) = first.results.tasks
    assert task.curve is not None
    assert (task.curve.rule, task.curve.refit, task.curve.draws) == ("threshold", "none", 2 * 3)
    assert toy.run(tmp_path / "run", config)[1].said("finished already")

    for prune in ({"knee": "one-standard-error", "stable": 0.5}, {"knee": {"filters": 3}, "couple": "union"}):
        changed, recorder = toy.run(tmp_path / "run", {**config, "prune": prune}, force=True)
        assert stage_files(tmp_path / "run", "curve") == curves
        assert recorder.said("prune brightness, trial 1: computed again", "prune.knee")
        (task,) = changed.results.tasks
        assert task.curve is not None
        assert task.prune is not None
        for curve, fit in zip(task.curve.taps, task.regress.taps, strict=True):
            assert curve.probability is not None
            assert len(curve.probability) == fit.n_filters
            assert sum(curve.probability) <= curve.knee + 1e-3
    assert {curve.knee for curve in task.curve.taps} == {3}
    assert set(task.prune.kept.values()) == {3}
    assert task.curve.rule == "filters: 3"

    # Another trial changes what one-standard-error keeps in each, but neither their curves nor a number's.
    compared = {"knee": "one-standard-error"}
    toy.run(tmp_path / "run", {**config, "prune": compared}, force=True)
    _, recorder = toy.run(tmp_path / "run", {**config, "prune": compared, "trials": 3}, force=True)
    assert recorder.said("prune brightness, trial 0: computed again", "trials")
    assert {path: text for path, text in stage_files(tmp_path / "run", "curve").items() if path in curves} == curves
    toy.run(tmp_path / "run", {**config, "prune": {"knee": "elbow"}, "trials": 3}, force=True)
    _, recorder = toy.run(tmp_path / "run", {**config, "prune": {"knee": "elbow"}}, force=True)
    assert not recorder.said("computed again")


def test_one_trial_cannot_be_compared(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one-standard-error compares trials.*set trials to 2 or more"):
        toy.run(tmp_path / "run", toy.config(trials=1, prune={"knee": "one-standard-error"}))
    assert not (tmp_path / "run").exists()


def test_what_depends_on_a_changed_key_is_computed_again(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    run = finished.copy(tmp_path)
    changed = toy.config(prune={"threshold": 0.5})
    with pytest.raises(RunDirError, match=r"different: prune\.threshold; .*--out.*--force"):
        toy.run(run, changed)
    reused = {**stage_files(run, "regress"), **stage_files(run, "curve")}
    _, recorder = toy.run(run, changed, force=True)
    assert {**stage_files(run, "regress"), **stage_files(run, "curve")} == reused
    assert recorder.said("prune brightness, trial 1: computed again", "prune.threshold")
    assert recorder.said("finetune tint, trial 0: computed again", "prune.threshold")
    assert not recorder.said("curve", "computed again")
    assert results(run)["tasks"][0]["curve"]["threshold"] == 0.5
    assert toy.run(run, changed)[1].said("finished already")


def test_slices_are_measured_without_computing_any_stage_again(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    run = finished.copy(tmp_path)
    before = {
        path: written for stage in ("regress", "prune", "finetune") for path, written in stage_files(run, stage).items()
    }
    slices = ["tint", {"column": "brightness", "edges": [100, 150]}]
    found, recorder = toy.run(run, toy.config(slices=slices), force=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not recorder.said("computed again")
    plain = results(finished.path)
    for position, task in enumerate(found.results.tasks):
        tint, brightness = task.slices
        assert ([tint.column, brightness.column]) == ["tint", "brightness"]
        for trial, entry in enumerate(task.trials):
            assert sum(group.n_test[trial] for group in tint.groups) == entry.n_test
            assert sum(group.n_test[trial] for group in brightness.groups) == entry.n_test
        assert all(group.small and set(group.metrics) == STEPS for group in tint.groups)
        unsliced = json.loads(task.model_dump_json(exclude={"slices"}))
        assert {**unsliced, "slices": []} == plain["tasks"][position]
    assert "For whom it is better and worse" in (run / "report.html").read_text()
    assert [task["slices"] for task in plain["tasks"]] == [[]] * 5


def test_metrics_on_validation_are_kept_for_every_trial(finished: Finished) -> None:
    for task in finished.result.results.tasks:
        assert task.prune is not None
        assert task.finetune is not None
        for found, step in ((task.prune.metrics_validation, "pruned"), (task.finetune.metrics_validation, "finetuned")):
            trials = [getattr(trial, f"validation_{step}")["rmse"] for trial in task.trials]
            assert found["rmse"].mean == pytest.approx(statistics.mean(trials))
            assert found["rmse"].std == pytest.approx(statistics.stdev(trials))


def test_more_trials_add_to_those_that_are_there(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    run = finished.copy(tmp_path)
    before = stage_files(run, "regress")
    found, _ = toy.run(run, toy.config(trials=3), force=True, until="regress")
    after = stage_files(run, "regress")
    assert len(after) == 5 * 3
    assert {path: after[path] for path in before} == before
    assert [trial.trial for trial in found.results.tasks[0].trials] == [0, 1, 2]


def test_another_task_over_the_same_images_costs_no_forward_pass(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    shards = {path: path.stat().st_mtime_ns for path in cache_folder("responses").rglob("*.npy")}
    task = {"name": "column", "label": "warm", "params": {"column": "tint", "kind": "nominal"}}
    _, recorder = toy.run(tmp_path / "run", toy.config(satellite_tasks=[task]), until="regress")
    assert recorder.said("responses: 60 images", "all from the cache")
    assert {path: path.stat().st_mtime_ns for path in cache_folder("responses").rglob("*.npy")} == shards


def test_a_damaged_stage_is_computed_again(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    run = finished.copy(tmp_path)
    (run / "stages/tint/trial-0/curve.json").write_text('{"depends": {')
    (run / "stages/bins/trial-1/regress.json").write_text("[1]")
    again, recorder = toy.run(run, force=True)
    assert recorder.said("curve tint, trial 0: computed again", "damaged")
    assert recorder.said("regress bins, trial 1: computed again", "damaged")
    kept = [task.finetune.metrics for task in finished.result.results.tasks if task.finetune]
    assert [task.finetune.metrics for task in again.results.tasks if task.finetune] == kept


def test_a_failed_first_try_does_not_lock_its_folder(toy: Toy, tmp_path: Path) -> None:
    wrong = [{"name": "column", "params": {"column": "brigthness", "kind": "continuous"}}]
    with pytest.raises(DataError, match="did you mean 'brightness'"):
        toy.run(tmp_path / "run", toy.config(satellite_tasks=wrong), until="regress")
    assert toy.run(tmp_path / "run", toy.config(satellite_tasks=ONE_TASK), until="regress")[0].results.finished


def test_a_model_that_was_taken_away_is_made_again(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    run = finished.copy(tmp_path)
    before = load_file(run / "model/tint/model.safetensors")
    (run / "model/tint/model.json").unlink()
    again, _ = toy.run(run)
    after = load_file(run / "model/tint/model.safetensors")
    assert again.models["tint"].is_dir()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_the_saved_model_is_that_of_the_last_stage(toy: Toy, tmp_path: Path) -> None:
    def saved_and_told(stage: str) -> tuple[Any, Any]:
        saved = json.loads((tmp_path / "run/model/brightness/model.json").read_text())["heads"][0]["metrics"]
        trial = results(tmp_path / "run")["tasks"][0]["trials"][0]
        return saved, trial["metrics_pruned" if stage == "prune" else "finetune"]

    config = toy.config(satellite_tasks=ONE_TASK, trials=1, finetune={"epochs": 2, "learning_rate": 0.01})
    for stage, force in (("finetune", False), ("prune", True), ("finetune", False)):
        toy.run(tmp_path / "run", config, until=stage, force=force)
        saved, told = saved_and_told(stage)
        assert saved == told, (stage, force)
    pruned = results(tmp_path / "run")["tasks"][0]["trials"][0]["metrics_pruned"]
    assert saved != pruned  # else this test could not fail


# --- plugins that listen

LISTENER = """
from pathlib import Path
from facetask import hookimpl

@hookimpl
def facetask_stage_finished(stage, result):
    with Path({log!r}).open("a") as log:
        log.write(f"{{stage}} {{type(result).__name__}}\\n")
    {then}
"""


def listening(toy: Toy, folder: Path, then: str) -> tuple[PluginManager, Path]:
    plugins, log = folder / "plugins", folder / "log"
    plugins.mkdir()
    (plugins / "tiny.py").write_text((toy.plugins_dir / "tiny.py").read_text())
    (plugins / "listener.py").write_text(LISTENER.format(log=str(log), then=then))
    return PluginManager(plugins), log


def test_listeners_hear_of_each_stage(toy: Toy, tmp_path: Path) -> None:
    plugins, log = listening(toy, tmp_path, "pass")
    toy.run(tmp_path / "run", toy.config(satellite_tasks=ONE_TASK, trials=1), plugins=plugins)
    assert log.read_text().split("\n") == [
        "regress Regression",
        "curve Curves",
        "prune Pruned",
        "finetune Finetuned",
        "",
    ]


def test_a_listener_that_fails_costs_no_result(toy: Toy, tmp_path: Path) -> None:
    plugins, _ = listening(toy, tmp_path, "raise ValueError('no more')")
    config = toy.config(satellite_tasks=ONE_TASK, trials=1)
    with pytest.raises(PluginError, match=r"after regress, whose result is stored, .*listener \(ValueError: no more\)"):
        toy.run(tmp_path / "run", config, plugins=plugins)
    (stored,) = stage_files(tmp_path / "run", "regress").items()
    _, recorder = toy.run(tmp_path / "run", config)
    assert stage_files(tmp_path / "run", "regress") == dict([stored])
    assert not recorder.said("computed again")


def test_results_of_another_configuration_never_answer(toy: Toy, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = toy.config(satellite_tasks=ONE_TASK, trials=1, finetune=False)
    toy.run(run, config)
    changed = {**config, "seed": 5}
    plugins, _ = listening(toy, tmp_path, "raise ValueError('no more')")
    with pytest.raises(PluginError, match="no more"):
        toy.run(run, changed, force=True, plugins=plugins)
    again, recorder = toy.run(run, changed)
    assert not recorder.said("finished already")
    assert again.results.seed == 5


# --- finetuning that cannot work


def test_a_diverged_training_is_told(toy: Toy, tmp_path: Path) -> None:
    config = toy.config(satellite_tasks=ONE_TASK, trials=2, finetune={"epochs": 3, "learning_rate": 1e30})
    found, recorder = toy.run(tmp_path / "run", config)
    assert found.results.tasks[0].finetune is not None
    assert found.results.tasks[0].finetune.best_epoch == 0
    (warning,) = recorder.warnings
    assert re.search(r"finetune brightness: training diverged in 2 of 2 trials, after \d of 3, \d of 3 epochs", warning)


@pytest.mark.parametrize(("task", "loss"), [("tint", "cross-entropy"), ("level", "mse")])
def test_a_loss_that_does_not_fit_is_found_before_any_work(toy: Toy, tmp_path: Path, task: str, loss: str) -> None:
    tasks = [choice for choice in toy.values["satellite_tasks"] if choice["params"].get("column") == task]
    config = toy.config(satellite_tasks=tasks, finetune={"loss": loss})
    with pytest.raises(ConfigError, match=f"finetune.loss: '{loss}' does not fit the .* task '{task}'; use auto"):
        toy.run(tmp_path / "run", config)
    assert not (tmp_path / "run/stages").exists()
    without = toy.config(satellite_tasks=tasks, finetune=False)
    assert toy.run(tmp_path / "run", without)[0].results.stage == "prune"


# --- Ctrl-C

SLOW = """
from torch import nn
from facetask import Architecture, Preprocessing, Weights, hookimpl


def slow():
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1),
        nn.ReLU(),
        *(module for _ in range(3) for module in (nn.Conv2d(48, 48, 7, padding=3), nn.ReLU())),
    )


@hookimpl
def facetask_architectures():
    return [
        Architecture(
            name="slow",
            build=lambda params: slow(),
            weights=lambda params: Weights(
                state={key: value * 0 + 0.001 for key, value in slow().state_dict().items()},
                licence="MIT",
                source="none",
            ),
            preprocessing=lambda params: Preprocessing(size=(96, 96), colour="rgb", mean=(0.0,) * 3, std=(255.0,) * 3),
        )
    ]
"""


def test_ctrl_c_during_the_responses_loses_nothing(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, 40)
    (toy.plugins_dir / "slow.py").write_text(SLOW)
    arguments = ["-m", "facetask", "regress", str(toy.config_path), "--out", str(tmp_path / "run")]
    overrides = ["base_network.name=slow", "compute.batch_size=1", "compute.workers=1", "trials=1"]
    command = [sys.executable, *arguments, *(part for override in overrides for part in ("-o", override))]
    environment = process_environment(
        FACETASK_PLUGINS=toy.plugins_dir, FACETASK_CACHE=tmp_path / "cache", TERM="xterm", COLUMNS="100"
    )
    controller, terminal = pty.openpty()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is ignored here, the process would ignore
    process = subprocess.Popen(
        command,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    os.close(terminal)
    shown = ""
    while part := _read(controller):
        shown += part
        if process.poll() is None and re.search(r"responses[^\r\n]* [1-9]\d*/40", shown):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it as well
            break
    while part := _read(controller):
        shown += part
    assert process.wait(timeout=60) == 130, shown
    os.close(controller)
    assert "facetask: interrupted" in shown
    assert "Traceback" not in shown
    assert "Aborted" not in shown

    again = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    reused = re.search(r"responses: 40 images × 192 filters of 4 taps, (\d+) from the cache", again.stderr)
    assert reused, again.stderr
    assert 1 <= int(reused[1]) < 40


def _read(terminal: int) -> str:
    """Return what a terminal shows next; nothing when its process is gone."""
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError:
        return ""
