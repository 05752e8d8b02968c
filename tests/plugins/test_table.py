"""The dataset ``table``: what is read, and what is refused with which words."""

from __future__ import annotations

import csv
import datetime
import io
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from facetask import DataError, FaceData
from facetask.plugins.datasets.table import facetask_datasets

(RECORD,) = facetask_datasets()


def load(root: Path, **params: Any) -> FaceData:
    return RECORD.load(RECORD.params(root=root, **params))


def folder(tmp_path: Path, table: str | bytes, name: str = "labels.csv") -> Path:
    """A dataset with a table and one file in its images' folder."""
    root = tmp_path / "faces"
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "images" / "a.jpg").touch()
    (root / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def test_rows_become_paths_and_columns(tmp_path: Path) -> None:
    root = folder(tmp_path, "image,age,gender\na.jpg,27,male\nsub/b.jpg,8.5,female\n")
    data = load(root)
    assert data.paths == (root / "images" / "a.jpg", root / "images" / "sub" / "b.jpg")
    assert list(data.columns) == ["image", "age", "gender"]
    assert data.columns["age"].dtype == np.float64
    assert data.columns["age"].tolist() == [27, 8.5]
    assert data.columns["gender"].dtype == object
    assert data.columns["gender"].tolist() == ["male", "female"]
    assert data.columns["image"].tolist() == ["a.jpg", "sub/b.jpg"]
    assert (data.group_column, data.source) == (None, str(root / "labels.csv"))


def test_missing_cells_are_nan_or_none(tmp_path: Path) -> None:
    table = "image,age,mood,glasses,nothing\na.jpg,,happy,True,\nb.jpg,NA,,FALSE,nan\nc.jpg,3,null,,null\n"
    columns = load(folder(tmp_path, table)).columns
    np.testing.assert_array_equal(columns["age"], [np.nan, np.nan, 3])
    assert columns["mood"].tolist() == ["happy", None, None]
    np.testing.assert_array_equal(columns["glasses"], [1, 0, np.nan])
    np.testing.assert_array_equal(columns["nothing"], [np.nan] * 3)
    assert columns["nothing"].dtype == columns["glasses"].dtype == np.float64


def test_byte_order_mark_quotes_and_blank_lines(tmp_path: Path) -> None:
    table = '\ufeffimage,name\r\n"a,1.jpg","Müller, ""Jo"""\r\n\r\n"b.jpg","two\nlines"\r\n'
    data = load(folder(tmp_path, table))
    assert [path.name for path in data.paths] == ["a,1.jpg", "b.jpg"]
    assert data.columns["name"].tolist() == ['Müller, "Jo"', "two\nlines"]


def test_infinity_is_a_number_for_the_task_to_refuse(tmp_path: Path) -> None:
    assert load(folder(tmp_path, "image,x\na.jpg,inf\nb.jpg,-1e3\n")).columns["x"].tolist() == [math.inf, -1000]


def test_image_names_and_long_identifiers_stay_text(tmp_path: Path) -> None:
    table = "image,person,clip,day\n007,12345678901234567,1_2,2020-01-02\n008,12345678901234568,12,2020-01-03\n"
    columns = load(folder(tmp_path, table)).columns
    assert columns["image"].tolist() == ["007", "008"]
    assert columns["person"].tolist() == ["12345678901234567", "12345678901234568"]
    assert columns["clip"].tolist() == ["1_2", "12"]
    assert columns["day"].tolist() == ["2020-01-02", "2020-01-03"]


def test_names_of_the_layout_are_params(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    (root / "crops").mkdir(parents=True)
    (root / "crops" / "a.png").touch()
    (root / "t.txt").write_text("file,who\na.png,7\n")
    data = load(root, labels="t.txt", images="crops", image_column="file", group_column="who")
    assert data.paths == (root / "crops" / "a.png",)
    assert data.group_column == "who"


def test_parquet_equals_csv(tmp_path: Path) -> None:
    folder(tmp_path, "image,age,gender,glasses\na.jpg,27,male,true\nb.jpg,,,\nc.jpg,8,female,false\n")
    table = {"image": ["a.jpg", "b.jpg", "c.jpg"], "age": [27, None, 8], "gender": ["male", None, "female"]}
    parquet.write_table(pyarrow.table({**table, "glasses": [True, None, False]}), tmp_path / "faces" / "l.parquet")
    from_csv, from_parquet = load(tmp_path / "faces"), load(tmp_path / "faces", labels="l.parquet")
    assert from_csv.paths == from_parquet.paths
    assert list(from_csv.columns) == list(from_parquet.columns)
    for name, column in from_csv.columns.items():
        assert column.dtype == from_parquet.columns[name].dtype
        np.testing.assert_array_equal(column, from_parquet.columns[name])


def test_parquet_types_become_numbers_or_text(tmp_path: Path) -> None:
    root = folder(tmp_path, "unused", "unused")
    columns = {
        "image": pyarrow.array([1, 2]),
        "small": pyarrow.array([1, 2], pyarrow.int8()),
        "half": np.array([0.5, np.nan], np.float16),
        "exact": [Decimal("1.25"), None],
        "day": [datetime.date(2020, 1, 2), None],
        "class": pyarrow.array(["x", None]).dictionary_encode(),
        "none": pyarrow.nulls(2, pyarrow.float32()),
    }
    parquet.write_table(pyarrow.table(columns), root / "labels.pq")
    data = load(root, labels="labels.pq")
    assert data.columns["image"].tolist() == ["1", "2"]
    np.testing.assert_array_equal(data.columns["small"], [1.0, 2.0])
    np.testing.assert_array_equal(data.columns["half"], [0.5, np.nan])
    np.testing.assert_array_equal(data.columns["exact"], [1.25, np.nan])
    assert data.columns["day"].tolist() == ["2020-01-02", None]
    assert data.columns["class"].tolist() == ["x", None]
    assert np.isnan(data.columns["none"]).all()
    assert data.columns["small"].dtype == data.columns["exact"].dtype == np.float64


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, width=32)), min_size=1, max_size=20))
def test_numbers_survive_a_csv_file(tmp_path_factory: pytest.TempPathFactory, values: list[float | None]) -> None:
    root = folder(tmp_path_factory.mktemp("numbers"), "")
    text = io.StringIO()
    rows = ((f"{i}.jpg", "" if value is None else repr(value)) for i, value in enumerate(values))
    csv.writer(text).writerows([("image", "x"), *rows])
    (root / "labels.csv").write_text(text.getvalue(), newline="")
    expected = [np.nan if value is None else value for value in values]
    np.testing.assert_array_equal(load(root).columns["x"], expected)


# --- errors -----------------------------------------------------------------------------------------------------------


def refusal(root: Path, **params: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(root, **params)
    return str(caught.value)


def test_root_missing_says_what_was_expected_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "utkface2").mkdir()
    message = refusal(tmp_path / "utkface" / "deeper")
    assert f"{tmp_path / 'utkface' / 'deeper'}: expected a folder with the table 'labels.csv'" in message
    assert f"found nothing ({tmp_path} has: utkface2)" in message
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file").endswith("found a file")


def test_table_missing_lists_the_folder(tmp_path: Path) -> None:
    root = folder(tmp_path, "image\na.jpg\n", "label.csv")
    message = refusal(root)
    assert f"{root / 'labels.csv'}: no such table" in message
    assert message.endswith("found images, label.csv")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,age\na.jpg,1\nb.jpg,2,3\n", "labels.csv: line 3: expected 2 cells, found 3"),
        ('image,age\n"a\n.jpg",1\nb.jpg\n', "labels.csv: line 4: expected 2 cells, found 1"),
        ('image,age\na.jpg,1\n"b.jpg,2\nc.jpg,3\n', "labels.csv: line 4: not a CSV row (unexpected end of data)"),
        ('image,age\n"a"b.jpg,1\n', "labels.csv: line 2: not a CSV row"),
        (b"image,age\na.jpg,1\n\xff.jpg,2\n", "labels.csv: line 3: not UTF-8 text (byte 0xff); save it as UTF-8"),
        ("", "labels.csv: the table is empty; expected a header"),
        ("image,age\n", "labels.csv: the table has a header and no rows"),
        ("image,age,age\na.jpg,1,2\n", "labels.csv: line 1: 1 column names repeat: 'age'"),
        ("images,age\na.jpg,1\n", "no column 'image' with the images' names (image_column); did you mean 'images'?"),
        ("a;b\n1;2\n", "no column 'image' with the images' names (image_column); known: a;b"),
        ("image,x\n,1\na.jpg,2\n ,3\n", "2 rows have no image name: rows 1, 3"),
    ],
)
def test_table_that_cannot_be_used(tmp_path: Path, table: str | bytes, message: str) -> None:
    assert message in refusal(folder(tmp_path, table))


def test_broken_parquet_names_the_file(tmp_path: Path) -> None:
    root = folder(tmp_path, "image\na.jpg\n", "labels.parquet")
    assert f"{root / 'labels.parquet'}: not a readable Parquet file (" in refusal(root, labels="labels.parquet")


def test_images_folder_missing_or_empty(tmp_path: Path) -> None:
    root = folder(tmp_path, "image\na.jpg\n")
    assert f"{root / 'crops'}: expected a folder with the images" in refusal(root, images="crops")
    (root / "crops").mkdir()
    assert refusal(root, images="crops").endswith("found an empty folder")


def test_repeated_names_are_counted_and_five_named(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(7)]
    message = refusal(folder(tmp_path, "\n".join(["image", *names, *names, "8.jpg"])))
    assert (
        "7 image names stand in more than one row: '0.jpg', '1.jpg', '2.jpg', '3.jpg', '4.jpg', … (7 in all)" in message
    )
    assert "1 image names stand in more than one row: 'a.jpg'" in refusal(folder(tmp_path, "image\na.jpg\n./a.jpg\n"))


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "sub/../../a.jpg", "..", "."])
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    message = refusal(folder(tmp_path, f"image\na.jpg\n{name}\n"))
    assert f"1 image names lead out of {tmp_path / 'faces' / 'images'}: {name!r}" in message


def test_group_column_must_exist(tmp_path: Path) -> None:
    root = folder(tmp_path, "image,person\na.jpg,x\n")
    assert "no column 'persons'; did you mean 'person'?" in refusal(root, group_column="persons")


def test_missing_image_files_are_left_to_the_run(tmp_path: Path) -> None:
    assert len(load(folder(tmp_path, "image\na.jpg\nabsent.jpg\n"))) == 2
