"""The examples in the hooks' docstrings are plugins that work."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

import pytest
from toy_runs import write_table

from facetask import FaceData, PluginManager, hookspecs
from facetask.records import Dataset
from facetask.testing import check_dataset, check_record, check_task, toy_faces

HOOKS = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("facetask_")]


def example(hook: str) -> str:
    """Return the code of a hook's example."""
    doc = inspect.getdoc(getattr(hookspecs, hook)) or ""
    return textwrap.dedent(doc.split("Example::\n", 1)[1])


@pytest.fixture
def manager(tmp_path: Path) -> PluginManager:
    """All examples as local plugins."""
    (tmp_path / "plugins").mkdir()
    for hook in HOOKS:
        (tmp_path / "plugins" / f"{hook}.py").write_text(example(hook))
    return PluginManager(tmp_path / "plugins")


def test_there_is_a_hook_for_each_kind() -> None:
    assert HOOKS == [
        "facetask_architectures",
        "facetask_datasets",
        "facetask_scores",
        "facetask_selectors",
        "facetask_stage_finished",
        "facetask_tasks",
    ]


def test_every_example_keeps_its_contract(manager: PluginManager) -> None:
    local = [(entry, record) for entry, record in manager.load_all() if entry.origin == "local"]
    assert [entry.detail for entry, _ in local if entry.status != "available"] == []
    assert {(entry.kind, entry.name) for entry, _ in local} == {
        ("architecture", "two-convs"),
        ("task", "brightness"),
        ("dataset", "person-folders"),
        ("selector", "first-k"),
        ("score", "liveliness"),
        ("hook", "facetask_stage_finished"),
    }
    for _, record in local:
        if record is not None:
            check_record(record)


def test_the_task_of_the_example_gives_the_brightness(manager: PluginManager, tmp_path: Path) -> None:
    task = manager.find("task", "brightness")
    labels = check_task(task, toy_faces(tmp_path / "faces", 6))  # type: ignore[arg-type]
    assert (labels.kind, labels.unit, labels.values.shape) == ("continuous", "grey levels", (6, 1))
    assert ((labels.values > 0) & (labels.values < 255)).all()


def test_the_dataset_of_the_example_reads_folders(manager: PluginManager, tmp_path: Path) -> None:
    write_table(tmp_path / "faces", 4)
    for i, path in enumerate(sorted((tmp_path / "faces/images").iterdir())):
        (tmp_path / f"people/{i % 2}").mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / f"people/{i % 2}/{i}.jpg")
    record = manager.find("dataset", "person-folders")
    assert isinstance(record, Dataset)
    data: FaceData = check_dataset(record, record.params(root=str(tmp_path / "people")))
    assert data.columns["person"].tolist() == ["0", "0", "1", "1"]


def test_the_listener_of_the_example_listens(manager: PluginManager, capsys: pytest.CaptureFixture[str]) -> None:
    manager.notify("regress", None)
    assert capsys.readouterr().out == "regress finished\n"
