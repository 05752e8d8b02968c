"""A run's saved models on the validation images of the reported trial: what may decide between networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facetask.checkpoint import WEIGHTS, load_model
from facetask.errors import RunDirError
from facetask.prepare import prepare
from facetask.progress import Silent
from facetask.satellite import seed_of_trial, to_finite
from facetask.weights import sha256_file

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.plugin_manager import PluginManager
    from facetask.results import PlainMetrics, Results

_FILE = "validation.json"


def measure_validation(folder: Path, results: Results, config: RunConfig, plugins: PluginManager) -> None:
    """Measure a run's saved models on validation images, and note that in its folder; what is known stays.

    A model's decision (a threshold, say) was learned on these images; that is as good for one network as for another.

    Args:
        folder: The run's folder.
        results: What it measured.
        config: Its configuration.
        plugins: Where plugins are found.

    Raises:
        FacetaskError: If its images or models cannot be had.
    """
    if read_validation(folder, results) is not None:
        return
    materials = prepare(config, plugins, Silent())
    noted = {}
    for task in materials.tasks:
        path = folder / "model" / task.spec.name
        model, kind = load_model(path, plugins), task.kind
        split = task.split(seed_of_trial(config.seed, 0))
        outputs = materials.loader.all_outputs(model.network, split.validation).astype(np.float64)
        metrics = kind.metrics(
            kind.activate(outputs),
            task.values[split.validation],
            model.description.decision,
            kind.scale(task.targets[split.train]),
        )
        noted[task.spec.name] = {"weights": sha256_file(path / WEIGHTS), "metrics": to_finite(metrics)}
    partial = folder / f"{_FILE}.tmp"
    try:
        partial.write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / _FILE)
    except OSError as error:
        raise RunDirError(f"{folder / _FILE}: cannot be written ({error.strerror})") from None


def read_validation(folder: Path, results: Results) -> dict[str, PlainMetrics] | None:
    """Return each task's metrics on validation, or None unless they are noted for the models that are there."""
    found: dict[str, PlainMetrics] = {}
    try:
        noted = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        for task in results.tasks:
            if task.model is None or noted[task.name]["weights"] != sha256_file(folder / task.model / WEIGHTS):
                return None
            found[task.name] = noted[task.name]["metrics"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found
