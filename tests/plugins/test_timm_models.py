"""timm's models as base networks: the same numbers as timm's own, from files, with timm's own preprocessing."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn
from toy_runs import ROOT, Toy, process_environment

from facetask import Architecture, PluginManager, SurgeryError, WeightsError, load_model
from facetask.networks.base_network import load_network, load_state
from facetask.testing import check_architecture

timm = pytest.importorskip("timm")

from timm.data import create_transform, resolve_data_config  # noqa: E402

MODEL = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def record() -> Architecture:
    return PluginManager().find("architecture", "timm")  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Neither a network nor anything fetched before."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    level = logging.root.manager.disable
    logging.disable()
    yield
    logging.disable(level)


def trained(model: str, seed: int = 0, **settings: Any) -> nn.Module:
    """A timm model whose parameters and statistics are all random, as if it had been trained."""
    torch.manual_seed(seed)
    module = timm.create_model(model, **settings).eval()
    for name, value in module.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
        elif value.dim() == 1:
            value.uniform_(0.5, 1.5)
    return module


def written(module: nn.Module, path: Path) -> Path:
    """The module's weights in a file, in the format that its name says."""
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".tar":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(trained(MODEL), tmp_path_factory.mktemp("timm") / "face.safetensors")


# --- numbers


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "tar"])
@pytest.mark.parametrize("model", [MODEL, "mobilenetv3_small_050"])
def test_a_checkpoint_gives_the_same_outputs_as_timm(
    record: Architecture, model: str, suffix: str, tmp_path: Path
) -> None:
    own = trained(model)
    path = written(own, tmp_path / f"net.{suffix}")
    reference = timm.create_model(model)
    reference.load_state_dict(own.state_dict())
    params = record.params(model=model, checkpoint=path)
    module, weights = record.build(params).eval(), record.weights(params)
    load_state(module, weights.state, weights.source)
    image = torch.randn(2, *record.preprocessing(params).input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = module(image), reference.eval()(image)
    assert expected.std() > 1e-3
    assert torch.equal(found, expected)
    assert (weights.licence, weights.source) == ("not stated", path.name)


@pytest.mark.parametrize("model", [MODEL, "resnet10t", "mobilenetv3_small_050"])
def test_a_model_keeps_the_contract(record: Architecture, model: str, tmp_path: Path) -> None:
    check_architecture(record, record.params(model=model, checkpoint=written(trained(model), tmp_path / "net.pth")))


def test_a_grey_network_of_another_size_and_number_of_classes(record: Architecture, tmp_path: Path) -> None:
    path = written(trained("resnet10t", in_chans=1, num_classes=7), tmp_path / "grey.pth")
    data: dict[str, Any] = {"input_size": (1, 64, 48), "mean": (0.5,), "std": (0.25,), "crop_pct": 1.0}
    params = record.params(model="resnet10t", checkpoint=path, num_classes=7, data_config=data)
    check_architecture(record, params)
    preprocessing = record.preprocessing(params)
    assert preprocessing.input_shape == (1, 64, 48)
    assert (preprocessing.mean, preprocessing.std) == ((127.5,), (63.75,))
    assert record.build(params)(torch.zeros(1, 1, 64, 48)).shape == (1, 7)


def test_a_network_of_fixed_size_is_built_for_the_size_asked_for(record: Architecture) -> None:
    params = record.params(model="test_coatnet", data_config={"input_size": (3, 96, 96)})
    with torch.no_grad():
        assert record.build(params).eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)


# --- preprocessing


def drawing(width: int, height: int) -> Image.Image:
    """A picture with as much detail as a photograph."""
    rng = np.random.default_rng(width * height)
    image = Image.fromarray(rng.integers(0, 256, (height // 10 + 2, width // 10 + 2, 3), dtype=np.uint8))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def difference(record: Architecture, image: Image.Image, model: str, **data: Any) -> float:
    """How far an input is from that of timm's own transform: the mean over pixels, in grey levels."""
    params = record.params(model=model, data_config=data)
    preprocessing = record.preprocessing(params)
    config = resolve_data_config(data, pretrained_cfg=timm.models.get_pretrained_cfg(model).to_dict())
    expected = create_transform(**config, is_training=False)(image).numpy()
    found = preprocessing.normalise(torch.from_numpy(preprocessing.pixels(image))[None])[0].numpy()
    assert found.shape == expected.shape
    std = np.array(preprocessing.std)[:, None, None]
    assert (expected * std).std() > 20
    return float((np.abs(found - expected) * std).mean())


# Crop 0.875 of 224 and of 176, 0.95 of 160 (bilinear) and of 224, squashed 1.0 of 384, 0.875 of 299 with other means.
MODELS = ["efficientnet_b0", "resnet10t", MODEL, "resnet18", "convnextv2_base.fcmae_ft_in22k_in1k_384", "inception_v3"]


@pytest.mark.parametrize("size", [(200, 200), (640, 480), (480, 640), (150, 150)])
@pytest.mark.parametrize("model", MODELS)
def test_the_input_is_that_of_timms_own_transform(record: Architecture, model: str, size: tuple[int, int]) -> None:
    assert difference(record, drawing(*size), model) < 0.3


def test_a_large_photograph_is_reduced_first_which_hardly_shows(record: Architecture) -> None:
    assert 0 < difference(record, drawing(1600, 1600), MODEL) < 1


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_settings_of_a_checkpoint_are_those_of_timm(record: Architecture, mode: str) -> None:
    settings: dict[str, Any] = {"input_size": (3, 112, 96), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.875}
    for size in ((200, 200), (160, 240)):
        found = difference(record, drawing(*size), "resnet10t", **settings, crop_mode=mode, interpolation="bilinear")
        assert found < 0.3, size


# --- where weights come from


def test_without_weights_there_is_no_base_network(record: Architecture) -> None:
    with pytest.raises(WeightsError, match=r"random weights; set pretrained: true .*, or checkpoint: FILE"):
        record.weights(record.params(model=MODEL))


def test_published_weights_carry_licence_and_tag(record: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(name: str, pretrained: bool = False, **settings: Any) -> nn.Module:
        assert pretrained
        return module

    module = trained("resnet10t")
    monkeypatch.setattr(timm, "create_model", fetched)
    weights = record.weights(record.params(model="resnet10t", pretrained=True))
    assert weights.licence == "apache-2.0"
    assert weights.source == f"timm {timm.__version__}: resnet10t.c3_in1k"
    assert all(torch.equal(value, weights.state[name]) for name, value in module.state_dict().items())


def test_without_a_network_the_message_says_what_to_do(record: Architecture) -> None:
    with pytest.raises(WeightsError) as raised:
        record.weights(record.params(model=MODEL, pretrained=True))
    message = str(raised.value)
    assert f"'{MODEL}' cannot be fetched from https://huggingface.co/timm/{MODEL} (" in message
    assert "try again with a network, or fetch them elsewhere and give checkpoint: FILE" in message
    assert "\n" not in message


def test_a_model_without_published_weights(record: Architecture) -> None:
    unpublished = next(name for name in timm.list_models() if not timm.models.get_pretrained_cfg(name).has_weights)
    with pytest.raises(WeightsError, match=f"no published weights for '{unpublished}'; give checkpoint"):
        record.weights(record.params(model=unpublished, pretrained=True))


def test_a_classifier_of_another_size_is_named(record: Architecture, tmp_path: Path) -> None:
    seven = written(trained("resnet10t", num_classes=7), tmp_path / "seven.pth")
    with pytest.raises(WeightsError, match=r"seven\.pth: its classifier 'fc' has 7 classes, .* set num_classes: 7"):
        record.weights(record.params(model="resnet10t", checkpoint=seven))
    none = written(trained("resnet10t", num_classes=0), tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"none\.pth: it has no classifier 'fc', .* set num_classes: 0"):
        record.weights(record.params(model="resnet10t", checkpoint=none))
    check_architecture(record, record.params(model="resnet10t", checkpoint=none, num_classes=0))


def test_a_checkpoint_of_another_model(record: Architecture, checkpoint: Path) -> None:
    params = record.params(model="resnet18", checkpoint=checkpoint)
    with pytest.raises(WeightsError, match=r"face\.safetensors: does not fit the network"):
        load_network("timm", params, PluginManager())


def test_an_absent_checkpoint(record: Architecture, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth: no such file"):
        record.weights(record.params(model=MODEL, checkpoint=tmp_path / "absent.pth"))


# --- params


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": "resnt18"}, r"has no model 'resnt18'; did you mean 'resnet18'\?"),
        ({"model": "resnet18.a1_in2k"}, r"'resnet18' has no weights 'a1_in2k'; did you mean 'a1_in1k'\?"),
        ({"model": "hf-hub:timm/resnet18.a1_in1k"}, "download the weights and give checkpoint: FILE"),
        ({"model": "local-dir:somewhere"}, "download the weights and give checkpoint: FILE"),
        ({"model": ""}, "has no model ''"),
        ({"model": MODEL, "pretrained": True, "checkpoint": "net.pth"}, "two sources of weights; give one"),
        ({"model": MODEL, "pretrained": True, "num_classes": 7}, "num_classes and data_config are a checkpoint's"),
        (
            {"model": MODEL, "pretrained": True, "data_config": {"crop_pct": 1.0}},
            "published weights have their own",
        ),
        ({"model": MODEL, "data_config": {"input_size": (1, 64, 64)}}, "1 channels need mean with 1 numbers, found"),
        ({"model": MODEL, "data_config": {"std": (0.5,)}}, "3 channels need std with 3 numbers, found"),
        ({"model": MODEL, "data_config": {"input_size": (2, 64, 64)}}, "Input should be 1 or 3"),
    ],
)
def test_params_that_make_no_sense(record: Architecture, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        record.params(**params)


def test_portable_params_need_no_file(record: Architecture, checkpoint: Path) -> None:
    params = record.params(model="resnet10t", checkpoint=checkpoint, num_classes=7)
    portable = record.portable(params)
    assert record.params.model_validate_json(portable.model_dump_json()) == portable
    assert portable == record.params(model="resnet10t", num_classes=7)
    shapes = [{name: value.shape for name, value in record.build(p).state_dict().items()} for p in (params, portable)]
    assert shapes[0] == shapes[1]


# --- whole runs

SAVE_OUTPUTS = """
import sys, numpy, torch
from facetask import load_model
torch.manual_seed(0)
with torch.inference_mode():
    numpy.save(sys.argv[2], load_model(sys.argv[1])(torch.randn(2, 3, 64, 64)).numpy())
"""


def test_a_run_and_its_model_without_the_checkpoint(toy: Toy, tmp_path: Path) -> None:
    path = written(trained(MODEL, num_classes=5), tmp_path / "net.safetensors")
    params = {"model": MODEL, "checkpoint": str(path), "num_classes": 5, "data_config": {"input_size": [3, 64, 64]}}
    tasks = toy.values["satellite_tasks"][:1]
    config = toy.config(base_network={"name": "timm", "params": params}, satellite_tasks=tasks, trials=1)
    result, _ = toy.run(tmp_path / "run", config)
    assert result.results.base_network.weights_source == "net.safetensors"
    folder = result.models["brightness"]
    path.unlink()
    assert str(tmp_path) not in json.dumps(json.loads((folder / "model.json").read_text())["architecture"])
    command = [sys.executable, "-c", SAVE_OUTPUTS, str(folder), str(tmp_path / "outputs.npy")]
    subprocess.run(command, env=process_environment(ROOT), check=True, cwd=tmp_path, timeout=120)
    torch.manual_seed(0)
    with torch.inference_mode():
        expected = load_model(folder)(torch.randn(2, 3, 64, 64)).numpy()
    assert expected.std() > 0
    assert np.array_equal(np.load(tmp_path / "outputs.npy"), expected)


def test_a_network_that_cannot_be_traced_is_told_by_the_engine(
    record: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(x) if x.sum() > 0 else x

    path = written(trained("resnet10t"), tmp_path / "net.pth")
    monkeypatch.setattr(type(trained("resnet10t")), "forward", forward)
    with pytest.raises(SurgeryError, match="ResNet is not traceable"):
        load_network("timm", record.params(model="resnet10t", checkpoint=path), PluginManager())


@pytest.mark.parametrize("model", ["test_vit", "test_mambaout"])
def test_a_transformer_is_refused_and_a_convolutional_network_is_not(
    record: Architecture, model: str, tmp_path: Path
) -> None:
    path = written(trained(model), tmp_path / "net.safetensors")
    params = record.params(model=model, checkpoint=path)
    if model == "test_mambaout":
        assert load_network("timm", params, PluginManager()).graph.taps
        return
    with pytest.raises(
        SurgeryError, match=r"only [\d.]+ % of .* lie below its last tap, 'patch_embed\.proj'; .*transformers"
    ):
        load_network("timm", params, PluginManager())
