"""What all parts of the configuration are made of: strict, frozen sections, plugins by name, and paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationInfo

from facetask.yaml_loader import describe


def _usable(value: Any) -> Any:
    """Refuse texts that pathlib takes for the current folder, or that no file can have."""
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError(f"expected a path, found {describe(value)}")
    return value


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Return a path counted from the configuration's folder; a link at its end is kept, for its name's sake."""
    try:
        path = path.expanduser()
        path = (info.context or {}).get("base", Path()) / path
        return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except RuntimeError as error:  # no such user's home, or links that go round
        raise ValueError(str(error)) from None


# A path in a plugin's params: ~ is expanded, a relative one counts from the YAML file's folder.
ConfigPath = Annotated[Path, Field(strict=False), BeforeValidator(_usable), AfterValidator(_absolute)]


class Section(BaseModel):
    """Base of the configuration's own models."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class NoParams(Section):
    """Stands in until the plugin's own model has validated its params."""


class PluginChoice(Section):
    """A plugin's name and its params, an instance of the plugin's own params model."""

    name: str
    params: SerializeAsAny[BaseModel] = NoParams()
