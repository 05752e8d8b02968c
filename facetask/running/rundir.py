"""A run's folder: its configuration, each stage's result with what it depends on, and the final products."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetask.config import config_differences, resolved_yaml
from facetask.environment import environment
from facetask.errors import FacetaskError, RunDirError, first_names
from facetask.running.results import Results, read_results
from facetask.whole_file import write_output, write_whole

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.training.training_file import TrainingFile

STAGES = ("regress", "curve", "prune", "finetune")
OWN_STAGES = STAGES[:2]
"""Each task has these for itself, whatever it shares."""

Dependencies = Mapping[str, Any]


def model_folder(config: RunConfig, task: str) -> str:
    """Return the folder of a task's saved model inside the run's; tasks that share a network share it."""
    return "model/shared" if config.prune.share else f"model/{task}"


@dataclass(frozen=True)
class RunDir:
    """A run's folder.

    Attributes:
        path: The folder.
        config: The run's configuration.
    """

    path: Path
    config: RunConfig

    @classmethod
    def open(cls, path: Path, config: RunConfig, *, force: bool = False) -> RunDir:
        """Take a folder that is new, or holds a run of the same configuration; nothing is written yet.

        Args:
            path: The folder.
            config: The run's configuration.
            force: Go on with another configuration; stages that do not depend on the difference are reused.

        Raises:
            RunDirError: If the folder is no run's, or holds results of another configuration.
        """
        folder = cls(path, config)
        try:
            foreign = path.is_dir() and any(path.iterdir()) and not folder._resolved_path.is_file()
        except OSError as error:
            raise RunDirError(f"{path}: cannot be read ({error.strerror}); name another folder with --out") from None
        if foreign:
            raise RunDirError(
                f"{path}: not empty and no run's folder (it has no resolved.yaml); name another with --out"
            )
        different = [] if force else folder._differences()
        if different:
            raise RunDirError(
                f"{path}: holds a run of another configuration; different: {first_names(different, 10)}; "
                "name another folder with --out, or go on here with --force (what does not depend on it is reused)"
            )
        return folder

    def begin(self) -> None:
        """Make the folder and write what is known before any work; results of another configuration are dropped.

        Raises:
            RunDirError: If it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._differences():
                self.results_path.unlink(missing_ok=True)
                self.report_path.unlink(missing_ok=True)
            if self._resolved_path.is_file() and self._changes():
                self._drop_labels()
            write_whole(self._resolved_path, resolved_yaml(self.config))
            known = {**environment(), "seed": self.config.seed}
            write_whole(self.path / "environment.json", json.dumps(known, indent=2) + "\n")
        except OSError as error:
            raise RunDirError(
                f"{self.path}: cannot be written ({error.strerror}); name another folder with --out"
            ) from None

    def finished(self, until: str) -> Results | None:
        """Return the results if the run is finished up to a stage and its products are there."""
        if not (self.results_path.is_file() and self.report_path.is_file()):
            return None
        try:
            results = read_results(self.results_path)
        except RunDirError:  # of an older format, say: compute it again from the stages
            return None
        reached = results.finished and STAGES.index(results.stage) >= STAGES.index(until)
        return results if reached and all(self.has_model(task.model) for task in results.tasks if task.model) else None

    def _differences(self) -> list[str]:
        """Return the keys in which the folder's configuration differs, if anything was computed with that one."""
        if not ((self.path / "stages").is_dir() or self.results_path.is_file()):
            return []  # a first try that failed early, on a misspelt column, say, holds nothing to protect
        return self._changes()

    def _changes(self) -> list[str]:
        """Return the keys in which the folder's configuration differs."""
        try:
            return config_differences(_plain(self._resolved_path), self.config)
        except FacetaskError:
            return ["resolved.yaml (damaged)"]

    @property
    def _resolved_path(self) -> Path:
        """Where the configuration lies, every default spelt out."""
        return self.path / "resolved.yaml"

    @property
    def results_path(self) -> Path:
        """Where the results lie."""
        return self.path / "results.json"

    @property
    def report_path(self) -> Path:
        """Where the report lies."""
        return self.path / "report.html"

    def labels_path(self, task: str) -> Path:
        """Return where a task's labels table lies."""
        return self.path / "labels" / f"{task}.parquet"

    def save_labels(self, task: str, table: Any) -> None:
        """Write a task's labels table, whole or not at all."""
        from pyarrow import parquet

        path = self.labels_path(task)
        partial = path.with_name(path.name + ".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(table, partial)
            partial.replace(path)
        except OSError as error:
            raise RunDirError(f"{path}: cannot be written ({error.strerror or error})") from None

    def _drop_labels(self) -> None:
        """Remove the labels tables that a run left there; what else lies beside them is the user's."""
        from facetask.tasks.labels_table import is_labels_table

        for path in (self.path / "labels").glob("*.parquet"):
            if is_labels_table(path):
                path.unlink()

    def has_model(self, model: str) -> bool:
        """Return whether a model is saved, and in today's format; its description is written last."""
        from facetask.models.model_description import DESCRIPTION, FORMAT_VERSION

        try:
            described = json.loads((self.path / model / DESCRIPTION).read_text(encoding="utf-8"))
            return bool(described["format_version"] == FORMAT_VERSION)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def load_stage(self, task: str, trial: int, stage: str, depends: Dependencies) -> tuple[dict[str, Any] | None, str]:
        """Return a stage's stored record if nothing that it depends on has changed, else None and what changed."""
        path = self._stage_path(task, trial, stage)
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            stored, _, _ = record["depends"], record["result"], record["wall_s"]
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, KeyError, TypeError):
            return None, f"{path.name} is damaged"
        changed = config_differences(stored, json.loads(json.dumps(depends)))
        return (None, first_names(changed)) if changed else (record, "")

    def save_stage(self, task: str, trial: int, stage: str, depends: Dependencies, result: Any, wall_s: float) -> None:
        """Store a stage's result, whole or not at all."""
        path = self._stage_path(task, trial, stage)
        write_output(path, json.dumps({"depends": depends, "wall_s": wall_s, "result": result}))

    def forget_stage(self, task: str, trial: int, stage: str) -> None:
        """Drop a stage's result, because what belongs to it is gone."""
        self._stage_path(task, trial, stage).unlink(missing_ok=True)

    def training_file(self, task: str, trial: int, stage: str, depends: Dependencies) -> TrainingFile:
        """Return where a stage's training is saved until its result is stored."""
        from facetask.training.training_file import ENDING, TrainingFile

        return TrainingFile(self._stage_path(task, trial, stage).with_suffix(ENDING), depends)

    def _stage_path(self, task: str, trial: int, stage: str) -> Path:
        """Return where a stage of one task and trial is stored."""
        return self.path / "stages" / task / f"trial-{trial}" / f"{stage}.json"


def _plain(path: Path) -> Any:
    """Return a resolved configuration's values."""
    from facetask.yaml_loader import load_yaml

    return load_yaml(path).expanded({}).value  # undoes the escapes of resolved_yaml
