"""The dataset ``utkface``: labels in file names, some of which lack a field."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import load, refusal, unusable, write_image

GENDERS, RACES = ("male", "female"), ("white", "black", "asian", "indian", "other")


def test_names_become_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "25_0_1_20170116174525125.jpg.chip.jpg")
    write_image(tmp_path / "110_1_4_20170117195420803.jpg.chip.jpg")
    data = load("utkface", tmp_path)
    assert [path.name[:3] for path in data.paths] == ["110", "25_"]
    assert data.columns["age"].tolist() == [110, 25]
    assert data.columns["gender"].tolist() == ["female", "male"]
    assert data.columns["race"].tolist() == ["other", "black"]
    assert data.columns["date"].tolist() == ["20170117195420803", "20170116174525125"]
    assert data.group_column is None
    assert "non-commercial" in data.licence


@pytest.mark.parametrize(
    ("name", "age", "gender", "race", "date"),
    [
        ("39_1_20170116174525125.jpg.chip.jpg", 39, None, None, "20170116174525125"),
        ("61_1.jpg.chip.jpg", 61, None, None, None),
        ("53__0_20170116184028385.jpg", 53, None, "white", "20170116184028385"),
        ("1_3_2_20170116184028385.jpg", 1, None, "asian", "20170116184028385"),
        ("24_0_1_20170116220224657 .jpg.chip.jpg", 24, "male", "black", "20170116220224657"),
        ("55_0_0_20170116232725357jpg.chip.jpg", 55, "male", "white", "20170116232725357"),
        ("201_0_0_20170116232725357.jpg", np.nan, "male", "white", "20170116232725357"),
        ("7_0_9.jpg", 7, "male", None, None),
    ],
)
def test_a_field_that_a_name_lacks_is_missing(
    tmp_path: Path, name: str, age: float, gender: str | None, race: str | None, date: str | None
) -> None:
    write_image(tmp_path / name)
    columns = load("utkface", tmp_path).columns
    np.testing.assert_array_equal(columns["age"], [age])
    assert [columns[key][0] for key in ("gender", "race", "date")] == [gender, race, date]


def test_refusals(tmp_path: Path) -> None:
    assert "expected the images of UTKFace" in refusal("utkface", tmp_path / "none")
    assert refusal("utkface", tmp_path).endswith("found an empty folder")
    (tmp_path / "UTKFace").mkdir()
    assert refusal("utkface", tmp_path).endswith("found UTKFace")
    write_image(tmp_path / "25_0_1_20170116174525125.jpg.chip.jpg")
    write_image(tmp_path / "cover.jpg")
    assert "1 names do not begin with an age: cover.jpg; move those images away" in refusal("utkface", tmp_path)


def test_real_images_under_published_names(data_root: Path, tmp_path: Path) -> None:
    with (data_root / "utkface" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[:300]
    expected = {}
    for i, row in enumerate(rows):
        name = f"{row['age']}_{GENDERS.index(row['gender'])}_{RACES.index(row['race'])}_{20170101000000000 + i}"
        (tmp_path / f"{name}.jpg.chip.jpg").symlink_to((data_root / "utkface/images" / row["image"]).absolute())
        expected[f"{name}.jpg.chip.jpg"] = (float(row["age"]), row["gender"], row["race"])
    data = load("utkface", tmp_path)
    found = zip(*(data.columns[name] for name in ("age", "gender", "race")), strict=True)
    assert dict(zip((path.name for path in data.paths), found, strict=True)) == expected
    assert unusable(data) == ()
