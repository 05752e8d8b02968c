"""Where plugins are found, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from toy_runs import ROOT, process_environment

from facetask import Dataset, PluginError, PluginManager, Selector
from facetask.plugin_manager import registry_path

SELECTOR = """
import numpy as np
from facetask import SelectionPath, Selector, hookimpl

def select(problem, params):
    return SelectionPath(supports=(np.arange(problem.n_components),))

@hookimpl
def facetask_selectors():
    return [{records}]
"""


def selector_file(folder: Path, file: str, *names: str) -> Path:
    """Write a plugin file that provides selectors."""
    folder.mkdir(exist_ok=True)
    records = ", ".join(f"Selector(name={name!r}, select=select)" for name in names)
    (folder / file).write_text(SELECTOR.format(records=records))
    return folder / file


def test_a_bundled_plugin_is_imported_when_it_is_asked_for() -> None:
    code = """
import sys
from facetask import PluginManager
manager = PluginManager()
before = [name for name in sys.modules if name.startswith("facetask.plugins.")]
record = manager.find("selector", "correlation")
print(before, "facetask.plugins.selectors.correlation" in sys.modules, "facetask.plugins.tasks.column" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=process_environment(), check=True
    )
    assert done.stdout == "[] True False\n"


def test_records_are_found_by_kind_and_name() -> None:
    manager = PluginManager()
    assert isinstance(manager.find("selector", "lasso"), Selector)
    assert isinstance(manager.find("dataset", "table"), Dataset)
    assert manager.find("selector", "lasso") is manager.find("selector", "lasso")
    with pytest.raises(PluginError, match=r"unknown dataset 'lasso'; known: .*rendered-faces, table"):
        manager.find("dataset", "lasso")
    with pytest.raises(PluginError, match="unknown selector 'laso'; did you mean 'lasso'"):
        manager.find("selector", "laso")


def test_the_catalogue_is_sorted_and_says_where_each_comes_from(tmp_path: Path) -> None:
    path = selector_file(tmp_path, "mine.py", "a", "b")
    entries = PluginManager(tmp_path).catalogue()
    assert [(entry.kind, entry.name) for entry in entries] == sorted((entry.kind, entry.name) for entry in entries)
    (mine,) = [entry for entry in entries if entry.name == "a"]
    assert (mine.origin, mine.provider, mine.status) == ("local", str(path), "available")
    assert {entry.origin for entry in entries if entry.name in ("lasso", "table")} == {"bundled"}


# --- local folders


def test_local_files_can_import_each_other_and_helpers_are_no_plugins(tmp_path: Path) -> None:
    (tmp_path / "toy_helper_of_mine.py").write_text("NAME = 'from-helper'")
    for hidden in ("_draft.py", ".venv/x.py", "__pycache__/y.py"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_text("raise RuntimeError('must not be imported')")
    (tmp_path / "deep").mkdir()
    text = SELECTOR.format(records="Selector(name=NAME, select=select)")
    (tmp_path / "deep" / "mine.py").write_text("from toy_helper_of_mine import NAME\n" + text)
    manager = PluginManager(tmp_path)
    assert manager.find("selector", "from-helper").name == "from-helper"
    assert not [entry for entry in manager.catalogue() if entry.status == "failed"]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="absent: no such folder"):
        PluginManager(tmp_path / "absent")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import absent_package", "ModuleNotFoundError: No module named 'absent_package'"),
        ("raise SystemExit('no')", "SystemExit: no"),
        (
            "def facetask_selectors():\n    return []",
            "facetask_selectors is not marked as a hook; put @facetask.hookimpl",
        ),
        ("from facetask import hookimpl\n@hookimpl\ndef facetask_selector():\n    return []", "unknown hook"),
        ("from facetask import hookimpl\n@hookimpl\ndef facetask_tasks(data):\n    return []", "its hooks fail"),
        ("from facetask import hookimpl\n@hookimpl\ndef facetask_tasks():\n    return None", "its hooks fail"),
        ("from facetask import hookimpl\n@hookimpl\ndef facetask_tasks():\n    1 / 0", "ZeroDivisionError"),
        (
            "from facetask import hookimpl\n@hookimpl\ndef facetask_tasks():\n    return ['age']",
            "Task records, found str",
        ),
    ],
)
def test_a_file_that_fails_is_shown_and_hides_no_other(tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "broken.py").write_text(code)
    selector_file(tmp_path, "good.py", "good")
    manager = PluginManager(tmp_path)
    (broken,) = [entry for entry in manager.catalogue() if entry.status == "failed"]
    assert reason in broken.detail
    assert broken.provider == str(tmp_path / "broken.py")
    assert manager.find("selector", "good").name == "good"
    with pytest.raises(PluginError, match=r"unknown selector 'brokn'.*not imported: .*broken\.py"):
        manager.find("selector", "brokn")
    (loaded,) = [record for entry, record in manager.load_all() if entry.status == "failed"]
    assert loaded is None


def test_two_providers_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    selector_file(tmp_path, "one.py", "mine", "other")
    selector_file(tmp_path, "two.py", "mine", "lasso")
    manager = PluginManager(tmp_path)
    with pytest.raises(PluginError, match=r"two plugins provide selector 'mine': .*one\.py and .*two\.py"):
        manager.find("selector", "mine")
    with pytest.raises(PluginError, match=r"facetask\.plugins\.selectors\.lasso and .*two\.py; remove or rename one"):
        manager.find("selector", "lasso")
    assert manager.find("selector", "other").name == "other"
    assert sum(entry.status == "conflict" for entry in manager.catalogue()) == 4


# --- listeners

LISTENER = """
from facetask import hookimpl
heard = []

@hookimpl
def facetask_stage_finished(stage):
    heard.append(stage)
    {then}
"""


def test_listeners_are_called_and_the_one_that_fails_is_named(tmp_path: Path) -> None:
    for name, then in (("first", "1 / 0"), ("second", "pass")):
        (tmp_path / f"{name}.py").write_text(LISTENER.format(then=then))
    manager = PluginManager(tmp_path)
    listed = {entry.name for entry in manager.catalogue() if entry.kind == "hook"}
    assert listed == {"first", "second"}
    with pytest.raises(PluginError, match=r"after curve, .*\.first \(ZeroDivisionError"):
        manager.notify("curve", None)
    heard = [sys.modules[f"facetask_local.{name}"].heard for name in ("first", "second")]
    assert heard == [["curve"], ["curve"]]


def test_without_listeners_nobody_is_told() -> None:
    PluginManager().notify("curve", None)


# --- installed distributions


def distribution(site: Path, name: str, entry_points: str, modules: dict[str, str]) -> None:
    """Lay a distribution into a folder, as an installer does."""
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.2\nSummary: Made for a test\nLicense-Expression: MIT\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[facetask]\n{entry_points}")
    for module, code in modules.items():
        (site / f"{module}.py").write_text(code)


def in_process(site: Path, code: str) -> Any:
    """Run code that prints JSON, with a folder of distributions on the path."""
    done = subprocess.run(
        [sys.executable, "-c", "import json\nfrom facetask import PluginError, PluginManager\n" + code],
        capture_output=True,
        text=True,
        env=process_environment(ROOT, PYTHONPATH=f"{ROOT}:{site}"),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_installed_plugins(tmp_path: Path) -> None:
    records = "Selector(name='first-k', select=select), Selector(name='lasso', select=select)"
    listener = "from facetask import hookimpl\n@hookimpl\ndef facetask_stage_finished(stage):\n    print(end='')"
    names = {
        "selector.first-k": "acme_selectors",
        "selector.lasso": "acme_selectors",
        "selector.promised": "acme_selectors",
        "dataset.broken": "acme_broken",
        "hook.acme": "acme_hook",
        "first-k": "acme_selectors",
        "selektor.first-k": "acme_selectors",
    }
    modules = {
        "acme_selectors": SELECTOR.format(records=records),
        "acme_broken": "import absent_package",
        "acme_hook": listener,
    }
    distribution(tmp_path, "acme", "\n".join(f"{name} = {module}" for name, module in names.items()), modules)

    listed = in_process(
        tmp_path,
        """
import sys
entries = [entry.to_json() for entry in PluginManager().catalogue()]
print(json.dumps([entries, sorted(name for name in sys.modules if name.startswith("acme"))]))
""",
    )
    assert listed[1] == []  # listing imports none of them
    acme = {(entry["kind"], entry["name"]): entry for entry in listed[0] if entry["origin"] == "installed"}
    assert {key: entry["status"] for key, entry in acme.items()} == {
        ("selector", "first-k"): "available",
        ("selector", "lasso"): "conflict",
        ("selector", "promised"): "available",
        ("dataset", "broken"): "available",
        ("hook", "acme"): "available",
        ("?", "first-k"): "failed",
        ("?", "selektor.first-k"): "failed",
    }
    assert acme["selector", "first-k"]["licence"] == "MIT"
    assert acme["selector", "first-k"]["summary"] == "Made for a test"
    assert "must be named KIND.NAME" in acme["?", "first-k"]["detail"]

    found = in_process(
        tmp_path,
        """
manager = PluginManager()
told = {}
for kind, name in [("selector", "first-k"), ("selector", "lasso"), ("selector", "promised"), ("dataset", "broken")]:
    try:
        told[name] = manager.find(kind, name).name
    except PluginError as error:
        told[name] = str(error)
told["loaded"] = [[entry.name, entry.status, entry.detail] for entry, record in manager.load_all()]
print(json.dumps(told))
""",
    )
    assert found["first-k"] == "first-k"
    assert "facetask.plugins.selectors.lasso and acme_selectors (acme 1.2)" in found["lasso"]
    assert "promises selector 'promised' but provides selector 'first-k', selector 'lasso'" in found["promised"]
    assert "acme_broken: cannot be imported (ModuleNotFoundError" in found["broken"]
    status = {name: status for name, status, _ in found["loaded"]}
    assert (status["promised"], status["broken"], status["acme"]) == ("failed", "failed", "available")


def test_a_hook_plugin_that_cannot_be_imported_is_found_by_the_check(tmp_path: Path) -> None:
    distribution(tmp_path, "acme", "hook.acme = acme_hook", {"acme_hook": "import absent_package"})
    code = "print(json.dumps([e.status for e, _ in PluginManager().load_all() if e.name == 'acme']))"
    assert in_process(tmp_path, code) == ["failed"]


# --- extras that are not installed


def test_a_missing_extra_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = """
plugins:
  - {name: needy, kind: dataset, module: datasets.absent, summary: x, maturity: beta, licence: MIT,
     extras: {needs: absent_package_of_needy}}
"""
    (tmp_path / "registry.yaml").write_text(registry)
    monkeypatch.setattr("facetask.plugin_manager.registry_path", lambda: tmp_path / "registry.yaml")
    manager = PluginManager()
    (needy,) = [entry for entry in manager.catalogue() if entry.origin == "bundled"]
    assert (needy.status, needy.detail) == ("missing-extra", "pip install 'facetask[needs]'")
    with pytest.raises(PluginError, match=r"cannot be imported .*; pip install 'facetask\[needs\]'"):
        manager.find("dataset", "needy")


# --- the wheel


def test_a_wheel_has_its_plugins(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    inside = [
        *("plugins/selectors/lasso.py", "registry.yaml", "report/report.css", "report/report.html.j2", "py.typed"),
        *("templates/package.toml", "templates/task/plugin.py", "templates/task/run.yaml"),
    ]
    assert [name for name in inside if not (site / "facetask" / name).is_file()] == []
    assert not list(site.rglob("__pycache__"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            env=process_environment(site),
            check=True,
        )
        return done.stdout.strip()

    listed = json.loads(python("-m", "facetask", "plugins", "list", "--json"))
    here = {(entry.kind, entry.name) for entry in PluginManager().catalogue() if entry.origin == "bundled"}
    assert here == {(entry["kind"], entry["name"]) for entry in listed if entry["origin"] == "bundled"}
    find = "from facetask import PluginManager as P; print(P().find('selector', 'lasso').select.__code__.co_filename)"
    assert python("-c", find) == str(site / "facetask/plugins/selectors/lasso.py")


def test_the_registry_is_the_project_s_own_wherever_facetask_is_installed() -> None:
    assert registry_path().read_bytes() == (ROOT / "registry.yaml").read_bytes()
