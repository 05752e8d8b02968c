from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import ROOT, Toy
from typer.testing import CliRunner

from facetask import ConfigError, cli
from facetask.data.splits import Split
from facetask.errors import RunDirError
from facetask.experiments.blind.config import BlindConfig
from facetask.experiments.blind.erase import erase, fit_eraser
from facetask.experiments.blind.page import blind_lines, blind_table
from facetask.experiments.blind.probe import chance, probe
from facetask.experiments.blind.results import BlindResults, Step, read_blind
from facetask.experiments.blind.run import blind, removal_order
from facetask.experiments.config import load_experiment
from facetask.networks.heads import fit_head
from facetask.progress import Silent
from facetask.running.prepare import prepare, respond
from facetask.statistics.moments import Moments
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.satellite import Satellite, seed_of_trial

CUT = "3"


def run_of(toy: Toy, **changes: Any) -> dict[str, Any]:
    """Return a run's configuration, cut at the last tap."""
    return toy.config(**{"prune": {"cut": CUT}, "finetune": False, **changes})


def make(toy: Toy, folder: Path, run: dict[str, Any] | None = None, **changes: Any) -> BlindResults:
    """Write a configuration and do what it says."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"run": run or run_of(toy), "task": "brightness", "exclude_tasks": ["tint"], "filters": [0, 2], **changes}
    (folder / "blind.yaml").write_text(yaml.safe_dump(values))
    config = load_experiment(folder / "blind.yaml", BlindConfig)
    return blind(config, folder / "out", plugins=toy.plugins)


@pytest.fixture(scope="module")
def found(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[BlindResults, Path]:
    """What is found for two excluded tasks, with projection, and its folder."""
    folder = tmp_path_factory.mktemp("blind")
    return make(toy, folder, exclude_tasks=["tint", "level"], filters=[3, 1], project=True), folder / "out"


def steps_of(results: BlindResults, way: str) -> dict[int, Step]:
    return {step.removed: step for step in results.steps if step.way == way}


# --- erasure


def mixed(seed: int, n: int = 80, p: int = 6, m: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated responses and targets that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) + 5 * rng.normal(size=p)
    return x, x @ rng.normal(size=(p, m)) + rng.normal(size=(n, m))


def test_erasure_is_the_closed_form() -> None:
    x, y = mixed(0)
    eraser = fit_eraser(Moments.from_arrays(x, y))
    sigma, cross = np.cov(x.T, bias=True), (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    values, vectors = np.linalg.eigh(sigma)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    inverse = np.linalg.inv(root)
    projector = (inverse @ cross) @ np.linalg.pinv(inverse @ cross)
    expected = x - (x - x.mean(0)) @ (root @ projector @ inverse).T
    np.testing.assert_allclose(eraser.erased(x), expected, atol=1e-9)
    assert eraser.n_directions == 2


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), p=st.integers(3, 8), m=st.integers(1, 2))
def test_nothing_linear_is_left_in_training(seed: int, p: int, m: int) -> None:
    x, y = mixed(seed, p=p, m=m)
    left = fit_eraser(Moments.from_arrays(x, y)).erased(x)
    np.testing.assert_allclose(left.mean(0), x.mean(0), atol=1e-8)
    covariance = (left - left.mean(0)).T @ (y - y.mean(0)) / len(x)
    assert np.abs(covariance / (x.std(0)[:, None] * y.std(0))).max() < 1e-8
    assert np.linalg.matrix_rank(left - left.mean(0), tol=1e-6) == p - m


def test_no_map_that_erases_as_much_moves_responses_less() -> None:
    x, y = mixed(3, m=1)
    left = fit_eraser(Moments.from_arrays(x, y)).erased(x)
    coef = np.linalg.lstsq(x - x.mean(0), y - y.mean(0), rcond=None)[0]
    direction = (x - x.mean(0)).T @ (y - y.mean(0))
    direction /= np.linalg.norm(direction)
    orthogonal = x - (x - x.mean(0)) @ direction @ direction.T  # also uncorrelated with y, by another map
    assert np.abs((orthogonal - x.mean(0)).T @ (y - y.mean(0))).max() < 1e-7
    assert np.square(left - x).sum() < np.square(orthogonal - x).sum()
    assert np.abs((left - x.mean(0)) @ coef).max() < 1e-8  # the regression's coefficients read nothing


def test_at_most_so_many_directions_are_erased_the_strongest() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    y = np.stack([10 * x[:, 0], x[:, 1]], axis=1)
    left, n_directions = erase(x, y, np.arange(500), most=1)
    assert n_directions == 1
    assert abs(np.corrcoef(left[:, 0], y[:, 0])[0, 1]) < 0.1 or left[:, 0].std() < 1e-3
    assert np.corrcoef(left[:, 1], y[:, 1])[0, 1] > 0.99


def test_targets_known_on_different_images_are_all_erased() -> None:
    x, y = mixed(4, n=200)
    y[:60, 0], y[150:, 1] = np.nan, np.nan
    left, n_directions = erase(x, y, np.arange(200))
    assert n_directions == 2
    for output in range(2):
        known = ~np.isnan(y[:, output])
        part, target = left[known] - left[known].mean(0), y[known, output] - y[known, output].mean()
        assert np.abs(part.T @ target / len(part)).max() < 1e-8


def test_what_is_erased_entirely_is_constant() -> None:
    x, _ = mixed(5, p=3)
    left, n_directions = erase(x, x[:, :3].copy(), np.arange(60))
    assert n_directions == 3
    np.testing.assert_array_equal(left, np.broadcast_to(x[:60].mean(0), x.shape))


def test_dead_responses_stay_as_they_are() -> None:
    x, y = mixed(6)
    x[:, 2] = 7.0
    assert (erase(x, y, np.arange(80))[0][:, 2] == 7.0).all()


# --- probes


class Fake(Satellite):
    """A task with given values and nothing else."""

    def __init__(self, spec: TaskSpec, values: np.ndarray) -> None:
        object.__setattr__(self, "spec", spec)
        object.__setattr__(self, "values", values)


def split_of(n: int) -> Split:
    return Split(*np.split(np.arange(n), [n * 6 // 10, n * 8 // 10]))


def test_the_non_linear_probe_reads_what_no_linear_one_can() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 3))
    task = Fake(TaskSpec("xor", "binary", classes=("no", "yes")), (x[:, :1] * x[:, 1:2] > 0).astype(float))
    split = split_of(800)
    found = probe(x, task, split, 0)
    assert found["accuracy"] > 0.9
    assert fit_head(x, task, split).metrics["accuracy"] < 0.65
    assert probe(x, task, split, 0) == found


@pytest.mark.parametrize(
    ("spec", "metric", "least"),
    [
        (TaskSpec("number", "continuous"), "r2", 0.9),
        (TaskSpec("which", "nominal", classes=("a", "b", "c")), "accuracy", 0.85),
        (TaskSpec("marks", "multilabel", classes=("a", "b")), "auc", 0.95),
        (TaskSpec("bins", "binned", classes=("a", "b"), edges=((50.0,),)), "accuracy", 0.9),
    ],
)
def test_probes_read_every_kind(spec: TaskSpec, metric: str, least: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(900, 4)).astype(np.float32)
    score = x[:, :1] + 0.1 * rng.normal(size=(900, 1))
    values = 50 + 30 * score
    if spec.kind == "nominal":
        values = np.digitize(score, [-0.5, 0.5]).astype(float)
    if spec.kind == "multilabel":
        values = np.concatenate([score > 0, x[:, 1:2] > 0], axis=1).astype(float)
        values[::7, 0] = np.nan
    task, split = Fake(spec, values), split_of(900)
    found, trivial = probe(x, task, split, 0), chance(task, split)
    assert found[metric] > least
    assert found.keys() == trivial.keys()
    assert trivial[metric] < 0.6


def test_a_probe_of_nothing_is_at_chance() -> None:
    rng = np.random.default_rng(2)
    task = Fake(TaskSpec("coin", "binary", classes=("no", "yes")), rng.integers(0, 2, (800, 1)).astype(float))
    assert abs(probe(np.full((800, 5), 3.0), task, split_of(800), 0)["auc"] - 0.5) < 1e-9


# --- which filters go first


def test_excluded_tasks_take_turns() -> None:
    orders = [np.array([3, 1]), np.array([3, 2, 0])]
    assert removal_order(orders, 5).tolist() == [3, 1, 2, 0, 4]
    assert removal_order(orders[:1], 4).tolist() == [3, 1, 0, 2]


# --- the whole


def test_every_amount_and_way_is_there(found: tuple[BlindResults, Path]) -> None:
    results, _ = found
    ways = [(step.way, step.removed) for step in results.steps]
    expected = [("chosen", 0), ("chosen", 1), ("chosen", 3), ("random", 1), ("random", 3)]
    assert ways == [*expected, ("projected", 0), ("projected", 1), ("projected", 3)]
    for step in results.steps:
        assert [len(filters) for filters in step.filters] == [step.removed] * 2
        assert step.excluded.keys() == {"tint", "level"}
        assert all((n > 0) == (step.way == "projected") for n in step.directions)
    chosen, projected = steps_of(results, "chosen"), steps_of(results, "projected")
    for trial in range(2):
        assert set(chosen[1].filters[trial]) < set(chosen[3].filters[trial])
        assert projected[3].filters == chosen[3].filters
    assert results.cuts == [CUT] * 2


def test_with_nothing_removed_it_is_the_run_s_own_regression(
    found: tuple[BlindResults, Path], toy: Toy, tmp_path: Path
) -> None:
    tasks = {task.name: task for task in toy.run(tmp_path / "run", run_of(toy), until="regress")[0].results.tasks}
    step = found[0].steps[0]
    for name, metrics in (("brightness", step.kept), ("tint", step.excluded["tint"].linear)):
        expected = next(tap.metrics for tap in tasks[name].regress.taps if tap.tap == CUT)
        assert metrics.keys() == expected.keys()
        for metric, value in expected.items():
            assert metrics[metric].mean == pytest.approx(value.mean, nan_ok=True)
    assert found[0].task.chance == tasks["brightness"].regress.baseline
    assert found[0].excluded[1].chance == tasks["level"].regress.baseline


def test_metrics_are_those_of_the_filters_left(found: tuple[BlindResults, Path], toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run_of(toy)))
    config = load_experiment(found[1].parent / "blind.yaml", BlindConfig).run.config(toy.plugins)
    materials = prepare(config, toy.plugins, Silent())
    x, task = respond(materials, Silent()).tap(CUT), materials.tasks[0]
    for way in ("chosen", "random"):
        step = steps_of(found[0], way)[3]
        errors = []
        for trial, removed in enumerate(step.filters):
            left = x[:, [index for index in range(x.shape[1]) if index not in removed]]
            errors.append(fit_head(left, task, task.split(seed_of_trial(config.seed, trial))).metrics["rmse"])
        assert step.kept["rmse"].mean == pytest.approx(np.mean(errors))
        assert step.kept["rmse"].std == pytest.approx(np.std(errors, ddof=1))


def test_test_labels_of_the_excluded_task_choose_nothing(toy: Toy, tmp_path: Path) -> None:
    run = run_of(toy, trials=1)
    before = make(toy, tmp_path / "before", run, project=True)
    root = Path(toy.values["data"]["params"]["root"])
    config = load_experiment(tmp_path / "before/blind.yaml", BlindConfig).run.config(toy.plugins)
    materials = prepare(config, toy.plugins, Silent())
    task = materials.tasks[1]
    test = {materials.images.data.paths[row].name for row in task.split(seed_of_trial(config.seed, 0)).test}
    lines = (root / "labels.csv").read_text().splitlines()
    column = lines[0].split(",").index("tint")
    other = {"warm": "cold", "cold": "warm"}
    names = sorted({line.split(",")[column] for line in lines[1:]})
    other = dict(zip(names, reversed(names), strict=True))
    turned = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        if cells[0] in test:
            cells[column] = other[cells[column]]
        turned.append(",".join(cells))
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces/images").symlink_to(root / "images")
    (tmp_path / "faces/labels.csv").write_text("\n".join(turned) + "\n")
    data = {"name": "table", "params": {"root": str(tmp_path / "faces"), "group_column": "person"}}
    after = make(toy, tmp_path / "after", {**run, "data": data}, project=True)
    for one, another in zip(before.steps, after.steps, strict=True):
        assert (one.filters, one.kept) == (another.filters, another.kept)
    assert before.steps[0].excluded != after.steps[0].excluded


def test_an_excluded_task_keeps_its_own_split(toy: Toy, tmp_path: Path) -> None:
    tasks = [toy.values["satellite_tasks"][0], {**toy.values["satellite_tasks"][1], "split": {"stratify_by": "tint"}}]
    alike = make(toy, tmp_path / "alike", run_of(toy, trials=1, satellite_tasks=toy.values["satellite_tasks"][:2]))
    own = make(toy, tmp_path / "own", run_of(toy, trials=1, satellite_tasks=tasks))
    assert own.steps[0].kept == alike.steps[0].kept
    assert own.excluded[0].chance != alike.excluded[0].chance


def test_the_cut_is_where_the_run_cuts_for_the_kept_task(toy: Toy, tmp_path: Path) -> None:
    run = run_of(toy, prune={"cut": "best"}, trials=1)
    best = toy.run(tmp_path / "run", run, until="regress")[0].results.tasks[0].regress.best_tap
    assert make(toy, tmp_path, run, filters=[1]).cuts == [best]


# --- files, messages and the command


def test_files(found: tuple[BlindResults, Path]) -> None:
    results, folder = found
    assert read_blind(folder / "blind.json") == results
    page = (folder / "blind.html").read_text(encoding="utf-8")
    assert "A network for brightness that is blind to tint and level" in page
    assert page.count("<svg") >= 2
    assert (folder / "figures/blind.png").stat().st_size > 10_000
    lines = list(blind_lines(results))
    assert lines[0].startswith("3 chosen filters removed: brightness RMSE ")
    assert lines[1].startswith("Labels erased: brightness RMSE ")
    table = blind_table(results)
    assert len(table.rows) == len(results.steps) + 1
    assert {len(row) for row in table.rows} == {len(table.head)}
    (folder / "bad.json").write_text(json.dumps({"format_version": 9}))
    with pytest.raises(RunDirError, match="not a blind network's results"):
        read_blind(folder / "bad.json")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "brightnes"}, "task: the run has no task 'brightnes'; did you mean 'brightness'"),
        ({"exclude_tasks": ["tints"]}, "exclude_tasks: the run has no task 'tints'; did you mean 'tint'"),
        ({"exclude_tasks": ["brightness"]}, "is the task to keep; it cannot be excluded as well"),
        ({"exclude_tasks": ["tint", "tint"]}, "'tint' is given 2 times"),
        ({"exclude_tasks": []}, "exclude_tasks: expected"),
        ({"filters": [-1]}, "filters"),
        ({"filters": [4096]}, r"filters: 4096 cannot be removed, 3 has \d+; leave at least one"),
        ({"project": 0}, "project"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(toy: Toy, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make(toy, tmp_path, **changes)


def test_the_command(toy: Toy, tmp_path: Path) -> None:
    values = {"run": run_of(toy, trials=1), "task": "brightness", "exclude_tasks": ["marks"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    arguments = ["blind", str(tmp_path / "mine.yaml"), "--plugins-dir", str(toy.plugins_dir)]
    arguments += ["-o", "filters=[1]", "-o", "project=1"]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "1 chosen filters removed" not in done.stdout
    assert "1 chosen filter removed: brightness RMSE" in done.stdout
    assert len(read_blind(tmp_path / "out/blind.json").steps) == 5


@pytest.mark.parametrize("name", ["age", "smiling", "smoke"])
def test_the_examples_are_configurations(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACETASK_DATA", str(tmp_path))
    config = load_experiment(ROOT / f"examples/paper/blind_{name}.yaml", BlindConfig)
    assert isinstance(config.run.source, dict)
    names = [task.get("label") or task["params"]["column"] for task in config.run.source["satellite_tasks"]]
    assert config.places(names)[0] == 0
