"""Finds plugins: bundled (registry.yaml), installed (entry points) and local (a folder), and imports what is asked for.

Listing imports no bundled and no installed plugin; :meth:`PluginManager.find` imports the one it is asked for. The
files of a local folder are imported when the folder is given, since only they know what they provide.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import pluggy
import yaml

from facetask import hookspecs
from facetask.errors import PluginError, did_you_mean

if TYPE_CHECKING:
    from facetask.records import Record

KINDS = {
    "architecture": "facetask_architectures",
    "task": "facetask_tasks",
    "dataset": "facetask_datasets",
    "selector": "facetask_selectors",
    "score": "facetask_scores",
}
HOOK_KIND = "hook"  # an installed plugin that provides no record but listens: its entry point is named hook.NAME
GROUP = "facetask"
Origin = Literal["bundled", "installed", "local"]
Status = Literal["available", "missing-extra", "failed", "conflict"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One plugin in the catalogue, known without importing it.

    Attributes:
        kind: ``architecture``, ``task``, ``dataset``, ``selector``, ``score`` or ``hook``.
        name: The name used in a configuration.
        origin: Where it was found.
        provider: Who provides it, for messages: a module and distribution, or a file.
        target: What to import.
        status: Whether it can be used.
        detail: Why it cannot.
    """

    kind: str
    name: str
    origin: Origin
    provider: str
    target: str = ""
    status: Status = "available"
    detail: str = ""
    summary: str = ""
    maturity: str = ""
    licence: str = "not stated"
    citation: str = ""
    extras: tuple[str, ...] = ()
    weights: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        return asdict(self)


class PluginManager:
    """The catalogue of plugins, and the ones imported so far.

    Args:
        plugins_dir: A folder of plugin files for experiments.

    Raises:
        PluginError: If the folder does not exist.
    """

    def __init__(self, plugins_dir: Path | None = None) -> None:
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._modules: dict[str, ModuleType] = {}
        self._records: dict[str, list[tuple[str, Record]]] = {}
        entries = [*_bundled(), *_installed()]
        if plugins_dir is not None:
            entries += self._local(plugins_dir)
        self._entries = _mark_conflicts(entries)

    def catalogue(self) -> tuple[Entry, ...]:
        """Return every plugin known, those that failed included, sorted by kind and name."""
        return tuple(sorted(self._entries, key=lambda entry: (entry.kind, entry.name, entry.provider)))

    def find(self, kind: str, name: str) -> Record:
        """Return a plugin's record, importing it if need be.

        Raises:
            PluginError: If it is unknown, cannot be imported, breaks its contract, or two provide it.
        """
        entries = [entry for entry in self._entries if (entry.kind, entry.name) == (kind, name)]
        if not entries:
            known = [entry.name for entry in self._entries if entry.kind == kind]
            raise PluginError(f"unknown {kind} {name!r}{did_you_mean(name, known)}{self._failures()}")
        if entries[0].status == "conflict":
            raise PluginError(entries[0].detail)
        return self._record(entries[0])

    def load_all(self) -> tuple[tuple[Entry, Record | None], ...]:
        """Import every plugin; one that fails is marked so, with its reason, and has no record."""
        return tuple(self._loaded(entry) for entry in self.catalogue())

    def notify(self, stage: str, result: Any) -> None:
        """Call every loaded plugin's ``facetask_stage_finished``.

        Raises:
            PluginError: If one of them raises; the others are called all the same.
        """
        for entry in self._entries:
            if entry.kind == HOOK_KIND and entry.status == "available":
                self._import(entry.target)
        failed = []
        for name, plugin in self._pluggy.list_name_plugin():
            others = self._pluggy.get_plugins() - {plugin}
            try:  # one at a time, so as to know whose fault it is
                self._pluggy.subset_hook_caller("facetask_stage_finished", others)(stage=stage, result=result)
            except Exception as error:
                failed.append(f"{name} ({type(error).__name__}: {error})")
        if failed:
            raise PluginError(f"after {stage}, whose result is stored, facetask_stage_finished fails in {failed[0]}")

    def _loaded(self, entry: Entry) -> tuple[Entry, Record | None]:
        """Import one plugin; return its record, or the entry marked as failed."""
        if entry.status in ("failed", "conflict"):
            return entry, None
        try:
            if entry.kind != HOOK_KIND:
                return entry, self._record(entry)
            self._import(entry.target)
        except PluginError as error:
            return replace(entry, status="failed", detail=str(error)), None
        return entry, None

    def _record(self, entry: Entry) -> Record:
        """Return the record that an entry promises."""
        try:
            self._import(entry.target)
        except PluginError as error:
            if entry.status == "missing-extra":
                raise PluginError(f"{error}; {entry.detail}") from error
            raise
        for kind, record in self._records[entry.target]:
            if (kind, record.name) == (entry.kind, entry.name):
                return record
        provided = ", ".join(f"{kind} {record.name!r}" for kind, record in self._records[entry.target]) or "nothing"
        raise PluginError(f"{entry.provider}: promises {entry.kind} {entry.name!r} but provides {provided}")

    def _import(self, target: str) -> None:
        """Import a module by name and register it, once."""
        if target in self._modules:
            return
        try:
            module = importlib.import_module(target)
        except (Exception, SystemExit) as error:  # anything can go wrong in a plugin; only that plugin is lost
            raise PluginError(f"{target}: cannot be imported ({type(error).__name__}: {error})") from error
        self._register(target, module)

    def _register(self, target: str, module: ModuleType) -> None:
        """Register a module with pluggy and collect its records."""
        try:
            self._pluggy.register(module, name=target)
            self._pluggy.check_pending()
            records = list(_records_of(self._pluggy, module, target))
        except Exception as error:
            if self._pluggy.is_registered(module):
                self._pluggy.unregister(module)
            if isinstance(error, PluginError):
                raise
            raise PluginError(f"{target}: its hooks fail ({type(error).__name__}: {error})") from error
        self._modules[target] = module
        self._records[target] = records

    def _local(self, folder: Path) -> Iterator[Entry]:
        """Import a local folder's files and yield what they provide."""
        folder = folder.resolve()
        if not folder.is_dir():
            raise PluginError(f"--plugins-dir {folder}: no such folder")
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # so that the files of one experiment can import each other
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            if any(part.startswith(("_", ".")) for part in inside):
                continue
            target = ".".join(("facetask_local", *inside))
            try:
                self._register(target, _import_file(target, path))
            except PluginError as error:
                yield Entry(
                    kind="?", name=path.stem, origin="local", provider=str(path), status="failed", detail=str(error)
                )
                continue
            for kind, record in self._records[target]:
                yield Entry(kind=kind, name=record.name, origin="local", provider=str(path), target=target)
            if hasattr(self._modules[target], "facetask_stage_finished"):
                yield Entry(kind=HOOK_KIND, name=".".join(inside), origin="local", provider=str(path), target=target)

    def _failures(self) -> str:
        """Return a hint at the plugins that could not be imported, one of which may be the one meant."""
        failed = [f"{entry.provider} ({entry.detail})" for entry in self._entries if entry.status == "failed"]
        return f"; not imported: {'; '.join(failed)}" if failed else ""


@functools.cache
def default_manager() -> PluginManager:
    """Return the plugin manager without a local folder, made once."""
    return PluginManager()


def registry_path() -> Path:
    """Return registry.yaml's place: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).with_name("registry.yaml")
    return inside if inside.is_file() else Path(__file__).resolve().parents[1] / "registry.yaml"


def _bundled() -> Iterator[Entry]:
    """Yield the plugins of registry.yaml."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    registry = yaml.load(registry_path().read_text(encoding="utf-8"), Loader=loader)
    for item in registry["plugins"]:
        extras = item.get("extras", {})
        absent = [extra for extra, package in extras.items() if importlib.util.find_spec(package) is None]
        yield Entry(
            kind=item["kind"],
            name=item["name"],
            origin="bundled",
            provider=f"facetask.plugins.{item['module']}",
            target=f"facetask.plugins.{item['module']}",
            status="missing-extra" if absent else "available",
            detail=f"pip install 'facetask[{','.join(absent)}]'" if absent else "",
            summary=item["summary"],
            maturity=item["maturity"],
            licence=_licences(item),
            citation=item.get("citation", ""),
            extras=tuple(extras),
            weights=tuple(item.get("weights", ())),
        )


def _licences(item: dict[str, Any]) -> str:
    """Return the code's licence and, where there are weights, theirs."""
    weights = sorted({entry["licence"] for entry in item.get("weights", ())})
    return f"{item['licence']} (weights: {', '.join(weights)})" if weights else str(item["licence"])


def _installed() -> Iterator[Entry]:
    """Yield the plugins that installed distributions announce as entry points."""
    for point in importlib.metadata.entry_points(group=GROUP):
        metadata = point.dist.metadata if point.dist else None
        provider = f"{point.value} ({point.dist.name} {point.dist.version})" if point.dist else point.value
        kind, _, name = point.name.partition(".")
        good = bool(name) and kind in (*KINDS, HOOK_KIND)
        yield Entry(
            kind=kind if good else "?",
            name=name if good else point.name,
            origin="installed",
            provider=provider,
            target=point.module,
            status="available" if good else "failed",
            detail=""
            if good
            else f"entry point {point.name!r} must be named KIND.NAME, KIND one of {', '.join((*KINDS, HOOK_KIND))}",
            summary=str(metadata["Summary"] or "") if metadata else "",
            licence=_distribution_licence(metadata),
        )


def _distribution_licence(metadata: Any) -> str:
    """Return a distribution's licence as its metadata state it."""
    for key in ("License-Expression", "License"):
        if metadata is not None and metadata[key]:
            return str(metadata[key]).splitlines()[0]
    return "not stated"


def _import_file(target: str, path: Path) -> ModuleType:
    """Import a file as a module of the given name."""
    spec = importlib.util.spec_from_file_location(target, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[target] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[target]
        raise PluginError(f"{path}: cannot be imported ({type(error).__name__}: {error})") from error
    return module


def _records_of(manager: pluggy.PluginManager, module: ModuleType, target: str) -> Iterator[tuple[str, Record]]:
    """Yield the records that a registered module's hooks return, checked for their type."""
    from facetask import records

    types: dict[str, type[Record]] = {
        "architecture": records.Architecture,
        "task": records.Task,
        "dataset": records.Dataset,
        "selector": records.Selector,
        "score": records.Score,
    }
    implemented = {caller.name for caller in manager.get_hookcallers(module) or ()}
    for hook in (*KINDS.values(), "facetask_stage_finished"):
        if hasattr(module, hook) and hook not in implemented:
            raise PluginError(f"{target}: {hook} is not marked as a hook; put @facetask.hookimpl above it")
    for kind, hook in KINDS.items():
        if hook not in implemented:
            continue
        for record in getattr(module, hook)():
            if not isinstance(record, types[kind]):
                expected, found = types[kind].__name__, type(record).__name__
                raise PluginError(f"{target}: {hook} must return a list of {expected} records, found {found}")
            yield kind, record


def _mark_conflicts(entries: Iterable[Entry]) -> list[Entry]:
    """Mark plugins that share a kind and name."""
    by_name: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        by_name.setdefault((entry.kind, entry.name), []).append(entry)
    marked: list[Entry] = []
    for (kind, name), same in by_name.items():
        if len(same) == 1 or kind == "?":
            marked += same
            continue
        providers = " and ".join(entry.provider for entry in same)
        detail = f"two plugins provide {kind} {name!r}: {providers}; remove or rename one"
        marked += [replace(entry, status="conflict", detail=detail) for entry in same]
    return marked
