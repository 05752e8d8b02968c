"""A ranking's configuration: which base networks, by which scores, for the tasks of one run or several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from facetask.config import ConfigPath
from facetask.context import current_plugins
from facetask.errors import PluginError
from facetask.experiments.config import ExperimentConfig, RunTemplate


class _PluginChoice(ExperimentConfig):
    """A plugin's name, its params, and what it is called in the results.

    Attributes:
        params: As JSON values, every default spelt out and every path absolute.
        label: Its name in the results; by default the plugin's.
    """

    kind: ClassVar[str]
    name: str
    params: dict[str, Any] = Field(default={}, validate_default=True)
    label: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        """Refuse a plugin that cannot be had."""
        try:
            current_plugins().find(cls.kind, name)
        except PluginError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("params")
    @classmethod
    def _of_the_plugin(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Validate the params through the plugin's own model."""
        if not isinstance(info.data.get("name"), str):
            return params  # the name is wrong, and that is told; or there is none
        model = current_plugins().find(cls.kind, info.data["name"]).params
        found = model.model_validate_json(json.dumps(params), context=info.context)
        return found.model_dump(mode="json")

    @property
    def title(self) -> str:
        """What it is called in the results."""
        return self.label or self.name


class ScoreChoice(_PluginChoice):
    """A score."""

    kind = "score"


class NetworkChoice(_PluginChoice):
    """A base network: an architecture and its params, or a saved model.

    Attributes:
        model: The saved model's folder, instead of a name.
        crop: The share of their width and height that this network's images lose on each side; by default the run's.
    """

    kind = "architecture"
    name: str | None = None  # type: ignore[assignment]
    model: ConfigPath | None = None
    crop: Annotated[float, Field(ge=0, lt=0.5)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> NetworkChoice:
        if (self.name is None) == (self.model is None):
            raise ValueError("expected a mapping such as {name: …, params: {…}}, or {model: FOLDER} for a saved model")
        return self

    @property
    def title(self) -> str:
        """What it is called in the results: its label, its architecture's name, or its folder's."""
        return self.label or self.name or (self.model.name if self.model else "")

    def base_network(self) -> dict[str, Any]:
        """Return it as a run's ``base_network``."""
        return {"name": self.name, "params": self.params} if self.model is None else {"model": str(self.model)}

    def changes(self) -> dict[str, Any]:
        """Return what a run's configuration needs to use it: the network, its framing, and no tap of another one."""
        crop = {} if self.crop is None else {"data.crop": self.crop}
        return {"base_network": self.base_network(), "prune.cut": "best", **crop}


def _listed(value: Any) -> Any:
    """Return a list of one run where a run stands alone."""
    return value if isinstance(value, list) else [value]


def _titles_differ(choices: Sequence[_PluginChoice]) -> None:
    """Refuse two choices of one name."""
    titles = [choice.title for choice in choices]
    for title in titles:
        if titles.count(title) > 1:
            raise ValueError(f"{titles.count(title)} of them are called {title!r}; give each a label of its own")


class RankConfig(ExperimentConfig):
    """A ranking of base networks and their taps.

    Attributes:
        run: A run, for its data, tasks, split and trials, or several; each a YAML file, or the run itself as a mapping.
        base_networks: The base networks.
        scores: The scores; null: all that there are, with their default params.
        label_bins: Into how many equally frequent bins the values of continuous tasks are put, for scores that need
            classes.
        finetuned: Folders of finished runs of these networks, with whose finetuned metrics the scores are compared.
    """

    run: Annotated[tuple[RunTemplate, ...], BeforeValidator(_listed), Field(strict=False, min_length=1)]
    base_networks: Annotated[tuple[NetworkChoice, ...], Field(min_length=1)]
    scores: Annotated[tuple[ScoreChoice, ...], Field(min_length=1)] | None = None
    label_bins: Annotated[int, Field(ge=2)] = 10
    finetuned: tuple[ConfigPath, ...] = ()

    @field_validator("base_networks", "scores")
    @classmethod
    def _called_differently(cls, choices: Any) -> Any:
        _titles_differ(choices or ())
        return choices
