"""The rendered faces: files, labels, and that the pictures show what the labels say."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from facetask import DataError, FaceData
from facetask.plugins.datasets.rendered_faces import RenderedFacesParams, facetask_datasets, people, rendered_faces
from facetask.plugins.datasets.rendered_faces.drawing import draw, dress
from facetask.plugins.datasets.rendered_faces.head import FACE_S, FACE_Y
from facetask.plugins.datasets.rendered_faces.rasteriser import FAR, rasterise
from facetask.plugins.datasets.rendered_faces.scene import render, rotation

SMALL = RenderedFacesParams(count=12, identities=5, size=48)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path))
    return tmp_path


def pixels(data: FaceData) -> list[bytes]:
    return [path.read_bytes() for path in data.paths]


def test_the_plugin_offers_one_dataset_with_its_defaults() -> None:
    (dataset,) = facetask_datasets()
    assert dataset.name == "rendered-faces"
    assert dataset.params().model_dump() == {"count": 1200, "identities": 150, "size": 150, "seed": 0}


def test_images_are_rgb_of_the_asked_size_and_all_different() -> None:
    data = rendered_faces(SMALL)
    images = [np.asarray(Image.open(path)) for path in data.paths]
    assert [path.name for path in data.paths] == [f"{index:04d}.png" for index in range(12)]
    assert all(image.shape == (48, 48, 3) and image.dtype == np.uint8 and image.std() > 10 for image in images)
    assert len({image.tobytes() for image in images}) == 12


def test_columns_have_the_promised_types_and_ranges() -> None:
    columns = rendered_faces(SMALL).columns
    for name, low, high in (
        ("yaw", -50, 50), ("pitch", -25, 25), ("roll", -5, 5), ("age", 18, 85), ("light", -60, 60), ("skin", 0, 1),
    ):  # fmt: skip
        assert columns[name].dtype == np.float64
        assert columns[name].min() >= low
        assert columns[name].max() <= high
        assert len(np.unique(columns[name])) > 6
    for name, values in (
        ("glasses", {"no", "yes"}), ("beard", {"no", "yes"}), ("hat", {"no", "yes"}),
        ("expression", set(people.EXPRESSIONS)), ("hair", set(people.HAIR_STYLES)),
        ("hair_colour", set(people.HAIR_COLOURS)),
    ):  # fmt: skip
        assert columns[name].dtype == object
        assert set(columns[name]) <= values
        assert len(set(columns[name])) > 1


def test_people_take_turns_and_are_the_group() -> None:
    data = rendered_faces(SMALL)
    assert data.group_column == "identity"
    assert data.licence == "CC0-1.0"
    assert list(data.column("identity")[:6]) == [f"person-{k:04d}" for k in (0, 1, 2, 3, 4, 0)]
    for person in set(data.column("identity")):
        colours = data.column("hair_colour")[data.column("identity") == person]
        assert len(set(colours)) == 1


def test_the_table_beside_the_images_holds_the_labels() -> None:
    data = rendered_faces(SMALL)
    with (data.paths[0].parent / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [path.name for path in data.paths]
    assert [row["hair"] for row in rows] == list(data.column("hair"))
    assert [float(row["yaw"]) for row in rows] == pytest.approx(data.column("yaw"), abs=5e-4)


def test_same_params_give_the_same_bytes_and_another_seed_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rendered_faces(SMALL)
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "elsewhere"))
    again, other = rendered_faces(SMALL), rendered_faces(SMALL.model_copy(update={"seed": 1}))
    assert again.paths != first.paths
    assert pixels(again) == pixels(first)
    assert not set(pixels(other)) & set(pixels(first))
    assert not np.array_equal(other.column("yaw"), first.column("yaw"))


def test_the_number_of_workers_does_not_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = RenderedFacesParams(count=50, size=32)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    many = rendered_faces(params)
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert pixels(rendered_faces(params)) == pixels(many)


def test_a_second_load_draws_only_what_is_missing() -> None:
    data = rendered_faces(SMALL)
    before = pixels(data)
    times = [path.stat().st_mtime_ns for path in data.paths]
    lost = (2, 7)
    for index in lost:
        data.paths[index].unlink()
    (data.paths[0].parent / "0002.1.part").write_bytes(b"interrupted")
    again = rendered_faces(SMALL)
    assert pixels(again) == before
    kept = [index for index in range(12) if index not in lost]
    assert [again.paths[index].stat().st_mtime_ns for index in kept] == [times[index] for index in kept]


def test_params_that_make_no_sense_are_refused() -> None:
    for wrong in ({"count": 0}, {"identities": 0}, {"size": 8}, {"seed": -1}, {"count": 1.5}, {"colour": "red"}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            RenderedFacesParams(**wrong)


def test_a_folder_that_cannot_be_written_is_named() -> None:
    folder = rendered_faces(SMALL).paths[0].parent
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(DataError, match=folder.name):
        rendered_faces(SMALL)


def test_labels_are_independent_of_each_other_and_of_the_person() -> None:
    pictures = [people.picture(0, index, 100) for index in range(3000)]
    named = ("yaw_deg", "pitch_deg", "age_years", "light_deg", "skin", "glasses", "beard", "hat")
    table = np.array([[float(getattr(picture, name)) for name in named] for picture in pictures])
    correlation = np.corrcoef(table.T) - np.eye(len(named))
    assert np.abs(correlation).max() < 0.08  # 4 standard errors
    glasses = table[:, named.index("glasses")].reshape(30, 100)
    assert (glasses.std(axis=0) > 0).all()
    assert np.histogram(table[:, 0], bins=5, range=(-50, 50))[0].min() > 500


def mark_on_the_nose(yaw: float, pitch: float) -> tuple[float, float, float]:
    """Return where a green mark on the nose appears, column and row from the head's middle, in half head heights."""
    plain = dataclasses.replace(
        people.picture(0, 3, 5), glasses=False, beard=False, hat=False, hair="bald", yaw_deg=yaw, pitch_deg=pitch
    )
    scene = dress(people.person(0, 3), plain, people.chance(0, 0))
    texture = np.zeros_like(scene.textures["face"])
    texture[0] = 1
    row = int((0.33 + FACE_Y) / (2 * FACE_Y) * texture.shape[1])
    column = int(FACE_S / (2 * FACE_S) * texture.shape[2])
    texture[:, row - 3 : row + 3, column - 3 : column + 3] = np.array([0, 1, 0])[:, None, None]
    skin = np.array([1, 0, 0], np.float32)[:, None, None]
    colours, _ = render(dataclasses.replace(scene, textures={**scene.textures, "face": texture, "skin": skin}), 150)
    green = np.maximum(colours[1] - colours[0], 0) * (np.indices((150, 150))[0] < 120)
    at = (np.indices((150, 150)) + 0.5).reshape(2, -1) @ green.ravel() / green.sum() / 150
    return (at[1] - scene.centre[0]) / scene.scale, (at[0] - scene.centre[1]) / scene.scale, float(green.sum())


def test_positive_yaw_turns_the_nose_to_the_subjects_left() -> None:
    left, middle, right = (mark_on_the_nose(yaw, 0)[0] for yaw in (-40, 0, 40))
    assert abs(middle) < 0.15  # the head may be tilted
    # The tip of the nose is 0.9 to 1.2 half head heights before the axis; perspective adds a little.
    assert 0.55 < right - middle < 0.95
    assert 0.55 < middle - left < 0.95


def test_positive_pitch_turns_the_nose_down() -> None:
    up, middle, down = (mark_on_the_nose(0, pitch)[1] for pitch in (-25, 0, 25))
    assert 0.25 < down - middle < 0.65
    assert 0.25 < middle - up < 0.65


def test_rotation_gives_the_angles_back() -> None:
    # The pose fit's formulas, for axes with y up.
    flip = np.diag([1.0, -1.0, 1.0])
    r = flip @ rotation(33, -21, 5) @ flip
    assert np.degrees([np.arctan2(r[0, 2], r[2, 2]), np.arcsin(-r[1, 2])]) == pytest.approx([33, -21])
    assert r @ r.T == pytest.approx(np.eye(3))


@pytest.mark.parametrize(
    "change",
    [
        {"glasses": True},
        {"beard": True},
        {"hat": True},
        {"expression": "happy"},
        {"age_years": 80.0},
        {"light_deg": 55.0},
    ],
)
def test_every_attribute_shows_on_the_face(change: dict[str, object]) -> None:
    base = dataclasses.replace(
        people.picture(0, 4, 5), glasses=False, beard=False, hat=False, expression="neutral", age_years=20.0,
        light_deg=-55.0, hair="short", yaw_deg=0.0, pitch_deg=0.0,
    )  # fmt: skip
    who = people.person(0, 4)
    scene = dress(who, base, people.chance(0, 0))
    changed = dress(who, dataclasses.replace(base, **change), people.chance(0, 0))
    light = dataclasses.replace(scene.light, side_deg=changed.light.side_deg)
    changed = dataclasses.replace(changed, light=light, centre=scene.centre, scale=scene.scale)
    before, after = render(scene, 64)[0], render(changed, 64)[0]
    assert (np.abs(after - before).max(axis=0) > 0.1).mean() > 0.005


def test_light_from_the_left_brightens_the_left() -> None:
    lit = dataclasses.replace(
        people.picture(0, 4, 5), yaw_deg=0.0, pitch_deg=0.0, hair="bald", hat=False, glasses=False
    )
    for side in (-60.0, 60.0):
        scene = dress(people.person(0, 4), dataclasses.replace(lit, light_deg=side), people.chance(0, 0))
        colours, cover = render(dataclasses.replace(scene, centre=(0.5, 0.5)), 64)
        halves = [colours[:, :48, part].sum() / cover[:48, part].sum() for part in (slice(0, 32), slice(32, 64))]
        assert np.sign(halves[1] - halves[0]) == np.sign(side)  # the subject's left is the picture's right


def test_one_person_looks_alike_and_another_does_not() -> None:
    base = dataclasses.replace(people.picture(0, 0, 5), yaw_deg=0.0, pitch_deg=0.0)
    same, other = (draw(people.person(0, k), base, 64, people.chance(0, 0)).astype(float) for k in (0, 1))
    assert np.array_equal(same, draw(people.person(0, 0), base, 64, people.chance(0, 0)))
    assert np.abs(same - other).mean() > 2


def test_the_rasteriser_agrees_with_a_loop_over_all_pixels() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-4, 28, (2, 60)), rng.uniform(-1, 1, (1, 60))]).astype(np.float32)
    attributes = rng.uniform(-1, 1, (2, 60)).astype(np.float32)
    triangles = np.arange(60).reshape(20, 3).T
    depth = np.full(24 * 24, FAR, np.float32)
    seen = rasterise(points, attributes, triangles, depth, 24)
    expected = np.full((4, 24 * 24), np.nan)
    expected[0] = FAR
    for corners in triangles.T:
        plane = np.concatenate([points[:2, corners].astype(float), np.ones((1, 3))])
        if np.linalg.det(plane) <= 0:  # seen from behind
            continue
        for pixel in range(24 * 24):
            share = np.linalg.solve(plane, [pixel % 24 + 0.5, pixel // 24 + 0.5, 1])
            z = share @ points[2, corners]
            if share.min() >= 0 and z > expected[0, pixel]:
                expected[:, pixel] = [z, *(attributes[:, corners] @ share), 1]
    covered = np.flatnonzero(expected[3] == 1)
    assert np.array_equal(seen.pixels, covered)
    assert len(covered) > 100
    assert depth == pytest.approx(expected[0], abs=1e-4)
    assert seen.values == pytest.approx(expected[1:3, covered], abs=1e-3)
