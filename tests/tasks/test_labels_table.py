"""The labels table: what a user reads back of each image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from toy_runs import Finished, Toy

from facetask import FaceData, Labels
from facetask.config import SplitConfig
from facetask.data.splits import Split
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.labels_table import image_names, labels_table
from facetask.tasks.satellite import Satellite

NAN = float("nan")
SPLIT = Split(np.array([0, 1]), np.array([2]), np.array([3]))


def table(values: list[Any], **fields: Any) -> dict[str, list[Any]]:
    array = np.array(values, dtype=float)
    labels = Labels(name="task", values=array if array.ndim == 2 else array[:, None], **fields)
    task = Satellite(
        spec=TaskSpec.of(labels, "task"),
        plugin="plugin",
        values=labels.values,
        data=FaceData(paths=tuple(Path(f"/faces/{i}.jpg") for i in range(len(values))), columns={}),
        split_config=SplitConfig(),
        left_out={},
        n_missing=0,
        given=labels,
    )
    return dict(labels_table(task, SPLIT).to_pydict())


def test_numbers_with_confidence_source_licence_and_split() -> None:
    sure = np.array([0.5, 1, 0, 1, NAN])
    found = table([1, 2, 3, 4, NAN], kind="continuous", confidence=sure, source="a model", licence="MIT")
    assert found == {
        "image": ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"],
        "value": [1, 2, 3, 4, None],
        "confidence": [0.5, 1, 0, 1, None],
        "source": ["a model"] * 5,
        "licence": ["MIT"] * 5,
        "split": ["train", "train", "validation", "test", None],
    }


@pytest.mark.parametrize(
    ("values", "fields", "expected"),
    [
        ([1, 0, NAN, 1], {"kind": "binary", "classes": ("f", "m")}, {"value": ["m", "f", None, "m"]}),
        ([2, 0, NAN, 1], {"kind": "nominal", "classes": ("a", "b", "c")}, {"value": ["c", "a", None, "b"]}),
        (
            [9, 10, NAN, 25],
            {"kind": "binned", "edges": ((10.0, 20.0),), "classes": ("<10", "10–20", "≥20")},
            {"value": [9, 10, None, 25], "bin": ["<10", "10–20", None, "≥20"]},
        ),
        (
            [[-1, 5], [1, -5], [1, NAN], [1, 5]],
            {"kind": "binned", "edges": ((0.0,), (0.0,)), "classes": ("ll", "lh", "hl", "hh")},
            {"value[1]": [-1, 1, 1, 1], "value[2]": [5, -5, None, 5], "bin": ["lh", "hl", None, "hh"]},
        ),
        (
            [[1, 0], [NAN, 1], [0, 0], [1, 1]],
            {"kind": "multilabel", "classes": ("hat", "tie")},
            {"value[hat]": [1, None, 0, 1], "value[tie]": [0, 1, 0, 1]},
        ),
    ],
)
def test_values_by_kind(values: list[Any], fields: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    found = table(values, **fields)
    others = {"image", "confidence", "source", "licence", "split"}
    assert {name: column for name, column in found.items() if name not in others} == expected


def test_images_are_named_from_the_dataset_s_folder_or_the_deepest_that_holds_them(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    paths = (tmp_path / "images/a/0.jpg", tmp_path / "images/b/1.jpg")
    for source in (tmp_path, tmp_path / "labels.csv"):
        assert image_names(FaceData(paths=paths, columns={}, source=str(source))) == [
            "images/a/0.jpg",
            "images/b/1.jpg",
        ]
    for source in ("", "toy faces", str(tmp_path / "elsewhere/labels.csv")):
        assert image_names(FaceData(paths=paths, columns={}, source=source)) == ["a/0.jpg", "b/1.jpg"]
    assert image_names(FaceData(paths=paths[:1], columns={})) == ["0.jpg"]


def test_a_run_writes_a_table_for_each_task(finished: Finished) -> None:
    names = {f"{task.name}.parquet" for task in finished.result.results.tasks}
    assert {path.name for path in (finished.path / "labels").iterdir()} == names
    found = parquet.read_table(finished.path / "labels/brightness.parquet")
    rows = found.to_pydict()
    assert rows["image"][:2] == ["images/0000.png", "images/0001.png"]
    assert [i for i, value in enumerate(rows["value"]) if value is None] == [3]
    assert [i for i, split in enumerate(rows["split"]) if split is None] == [3]
    assert {split: rows["split"].count(split) for split in ("train", "validation", "test")} == {
        part: getattr(finished.result.results.tasks[0].trials[0], f"n_{part}")
        for part in ("train", "validation", "test")
    }
    about = json.loads(found.schema.metadata[b"facetask"])
    assert about == {
        "task": "brightness",
        "plugin": "column",
        "kind": "continuous",
        "unit": "grey levels",
        "classes": [],
        "notes": [],
    }


def test_equal_runs_write_equal_tables(finished: Finished, toy: Toy, tmp_path: Path) -> None:
    toy.run(tmp_path / "again", until="regress")
    for path in (finished.path / "labels").iterdir():
        assert (tmp_path / "again/labels" / path.name).read_bytes() == path.read_bytes()


def test_merged_labels_run_and_their_notes_are_shown(toy: Toy, tmp_path: Path) -> None:
    column = {"column": "tint", "kind": "binary"}
    sources = [{"name": "column", "params": column}, {"name": "column", "params": {**column, "positive": "cold"}}]
    tasks = [{"name": "merge", "label": "both", "params": {"rule": "majority", "sources": sources}}]
    _, recorder = toy.run(tmp_path / "run", toy.config(satellite_tasks=tasks, trials=1), until="regress")
    assert "labels both: sources 1 and 2: equal for 100.0% of 60 images, Cohen's κ 1.00" in recorder.lines
    found = parquet.read_table(tmp_path / "run/labels/both.parquet")
    assert found.column("confidence").to_pylist() == [1.0] * 60
    assert "Cohen's κ" in json.loads(found.schema.metadata[b"facetask"])["notes"][-1]
    assert set(found.column("source").to_pylist()) == {
        "majority of: column 'tint' of labels.csv; column 'tint' of labels.csv"
    }
