"""New plugins' packages install, keep their contracts, pass their own tests and run; nothing is overwritten."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from toy_runs import ROOT, run_python
from typer.testing import CliRunner

import facetask
from facetask import PluginError, PluginManager, cli
from facetask.plugin_manager import KINDS
from facetask.scaffold import new_plugin
from facetask.testing import toy_faces

NAME = "my-own-2"
TEMPLATES = sorted((ROOT / "facetask" / "templates").rglob("*.py"))
DOCUMENTED = {
    "architecture": "two-convs",
    "task": "dark",
    "dataset": "person-folders",
    "selector": "variance",
    "score": "best-filter",
}
RUN_KINDS = [kind for kind in KINDS if kind != "score"]  # those that a run uses; scores are for ``facetask rank``


@dataclass(frozen=True)
class Site:
    """A package of each kind, and the folder that they are installed in."""

    packages: dict[str, Path]
    installed: Path

    def python(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Run Python where the packages are installed, and return what it prints."""
        return run_python(cwd or self.installed, *arguments, python_path=f"{ROOT}:{self.installed}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A package of each kind, installed without network."""
    pytest.importorskip("hatchling", reason="hatchling builds the packages")
    folder = tmp_path_factory.mktemp("scaffold")
    packages = {kind: new_plugin(kind, NAME, folder / kind) for kind in KINDS}
    site = Site(packages, folder / "site")
    site.installed.mkdir()
    alone = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    site.python("-m", "pip", "install", "--quiet", *alone, "--target", site.installed, *packages.values())
    return site


# --- what is written


def test_installed_packages_are_listed_and_keep_their_contracts(site: Site) -> None:
    listed = json.loads(site.python("-m", "facetask", "plugins", "list", "--json"))
    mine = {entry["kind"]: entry for entry in listed if entry["name"] == NAME}
    assert {kind: (entry["origin"], entry["status"]) for kind, entry in mine.items()} == dict.fromkeys(
        KINDS, ("installed", "available")
    )
    assert mine["task"]["provider"] == f"facetask_task_my_own_2 (facetask-task-{NAME} 0.1.0)"
    assert mine["task"]["summary"] == f"The task {NAME} for facetask"
    checked = site.python("-m", "facetask", "plugins", "check").splitlines()
    assert {line for line in checked if NAME in line} == {f"ok      {kind} {NAME}" for kind in KINDS}


def test_their_own_tests_pass(site: Site) -> None:
    folders = [package / "tests" for package in site.packages.values()]
    told = site.python("-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *folders)
    assert re.search(r"\b15 passed", told), told


def test_a_run_with_all_of_them(site: Site, tmp_path: Path) -> None:
    """Their run.yaml files together: the new network, data, task and selector in one run."""
    configs = {
        kind: yaml.safe_load((package / "run.yaml").read_text(encoding="utf-8"))
        for kind, package in site.packages.items()
        if kind in RUN_KINDS
    }
    for i, path in enumerate(toy_faces(tmp_path / "toys", 40).paths):
        person = tmp_path / "faces" / f"person {i // 2}"
        person.mkdir(parents=True, exist_ok=True)
        path.rename(person / f"{20 + i}_{i}.jpg")
    config = {
        "base_network": configs["architecture"]["base_network"],
        "data": configs["dataset"]["data"],
        "satellite_tasks": [
            {"name": NAME, "params": {"below": 100.0}},
            *configs["dataset"]["satellite_tasks"],
        ],
        "selector": configs["selector"]["selector"],
        "finetune": {"epochs": 1},
        "compute": {"workers": 0},
        "trials": 1,
    }
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    site.python("-m", "facetask", "run", "run.yaml", cwd=tmp_path)
    results = json.loads((tmp_path / "runs/run/results.json").read_text())
    assert results["finished"]
    assert [task["name"] for task in results["tasks"]] == [NAME, "age"]
    assert all(0 < task["prune"]["size_reduction"] < 1 for task in results["tasks"])


def test_each_run_yaml_is_good(site: Site) -> None:
    """As far as it can be told without pictures."""
    code = """
import sys
from facetask import PluginManager, load_config
plugins = PluginManager()
for path in sys.argv[1:]:
    config = load_config(path, plugins=plugins)
    print(config.base_network.name, config.data.name, config.selector.name, config.satellite_tasks[0].name)
"""
    told = site.python("-c", code, *(site.packages[kind] / "run.yaml" for kind in sorted(RUN_KINDS)))
    assert told.splitlines() == [
        f"{NAME} rendered-faces lasso column",
        f"dlib-face-resnet {NAME} lasso column",
        f"dlib-face-resnet rendered-faces {NAME} column",
        f"dlib-face-resnet rendered-faces lasso {NAME}",
    ]


def test_a_ranking_by_the_score(site: Site, tmp_path: Path) -> None:
    """As its rank.yaml says, on the new network and data instead of downloaded ones."""
    config = yaml.safe_load((site.packages["score"] / "rank.yaml").read_text(encoding="utf-8"))
    networks = yaml.safe_load((site.packages["architecture"] / "run.yaml").read_text(encoding="utf-8"))
    config["run"]["data"]["params"]["count"] = 40
    config["run"] |= {"trials": 1, "compute": {"workers": 0}}
    config["base_networks"] = [networks["base_network"]]
    (tmp_path / "rank.yaml").write_text(json.dumps(config))
    site.python("-m", "facetask", "rank", "rank.yaml", cwd=tmp_path)
    results = json.loads((tmp_path / "runs/rank/rank.json").read_text())
    assert [found["score"] for found in results["tasks"][0]["rankings"]] == [NAME, "regression"]


@pytest.mark.parametrize("name", ["x", "null", "a-plugin-with-a-rather-long-name"])
def test_packages_are_lint_clean_whatever_the_name(tmp_path: Path, name: str) -> None:
    ruff = pytest.importorskip("ruff", reason="ruff lints the packages").find_ruff_bin()
    for kind in KINDS:
        new_plugin(kind, name, tmp_path / kind)
    for command in (["check", "--no-cache"], ["format", "--no-cache", "--check"]):
        done = subprocess.run([ruff, *command, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_has_these_files_and_no_placeholder(tmp_path: Path, kind: str) -> None:
    folder = new_plugin(kind, "x", tmp_path / "deep" / "mine")
    module = f"facetask_{kind}_x"
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    config = "run.yaml" if kind in RUN_KINDS else "rank.yaml"
    assert set(files) == {"README.md", "pyproject.toml", config, f"{module}.py", f"tests/test_{module}.py"}
    assert [name for name, path in files.items() if "$" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize(("kind", "name"), DOCUMENTED.items())
def test_the_documentation_shows_the_same_plugins(tmp_path: Path, kind: str, name: str) -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs/plugins.md").read_text(encoding="utf-8"), re.DOTALL)
    folder = new_plugin(kind, name, tmp_path / "mine")
    (written,) = folder.glob("*.py")
    assert written.read_text(encoding="utf-8") in shown


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_templates_use_only_what_is_public(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("facetask"):
            if node.module == "facetask.testing":
                assert path.name == "test_plugin.py"
                continue
            assert node.module == "facetask"
            assert {alias.name for alias in node.names} <= set(facetask.__all__)


# --- the command, and what it refuses


def test_the_command_names_the_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["plugins", "new", "selector", "first-k"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("facetask-selector-first-k: written")
    assert (tmp_path / "facetask-selector-first-k/facetask_selector_first_k.py").is_file()


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("taks", "x", "unknown kind of plugin 'taks'; did you mean 'task'"),
        ("hook", "x", "unknown kind of plugin 'hook'; known: architecture, dataset, score, selector, task"),
        ("task", "My Task", "'My Task' cannot be a plugin's name: allowed are .* such as 'my-task'"),
        ("task", "my_task", "such as 'my-task'"),
        ("task", "3d-pose", "such as 'd-pose'"),
        ("task", "../x", "such as 'x'"),
        ("selector", "größe-", "such as 'gr-e'"),
        ("task", "a--b", "such as 'a-b'"),
        ("dataset", "", "such as 'my-dataset'"),
        ("task", "x\n", "such as 'x'"),
        ("task", "column", r"task 'column' exists already, provided by facetask\.plugins\.tasks\.column; choose"),
    ],
)
def test_kinds_and_names_are_checked(tmp_path: Path, kind: str, name: str, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        new_plugin(kind, name, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    done = CliRunner().invoke(cli.app, ["plugins", "new", kind, name, "--out", str(tmp_path / "mine")])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_a_name_is_taken_for_its_own_kind_only(tmp_path: Path) -> None:
    assert new_plugin("selector", "column", tmp_path / "mine").is_dir()


def test_a_local_plugin_s_name_is_taken_too(tmp_path: Path) -> None:
    new_plugin("selector", "mine", tmp_path / "first")
    (tmp_path / "local").mkdir()
    local = (tmp_path / "first/facetask_selector_mine.py").rename(tmp_path / "local/theirs.py")
    with pytest.raises(PluginError, match=f"selector 'mine' exists already, provided by {re.escape(str(local))}"):
        new_plugin("selector", "mine", tmp_path / "second", PluginManager(tmp_path / "local"))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for there in ("folder", "file"):
        with pytest.raises(PluginError, match=f"{there}: exists already and is not overwritten; name another folder"):
            new_plugin("task", "x", tmp_path / there)
    assert not list((tmp_path / "folder").iterdir())
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(PluginError, match="below: the package cannot be written"):
        new_plugin("task", "x", tmp_path / "file" / "below")
