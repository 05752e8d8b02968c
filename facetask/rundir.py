"""A run's folder: its configuration, each stage's result with what it depends on, and the final products."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetask.config import config_differences, resolved_yaml
from facetask.environment import environment
from facetask.errors import RunDirError, first_names
from facetask.results import Results, read_results

if TYPE_CHECKING:
    from facetask.config import RunConfig

STAGES = ("regress", "curve", "prune", "finetune")
Dependencies = Mapping[str, Any]


@dataclass(frozen=True)
class RunDir:
    """A run's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def open(cls, path: Path, config: RunConfig, *, force: bool = False) -> RunDir:
        """Make the folder, or go on in one of the same configuration.

        Args:
            path: The folder.
            config: The run's configuration.
            force: Go on with another configuration; stages that do not depend on the difference are reused.

        Raises:
            RunDirError: If the folder cannot be written, is no run's, or belongs to another configuration.
        """
        resolved = path / "resolved.yaml"
        if path.is_dir() and any(path.iterdir()) and not resolved.is_file():
            raise RunDirError(f"{path}: not empty and no run's folder (it has no resolved.yaml); name another by --out")
        if resolved.is_file() and not force:
            different = config_differences(_plain(resolved), config)
            if different:
                raise RunDirError(
                    f"{path}: holds a run of another configuration; different: {first_names(different, 10)}; "
                    "name another folder with --out, or go on here with --force (what does not depend on it is reused)"
                )
        try:
            path.mkdir(parents=True, exist_ok=True)
            _write(resolved, resolved_yaml(config))
            _write(path / "environment.json", json.dumps({**environment(), "seed": config.seed}, indent=2) + "\n")
        except OSError as error:
            raise RunDirError(f"{path}: cannot be written ({error.strerror}); name another folder with --out") from None
        return cls(path)

    def finished(self, until: str) -> Results | None:
        """Return the results if the run is finished up to a stage and its products are there."""
        if not (self.results_path.is_file() and self.report_path.is_file()):
            return None
        try:
            results = read_results(self.results_path)
        except RunDirError:  # of an older format, say: compute it again from the stages
            return None
        return results if results.finished and STAGES.index(results.stage) >= STAGES.index(until) else None

    @property
    def results_path(self) -> Path:
        """Where the results lie."""
        return self.path / "results.json"

    @property
    def report_path(self) -> Path:
        """Where the report lies."""
        return self.path / "report.html"

    def model_path(self, task: str) -> Path:
        """Return the folder of a task's saved model."""
        return self.path / "model" / task

    def load_stage(self, task: str, trial: int, stage: str, depends: Dependencies) -> tuple[dict[str, Any] | None, str]:
        """Return a stage's stored record if nothing that it depends on has changed, else None and what changed."""
        path = self._stage_path(task, trial, stage)
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            stored = record["depends"]
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, KeyError):
            return None, f"{path.name} is damaged"
        now = json.loads(json.dumps(depends))
        changed = config_differences(stored, now)
        return (None, first_names(changed)) if changed else (record, "")

    def save_stage(self, task: str, trial: int, stage: str, depends: Dependencies, result: Any, wall_s: float) -> None:
        """Store a stage's result, whole or not at all."""
        path = self._stage_path(task, trial, stage)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, json.dumps({"depends": depends, "wall_s": wall_s, "result": result}))
        except OSError as error:
            raise RunDirError(f"{path}: cannot be written ({error.strerror})") from None

    def _stage_path(self, task: str, trial: int, stage: str) -> Path:
        """Return where a stage of one task and trial is stored."""
        return self.path / "stages" / task / f"trial-{trial}" / f"{stage}.json"


def _plain(path: Path) -> Any:
    """Return a resolved configuration's values."""
    from facetask.yaml_loader import load_yaml

    return load_yaml(path).expanded({}).value  # undoes the escapes of resolved_yaml


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
