"""The dataset ``pointing04``: angles in file names, the face's place in a text file."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_trees import corners, load, refusal, unusable, write_image, write_ramp


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path_factory.mktemp("cache")))


def tree(root: Path) -> Path:
    for place in ("Person01/person01146+0-90", "Person01/person01200-90+0", "Person15/person15123-30+45"):
        picture = write_ramp(root / f"{place}.jpg")
        picture.with_suffix(".txt").write_text(f"{picture.name}\r\n\r\nFace\r\n100\r\n60\r\n40\r\n50\r\n")
    write_image(root / "Front" / "person01146+0+0.jpg")
    return root


def test_names_and_text_files_become_columns(tmp_path: Path) -> None:
    data = load("pointing04", tree(tmp_path), margin=0.0)
    columns = data.columns
    assert columns["person"].tolist() == ["01", "01", "15"]
    assert columns["series"].tolist() == [1, 2, 1]
    assert columns["number"].tolist() == [46, 0, 23]
    assert columns["tilt"].tolist() == [0, -90, -30]
    assert columns["pan"].tolist() == [-90, 0, 45]
    assert [columns[name][0] for name in ("face_x", "face_y", "face_w", "face_h")] == [100, 60, 40, 50]
    assert data.group_column == "person"
    first, last = corners(data.paths[0])
    assert first == pytest.approx([75, 35], abs=3)
    assert last == pytest.approx([124, 84], abs=3)
    assert unusable(data) == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a line each; found 0 numbers after 'Face'"),
        ("a.jpg\n\nFace\n100\n60\n40\n", "found 3 numbers after 'Face'"),
        ("a.jpg\n\nFace\n100\n6o\n40\n50\n", "line 5: expected a number of pixels, found '6o'"),
    ],
)
def test_malformed_text_files(tmp_path: Path, content: str, message: str) -> None:
    (tree(tmp_path) / "Person01" / "person01146+0-90.txt").write_text(content)
    found = refusal("pointing04", tmp_path)
    assert found.startswith(str(tmp_path / "Person01" / "person01146+0-90.txt"))
    assert message in found


def test_refusals(tmp_path: Path) -> None:
    assert "expected folders Person01 … Person15" in refusal("pointing04", tmp_path / "none")
    assert refusal("pointing04", tmp_path).endswith("found an empty folder")
    tree(tmp_path)
    (tmp_path / "Person01" / "person01200-90+0.txt").unlink()
    message = refusal("pointing04", tmp_path)
    assert "1 images have no .txt with the face's place beside them: person01200-90+0.jpg" in message
    write_image(tmp_path / "Person15" / "person15.jpg")
    assert "1 names are of another form: person15.jpg" in refusal("pointing04", tmp_path)
    (tmp_path / "Person02").mkdir()
    assert f"{tmp_path / 'Person02'}: expected" in refusal("pointing04", tmp_path)
