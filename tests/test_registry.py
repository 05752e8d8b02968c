"""The catalogue of bundled plugins against the plugins themselves."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_runs import ROOT

import facetask
from facetask import PluginManager
from facetask.plugin_manager import KINDS
from facetask.testing import check_record

PLUGINS = ROOT / "plugins"
REGISTRY: list[dict[str, Any]] = yaml.safe_load((ROOT / "registry.yaml").read_text(encoding="utf-8"))["plugins"]
FILES = sorted(PLUGINS.rglob("*.py"))
NAMES = [f"{item['kind']}.{item['name']}" for item in REGISTRY]


def module_of(path: Path) -> str:
    parts = path.relative_to(PLUGINS).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_plugin(path: Path) -> bool:
    """Whether a file implements a hook."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return any(function.name in KINDS.values() for function in functions)


def test_every_plugin_file_is_in_the_registry_and_the_other_way_round() -> None:
    assert {module_of(path) for path in FILES if is_plugin(path)} == {item["module"] for item in REGISTRY}
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("item", REGISTRY, ids=NAMES)
def test_an_entry_says_what_a_user_must_know(item: dict[str, Any]) -> None:
    assert item["kind"] in KINDS
    assert item["maturity"] in ("stable", "beta", "experimental")
    assert item["summary"]
    assert item["licence"]
    assert not item.keys() - {
        *("name", "kind", "module", "summary", "maturity", "citation", "licence", "extras", "weights", "revision")
    }
    for weights in item.get("weights", ()):
        assert re.fullmatch("[0-9a-f]{64}", weights["sha256"])
        assert weights["licence"]
        assert weights["size_bytes"] > 0


def test_extras_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for item in REGISTRY:
        for extra in item.get("extras", {}):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
            assert re.search(rf"^all = \[.*\b{extra}\b", project, re.MULTILINE), extra


@pytest.mark.parametrize("item", REGISTRY, ids=NAMES)
def test_a_plugin_keeps_its_contract(item: dict[str, Any]) -> None:
    manager = PluginManager()
    entry = next(e for e in manager.catalogue() if (e.kind, e.name) == (item["kind"], item["name"]))
    if entry.status == "missing-extra":
        pytest.skip(f"needs an extra: {entry.detail}")
    record = manager.find(item["kind"], item["name"])
    assert record.name == item["name"]
    check_record(record)


def test_modules_provide_what_is_listed_and_nothing_else() -> None:
    manager = PluginManager()
    for module in {item["module"] for item in REGISTRY}:
        listed = {(item["kind"], item["name"]) for item in REGISTRY if item["module"] == module}
        manager.find(*sorted(listed)[0])
        code = __import__(f"facetask.plugins.{module}", fromlist=["x"])
        provided = {
            (kind, record.name)
            for kind, hook in KINDS.items()
            if hasattr(code, hook)
            for record in getattr(code, hook)()
        }
        assert provided == listed


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_plugin_imports_only_the_public_api(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            module, names = node.module or "", [alias.name for alias in node.names]
            if module == "facetask":
                assert set(names) <= set(facetask.__all__), names
            else:
                assert not module.startswith("facetask.") or module.startswith("facetask.plugins."), module
        elif isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.startswith("facetask.")]
