"""``facetask rank`` on toy networks: the same numbers as a run's, orders that follow from them, files and errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toy_runs import Recorder, Toy, make_toy
from typer.testing import CliRunner

from facetask import ConfigError, DataError, PluginManager, cli
from facetask.context import run_context
from facetask.experiments.config import load_experiment
from facetask.experiments.rank.config import RankConfig
from facetask.experiments.rank.judged import class_labels
from facetask.experiments.rank.page import clearly_first, rank_lines
from facetask.experiments.rank.results import Place, RankedTask, Ranking, RankResults, read_rank
from facetask.experiments.rank.run import rank
from facetask.running.results import Metric
from facetask.tasks.satellite import load_satellites

MORE = """
from facetask import Architecture, Params, Preprocessing, Score, Weights, hookimpl
from facetask.testing import tiny_network


class Seed(Params):
    seed: int = 5


@hookimpl
def facetask_architectures():
    return [
        Architecture(
            name="other",
            build=lambda params: tiny_network(seed=1),
            weights=lambda params: Weights(
                state=tiny_network(seed=params.seed).state_dict(), licence="MIT", source="luck"
            ),
            preprocessing=lambda params: Preprocessing(
                size=(32, 32), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3
            ),
            params=Seed,
        )
    ]


def numbers_only(problem, params):
    return -problem.rmse if problem.kind in ("continuous", "binned") else float("nan")


@hookimpl
def facetask_scores():
    return [Score(name="numbers-only", score=numbers_only)]
"""
SCORES = ["h-score", "logme", "numbers-only", "regression", "transrate"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A toy run's ingredients with a second network and a score of its own."""
    toy = make_toy(tmp_path_factory.mktemp("rank"))
    (toy.plugins_dir / "more.py").write_text(MORE)
    return Toy(toy.plugins_dir, toy.config_path, toy.values, PluginManager(toy.plugins_dir))


def ranking(site: Toy, folder: Path, reporter: Recorder | None = None, **changes: Any) -> RankResults:
    """Write a ranking's configuration and do it."""
    values = {"run": str(site.config_path), "base_networks": [{"name": "tiny"}, {"name": "other"}], **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rank.yaml").write_text(yaml.safe_dump(values))
    with run_context(site.plugins):
        config = load_experiment(folder / "rank.yaml", RankConfig)
    return rank(config, folder / "out", plugins=site.plugins, reporter=reporter)


@pytest.fixture(scope="module")
def ranked(site: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[RankResults, Path]:
    """A finished ranking and its folder."""
    folder = tmp_path_factory.mktemp("ranked")
    return ranking(site, folder), folder / "out"


def task_of(results: RankResults, name: str) -> RankedTask:
    return next(task for task in results.tasks if task.name == name)


# --- what is found


def test_every_tap_has_the_run_s_own_regression(ranked: tuple[RankResults, Path], site: Toy, tmp_path: Path) -> None:
    for run_task in site.run(tmp_path / "run", until="regress")[0].results.tasks:
        task = task_of(ranked[0], run_task.name)
        taps = next(network.taps for network in task.networks if network.network == "tiny")
        assert [tap.tap for tap in taps] == [tap.tap for tap in run_task.regress.taps]
        for tap, expected in zip(taps, run_task.regress.taps, strict=True):
            assert tap.metrics.keys() == expected.metrics.keys()
            for name, metric in expected.metrics.items():
                assert tap.metrics[name].mean == pytest.approx(metric.mean, nan_ok=True)
                assert tap.metrics[name].std == pytest.approx(metric.std, nan_ok=True)


def test_networks_stand_in_each_score_s_order_at_their_best_tap(ranked: tuple[RankResults, Path]) -> None:
    results, _ = ranked
    assert [score.name for score in results.scores] == SCORES
    assert [task.name for task in results.tasks] == ["brightness", "tint", "bins", "level", "marks"]
    for task in results.tasks:
        for found in task.rankings:
            expected = {}
            for network in task.networks:
                scores = {tap.tap: tap.scores[found.score].mean for tap in network.taps}
                known = {tap: score for tap, score in scores.items() if score is not None}
                if known:
                    expected[network.network] = max(known.items(), key=lambda pair: pair[1])
            order = sorted(expected, key=lambda network: -expected[network][1])
            assert [place.network for place in found.places] == order
            assert [(place.tap, place.score.mean) for place in found.places] == [expected[name] for name in order]


def test_a_score_that_does_not_apply_ranks_nothing(ranked: tuple[RankResults, Path]) -> None:
    places = {
        task.name: next(found.places for found in task.rankings if found.score == "numbers-only")
        for task in ranked[0].tasks
    }
    assert {name for name, found in places.items() if found} == {"brightness", "bins"}
    assert any(re.match(r"\s+numbers-only\s+does not apply", line) for line in rank_lines(ranked[0]))


def test_the_regression_s_validation_error_is_what_its_score_says(ranked: tuple[RankResults, Path]) -> None:
    task = task_of(ranked[0], "brightness")
    for network in task.networks:
        taps = sorted(network.taps, key=lambda tap: tap.validation_rmse.mean or 0)
        order = sorted(network.taps, key=lambda tap: tap.scores["numbers-only"].mean or 0, reverse=True)
        assert [tap.tap for tap in taps] == [tap.tap for tap in order]


def test_agreement_over_taps_counts_them(ranked: tuple[RankResults, Path]) -> None:
    for task in ranked[0].tasks:
        counts = {(a.score, a.network): a.n for a in task.over_taps if a.score != "numbers-only"}
        assert set(counts.values()) == {3, 6}
        assert all((n == 6) == (network is None) for (_, network), n in counts.items())


def test_files(ranked: tuple[RankResults, Path]) -> None:
    results, folder = ranked
    assert read_rank(folder / "rank.json") == results
    page = (folder / "rank.html").read_text(encoding="utf-8")
    assert all(
        text in page for text in ("Which network for which task", "brightness", "weighted τ", "transrate", "luck")
    )


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([("a", 3.0, 0.1), ("b", 2.0, 0.1), ("c", 1.0, 0.1)], "a"),
        ([("a", 3.0, 0.1), ("b", 2.95, 0.1), ("c", 1.0, 0.1)], None),
        ([("a", 3.0, 0.1), ("b", 2.5, 0.1), ("c", 1.0, 3.0)], None),
        ([("a", 3.0, 0.0), ("b", 3.0, 0.0)], None),
        ([("a", 3.0, 0.1)], "a"),
        ([], None),
    ],
)
def test_a_first_place_must_be_won_by_more_than_the_spread(
    scores: list[tuple[str, float, float]], expected: str | None
) -> None:
    places = [
        Place(network=network, tap="0", score=Metric(mean=mean, std=std), metrics={}) for network, mean, std in scores
    ]
    assert clearly_first(Ranking(score="logme", places=places)) == expected


def test_the_same_again_and_a_change_of_seed(ranked: tuple[RankResults, Path], site: Toy, tmp_path: Path) -> None:
    first, again = ranked[0], ranking(site, tmp_path)
    assert [task.model_dump() for task in again.tasks] == [task.model_dump() for task in first.tasks]


# --- classes for scores that need them


def test_class_labels_of_every_kind(site: Toy) -> None:
    from facetask.config import load_config

    config = load_config(site.config_path, plugins=site.plugins)
    data = site.plugins.find("dataset", "table").load(config.data.params)  # type: ignore[union-attr]
    tasks = {task.spec.name: task for task in load_satellites(config.satellite_tasks, config.split, data, site.plugins)}
    rows = np.arange(len(data))[1:]
    value = data.columns["brightness"][rows].astype(float)
    found = {name: class_labels(task, rows, 4) for name, task in tasks.items()}
    known = ~np.isnan(value)
    assert found["brightness"].shape == (len(rows), 1)
    assert set(found["brightness"][~known, 0]) == {-1}
    counts = np.bincount(found["brightness"][known, 0])
    assert len(counts) == 4
    assert np.ptp(counts) <= 1
    assert (np.diff(found["brightness"][known, 0][np.argsort(value[known])]) >= 0).all()
    assert found["bins"][known, 0].tolist() == np.digitize(value[known], [100, 150]).tolist()
    assert found["tint"].tolist() == tasks["tint"].values[rows].astype(int).tolist()
    assert found["level"].tolist() == tasks["level"].values[rows].astype(int).tolist()
    assert found["marks"].shape == (len(rows), 2)
    assert ((found["marks"] == -1) == np.isnan(tasks["marks"].values[rows])).all()


# --- against finetuned networks


@pytest.fixture(scope="module")
def runs(site: Toy, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A finetuned run of each network, for one task."""
    folder = tmp_path_factory.mktemp("finetuned")
    config = site.config(satellite_tasks=site.values["satellite_tasks"][:1])
    for name in ("tiny", "other"):
        site.run(folder / name, {**config, "base_network": {"name": name}})
    return [folder / "tiny", folder / "other"]


def test_scores_are_compared_with_finetuned_networks(site: Toy, runs: Sequence[Path], tmp_path: Path) -> None:
    results = ranking(site, tmp_path, finetuned=[str(path) for path in runs])
    task = task_of(results, "brightness")
    assert {found.network: found.run for found in task.finetuned} == {path.name: str(path) for path in runs}
    reached = {found.network: found.metric.mean or 0 for found in task.finetuned}
    best = min(reached, key=lambda network: reached[network])
    for agreement, found in zip(task.over_networks, task.rankings, strict=True):
        right = found.places[0].network == best
        assert agreement.n == 2
        assert agreement.weighted_tau == pytest.approx(1 if right else -1)
        assert agreement.chance == (0.5 if right else 1)
    assert not task_of(results, "tint").finetuned
    assert "2 networks are too few to judge a score by" in (tmp_path / "out/rank.html").read_text(encoding="utf-8")


def test_runs_of_other_networks_are_left_out_and_said(site: Toy, runs: Sequence[Path], tmp_path: Path) -> None:
    recorder = Recorder()
    networks = [{"name": "tiny"}, {"name": "other", "params": {"seed": 6}}]
    results = ranking(site, tmp_path, recorder, base_networks=networks, finetuned=[str(path) for path in runs])
    assert [found.network for found in task_of(results, "brightness").finetuned] == ["tiny"]
    assert not task_of(results, "brightness").over_networks
    assert any(str(runs[1]) in text and "none of this ranking's networks" in text for text in recorder.warnings)


def test_a_run_on_other_images_is_said(site: Toy, runs: Sequence[Path], tmp_path: Path) -> None:
    recorder = Recorder()
    networks = [{"name": "tiny", "crop": 0.1}, {"name": "other"}]
    tasks = site.values["satellite_tasks"][:1]
    changes = {"base_networks": networks, "finetuned": [str(path) for path in runs]}
    ranking(site, tmp_path, recorder, run=site.config(satellite_tasks=tasks), **changes)
    assert recorder.warnings == [f"finetuned: {runs[0]}: differs in data.crop"]


def test_another_task_of_the_same_name_is_an_error(site: Toy, runs: Sequence[Path], tmp_path: Path) -> None:
    tasks = [{"name": "column", "label": "brightness", "params": {"column": "tint", "kind": "binary"}}]
    with pytest.raises(DataError, match="its task 'brightness' is another one: continuous with 59"):
        ranking(site, tmp_path, run=site.config(satellite_tasks=tasks), finetuned=[str(runs[0])])


def test_two_runs_of_one_network_are_an_error(site: Toy, runs: Sequence[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are both of tiny and 'brightness'; give one of them"):
        ranking(site, tmp_path, finetuned=[str(runs[0]), str(runs[0])])


# --- configurations


def test_a_saved_model_is_a_base_network_and_framing_counts(site: Toy, runs: Sequence[Path], tmp_path: Path) -> None:
    networks = [{"model": str(runs[0] / "model/brightness"), "label": "pruned"}, {"name": "tiny", "crop": 0.2}]
    task = site.values["satellite_tasks"][:1]
    results = ranking(site, tmp_path, run=site.config(satellite_tasks=task), base_networks=networks)
    pruned, cropped = results.networks
    assert (pruned.name, cropped.name, cropped.crop) == ("pruned", "tiny", 0.2)
    assert pruned.n_filters < cropped.n_filters
    whole = ranking(site, tmp_path / "whole", run=site.config(satellite_tasks=task), base_networks=[{"name": "tiny"}])
    scores = [found.tasks[0].networks[-1].taps[0].scores["logme"].mean for found in (results, whole)]
    assert scores[0] != scores[1]


def test_several_runs_and_params_of_scores(site: Toy, tmp_path: Path) -> None:
    tasks = site.values["satellite_tasks"]
    runs = [site.config(satellite_tasks=tasks[:1], trials=1), site.config(satellite_tasks=tasks[3:4])]
    scores = [{"name": "h-score"}, {"name": "h-score", "label": "shrunk", "params": {"shrinkage": "ledoit-wolf"}}]
    results = ranking(site, tmp_path, run=runs, scores=scores, base_networks=[{"name": "tiny"}])
    assert [(task.name, task.run, task.trials) for task in results.tasks] == [
        ("brightness", "run 1", 1),
        ("level", "run 2", 2),
    ]
    for tap in results.tasks[1].networks[0].taps:
        plain, shrunk = tap.scores["h-score"].mean, tap.scores["shrunk"].mean
        assert plain is not None
        assert shrunk is not None
        assert 0 < shrunk < plain
    with pytest.raises(ConfigError, match="run 1 and run 2 both have a task 'brightness'"):
        ranking(site, tmp_path, run=[runs[0], runs[0]])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scores": [{"name": "logm"}]}, r"scores\.0\.name: unknown score 'logm'; did you mean 'logme'"),
        ({"scores": []}, "scores: expected a list of at least 1"),
        ({"scores": [{"name": "transrate", "params": {"epsilon": 0}}]}, r"scores\.0\.params\.epsilon: .*more than 0"),
        ({"scores": [{"name": "logme"}, {"name": "logme"}]}, "2 of them are called 'logme'; give each a label"),
        (
            {"base_networks": [{"name": "tini"}]},
            r"base_networks\.0\.name: unknown architecture 'tini'; did you mean 'tiny'",
        ),
        ({"base_networks": [{"name": "other", "params": {"seed": "x"}}]}, r"params\.seed: expected a whole number"),
        (
            {"base_networks": [{"label": "x"}]},
            r"expected a mapping such as \{name: …, params: \{…\}\}",
        ),
        ({"base_networks": [{"name": "tiny", "model": "x"}]}, "for a saved model"),
        ({"label_bins": 1}, "label_bins: expected at least 2"),
        ({"run": 3}, "expected a run's YAML file, or the run itself as a mapping"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(site: Toy, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ranking(site, tmp_path, **changes)


def test_the_command(site: Toy, tmp_path: Path) -> None:
    values = {
        "run": site.config(satellite_tasks=site.values["satellite_tasks"][:1], trials=1),
        "base_networks": [{"name": "other"}],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    arguments = ["rank", str(tmp_path / "mine.yaml"), "--plugins-dir", str(site.plugins_dir), "-o", "label_bins=4"]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "brightness, the best network first" in done.stdout
    assert "page: " in done.stdout
    assert read_rank(tmp_path / "out/rank.json").label_bins == 4
    done = CliRunner().invoke(cli.app, [*arguments, "--finetuned", str(tmp_path)])
    assert done.exit_code == 2
    assert "Traceback" not in done.output
