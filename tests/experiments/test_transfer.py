"""``facetask transfer`` on a toy run: the same numbers as a run's, honest times, nothing measured twice, errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from toy_runs import ROOT, Recorder, Toy, make_toy
from typer.testing import CliRunner

from facetask import ConfigError, RunDirError, cli
from facetask.config import config_from_dict
from facetask.experiments.config import load_experiment
from facetask.experiments.transfer.clock import Stopwatch, TimedLoader
from facetask.experiments.transfer.config import RecipeConfig, TransferConfig
from facetask.experiments.transfer.head import augmenting, cached, live, train_head
from facetask.experiments.transfer.page import transfer_lines
from facetask.experiments.transfer.results import (
    MethodResult,
    Seconds,
    TransferResults,
    TransferTask,
    read_transfer,
)
from facetask.experiments.transfer.run import transfer
from facetask.experiments.transfer.tables import goals_table
from facetask.progress import Advance, Silent
from facetask.running.prepare import Materials, prepare

TASKS = ["brightness", "level", "marks"]
RECIPE = {"epochs": 5, "patience": 2, "hidden": [8], "batch_size": 16}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A toy run's ingredients."""
    return make_toy(tmp_path_factory.mktemp("transfer"))


def compared(
    site: Toy, folder: Path, reporter: Recorder | None = None, *, force: bool = False, **changes: Any
) -> TransferResults:
    """Write a comparison's configuration and do it."""
    values = {"run": str(site.config_path), "recipe": RECIPE, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "transfer.yaml").write_text(yaml.safe_dump(values))
    config = load_experiment(folder / "transfer.yaml", TransferConfig)
    return transfer(config, folder / "out", force=force, plugins=site.plugins, reporter=reporter)


@pytest.fixture(scope="module")
def done(site: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[TransferResults, Path]:
    """A finished comparison with all methods, and its folder."""
    folder = tmp_path_factory.mktemp("done")
    return compared(site, folder, run=several_tasks(site), finetuning={"epochs": 1}), folder


@pytest.fixture(scope="module")
def materials(site: Toy) -> Materials:
    """The toy run's network, images and tasks."""
    config = config_from_dict(site.values, base=Path(), plugins=site.plugins)
    return prepare(config, site.plugins, Silent())


def of(task: TransferTask, method: Any) -> MethodResult:
    found = task.method(method)
    assert found is not None
    return found


def one_task(site: Toy, **changes: Any) -> dict[str, Any]:
    return site.config(satellite_tasks=site.values["satellite_tasks"][:1], trials=1, **changes)


def several_tasks(site: Toy) -> dict[str, Any]:
    return site.config(satellite_tasks=[site.values["satellite_tasks"][index] for index in (0, 3, 4)])


# --- accuracy


def test_the_regression_is_the_run_s_own(done: tuple[TransferResults, Path], site: Toy, tmp_path: Path) -> None:
    run_tasks = site.run(tmp_path / "run", several_tasks(site), until="regress")[0].results.tasks
    assert [task.name for task in done[0].tasks] == [task.name for task in run_tasks] == TASKS
    for task, expected in zip(done[0].tasks, run_tasks, strict=True):
        ours = of(task, "regression")
        assert ours.tap == expected.regress.best_tap
        first = ours.trials[0].measured
        assert first.validation_rmse == min(fit.validation_rmse for fit in expected.regress.taps)
        if expected.regress.classifier is not None:
            assert ours.metrics == expected.regress.classifier


def test_cached_features_give_what_the_recipe_gives(done: tuple[TransferResults, Path]) -> None:
    for task in done[0].tasks:
        for passed, known in zip(of(task, "recipe").trials, of(task, "cached").trials, strict=True):
            a, b = passed.measured, known.measured
            assert (a.epochs, a.best_epoch, a.tap) == (b.epochs, b.best_epoch, b.tap)
            assert a.validation_by_epoch == pytest.approx(b.validation_by_epoch, rel=1e-3)
            assert a.validation_rmse == pytest.approx(b.validation_rmse, rel=1e-3)


def test_the_stop_rule(done: tuple[TransferResults, Path]) -> None:
    for task in done[0].tasks:
        for one in of(task, "recipe").trials:
            found, curve = one.measured, one.measured.validation_by_epoch
            assert found.best_epoch is not None
            assert found.epochs == len(curve) == min(RECIPE["epochs"], found.best_epoch + RECIPE["patience"])
            assert curve[found.best_epoch - 1] == min(curve) == found.validation_rmse


def test_differences_are_to_the_regression_of_the_same_trial(done: tuple[TransferResults, Path]) -> None:
    task = done[0].tasks[0]
    ours, other = of(task, "regression"), of(task, "finetuning")
    expected = [
        b.measured.metrics["rmse"] - a.measured.metrics["rmse"]  # type: ignore[operator]
        for a, b in zip(ours.trials, other.trials, strict=True)
    ]
    assert other.difference.mean == pytest.approx(np.mean(expected))
    assert other.difference.std == pytest.approx(np.std(expected, ddof=1))
    assert other.epochs is not None
    assert other.epochs.mean == 1


def test_new_layers_learn_what_is_linear(materials: Materials) -> None:
    task = materials.tasks[0]
    split = task.split(0)
    rng = np.random.default_rng(0)
    features = np.stack([np.nan_to_num(task.values[:, 0]), *rng.normal(size=(3, len(task.values)))], axis=1)
    known = cached(features.astype(np.float32), 16)
    settings = RecipeConfig(epochs=60, patience=60, hidden=(), learning_rate=0.02)
    with_epoch: list[int] = []

    def source_of(epoch: int) -> Any:
        with_epoch.append(epoch)
        return known

    trained = train_head(task, split, settings, 4, 0, source_of, Stopwatch())
    assert with_epoch == list(range(1, 61))
    spread = task.values[split.test].std()
    error = trained.predict(known.plain, split.test) - task.values[split.test]
    assert np.sqrt((error**2).mean()) < 0.15 * spread


def test_training_that_diverges_is_told(materials: Materials) -> None:
    task = materials.tasks[0]
    known = cached(np.full((len(task.values), 2), np.nan, dtype=np.float32), 16)
    with pytest.raises(
        ConfigError, match=r"diverged in its first epoch; use a smaller recipe\.learning_rate than 0\.001"
    ):
        train_head(task, task.split(0), RecipeConfig(), 2, 0, lambda epoch: known, Stopwatch())


# --- images on their way


class _Halves(nn.Module):
    """How much brighter the left half is than the right, and how bright both are: ``(batch, 2)``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = (half.mean(dim=(1, 2, 3)) for half in x.chunk(2, dim=3))
        return torch.stack([left - right, left + right], dim=1)


def test_what_is_said_to_be_mirrored_is_mirrored(materials: Materials) -> None:
    task = materials.tasks[0]
    mirrors = replace(task, spec=replace(task.spec, flip="negate"))
    rows = np.random.default_rng(1).permutation(len(task.values))
    loader = TimedLoader.of(materials.loader, Stopwatch(), 7)
    source = live(_Halves(), loader, augmenting(mirrors, RecipeConfig(flip=True), 0))
    plain = np.concatenate([features for _, features, _ in source.plain(rows)])
    found = list(source.training(rows))
    assert np.concatenate([own for own, _, _ in found]).tolist() == rows.tolist()
    mirrored = np.concatenate([flags for _, _, flags in found if flags is not None])
    assert 0.2 < mirrored.mean() < 0.8
    features = np.concatenate([values for _, values, _ in found])
    assert features[:, 0] == pytest.approx(np.where(mirrored, -1, 1) * plain[:, 0], abs=1e-5)
    assert features[:, 1] == pytest.approx(plain[:, 1], abs=1e-5)
    assert all(flags is None for _, _, flags in live(_Halves(), loader).training(rows))


def test_an_augmented_recipe_is_another_one(site: Toy, tmp_path: Path) -> None:
    recipe = {**RECIPE, "shift": 0.2, "brightness": 0.5, "epochs": 1}
    task = compared(site, tmp_path, run=one_task(site), recipe=recipe).tasks[0]
    passed, known = (of(task, method).trials[0].measured for method in ("recipe", "cached"))
    assert passed.validation_rmse is not None
    assert passed.validation_rmse != pytest.approx(known.validation_rmse, rel=1e-4)


# --- time


def test_parts_of_the_time_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Stopwatch()

    def work(seconds: float) -> None:
        now[0] += seconds

    work(100)
    with clock.part("train"):
        work(1)
        with clock.part("forward"):
            work(2)
            with clock.part("decode"):
                work(4)
            work(8)
        work(16)
        first = clock.take()
        work(32)
    work(100)
    second = clock.take()
    assert (first.train, first.forward, first.decode, first.fit) == (17, 10, 4, 0)
    assert first.wall == 31
    assert (second.train, second.wall) == (32, 32)
    assert (first + second).times(2).train == 98


def test_what_each_method_s_time_is_made_of(done: tuple[TransferResults, Path]) -> None:
    for task in done[0].tasks:
        for found in task.methods:
            for one in found.trials:
                own, alone = one.measured.seconds, one.alone
                assert alone.wall > 0
                assert (own.fit > 0) == (found.method in ("regression", "finetuning"))
                assert (own.train > 0) == (found.method != "regression")
                assert (own.forward > 0) == (found.method == "recipe")
                assert (own.decode > 0) == (found.method in ("recipe", "finetuning"))
                assert (alone.forward > own.forward) == (found.method != "recipe")
                assert not one.measured.extrapolated


def test_tasks_share_one_pass(done: tuple[TransferResults, Path]) -> None:
    results = done[0]
    passes = set()
    for task in results.tasks:
        if task.name == "brightness":  # labels fewer images than all tasks together: its own pass is another one
            continue
        for one in of(task, "regression").trials:
            passes.add(one.alone.forward - one.measured.seconds.forward)
            whole = one.alone.wall - one.measured.seconds.wall
            assert one.shared.wall - one.measured.seconds.wall == pytest.approx(whole / len(TASKS))
    assert len(passes) == 2  # one each trial
    for row in results.all_tasks:
        shared = [one.shared.wall for task in results.tasks for one in of(task, row.method).trials]
        ours = [one.shared.wall for task in results.tasks for one in of(task, "regression").trials]
        assert row.per_task_wall_s == pytest.approx(np.mean(shared))
        assert row.ratio == pytest.approx(sum(shared) / sum(ours))
    for task in results.tasks:
        recipe = of(task, "recipe")
        assert recipe.wall_s == recipe.shared_wall_s
        assert recipe.ratio == pytest.approx((recipe.wall_s.mean or 0) / (of(task, "regression").wall_s.mean or 1))


def images_passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that fills with the number of images of every batch that is loaded by a timed loader."""
    passed: list[int] = []
    original = TimedLoader.batches

    def batches(self: TimedLoader, *arguments: Any) -> Iterator[Any]:
        for rows, inputs in original(self, *arguments):
            passed.append(len(rows))
            yield rows, inputs

    monkeypatch.setattr(TimedLoader, "batches", batches)
    return passed


@pytest.mark.parametrize("extrapolate", [False, True])
def test_every_image_passes_in_every_epoch_or_time_is_extrapolated(
    site: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extrapolate: bool
) -> None:
    passed = images_passed(monkeypatch)
    results = compared(site, tmp_path, run=one_task(site), extrapolate=extrapolate)
    task = results.tasks[0]
    recipe = of(task, "recipe").trials[0].measured
    assert recipe.epochs is not None
    assert recipe.epochs > 2
    with_forward = 2 if extrapolate else recipe.epochs
    n = recipe.n_train + recipe.n_validation
    lone = recipe.n_train % RECIPE["batch_size"] == 1
    passes = n + recipe.n_test
    assert sum(passed) == 2 * passes + with_forward * (n - lone) + recipe.n_test
    assert (recipe.extrapolated, recipe.epochs_with_forward) == (extrapolate, with_forward)
    assert of(task, "recipe").extrapolated == results.all_tasks[1].extrapolated == extrapolate
    page = (tmp_path / "out/transfer.html").read_text(encoding="utf-8")
    for text in ("\n".join(transfer_lines(results)), page):
        assert ("extrapolated" in text) == extrapolate
    known = of(task, "cached").trials[0].measured
    assert recipe.validation_by_epoch == pytest.approx(known.validation_by_epoch, rel=1e-3)


# --- what is stored


def test_nothing_is_measured_twice(
    done: tuple[TransferResults, Path], site: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, recorder = images_passed(monkeypatch), Recorder()
    again = compared(site, done[1], recorder, run=several_tasks(site), finetuning={"epochs": 1})
    assert again.tasks == done[0].tasks
    assert not passed
    finished = [line for line in recorder.lines if line.endswith("finished already")]
    assert len(finished) == len(TASKS) * 2 * 4


def test_what_depends_on_a_change_is_measured_again(site: Toy, tmp_path: Path) -> None:
    first = compared(site, tmp_path, run=one_task(site))
    recorder = Recorder()
    second = compared(site, tmp_path, recorder, run=one_task(site), recipe={**RECIPE, "hidden": []})
    assert recorder.said("recipe brightness, trial 0: measured again, changed: recipe.hidden")
    assert recorder.said("cached brightness, trial 0: measured again")
    assert second.tasks[0].methods[0] == first.tasks[0].methods[0]
    assert second.tasks[0].methods[1] != first.tasks[0].methods[1]
    with pytest.raises(RunDirError, match="holds a run of another configuration; different: seed"):
        compared(site, tmp_path, run=one_task(site, seed=7))
    assert compared(site, tmp_path, run=one_task(site, seed=7), force=True).seed == 7


class _Interrupts(Recorder):
    """Interrupts once something is said."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    def line(self, text: str) -> None:
        super().line(text)
        if self.said(*self.words):
            raise KeyboardInterrupt


def test_an_interrupted_comparison_goes_on(site: Toy, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        compared(site, tmp_path, _Interrupts("recipe brightness", "epochs"), run=one_task(site))
    assert not (tmp_path / "out/transfer.json").exists()
    recorder = Recorder()
    compared(site, tmp_path, recorder, run=one_task(site))
    finished = [line for line in recorder.lines if "finished already" in line]
    assert [line.split()[0] for line in finished] == ["regression", "recipe"]


class _InterruptsTraining(Recorder):
    """Interrupts full finetuning after its first epoch."""

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        def advance(done: int) -> None:
            if what == "brightness: epochs" and done:
                raise KeyboardInterrupt

        yield advance


def test_interrupted_finetuning_goes_on_and_its_time_counts(site: Toy, tmp_path: Path) -> None:
    changes = {"run": one_task(site), "recipe": {**RECIPE, "epochs": 1}, "finetuning": {"epochs": 3}}
    whole = of(compared(site, tmp_path / "whole", **changes).tasks[0], "finetuning").trials[0].measured
    with pytest.raises(KeyboardInterrupt):
        compared(site, tmp_path, _InterruptsTraining(), **changes)
    saved = torch.load(next(tmp_path.rglob("*.training.pt")), weights_only=True)
    before = sum(epoch["train"] for epoch in json.loads(saved["observed"]))
    recorder = Recorder()
    found = of(compared(site, tmp_path, recorder, **changes).tasks[0], "finetuning").trials[0].measured
    assert recorder.said("training of brightness goes on after epoch 1 of 3")
    assert (found.metrics, found.validation_by_epoch) == (whole.metrics, whole.validation_by_epoch)
    assert 0 < before < found.seconds.train
    assert not list(tmp_path.rglob("*.training.pt"))


def test_files(done: tuple[TransferResults, Path]) -> None:
    results, folder = done
    assert read_transfer(folder / "out/transfer.json") == results
    assert results.format_version == 1
    page = (folder / "out/transfer.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= len(TASKS)
    assert all(f"<h2>{name}" in page for name in TASKS)
    assert sorted(path.name for path in (folder / "out/figures").glob("*.svg")) == sorted(
        f"transfer_{name}.svg" for name in TASKS
    )
    (folder / "broken.json").write_text("{}")
    with pytest.raises(RunDirError, match="not a comparison of regression and transfer learning"):
        read_transfer(folder / "broken.json")


def test_goals_stand_beside_what_was_measured(done: tuple[TransferResults, Path]) -> None:
    rows = {row[0]: row[1:] for row in goals_table(done[0]).rows}
    assert rows["level: the recipe's time against ours, one task"][0] == "≥ 78 ×"
    assert rows["the same per task, 3 tasks sharing one pass"][2] == "3 of 7 tasks"
    wanted, measured, reached = rows["level: accuracy, ours against full finetuning"]
    difference = of(done[0].tasks[1], "finetuning").difference.mean
    assert difference is not None
    assert wanted == "within one point"
    assert measured.startswith(f"{abs(100 * difference):.1f} points")
    assert reached == ("yes" if 100 * difference <= 1 else "no")


def test_a_busy_machine_reaches_no_goal(done: tuple[TransferResults, Path]) -> None:
    recipe = of(done[0].tasks[1], "recipe")

    def told(ratio: float, cpu_ratio: float) -> tuple[str, str]:
        other = recipe.model_copy(update={"ratio": ratio, "cpu_ratio": cpu_ratio})
        task = done[0].tasks[1].model_copy(update={"methods": [done[0].tasks[1].methods[0], other]})
        results = done[0].model_copy(update={"tasks": [task]})
        return goals_table(results).rows[0][3], "\n".join(transfer_lines(results))

    assert told(90, 80)[0] == "yes"
    assert "something else was using the machine" not in told(90, 80)[1]
    assert told(110, 70)[0] == told(70, 110)[0] == "no"
    assert "something else was using the machine" in told(110, 70)[1]


# --- configurations


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run": 3}, "expected a run's YAML file, or the run itself as a mapping"),
        ({"recipe": {"epochs": 0}}, r"recipe\.epochs: expected at least 1"),
        ({"recipe": {"epoch": 3}}, r"recipe\.epoch: unknown key; did you mean 'epochs'"),
        ({"recipe": {"optimiser": "adam"}}, r"recipe\.optimiser: .*adamw"),
        ({"recipe": {"batch_size": 1}}, r"recipe\.batch_size: expected at least 2"),
        ({"recipe": {"flip": True}, "extrapolate": True}, "extrapolate trains on cached features, which augmented"),
        (
            {"recipe": {"epochs": 2}, "extrapolate": True},
            r"extrapolate measures 2 epochs, and recipe\.epochs allows no",
        ),
        ({"finetuning": True}, r"finetuning: expected a mapping such as \{epochs: 6\}"),
        ({"finetuning": {"start": "scratch"}}, "start: scratch knows nothing of the base network"),
        ({"finetuning": {"trains": "head"}}, "trains: head is no full finetuning"),
        ({"finetuning": {"epoch": 3}}, r"finetune\.epoch: unknown key; did you mean 'epochs'"),
        ({"trials": 0}, "trials: expected at least 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(site: Toy, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        compared(site, tmp_path, **changes)


def test_finetuning_goes_by_the_run_s_own_settings(site: Toy, tmp_path: Path) -> None:
    own = one_task(site, finetune={"epochs": 2, "batch_size": 8})
    results = compared(site, tmp_path, run=own, finetuning={"epochs": 1}, recipe={**RECIPE, "epochs": 1})
    assert results.finetuning is not None
    assert (results.finetuning["epochs"], results.finetuning["batch_size"]) == (1, 8)
    assert [found.method for found in results.tasks[0].methods] == ["regression", "recipe", "cached", "finetuning"]
    off = one_task(site, finetune=False)
    results = compared(site, tmp_path / "off", run=off, finetuning={"epochs": 1}, recipe={**RECIPE, "epochs": 1})
    assert results.finetuning is not None
    assert results.finetuning["epochs"] == 1


def test_the_command(site: Toy, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"run": one_task(site), "recipe": RECIPE}))
    arguments = ["transfer", str(tmp_path / "mine.yaml"), "--plugins-dir", str(site.plugins_dir), "-o", "trials=2"]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "brightness: Regression: RMSE " in done.stdout
    assert "our regression" in done.stdout
    assert f"page: {tmp_path / 'out/transfer.html'}" in done.stdout
    assert read_transfer(tmp_path / "out/transfer.json").trials == 2
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "out"), "-o", "recipe.epochs=x"])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_the_smoke_configuration(tmp_path: Path) -> None:
    path = ROOT / "examples/paper/transfer_smoke.yaml"
    config = load_experiment(path, TransferConfig, ["run.data.params.count=16", "recipe.epochs=3"])
    results = transfer(config, tmp_path / "smoke")
    assert [task.name for task in results.tasks] == ["yaw", "glasses"]
    assert all(isinstance(one.alone, Seconds) for one in results.tasks[0].methods[0].trials)
    for name in ("yaw", "age", "gender"):
        load_experiment(ROOT / f"examples/paper/transfer_{name}.yaml", TransferConfig)
