"""From a YAML file and overrides to one validated, frozen :class:`RunConfig`.

Two phases, whose problems are told together: first the structure and the plugins' names, then each plugin's params
through the params model that it declares.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from facetask.config.complaints import problems_of
from facetask.config.inputs import CHOICE_KEYS, SatelliteTask
from facetask.config.run_config import DEFAULT_SELECTOR, RunConfig, disagreements
from facetask.context import current_plugins, run_context
from facetask.errors import PluginError
from facetask.yaml_loader import Document, KeyPath, Problem, describe, dump_yaml, escaped, load_yaml

if TYPE_CHECKING:
    from facetask.records import Record

_Model = TypeVar("_Model", bound=BaseModel)


class PluginLookup(Protocol):
    """What the configuration asks of the plugin manager."""

    def find(self, kind: str, name: str) -> Record:
        """Return a plugin's record; raise PluginError if there is none."""


def load_config(path: Path | str, overrides: Sequence[str] = (), *, plugins: PluginLookup | None = None) -> RunConfig:
    """Read and validate a configuration file.

    Args:
        path: The YAML file; relative paths in it and in overrides count from its folder.
        overrides: ``key.path=value`` each, the value in YAML.
        plugins: Where to look plugins up; by default among the bundled and installed ones.

    Raises:
        ConfigError: If the file cannot be read or anything in it is wrong; all problems are told at once.
    """
    return _checked(load_yaml(path).overridden(overrides), Path(path).parent, plugins)


def config_from_dict(
    data: Mapping[str, Any], *, base: Path, plugins: PluginLookup | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Validate a configuration that was made in Python, by the same rules as a file in the folder ``base``.

    Raises:
        ConfigError: If anything in it is wrong; all problems are told at once.
    """
    problems: list[Problem] = []
    document = Document(_plain(data, (), problems), problems=tuple(problems))
    return _checked(document.overridden(overrides), base, plugins)


def as_config(config: RunConfig | Mapping[str, Any] | Path | str, plugins: PluginLookup) -> RunConfig:
    """Return a configuration that is given as such, as a YAML file, or as a mapping as in one.

    Raises:
        ConfigError: If anything in it is wrong.
    """
    if isinstance(config, Path | str):
        return load_config(config, plugins=plugins)
    return config if isinstance(config, RunConfig) else config_from_dict(config, base=Path.cwd(), plugins=plugins)


def resolved_yaml(config: RunConfig) -> str:
    """Return a configuration as YAML with every default spelt out, which loads as the same configuration."""
    return dump_yaml(escaped(config.model_dump(mode="json")))


def config_differences(a: RunConfig | Mapping[str, Any], b: RunConfig | Mapping[str, Any]) -> list[str]:
    """Return the dotted key paths whose values differ, in the configuration's order; those only in ``b`` come last."""
    return [".".join(map(str, path)) for path in _differing(_dumped(a), _dumped(b), ())]


def _checked(document: Document, base: Path, plugins: PluginLookup | None) -> RunConfig:
    """Return a document's configuration, or raise ConfigError with all its problems."""
    plugins = plugins or current_plugins()
    document = document.expanded(os.environ)
    structure = copy.deepcopy(document.value)
    if isinstance(structure, dict):
        structure.setdefault("selector", {"name": DEFAULT_SELECTOR})
    problems: list[Problem] = []
    params: dict[KeyPath, BaseModel] = {}
    for kind, path, choice in _choices(structure):
        with run_context(plugins):
            found = _plugin_params(plugins, kind, path, choice, base=base, problems=problems)
        if found is not None:
            params[path] = found
    try:
        config = RunConfig.model_validate_json(json.dumps(structure), context={"base": base})
        problems += disagreements(config)
    except ValidationError as error:
        problems += problems_of(error, RunConfig, structure, ())
    document.raise_problems(problems)
    return _completed(config, params)


def validated(document: Document, base: Path, model: type[_Model], context: Mapping[str, Any] | None = None) -> _Model:
    """Return what a document without plugins holds as a model, or raise ConfigError with all its problems."""
    document = document.expanded(os.environ)
    found, problems = None, []
    try:
        found = model.model_validate_json(json.dumps(document.value), context={"base": base, **(context or {})})
    except ValidationError as error:
        problems = problems_of(error, model, document.value, ())
    document.raise_problems(problems)
    assert found is not None
    return found


def _choices(structure: Any) -> Iterator[tuple[str, KeyPath, dict[str, Any]]]:
    """Yield the kind, the path and the mapping of each place that names a plugin."""
    if not isinstance(structure, dict):
        return
    tasks = structure.get("satellite_tasks")
    places: list[tuple[str, KeyPath, Any]] = [
        ("architecture", ("base_network",), structure.get("base_network")),
        ("dataset", ("data",), structure.get("data")),
        *(
            ("task", ("satellite_tasks", index), task)
            for index, task in enumerate(tasks if isinstance(tasks, list) else ())
        ),
        ("selector", ("selector",), structure.get("selector")),
    ]
    yield from (place for place in places if isinstance(place[2], dict) and place[2].get("model") is None)


def _plugin_params(
    plugins: PluginLookup, kind: str, path: KeyPath, choice: dict[str, Any], *, base: Path, problems: list[Problem]
) -> BaseModel | None:
    """Take the params out of a choice and return them as the plugin's own model, or note why not."""
    raw = choice.pop("params", {})
    if not isinstance(raw, dict):
        problems.append(Problem((*path, "params"), f"expected a mapping, found {describe(raw)}"))
    if not isinstance(choice.get("name"), str):
        return None
    try:
        model = plugins.find(kind, choice["name"]).params
    except PluginError as error:
        problems.append(Problem((*path, "name"), str(error)))
        return None
    for key in choice:
        if key in model.model_fields and key not in CHOICE_KEYS:
            problems.append(
                Problem((*path, key), f"unknown key; did you mean '{'.'.join(map(str, path))}.params.{key}'?")
            )
    if not isinstance(raw, dict):
        return None
    try:
        return model.model_validate_json(json.dumps(raw), context={"base": base})
    except ValidationError as error:
        problems += problems_of(error, model, raw, (*path, "params"))
        return None


def _completed(config: RunConfig, params: Mapping[KeyPath, BaseModel]) -> RunConfig:
    """Return the configuration with the plugins' params and with each task's split filled up from the run's."""
    tasks: list[SatelliteTask] = []
    for index, task in enumerate(config.satellite_tasks):
        update: dict[str, Any] = {"params": params["satellite_tasks", index]}
        if task.split is not None:
            given = {name: getattr(task.split, name) for name in task.split.model_fields_set}
            update["split"] = config.split.model_copy(update=given)
        tasks.append(task.model_copy(update=update))
    choices = {
        name: getattr(config, name).model_copy(update={"params": params[name,]})
        for name in ("base_network", "data", "selector")
        if (name,) in params
    }
    return config.model_copy(update={**choices, "satellite_tasks": tuple(tasks)})


def _plain(value: Any, path: KeyPath, problems: list[Problem]) -> Any:
    """Return a Python value in a YAML file's types; note what has none."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                problems.append(Problem(path, f"a key must be a text, found {key!r}"))
        return {str(key): _plain(item, (*path, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index), problems) for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    problems.append(Problem(path, f"expected what YAML can say, found a {type(value).__name__}"))
    return None


def _dumped(config: RunConfig | Mapping[str, Any]) -> Any:
    """Return a configuration as plain values."""
    return config.model_dump(mode="json") if isinstance(config, RunConfig) else _plain(config, (), [])


def _differing(a: Any, b: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Yield the paths of values that differ or stand on one side only."""
    if isinstance(a, list) and isinstance(b, list):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            inner = (*path, key)
            yield from _differing(a[key], b[key], inner) if key in a and key in b else (inner,)
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield path
