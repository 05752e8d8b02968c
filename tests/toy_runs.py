"""A toy run: a tiny network from a local plugin, toy faces in a table, one task of each kind."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from facetask import RunResult, run
from facetask.plugin_manager import PluginManager
from facetask.progress import Silent
from facetask.testing import toy_faces

ROOT = Path(__file__).resolve().parents[1]
LEVELS = ("dark", "middle", "light")

TINY = """
from facetask import Architecture, Preprocessing, Weights, hookimpl
from facetask.testing import tiny_network


@hookimpl
def facetask_architectures():
    return [
        Architecture(
            name="tiny",
            build=lambda params: tiny_network(seed=1),
            weights=lambda params: Weights(state=tiny_network(seed=0).state_dict(), licence="CC0-1.0", source="chance"),
            preprocessing=lambda params: Preprocessing(
                size=(32, 32), colour="rgb", mean=(127.5,) * 3, std=(127.5,) * 3
            ),
        )
    ]
"""


class Recorder(Silent):
    """Remembers what a run reports."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def said(self, *words: str) -> bool:
        """Whether one line holds all the words."""
        return any(all(word in line for word in words) for line in self.lines)


@dataclass(frozen=True)
class Toy:
    """What a toy run needs.

    Attributes:
        plugins_dir: Holds the tiny network.
        config_path: The configuration as a file.
        values: The configuration as a mapping.
        plugins: A manager of that folder.
    """

    plugins_dir: Path
    config_path: Path
    values: dict[str, Any]
    plugins: PluginManager = field(repr=False)

    @property
    def images(self) -> list[Path]:
        """The toy faces."""
        return sorted((Path(self.values["data"]["params"]["root"]) / "images").iterdir())

    def config(self, **changes: Any) -> dict[str, Any]:
        """Return the configuration with other values for some keys."""
        return {**self.values, **changes}

    def run(self, out: Path, config: dict[str, Any] | None = None, **options: Any) -> tuple[RunResult, Recorder]:
        """Run in this process and return the result with what was reported."""
        recorder = Recorder()
        options.setdefault("plugins", self.plugins)
        return run(config or self.values, out, reporter=recorder, **options), recorder


def write_table(root: Path, n: int) -> None:
    """Write toy faces as a table dataset with a column for each kind of task."""
    data = toy_faces(root / "images", n)
    level = np.digitize(data.columns["brightness"], [100, 150])
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "person", "brightness", "tint", "level", "bright", "warm"])
        for i, path in enumerate(data.paths):
            brightness = "" if i == 3 else f"{data.columns['brightness'][i]:.3f}"
            row = [path.name, "" if i < 2 else data.columns["person"][i], brightness, data.columns["tint"][i]]
            bright, warm = int(data.columns["brightness"][i] > 120), int(data.columns["tint"][i] == "warm")
            writer.writerow([*row, LEVELS[level[i]], "" if i % 8 == 5 else bright, warm])


def make_toy(folder: Path, n: int = 60) -> Toy:
    """Write a toy run's ingredients into a folder."""
    plugins_dir = folder / "plugins"
    plugins_dir.mkdir()
    (plugins_dir / "tiny.py").write_text(TINY)
    write_table(folder / "faces", n)
    values: dict[str, Any] = {
        "base_network": {"name": "tiny"},
        "data": {"name": "table", "params": {"root": str(folder / "faces"), "group_column": "person"}},
        "satellite_tasks": [
            {"name": "column", "params": {"column": "brightness", "kind": "continuous", "unit": "grey levels"}},
            {"name": "column", "params": {"column": "tint", "kind": "binary"}},
            {
                "name": "column",
                "label": "bins",
                "params": {"column": "brightness", "kind": "binned", "edges": [100.0, 150.0]},
            },
            {"name": "column", "params": {"column": "level", "kind": "nominal"}},
            {"name": "column", "label": "marks", "params": {"columns": ["bright", "warm"], "kind": "multilabel"}},
        ],
        "finetune": {"epochs": 1},
        "compute": {"batch_size": 16, "workers": 0},
        "trials": 2,
    }
    config_path = folder / "toy.yaml"
    config_path.write_text(yaml.safe_dump(values))
    return Toy(plugins_dir, config_path, values, PluginManager(plugins_dir))


@dataclass(frozen=True)
class Finished:
    """A finished toy run; tests that change anything work on a copy."""

    path: Path
    result: RunResult
    recorder: Recorder

    def copy(self, folder: Path) -> Path:
        """Return a copy of the run's folder."""
        return shutil.copytree(self.path, folder / "copy")


def process_environment(python_path: Path = ROOT, **variables: str | Path) -> dict[str, str]:
    """Return the environment of a facetask process."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(python_path)}
    return {**os.environ, **threads, **{name: str(value) for name, value in variables.items()}}


def run_python(folder: Path, *arguments: str | Path, python_path: str = str(ROOT)) -> str:
    """Run Python in a folder, with the tests' own cache, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=process_environment(PYTHONPATH=python_path),
        cwd=folder,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
