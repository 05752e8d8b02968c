"""facetask: find out what a pretrained face network already knows, and carve a small network for a new task out of it.

Everything public stands here, one screen; a name is imported when it is first used, so that ``import facetask`` is
quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facetask.cache import cache_folder as cache_folder
    from facetask.config import ConfigPath as ConfigPath
    from facetask.config import RunConfig as RunConfig
    from facetask.config import load_config as load_config
    from facetask.data.landmarks import detect_landmarks as detect_landmarks
    from facetask.data.preprocessing import Preprocessing as Preprocessing
    from facetask.errors import CheckpointError as CheckpointError
    from facetask.errors import ConfigError as ConfigError
    from facetask.errors import CurveError as CurveError
    from facetask.errors import DataError as DataError
    from facetask.errors import ExportError as ExportError
    from facetask.errors import FacetaskError as FacetaskError
    from facetask.errors import PluginError as PluginError
    from facetask.errors import RunDirError as RunDirError
    from facetask.errors import SurgeryError as SurgeryError
    from facetask.errors import WeightsError as WeightsError
    from facetask.errors import did_you_mean as did_you_mean
    from facetask.hookspecs import hookimpl as hookimpl
    from facetask.models.checkpoint import load_model as load_model
    from facetask.module_adapter import module_architecture as module_architecture
    from facetask.networks.weights import package_file as package_file
    from facetask.networks.weights import read_state_dict as read_state_dict
    from facetask.networks.weights import sha256_file as sha256_file
    from facetask.plugin_manager import PluginManager as PluginManager
    from facetask.records import Architecture as Architecture
    from facetask.records import Dataset as Dataset
    from facetask.records import FaceData as FaceData
    from facetask.records import Flip as Flip
    from facetask.records import Kind as Kind
    from facetask.records import Labels as Labels
    from facetask.records import Params as Params
    from facetask.records import Score as Score
    from facetask.records import ScoreProblem as ScoreProblem
    from facetask.records import SelectionPath as SelectionPath
    from facetask.records import SelectionProblem as SelectionProblem
    from facetask.records import Selector as Selector
    from facetask.records import Task as Task
    from facetask.records import Weights as Weights
    from facetask.runner import RunResult as RunResult
    from facetask.runner import run as run
    from facetask.statistics.moments import Moments as Moments
    from facetask.task_choice import TaskChoice as TaskChoice
    from facetask.tasks.label_source import label_images as label_images

__version__ = "0.1.0"

_HOMES = {
    "cache": ["cache_folder"],
    "config": ["ConfigPath", "RunConfig", "load_config"],
    "data.landmarks": ["detect_landmarks"],
    "data.preprocessing": ["Preprocessing"],
    "errors": [
        "CheckpointError",
        "ConfigError",
        "CurveError",
        "DataError",
        "ExportError",
        "FacetaskError",
        "PluginError",
        "RunDirError",
        "SurgeryError",
        "WeightsError",
        "did_you_mean",
    ],
    "hookspecs": ["hookimpl"],
    "models.checkpoint": ["load_model"],
    "module_adapter": ["module_architecture"],
    "networks.weights": ["package_file", "read_state_dict", "sha256_file"],
    "plugin_manager": ["PluginManager"],
    "records": [
        "Architecture",
        "Dataset",
        "FaceData",
        "Flip",
        "Kind",
        "Labels",
        "Params",
        "Score",
        "ScoreProblem",
        "SelectionPath",
        "SelectionProblem",
        "Selector",
        "Task",
        "Weights",
    ],
    "runner": ["RunResult", "run"],
    "statistics.moments": ["Moments"],
    "task_choice": ["TaskChoice"],
    "tasks.label_source": ["label_images"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'facetask' has no attribute {name!r}")
    return getattr(importlib.import_module(f"facetask.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
