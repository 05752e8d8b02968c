"""The dataset ``aflw``: a sqlite database and faces cut out of photographs."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import corners, load, refusal, unusable, write_ramp

TABLES = """
    CREATE TABLE Faces (face_id INTEGER PRIMARY KEY, file_id TEXT, db_id TEXT);
    CREATE TABLE FaceImages (image_id INTEGER PRIMARY KEY, db_id TEXT, file_id TEXT, filepath TEXT, bw INTEGER,
        width INTEGER, height INTEGER);
    CREATE TABLE FaceRect (face_id INTEGER, x INTEGER, y INTEGER, w INTEGER, h INTEGER, annot_type_id INTEGER,
        upsidedown INTEGER);
    CREATE TABLE FacePose (face_id INTEGER, roll REAL, pitch REAL, yaw REAL, annot_type_id INTEGER, upsidedown INTEGER);
    CREATE TABLE FaceMetaData (face_id INTEGER, sex TEXT, occluded INTEGER, glasses INTEGER, bw INTEGER,
        annot_type_id INTEGER, upsidedown INTEGER);
    INSERT INTO Faces VALUES (39341, 'image00002.jpg', 'flickr'), (39342, 'image00002.jpg', 'flickr'),
        (39343, 'image00013.jpg', 'flickr'), (39344, 'image00013.jpg', 'flickr');
    INSERT INTO FaceImages VALUES (1, 'flickr', 'image00002.jpg', '0/image00002.jpg', 0, 200, 120),
        (2, 'flickr', 'image00013.jpg', '2/image00013.jpg', 0, 200, 120),
        (3, 'other', 'image00013.jpg', '9/image00013.jpg', 0, 200, 120);
    INSERT INTO FaceRect VALUES (39341, 10, 20, 50, 50, 1, 0), (39342, 100, 30, 40, 40, 1, 0),
        (39343, 60, 10, 30, 30, 1, 0);
    INSERT INTO FacePose VALUES (39341, 0.1, -0.2, 0.5, 1, 0), (39342, 0, 0, -1.5, 1, 0), (39343, 0.3, 0.2, 0.1, 1, 0);
    INSERT INTO FaceMetaData VALUES (39341, 'm', 0, 1, 0, 1, 0), (39342, 'f', 1, 0, 0, 1, 0);
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path_factory.mktemp("cache")))


def tree(root: Path, changes: str = "") -> Path:
    (root / "data").mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(root / "data" / "aflw.sqlite")) as database:
        database.executescript(TABLES + changes)
    for place in ("0/image00002.jpg", "2/image00013.jpg"):
        write_ramp(root / "data" / "flickr" / place)
    return root


def test_faces_become_images_and_columns(tmp_path: Path) -> None:
    data = load("aflw", tree(tmp_path), margin=0.0)
    columns = data.columns
    assert columns["face_id"].tolist() == ["39341", "39342", "39343", "39344"]
    assert columns["file_id"].tolist() == ["image00002.jpg"] * 2 + ["image00013.jpg"] * 2
    degrees = 180 / math.pi
    np.testing.assert_allclose(columns["yaw"], [0.5 * degrees, -1.5 * degrees, 0.1 * degrees, np.nan])
    np.testing.assert_allclose(columns["pitch"], [-0.2 * degrees, 0, 0.2 * degrees, np.nan])
    np.testing.assert_allclose(columns["roll"], [0.1 * degrees, 0, 0.3 * degrees, np.nan])
    assert columns["sex"].tolist() == ["male", "female", None, None]
    np.testing.assert_array_equal(columns["glasses"], [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(columns["occluded"], [0, 1, np.nan, np.nan])
    np.testing.assert_array_equal(columns["face_w"], [50, 40, 30, np.nan])
    assert data.group_column == "file_id"
    for path, (left, top), (right, bottom) in zip(
        data.paths[:3], ((10, 20), (100, 30), (60, 10)), ((59, 69), (139, 69), (89, 39)), strict=True
    ):
        first, last = corners(path)
        assert first == pytest.approx([left, top], abs=3)
        assert last == pytest.approx([right, bottom], abs=3)
    (bad,) = unusable(data)  # the face without a rectangle is reported, not lost
    assert bad.startswith("image00013-")


def test_missing_and_broken_photographs_are_reported_by_name(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "data/flickr/0/image00002.jpg").write_bytes(b"half")
    assert unusable(load("aflw", tmp_path))[:2] == ("image00002.jpg (cannot be decoded)",) * 2
    (tmp_path / "data/flickr/0/image00002.jpg").unlink()
    assert unusable(load("aflw", tmp_path))[:2] == ("image00002.jpg (No such file or directory)",) * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("DROP TABLE FacePose;", "(no such table: FacePose)"),
        ("DELETE FROM Faces;", "the table Faces is empty"),
        (
            "DELETE FROM FaceImages WHERE image_id = 2;",
            "2 faces have no photograph in FaceImages: face_id 39343, 39344",
        ),
        ("UPDATE FaceRect SET x = 'left';", "a rectangle, an angle or a flag is no number"),
        ("UPDATE FaceImages SET filepath = '../x.jpg' WHERE image_id = 2;", "1 file paths lead out of"),
    ],
)
def test_other_databases(tmp_path: Path, changes: str, message: str) -> None:
    found = refusal("aflw", tree(tmp_path, changes))
    assert message in found
    assert str(tmp_path / "data" / "aflw.sqlite") in found


def test_refusals(tmp_path: Path) -> None:
    assert "expected AFLW's folder, with data/aflw.sqlite" in refusal("aflw", tmp_path / "none")
    assert f"{tmp_path / 'data' / 'aflw.sqlite'}: no such file" in refusal("aflw", tmp_path)
    tree(tmp_path)
    (tmp_path / "data/flickr/0/image00002.jpg").unlink()
    (tmp_path / "data/flickr/2/image00013.jpg").unlink()
    assert "found none of them (0, 2); extract" in refusal("aflw", tmp_path)
    assert f"{tmp_path / 'photos'}: expected AFLW's folder" in refusal("aflw", tmp_path, images="photos")
    (tmp_path / "data" / "aflw.sqlite").write_bytes(b"no database, though as long as one" * 9)
    assert "file is not a database" in refusal("aflw", tmp_path)
