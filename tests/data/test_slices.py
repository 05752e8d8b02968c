"""Which group of images each image is in, by a column of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetask import DataError, FaceData
from facetask.config import SliceConfig
from facetask.data.slices import NOT_KNOWN, slicings


def faces(**columns: list[Any]) -> FaceData:
    n = len(next(iter(columns.values())))
    arrays = {
        name: np.array(values, dtype=object if any(isinstance(v, str) for v in values) else np.float64)
        for name, values in columns.items()
    }
    return FaceData(paths=tuple(Path(f"{i}.png") for i in range(n)), columns=arrays, source="labels.csv")


def members(slicing: Any) -> dict[str, list[int]]:
    return {name: np.flatnonzero(slicing.groups == i).tolist() for i, name in enumerate(slicing.names)}


def test_each_value_is_a_group_and_a_missing_one_too() -> None:
    data = faces(race=["white", "asian", None, "white"], seen=[2.0, 1.5, 2.0, 1.5])
    race, seen = slicings(["race", "seen"], data)
    assert (race.column, seen.column) == ("race", "seen")
    assert list(members(race).items()) == [("asian", [1]), ("white", [0, 3]), (NOT_KNOWN, [2])]
    assert list(members(seen).items()) == [("1.5", [1, 3]), ("2", [0, 2])]


def test_intervals_without_an_image_are_left_out() -> None:
    data = faces(age=[70.0, 20.0, np.nan, 19.5, 61.0])
    (age,) = slicings([SliceConfig(column="age", edges=(20.0, 40.0, 60.0))], data)
    assert list(members(age).items()) == [("<20", [3]), ("20–40", [1]), ("≥60", [0, 4]), (NOT_KNOWN, [2])]


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1), st.sets(st.integers(-1, 10), min_size=1))
def test_every_image_is_in_one_interval_that_holds_it(values: list[int | None], edges: set[int]) -> None:
    data = faces(x=[np.nan if value is None else float(value) for value in values])
    (found,) = slicings([SliceConfig(column="x", edges=tuple(map(float, sorted(edges))))], data)
    for value, group in zip(values, found.groups, strict=True):
        name = found.names[group]
        if value is None:
            assert name == NOT_KNOWN
        elif name.startswith(("<", "≥")):
            bound = int(name[1:])
            assert value < bound if name[0] == "<" else value >= bound
        else:
            low, high = map(int, name.split("–"))
            assert low <= value < high
    assert set(found.groups) == set(range(len(found.names)))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("rase", "slices: labels.csv: no column 'rase'; did you mean 'race'?"),
        (SliceConfig(column="rase", edges=(1.0,)), "did you mean 'race'?"),
        ("person", "has 100 different values, 'p000' to 'p099'; a slice is for a column of at most 40"),
        ("age", "has 100 different values; give the edges of intervals, such as {column: age, edges: [24.75, 49.5,"),
        (SliceConfig(column="race", edges=(1.0,)), "column 'race' is text, such as 'white', which has no edges"),
    ],
)
def test_a_column_that_makes_no_groups_is_told(wanted: str | SliceConfig, words: str) -> None:
    n = 100
    data = faces(race=["white"] * n, person=[f"p{i:03d}" for i in range(n)], age=list(map(float, range(n))))
    with pytest.raises(DataError) as found:
        slicings([wanted], data)
    assert words in str(found.value)
