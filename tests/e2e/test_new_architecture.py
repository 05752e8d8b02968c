"""The example of a network of one's own, as its README runs it, with fewer pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from toy_runs import ROOT, run_python

from facetask import PluginManager, WeightsError, load_model
from facetask.networks.base_network import load_network
from facetask.testing import check_architecture


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example's folder, without weights."""
    folder = tmp_path_factory.mktemp("example") / "new_architecture"
    return shutil.copytree(
        ROOT / "examples" / "new_architecture", folder, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )


def test_train_run_and_predict(example: Path) -> None:
    told = run_python(example, "_train.py", "--pictures", "40", "--epochs", "2")
    assert "epoch 2:" in told
    weights = example / "weights.safetensors"
    record = PluginManager(example).find("architecture", "separable-net")
    check_architecture(record, record.params(checkpoint=weights))

    few = ["data.params.count=40", "data.params.identities=20", "trials=1", "finetune.epochs=1", "compute.workers=0"]
    overrides = [part for value in few for part in ("-o", value)]
    run_python(example, "-m", "facetask", "run", "run.yaml", "--plugins-dir", ".", *overrides)
    results = json.loads((example / "runs/run/results.json").read_text())
    assert results["finished"]
    assert results["base_network"]["weights_source"] == "weights.safetensors"
    assert results["base_network"]["weights_licence"] == "CC0-1.0"
    assert results["base_network"]["frozen"] == []
    assert results["base_network"]["n_taps"] == 11  # the stem, a depthwise and a pointwise convolution in each block
    (task,) = results["tasks"]
    assert 0 < task["prune"]["size_reduction"] < 1

    weights.unlink()  # the saved model needs its plugin, not the base network's weights
    model = example / "runs/run" / task["model"]
    assert str(example) not in json.dumps(json.loads((model / "model.json").read_text())["architecture"])
    (predicted,) = load_model(model, PluginManager(example)).predict([ROOT / "docs/images/rendered_faces.png"])
    assert abs(predicted["value"]) < 400
    assert predicted["unit"] == "degrees"


def test_without_its_weights_the_example_says_so(example: Path) -> None:
    plugins = PluginManager(example)
    record = plugins.find("architecture", "separable-net")
    with pytest.raises(WeightsError, match=r"absent\.safetensors: not a readable safetensors file"):
        load_network("separable-net", record.params(checkpoint=example / "absent.safetensors"), plugins)
    with pytest.raises(WeightsError, match=r"SeparableNet gives other weights .*set params\.checkpoint"):
        load_network("separable-net", record.params(), plugins)
