"""Any PyTorch module as an architecture: where it comes from, its weights, and what is said when it is not there."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

import facetask
from facetask import Architecture, PluginError, PluginManager, Preprocessing, WeightsError, module_architecture
from facetask.networks.base_network import load_network
from facetask.testing import check_architecture

PREPROCESSING = Preprocessing(size=(32, 32), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)

PLUGIN = """
from facetask import Preprocessing, hookimpl, module_architecture

PREPROCESSING = Preprocessing(size=(32, 32), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)


@hookimpl
def facetask_architectures():
    return [module_architecture("mine", "_adapted_networks:trained", PREPROCESSING, licence="MIT")]
"""

NETWORKS = """
import torch
from torch import nn
from facetask.testing import tiny_network

number = 3


class Plain(nn.Sequential):
    def __init__(self, width: int = 8, act: str = "ReLU") -> None:
        super().__init__(nn.Conv2d(3, width, 3), getattr(nn, act)(), nn.Conv2d(width, 4, 3), nn.ReLU())

    @classmethod
    def wide(cls):
        return cls(32)


def trained(seed: int = 0):
    return tiny_network(seed)


def words():
    return "a network"


def fails():
    raise OSError("no disk")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin's folder with a module beside the plugin."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "_adapted_networks.py").write_text(textwrap.dedent(NETWORKS))
    (folder / "_adapted_broken.py").write_text("import absent_package\n")
    return folder


@pytest.fixture(scope="module")
def plugins(folder: Path) -> PluginManager:
    return PluginManager(folder)


def adapted(function: str, **options: Any) -> Architecture:
    return module_architecture("adapted", function, PREPROCESSING, licence="MIT", **options)


# --- what works


def test_a_module_beside_its_plugin_is_a_base_network(plugins: PluginManager) -> None:
    record = plugins.find("architecture", "mine")
    assert isinstance(record, Architecture)
    check_architecture(record)
    network = load_network("mine", record.params(), plugins)
    assert [tap.name for tap in network.graph.taps] == ["0", "2.conv", "3"]
    assert (network.licence, network.source) == ("MIT", "_adapted_networks:trained")
    assert network.preprocessing == PREPROCESSING


def test_the_public_name_stays_the_function() -> None:
    assert facetask.module_architecture is module_architecture
    assert callable(facetask.module_architecture)


@pytest.mark.usefixtures("plugins")
def test_arguments_reach_the_function_and_a_checkpoint_its_module(tmp_path: Path) -> None:
    record = adapted("_adapted_networks:Plain")
    arguments = {"width": 12, "act": "SiLU"}
    state = record.build(record.params(arguments=arguments)).state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    params = record.params(checkpoint=tmp_path / "mine.safetensors", arguments=arguments)
    check_architecture(record, params)
    weights = record.weights(params)
    assert weights.source == "mine.safetensors"
    assert all(torch.equal(weights.state[key], value) for key, value in state.items())
    assert type(record.build(params)[1]).__name__ == "SiLU"
    assert record.portable(params) == record.params(arguments=arguments)
    assert record.params.model_validate_json(params.model_dump_json()) == params


@pytest.mark.usefixtures("plugins")
def test_a_method_of_a_class_will_do() -> None:
    assert adapted("_adapted_networks:Plain.wide").build(adapted("a:b").params())[0].out_channels == 32


def test_taps_and_what_follows_are_passed_on() -> None:
    record = adapted("a:b", taps=["1", "3"], follows={"3": "1"}, revision="2")
    params = record.params()
    assert (record.taps(params), record.follows(params), record.revision) == (["1", "3"], {"3": "1"}, "2")
    plain = adapted("a:b")
    assert (plain.taps(params), plain.follows(params), plain.revision) == (None, {}, "1")


# --- what does not


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("absent_module:net", {}, "'absent_module' cannot be imported .*put it beside the plugin's file, install it"),
        ("absent_package.nets:net", {}, "'absent_package.nets' cannot be imported .*put it beside the plugin's file"),
        ("_adapted_broken:net", {}, r"'_adapted_broken' cannot be imported \(Module.*'absent_package'\)$"),
        ("_adapted_networks:trian", {}, "_adapted_networks has no 'trian'; did you mean 'trained'"),
        ("_adapted_networks:number", {}, "_adapted_networks:number is no function, but a int"),
        ("_adapted_networks:words", {}, "words must return a torch.nn.Module, found str"),
        ("_adapted_networks:fails", {}, r"fails\(\) fails \(OSError: no disk\)"),
        ("_adapted_networks:trained", {"sed": 1}, r"trained\(sed=1\) fails \(TypeError: .*'sed'"),
    ],
)
def test_a_module_that_cannot_be_had(function: str, arguments: dict[str, Any], message: str) -> None:
    record = adapted(function)
    with pytest.raises(PluginError, match=f"architecture 'adapted': .*{message}"):
        record.build(record.params(arguments=arguments))


@pytest.mark.parametrize("function", ["", "module", "module:", ":function", "a.b.c", "a:b:c", "a/b:c", "a..b:c"])
def test_a_place_of_another_form(function: str) -> None:
    with pytest.raises(PluginError, match=r"architecture 'adapted': expected 'package\.module:function', found '"):
        adapted(function)


@pytest.mark.usefixtures("plugins")
def test_random_weights_are_no_base_network() -> None:
    record = adapted("_adapted_networks:Plain")
    with pytest.raises(WeightsError, match=r"Plain gives other weights \(0\.weight, 0\.bias, .*set params\.checkpoint"):
        record.weights(record.params())


def test_params_are_checked() -> None:
    with pytest.raises(ValidationError, match="weights"):
        adapted("a:b").params(weights="net.pth")
    with pytest.raises(ValidationError, match="arguments"):
        adapted("a:b").params(arguments={"width": object()})


def test_a_plugin_without_its_module_is_told_when_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("_adapted_networks", "_adapted_elsewhere"))
    plugins = PluginManager(tmp_path)
    assert [entry.status for entry in plugins.catalogue() if entry.name == "mine"] == ["available"]
    record = plugins.find("architecture", "mine")
    with pytest.raises(PluginError, match="'_adapted_elsewhere' cannot be imported"):
        load_network("mine", record.params(), plugins)
