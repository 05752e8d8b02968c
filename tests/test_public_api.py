"""What users and plugin authors import from facetask, and what that import costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from toy_runs import process_environment

import facetask

NAMES = [
    "Architecture",
    "CheckpointError",
    "ConfigError",
    "ConfigPath",
    "CurveError",
    "DataError",
    "Dataset",
    "ExportError",
    "FaceData",
    "FacetaskError",
    "Flip",
    "Kind",
    "Labels",
    "Moments",
    "Params",
    "PluginError",
    "PluginManager",
    "Preprocessing",
    "RunConfig",
    "RunDirError",
    "RunResult",
    "Score",
    "ScoreProblem",
    "SelectionPath",
    "SelectionProblem",
    "Selector",
    "SurgeryError",
    "Task",
    "TaskChoice",
    "Weights",
    "WeightsError",
    "__version__",
    "cache_folder",
    "detect_landmarks",
    "did_you_mean",
    "hookimpl",
    "label_images",
    "load_config",
    "load_model",
    "module_architecture",
    "package_file",
    "read_state_dict",
    "run",
    "sha256_file",
]


def test_the_names_are_these() -> None:
    assert sorted(facetask.__all__) == NAMES
    assert dir(facetask) == sorted(facetask.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_can_be_imported(name: str) -> None:
    assert getattr(facetask, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        facetask.absent  # noqa: B018


def test_all_errors_are_facetask_errors() -> None:
    errors = [getattr(facetask, name) for name in NAMES if name.endswith("Error")]
    assert all(issubclass(error, facetask.FacetaskError) for error in errors)


@pytest.mark.parametrize(
    "statement",
    ["import facetask", "from facetask import PluginManager, Selector, hookimpl", "from facetask import load_config"],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"import sys\n{statement}\nprint({{'torch', 'sklearn', 'altair', 'scipy'}} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=process_environment(), check=True
    )
    assert done.stdout == "set()\n"
