"""Every configuration that ships for the papers' experiments is valid, with every run in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_runs import ROOT

from facetask.config import load_config
from facetask.experiments.blind.config import BlindConfig
from facetask.experiments.config import ExperimentConfig, RunTemplate, load_experiment
from facetask.experiments.matrix.config import MatrixConfig
from facetask.experiments.pruning_table.config import PruningTableConfig
from facetask.experiments.rank.config import RankConfig
from facetask.experiments.sweep.config import SweepConfig
from facetask.experiments.transfer.config import TransferConfig
from facetask.plugin_manager import PluginManager

EXPERIMENTS: dict[str, type[ExperimentConfig]] = {
    "blind": BlindConfig,
    "matrix": MatrixConfig,
    "pruning": PruningTableConfig,
    "rank": RankConfig,
    "sweep": SweepConfig,
    "transfer": TransferConfig,
}
COMPARED = ("matrix", "rank")


@pytest.mark.parametrize("path", sorted((ROOT / "examples/paper").glob("*.yaml")), ids=lambda path: path.stem)
def test_it_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LIGHTCNN_9", "EFFICIENTNET_LITE0"):  # files that only the user has
        monkeypatch.setenv(variable, "weights.safetensors")
    plugins = PluginManager(None)
    experiment = path.stem.split("_")[0]
    if experiment in ("pretrain", "shared", "yaw"):  # plain runs
        load_config(path, plugins=plugins)
        return
    settings = load_experiment(path, EXPERIMENTS[experiment])
    runs = getattr(settings, "run", None) or getattr(settings, "satellites", ())
    templates = [runs] if isinstance(runs, RunTemplate) else list(runs)
    assert templates
    for template in templates:  # what compares base networks says itself which
        template.config(plugins, {"base_network": {"name": "dlib-face-resnet"}} if experiment in COMPARED else {})
