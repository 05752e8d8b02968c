"""The task ``pose-3dmm``: known rotations are recovered, signs are those of a face, and bad models are named."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from facetask import DataError, FaceData, Labels
from facetask.plugins.datasets.table import facetask_datasets
from facetask.plugins.tasks.pose_3dmm import facetask_tasks, pose_deg, rotations
from facetask.plugins.tasks.surrey_model import read_model
from facetask.testing import check_task

(RECORD,) = facetask_tasks()
DATA = Path(os.environ.get("FACETASK_DATA", "../shared/data"))
FITTED = [*range(8, 9), *range(17, 60)]  # the landmarks that the generated model knows, from 0


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """A head turned left by yaw, then down by pitch, then rolled, in degrees: axes x right, y up, z to the viewer."""
    y, p, r = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    tilt = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return tilt @ nod @ turn


def project(points: NDArray[np.float64], turned: NDArray[np.float64], scale: float = 0.7) -> NDArray[np.float64]:
    """Scaled-orthographic image of model points, y growing downwards, ``(n_points, 2)``."""
    image = scale * points @ turned[:2].T + (80, -75)
    return image * (1, -1)


@pytest.fixture(scope="module")
def points() -> NDArray[np.float64]:
    """A generated head: a vertex for each fitted landmark, spread like a face (mm)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(len(FITTED), 3)).astype(np.float32).astype(np.float64) * (40, 50, 25)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, points: NDArray[np.float64]) -> Path:
    """The generated head in the published files' layout."""
    folder = tmp_path_factory.mktemp("sfm")
    vertices = np.zeros((100, 3), "<f4")
    place = np.random.default_rng(1).permutation(100)[: len(FITTED)]
    vertices[place] = points
    basis, eigenvalues = np.ones((300, 2), "<f4"), np.ones((2, 1), "<f4")
    raw = struct.pack("<I", 1)
    for matrix in (vertices.reshape(-1, 1), basis, eigenvalues):
        raw += struct.pack("<ii", *matrix.shape) + matrix.tobytes(order="F")
    (folder / "sfm_shape_3448.bin").write_bytes(raw + struct.pack("<Q3i", 1, 0, 1, 2))
    lines = [f" {landmark + 1} = {vertex}  # a point" for landmark, vertex in zip(FITTED, place, strict=True)]
    text = "\n".join(["# a comment", "[landmark_mappings]", *lines, "[contour_landmarks]", "right = [1, 2]"])
    (folder / "ibug_to_sfm.txt").write_text(text)
    return folder


def table(landmarks: NDArray[np.float64], x: str = "x{}", y: str = "y{}") -> FaceData:
    """A dataset of landmarks ``(n, 68, 2)``."""
    columns = {
        pattern.replace("{}", str(i)): landmarks[:, i, axis] for i in range(68) for axis, pattern in enumerate((x, y))
    }
    return FaceData(paths=tuple(Path(f"{i}.jpg") for i in range(len(landmarks))), columns=columns, source="labels.csv")


def labels(data: FaceData, model: Path, **params: Any) -> Labels:
    return RECORD.labels(data, RECORD.params(model=str(model), **params))


def heads(points: NDArray[np.float64], poses: list[tuple[float, float, float]]) -> NDArray[np.float64]:
    """Landmarks of heads in given poses, ``(n, 68, 2)``; the landmarks that are not fitted are anywhere."""
    landmarks = np.random.default_rng(2).uniform(0, 160, (len(poses), 68, 2))
    for face, pose in zip(landmarks, poses, strict=True):
        face[FITTED] = project(points, rotation(*pose))
    return landmarks


POSES = [(0.0, 0.0, 0.0), (40.0, 0.0, 0.0), (-75.0, 10.0, 5.0), (20.0, -30.0, 15.0), (-10.0, 25.0, -40.0)]


def angles_of(turned: NDArray[np.float64]) -> dict[str, float]:
    """Yaw, pitch and roll of a rotation, from where the face's z axis and its y axis point."""
    return {
        "yaw": np.degrees(np.arctan2(turned[0, 2], turned[2, 2])),
        "pitch": np.degrees(np.arcsin(-turned[1, 2])),
        "roll": np.degrees(np.arctan2(turned[1, 0], turned[1, 1])),
    }


@pytest.mark.parametrize("angle", ["yaw", "pitch", "roll"])
def test_known_rotations_are_recovered_from_a_table(model: Path, points: NDArray[np.float64], angle: str) -> None:
    found = labels(table(heads(points, POSES)), model, angle=angle)
    expected = [angles_of(rotation(*pose))[angle] for pose in POSES]
    assert np.ptp(expected) > 30
    np.testing.assert_allclose(found.values[:, 0], expected, atol=0.01)
    assert (found.name, found.kind, found.unit) == (angle, "continuous", "degrees")
    assert found.flip == ("keep" if angle == "pitch" else "negate")
    assert "non-commercial" in found.licence


@settings(max_examples=100, deadline=None)
@given(st.floats(-85, 85), st.floats(-60, 60), st.floats(-60, 60), st.floats(0.05, 20))
def test_any_rotation_is_recovered(
    points: NDArray[np.float64], yaw: float, pitch: float, roll: float, scale: float
) -> None:
    turned = rotation(yaw, pitch, roll)
    found = pose_deg(project(points, turned, scale)[None], points)
    for name, expected in angles_of(turned).items():
        assert found[name][0] == pytest.approx(expected, abs=0.01)


def test_fit_equals_least_squares_face_by_face(points: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(3)
    faces = np.stack([project(points, rotation(*pose)) + rng.normal(0, 4, (len(points), 2)) for pose in POSES])
    found = pose_deg(faces, points)
    homogeneous = np.hstack([points, np.ones((len(points), 1))])
    for i, face in enumerate(faces):
        camera = np.linalg.lstsq(homogeneous, face * (1, -1), rcond=None)[0].T[:, :3]
        rows = camera / np.linalg.norm(camera, axis=1, keepdims=True)
        u, _, vt = np.linalg.svd(np.vstack([rows, np.cross(*rows)]))
        assert np.linalg.det(u @ vt) > 0
        for name, expected in angles_of(u @ vt).items():
            assert found[name][i] == pytest.approx(expected, abs=1e-9)


def test_missing_landmarks_make_a_missing_label(model: Path, points: NDArray[np.float64]) -> None:
    landmarks = heads(points, POSES)
    landmarks[1, FITTED[3], 0] = np.nan
    landmarks[2, 0] = np.nan  # not a landmark of the fit
    landmarks[3] = 50.0  # all in one place
    landmarks[4] = np.linspace(0, 100, 68)[:, None]  # all on one line
    found = labels(table(landmarks), model).values[:, 0]
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, True, True])
    assert found[2] == pytest.approx(angles_of(rotation(*POSES[2]))["yaw"], abs=0.01)


def test_columns_may_have_other_names(model: Path, points: NDArray[np.float64]) -> None:
    landmarks = heads(points, POSES)
    found = labels(table(landmarks, "lm_{}_x", "lm_{}_y"), model, x="lm_{}_x", y="lm_{}_y")
    np.testing.assert_array_equal(found.values, labels(table(landmarks), model).values)


def real_model() -> Path:
    """The Surrey model, where it is."""
    if not (DATA / "sfm" / "sfm_shape_3448.bin").is_file():
        pytest.skip("no Surrey model: set FACETASK_DATA")
    return DATA / "sfm"


def test_surrey_model_recovers_rotations_and_faces_the_viewer() -> None:
    folder = real_model()
    lines = [line.split("#")[0].split("=") for line in (folder / "ibug_to_sfm.txt").read_text().splitlines()]
    mapping = {int(a): int(b) for a, b in (line for line in lines if len(line) == 2 and line[0].strip().isdigit())}
    raw = (folder / "sfm_shape_3448.bin").read_bytes()
    mean = np.frombuffer(raw[12 : 12 + 4 * 10344], "<f4").astype(np.float64).reshape(3448, 3)
    assert len(mapping) == 50
    landmarks = np.full((len(POSES), 68, 2), 1.0)
    for face, pose in zip(landmarks, POSES, strict=True):
        face[np.array(list(mapping)) - 1] = project(mean[list(mapping.values())], rotation(*pose))
    for angle in ("yaw", "pitch", "roll"):
        found = labels(table(landmarks), folder, angle=angle).values[:, 0]
        np.testing.assert_allclose(found, [angles_of(rotation(*pose))[angle] for pose in POSES], atol=0.1)


def test_signs_on_real_landmarks() -> None:
    folder = real_model()
    if not (DATA / "ytf" / "labels.csv").is_file():
        pytest.skip("no real landmarks: set FACETASK_DATA")
    (dataset,) = facetask_datasets()
    data = dataset.load(dataset.params(root=DATA / "ytf"))
    x, y = (np.stack([data.columns[f"{axis}{i}"] for i in range(68)], axis=1) for axis in "xy")
    found = {angle: labels(data, folder, angle=angle).values[:, 0] for angle in ("yaw", "pitch", "roll")}
    assert not any(np.isnan(values).any() for values in found.values())

    eyes_x, eyes_y = x[:, 36:48].mean(axis=1), y[:, 36:48].mean(axis=1)
    width, height = np.ptp(x[:, 36:48], axis=1), y[:, 48:60].mean(axis=1) - eyes_y
    # Turned to the subject's left, the nose moves to the image's right; nodding, it moves down towards the mouth.
    assert np.corrcoef(found["yaw"], (x[:, 30] - eyes_x) / width)[0, 1] > 0.9
    assert np.corrcoef(found["pitch"], (y[:, 30] - eyes_y) / height)[0, 1] > 0.5
    # Rolled counter-clockwise in the image, the eye on the right (landmarks 42–47) is the higher one.
    assert np.corrcoef(found["roll"], (y[:, 36:42].mean(axis=1) - y[:, 42:48].mean(axis=1)) / width)[0, 1] > 0.8


def test_mirrored_landmarks_negate_yaw_and_roll(points: NDArray[np.float64]) -> None:
    symmetric = np.concatenate([points, points * (-1, 1, 1)])
    swap = np.r_[len(points) : 2 * len(points), 0 : len(points)]
    faces = np.stack([project(symmetric, rotation(*pose)) for pose in POSES])
    mirrored = faces[:, swap] * (-1, 1) + (160, 0)
    before, after = pose_deg(faces, symmetric), pose_deg(mirrored, symmetric)
    np.testing.assert_allclose(after["yaw"], -before["yaw"], atol=1e-6)
    np.testing.assert_allclose(after["roll"], -before["roll"], atol=1e-6)
    np.testing.assert_allclose(after["pitch"], before["pitch"], atol=1e-6)


# --- bins -------------------------------------------------------------------------------------------------------------

BIN_POSES = [(yaw, pitch, 0.0) for pitch in (-25.0, 0.0, 25.0) for yaw in (-40.0, 0.0, 40.0)]
PLACES = (
    "top-left top-centre top-right centre-left centre centre-right bottom-left bottom-centre bottom-right"  # as seen
)


def bin_of(found: Labels) -> list[str]:
    """The name of each image's bin."""
    columns = [np.searchsorted(edges, found.values[:, i], side="right") for i, edges in enumerate(found.edges)]
    rows = np.ravel_multi_index(tuple(columns), [len(edges) + 1 for edges in found.edges])
    return [found.classes[row] for row in rows]


def test_nine_bins_are_named_as_the_viewer_sees_them(model: Path, points: NDArray[np.float64]) -> None:
    data = table(heads(points, BIN_POSES))
    found = check_task(RECORD, data, RECORD.params(model=model, angle="bins"))
    assert (found.kind, found.unit, found.flip) == ("binned", "degrees", ("keep", "negate"))
    assert list(found.classes) == bin_of(found) == PLACES.split()
    for column, angle in enumerate(("pitch", "yaw")):
        np.testing.assert_array_equal(found.values[:, column], labels(data, model, angle=angle).values[:, 0])


def test_edges_of_the_bins_are_params(model: Path, points: NDArray[np.float64]) -> None:
    data = table(heads(points, BIN_POSES))
    found = labels(data, model, angle="bins", yaw_edges=[-60.0, -20.0, 60.0], pitch_edges=[10.0])
    assert found.edges == ((10.0,), (-60.0, -20.0, 60.0))
    assert len(found.classes) == 8
    names = bin_of(found)
    assert names[0] == "pitch <10, yaw -60–-20"
    assert names[-1] == "pitch ≥10, yaw -20–60"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"angle": "yaw", "yaw_edges": [0.0]}, "are for angle: bins, not yaw"),
        ({"angle": "bins", "yaw_edges": [5.0, 5.0]}, "ascending order"),
        ({"angle": "bins", "pitch_edges": []}, "ascending order"),
    ],
)
def test_edges_that_make_no_bins(params: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        RECORD.params(model=Path("sfm"), **params)


# --- eos --------------------------------------------------------------------------------------------------------------


def test_fit_equals_that_of_eos() -> None:
    eos = pytest.importorskip("eos", reason="eos-py is not installed")
    vertices, _ = read_model(real_model())
    rng = np.random.default_rng(5)
    faces = np.stack([project(vertices, rotation(*pose)) + rng.normal(0, 1, (len(vertices), 2)) for pose in POSES])
    found = rotations(faces, vertices)
    points = [np.append(vertex, 1).astype(np.float32) for vertex in vertices]
    for face, ours in zip(faces, found, strict=True):
        image = [point.astype(np.float32) for point in face]
        theirs = eos.fitting.estimate_orthographic_projection_linear(image, points, True, 160)
        np.testing.assert_allclose(ours, np.asarray(theirs.R)[:3, :3], atol=1e-4)


# --- detected landmarks -----------------------------------------------------------------------------------------------


def ytf(n: int) -> FaceData:
    """Some frames with landmarks, where they are."""
    if not (DATA / "ytf" / "labels.csv").is_file():
        pytest.skip("no real landmarks: set FACETASK_DATA")
    (dataset,) = facetask_datasets()
    data = dataset.load(dataset.params(root=DATA / "ytf"))
    return data.subset(np.random.default_rng(0).permutation(len(data))[:n])


def test_detected_landmarks_give_nearly_the_yaw_of_annotated_ones(tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed")
    folder, data = real_model(), ytf(120)
    Image.new("RGB", (160, 160), (90, 120, 150)).save(tmp_path / "empty.png")
    paths = (*data.paths, tmp_path / "empty.png")
    found = labels(FaceData(paths=paths, columns={}), folder, landmarks="detect")
    assert "excludes commercial use" in found.licence
    assert "Surrey" in found.licence
    yaw, expected = found.values[:-1, 0], labels(data, folder).values[:, 0]
    assert np.isnan(found.values[-1, 0])
    assert f"of {len(paths)} images, which get no label: " in found.notes[0]
    assert found.notes[0].startswith("no face was found on ")
    assert "empty.png" in found.notes[0]
    seen = np.isfinite(yaw)
    assert seen.mean() > 0.95
    assert np.sqrt(np.mean((yaw - expected)[seen] ** 2)) < 6 < 0.5 * expected.std()


def test_no_face_on_any_image(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed")
    Image.new("L", (90, 90), 120).save(tmp_path / "grey.png")
    data = FaceData(paths=(tmp_path / "grey.png",), columns={}, source="labels.csv")
    assert refusal(data, model, landmarks="detect") == (
        "labels.csv: no face was found on any of 1 images; they should show whole faces"
    )


# --- errors -----------------------------------------------------------------------------------------------------------


def refusal(data: FaceData, model: Path, **params: Any) -> str:
    with pytest.raises(DataError) as caught:
        labels(data, model, **params)
    return str(caught.value)


def test_first_missing_column_is_named(model: Path, points: NDArray[np.float64]) -> None:
    data = table(heads(points, POSES))
    columns = {name: column for name, column in data.columns.items() if name not in ("y41", "x50")}
    message = refusal(FaceData(paths=data.paths, columns=columns, source="labels.csv"), model)
    assert message.startswith("labels.csv: no column 'y41'; pose-3dmm needs 68 landmarks")


def test_text_column_is_named(model: Path, points: NDArray[np.float64]) -> None:
    data = table(heads(points, POSES))
    columns = {**data.columns, "x3": np.array(["12.5", None, "left", "3", "right"], dtype=object)}
    message = refusal(FaceData(paths=data.paths, columns=columns), model)
    assert "column 'x3': row 3 (2.jpg) has 'left'; a landmark's coordinate must be a number, or an empty" in message


def test_no_image_with_landmarks(model: Path) -> None:
    message = refusal(table(np.full((2, 68, 2), np.nan)), model)
    assert "not all 44 landmarks that the fit needs are known on any of 2 images; there is no number in x" in message
    assert "(88 in all)" in message


def test_an_empty_column_is_named_and_images_without_a_landmark_are_counted(
    model: Path, points: NDArray[np.float64]
) -> None:
    landmarks = heads(points, POSES)
    landmarks[:, FITTED[3], 1] = np.nan
    assert refusal(table(landmarks), model).endswith(f"of 5 images; there is no number in y{FITTED[3]}")
    columns = table(landmarks).columns | {f"y{FITTED[3]}": np.array([None] * 5, dtype=object)}
    data = FaceData(paths=table(landmarks).paths, columns=columns)
    assert refusal(data, model).endswith(f"there is no number in y{FITTED[3]}")
    landmarks = heads(points, POSES)
    landmarks[[1, 4], FITTED[3], 1] = np.nan, np.inf
    found = labels(table(landmarks), model, angle="bins")
    assert np.isnan(found.values).all(axis=1).tolist() == [False, True, False, False, True]
    assert found.notes == (
        "not all 44 landmarks that the fit needs are known on 2 of 5 images, which get no label: 1.jpg, 4.jpg",
    )
    assert labels(table(heads(points, POSES)), model).notes == ()


@pytest.mark.parametrize("name", ["sfm_shape_3448.bin", "ibug_to_sfm.txt"])
def test_missing_model_file_says_where_to_get_it_and_where_to_put_it(
    model: Path, points: NDArray[np.float64], tmp_path: Path, name: str
) -> None:
    for path in model.iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    message = refusal(table(heads(points, POSES)), tmp_path)
    assert message.startswith(f"{tmp_path / name}: no such file; it is published in the eos project's share folder")
    assert "https://github.com/patrikhuber/eos" in message
    assert "non-commercial" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("sfm_shape_3448.bin", b"", "found 0 bytes"),
        ("sfm_shape_3448.bin", b"version https://git-lfs.github.com/spec/v1\n", "expected the Surrey shape model"),
        ("sfm_shape_3448.bin", struct.pack("<Iii", 1, 300, 1) + bytes(1199), "300 × 1 in 1211 bytes"),
        ("sfm_shape_3448.bin", struct.pack("<Iii", 1, 2**31 - 2, 1), "2147483646 × 1 in 12 bytes"),
        ("sfm_shape_3448.bin", struct.pack("<Iii300f", 1, 300, 1, *[np.nan] * 300), "is not finite"),
        ("ibug_to_sfm.txt", b"[other]\n9 = 33\n", "expected a TOML table landmark_mappings"),
        ("ibug_to_sfm.txt", b"<html>", "expected a TOML table landmark_mappings"),
        ("ibug_to_sfm.txt", b"[landmark_mappings]\n9 = 33\n", "six or more of the landmarks 1 to 68, found 1"),
        ("ibug_to_sfm.txt", b"[landmark_mappings]\n9 = 100\n", "the first wrong one 9"),
        ("ibug_to_sfm.txt", b"[landmark_mappings]\n69 = 1\n", "the first wrong one 69"),
        ("ibug_to_sfm.txt", b"\xff\xfe", "expected a TOML table landmark_mappings"),
    ],
)
def test_damaged_model_file_is_named(
    model: Path, points: NDArray[np.float64], tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(content)
    message = refusal(table(heads(points, POSES)), tmp_path)
    assert message.startswith(str(tmp_path / name))
    assert expected in message


@pytest.mark.parametrize("pattern", ["x", "x{}{}", "{0}"])
def test_pattern_without_a_place_for_the_index(pattern: str) -> None:
    with pytest.raises(ValidationError, match="in place of the landmark's index"):
        RECORD.params(model="sfm", x=pattern)
