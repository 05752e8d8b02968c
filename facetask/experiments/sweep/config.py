"""A sweep's configuration, and the combinations that it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from facetask.config import CutWithin
from facetask.errors import ConfigError
from facetask.experiments.config import ExperimentConfig, RunTemplate

if TYPE_CHECKING:
    from facetask.config import RunConfig
    from facetask.plugin_manager import PluginManager

_LISTS = {
    "selectors": ("", "selector"),
    "thresholds": ("threshold-", "prune.threshold"),
    "cuts": ("cut-", "prune.cut"),
    "couple": ("couple-", "prune.couple"),
    "macs": ("macs-", "prune.macs"),
    "size": ("size-", "prune.size"),
    "reconstruct": ("reconstruct-", "prune.reconstruct"),
}
"""For each list of the configuration, what stands before a value in a combination's name, and what the value sets."""


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list that holds a value twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{_text(value)} is given twice")
    return values


class SelectorChoice(ExperimentConfig):
    """A selector with params of its own."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class SweepConfig(ExperimentConfig):
    """A run and what is varied in it; every combination of the lists' values is a run.

    Attributes:
        run: The run's YAML file, or the run itself as a mapping; a list that is left out leaves its value.
        thresholds: Values of ``prune.threshold``.
        cuts: Values of ``prune.cut``.
        selectors: Selectors, each a name or ``{name: …, params: {…}}``.
        couple: Values of ``prune.couple``.
        macs: Values of ``prune.macs``.
        size: Values of ``prune.size``.
        reconstruct: Values of ``prune.reconstruct``.
    """

    run: RunTemplate
    thresholds: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], AfterValidator(_different)] = ()
    cuts: Annotated[tuple[Annotated[str, Field(min_length=1)] | CutWithin, ...], AfterValidator(_different)] = ()
    selectors: Annotated[tuple[str | SelectorChoice, ...], AfterValidator(_different)] = ()
    couple: Annotated[tuple[Literal["group", "union", "intersection", "free"], ...], AfterValidator(_different)] = ()
    macs: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], AfterValidator(_different)] = ()
    size: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], AfterValidator(_different)] = ()
    reconstruct: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_different)] = ()

    @model_validator(mode="after")
    def _varies_something(self) -> SweepConfig:
        if not any(getattr(self, name) for name in _LISTS):
            raise ValueError(f"nothing is varied: give one or more of the lists {', '.join(_LISTS)}")
        return self

    @property
    def swept(self) -> dict[str, list[str]]:
        """The lists that are given, each value as text."""
        return {name: _texts(getattr(self, name)) for name in _LISTS if getattr(self, name)}


@dataclass(frozen=True)
class Combination:
    """One value of each list.

    Attributes:
        name: A name that can be read and names its folder: ``lasso_threshold-0.01``.
        settings: Each list's value as text.
        changes: What the values set, by dotted key path.
    """

    name: str
    settings: Mapping[str, str]
    changes: Mapping[str, Any]

    def config(self, run: RunTemplate, plugins: PluginManager) -> RunConfig:
        """Return the run's configuration.

        Raises:
            ConfigError: If anything in it is wrong.
        """
        return run.config(plugins, self.changes)

    @property
    def curves_of(self) -> str:
        """The setting on which regressions and curves depend: combinations that share it share them."""
        return self.settings.get("selectors", "")


def combinations(sweep: SweepConfig) -> list[Combination]:
    """Return a sweep's combinations, in the order of its lists' values."""
    lists = {name: getattr(sweep, name) for name in _LISTS if getattr(sweep, name)}
    found = []
    for values in product(*(list(zip(_texts(given), given, strict=True)) for given in lists.values())):
        settings = {name: text for name, (text, _) in zip(lists, values, strict=True)}
        changes = {_LISTS[name][1]: _plain(name, value) for name, (_, value) in zip(lists, values, strict=True)}
        name = "_".join(_LISTS[part][0] + re.sub(r"[^A-Za-z0-9.+-]+", "-", text) for part, text in settings.items())
        found.append(Combination(name, settings, changes))
    return found


def checked_configs(
    path: Path, sweep: SweepConfig, chosen: list[Combination], plugins: PluginManager
) -> dict[str, RunConfig]:
    """Return every combination's configuration, so that what is wrong in one is told before anything runs.

    Raises:
        ConfigError: If anything in one is wrong, or what is varied has no effect in the run.
    """
    configs = {combination.name: combination.config(sweep.run, plugins) for combination in chosen}
    some = next(iter(configs.values()))
    if sweep.thresholds and some.prune.knee != "threshold":
        raise ConfigError(
            f"{path}: thresholds: the run's prune.knee is {str(some.prune.knee)!r}, which has no threshold; leave "
            "one of both out"
        )
    return configs


def _texts(values: tuple[Any, ...]) -> list[str]:
    """Return a list's values as texts; selectors of one name are told apart by their params."""
    names = [_text(value) for value in values]
    return [_text(value, params=names.count(name) > 1) for name, value in zip(names, values, strict=True)]


def _text(value: Any, *, params: bool = False) -> str:
    """Return a value as text: a selector by its name, with its params where these are asked for."""
    if isinstance(value, CutWithin):
        return f"within {value.within}"
    if isinstance(value, SelectorChoice):
        given = value.params.items() if params else ()
        return ", ".join([value.name, *(f"{key} {setting}" for key, setting in given)])
    return str(value)


def _plain(name: str, value: Any) -> Any:
    """Return a value of a list as a run's configuration says it."""
    if name == "selectors" and isinstance(value, str):
        return {"name": value}
    return value.model_dump(mode="json") if isinstance(value, CutWithin | SelectorChoice) else value
