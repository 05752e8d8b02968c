"""An experiment's configuration and the runs in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from toy_runs import Toy

from facetask import ConfigError
from facetask.experiments.config import ExperimentConfig, RunTemplate, load_experiment
from facetask.plugin_manager import PluginManager


class Settings(ExperimentConfig):
    run: RunTemplate
    amount: int = 1


@pytest.fixture
def plugins(toy: Toy) -> PluginManager:
    return toy.plugins


def written(toy: Toy, folder: Path, run: str) -> Path:
    """An experiment's file beside the run's own."""
    (folder / "toy.yaml").write_text(yaml.safe_dump(toy.config()))
    path = folder / "experiment.yaml"
    path.write_text(run + "\namount: 3\n")
    return path


def test_a_run_is_named_or_stands_in_the_file(toy: Toy, tmp_path: Path, plugins: PluginManager) -> None:
    named = load_experiment(written(toy, tmp_path, "run: toy.yaml"), Settings)
    indented = "run:\n" + "\n".join(f"  {line}" for line in yaml.safe_dump(toy.config()).splitlines())
    inside = load_experiment(written(toy, tmp_path, indented), Settings)
    assert (named.amount, named.run.name, inside.run.name) == (3, "toy", "run")
    assert named.run.config(plugins) == inside.run.config(plugins)


def test_variants_and_overrides_reach_into_the_run(toy: Toy, tmp_path: Path, plugins: PluginManager) -> None:
    path = written(toy, tmp_path, "run: toy.yaml")
    settings = load_experiment(path, Settings, ["amount=4", "run.trials=1", "run.prune.threshold=0.3"])
    config = settings.run.config(plugins, {"prune.threshold": 0.2, "prune.couple": "union"})
    assert (settings.amount, config.trials) == (4, 1)
    assert (config.prune.threshold, config.prune.couple) == (0.2, "union")
    other = load_experiment(path, Settings, ["run=other.yaml"])
    assert other.run.source == tmp_path / "other.yaml"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run=3"], "run: expected a run's YAML file, or the run itself as a mapping, found 3"),
        (["amuont=3"], "amuont: unknown key; did you mean 'amount'?"),
        (["amount.x=3"], "amount"),
        (["amount=x"], "amount: expected a whole number, found 'x'"),
    ],
)
def test_what_is_wrong_is_told(toy: Toy, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(written(toy, tmp_path, "run: toy.yaml"), Settings, overrides)
    assert message in str(caught.value)


def test_what_is_wrong_in_the_run_is_told_when_it_is_made(toy: Toy, tmp_path: Path, plugins: PluginManager) -> None:
    settings = load_experiment(written(toy, tmp_path, "run: toy.yaml"), Settings, ["run.prune.treshold=1"])
    with pytest.raises(ConfigError, match="unknown key; did you mean 'threshold'"):
        settings.run.config(plugins)
