"""pydantic's complaints in a user's words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from facetask.config.inputs import BaseNetworkConfig, DataConfig, SatelliteTask
from facetask.config.section import PluginChoice
from facetask.errors import did_you_mean
from facetask.yaml_loader import KeyPath, Problem, describe

# What a value should have been, by pydantic's type of error.
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "enum": "{expected}",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "none_required": "null",
    "multiple_of": "a multiple of {multiple_of}",
    "path_type": "a path",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_too_long": "a text of at most {max_length} characters",
    "string_too_short": "a text of at least {min_length} characters",
    "string_type": "text",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}
_NAMED = {model.__name__ for model in (BaseNetworkConfig, PluginChoice, DataConfig, SatelliteTask)}


def problems_of(error: ValidationError, model: type[BaseModel], data: Any, prefix: KeyPath) -> list[Problem]:
    """Return pydantic's complaints in plain words, the alternatives of a union joined into one."""
    told: dict[KeyPath, str] = {}
    expected: dict[KeyPath, tuple[list[str], Any]] = {}
    for detail in error.errors(include_url=False):
        path, value = _place(detail["loc"], data)
        kind, context = detail["type"], detail.get("ctx", {})
        last = detail["loc"][-1] if detail["loc"] else ""
        if kind == "missing" and isinstance(last, str):
            told[*path, last] = "required, but missing"
        elif kind == "extra_forbidden":
            told[path] = f"unknown key{did_you_mean(str(last), _known_keys(model, path[:-1]))}"
        elif kind in ("value_error", "assertion_error"):
            told[path] = str(context["error"])
        elif kind == "missing":  # once for each item that a tuple lacks: the last tells them all
            expected[path] = ([f"a list of at least {int(last) + 1}"], value)
        else:
            phrase = detail["msg"].removeprefix("Input should be ")
            if kind in _EXPECTED:
                phrase = _EXPECTED[kind].format(**context)
            if context.get("class_name") in _NAMED:
                phrase += " such as {name: …, params: {…}}"
            expected.setdefault(path, ([], value))[0].append(phrase)
    for path, (phrases, value) in expected.items():
        # Where something deeper is wrong, the value's other permitted forms were not meant.
        if not any(len(other) > len(path) and other[: len(path)] == path for other in (*told, *expected)):
            found = f"expected {' or '.join(dict.fromkeys(phrases))}, found {describe(value)}"
            told.setdefault(path, found + _advice(value, phrases))
    return [Problem((*prefix, *path), what) for path, what in told.items()]


def _place(loc: Sequence[str | int], data: Any) -> tuple[KeyPath, Any]:
    """Return the path and the value that a pydantic location means; its names of a union's members are left out."""
    path: KeyPath = ()
    for step in loc:
        within = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        if step in within:
            path, data = (*path, step), data[step]
    return path, data


def _known_keys(model: type[BaseModel], path: KeyPath) -> set[str]:
    """Return the keys that a model permits in the mapping at a path."""
    models = [model]
    for key in path:
        fields = [outer.model_fields[key] for outer in models if key in outer.model_fields]
        models = [inner for field in fields for inner in _models(field.annotation)] or models
    return {field.alias or name for each in models for name, field in each.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that occur in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _advice(value: Any, phrases: Sequence[str]) -> str:
    """Return what to do about a value that is not as expected, where that can be guessed."""
    if "text" in phrases and isinstance(value, int | float):
        return "; put it in quotes to make it text"
    words = [word for phrase in phrases for word in re.findall(r"'([^']+)'", phrase)]
    hint = did_you_mean(value, words) if isinstance(value, str) and words else ""
    return hint if "did you mean" in hint else ""
