"""The task ``gender-onnx``: the classifier's input and output by hand, and UTKFace's genders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_faces import faces, installed, probabilities, utkface, write_classifier
from PIL import Image

from facetask import FaceData, WeightsError
from facetask.plugins.tasks.gender_onnx import facetask_tasks
from facetask.testing import check_task

(RECORD,) = facetask_tasks()
SIDE = 32


def test_labels_are_the_likelier_class_and_its_probability(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    weights = write_classifier(tmp_path / "gender.onnx", SIDE, 2)
    data = faces(tmp_path / "faces", SIDE)
    found = check_task(RECORD, data, RECORD.params(weights=tmp_path / "gender.onnx"))
    expected = probabilities(data.paths[:-1], weights, SIDE)
    assert (found.name, found.kind, found.classes) == ("gender", "binary", ("female", "male"))
    assert set(expected.argmax(axis=1)) == {0, 1}
    np.testing.assert_array_equal(found.values[:-1, 0], expected.argmax(axis=1))
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence[:-1], expected.max(axis=1), rtol=1e-4)
    assert np.isnan(found.values[-1, 0])
    assert np.isnan(found.confidence[-1])


def test_crop_takes_a_share_of_each_side_away(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    write_classifier(tmp_path / "gender.onnx", SIDE, 2)
    inner = faces(tmp_path / "faces", SIDE).subset(np.arange(4))
    (tmp_path / "framed").mkdir()
    paths = []
    for path in inner.paths:
        framed = Image.new("RGB", (2 * SIDE, 2 * SIDE), (255, 0, 0))
        framed.paste(Image.open(path), (SIDE // 2, SIDE // 2))
        paths.append(tmp_path / "framed" / path.name)
        framed.save(paths[-1])
    outer = FaceData(paths=tuple(paths), columns={})
    labels = [
        RECORD.labels(data, RECORD.params(weights=tmp_path / "gender.onnx", crop=crop)).confidence
        for data, crop in ((inner, 0.0), (outer, 0.25), (outer, 0.0))
    ]
    np.testing.assert_array_equal(labels[0], labels[1])
    assert (labels[0] != labels[2]).any()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "not a readable ONNX file"), (b"no model at all", "not a readable ONNX file"), (None, "cannot be read")],
)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = tmp_path / "gender.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=expected) as caught:
        RECORD.labels(faces(tmp_path / "faces", SIDE), RECORD.params(weights=path))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("side", "n_classes", "expected"),
    [(SIDE, 3, r"expected 2 probabilities for each image, found \(3,\)"), (64, 2, "expected a network of 32×32 RGB")],
)
def test_another_network_is_refused(tmp_path: Path, side: int, n_classes: int, expected: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    write_classifier(tmp_path / "other.onnx", side, n_classes)
    with pytest.raises(WeightsError, match=expected):
        RECORD.labels(faces(tmp_path / "faces", SIDE), RECORD.params(weights=tmp_path / "other.onnx"))


def test_real_network_on_utkface(data_root: Path) -> None:
    installed("gender-v1.onnx")
    data = utkface(data_root, 300)
    found = RECORD.labels(data, RECORD.params())
    true = data.column("gender") == "male"
    assert np.mean(found.values[:, 0] == true) > 0.85
    assert found.confidence is not None
    sure = found.confidence > np.median(found.confidence)
    assert np.mean((found.values[:, 0] == true)[sure]) > np.mean((found.values[:, 0] == true)[~sure])
