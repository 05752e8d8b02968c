"""A task plugin named inside another plugin's params: validated as at the top level, and asked for its labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from facetask.context import current_plugins
from facetask.errors import PluginError, did_you_mean
from facetask.records import Params
from facetask.yaml_loader import describe

if TYPE_CHECKING:
    from facetask.records import FaceData, Labels, Task

_NOT_GIVEN = Params()


class TaskChoice(Params):
    """A task plugin's name and its params, as a field of another plugin's params: ``{name: …, params: {…}}``.

    Attributes:
        name: The plugin's name.
        params: An instance of that plugin's own params model.
    """

    name: str
    params: SerializeAsAny[BaseModel] = Field(default=_NOT_GIVEN, validate_default=True)

    def labels(self, data: FaceData) -> Labels:
        """Return the plugin's labels, checked.

        Raises:
            PluginError: If they do not fit their kind.
            FacetaskError: What the plugin raises.
        """
        from facetask.tasks.satellite import check_labels

        labels = _task(self.name).labels(data, self.params)
        check_labels(labels, len(data), self.name)
        return labels

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        """Refuse a plugin that cannot be had."""
        try:
            _task(name)
        except PluginError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("params", mode="plain")
    @classmethod
    def _of_the_plugin(cls, value: Any, info: ValidationInfo) -> BaseModel:
        """Validate the params through the plugin's own model."""
        if "name" not in info.data:
            return _NOT_GIVEN  # the name is wrong, and that is told
        name, model = info.data["name"], _task(info.data["name"]).params
        if isinstance(value, model):
            return value
        given = {} if value is _NOT_GIVEN else value
        if not isinstance(given, dict):
            raise ValueError(f"expected a mapping, found {describe(given)}")
        try:
            return model.model_validate_json(json.dumps(given), context=info.context)
        except ValidationError as error:
            if value is _NOT_GIVEN:  # there is no place in the file that its errors could point at
                wanted = ", ".join(str(detail["loc"][-1]) for detail in error.errors() if detail["loc"])
                raise ValueError(f"task {name!r} needs params: {wanted}") from None
            raise _with_near_names(error, model) from None


def _task(name: str) -> Task:
    """Return a task plugin's record."""
    return current_plugins().find("task", name)  # type: ignore[return-value]


def _with_near_names(error: ValidationError, model: type[BaseModel]) -> ValidationError:
    """Return an error whose unknown keys are told with the known ones, which the outer model does not know."""
    details: list[InitErrorDetails] = []
    for detail in error.errors(include_url=False):
        kind, message, context = detail["type"], detail["msg"], dict(detail.get("ctx", {}))
        if kind == "extra_forbidden" and len(detail["loc"]) == 1:
            kind, message = "value_error", f"unknown key{did_you_mean(str(detail['loc'][0]), model.model_fields)}"
            context = {"error": ValueError(message)}
        same = PydanticCustomError(kind, message, context)
        details.append(InitErrorDetails(type=same, loc=detail["loc"], input=detail["input"]))
    return ValidationError.from_exception_data(error.title, details, input_type="json")
