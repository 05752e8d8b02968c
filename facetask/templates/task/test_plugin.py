"""The installed plugin keeps its contract and says what it should."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facetask import FaceData, PluginManager, Task
from facetask.testing import check_task, toy_faces


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """The plugin as facetask finds it, with a cache of its own."""
    monkeypatch.setenv("FACETASK_CACHE", str(tmp_path / "cache"))
    record = PluginManager().find("task", "$name")
    assert isinstance(record, Task)
    return record


def test_it_keeps_its_contract(task: Task, tmp_path: Path) -> None:
    """On pictures that facetask draws."""
    check_task(task, toy_faces(tmp_path / "faces"))


def test_a_black_picture_is_dark_and_a_white_one_is_not(task: Task, tmp_path: Path) -> None:
    """A third that cannot be read has no label."""
    paths = tuple(tmp_path / name for name in ("black.png", "white.png", "broken.png"))
    for path, level in zip(paths, (0, 255, 0), strict=True):
        Image.new("L", (8, 8), level).save(path)
    paths[2].write_bytes(b"no picture")
    labels = check_task(task, FaceData(paths=paths, columns={}))
    assert np.array_equal(labels.values[:, 0], [1, 0, np.nan], equal_nan=True)
