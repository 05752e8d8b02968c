"""What finished runs measured after finetuning, by base network and task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetask.config import config_differences
from facetask.errors import DataError
from facetask.running.results import LabelSummary, Metric, Results, read_results
from facetask.yaml_loader import load_yaml

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.progress import Reporter
    from facetask.tasks.kinds import TaskSpec


@dataclass(frozen=True)
class Measured:
    """A finished run.

    Attributes:
        run: Its folder.
        config: Its configuration, every default spelt out.
        results: What it measured.
    """

    run: str
    config: dict[str, Any]
    results: Results

    def metric(self, base_network: dict[str, Any], task: TaskSpec, labels: LabelSummary, name: str) -> Metric | None:
        """Return a metric of a finetuned network, None where the run is of another network or has no such task.

        Args:
            base_network: The base network as in a configuration, params with every default.
            task: The task.
            labels: Its labels here.
            name: The metric.

        Raises:
            DataError: If a task of that name has other labels there.
        """
        if config_differences({"params": {}, **self._known()}, {"params": {}, **base_network}):
            return None
        found = next((result for result in self.results.tasks if result.name == task.name), None)
        if found is None or found.finetune is None:
            return None
        there, here = (found.labels.kind, found.labels.n_labelled), (labels.kind, labels.n_labelled)
        if there != here:
            raise DataError(
                f"finetuned: {self.run}: its task {task.name!r} is another one: {there[0]} with {there[1]} labelled "
                f"images, here {here[0]} with {here[1]}"
            )
        return found.finetune.metrics.get(name)

    def _known(self) -> dict[str, Any]:
        """Return the base network without the keys that are not used."""
        return {key: value for key, value in self.config["base_network"].items() if value is not None}

    def differences(self, config: RunConfig) -> list[str]:
        """Return the keys in which its images and its split differ from another configuration's."""
        return config_differences(_images_of(self.config), _images_of(config.model_dump(mode="json")))


def _images_of(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a configuration says of images and their split; a key that is null may as well be absent."""
    return {
        section: {key: value for key, value in config[section].items() if value is not None}
        for section in ("data", "split")
    }


def measured_in(folders: Iterable[Path], reporter: Reporter) -> list[Measured]:
    """Return what runs measured, warning of those that were not finetuned.

    Raises:
        RunDirError: If a folder is no finished run's.
        ConfigError: If its configuration cannot be read.
    """
    found = []
    for folder in folders:
        results = read_results(folder / "results.json")
        config = load_yaml(folder / "resolved.yaml").expanded({}).value
        if not any(task.finetune for task in results.tasks):
            reporter.warn(f"{folder}: not finetuned, only up to {results.stage}; left out")
            continue
        found.append(Measured(str(folder), config, results))
    return found
