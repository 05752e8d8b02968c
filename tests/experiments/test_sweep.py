"""A sweep: its combinations, what they share, what is decided on validation, and what a target picks."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import Recorder, Toy
from typer.testing import CliRunner

from facetask import cli
from facetask.errors import ConfigError, RunDirError
from facetask.experiments.config import RunTemplate, load_experiment
from facetask.experiments.pareto import pareto_front
from facetask.experiments.sweep.config import SweepConfig, checked_configs, combinations
from facetask.experiments.sweep.results import SweepNetwork, SweepResults, SweepTask, read_sweep
from facetask.experiments.sweep.run import run_sweep
from facetask.experiments.sweep.target import parse_target, pick
from facetask.running.results import read_results

LISTS = {"thresholds": [0.5, 0.01], "selectors": ["lasso", "l1-norm"]}


@dataclass(frozen=True)
class Swept:
    """A finished sweep over the toy run."""

    config: Path
    out: Path
    results: SweepResults
    recorder: Recorder


def write_config(folder: Path, toy: Toy, run: dict[str, Any] | None = None, **lists: Any) -> Path:
    """Write a sweep's configuration over two tasks of the toy run."""
    values = toy.config(satellite_tasks=toy.values["satellite_tasks"][:2], trials=1, **(run or {}))
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"run": values, **lists}))
    return path


def do_sweep(config: Path, out: Path, toy: Toy, **options: Any) -> tuple[SweepResults, Recorder]:
    """Sweep in this process."""
    recorder = Recorder()
    loaded = load_experiment(config, SweepConfig)
    options = {"jobs": 1, "plugins_dir": toy.plugins_dir, **options}
    return run_sweep(config, loaded, out, reporter=recorder, **options), recorder


@pytest.fixture(scope="module")
def swept(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("sweep")
    config = write_config(folder, toy, **LISTS)
    return Swept(config, folder / "out", *do_sweep(config, folder / "out", toy))


# --- combinations


def load(tmp_path: Path, **values: Any) -> SweepConfig:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"run": {"trials": 1}, **values}))
    return load_experiment(path, SweepConfig)


def test_every_combination_has_a_name_that_says_what_is_set(tmp_path: Path) -> None:
    sweep = load(
        tmp_path,
        selectors=["lasso", {"name": "greedy", "params": {"most": 8}}, {"name": "greedy"}],
        thresholds=[0.1, 1e-5],
        cuts=["best", {"within": 0.05}],
    )
    found = combinations(sweep)
    assert len({combination.name for combination in found}) == len(found) == 3 * 2 * 2
    assert found[0].name == "lasso_threshold-0.1_cut-best"
    assert found[0].changes == {"selector": {"name": "lasso"}, "prune.threshold": 0.1, "prune.cut": "best"}
    assert found[5].settings == {"selectors": "greedy, most 8", "thresholds": "0.1", "cuts": "within 0.05"}
    assert found[5].name == "greedy-most-8_threshold-0.1_cut-within-0.05"
    assert found[5].changes["selector"] == {"name": "greedy", "params": {"most": 8}}
    assert found[5].changes["prune.cut"] == {"within": 0.05}
    assert found[-1].name == "greedy_threshold-1e-05_cut-within-0.05"
    assert [part.curves_of for part in found[::4]] == ["lasso", "greedy, most 8", "greedy"]


def test_only_given_lists_are_varied(tmp_path: Path) -> None:
    (one,) = combinations(load(tmp_path, couple=["union"], reconstruct=[64]))
    assert one.name == "couple-union_reconstruct-64"
    assert one.changes == {"prune.couple": "union", "prune.reconstruct": 64}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "nothing is varied: give one or more of the lists selectors, thresholds"),
        ({"thresholds": []}, "nothing is varied"),
        ({"thresholds": [0.1, 0.1]}, "0.1 is given twice"),
        ({"thresholds": [1.5]}, "at most 1"),
        ({"couple": ["some"]}, "expected 'group', 'union'"),
        ({"treshold": [0.1]}, "did you mean 'thresholds'"),
        ({"thresholds": [0.1], "run": 3}, "expected a run's YAML file, or the run itself"),
    ],
)
def test_a_wrong_configuration_is_told(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + words.replace("(", r"\(")):
        load(tmp_path, **values)


def test_what_is_wrong_in_a_run_is_told_before_anything_runs(toy: Toy, tmp_path: Path) -> None:
    config = write_config(tmp_path, toy, selectors=["lasso", "laso"])
    with pytest.raises(ConfigError, match=r"selector\.name.*did you mean 'lasso'"):
        do_sweep(config, tmp_path / "out", toy)
    config = write_config(tmp_path, toy, {"prune": {"knee": "elbow"}}, thresholds=[0.1])
    sweep = load_experiment(config, SweepConfig)
    with pytest.raises(ConfigError, match="'elbow', which has no threshold"):
        checked_configs(config, sweep, combinations(sweep), toy.plugins)
    assert not (tmp_path / "out").exists()


def test_combinations_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    sweep = load(tmp_path, **LISTS)
    sent: tuple[RunTemplate, Any] = pickle.loads(pickle.dumps((sweep.run, combinations(sweep))))
    assert sent == (sweep.run, combinations(sweep))


# --- what a sweep gives


def test_every_combination_is_a_run_that_shares_what_it_can(swept: Swept) -> None:
    names = ["lasso_threshold-0.5", "lasso_threshold-0.01", "l1-norm_threshold-0.5", "l1-norm_threshold-0.01"]
    runs = swept.out / "runs"
    assert sorted(each.name for each in runs.iterdir()) == sorted(names)
    stage = {name: runs / name / "stages" / "tint" / "trial-0" for name in names}
    regress = {(stage[name] / "regress.json").read_text() for name in names}
    assert len(regress) == 1  # its seconds included: it was computed once
    curves = [(stage[name] / "curve.json").read_text() for name in names]
    assert curves[0] == curves[1] != curves[2] == curves[3]
    assert len({(stage[name] / "prune.json").read_text() for name in names}) == 4
    assert sum("regress tint" in line for line in swept.recorder.lines) == 1
    assert not any("computed again" in line for line in swept.recorder.lines)


def test_each_network_is_described_by_its_run(swept: Swept) -> None:
    assert read_sweep(swept.out / "sweep.json") == swept.results
    assert [task.name for task in swept.results.tasks] == ["brightness", "tint"]
    for position, task in enumerate(swept.results.tasks):
        assert len(task.networks) == 4
        assert [network.cost.macs for network in task.networks] == sorted(n.cost.macs for n in task.networks)
        for network in task.networks:
            results = read_results(swept.out / "runs" / network.combination / "results.json")
            run = results.tasks[position]
            assert run.prune is not None
            assert run.finetune is not None
            assert (network.step, network.test, network.cost) == ("finetuned", run.finetune.metrics, run.prune.pruned)
            assert (swept.out / network.model / "model.json").is_file()
            assert network.validation == run.finetune.metrics_validation
            best = run.finetune.epochs[run.finetune.best_epoch].validation_rmse
            assert network.validation["rmse"].mean == pytest.approx(best, rel=1e-4)


def test_fronts_are_drawn_on_validation(swept: Swept) -> None:
    for task in swept.results.tasks:
        for cost in ("macs", "size"):
            for network in task.networks:
                beaten = any(
                    (value_of(other, cost), badness(task, other)) != (value_of(network, cost), badness(task, network))
                    and value_of(other, cost) <= value_of(network, cost)
                    and badness(task, other) <= badness(task, network)
                    for other in task.networks
                )
                assert (cost in network.front) <= (not beaten)
            assert any(cost in network.front for network in task.networks)


def value_of(network: SweepNetwork, cost: str) -> int:
    return network.cost.macs if cost == "macs" else network.cost.size_bytes


def badness(task: SweepTask, network: SweepNetwork) -> float:
    value = network.validation[task.main_metric]
    assert value.mean is not None
    return -value.mean if task.higher_is_better else value.mean


def test_the_products_are_there(swept: Swept) -> None:
    html = (swept.out / "report.html").read_text()
    assert all(word in html for word in ("brightness", "tint", "l1-norm", "Pareto front", "· front"))
    figures = {path.name for path in (swept.out / "figures").iterdir()}
    assert figures == {f"{t}_{c}.{e}" for t in ("brightness", "tint") for c in ("macs", "size") for e in ("svg", "png")}


def test_budgets_of_a_network_that_tasks_share(toy: Toy, tmp_path: Path) -> None:
    run = {"prune": {"share": True, "below_cut": "need", "knee": {"filters": 6}, "cut": "3"}, "finetune": False}
    config = write_config(tmp_path, toy, run, macs=[0.9, 0.5], size=[0.5, 0.2])
    results, _ = do_sweep(config, tmp_path / "out", toy)
    brightness, tint = results.tasks
    assert [network.combination for network in brightness.networks] == [n.combination for n in tint.networks]
    for network, other in zip(brightness.networks, tint.networks, strict=True):
        assert (network.cost, network.model) == (other.cost, other.model)
        assert network.cost.size_bytes <= float(network.settings["size"]) * brightness.base.size_bytes
        heads = network.cost.macs - network.cost.conv_macs
        assert network.cost.conv_macs <= float(network.settings["macs"]) * brightness.base.macs + heads
    assert len({network.cost.size_bytes for network in brightness.networks}) > 1
    html = (tmp_path / "out/report.html").read_text()
    assert "The number at a point is its budget, as a share of the base network’s MACs." in html


def test_a_finished_sweep_is_not_run_again_and_can_grow(swept: Swept, toy: Toy) -> None:
    written = {path: path.stat().st_mtime_ns for path in swept.out.glob("runs/*/results.json")}
    again, recorder = do_sweep(swept.config, swept.out, toy)
    assert again == swept.results
    assert recorder.said("4 combinations, 4 of them finished already")
    config = write_config(swept.config.parent, toy, **{**LISTS, "thresholds": [0.5, 0.2, 0.01]})
    grown, recorder = do_sweep(config, swept.out, toy)
    assert len(grown.tasks[0].networks) == 6
    assert recorder.said("6 combinations, 4 of them finished already")
    assert not recorder.said("curve tint")  # taken from the finished ones
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_a_combination_that_fails_does_not_lose_the_others(toy: Toy, tmp_path: Path) -> None:
    config = write_config(tmp_path, toy, {"finetune": False}, cuts=["no.such", "best"])
    arguments = ["sweep", str(config), "--out", str(tmp_path / "out"), "--plugins-dir", str(toy.plugins_dir)]
    found = CliRunner().invoke(cli.app, [*arguments, "--jobs", "1", "--target", "size<=99%"])
    assert found.exit_code == 2
    assert "1 of 2 combinations failed; cut-no.such: " in found.stderr
    assert "tint: cut-best: accuracy" in found.stdout
    assert f"facetask predict {tmp_path / 'out'}/runs/cut-best/model/tint" in found.stdout
    results = read_sweep(tmp_path / "out" / "sweep.json")
    assert list(results.failed) == ["cut-no.such"]
    assert [network.step for network in results.tasks[0].networks] == ["pruned"]
    assert results.tasks[0].networks[0].test == results.tasks[0].networks[0].test_pruned


def test_a_sweep_of_which_everything_fails_says_why_once(toy: Toy, tmp_path: Path) -> None:
    config = write_config(tmp_path, toy, cuts=["no.such", "nor.such"])
    with pytest.raises(RunDirError, match=r"every combination fails: cut-no.such: .*; cut-nor.such: "):
        do_sweep(config, tmp_path / "out", toy)


def test_runs_of_an_older_version_are_not_compared_by_what_they_lack(swept: Swept, toy: Toy, tmp_path: Path) -> None:
    out = shutil.copytree(swept.out, tmp_path / "out")
    path = out / "runs" / "lasso_threshold-0.5" / "results.json"
    raw = json.loads(path.read_text())
    for task in raw["tasks"]:
        del task["finetune"]["metrics_validation"]
    path.write_text(json.dumps(raw))
    found, _ = do_sweep(swept.config, out, toy)
    compared = {network.combination for network in found.tasks[0].networks}
    assert {"lasso_threshold-0.5", "lasso_threshold-0.01"} - compared == {"lasso_threshold-0.5"}
    assert "without metrics on validation images; use --force" in found.failed["lasso_threshold-0.5"]


def test_foreign_and_changed_folders_are_refused(swept: Swept, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirError, match="no sweep's folder"):
        do_sweep(swept.config, tmp_path, toy)
    changed = write_config(tmp_path, toy, {"seed": 9}, **LISTS)
    with pytest.raises(RunDirError, match="holds a run of another configuration; different: seed"):
        do_sweep(changed, swept.out, toy)


# --- fronts and targets

POINTS = st.lists(st.tuples(st.integers(1, 20), st.one_of(st.none(), st.integers(-9, 9))), max_size=12)


@given(POINTS, st.booleans())
def test_a_front_holds_what_nothing_beats(points: list[tuple[int, int | None]], higher: bool) -> None:
    def beats(a: tuple[int, int | None], b: tuple[int, int | None]) -> bool:
        assert a[1] is not None
        assert b[1] is not None
        as_good = a[1] >= b[1] if higher else a[1] <= b[1]
        return a != b and a[0] <= b[0] and as_good

    front = pareto_front([cost for cost, _ in points], [quality for _, quality in points], higher_is_better=higher)
    known = [point for point in points if point[1] is not None]
    expected = {point for point in known if not any(beats(other, point) for other in known)}
    assert [points[index] for index in front] == sorted(expected)


@pytest.mark.parametrize(
    ("text", "name", "limit", "share"),
    [
        ("macs<=20%", "macs", 0.2, True),
        ("MACs <= 50M", "macs", 50e6, False),
        ("params<=1e6", "params", 1e6, False),
        ("size<=500kB", "size", 500e3, False),
        ("size<=5%", "size", 0.05, True),
        ("rmse<=8", "rmse", 8.0, False),
        ("accuracy>=0.9", "accuracy", 0.9, False),
        ("accuracy>=90%", "accuracy", 0.9, False),
        ("f1[goatee]>=.4", "f1[goatee]", 0.4, False),
    ],
)
def test_targets_are_read(text: str, name: str, limit: float, share: bool) -> None:
    found = parse_target(text)
    assert (found.name, found.share) == (name, share)
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("small", "expected a condition such as"),
        ("macs<20%", "expected a condition"),
        ("macs<=", "expected a condition"),
        ("macs<=few", "expected a condition"),
        ("rmse<=-1", "expected a condition"),
        ("macs>=20%", "lower is better for macs; write macs<=20%"),
        ("accuracy<=90%", "higher is better for accuracy; write accuracy>=90%"),
        ("rmse<=8%", "rmse is given without a unit"),
        ("macs<=5MB", "macs is given in plain numbers or % or k or M or G"),
        ("acuracy>=0.9", "did you mean 'accuracy'"),
    ],
)
def test_wrong_targets_are_told(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        parse_target(text)
    assert words in str(found.value)


@pytest.fixture
def invented(swept: Swept) -> Callable[..., SweepTask]:
    """Return a task with networks of given MACs, sizes and validation RMSEs; their test metrics say the opposite."""

    def make(*networks: tuple[int, int, float]) -> SweepTask:
        raw = json.loads(swept.results.tasks[0].model_dump_json())
        some = raw["networks"][0]
        raw["base"] |= {"macs": 1000, "size_bytes": 1000}
        raw["networks"] = [
            some
            | {
                "combination": f"n{index}",
                "validation": {"rmse": {"mean": rmse, "std": 0}},
                "test": {"rmse": {"mean": 99 - rmse, "std": 0}},
            }
            | {"cost": some["cost"] | {"macs": macs, "size_bytes": size}}
            for index, (macs, size, rmse) in enumerate(networks)
        ]
        return SweepTask.model_validate(raw)

    return make


@pytest.mark.parametrize(
    ("targets", "picked"),
    [
        (["macs<=50%"], "n1"),  # the most accurate of those small enough, on validation
        (["macs<=100"], "n0"),
        (["size<=5%"], "n0"),
        (["rmse<=8"], "n1"),  # the fewest MACs of those good enough
        (["rmse<=6"], "n2"),
        (["rmse<=8", "size<=25%"], "n2"),  # n1 is too large
        (["macs<=90%", "size<=50%"], "n2"),
    ],
)
def test_a_target_picks_what_is_best_in_the_rest(
    invented: Callable[..., SweepTask], targets: list[str], picked: str
) -> None:
    task = invented((100, 50, 12.0), (400, 300, 7.0), (800, 200, 5.0), (900, 900, 5.0))
    assert pick(task, [parse_target(text) for text in targets]).combination == picked


def test_where_nothing_fits_the_nearest_is_named(invented: Callable[..., SweepTask]) -> None:
    task = invented((100, 50, 12.0), (400, 300, 7.0), (800, 200, 5.0))
    with pytest.raises(RunDirError) as found:
        pick(task, [parse_target("macs<=35%"), parse_target("rmse<=7")])
    assert (
        "none of 3 networks fulfils macs<=35% and rmse<=7; the nearest is n1, which misses macs<=35% (40.0 %)"
        in str(found.value)
    )
    with pytest.raises(RunDirError, match="no metric 'auc'"):
        pick(task, [parse_target("auc>=0.5")])
