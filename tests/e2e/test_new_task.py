"""The example of tasks of one's own, with a tiny network in dlib's place and fewer pictures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from toy_runs import ROOT, TINY, run_python

from facetask import DataError, FaceData, PluginManager, Task
from facetask.testing import check_task

EXAMPLE = ROOT / "examples" / "new_task"


@pytest.fixture(scope="module")
def faces() -> FaceData:
    """The pictures that the run below labels."""
    dataset = PluginManager().find("dataset", "rendered-faces")
    return dataset.load(dataset.params(count=60, identities=30, size=48))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, faces: FaceData) -> Path:
    """The finished run's folder."""
    example = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("example") / "new_task")
    (example / "tiny.py").write_text(TINY)
    few = ["base_network.name=tiny", "data.params={count: 60, identities: 30, size: 48}", "compute.workers=0"]
    overrides = [part for value in few for part in ("-o", value)]
    run_python(example, "-m", "facetask", "run", "run.yaml", "--plugins-dir", ".", *overrides)
    return example / "runs/run"


def test_the_four_tasks_run(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert results["finished"]
    assert {task["name"]: task["labels"]["kind"] for task in results["tasks"]} == {
        "frontal": "binary",
        "decade": "binned",
        "mood": "binary",
        "covered": "binary",
    }
    assert all(task["finetune"] is not None for task in results["tasks"])


def test_the_labels_are_those_that_the_file_asks_for(run: Path, faces: FaceData) -> None:
    """Against the columns, computed another way."""
    tables = {path.stem: parquet.read_table(path).to_pydict() for path in (run / "labels").iterdir()}
    names = [path.name for path in faces.paths]

    def labelled(task: str, column: str = "value") -> list[str | None]:
        images = [Path(image).name for image in tables[task]["image"]]
        return [dict(zip(images, tables[task][column], strict=True))[name] for name in names]

    yaw, pitch = np.deg2rad(faces.columns["yaw"]), np.deg2rad(faces.columns["pitch"])
    ahead = np.stack([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)], axis=1)
    off_axis = np.linalg.norm(ahead[:, :2], axis=1)
    assert labelled("frontal") == np.where(off_axis < np.sin(np.deg2rad(25)), "frontal", "turned").tolist()
    decades = [int(age) // 10 * 10 for age in faces.columns["age"]]
    assert labelled("decade", "bin") == [f"{decade}–{decade + 10}" for decade in decades]
    moods = {"happy": "good", "sad": "bad", "angry": "bad", "neutral": None, "surprise": None}
    assert labelled("mood") == [moods[name] for name in faces.columns["expression"]]
    covered = (faces.columns["hat"] == "yes") | (faces.columns["glasses"] == "yes")
    assert labelled("covered") == np.where(covered, "covered", "bare").tolist()


def test_the_plugin_keeps_its_contract_and_leaves_missing_angles_missing(faces: FaceData) -> None:
    record = PluginManager(EXAMPLE).find("task", "frontal")
    assert isinstance(record, Task)
    columns = {"yaw": np.array([0.0, -30.0, 20.0, np.nan]), "pitch": np.array([10.0, 0.0, 20.0, 0.0])}
    four = replace(faces, paths=faces.paths[:4], columns=columns)
    values = check_task(record, four).values[:, 0]
    assert np.array_equal(values, [0, 1, 1, np.nan], equal_nan=True)
    assert check_task(record, four, record.params(within=40.0)).values[:3, 0].tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="no column 'turn'"):
        record.labels(four, record.params(yaw="turn"))
