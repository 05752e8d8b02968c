"""Face images cut out of pictures: what is cut, where it is kept, and what becomes of pictures that cannot be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import corners, write_ramp
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facetask import DataError, cache_folder
from facetask.plugins.datasets.crops import MAX_SIDE, Squares, cut_faces


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cut(root: Path, box: tuple[float, float, float, float], margin: float = 0.0, name: str = "a.png") -> Path:
    squares = Squares.around(np.array([box], dtype=float), margin)
    (path,) = cut_faces("toy", root, [root / name], squares)
    return path


def test_a_square_around_the_rectangle_is_cut(tmp_path: Path) -> None:
    write_ramp(tmp_path / "data" / "a.png")
    path = cut(tmp_path / "data", (50, 30, 40, 20))
    assert path.parent == cache_folder("face-images") / "toy"
    with Image.open(path) as image:
        assert image.size == (40, 40)
    first, last = corners(path)
    assert first == pytest.approx([50, 20], abs=3)  # JPEG is not exact
    assert last == pytest.approx([89, 59], abs=3)
    with Image.open(cut(tmp_path / "data", (50, 30, 40, 20), margin=0.25)) as image:
        assert image.size == (60, 60)


def test_beyond_the_border_its_pixels_repeat(tmp_path: Path) -> None:
    write_ramp(tmp_path / "data" / "a.png", 200, 120)
    first, last = corners(cut(tmp_path / "data", (-20, -10, 60, 60)))
    assert first == pytest.approx([0, 0], abs=3)
    assert last == pytest.approx([39, 49], abs=3)
    first, last = corners(cut(tmp_path / "data", (180, 100, 60, 60)))
    assert first == pytest.approx([180, 100], abs=3)
    assert last == pytest.approx([199, 119], abs=3)


def test_big_faces_are_shrunk_and_the_scale_says_so(tmp_path: Path) -> None:
    write_ramp(tmp_path / "data" / "a.png", 1200, 1100)
    with Image.open(cut(tmp_path / "data", (10, 10, 1024, 900))) as image:
        assert image.size == (MAX_SIDE, MAX_SIDE)
    boxes = np.array([[10, 10, 1024, 900], [0, 0, 100, 90], [0, 0, np.nan, 1]])
    np.testing.assert_array_equal(Squares.around(boxes, 0).scale, [0.25, 1, np.nan])


@given(
    st.tuples(*[st.floats(-1000, 1000)] * 2, *[st.floats(1, 1000)] * 2),
    st.floats(0, 2),
)
def test_a_square_holds_its_rectangle(box: tuple[float, ...], margin: float) -> None:
    squares = Squares.around(np.array([box]), margin)
    left, top, side = float(squares.left[0]), float(squares.top[0]), float(squares.side[0])
    assert left == int(left)
    assert top == int(top)
    assert side >= max(box[2:]) * (1 + 2 * margin)
    assert abs(left + side / 2 - (box[0] + box[2] / 2)) <= 0.5 + 1e-9
    assert abs(top + side / 2 - (box[1] + box[3] / 2)) <= 0.5 + 1e-9


def test_a_face_is_cut_once_and_again_only_where_something_changed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_ramp(root / "a.png")
    first = cut(root, (50, 30, 40, 20))
    time = os.stat(first).st_mtime_ns
    assert cut(root, (50, 30, 40, 20)) == first
    assert os.stat(first).st_mtime_ns == time
    assert cut(root, (51, 30, 40, 20)) != first
    shutil.move(root, tmp_path / "elsewhere")
    assert cut(tmp_path / "elsewhere", (50, 30, 40, 20)) == first
    write_ramp(tmp_path / "elsewhere" / "a.png", 210)
    assert cut(tmp_path / "elsewhere", (50, 30, 40, 20)) != first


def test_a_broken_off_run_is_taken_up(tmp_path: Path) -> None:
    root = tmp_path / "data"
    pictures = [write_ramp(root / f"{i}.png") for i in range(5)]
    squares = Squares.around(np.tile([50.0, 30, 40, 20], (5, 1)), 0)
    paths = cut_faces("toy", root, pictures, squares)
    for path in paths[2:]:
        path.unlink()
    (paths[2].parent / f"{paths[2].name}.1.1.part").write_bytes(b"half a file")
    assert cut_faces("toy", root, pictures, squares) == paths
    assert all(path.is_file() for path in paths)


def test_unreadable_pictures_stand_for_themselves_and_absent_faces_for_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_ramp(root / "a.png")
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:200])
    assert cut(root, (0, 0, 9, 9), name="broken.png") == root / "broken.png"
    assert cut(root, (0, 0, 9, 9), name="absent.png") == root / "absent.png"
    for box in ((np.nan, 0, 9, 9), (0, 0, 0, 9), (500, 500, 9, 9)):
        path = cut(root, box)
        assert path.name.startswith("a-")
        assert not path.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    write_ramp(tmp_path / "data" / "a.png")
    (cache / "face-images").mkdir(parents=True)
    (cache / "face-images" / "toy").touch()
    with pytest.raises(DataError, match="toy: face images cannot be written"):
        cut(tmp_path / "data", (0, 0, 9, 9))
