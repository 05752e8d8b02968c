"""The dataset ``agedb``: labels in file names, split by person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dataset_trees import load, refusal, unusable, write_image


def test_names_become_labels(tmp_path: Path) -> None:
    for name in ("0_MariaCallas_35_f.jpg", "1_MariaCallas_40_f.jpg", "12_Jean_Gabin_9_m.jpg"):
        write_image(tmp_path / name)
    data = load("agedb", tmp_path)
    assert data.columns["name"].tolist() == ["MariaCallas", "Jean_Gabin", "MariaCallas"]
    assert data.columns["age"].tolist() == [35, 9, 40]
    assert data.columns["gender"].tolist() == ["female", "male", "female"]
    assert data.group_column == "name"
    assert "non-commercial" in data.licence
    assert unusable(data) == ()


def test_an_age_that_cannot_be_is_missing(tmp_path: Path) -> None:
    for name in ("0_MariaCallas_2014_f.jpg", "1_MariaCallas_116_f.jpg"):
        write_image(tmp_path / name)
    np.testing.assert_array_equal(load("agedb", tmp_path).columns["age"], [np.nan, 116])


def test_refusals(tmp_path: Path) -> None:
    assert "expected the images of AgeDB" in refusal("agedb", tmp_path / "none")
    assert refusal("agedb", tmp_path).endswith("found an empty folder")
    write_image(tmp_path / "0_MariaCallas_35_f.jpg")
    write_image(tmp_path / "MariaCallas_35_f.jpg")
    write_image(tmp_path / "1_MariaCallas_35_x.jpg")
    message = refusal("agedb", tmp_path)
    assert "2 names are of another form: 1_MariaCallas_35_x.jpg, MariaCallas_35_f.jpg; move" in message
