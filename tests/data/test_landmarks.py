"""Where the points of faces come from: columns of a table, or dlib."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facetask import DataError, FaceData, PluginManager, WeightsError, detect_landmarks
from facetask.config import AlignConfig
from facetask.data.alignment import five_points
from facetask.data.landmarks import LandmarkFinder, face_points, landmark_finder

FACE = np.array([(30.0, 35.0), (70.0, 35.0), (50.0, 55.0), (35.0, 75.0), (65.0, 75.0)])


def table(points: Any, names: Any = lambda i: (f"x{i}", f"y{i}")) -> FaceData:
    """A dataset with the points ``(n, k, 2)`` in columns."""
    points = np.asarray(points, dtype=np.float64)
    columns = {name: points[:, i, axis] for i in range(points.shape[1]) for axis, name in enumerate(names(i))}
    paths = tuple(Path(f"{i}.png") for i in range(len(points)))
    return FaceData(paths=paths, columns=columns, source="labels.csv")


def by_columns(data: FaceData, **fields: Any) -> Any:
    return face_points(data, AlignConfig(landmarks="columns", **fields))


def refusal(data: FaceData, **fields: Any) -> str:
    with pytest.raises(DataError) as caught:
        by_columns(data, **fields)
    return str(caught.value)


@pytest.mark.parametrize("k", [68, 5, 2])
def test_the_number_of_columns_says_which_landmarks_they_are(k: int) -> None:
    landmarks = np.random.default_rng(0).uniform(40, 60, (3, k, 2))
    left, right = (slice(36, 42), slice(42, 48)) if k == 68 else (0, 1)
    landmarks[:, left, 0], landmarks[:, right, 0] = 20, 80
    np.testing.assert_array_equal(by_columns(table(landmarks)), five_points(landmarks))


def test_columns_may_have_other_names() -> None:
    data = table([FACE, FACE + 3], lambda i: (f"lm_{i}_u", f"lm_{i}_v"))
    np.testing.assert_array_equal(by_columns(data, x="lm_{}_u", y="lm_{}_v"), [FACE, FACE + 3])
    assert "0 columns named x0, x1 …; as many are needed as there are landmarks (68: the 68 of iBUG; or 5" in refusal(
        data
    )


def test_celebas_names_are_known() -> None:
    points = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    data = table([FACE], lambda i: (f"{points[i]}_x", f"{points[i]}_y"))
    np.testing.assert_array_equal(by_columns(data), [FACE])


def test_a_face_without_an_eye_has_no_points_and_one_without_a_nose_keeps_the_others() -> None:
    faces = np.array([FACE] * 4)
    faces[0, 0, 1] = faces[1, 2, 0] = faces[2, 3] = np.nan
    found = by_columns(table(faces))
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1:], faces[1:])


def test_columns_that_are_no_landmarks_are_refused() -> None:
    assert "3 columns named x0, x1" in refusal(table(np.zeros((2, 3, 2))))
    assert "the eyes are not known, in pixels, of any of 2 images" in refusal(table(np.array([FACE, FACE]) / 100))
    mirrored = FACE[[1, 0, 2, 4, 3]]
    assert "left eye lies to the right of their right eye" in refusal(table([mirrored] * 3))
    data = table([FACE])
    text = np.array(["somewhere"], dtype=object)
    assert "column 'y1' holds text" in refusal(FaceData(paths=data.paths, columns={**data.columns, "y1": text}))
    without = {name: column for name, column in data.columns.items() if name != "y4"}
    assert "no column 'y4'" in refusal(FaceData(paths=data.paths, columns=without))


def test_dlib_that_is_not_installed_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(WeightsError, match=r"needs dlib, which is not installed; .*'facetask\[landmarks\]'"):
        LandmarkFinder(tmp_path / "predictor.dat")([tmp_path / "a.png"])


def test_a_damaged_predictor_is_named(tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed")
    (tmp_path / "predictor.dat").write_bytes(b"nothing")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(WeightsError, match=r"predictor\.dat: not a readable landmark predictor"):
        LandmarkFinder(tmp_path / "predictor.dat")([tmp_path / "a.png"])


def test_no_face_on_any_image(tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed")
    Image.new("L", (90, 90), 120).save(tmp_path / "grey.png")
    data = FaceData(paths=(tmp_path / "grey.png",), columns={}, source="labels.csv")
    assert np.isnan(detect_landmarks(data)).all()
    with pytest.raises(DataError, match=r"data\.align: labels\.csv: no face was found on any of 1 images"):
        face_points(data, AlignConfig(landmarks="detect"))


def test_real_faces_are_found_and_moved_to_where_they_are_wanted(data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed")
    if not (data_root / "ytf/labels.csv").is_file():
        pytest.skip("no real landmarks")
    plugins = PluginManager()
    dataset: Any = plugins.find("dataset", "table")
    network: Any = plugins.find("architecture", "dlib-face-resnet")
    whole = dataset.load(dataset.params(root=data_root / "ytf"))
    data = whole.subset(np.random.default_rng(0).permutation(len(whole))[:30])
    annotated, detected = by_columns(data), face_points(data, AlignConfig(landmarks="detect"))
    wanted = network.preprocessing(network.params())
    seen = np.isfinite(detected).all(axis=(1, 2))
    assert seen.mean() > 0.9
    for points in (annotated[seen], detected[seen]):
        paths = [path for path, found in zip(data.paths, seen, strict=True) if found]
        chips = []
        for i, (path, own) in enumerate(zip(paths, points, strict=True)):
            chips.append(tmp_path / f"{i}.png")
            Image.fromarray(wanted.load(path, own).transpose(1, 2, 0)).save(chips[-1])
        again = five_points(landmark_finder()(chips).reshape(-1, 68, 2))
        off = np.linalg.norm(again - np.array(wanted.face), axis=2)
        assert np.nanmedian(off) < 3
        assert np.isfinite(off).mean() > 0.9
    before = np.linalg.norm(detected[seen] * 150 / 160 - np.array(wanted.face), axis=2)
    assert np.median(before) > 6
