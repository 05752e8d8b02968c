"""The dataset ``image-folder``: folders' names as labels."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from dataset_trees import load, refusal, unusable, write_image
from pydantic import ValidationError

from facetask.plugins.datasets.image_folder import ImageFolderParams


def test_folders_are_classes(tmp_path: Path) -> None:
    for place in ("happy/b.jpg", "happy/a.PNG", "sad/a.jpeg"):
        write_image(tmp_path / place)
    (tmp_path / "happy" / "notes.txt").write_text("no image")
    (tmp_path / "happy" / "._a.jpg").write_text("what an archiver leaves")
    (tmp_path / "empty").mkdir()
    data = load("image-folder", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in data.paths] == [
        "happy/a.PNG",
        "happy/b.jpg",
        "sad/a.jpeg",
    ]
    assert data.columns["class"].tolist() == ["happy", "happy", "sad"]
    assert (data.group_column, data.source) == (None, str(tmp_path))
    assert unusable(data) == ()


def test_levels_become_columns_and_one_may_be_the_group(tmp_path: Path) -> None:
    for place in ("train/ann/1.png", "train/bob/1.png", "test/ann/1.png"):
        write_image(tmp_path / place)
    data = load("image-folder", tmp_path, levels=["part", "person"], group_column="person")
    assert data.columns["part"].tolist() == ["test", "train", "train"]
    assert data.columns["person"].tolist() == ["ann", "ann", "bob"]
    assert data.group_column == "person"


def test_what_cannot_be_read_is_left_to_the_run(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").write_bytes(b"no image")
    data = load("image-folder", tmp_path)
    assert len(data) == 2
    assert unusable(data) == ("2.png (cannot be decoded)",)


def test_refusals_say_what_was_expected_and_found(tmp_path: Path) -> None:
    message = refusal("image-folder", tmp_path / "no" / "where")
    assert f"{tmp_path / 'no' / 'where'}: expected images in folders <class>/" in message
    assert f"found nothing ({tmp_path} has: " in message
    (tmp_path / "a").mkdir()
    assert refusal("image-folder", tmp_path).endswith("found no image there (a)")
    write_image(tmp_path / "a" / "1.png")
    write_image(tmp_path / "0.png")
    assert "1 images lie elsewhere: 0.png" in refusal("image-folder", tmp_path)
    (tmp_path / "0.png").unlink()
    write_image(tmp_path / "a" / "deeper" / "2.png")
    assert "1 images lie elsewhere: a/deeper/2.png" in refusal("image-folder", tmp_path)
    message = refusal("image-folder", tmp_path / "a", group_column="clas")
    assert "1 images lie elsewhere: 1.png" in message
    assert "no column 'clas'; did you mean 'class'?" in refusal(
        "image-folder", write_image(tmp_path / "b" / "c" / "1.png").parents[1], group_column="clas"
    )


def test_levels_must_differ() -> None:
    with pytest.raises(ValidationError, match="different names"):
        ImageFolderParams(root=Path("x"), levels=["a", "a"])


def test_real_images_in_class_folders(data_root: Path, tmp_path: Path) -> None:
    with (data_root / "fer2013" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[:200]
    for row in rows:
        (tmp_path / row["emotion"]).mkdir(exist_ok=True)
        (tmp_path / row["emotion"] / row["image"]).symlink_to((data_root / "fer2013/images" / row["image"]).absolute())
    data = load("image-folder", tmp_path)
    assert Counter(data.columns["class"]) == Counter(row["emotion"] for row in rows)
    assert unusable(data) == ()
