"""VGG-Face: every published layout against the same network computed in that layout's own order; the paper's sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional
from vgg_files import caffe_bytes, torch7_bytes, write_keras, write_state_dict

from facetask import Architecture, WeightsError
from facetask.plugins.architectures.vgg16 import WIDTHS, Vgg16, layer_shapes, uninitialised
from facetask.plugins.architectures.vgg_face import facetask_architectures, layout_of
from facetask.plugins.architectures.vgg_layouts.layouts import read_state
from facetask.stages.prune import build_pruned
from facetask.surgery import ChannelGraph
from facetask.testing import check_architecture

Arrays = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]

NARROW = dict(zip(WIDTHS, (4, 5, 3, 6, 5, 4, 7, 6, 5, 8, 7, 6, 5), strict=True))
N_OUTPUTS, HIDDEN = 9, 11
SHAPES = layer_shapes(N_OUTPUTS, widths=NARROW, hidden=HIDDEN)
CONVOLUTIONS = layer_shapes(None, widths=NARROW)

PAPER = {  # kept filters of each layer, outputs, parameters
    "gender": ((58, 54, 109, 114, 216, 223, 232, 373, 373, 379, 302, 309), 2, 6_491_948),
    "age": ((60, 58, 79, 105, 201, 220, 240, 396, 449, 387, 332, 350, 275), 10, 8_305_739),
    "head pose": ((23, 12, 121, 110, 234, 230, 227, 370, 348, 390, 362, 395, 409), 9, 8_476_569),
    "emotion": ((53, 44, 80, 102, 181, 170, 203, 193, 286, 314, 218, 237, 225), 7, 4_103_721),
}


@pytest.fixture(scope="module")
def record() -> Architecture:
    (record,) = facetask_architectures()
    return record


@pytest.fixture(scope="module")
def whole(record: Architecture) -> nn.Module:
    return record.build(record.params(weights=None)).eval()


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """An RGB image without symmetry, 224×224."""
    rows, columns = np.mgrid[0:224, 0:224]
    noise = np.random.default_rng(0).integers(0, 60, (224, 224, 3))
    return (np.stack([rows * 0.8, columns * 0.6, (rows + columns) * 0.2], axis=2) + noise).astype(np.uint8)


def random_layers(convolution: str, top: str, *, seed: int = 0) -> Arrays:
    """Random parameters whose axes are in the given orders, such as ``oihw``; fc6 sees 7×7, fc7 and fc8 1×1."""
    rng = np.random.default_rng(seed)
    layers = {}
    for name, (outputs, width, *kernel) in SHAPES.items():
        side = 3 if kernel else 7 if name == "fc6" else 1
        inputs = width if kernel else width // side**2
        sizes = {"o": outputs, "i": inputs, "h": side, "w": side, "x": inputs * side**2}
        shape = [sizes[axis] for axis in (convolution if kernel else top)]
        scale = np.sqrt(2 / (inputs * side**2))
        layers[name] = (
            (rng.normal(size=shape) * scale).astype(np.float32),
            rng.normal(size=outputs, scale=0.1).astype(np.float32),
        )
    return layers


def channels_first(layers: Arrays, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """VGG-16 as Caffe and Torch compute it: maps (channels, rows, columns), flattened in that order."""
    out = torch.from_numpy(x.transpose(2, 0, 1).copy())[None]
    for name, arrays in layers.items():
        weight, bias = (torch.from_numpy(values).double() for values in arrays)
        if name.startswith("fc") and weight.dim() == 2:
            out = functional.linear(out.flatten(1), weight, bias)
        else:
            out = functional.conv2d(out, weight, bias, padding=1 if name.startswith("conv") else 0)
        out = out if name == "fc8" else out.relu()
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            out = functional.max_pool2d(out, 2, ceil_mode=True)
    return out.flatten().numpy()


def channels_last(layers: Arrays, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """VGG-16 as Keras computes it: maps (rows, columns, channels), flattened in that order."""
    for name, (kernel, bias) in layers.items():
        if kernel.ndim == 2:
            x = x.reshape(1, 1, -1) @ kernel + bias
        else:
            pad = 1 if name.startswith("conv") else 0
            x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
            rows, columns = x.shape[0] - kernel.shape[0] + 1, x.shape[1] - kernel.shape[1] + 1
            places = np.ndindex(*kernel.shape[:2])
            x = sum(x[i : i + rows, j : j + columns] @ kernel[i, j].astype(np.float64) for i, j in places) + bias
        x = x if name == "fc8" else np.maximum(x, 0)
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            x = x.reshape(len(x) // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))
    return x.ravel()


def write_dag(path: Path) -> Arrays:
    layers = random_layers("oihw", "ox")
    write_state_dict(path, layers)
    return layers


def write_pyvggface(path: Path) -> Arrays:
    layers = random_layers("oihw", "ox")
    state = {}
    for name, (weight, bias) in layers.items():
        place = f"features.conv_{name[4:]}" if name.startswith("conv") else f"fc.{name}"
        state |= {f"{place}.weight": torch.from_numpy(weight), f"{place}.bias": torch.from_numpy(bias)}
    torch.save(state, path)
    return layers


def write_torch7(path: Path) -> Arrays:
    layers = random_layers("oihw", "ox")
    path.write_bytes(torch7_bytes(layers))
    return layers


def write_torch7_matrices(path: Path) -> Arrays:
    layers = random_layers("oihw", "ox")
    path.write_bytes(torch7_bytes(layers, matrices=True, kind="Double"))
    return layers


def write_caffe(path: Path) -> Arrays:
    layers = random_layers("oihw", "ox")
    path.write_bytes(caffe_bytes(layers))
    return layers


def write_newer_caffe(path: Path) -> Arrays:
    layers = random_layers("oihw", "ox")
    path.write_bytes(caffe_bytes(layers, new=True))
    return layers


def write_keras_with_top(path: Path) -> Arrays:
    layers = random_layers("hwio", "xo")
    others = [("input_1", ()), ("pool1", ()), ("flatten", ())]
    write_keras(path, [others[0], *layers.items(), *others[1:]])
    return layers


def write_keras_model(path: Path) -> Arrays:
    layers = random_layers("hwio", "xo")
    write_keras(path, layers.items(), model=True)
    return layers


def write_deepface_h5(path: Path) -> Arrays:
    layers = random_layers("hwio", "hwio")
    numbered: list[tuple[str, Any]] = []
    for i, arrays in enumerate(layers.values(), 1):
        numbered += [(f"zero_padding2d_{i}", ()), (f"conv2d_{i}", arrays)]
    write_keras(path, numbered)
    return layers


def write_deepface_pth(path: Path) -> Arrays:
    layers = random_layers("oihw", "oihw")
    write_state_dict(path, layers)
    return layers


def rgb(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return image.astype(np.float64) - (129.186279, 104.762382, 93.593964)


def bgr(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return image[:, :, ::-1].astype(np.float64) - (93.5940, 104.7624, 129.1863)


def bgr_with_means_of_rgb(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return image[:, :, ::-1].astype(np.float64) - (129.1863, 104.7624, 93.5940)


def bgr_to_one(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return image[:, :, ::-1] / 255.0


FILES: list[tuple[str, str, Any, Any, Any]] = [
    ("vgg_face_dag.pth", "dag", write_dag, rgb, channels_first),
    ("vggface.pth", "pyvggface", write_pyvggface, bgr_with_means_of_rgb, channels_first),
    ("VGG_FACE.t7", "torch7", write_torch7, bgr_with_means_of_rgb, channels_first),
    ("VGG_FACE_matrices.t7", "torch7", write_torch7_matrices, bgr_with_means_of_rgb, channels_first),
    ("VGG_FACE.caffemodel", "caffe", write_caffe, bgr, channels_first),
    ("VGG_FACE_newer.caffemodel", "caffe", write_newer_caffe, bgr, channels_first),
    ("rcmalli_vggface_tf_vgg16.h5", "keras", write_keras_with_top, bgr, channels_last),
    ("whole_model.h5", "keras", write_keras_model, bgr, channels_last),
    ("vgg_face_weights.h5", "deepface", write_deepface_h5, bgr_to_one, channels_last),
    ("vgg_face_weights.pth", "deepface", write_deepface_pth, bgr_to_one, channels_first),
]


@pytest.mark.parametrize(("file", "layout", "write", "feed", "reference"), FILES, ids=[file[0] for file in FILES])
def test_layout_computes_what_its_publisher_computes(
    record: Architecture,
    image: NDArray[np.uint8],
    tmp_path: Path,
    file: str,
    layout: Any,
    write: Callable[[Path], Arrays],
    feed: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    reference: Callable[[Arrays, NDArray[np.float64]], NDArray[np.float64]],
) -> None:
    if file.endswith(".h5"):
        pytest.importorskip("h5py")
    path = tmp_path / file
    expected = reference(write(path), feed(image))

    params = record.params(weights=path)
    assert layout_of(params) == layout
    preprocessing = record.preprocessing(params)
    network = Vgg16(SHAPES).eval()
    network.load_state_dict(read_state(path, layout, SHAPES))
    pixels = torch.from_numpy(preprocessing.pixels(Image.fromarray(image)))[None]
    with torch.no_grad():
        found = network.double()(preprocessing.normalise(pixels).double())[0].numpy()
    assert np.ptp(expected) > 1e-2 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_keras_without_its_top_is_the_convolutions(
    record: Architecture, image: NDArray[np.uint8], tmp_path: Path
) -> None:
    pytest.importorskip("h5py")
    layers = {name: arrays for name, arrays in random_layers("hwio", "xo").items() if name.startswith("conv")}
    path = tmp_path / "rcmalli_vggface_tf_notop_vgg16.h5"
    write_keras(path, layers.items())
    assert layout_of(record.params(weights=path)) == "keras-notop"
    network = Vgg16(CONVOLUTIONS).eval().double()
    network.load_state_dict(read_state(path, "keras-notop", CONVOLUTIONS))
    with torch.no_grad():
        found = network(torch.from_numpy(bgr(image).transpose(2, 0, 1).copy())[None])[0]
    assert found.shape == (NARROW["conv5_3"], 7, 7)
    expected = channels_last(layers, bgr(image))
    np.testing.assert_allclose(found.permute(1, 2, 0).flatten().numpy(), expected, rtol=0, atol=1e-9 * expected.max())


def test_contract_holds_at_full_size(record: Architecture, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    layers = {}
    for name, (outputs, inputs, *_) in layer_shapes(None).items():
        kernel = rng.standard_normal((3, 3, inputs, outputs), np.float32) * np.float32(np.sqrt(2 / (9 * inputs)))
        layers[name] = (kernel, np.zeros(outputs, np.float32))
    path = tmp_path / "rcmalli_vggface_tf_notop_vgg16.h5"
    write_keras(path, layers.items())
    params = record.params(weights=path)
    check_architecture(record, params)
    weights = record.weights(params)
    assert weights.licence == "CC-BY-NC-4.0"
    assert weights.source == "VGG-Face: rcmalli_vggface_tf_notop_vgg16.h5"
    assert sum(tensor.numel() for tensor in weights.state.values()) == 14_714_688


# --- other networks of the same structure -----------------------------------------------------------------------------


def test_layers_may_have_other_names_in_a_file(tmp_path: Path) -> None:
    layers = random_layers("oihw", "ox")
    expected = {name: weight for name, (weight, _) in layers.items()}

    caffe = tmp_path / "age.caffemodel"
    caffe.write_bytes(caffe_bytes({"fc8-101" if name == "fc8" else name: a for name, a in layers.items()}))
    state = read_state(caffe, "caffe", SHAPES, {"fc8": "fc8-101"})
    assert all(np.array_equal(state[f"{name}.weight"], weight) for name, weight in expected.items())

    deepface = tmp_path / "age_model_weights.pth"
    names = {name: "predictions" if name == "fc8" else f"backbone.{name}" for name in SHAPES}
    convolutional = random_layers("oihw", "oihw")
    write_state_dict(deepface, {names[name]: arrays for name, arrays in convolutional.items()})
    state = read_state(deepface, "deepface", SHAPES, names)
    assert all(np.array_equal(state[f"{name}.weight"], weight) for name, weight in expected.items())


# --- structure --------------------------------------------------------------------------------------------------------


def test_parameters_are_those_that_the_paper_counts(whole: nn.Module) -> None:
    assert sum(parameter.numel() for parameter in whole.parameters()) == 145_002_878
    convolutions = [parameter for name, parameter in whole.named_parameters() if name.startswith("conv")]
    assert sum(parameter.numel() for parameter in convolutions) == 14_714_688
    assert all(parameter.device.type == "cpu" and parameter.requires_grad for parameter in whole.parameters())


def test_taps_are_the_convolutions(whole: nn.Module) -> None:
    graph = ChannelGraph.trace(whole, (3, 224, 224))
    assert {tap.name: tap.n_filters for tap in graph.taps} == dict(WIDTHS)
    assert [tap.name for tap in graph.taps] == list(WIDTHS)
    assert not graph.frozen


@pytest.mark.parametrize("task", PAPER)
def test_pruned_networks_have_the_printed_sizes(whole: nn.Module, task: str) -> None:
    widths, n_outputs, n_parameters = PAPER[task]
    rng = np.random.default_rng(0)
    keep = {
        name: np.sort(rng.choice(full, width, replace=False))
        for (name, full), width in zip(WIDTHS.items(), widths, strict=False)
    }
    graph = ChannelGraph.trace(whole, (3, 224, 224))
    pruned = build_pruned(graph, [(list(keep)[-1], n_outputs)], keep)
    assert sum(parameter.numel() for parameter in pruned.parameters()) == n_parameters
    sizes = {name: module.out_channels for name, module in pruned.named_modules() if isinstance(module, nn.Conv2d)}
    assert sorted(sizes.values()) == sorted(widths)


def test_dropout_is_still_in_evaluation_and_draws_in_training() -> None:
    torch.manual_seed(0)
    network = Vgg16(layer_shapes(50, widths=NARROW, hidden=64))
    images = 50 * torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), network(images))
        assert not torch.equal(network.train()(images), network(images))


# --- params -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["dag", "pyvggface", "torch7", "caffe", "keras", "keras-notop", "deepface"])
def test_portable_params_build_the_same_without_the_file(record: Architecture, tmp_path: Path, layout: str) -> None:
    params = record.params(weights=tmp_path / "gone.bin", layout=layout)
    portable = record.portable(params)
    assert portable == record.params(weights=None, layout=layout)
    assert record.params.model_validate_json(portable.model_dump_json()) == portable
    assert record.preprocessing(portable) == record.preprocessing(params)
    names = [name for name, _ in record.build(portable).named_parameters()]
    assert ("fc8.weight" in names) == (layout != "keras-notop")


def test_portable_params_keep_what_was_told_from_the_file(record: Architecture, tmp_path: Path) -> None:
    write_deepface_pth(tmp_path / "any.pth")
    portable = record.portable(record.params(weights=tmp_path / "any.pth"))
    assert portable == record.params(weights=None, layout="deepface")


def test_no_weights_says_which_files_are_read(record: Architecture) -> None:
    with pytest.raises(WeightsError) as error:
        record.weights(record.params(weights=None))
    for file in ("VGG_FACE.caffemodel", "VGG_FACE.t7", "vgg_face_dag.pth", "vggface.pth", "vgg_face_weights.h5"):
        assert file in str(error.value)
    assert "https://www.robots.ox.ac.uk/~vgg/software/vgg_face/" in str(error.value)
    assert "base_network.params.weights" in str(error.value)


def test_files_are_checked_against_the_full_size(record: Architecture, tmp_path: Path) -> None:
    write_caffe(tmp_path / "small.caffemodel")
    expected = r"small\.caffemodel: conv1_1\.blobs\[0\]: expected shape \(64, 3, 3, 3\), found \(4, 3, 3, 3\)"
    with pytest.raises(WeightsError, match=expected):
        record.weights(record.params(weights=tmp_path / "small.caffemodel"))


def test_network_without_values_takes_a_state(tmp_path: Path) -> None:
    write_dag(tmp_path / "net.pth")
    state = read_state(tmp_path / "net.pth", "dag", SHAPES)
    network = uninitialised(SHAPES)
    network.load_state_dict(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
