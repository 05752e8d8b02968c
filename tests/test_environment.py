from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import numpy
import pytest
import torch

import facetask
from facetask import environment as module
from facetask.environment import environment


def test_versions_processor_and_cores() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["facetask"] == facetask.__version__
    assert found["python"] == platform.python_version()
    assert found["packages"]["numpy"] == numpy.__version__
    assert torch.__version__.startswith(found["packages"]["torch"])
    assert found["cores"] == os.cpu_count()
    assert found["processor"]
    assert platform.system() in found["system"]


def test_it_names_no_person_and_no_place() -> None:
    text = json.dumps(environment())
    for private in (str(Path.home()), str(Path.cwd()), platform.node()):
        assert len(private) < 3 or private not in text


def test_the_revision_is_the_checkout_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    package = tmp_path / "facetask"
    package.mkdir()
    monkeypatch.setattr(module, "__file__", str(package / "environment.py"))
    assert environment()["git_revision"] is None
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run(git + command, check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert environment()["git_revision"] == head[:12]
    (tmp_path / "file").write_text("2")
    assert environment()["git_revision"] == f"{head[:12]}-dirty"


def test_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "facetask").mkdir()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "facetask" / "environment.py"))
    assert environment()["git_revision"] is None  # a folder that only looks like a checkout
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["git_revision"] is None
