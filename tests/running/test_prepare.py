"""From a configuration to network, images, tasks and responses: what is checked before any work."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import Recorder, Toy

from facetask import ConfigError, DataError, SurgeryError
from facetask.config import ComputeConfig, config_from_dict
from facetask.running.prepare import Materials, prepare, respond, set_up_compute


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Give torch its threads back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def prepared(toy: Toy, **changes: Any) -> tuple[Materials, Recorder]:
    recorder = Recorder()
    config = config_from_dict(toy.config(**changes), base=Path.cwd(), plugins=toy.plugins)
    return prepare(config, toy.plugins, recorder), recorder


def column(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"name": "column", "params": {"column": name, "kind": kind}, **more}


def test_everything_is_loaded_and_nothing_computed(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path))
    materials, recorder = prepared(toy)
    assert [tap.name for tap in materials.network.graph.taps] == ["0", "2.conv", "3"]
    assert len(materials.images.data) == 60
    assert [task.spec.name for task in materials.tasks] == ["brightness", "tint", "bins", "level", "marks"]
    assert materials.selector.name == "lasso"
    assert recorder.lines == []
    (partly,) = recorder.warnings
    assert partly == (
        "task 'marks': 7 of 60 labelled images lack some labels (bright 53, warm 60 known); each counts for those that "
        "it has"
    )
    _, recorder = prepared(toy, selector={"name": "mutual-information"})
    assert recorder.warnings[0].endswith(
        "has; the selector 'mutual-information' chooses by the 53 images that have all of them"
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_responses_are_pooled_taps_side_by_side(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path))
    materials, recorder = prepared(toy)
    responses = respond(materials, recorder)
    pixels = np.stack([materials.network.preprocessing.load(path) for path in toy.images])
    network = materials.network.module
    with torch.inference_mode():
        first = torch.relu(network[0](torch.from_numpy(pixels).float().sub(127.5).div(127.5))).mean((2, 3))  # type: ignore[index]
    assert np.allclose(responses.tap("0"), first.numpy(), atol=1e-4)
    assert {tap: columns.stop - columns.start for tap, columns in responses.columns.items()} == {
        "0": 8,
        "2.conv": 8,
        "3": 16,
    }
    assert recorder.said("responses: 60 images × 32 filters of 3 taps, 0 from the cache")
    again = Recorder()
    assert np.array_equal(respond(prepared(toy)[0], again).matrix, responses.matrix)
    assert again.said("all from the cache")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"prune": {"cut": "3.conv"}}, SurgeryError, "no tap '3.conv' in this network; did you mean '2.conv'"),
        (
            {"compute": {"device": "toaster"}},
            ConfigError,
            "compute.device: 'toaster' cannot be used here .*auto or cpu",
        ),
        (
            {"finetune": {"loss": "cross-entropy"}},
            ConfigError,
            "finetune.loss: .* continuous task 'brightness'; use auto",
        ),
        ({"split": {"stratify_by": "sex"}}, DataError, "no column 'sex'"),
        ({"split": {"group_by": "clip"}}, DataError, "no column 'clip'"),
        ({"slices": ["tnt"]}, DataError, "slices: .*no column 'tnt'; did you mean 'tint'"),
        ({"split": {"group_by": "tint"}}, DataError, "cannot split 2 groups"),
        (
            {"satellite_tasks": [column("tint", "binary"), column("tint", "nominal")]},
            DataError,
            "2 tasks are named 'tint'; give each a `label:`",
        ),
    ],
)
def test_what_cannot_work_is_found_at_once(toy: Toy, changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prepared(toy, **changes)


def test_a_column_that_cannot_name_a_folder_needs_a_label(toy: Toy, tmp_path: Path) -> None:
    root = Path(toy.values["data"]["params"]["root"])
    (tmp_path / "images").symlink_to(root / "images")
    table = (root / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(table.replace("tint", "../tint", 1))
    data = {"name": "table", "params": {"root": str(tmp_path)}}
    with pytest.raises(DataError, match=r"its name '\.\./tint' cannot name a folder; give it a `label:`"):
        prepared(toy, data=data, satellite_tasks=[column("../tint", "binary")])
    materials, _ = prepared(toy, data=data, satellite_tasks=[column("../tint", "binary", label="tint")])
    assert materials.tasks[0].spec.name == "tint"


def test_bad_images_and_small_classes_are_told(toy: Toy, tmp_path: Path) -> None:
    root = Path(toy.values["data"]["params"]["root"])
    (tmp_path / "images").mkdir()
    for path in toy.images:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    header, *rows = (root / "labels.csv").read_text().splitlines()
    rows[20] = rows[20].replace("warm", "lukewarm").replace("cold", "lukewarm")
    (tmp_path / "labels.csv").write_text("\n".join([header, *rows]))
    (tmp_path / "images/0007.png").write_bytes(b"")
    data = {"name": "table", "params": {"root": str(tmp_path)}}
    materials, recorder = prepared(toy, data=data, satellite_tasks=[column("tint", "nominal")])
    assert len(materials.images.data) == 59
    assert recorder.warnings == [
        "1 of 60 images cannot be read and are left out: 0007.png (cannot be decoded)",
        "task 'tint': classes with fewer than 3 images (3 × split.min_per_class) are left out: lukewarm (1)",
    ]


def faces_with(toy: Toy, root: Path, change: Callable[[int, dict[str, str]], object]) -> dict[str, Any]:
    """Write the toy faces' table again with each row changed, and return the dataset's configuration."""
    given = Path(toy.values["data"]["params"]["root"])
    shutil.copytree(given / "images", root / "images")
    with (given / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        change(i, row)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return {"name": "table", "params": {"root": str(root), "group_column": "person"}}


def test_a_class_that_no_training_image_has_is_told(toy: Toy, tmp_path: Path) -> None:
    def one_person(i: int, row: dict[str, str]) -> None:
        if 10 <= i < 16:
            row |= {"person": "the only one", "tint": "blue"}

    data = faces_with(toy, tmp_path, one_person)
    materials, recorder = prepared(toy, data=data, satellite_tasks=[column("tint", "nominal")], trials=8)
    trials = [
        str(trial) for trial in range(8) if not set(range(10, 16)) & set(materials.tasks[0].split(trial).train.tolist())
    ]
    assert 0 < len(trials) < 8
    shown = ", ".join(trials[:5]) + (", …" if len(trials) > 5 else "")
    assert recorder.warnings == [
        f"task 'tint': no training image of blue (trial {shown}): what is never seen cannot be learned; label more "
        "people or groups, or leave it out"
    ]


def test_a_label_that_is_always_no_in_training_is_told(toy: Toy, tmp_path: Path) -> None:
    def rare(i: int, row: dict[str, str]) -> None:
        row |= {"bright": "1" if i == 30 else "0"}

    data = faces_with(toy, tmp_path, rare)
    tasks = [{"name": "column", "label": "marks", "params": {"columns": ["bright", "warm"], "kind": "multilabel"}}]
    materials, recorder = prepared(toy, data=data, satellite_tasks=tasks, trials=6)
    trials = [trial for trial in range(6) if 30 not in materials.tasks[0].split(trial).train]
    assert trials
    shown = ", ".join(map(str, trials[:5])) + (", …" if len(trials) > 5 else "")
    assert f"task 'marks': no training image of bright: yes (trial {shown})" in recorder.warnings[-1]


def test_copies_on_both_sides_of_a_split_are_told(toy: Toy, tmp_path: Path) -> None:
    data = faces_with(toy, tmp_path, lambda i, row: None)
    tasks = [column("tint", "binary")]
    _, recorder = prepared(toy, data=data, satellite_tasks=tasks)
    assert recorder.warnings == []
    for i in range(1, 30):
        shutil.copy(tmp_path / "images/0000.png", tmp_path / f"images/{i:04d}.png")
    materials, recorder = prepared(toy, data=data, satellite_tasks=tasks, trials=1)
    split = materials.tasks[0].split(0)
    n = sum(int((part < 30).sum()) for part in (split.validation, split.test))
    assert (split.train < 30).any()
    assert recorder.warnings == [
        f"task 'tint': {n} images of validation and test are copies of training images (of the same content), which "
        "flatters the results; facetask data describe names the first"
    ]


def test_threads_and_device() -> None:
    assert set_up_compute(ComputeConfig(threads=1, device="cpu")) == "cpu"
    assert torch.get_num_threads() == 1
    assert set_up_compute(ComputeConfig()) == ("cuda" if torch.cuda.is_available() else "cpu")


def test_loosely_framed_faces_are_cropped_as_the_configuration_says(toy: Toy) -> None:
    data = {**toy.values["data"], "crop": 0.125}
    materials, _ = prepared(toy, data=data)
    preprocessing = materials.network.preprocessing
    assert preprocessing.crop == 0.125
    uncropped, _ = prepared(toy)
    before, after = (m.network.preprocessing.load(toy.images[0]) for m in (uncropped, materials))
    assert before.shape == after.shape
    assert (before != after).any()
    assert uncropped.network.fingerprint() != materials.network.fingerprint()
