"""The dataset ``lfw``: people in folders, and the folds of ``pairs.txt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import load, refusal, unusable, write_image

PAIRS = "2\t1\nAnn_Lee\t1\t2\nAnn_Lee\t1\tBob\t1\nCy\t1\t2\nCy\t2\tDan\t1\n"


def tree(root: Path, pairs: str | None = PAIRS) -> Path:
    for person, count in (("Ann_Lee", 2), ("Bob", 1), ("Cy", 2), ("Dan", 1), ("Eve", 1)):
        for number in range(1, count + 1):
            write_image(root / person / f"{person}_{number:04d}.jpg")
    if pairs is not None:
        (root / "pairs.txt").write_text(pairs)
    return root


def test_people_and_folds(tmp_path: Path) -> None:
    data = load("lfw", tree(tmp_path))
    assert data.columns["person"].tolist() == ["Ann_Lee", "Ann_Lee", "Bob", "Cy", "Cy", "Dan", "Eve"]
    assert data.columns["number"].tolist() == [1, 2, 1, 1, 2, 1, 1]
    np.testing.assert_array_equal(data.columns["fold"], [1, 1, 1, 2, 2, 2, np.nan])
    assert data.group_column == "person"
    assert unusable(data) == ()


def test_without_pairs_there_are_no_folds(tmp_path: Path) -> None:
    assert list(load("lfw", tree(tmp_path, None)).columns) == ["person", "number"]


def test_who_is_in_two_folds_is_in_none(tmp_path: Path) -> None:
    data = load("lfw", tree(tmp_path, PAIRS.replace("Dan\t1", "Bob\t1")))
    np.testing.assert_array_equal(data.columns["fold"], [1, 1, np.nan, 2, 2, np.nan, np.nan])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("ten folds\n", "line 1: expected the number of folds and of pairs in each, found 'ten folds'"),
        (PAIRS.rpartition("Cy")[0], "line 1 asks for 2 × 2 × 1 pairs, found 3 lines; is the file whole?"),
        (PAIRS.replace("Cy\t1\t2", "Cy\t1"), "line 4: expected a name and two numbers, separated by tabs"),
        (PAIRS.replace("Bob\t1", "Bob\tx"), "line 3: expected a name, a number, a name and a number"),
    ],
)
def test_malformed_pairs(tmp_path: Path, pairs: str, message: str) -> None:
    assert message in refusal("lfw", tree(tmp_path, pairs))


def test_refusals(tmp_path: Path) -> None:
    assert "expected a folder for each person" in refusal("lfw", tmp_path / "none")
    (tmp_path / "pairs.txt").write_text(PAIRS)
    assert "found no image there (pairs.txt)" in refusal("lfw", tmp_path)
    write_image(tmp_path / "Zoe" / "Zoe_0001.jpg")
    message = refusal("lfw", tmp_path)
    assert "none of the people of pairs.txt has an image: Ann_Lee, Bob, Cy, Dan" in message
    write_image(tmp_path / "Zoe" / "Ann_0001.jpg")
    assert "1 images are not named after their folder: Zoe/Ann_0001.jpg" in refusal("lfw", tmp_path)
