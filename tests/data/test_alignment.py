"""Faces brought to where a network wants them: the transform, its pixels, and dlib's own chips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from facetask import PluginManager, Preprocessing
from facetask.data.alignment import five_points, is_known, similarity, with_margin

FACE = ((30.0, 35.0), (70.0, 35.0), (50.0, 55.0), (35.0, 75.0), (65.0, 75.0))
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255))


def preprocessing(colour: str = "rgb", size: tuple[int, int] = (110, 100), **fields: Any) -> Preprocessing:
    channels = 1 if colour == "grey" else 3
    fields.setdefault("face", FACE)
    return Preprocessing(size=size, colour=colour, mean=(0.0,) * channels, std=(1.0,) * channels, **fields)  # type: ignore[arg-type]


def moved(points: Any, scale: float, turn: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    """Turn, scale and shift points."""
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(points) @ matrix.T + shift  # type: ignore[no-any-return]


def dots(points: NDArray[np.float64], size: tuple[int, int], radius: float) -> Image.Image:
    """Draw a face: a dot in a colour of its own at each point, with soft edges, on black."""
    ys, xs = np.mgrid[: size[0], : size[1]]
    pixels = np.zeros((*size, 3))
    for (x, y), colour in zip(points, COLOURS, strict=True):
        pixels += np.clip(radius + 0.5 - np.hypot(xs - x, ys - y), 0, 1)[..., None] * colour
    return Image.fromarray(pixels.round().astype(np.uint8))


# --- the transform


@given(
    st.floats(0.05, 20), st.floats(-3.2, 3.2), st.tuples(st.floats(-500, 500), st.floats(-500, 500)), st.integers(2, 9)
)
def test_a_known_similarity_is_recovered(scale: float, turn: float, shift: tuple[float, float], n: int) -> None:
    points = np.random.default_rng(n).uniform(0, 100, (n, 2))
    found = similarity(points, moved(points, scale, turn, shift))
    np.testing.assert_allclose(found[:, :2] @ points.T + found[:, 2:], moved(points, scale, turn, shift).T, atol=1e-6)
    expected = [scale * np.cos(turn), -scale * np.sin(turn), shift[0]]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_noisy_points_are_fitted_by_least_squares() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.uniform(0, 100, (5, 2)), rng.uniform(0, 100, (5, 2))
    rows = [row for x, y in source for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, c, d = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity(source, target), [[a, -b, c], [b, a, d]], atol=1e-9)


# --- five points


def test_five_points_and_two_eyes_are_taken_as_they_are() -> None:
    five = np.array([FACE, FACE]) + np.array([[[0.0, 0.0]], [[9.0, 1.0]]])
    np.testing.assert_array_equal(five_points(five), five)
    eyes = five_points(five[:, :2])
    np.testing.assert_array_equal(eyes[:, :2], five[:, :2])
    assert np.isnan(eyes[:, 2:]).all()
    with pytest.raises(ValueError, match="expected 68, 5 or 2 landmarks a face, found 7"):
        five_points(np.zeros((1, 7, 2)))


def test_of_68_landmarks_those_that_expressions_move_do_not_count() -> None:
    landmarks = np.random.default_rng(1).uniform(0, 100, (3, 68, 2))
    found = five_points(landmarks)
    assert is_known(found).all()
    lower = landmarks.copy()
    lower[:, [*range(27), *range(55, 60), 65, 66, 67]] = np.nan  # jaw, brows and lower lip
    np.testing.assert_array_equal(five_points(lower), found)
    np.testing.assert_allclose(five_points(moved(landmarks, 2, 0.3, (5, 7))), moved(found, 2, 0.3, (5, 7)), atol=1e-9)
    lower[1, 40] = np.nan
    assert is_known(five_points(lower)).tolist() == [True, False, True]


def test_a_face_without_both_eyes_is_not_known() -> None:
    faces = np.array([FACE] * 4)
    faces[1, 0, 0] = np.nan
    faces[2, 2:] = np.nan
    faces[3] = 50.0
    assert is_known(faces).tolist() == [True, False, True, False]


# --- pixels


@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey"])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7, 2.4, 7.3])
def test_points_land_where_they_are_wanted(colour: str, scale: float) -> None:
    points = moved(FACE, scale, 0.4, (60 + 20 * scale, 40.0))
    image = dots(points, (1000, 1000), 5 * scale)
    found = preprocessing(colour).pixels(image, points).astype(float)
    assert found.shape == preprocessing(colour).input_shape
    ys, xs = np.mgrid[:110, :100]
    for (x, y), dot in zip(FACE, COLOURS, strict=True):
        near = np.hypot(xs - x, ys - y) < 8
        bright = found.sum(axis=0) * near
        assert abs((bright * xs).sum() / bright.sum() - x) < 0.1
        assert abs((bright * ys).sum() / bright.sum() - y) < 0.1
        at = found[:, int(y), int(x)]
        expected = np.array(dot) if colour == "rgb" else np.array(dot)[::-1] if colour == "bgr" else None
        if expected is not None:
            assert np.abs(at - expected).max() < 40
        else:
            assert abs(at[0] - np.dot(dot, [0.299, 0.587, 0.114])) < 20


def test_a_face_in_its_place_stays_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (110, 100, 3), dtype=np.uint8)
    found = preprocessing().pixels(Image.fromarray(pixels), np.array(FACE))
    assert np.abs(found.astype(int) - pixels.transpose(2, 0, 1)).max() <= 1


def test_what_lies_outside_is_black() -> None:
    pixels = np.random.default_rng(0).integers(2, 256, (110, 100, 3), dtype=np.uint8)
    found = preprocessing().pixels(Image.fromarray(pixels), np.array(FACE) - (20, 10))
    assert np.abs(found[:, 11:, 21:].astype(int) - pixels[1:-10, 1:-20].transpose(2, 0, 1)).max() <= 1
    assert not found[:, :10].any()
    assert not found[:, :, :20].any()


def test_two_eyes_are_enough() -> None:
    points = moved(FACE, 1.5, -0.2, (30, 40))
    image = dots(points, (300, 300), 6)
    whole = preprocessing().pixels(image, points).astype(int)
    points[2:] = np.nan
    assert np.abs(preprocessing().pixels(image, points) - whole).max() <= 1


@pytest.mark.parametrize("points", [None, np.full((5, 2), np.nan)])
def test_without_a_face_an_image_is_taken_as_without_alignment(points: Any) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))
    aligning, plain = preprocessing(crop=0.1, keep_aspect=True), preprocessing(crop=0.1, keep_aspect=True, face=None)
    np.testing.assert_array_equal(aligning.pixels(image, points), plain.pixels(image))
    np.testing.assert_array_equal(plain.pixels(image, np.array(FACE)), plain.pixels(image))


def test_a_margin_makes_the_face_smaller_about_the_middle() -> None:
    found = np.array(with_margin(FACE, (110, 100), 0.5))
    middle = np.array([49.5, 54.5])
    np.testing.assert_allclose(found, middle + (np.array(FACE) - middle) / 2)
    np.testing.assert_allclose(with_margin(FACE, (110, 100), 0.0), FACE)


# --- what is saved


def test_the_wanted_places_are_saved_and_only_where_faces_are_aligned() -> None:
    assert Preprocessing.from_json(preprocessing().to_json()) == preprocessing()
    assert "face" not in preprocessing(face=None).to_json()
    as_lists = {**preprocessing().to_json(), "size": [110, 100], "face": [list(point) for point in FACE]}
    assert Preprocessing.from_json(as_lists) == preprocessing()


# --- the base networks


def wanted(architecture: str, **params: Any) -> Preprocessing:
    record: Any = PluginManager().find("architecture", architecture)
    found: Preprocessing = record.preprocessing(record.params(**params))
    return found


def test_a_dlib_chip_is_dlibs() -> None:
    dlib: Any = pytest.importorskip("dlib", reason="dlib is not installed")
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8))
    image = noise.filter(ImageFilter.GaussianBlur(3))
    network = wanted("dlib-face-resnet")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        face = np.concatenate([rng.uniform(90, 210, (36, 2)), np.zeros((32, 2))])
        face[36:42], face[42:48] = rng.normal((120, 130), 8, (6, 2)), rng.normal((175, 138), 8, (6, 2))
        face[27:36], face[48:] = rng.normal((145, 160), 8, (9, 2)), rng.normal((144, 195), 12, (20, 2))
        face = face.round()
        parts = [dlib.point(int(x), int(y)) for x, y in face]
        chip = dlib.get_face_chip(
            np.array(image), dlib.full_object_detection(dlib.rectangle(0, 0, 299, 299), parts), size=150, padding=0.25
        )
        found = network.pixels(image, five_points(face[None])[0])
        inside = (found.min(axis=0) > 0) & (chip.min(axis=2) > 0)
        difference = np.abs(found.transpose(1, 2, 0).astype(int) - chip)[inside]
        assert inside.mean() > 0.5
        assert difference.mean() < 1
        assert difference.max() <= 6


def test_lightcnn_wants_48_pixels_from_eyes_to_mouth() -> None:
    for name in ("lightcnn-9", "lightcnn-29", "lightcnn-29v2"):
        face = np.array(wanted(name, weights=None).face)
        assert face[:2, 1] == pytest.approx(40)
        assert face[3:, 1] == pytest.approx(88)
        assert (face[3:, 0].mean(), face[:2, 0].mean()) == (pytest.approx(64, abs=0.5), pytest.approx(64, abs=0.5))


def test_vgg_face_frames_a_face_more_loosely_than_dlib() -> None:
    shares = []
    for network in (wanted("vgg-face", weights=None), wanted("dlib-face-resnet")):
        face = np.array(network.face)
        assert is_known(face)
        shares.append((face[1, 0] - face[0, 0]) / network.size[1])
    assert shares[0] < 0.9 * shares[1]
