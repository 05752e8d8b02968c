"""Saved models: what is written, what comes back, and what is said of damaged ones."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy_runs import Finished, Toy

from facetask import CheckpointError, DataError, PluginError, PluginManager, RunDirError, load_model
from facetask.models.checkpoint import FaceModel, save_model
from facetask.models.model_description import SavedHead


@pytest.fixture
def model_dir(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the saved model of the nominal task."""
    return shutil.copytree(finished.path / "model/level", tmp_path / "model")


def changed(folder: Path, **fields: Any) -> None:
    """Change fields of model.json."""
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def head_of(folder: Path) -> dict[str, Any]:
    """The first head in model.json."""
    head: dict[str, Any] = json.loads((folder / "model.json").read_text())["heads"][0]
    return head


def changed_head(folder: Path, **fields: Any) -> None:
    """Change fields of the first head in model.json."""
    changed(folder, heads=[{**head_of(folder), **fields}])


def test_a_model_carries_what_it_takes_to_use_it(finished: Finished, toy: Toy) -> None:
    model = load_model(str(finished.path / "model/level"), toy.plugins)
    assert isinstance(model, torch.nn.Module)
    assert not any(module.training for module in model.modules())
    assert model.weights_licence == "CC0-1.0"
    assert model.preprocessing.size == (32, 32)
    assert (model.tasks[0].name, model.tasks[0].kind, model.tasks[0].classes) == (
        "level",
        "nominal",
        ("dark", "light", "middle"),
    )
    bins = load_model(finished.path / "model/bins", toy.plugins)
    assert bins.tasks[0].edges == ((100.0, 150.0),)


@pytest.mark.parametrize("flip", ["keep", "negate", ("keep", "negate")])
def test_the_rule_for_mirrored_images_is_saved_as_one_or_one_an_output(model_dir: Path, toy: Toy, flip: Any) -> None:
    changed_head(model_dir, task={**head_of(model_dir)["task"], "flip": flip})
    assert load_model(model_dir, toy.plugins).tasks[0].flip == flip


def test_nothing_is_pickled_and_the_licence_stands_in_both_files(finished: Finished) -> None:
    for folder in finished.result.models.values():
        assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
        with safe_open(folder / "model.safetensors", "pt") as file:
            assert file.metadata()["licence"] == "CC0-1.0"
        assert json.loads((folder / "model.json").read_text())["weights_licence"] == "CC0-1.0"


def test_the_network_holds_what_was_saved(finished: Finished, toy: Toy) -> None:
    folder = finished.path / "model/level"
    state, network = load_file(folder / "model.safetensors"), load_model(folder, toy.plugins).network
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_predictions_follow_from_the_outputs(finished: Finished, toy: Toy) -> None:
    paths = toy.images[:5]

    def outputs(model: FaceModel) -> np.ndarray:
        pixels = torch.from_numpy(np.stack([model.preprocessing.load(path) for path in paths]))
        with torch.inference_mode():
            return model((pixels.float() - 127.5) / 127.5).double().numpy()

    tint = load_model(finished.path / "model/tint", toy.plugins)
    threshold = tint.description.heads[0].decision["threshold"]
    for found, score in zip(tint.predict(paths), outputs(tint)[:, 0], strict=True):
        assert found["score"] == pytest.approx(score, abs=1e-5)
        assert found["value"] == ("warm" if found["score"] > threshold else "cold")
    level = load_model(finished.path / "model/level", toy.plugins)
    for found, logits in zip(level.predict(paths), outputs(level), strict=True):
        share = np.exp(logits) / np.exp(logits).sum()
        assert found["value"] == level.tasks[0].classes[int(logits.argmax())]
        assert found["score"] == pytest.approx(share.max(), abs=1e-5)
    bins = load_model(finished.path / "model/bins", toy.plugins)
    for found, (value,) in zip(bins.predict(paths), outputs(bins), strict=True):
        assert found["regressed"] == pytest.approx(value, abs=1e-3)
        assert found["value"] == ("<100" if value < 100 else "100–150" if value < 150 else "≥150")
        assert found["unit"] == ""


def test_batches_do_not_change_predictions(finished: Finished, toy: Toy) -> None:
    model = load_model(finished.path / "model/brightness", toy.plugins)
    one, many = ([row["value"] for row in model.predict(toy.images[:7], batch_size=size)] for size in (1, 3))
    assert len(one) == 7
    assert one == pytest.approx(many, rel=1e-5)
    assert list(model.predict([])) == []
    with pytest.raises(DataError, match="absent"):
        list(model.predict(["absent.png"]))


def test_damaged_exif_is_no_warning(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x12\x01\x03\0\x01\0\0\0\x01\0\0\0" + b"\xff" * 9
    Image.new("RGB", (40, 40), "grey").save(tmp_path / "photo.jpg", exif=exif)
    model = load_model(finished.path / "model/tint", toy.plugins)
    assert len(list(model.predict([tmp_path / "photo.jpg"]))) == 1


# --- what cannot be loaded


def test_no_model_here(tmp_path: Path, toy: Toy) -> None:
    with pytest.raises(CheckpointError, match=r"no saved model \(no model\.json\)"):
        load_model(tmp_path, toy.plugins)


def test_an_architecture_that_is_not_there(model_dir: Path) -> None:
    with pytest.raises(PluginError, match="unknown architecture 'tiny'"):
        load_model(model_dir, PluginManager())


@pytest.mark.parametrize("version", [0, 2, 4, "3", None])
def test_another_format_version(model_dir: Path, toy: Toy, version: Any) -> None:
    changed(model_dir, format_version=version, anything="else")
    with pytest.raises(CheckpointError, match=f"format version {version!r}, this facetask reads 3; run it again"):
        load_model(model_dir, toy.plugins)


def test_another_revision_of_the_architecture(model_dir: Path, toy: Toy) -> None:
    changed(model_dir, architecture={"name": "tiny", "revision": "0", "params": {}})
    with pytest.raises(CheckpointError, match="made with revision '0' of 'tiny'; this is revision '1'"):
        load_model(model_dir, toy.plugins)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format_version": 1}', "\xff"])
def test_a_damaged_description(model_dir: Path, toy: Toy, text: str) -> None:
    (model_dir / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load_model(model_dir, toy.plugins)


@pytest.mark.parametrize(
    "fields",
    [
        {"rounds": []},
        {"rounds": [{"cuts": [], "keep": {"0": [0]}}]},
        {"rounds": [{"cuts": ["2.conv"], "keep": {}}]},
        {"rounds": [{"cuts": ["2.conv"], "keep": {"0": [0], "2.conv": [99]}}]},
        {"rounds": [{"cuts": ["2.conv"], "keep": {"absent": [0]}}]},
        {"heads": []},
        {"architecture": {"name": "tiny", "revision": "1", "params": {"depth": 3}}},
        {"preprocessing": {"size": [32, 32]}},
        {"surplus": 1},
    ],
    ids=lambda fields: str(next(iter(fields.values()))),
)
def test_a_description_that_fits_nothing(model_dir: Path, toy: Toy, fields: dict[str, Any]) -> None:
    changed(model_dir, **fields)
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load_model(model_dir, toy.plugins)


@pytest.mark.parametrize(
    "fields",
    [
        {"n_outputs": -1},
        {"cut": "absent"},
        {"cut": "3"},
        {"task": {"name": "level", "kind": "ordinal", "unit": "", "classes": [], "edges": [], "flip": "keep"}},
    ],
    ids=lambda fields: str(next(iter(fields.values()))),
)
def test_a_head_that_fits_nothing(model_dir: Path, toy: Toy, fields: dict[str, Any]) -> None:
    changed(model_dir, rounds=[{"cuts": ["2.conv"], "keep": {"0": [0], "2.conv": [0]}}])
    changed_head(model_dir, **fields)
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load_model(model_dir, toy.plugins)


def test_damaged_weights(model_dir: Path, toy: Toy) -> None:
    path = model_dir / "model.safetensors"
    whole = path.read_bytes()
    for raw in (b"", whole[:20], whole[:-4], b"\xff" * 40):
        path.write_bytes(raw)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file"):
            load_model(model_dir, toy.plugins)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file"):
        load_model(model_dir, toy.plugins)


def test_weights_of_another_network(model_dir: Path, toy: Toy) -> None:
    path = model_dir / "model.safetensors"
    state = load_file(path)
    save_file({**state, "heads.0.weight": torch.zeros(3, 99)}, path)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: does not fit .*heads\.0\.weight has shape \(3, 99\)"
    ):
        load_model(model_dir, toy.plugins)
    save_file({key: value for key, value in state.items() if key != "heads.0.bias"}, path)
    with pytest.raises(CheckpointError, match=r"1 keys are missing: heads\.0\.bias"):
        load_model(model_dir, toy.plugins)


# --- saving


def test_saving_again_and_saving_where_nothing_can_be_written(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    from facetask.networks.base_network import load_network
    from facetask.records import Params

    base = load_network("tiny", Params(), toy.plugins)
    model = load_model(finished.path / "model/level", toy.plugins)
    (last,) = model.description.rounds

    def save(folder: Path, spec: Any = model.tasks[0]) -> None:
        head = SavedHead.of(spec, last.cuts[0], 3, {}, "MIT", {"accuracy": 0.5, "auc": None})
        save_model(folder, model.network, base, last.decoded(), [head])

    save(tmp_path / "new")
    (tmp_path / "new/model.onnx").write_bytes(b"an export of the first")
    save(tmp_path / "new", dataclasses.replace(model.tasks[0], name="again"))
    again = load_model(tmp_path / "new", toy.plugins)
    assert (again.tasks[0].name, again.description.heads[0].labels_licence) == ("again", "MIT")
    assert again.description.heads[0].metrics == {"accuracy": 0.5, "auc": None}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model.json", "model.safetensors"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="the model cannot be written"):
        save(tmp_path / "file")


def test_the_saved_params_need_no_file_of_this_machine(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    from facetask.networks.base_network import load_network
    from facetask.records import Params

    class WithFile(Params):
        weights: str | None = None

    base = load_network("tiny", Params(), toy.plugins)
    architecture = dataclasses.replace(base.architecture, params=WithFile, portable=lambda params: WithFile())
    base = dataclasses.replace(base, architecture=architecture, params=WithFile(weights="/home/somebody/net.pth"))
    model = load_model(finished.path / "model/level", toy.plugins)
    (last,) = model.description.rounds
    save_model(tmp_path / "new", model.network, base, last.decoded(), model.description.heads)
    assert "somebody" not in (tmp_path / "new/model.json").read_text()
    assert json.loads((tmp_path / "new/model.json").read_text())["architecture"]["params"] == {"weights": None}
