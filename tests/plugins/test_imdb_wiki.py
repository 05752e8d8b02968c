"""The dataset ``imdb-wiki``: MATLAB's struct, computed ages and the choice of images."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import corners, load, refusal, unusable, write_ramp
from pydantic import ValidationError
from scipy.io import savemat

from facetask.plugins.datasets.imdb_wiki import IMDBWIKIParams

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path_factory.mktemp("cache")))


def datenum(year: int, month: int, day: int) -> int:
    """MATLAB's serial number of a date."""
    return datetime.date(year, month, day).toordinal() + 366


def cells(*values: Any) -> np.ndarray:
    """A MATLAB cell array of one row."""
    array = np.empty((1, len(values)), dtype=object)
    for i, value in enumerate(values):
        array[0, i] = value
    return array


def fields(imdb: bool = False) -> dict[str, np.ndarray]:
    """Six rows: three good ones, two that are left out, one whose dates are wrong."""
    struct = {
        "dob": np.array([[datenum(1981, 5, 5), datenum(1900, 1, 1), datenum(1950, 12, 31), 700000, 700000, 47]]),
        "photo_taken": np.array([[2009, 1964, 1999, 2010, 2010, 2014]], dtype=np.uint16),
        "full_path": cells(*(f"0{i}/{i}_1981-05-05_2009.jpg" for i in range(6))),
        "gender": np.array([[1, 0, NAN, 1, 1, 1]]),
        "name": cells("Sami Jauhojärvi", "Dettmar Cramer", "", "D", "E", "F"),
        "face_location": cells(*(np.array([[11.0, 21.0, 60.0, 70.0]]) for _ in range(6))),
        "face_score": np.array([[4.3, 2.6, 1.5, -INF, 3.0, 5.0]]),
        "second_face_score": np.array([[NAN, NAN, NAN, NAN, 1.2, NAN]]),
    }
    if imdb:
        struct |= {"celeb_names": cells("A", "B"), "celeb_id": np.array([[7, 7, 12, 1, 2, 3]], dtype=np.uint16)}
    return struct


def tree(root: Path, struct: dict[str, Any] | None = None, name: str = "wiki") -> Path:
    root.mkdir(exist_ok=True)
    struct = fields() if struct is None else struct
    savemat(root / f"{name}.mat", {name: struct})
    for i in range(6):
        write_ramp(root / f"0{i}" / f"{i}_1981-05-05_2009.jpg")
    return root


def test_rows_with_one_face_are_kept(tmp_path: Path) -> None:
    data = load("imdb-wiki", tree(tmp_path))
    assert [path.relative_to(tmp_path).as_posix()[:4] for path in data.paths] == ["00/0", "01/1", "02/2", "05/5"]
    np.testing.assert_array_equal(data.columns["age"], [28, 64, 49, NAN])  # 2014 years old is a wrong date
    assert data.columns["gender"].tolist() == ["male", "female", None, "male"]
    assert data.columns["name"].tolist() == ["Sami Jauhojärvi", "Dettmar Cramer", None, "F"]
    assert data.columns["photo_year"].tolist() == [2009, 1964, 1999, 2014]
    np.testing.assert_array_equal(data.columns["face_score"], [4.3, 2.6, 1.5, 5])
    assert np.isnan(data.columns["second_face_score"]).all()
    assert data.group_column == "name"
    assert data.source == (
        f"{tmp_path / 'wiki.mat'} (4 of 6 images have the faces asked for; 1 ages outside 0 to 100 years are missing)"
    )
    assert unusable(data) == ()


def test_params_choose_rows_and_ages(tmp_path: Path) -> None:
    tree(tmp_path)
    assert len(load("imdb-wiki", tmp_path, min_face_score=2.6)) == 3
    assert len(load("imdb-wiki", tmp_path, single_face=False)) == 5
    ages = load("imdb-wiki", tmp_path, min_age=40.0, max_age=49.0).columns["age"]
    np.testing.assert_array_equal(ages, [NAN, NAN, 49, NAN])
    wide = load("imdb-wiki", tmp_path, max_age=3000.0)
    assert wide.source == f"{tmp_path / 'wiki.mat'} (4 of 6 images have the faces asked for)"
    with pytest.raises(ValidationError, match="min_age must be below max_age"):
        IMDBWIKIParams(root=tmp_path, min_age=50.0, max_age=50.0)


@pytest.mark.parametrize("birthday", [(1970, 1, 1), (1969, 12, 31), (2000, 2, 29), (1900, 12, 31), (1999, 1, 1)])
def test_birth_years_are_those_of_the_calendar(tmp_path: Path, birthday: tuple[int, int, int]) -> None:
    struct = fields()
    struct["dob"] = np.full((1, 6), datenum(*birthday))
    struct["photo_taken"] = np.full((1, 6), 2005)
    ages = load("imdb-wiki", tree(tmp_path, struct), max_age=150.0).columns["age"]
    assert set(ages) == {2005 - birthday[0]}


def test_imdb_is_grouped_by_its_numbers_of_people(tmp_path: Path) -> None:
    data = load("imdb-wiki", tree(tmp_path, fields(imdb=True), "imdb"))
    assert data.columns["celeb_id"].tolist() == ["7", "7", "12", "3"]
    assert data.group_column == "celeb_id"


def test_faces_are_cut_out_of_whole_photographs(tmp_path: Path) -> None:
    data = load("imdb-wiki", tree(tmp_path), crop=True, margin=0.0)
    first, last = corners(data.paths[0])  # MATLAB's columns 11 to 60 and rows 21 to 70
    assert first == pytest.approx([10, 20], abs=3)
    assert last == pytest.approx([59, 69], abs=3)


def test_other_structs(tmp_path: Path) -> None:
    struct = fields()
    del struct["dob"]
    message = refusal("imdb-wiki", tree(tmp_path, struct))
    assert "expected one struct 'wiki' with the fields dob, photo_taken" in message
    assert "found no field dob among photo_taken" in message
    message = refusal("imdb-wiki", tree(tmp_path, fields() | {"gender": np.array([[1.0]])}))
    assert "must be equally long, found dob: 6, photo_taken: 6, full_path: 6, gender: 1" in message
    message = refusal("imdb-wiki", tree(tmp_path, fields() | {"face_score": np.full((1, 6), -INF)}))
    assert "none of 6 images has the faces asked for" in message
    message = refusal("imdb-wiki", tree(tmp_path, fields() | {"full_path": cells("a.jpg", "", "b.jpg", "", "", "")}))
    assert "full_path is empty in 2 rows: 2, 6" in message
    wrong = cells(*(np.array([[1.0, 2.0]]) for _ in range(6)))
    message = refusal("imdb-wiki", tree(tmp_path, fields() | {"face_location": wrong}), crop=True)
    assert "face_location needs four numbers; 6 rows have not" in message
    savemat(tmp_path / "wiki.mat", {"wiki": np.eye(2)})
    assert "found no such struct" in refusal("imdb-wiki", tmp_path)
    (tmp_path / "wiki.mat").write_bytes(
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + b"\0" * 99
    )
    assert "not a readable MATLAB file before version 7.3 (NotImplementedError" in refusal("imdb-wiki", tmp_path)
    (tmp_path / "wiki.mat").write_bytes(b"half")
    assert "not a readable MATLAB file" in refusal("imdb-wiki", tmp_path)


def test_refusals(tmp_path: Path) -> None:
    assert "expected a folder with wiki.mat or imdb.mat" in refusal("imdb-wiki", tmp_path / "none")
    assert refusal("imdb-wiki", tmp_path).endswith("found an empty folder")
    tree(tmp_path)
    for path in tmp_path.glob("0*/*.jpg"):
        path.unlink()
    assert "expected the images of wiki.mat (00/0_1981" in refusal("imdb-wiki", tmp_path)
    (tmp_path / "imdb.mat").touch()
    assert "one of the two files; found 00, 01, 02, 03, 04, … (8 in all)" in refusal("imdb-wiki", tmp_path)
