"""An experiment's configuration: its own settings beside the run, or the runs, that it is made of.

A field of the type :class:`RunTemplate` takes a run's YAML file, or the run itself as a mapping; the experiment makes
variants of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import core_schema

from facetask.config import RunConfig, config_from_dict, load_config, validated
from facetask.errors import ConfigError
from facetask.yaml_loader import describe, load_yaml

if TYPE_CHECKING:
    from facetask.plugin_manager import PluginManager


@dataclass(frozen=True)
class RunTemplate:
    """A run's configuration, of which variants are made.

    Attributes:
        source: Its YAML file, or the mapping itself.
        base: The folder from which paths in a mapping count.
        overrides: ``key.path=value`` each, for a file: what the command line changes in it.
    """

    source: Path | Mapping[str, Any]
    base: Path
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its ending, or ``run``."""
        return self.source.stem if isinstance(self.source, Path) else "run"

    def config(self, plugins: PluginManager, changes: Mapping[str, Any] | None = None) -> RunConfig:
        """Return the run's configuration with some values changed.

        Args:
            plugins: Where plugins are found.
            changes: New values by dotted key path: ``{"prune.threshold": 0.1}``.

        Raises:
            ConfigError: If anything in it is wrong; all problems are told at once.
        """
        overrides = [*self.overrides, *(f"{path}={json.dumps(value)}" for path, value in (changes or {}).items())]
        if isinstance(self.source, Path):
            return load_config(self.source, overrides, plugins=plugins)
        return config_from_dict(self.source, base=self.base, plugins=plugins, overrides=overrides)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Let pydantic take a path or a mapping for it."""

        def template(value: Any, info: ValidationInfo) -> RunTemplate:
            context = info.context or {}
            base = context.get("base", Path())
            if isinstance(value, str) and value:
                overrides = context.get("overrides", {}).get(info.field_name, ())
                return cls(base / Path(value).expanduser(), base, tuple(overrides))
            if isinstance(value, dict):
                return cls(value, base)
            raise ValueError(f"expected a run's YAML file, or the run itself as a mapping, found {describe(value)}")

        return core_schema.with_info_plain_validator_function(template)


class ExperimentConfig(BaseModel):
    """Base of the experiments' configurations: unknown keys are errors, types are not coerced, values are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Config = TypeVar("Config", bound=ExperimentConfig)


def refuse_shared(run: RunConfig, what: str) -> None:
    """Refuse a run whose tasks share a network, for an experiment that trains one for each task.

    Raises:
        ConfigError: If they do.
    """
    if run.prune.share:
        raise ConfigError(f"prune.share: {what} takes a network for each task; leave share out of the run")


def load_experiment(path: Path | str, model: type[Config], overrides: Sequence[str] = ()) -> Config:
    """Read and validate an experiment's configuration; what is wrong in its runs is told when they are made.

    Args:
        path: The YAML file; relative paths in it and in overrides count from its folder.
        model: What it must hold.
        overrides: ``key.path=value`` each, the value in YAML. They reach into a run that a file is named for, too:
            ``run.trials=1``.

    Raises:
        ConfigError: If the file cannot be read or anything in it is wrong; all problems are told at once.
    """
    document = load_yaml(path)
    own: list[str] = []
    inner: dict[str, list[str]] = {}
    for assignment in overrides:
        key, dot, rest = assignment.strip().partition(".")
        named = isinstance(document.value, dict) and isinstance(document.value.get(key), str)
        if dot and named and key in model.model_fields and _takes_a_run(model.model_fields[key].annotation):
            inner.setdefault(key, []).append(rest)
        else:
            own.append(assignment)
    return validated(document.overridden(own), Path(path).parent, model, {"overrides": inner})


def _takes_a_run(annotation: Any) -> bool:
    """Return whether a field takes a run."""
    return annotation is RunTemplate or RunTemplate in get_args(annotation)
