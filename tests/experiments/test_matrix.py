"""``facetask matrix`` on toy networks: a run's own numbers, honest splits, yardsticks, nothing done twice, errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toy_runs import ROOT, Recorder, Toy, make_toy
from typer.testing import CliRunner

from facetask import ConfigError, DataError, RunDirError, cli
from facetask.config import config_from_dict
from facetask.context import run_context
from facetask.experiments.config import load_experiment
from facetask.experiments.matrix import cells as cells_module
from facetask.experiments.matrix.config import MatrixConfig
from facetask.experiments.matrix.figure import heat_map, share_of_the_way
from facetask.experiments.matrix.page import matrix_lines, matrix_table
from facetask.experiments.matrix.results import MatrixResults, MatrixTask, read_matrix
from facetask.experiments.matrix.run import matrix
from facetask.experiments.matrix.unseen import Trained, Unseen
from facetask.experiments.pretrain import pretrain
from facetask.plugin_manager import default_manager
from facetask.progress import Silent
from facetask.running.prepare import Materials, prepare
from facetask.running.results import Metric

BRIGHTNESS, TINT, LEVEL = 0, 1, 3
Filled = tuple[MatrixResults, Path, Recorder]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A toy run's ingredients."""
    return make_toy(tmp_path_factory.mktemp("matrix"), n=80)


def run_of(site: Toy, *tasks: int, **changes: Any) -> dict[str, Any]:
    """Return a toy run with some of its tasks."""
    return site.config(satellite_tasks=[site.values["satellite_tasks"][task] for task in tasks], **changes)


def training(site: Toy, task: int, **changes: Any) -> dict[str, Any]:
    """Return a toy pretraining, of one trial."""
    return run_of(site, task, **{"trials": 1, "finetune": {"epochs": 2, "learning_rate": 0.03}, **changes})


def config_of(site: Toy, **changes: Any) -> dict[str, Any]:
    """Return a matrix's configuration: two primaries, three satellite tasks."""
    return {
        "primaries": {"as it is": {"name": "tiny"}, "tint": {"pretrain": training(site, TINT)}},
        "satellites": [run_of(site, BRIGHTNESS, TINT), run_of(site, LEVEL)],
        **changes,
    }


def load(site: Toy, values: dict[str, Any], folder: Path) -> MatrixConfig:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "matrix.yaml").write_text(yaml.safe_dump(values))
    with run_context(site.plugins):
        return load_experiment(folder / "matrix.yaml", MatrixConfig)


def fill(site: Toy, folder: Path, values: dict[str, Any] | None = None, *, force: bool = False) -> Filled:
    """Write a matrix's configuration and fill it."""
    config, recorder = load(site, values or config_of(site), folder), Recorder()
    out = folder / "out"
    return matrix(config, out, force=force, plugins=site.plugins, reporter=recorder), out, recorder


@pytest.fixture(scope="module")
def filled(site: Toy, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """A filled matrix whose missing yardsticks were trained."""
    direct = {"base_network": {"name": "tiny"}, "finetune": {"epochs": 2}}
    return fill(site, tmp_path_factory.mktemp("filled"), config_of(site, direct=direct))


def task_of(results: MatrixResults, name: str) -> MatrixTask:
    return next(task for task in results.tasks if task.name == name)


def materials_of(site: Toy, values: dict[str, Any]) -> Materials:
    return prepare(config_from_dict(values, base=Path(), plugins=site.plugins), site.plugins, Silent())


# --- cells


def test_a_cell_is_the_run_s_own_regression(filled: Filled, site: Toy, tmp_path: Path) -> None:
    results = filled[0]
    assert [primary.name for primary in results.primaries] == ["as it is", "tint"]
    assert [task.name for task in results.tasks] == ["brightness", "tint", "level"]
    done, _ = site.run(tmp_path / "run", run_of(site, BRIGHTNESS, TINT, LEVEL), until="regress")
    for expected in done.results.tasks:
        task = task_of(results, expected.name)
        assert task.baseline == expected.regress.baseline
        assert task.labels == expected.labels
        cell = task.cell("as it is")
        for trial, wanted in zip(cell.trials, expected.trials, strict=True):
            assert (trial.seed, trial.n_train, trial.n_test) == (wanted.seed, wanted.n_train, wanted.n_test)
            assert trial.best_tap == wanted.best_tap
            assert trial.n_left_out == 0
            if expected.regress.classifier is None:
                assert trial.metrics == wanted.regress
        assert expected.regress.classifier in (None, cell.metrics)
        values = [trial.metrics[task.main_metric] for trial in cell.trials]
        found = cell.metrics[task.main_metric]
        assert (found.mean, found.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))


def test_a_trained_primary_is_the_network_that_was_trained(filled: Filled, site: Toy, tmp_path: Path) -> None:
    results, out, _ = filled
    own = pretrain(training(site, TINT), tmp_path / "own", plugins=site.plugins)
    made = json.loads((out / "pretrained" / "tint" / "pretrain.json").read_text())
    assert made["trials"][0]["metrics"] == own.results.trials[0].metrics
    values = run_of(site, BRIGHTNESS, LEVEL, trials=1, base_network={"model": str(out / "pretrained/tint/base")})
    done, _ = site.run(tmp_path / "run", values, until="regress")
    for expected in done.results.tasks:
        first = task_of(results, expected.name).cell("tint").trials[0]
        assert first.n_left_out == 0  # its split is the training's
        if expected.regress.classifier is None:
            assert first.metrics == expected.trials[0].regress
        else:
            assert first.metrics == {name: found.mean for name, found in expected.regress.classifier.items()}
    assert [primary.trained_for for primary in results.primaries] == [None, "tint"]


def test_no_network_is_judged_on_images_that_it_was_trained_on(filled: Filled, site: Toy) -> None:
    found = materials_of(site, training(site, TINT))
    task, seen = found.tasks[0], found.tasks[0].split(0)
    fitted, chosen = set(seen.train), set(seen.validation)
    for name, index in (("brightness", BRIGHTNESS), ("level", LEVEL)):
        satellite = materials_of(site, run_of(site, index)).tasks[0]
        second = task_of(filled[0], name).cell("tint").trials[1]
        split = satellite.split(1)
        validation = [row for row in split.validation if row not in fitted]
        test = [row for row in split.test if row not in fitted | chosen]
        assert 0 < second.n_test == len(test) < len(split.test)
        assert second.n_validation == len(validation)
        assert second.n_left_out == len(split.validation) + len(split.test) - len(validation) - len(test)
        assert second.n_train == len(split.train)
    assert task.group_by == "person"  # so that whole people are left out, or none of them


def test_an_image_that_training_saw_stands_for_its_whole_group(site: Toy, tmp_path: Path) -> None:
    by_image = training(site, TINT, data={"name": "table", "params": {"root": site.values["data"]["params"]["root"]}})
    trained = pretrain({**by_image, "finetune": {"epochs": 1}}, tmp_path / "a", plugins=site.plugins)
    training_task = materials_of(site, by_image)
    satellite = materials_of(site, run_of(site, TINT))
    unseen = Unseen.of(
        satellite.tasks[0], satellite.images, Trained(training_task.tasks[0], training_task.images, trained.results)
    )
    people = satellite.images.data.columns["person"]
    split = training_task.tasks[0].split(0)
    known = {people[row] for row in split.train if people[row] is not None and people[row] == people[row]}
    assert known
    for row, person in enumerate(people):
        if person in known:
            assert unseen.fitted[row]
    assert unseen.fitted[split.train].all()


def test_a_part_without_unseen_images_is_told(site: Toy) -> None:
    found = materials_of(site, run_of(site, TINT))
    task = found.tasks[0]
    nothing, everything = np.zeros(len(task.values), dtype=bool), np.ones(len(task.values), dtype=bool)
    fields = {name: getattr(task, name) for name in task.__dataclass_fields__}
    assert np.array_equal(Unseen(**fields, fitted=nothing, chosen=nothing).split(0).test, task.split(0).test)
    with pytest.raises(DataError, match=r"task 'tint': the base network was trained on all \d+ images of its test"):
        Unseen(**fields, fitted=nothing, chosen=everything).split(0)
    with pytest.raises(DataError, match="of its validation split"):
        Unseen(**fields, fitted=everything, chosen=nothing).split(0)


# --- yardsticks


def test_reductions_compare_with_direct_training_in_common_trials(filled: Filled) -> None:
    for task in filled[0].tasks:
        assert task.direct is not None
        (direct,) = task.direct.trials  # trained in one trial, so that the second has no yardstick
        wanted = direct.metrics[task.main_metric]
        assert wanted
        for cell in task.cells:
            reached = cell.trials[0].metrics[task.main_metric]
            assert reached is not None
            expected = (wanted - reached) / wanted if task.higher_is_better else (reached - wanted) / wanted
            assert cell.reduction is not None
            assert (cell.reduction.mean, cell.reduction.std) == (pytest.approx(expected), 0.0)
    assert [task.higher_is_better for task in filled[0].tasks] == [False, True, True]


def test_the_yardstick_is_the_primary_of_the_task_s_name_or_trained(filled: Filled, site: Toy, tmp_path: Path) -> None:
    results, out, _ = filled
    assert [task.direct.source for task in results.tasks if task.direct] == ["trained", "primary", "trained"]
    tint = task_of(results, "tint").direct
    assert tint is not None
    stored = json.loads((out / "pretrained" / "tint" / "pretrain.json").read_text())
    assert tint.trials[0].metrics == stored["trials"][0]["metrics"]
    level = task_of(results, "level").direct
    assert level is not None
    own = pretrain(run_of(site, LEVEL, trials=1, finetune={"epochs": 2}), tmp_path / "own", plugins=site.plugins)
    assert level.trials[0].metrics == own.results.trials[0].metrics
    assert sorted(path.name for path in (out / "direct").iterdir()) == ["brightness", "level"]


def test_without_direct_training_there_is_no_reduction(site: Toy, tmp_path: Path) -> None:
    results, out, _ = fill(site, tmp_path, config_of(site, direct=None))
    assert all(task.direct is None for task in results.tasks)
    assert all(cell.reduction is None for task in results.tasks for cell in task.cells)
    assert not (out / "direct").exists()
    table = matrix_table(results)
    assert [row[0] for row in table.rows] == ["as it is", "tint", "guessing"]
    assert not any("(" in cell for row in table.rows for cell in row)
    best = [max(share_of_the_way(task, cell.metrics) or 0 for cell in task.cells) for task in results.tasks]
    assert best == [pytest.approx(1.0)] * 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 7}, "is trained with a seed that no trial has"),
        ({"split": {"fractions": [0.6, 0.2, 0.2]}}, "is trained on another split, other labels or other images"),
        ({"task": BRIGHTNESS}, "is trained for labels of another kind or with other classes"),
    ],
)
def test_a_primary_of_the_name_that_is_no_yardstick_is_told(
    site: Toy, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    changes = {"finetune": {"epochs": 1}, **changes}
    task = changes.pop("task", TINT)
    values = config_of(
        site,
        primaries={"tint": {"pretrain": training(site, task, **changes)}},
        satellites=[run_of(site, TINT, trials=1)],
    )
    results, _, recorder = fill(site, tmp_path, values)
    assert results.tasks[0].direct is None
    assert reason in results.tasks[0].no_direct
    assert any(reason in warning for warning in recorder.warnings)
    assert any(reason in line for line in matrix_lines(results))


def test_a_model_of_an_earlier_pretraining_is_known_as_trained(filled: Filled, site: Toy, tmp_path: Path) -> None:
    shutil.copytree(filled[1] / "pretrained" / "tint", tmp_path / "earlier")
    values = config_of(site, primaries={"tint": {"model": "earlier/base"}})
    results, out, _ = fill(site, tmp_path, values)
    assert not (out / "pretrained").exists()
    for task in results.tasks:
        expected = task_of(filled[0], task.name).cell("tint")
        assert task.cell("tint").trials == expected.trials
    tint = task_of(results, "tint").direct
    assert tint is not None
    assert tint.source == "primary"


# --- resuming


def test_nothing_is_done_twice(filled: Filled, site: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(filled[1].parent / "matrix.yaml", tmp_path)
    shutil.copytree(filled[1], tmp_path / "out")
    # The trained network's absolute path is part of the configuration, so the copy is a matrix of the first alone.
    values = config_of(site, primaries={"as it is": {"name": "tiny"}})
    with monkeypatch.context() as patch:
        patch.setattr(cells_module, "respond", _fail)
        again, _, _ = fill(site, tmp_path, values)
    for task in again.tasks:
        assert task.cell("as it is").trials == task_of(filled[0], task.name).cell("as it is").trials
    lost = next((tmp_path / "out" / "cells" / "as it is").glob("*/stages/tint/trial-1/regress.json"))
    lost.unlink()
    computed = []
    real = cells_module.StageWork.compute

    def counted(self: Any, *arguments: Any) -> Any:
        computed.append((self.task.spec.name, self.trial))
        return real(self, *arguments)

    monkeypatch.setattr(cells_module.StageWork, "compute", counted)
    fill(site, tmp_path, values)
    assert computed == [("tint", 1)]
    assert lost.is_file()


def test_an_interrupted_matrix_goes_on(site: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = cells_module.StageWork.compute
    computed: list[tuple[str, int]] = []

    def stopping(self: Any, *arguments: Any) -> Any:
        if len(computed) == 5:
            raise KeyboardInterrupt
        computed.append((self.task.spec.name, self.trial))
        return real(self, *arguments)

    values = config_of(site, satellites=[run_of(site, BRIGHTNESS, TINT)])
    with monkeypatch.context() as patch:
        patch.setattr(cells_module.StageWork, "compute", stopping)
        with pytest.raises(KeyboardInterrupt):
            fill(site, tmp_path, values)
    assert len(computed) == 5  # four of the first network, one of the trained one
    trained = (tmp_path / "out/pretrained/tint/base/model.safetensors").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(
            cells_module.StageWork, "compute", lambda self, *rest: computed.append(("", 0)) or real(self, *rest)
        )
        fill(site, tmp_path, values)
    assert len(computed) == 8
    assert (tmp_path / "out/pretrained/tint/base/model.safetensors").stat().st_mtime_ns == trained


def _fail(*arguments: Any) -> Any:
    raise AssertionError("a forward pass")


# --- products


def test_files_and_lines_say_the_same(filled: Filled) -> None:
    results, out, recorder = filled
    assert read_matrix(out / "matrix.json") == results
    assert json.loads((out / "matrix.json").read_text())["format_version"] == 1
    html = (out / "matrix.html").read_text()
    lines = "\n".join(matrix_lines(results))
    svg = (out / "figures" / "matrix.svg").read_text()
    for task in results.tasks:
        assert task.direct is not None
        for cell in task.cells:
            assert cell.trials[0].best_tap in html
            value = cell.metrics[task.main_metric].mean
            assert value is not None
            shown = f"{100 * value:.1f}" if task.higher_is_better else f"{value:.3g}"
            assert shown in lines
            assert shown in html
            assert shown in svg
            assert cell.reduction is not None
            assert cell.reduction.mean is not None
            worse = -cell.reduction.mean if task.higher_is_better else cell.reduction.mean
            sign = "−" if worse < 0 else "+"
            if abs(worse) > 1e-9:
                assert f"{sign}{abs(100 * worse):.1f}" in svg
    assert 'class="wide"' in html
    assert 'class="narrow"' in html
    assert "No network is judged on images that its training here saw" in html
    assert recorder.said("primary as it is, tint: accuracy", "best tap")
    repeated = [line for line in recorder.lines if recorder.lines.count(line) > 1]
    assert repeated == []


def test_shades_run_from_guessing_to_direct_training(filled: Filled) -> None:
    for task in filled[0].tasks:
        assert task.direct is not None
        assert share_of_the_way(task, task.baseline) == pytest.approx(0.0)
        assert share_of_the_way(task, task.direct.metrics) in (pytest.approx(1.0), None)
    task = filled[0].tasks[0]
    unknown = task.model_copy(update={"baseline": {task.main_metric: Metric(mean=None, std=None)}})
    assert share_of_the_way(unknown, task.cells[0].metrics) is None
    assert "<svg" in heat_map(filled[0].model_copy(update={"tasks": [unknown]}), 440)


# --- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"primaries": {}}, "primaries"),
        ({"primaries": {"a": {}}}, r"primaries\.a: expected a mapping such as .*pretrain: FILE"),
        ({"primaries": {"a": {"name": "tiny", "model": "x"}}}, r"primaries\.a: expected a mapping such as"),
        ({"primaries": {"a/b": {"name": "tiny"}}}, "expected a name that can name a folder, found 'a/b'"),
        ({"primaries": {"age": {"name": "tiny"}, "Age": {"name": "tiny"}}}, "'Age' and 'age' differ in case alone"),
        ({"primaries": {"a": {"name": "tinny"}}}, "did you mean 'tiny'"),
        ({"satellites": []}, "satellites"),
        ({"direct": "primary"}, "direct"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(
    site: Toy, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(site, config_of(site, **changes), tmp_path)


def test_two_primaries_of_one_name_are_refused(site: Toy, tmp_path: Path) -> None:
    text = yaml.safe_dump(config_of(site, primaries={"a": {"name": "tiny"}}))
    (tmp_path / "matrix.yaml").write_text(text.replace("  a:\n", "  a: {name: tiny}\n  a:\n"))
    with run_context(site.plugins), pytest.raises(ConfigError, match=r"primaries\.a: this key is given twice"):
        load_experiment(tmp_path / "matrix.yaml", MatrixConfig)


def test_a_model_folder_that_is_none_is_told_before_any_work(site: Toy, tmp_path: Path) -> None:
    primaries = {"tint": {"pretrain": training(site, TINT)}, "b": {"model": "nowhere"}}
    message = rf"primaries\.b\.model: no saved model in {re.escape(str(tmp_path / 'nowhere'))}"
    with pytest.raises(ConfigError, match=message):
        fill(site, tmp_path, config_of(site, primaries=primaries))
    assert not (tmp_path / "out").exists()


def test_satellites_with_tasks_of_one_name_are_refused_before_any_training(site: Toy, tmp_path: Path) -> None:
    values = config_of(site, satellites=[run_of(site, TINT), run_of(site, LEVEL, TINT)])
    with pytest.raises(ConfigError, match="run-1 and run-2 both have a task 'tint'; give one a `label:`"):
        fill(site, tmp_path, values)
    assert not (tmp_path / "out" / "pretrained").exists()


def test_what_is_wrong_in_a_run_is_told_before_any_work(site: Toy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key.*trials"):
        fill(site, tmp_path, config_of(site, satellites=[{**run_of(site, TINT), "trial": 2}]))
    direct = {"base_network": {"name": "tiny"}, "finetune": {"epoch": 2}}
    with pytest.raises(ConfigError, match=r"finetune\.epoch: unknown key"):
        fill(site, tmp_path, config_of(site, direct=direct))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(site: Toy, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RunDirError, match="not empty and no matrix's folder"):
        fill(site, tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_another_configuration_needs_force(site: Toy, tmp_path: Path) -> None:
    one = {"primaries": {"a": {"name": "tiny"}}, "satellites": [run_of(site, TINT, trials=1)]}
    fill(site, tmp_path, one)
    other = {**one, "satellites": [run_of(site, TINT, trials=1, seed=3)]}
    with pytest.raises(RunDirError, match="different: seed"):
        fill(site, tmp_path, other)
    results, _, recorder = fill(site, tmp_path, other, force=True)
    assert results.tasks[0].seed == 3
    assert recorder.said("primary a, tint, trial 0: computed again, changed: seed")


def test_a_damaged_result_is_told(tmp_path: Path) -> None:
    (tmp_path / "matrix.json").write_text("{}")
    with pytest.raises(RunDirError, match="not a transfer matrix"):
        read_matrix(tmp_path / "matrix.json")


# --- examples


def test_the_paper_s_matrix_loads() -> None:
    plugins = default_manager()
    config = load_experiment(ROOT / "examples/paper/matrix.yaml", MatrixConfig)
    assert list(config.primaries) == ["identity", "gender", "age", "emotion", "yaw"]
    sources = {name: choice.pretrain.source for name, choice in config.primaries.items() if choice.pretrain}
    assert all(isinstance(path, Path) and path.is_file() for path in sources.values())
    assert all(choice.pretrain.config(plugins) for choice in config.primaries.values() if choice.pretrain)
    tasks = [
        task.label or task.params.model_dump()["column"]
        for template in config.satellites
        for task in template.config(plugins, {"base_network": {"name": "dlib-face-resnet"}}).satellite_tasks
    ]
    assert tasks == ["age", "gender", "emotion", "yaw", "facial hair", "accessories"]


def test_the_smoke_configuration_fills_a_matrix(tmp_path: Path) -> None:
    arguments = ["matrix", str(ROOT / "examples/paper/matrix_smoke.yaml"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    results = read_matrix(tmp_path / "out" / "matrix.json")
    assert [len(task.cells) for task in results.tasks] == [2, 2]
    assert [task.direct is not None for task in results.tasks] == [True, False]
    assert "no direct training (no primary 'glasses' was trained)" in done.output
    assert str(tmp_path / "out" / "matrix.html") in done.output.replace("\n", "")
