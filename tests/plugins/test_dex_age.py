"""The task ``dex-age``: expected ages by hand, both networks on generated files, and UTKFace's own ages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx_faces import faces, installed, probabilities, utkface, write_classifier
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional
from vgg_files import Layers, caffe_bytes, write_keras, write_state_dict

from facetask import FaceData, WeightsError
from facetask.plugins.architectures import vgg16
from facetask.plugins.tasks.dex_age import AGE_V1_YEARS, DEX_YEARS, expected_age, facetask_tasks
from facetask.testing import check_task

(RECORD,) = facetask_tasks()
NARROW = dict(zip(vgg16.WIDTHS, (4, 5, 3, 6, 5, 4, 7, 6, 5, 8, 7, 6, 5), strict=True))
HIDDEN = 11
SHAPES = vgg16.layer_shapes(101, widths=NARROW, hidden=HIDDEN)


@given(st.lists(st.floats(0, 1), min_size=81, max_size=81).filter(lambda shares: sum(shares) > 0.01))
def test_expected_age_is_the_weighted_mean_and_confidence_the_mass_near_it(shares: list[float]) -> None:
    total = sum(shares)
    years = [0.25, *map(float, range(1, 81))]
    mean = sum(share / total * year for share, year in zip(shares, years, strict=True))
    found = expected_age(np.array([shares]), AGE_V1_YEARS)[0]
    assert found[0] == pytest.approx(mean, abs=1e-9)
    near, further = (
        sum(share / total for share, year in zip(shares, years, strict=True) if abs(year - mean) <= 5 + margin)
        for margin in (-1e-6, 1e-6)
    )
    assert near - 1e-9 <= found[1] <= min(further + 1e-9, 1)


def test_a_certain_softmax_gives_its_age() -> None:
    np.testing.assert_array_equal(
        expected_age(np.eye(101), DEX_YEARS), np.stack([np.arange(101), np.ones(101)], axis=1)
    )


def test_age_v1_on_a_generated_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    weights = write_classifier(tmp_path / "age.onnx", 64, 81)
    data = faces(tmp_path / "faces", 64)
    found = check_task(RECORD, data, RECORD.params(weights=tmp_path / "age.onnx", kind="continuous"))
    expected = probabilities(data.paths[:-1], weights, 64) @ np.r_[0.25, 1:81]
    assert (found.name, found.kind, found.unit, found.edges) == ("age", "continuous", "years", ())
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(found.values[:-1, 0], expected, rtol=1e-4)
    assert np.isnan(found.values[-1, 0])
    assert found.confidence is not None
    assert ((found.confidence[:-1] >= 0) & (found.confidence[:-1] <= 1)).all()


def test_bins_are_ten_decades_or_the_edges_given(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    write_classifier(tmp_path / "age.onnx", 64, 81)
    data = faces(tmp_path / "faces", 64)
    found = check_task(RECORD, data, RECORD.params(weights=tmp_path / "age.onnx"))
    assert found.kind == "binned"
    assert found.edges == (tuple(range(10, 100, 10)),)
    assert found.classes == ("<10", *(f"{low}–{low + 10}" for low in range(10, 90, 10)), "≥90")
    found = check_task(RECORD, data, RECORD.params(weights=tmp_path / "age.onnx", edges=[18.0, 65.5]))
    assert (found.edges, found.classes) == (((18.0, 65.5),), ("<18", "18–65.5", "≥65.5"))


def layers(convolutional: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random parameters of a narrow VGG-16 with 101 outputs; fully connected layers as matrices or convolutions."""
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in SHAPES.items():
        weight = rng.normal(size=shape).astype(np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        if convolutional and len(shape) == 2:
            side = 7 if name == "fc6" else 1
            weight = weight.reshape(shape[0], -1, side, side)
        made[name] = weight.astype(np.float32), rng.normal(size=shape[0]).astype(np.float32) * 0.1
    return made


def vgg_ages(parameters: Layers, data: FaceData, mean: tuple[float, ...], scale: float) -> np.ndarray:
    """Expected ages of a VGG-16 on 224×224 images, BGR, in double precision."""
    ages = []
    for path in data.paths:
        pixels = (np.asarray(Image.open(path), dtype=np.float64)[:, :, ::-1] - mean) / scale
        out = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
        for name, arrays in parameters.items():
            weight, bias = (torch.from_numpy(values).double() for values in arrays)
            if name.startswith("conv"):
                out = functional.conv2d(out, weight, bias, padding=1)
            else:
                out = functional.linear(out.flatten(1), weight.flatten(1), bias)
            out = out if name == "fc8" else out.relu()
            if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
                out = functional.max_pool2d(out, 2)
        ages.append(float(out.softmax(dim=1)[0] @ torch.arange(101.0, dtype=torch.float64)))
    return np.array(ages)


def write_caffe(path: Path) -> Layers:
    made = layers(convolutional=False)
    path.write_bytes(caffe_bytes({"fc8-101" if name == "fc8" else name: arrays for name, arrays in made.items()}))
    return made


def write_deepface(path: Path) -> Layers:
    made = layers(convolutional=True)
    names = {"fc8": "predictions"}
    write_state_dict(path, {names.get(name, f"backbone.{name}"): arrays for name, arrays in made.items()})
    return made


def write_deepface_keras(path: Path) -> Layers:
    pytest.importorskip("h5py", reason="h5py is not installed")
    made = layers(convolutional=True)
    kernels = ((weight.transpose(2, 3, 1, 0), bias) for weight, bias in made.values())
    write_keras(path, ((f"conv2d_{i}", arrays) for i, arrays in enumerate(kernels, 1)))
    return made


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VGG-16 of a few channels: the real one's file has 540 MB."""
    whole = vgg16.layer_shapes
    monkeypatch.setattr(vgg16, "layer_shapes", lambda outputs: whole(outputs, widths=NARROW, hidden=HIDDEN))


@pytest.mark.usefixtures("_narrow")
@pytest.mark.parametrize(
    ("name", "write", "scale"),
    [
        ("dex.caffemodel", write_caffe, 1),
        ("age_model_weights.pth", write_deepface, 255),
        ("age_model_weights.h5", write_deepface_keras, 255),
    ],
)
@pytest.mark.parametrize(("mean", "subtracted"), [("none", (0, 0, 0)), ("imagenet", (104.007, 116.669, 122.679))])
def test_dex_vgg16_in_both_layouts(
    tmp_path: Path, name: str, write: Any, scale: float, mean: str, subtracted: tuple[float, ...]
) -> None:
    parameters = write(tmp_path / name)
    data = faces(tmp_path / "faces", 224, n=3).subset(np.arange(3))
    found = RECORD.labels(data, RECORD.params(weights=tmp_path / name, mean=mean, kind="continuous"))
    expected = vgg_ages(parameters, data, subtracted, scale)
    np.testing.assert_allclose(found.values[:, 0], expected, rtol=1e-4)
    assert "research" in found.licence


@pytest.mark.usefixtures("_narrow")
def test_a_vgg16_of_other_outputs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gender.caffemodel"
    path.write_bytes(caffe_bytes(layers(convolutional=False)))
    with pytest.raises(WeightsError, match="fc8-101"):
        RECORD.labels(faces(tmp_path / "faces", 8), RECORD.params(weights=path))


def test_an_onnx_file_of_another_network_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    write_classifier(tmp_path / "gender.onnx", 64, 2)
    with pytest.raises(WeightsError, match="expected 81 probabilities"):
        RECORD.labels(faces(tmp_path / "faces", 64), RECORD.params(weights=tmp_path / "gender.onnx"))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"kind": "continuous", "edges": [10.0]}, "edges are for kind: binned"),
        ({"edges": [10.0, 5.0]}, "ascending order"),
        ({"mean": "imagenet"}, "mean is for DEX's VGG-16"),
        ({"weights": Path("age.zip")}, r"found .*age\.zip"),
        ({"crop": 0.5}, "less than 0.5"),
    ],
)
def test_params_that_do_not_fit(params: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        RECORD.params(**params)


def test_real_network_on_utkface(data_root: Path) -> None:
    installed("age-v1.onnx")
    data = utkface(data_root, 300)
    found = RECORD.labels(data, RECORD.params(kind="continuous"))
    error = np.abs(found.values[:, 0] - data.column("age"))
    assert error.mean() < 10
    assert found.confidence is not None
    sure = found.confidence > np.median(found.confidence)
    assert error[sure].mean() < error[~sure].mean() - 1
