"""Saved models: the same bits in another process, and a base network for further rounds of pruning."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import Finished, Recorder, Toy, process_environment

from facetask import CheckpointError, ConfigError, RunResult, load_config, load_model
from facetask.models.checkpoint import load_base

SAVE_OUTPUTS = """
import sys, numpy, torch
from facetask import load_model
from facetask.plugin_manager import PluginManager
from pathlib import Path
model = load_model(sys.argv[1], PluginManager(Path(sys.argv[2])))
torch.manual_seed(0)
with torch.inference_mode():
    numpy.save(sys.argv[3], model(torch.randn(2, 3, 32, 32)).numpy())
"""

Run = tuple[RunResult, Recorder]


def further(toy: Toy, out: Path, model: Path, **changes: Any) -> Run:
    """Prune a saved model for another task."""
    task = {"name": "column", "params": {"column": "brightness", "kind": "continuous", "unit": "grey levels"}}
    prune = {"knee": {"fraction": 0.7}}
    config = toy.config(base_network={"model": str(model)}, satellite_tasks=[task], prune=prune, trials=1, **changes)
    return toy.run(out, config)


@pytest.fixture(scope="module")
def second(finished: Finished, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model of the finished run, pruned and finetuned again."""
    return further(toy, tmp_path_factory.mktemp("second") / "run", finished.result.models["level"])


@pytest.fixture(scope="module")
def third(second: Run, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """And again, without finetuning."""
    return further(toy, tmp_path_factory.mktemp("third") / "run", second[0].models["brightness"], finetune=False)


@pytest.mark.parametrize("round_", ["first", "second", "third"])
def test_a_model_gives_the_same_bits_in_another_process(
    round_: str, finished: Finished, second: Run, third: Run, toy: Toy, tmp_path: Path
) -> None:
    runs = {"first": finished.result, "second": second[0], "third": third[0]}
    name = "level" if round_ == "first" else "brightness"
    folder = shutil.copytree(runs[round_].models[name], tmp_path / "moved")
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    out = tmp_path / "outputs.npy"
    command = [sys.executable, "-c", SAVE_OUTPUTS, str(folder), str(toy.plugins_dir), str(out)]
    subprocess.run(command, env=process_environment(), check=True, cwd=tmp_path, timeout=120)
    model = load_model(runs[round_].models[name], toy.plugins)
    torch.manual_seed(0)
    with torch.inference_mode():
        expected = model(torch.randn(2, 3, 32, 32)).numpy()
    assert expected.std() > 0
    assert np.array_equal(np.load(out), expected)


def test_each_round_is_saved_in_the_numbering_of_the_one_before(second: Run, third: Run) -> None:
    described = json.loads((third[0].models["brightness"] / "model.json").read_text())
    assert described["architecture"]["name"] == "tiny"
    widths: dict[str, int] = {}
    for done in described["rounds"]:
        for tap, kept in done["keep"].items():
            assert max(kept) < widths.get(tap, 99)
            widths[tap] = len(kept)
    assert [len(done["keep"]) > 0 for done in described["rounds"]] == [True] * 3
    assert described["rounds"][:2] == json.loads((second[0].models["brightness"] / "model.json").read_text())["rounds"]


def test_a_further_round_starts_from_the_saved_network(second: Run, third: Run, toy: Toy) -> None:
    saved = load_model(second[0].models["brightness"], toy.plugins)
    results = json.loads((third[0].path / "results.json").read_text())
    pruned = results["tasks"][0]["prune"]
    assert pruned["base"]["params"] == sum(p.numel() for p in saved.network.backbone.parameters())
    assert pruned["pruned"]["macs"] < pruned["base"]["macs"]
    assert results["base_network"]["plugin"] == "tiny"


def test_its_responses_are_the_saved_network_s(second: Run, toy: Toy) -> None:
    folder = second[0].models["brightness"]
    base, model = load_base(folder, toy.plugins), load_model(folder, toy.plugins)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        expected = model.network.backbone(images)
        last = base.graph.cut(*model.description.rounds[-1].cuts)
        assert torch.equal(base.module(images), expected)
        assert torch.equal(last.module()(images), expected)
        assert base.graph.responder()(images).shape[1] == sum(tap.n_filters for tap in base.graph.taps)


def test_a_model_whose_weights_do_not_fit_is_no_base(second: Run, toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(second[0].models["brightness"], tmp_path / "model")
    fields = json.loads((folder / "model.json").read_text())
    fields["rounds"].pop()
    (folder / "model.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load_base(folder, toy.plugins)
    fields["rounds"][0]["cuts"] = ["absent"]
    (folder / "model.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"model\.json: does not fit 'tiny' \(no tap 'absent'"):
        load_base(folder, toy.plugins)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            "{name: tiny, model: x}",
            r"base_network: expected a mapping such as \{name: …, params: \{…\}\}, or \{model: FOLDER\}",
        ),
        ("{}", r"base_network: expected a mapping such as \{name: …, params: \{…\}\}, or \{model: FOLDER\}"),
        ("{model: 3}", r"base_network\.model: expected a path"),
        ("{modle: x}", r"base_network\.modle: unknown key; did you mean 'model'"),
    ],
)
def test_a_base_network_is_named_or_a_saved_model(toy: Toy, base: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(toy.config_path, [f"base_network={base}"], plugins=toy.plugins)


def test_a_folder_without_a_model(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no saved model"):
        further(toy, tmp_path / "run", tmp_path / "nowhere")
