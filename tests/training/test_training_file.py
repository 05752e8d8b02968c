from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from facetask import RunDirError
from facetask.training.training_file import TrainingFile

DEPENDS = {"seed": 1, "finetune": {"epochs": 3}}


def state(epoch: int = 1) -> dict[str, Any]:
    return {"network": {"weight": torch.arange(3.0)}, "epoch": epoch, "wall_s": 2.5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep/finetune.training.pt"


def test_what_was_saved_last_comes_back(path: Path) -> None:
    assert TrainingFile(path, DEPENDS).load() is None
    TrainingFile(path, DEPENDS).save(state(1))
    TrainingFile(path, DEPENDS).save(state(2))
    again = TrainingFile(path, {"finetune": {"epochs": 3}, "seed": 1})
    assert again.earlier_s == 0
    found = again.load()
    assert found is not None
    assert found["epoch"] == 2
    assert torch.equal(found["network"]["weight"], torch.arange(3.0))
    assert again.earlier_s == 2.5


def test_a_training_of_something_else_does_not_count(path: Path) -> None:
    TrainingFile(path, DEPENDS).save(state())
    other = TrainingFile(path, {**DEPENDS, "seed": 2})
    assert other.load() is None
    assert other.earlier_s == 0


def test_a_damaged_file_does_not_count(path: Path) -> None:
    TrainingFile(path, DEPENDS).save(state())
    whole = path.read_bytes()
    for part in (b"", b"PK\3\4", whole[: len(whole) // 2], whole[:-30], b"x" * 100, pickle.dumps({"depends": 1})):
        path.write_bytes(part)
        assert TrainingFile(path, DEPENDS).load() is None


def test_loading_runs_no_code(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (path.with_name("touched"),))

    path.parent.mkdir()
    torch.save({"depends": Evil()}, path)
    assert TrainingFile(path, DEPENDS).load() is None
    assert not path.with_name("touched").exists()


def test_removing_leaves_nothing(path: Path) -> None:
    file = TrainingFile(path, DEPENDS)
    file.remove()
    file.save(state())
    path.with_name(path.name + ".tmp").write_bytes(b"half")
    file.remove()
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match=r"the training cannot be saved .*; make room, or name another folder"):
        TrainingFile(tmp_path / "file/x.pt", DEPENDS).save(state())
