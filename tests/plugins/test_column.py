"""The task ``column``: labels of every kind, and columns that cannot serve as labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from facetask import DataError, FaceData, Labels
from facetask.plugins.tasks.column import facetask_tasks
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.satellite import check_labels

(RECORD,) = facetask_tasks()
NAN = float("nan")


def labels(values: list[Any], **params: Any) -> Labels:
    """Labels of a column ``c`` with the given cells: numbers, or text with None for missing."""
    text = any(isinstance(value, str) for value in values)
    column = np.array(values, dtype=object if text else np.float64)
    paths = tuple(Path("faces/images") / f"{i}.jpg" for i in range(len(values)))
    data = FaceData(paths=paths, columns={"c": column}, source="faces/labels.csv", licence="CC0-1.0")
    return RECORD.labels(data, RECORD.params(column="c", **params))


def refusal(values: list[Any], **params: Any) -> str:
    with pytest.raises(DataError) as caught:
        labels(values, **params)
    return str(caught.value)


def test_continuous_values_stay_as_they_are() -> None:
    found = labels([27, NAN, 8.5], kind="continuous", unit="years")
    assert (found.name, found.kind, found.unit, found.flip) == ("c", "continuous", "years", "keep")
    assert (found.source, found.licence) == ("column 'c' of labels.csv", "CC0-1.0")
    assert found.values.dtype == np.float64
    np.testing.assert_array_equal(found.values, [[27], [NAN], [8.5]])


@pytest.mark.parametrize(
    ("values", "positive", "expected", "classes"),
    [
        (["male", "female", None, "male"], None, [1, 0, NAN, 1], ("female", "male")),
        (["male", "female", None, "male"], "female", [0, 1, NAN, 0], ("male", "female")),
        ([0, 1, NAN, 1], None, [0, 1, NAN, 1], ("0", "1")),
        ([0, 1, NAN, 1], 0, [1, 0, NAN, 0], ("1", "0")),
        ([0, 1, NAN, 1], False, [1, 0, NAN, 0], ("1", "0")),
        ([-1, 2.5, 2.5], -1.0, [1, 0, 0], ("2.5", "-1")),
        (["10", "9", "x", None][:2], 10, [1, 0], ("9", "10")),
    ],
)
def test_binary_is_zero_or_one(values: list[Any], positive: Any, expected: list[float], classes: tuple[str]) -> None:
    found = labels(values, kind="binary", positive=positive)
    np.testing.assert_array_equal(found.values[:, 0], expected)
    assert found.classes == classes


def test_numbers_sort_as_numbers() -> None:
    assert labels([9, 10, 9], kind="binary").classes == ("9", "10")
    assert labels([10, 9, 101], kind="nominal").classes == ("9", "10", "101")


def test_nominal_is_the_index_of_the_sorted_class() -> None:
    found = labels(["sad", "happy", None, "angry", "sad"], kind="nominal", flip="never")
    assert found.classes == ("angry", "happy", "sad")
    np.testing.assert_array_equal(found.values[:, 0], [2, 1, NAN, 0, 2])
    assert found.flip == "never"


def test_bins_by_edges() -> None:
    found = labels([3, 20, 29.5, NAN, 80], kind="binned", edges=[20, 30], unit="years")
    assert found.edges == ((20.0, 30.0),)
    assert found.classes == ("<20", "20–30", "≥30")
    np.testing.assert_array_equal(found.values[:, 0], [3, 20, 29.5, NAN, 80])


@pytest.mark.parametrize(
    ("values", "width", "edges", "classes"),
    [
        ([3, 29], 10, (10, 20), ("0–10", "10–20", "20–30")),
        ([10, 30], 10, (20, 30), ("10–20", "20–30", "30–40")),
        ([-5, 5], 10, (0,), ("-10–0", "0–10")),
        ([0.1, 0.3], 0.1, (0.2, 0.3), ("0.1–0.2", "0.2–0.3", "0.3–0.4")),
        ([0.3, 0.7], 0.1, (0.4, 0.5, 0.6, 0.7), ("0.3–0.4", "0.4–0.5", "0.5–0.6", "0.6–0.7", "0.7–0.8")),
    ],
)
def test_bins_by_width(values: list[float], width: float, edges: tuple[float], classes: tuple[str]) -> None:
    found = labels(values, kind="binned", width=width)
    assert found.edges == (edges,)
    assert found.classes == classes


@given(
    st.lists(st.integers(-300, 300), min_size=2, max_size=30, unique=True),
    st.sampled_from([1.0, 2.5, 7.0, 10.0, 100.0]),
)
def test_a_value_lies_in_the_bin_that_is_named_after_it(values: list[int], width: float) -> None:
    if len({value // width for value in values}) < 2:
        return
    found = labels([float(value) for value in values], kind="binned", width=width)
    bins = TaskSpec.of(found, "c").behaviour().bins(found.values)[:, 0]
    assert len(found.classes) == len(found.edges[0]) + 1
    for value, index in zip(values, bins, strict=True):
        low = value // width * width
        assert found.classes[index] == f"{low:g}–{low + width:g}"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["continuous", "binned"])
def test_text_where_numbers_are_needed_names_the_first_bad_cell(kind: str) -> None:
    params = {"width": 10} if kind == "binned" else {}
    message = refusal(["27", None, "about 30", "40", "old"], kind=kind, **params)
    assert message.startswith(
        f"faces/labels.csv: column 'c': kind: {kind} needs numbers, but row 3 (2.jpg) has 'about 30'"
    )


@pytest.mark.parametrize("kind", ["continuous", "binary", "nominal"])
def test_infinite_labels_are_counted_and_five_named(kind: str) -> None:
    message = refusal([1, 2, *[np.inf, -np.inf] * 3], kind=kind)
    assert "6 labels are infinite, in 2.jpg, 3.jpg, 4.jpg, 5.jpg, 6.jpg, …;" in message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", "b", "b", "c", None], "exactly two values, found 'a' (1), 'b' (2), 'c' (1)"),
        (["a", "a"], "exactly two values, found 'a' (2)"),
        ([1, 1, 2, 3], "exactly two values, found 1 (2), 2 (1), 3 (1)"),
        (list(range(12)), "8 (1), 9 (1), … (12 in all)"),
    ],
)
def test_binary_lists_other_than_two_values(values: list[Any], expected: str) -> None:
    assert expected in refusal(values, kind="binary")


@pytest.mark.parametrize(
    ("values", "positive", "expected"),
    [
        (["f", "m"], "male", "positive is 'male', but the values are 'f' and 'm'"),
        ([0, 1], 2, "positive is 2, but the values are 0 and 1"),
        ([0, 1], "1", "positive is '1', but the values are 0 and 1"),
        (["no", "yes"], True, "positive is True, but the values are 'no' and 'yes'"),
    ],
)
def test_positive_must_be_one_of_the_values(values: list[Any], positive: Any, expected: str) -> None:
    assert expected in refusal(values, kind="binary", positive=positive)


@pytest.mark.parametrize("kind", ["continuous", "binary", "nominal"])
def test_labels_that_are_all_missing(kind: str) -> None:
    assert refusal([NAN] * 3, kind=kind) == "faces/labels.csv: column 'c': all of 3 labels are missing"


@pytest.mark.parametrize(("values", "kind"), [([7, NAN, 7], "continuous"), (["x", "x", None], "nominal")])
def test_labels_that_are_all_the_same(values: list[Any], kind: str) -> None:
    assert "all of 2 labels are" in refusal(values, kind=kind)


def test_unknown_column_says_which_is_near() -> None:
    data = FaceData(paths=(Path("0.jpg"),), columns={"age": np.ones(1)}, source="labels.csv")
    with pytest.raises(DataError, match="no column 'aeg'; did you mean 'age'"):
        RECORD.labels(data, RECORD.params(column="aeg", kind="continuous"))


def test_bins_that_tell_nothing_apart_or_are_too_many() -> None:
    assert "all labels, 3 to 9, fall into the bin 0–10" in refusal([3, 9], kind="binned", width=10)
    assert "all labels, 3 to 9, fall into the bin <20" in refusal([3, 9], kind="binned", edges=[20])
    assert "more than 1000 bins of width 0.001" in refusal([3, 9], kind="binned", width=1e-3)
    assert "more than 1000 bins" in refusal([-1e300, 1e300], kind="binned", width=1e-10)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"kind": "nominal", "positive": "x"}, "positive is for kind: binary and multilabel, not nominal"),
        ({"kind": "continuous", "width": 10}, "edges and width are for kind: binned"),
        ({"kind": "binned"}, "needs either edges"),
        ({"kind": "binned", "width": 10, "edges": [1]}, "needs either edges"),
        ({"kind": "binned", "edges": []}, "edges must be one or more finite numbers in ascending order"),
        ({"kind": "binned", "edges": [2, 2]}, "ascending order"),
        ({"kind": "binned", "edges": [2, NAN]}, "finite"),
        ({"kind": "binned", "width": 0}, "width must be positive"),
        ({"kind": "binary", "flip": "negate"}, "flip: negate needs numbers"),
        ({"kind": "ordinal"}, "Input should be 'continuous', 'binary', 'multilabel', 'binned' or 'nominal'"),
        ({"kind": "nominal", "range": [0, 1]}, "range is for kind: continuous and binned, not nominal"),
        ({"kind": "continuous", "range": [1, 1]}, "range must be the least and the greatest number"),
        ({"kind": "continuous", "range": [1, NAN]}, "range must be the least and the greatest number"),
        ({"kind": "continuous", "range": [1]}, "at least 2 items"),
        ({"kind": "continuous", "flip": ["keep", "negate"]}, "one for each of 1 columns; found 2"),
        ({"kind": "nominal", "flip": ["negate"]}, "flip: negate needs numbers"),
        ({"kind": "continuous", "columns": ["a", "b"]}, "kind: continuous needs column or columns, and not the other"),
        ({"kind": "continuous", "column": None}, "kind: continuous needs column or columns"),
        ({"kind": "binned", "edges": [[1], [2]]}, "edges must be a list for each of 1 columns"),
        ({"kind": "binned", "column": None, "columns": ["a", "b"], "edges": [1]}, "a list for each of 2 columns"),
        ({"kind": "binned", "column": None, "columns": ["a", "b"], "edges": [[1], [2, 1]]}, "ascending order"),
        ({"kind": "multilabel"}, "kind: multilabel needs columns (a list of names), and not the other"),
        ({"kind": "multilabel", "columns": ["a"]}, "needs columns (a list of names), and not the other"),
        ({"kind": "multilabel", "column": None, "columns": ["a", "a"]}, "columns must differ"),
        ({"kind": "multilabel", "column": None, "columns": []}, "at least 1 item"),
        ({"kind": "binary", "columns": ["a"]}, "kind: binary needs column (a name), and not the other"),
        ({"kind": "binary", "column": None}, "needs column (a name)"),
        ({"kind": "binned", "width": 1, "classes": {"a": "b"}}, "classes is for kind: binary and nominal, not binned"),
    ],
)
def test_params_that_do_not_fit_together(params: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RECORD.params(**{"column": "c", **params})
    assert expected in str(caught.value)


def wear(**columns: list[Any]) -> FaceData:
    """A table of several columns, numbers or text with None."""
    cells = {
        name: np.array(values, dtype=object if any(isinstance(value, str) for value in values) else np.float64)
        for name, values in columns.items()
    }
    n = len(next(iter(columns.values())))
    return FaceData(paths=tuple(Path(f"{i}.jpg") for i in range(n)), columns=cells, source="faces/labels.csv")


def test_several_columns_are_several_labels() -> None:
    data = wear(hat=[0, 1, NAN, 1], beard=["yes", None, "no", "no"], glasses=[-1, 1, 1, NAN])
    found = RECORD.labels(data, RECORD.params(columns=["hat", "beard", "glasses"], kind="multilabel"))
    np.testing.assert_array_equal(found.values, [[0, 1, 0], [1, NAN, 1], [NAN, 0, 1], [1, 0, NAN]])
    assert (found.kind, found.classes, found.name) == ("multilabel", ("hat", "beard", "glasses"), "hat and 2 more")
    assert found.source == "columns 'hat', 'beard', 'glasses' of labels.csv"
    check_labels(found, 4, "column")
    turned = RECORD.labels(data, RECORD.params(columns=["beard"], kind="multilabel", positive="no"))
    np.testing.assert_array_equal(turned.values[:, 0], [0, NAN, 1, 1])
    assert turned.name == "beard"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"hat": [0, 1, 2]}, "column 'hat': a yes or no needs exactly two values, found 0 (1), 1 (1), 2 (1)"),
        ({"hat": [1, 1, NAN]}, "column 'hat': a yes or no needs exactly two values, found 1 (2)"),
        ({"hat": [NAN, NAN, NAN]}, "column 'hat': all of 3 labels are missing"),
        ({"hat": [0, 1, np.inf]}, "1 labels are infinite, in 2.jpg"),
        ({"hats": [0, 1, 1]}, "no column 'hat'; did you mean 'hats'"),
    ],
)
def test_a_column_that_is_no_label_is_named(columns: dict[str, list[float]], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        RECORD.labels(wear(beard=[0, 1, 1], **columns), RECORD.params(columns=["beard", "hat"], kind="multilabel"))
    assert expected in str(caught.value)


def test_values_can_be_given_classes() -> None:
    mood = {"happy": "good", "calm": "good", "sad": "bad", "?": None}
    found = labels(["sad", "happy", None, "?", "calm"], kind="nominal", classes=mood)
    assert found.classes == ("bad", "good")
    np.testing.assert_array_equal(found.values[:, 0], [0, 1, NAN, NAN, 1])
    found = labels([0, 1, NAN, 2], kind="binary", classes={0: "male", 1: "female", 2.0: None}, positive="male")
    assert found.classes == ("female", "male")
    np.testing.assert_array_equal(found.values[:, 0], [1, 0, NAN, NAN])


def test_a_value_without_a_class_is_not_dropped_in_silence() -> None:
    said = refusal(["sad", "happy", "angry", "angry"], kind="nominal", classes={"sad": "a", "happy": "b"})
    assert "classes has no entry for the value 'angry' (2 images)" in said
    assert "makes all labels missing" in refusal([0, 1], kind="nominal", classes={0: None, 1: None})
    assert "nothing to learn" in refusal([0, 1], kind="nominal", classes={0: "a", 1: "a"})


def test_decades() -> None:
    found = labels([3, 9.5, 10, 47, NAN], kind="binned", width=10, unit="years")
    assert found.classes == ("0–10", "10–20", "20–30", "30–40", "40–50")
    assert found.edges == ((10.0, 20.0, 30.0, 40.0),)


def test_numbers_outside_of_the_range_are_missing_and_counted() -> None:
    found = labels([0, 2014, NAN, -1, 116, 30], kind="continuous", range=[0, 116])
    np.testing.assert_array_equal(found.values[:, 0], [0, NAN, NAN, NAN, 116, 30])
    assert found.notes == (
        "column 'c': 2 labels lie outside of range, 0 to 116, and count as missing: 1.jpg (2014), 3.jpg (-1)",
    )
    assert labels([0, 116, NAN], kind="continuous", range=[0, 116]).notes == ()
    decades = labels([3, 47, 2014], kind="binned", width=10, range=[0, 116])
    assert decades.classes == ("0–10", "10–20", "20–30", "30–40", "40–50")
    many = labels([*range(200, 210), 1, 2], kind="continuous", range=[0, 116]).notes[0]
    assert many.endswith("0.jpg (200), 1.jpg (201), 2.jpg (202), 3.jpg (203), 4.jpg (204), …")
    said = refusal([2014, 1994, NAN], kind="continuous", range=[0, 116])
    assert "all of 2 labels lie outside of range, 0 to 116: 0.jpg (2014), 1.jpg (1994); is the range" in said
    assert "all of 2 labels are 7; nothing to learn" in refusal([7, 2014, 7], kind="continuous", range=[0, 116])


def test_several_columns_of_numbers_are_regressed_together() -> None:
    data = wear(yaw=[-30, 0, NAN, 30], pitch=[5, NAN, -5, 20])
    params = {"columns": ["yaw", "pitch"], "unit": "degrees", "flip": ["negate", "keep"]}
    found = RECORD.labels(data, RECORD.params(kind="continuous", **params))
    np.testing.assert_array_equal(found.values, [[-30, 5], [0, NAN], [NAN, -5], [30, 20]])
    assert (found.name, found.unit, found.flip) == ("yaw and 1 more", "degrees", ("negate", "keep"))
    assert found.source == "columns 'yaw', 'pitch' of labels.csv"
    check_labels(found, 4, "column")
    bins = RECORD.labels(data, RECORD.params(kind="binned", edges=[[-15, 15], [0]], **params))
    assert bins.edges == ((-15.0, 15.0), (0.0,))
    assert bins.classes[:3] == ("yaw <-15, pitch <0", "yaw <-15, pitch ≥0", "yaw -15–15, pitch <0")
    assert len(bins.classes) == 6
    check_labels(bins, 4, "column")
    wide = RECORD.labels(data, RECORD.params(kind="binned", width=25, **params))
    assert wide.edges == ((-25.0, 0.0, 25.0), (0.0,))
    check_labels(wide, 4, "column")
    with pytest.raises(DataError, match="column 'roll': all of 4 labels are 1; nothing to learn"):
        RECORD.labels(wear(yaw=[1, 2, 3, 4], roll=[1] * 4), RECORD.params(columns=["yaw", "roll"], kind="continuous"))
