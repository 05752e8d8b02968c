"""Any PyTorch module as an architecture: the adapter for a local plugin of five lines."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue

from facetask.config import ConfigPath
from facetask.errors import PluginError, WeightsError, did_you_mean, first_names
from facetask.networks.weights import read_state_dict
from facetask.records import Architecture, Params, Weights

if TYPE_CHECKING:
    from torch import nn

    from facetask.data.preprocessing import Preprocessing


class ModuleParams(Params):
    """Settings of a module that is given by its function.

    Attributes:
        checkpoint: A state dict for the module; by default the weights are those with which the function returns it.
        arguments: Keyword arguments of the function.
    """

    checkpoint: ConfigPath | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


def module_architecture(
    name: str,
    function: str,
    preprocessing: Preprocessing,
    *,
    licence: str,
    taps: Sequence[str] | None = None,
    follows: Mapping[str, str] | None = None,
    revision: str = "1",
) -> Architecture:
    """Return an architecture whose module is made by a function (or is a class) of yours.

    The function is imported when the architecture is used. Saved models are built by it again, so weights that lie in a
    file are better given as the param ``checkpoint`` than read by the function.

    Args:
        name: The name used in a configuration.
        function: Where it is: ``package.module:function``, installed or in the folder of ``--plugins-dir``.
        preprocessing: What the network expects of an image.
        licence: The weights' licence, carried by every network carved out of them.
        taps: Names of the modules whose outputs are the taps; by default surgery finds them.
        follows: For each tap that keeps the same indices as another, that other tap's name.
        revision: Change it when the same params give other numbers.

    Raises:
        PluginError: If ``function`` is not of the form ``package.module:function``.
    """
    where = f"architecture {name!r}"
    if not all(part.isidentifier() for part in function.replace(":", ".").split(".")) or function.count(":") != 1:
        raise PluginError(f"{where}: expected 'package.module:function', found {function!r}")

    def build(params: ModuleParams) -> nn.Module:
        return _called(where, function, params.arguments)

    def weights(params: ModuleParams) -> Weights:
        if params.checkpoint is not None:
            return Weights(state=read_state_dict(params.checkpoint), licence=licence, source=params.checkpoint.name)
        state, again = build(params).state_dict(), build(params).state_dict()
        random = [key for key, value in state.items() if key in again and not value.equal(again[key])]
        if random:
            raise WeightsError(
                f"{where}: called twice, {function} gives other weights ({first_names(random)}), as if they "
                "were random; set params.checkpoint, or let it return a trained module"
            )
        return Weights(state=state, licence=licence, source=function)

    return Architecture(
        name=name,
        build=build,
        weights=weights,
        preprocessing=lambda params: preprocessing,
        params=ModuleParams,
        taps=lambda params: taps,
        follows=lambda params: dict(follows or {}),
        portable=lambda params: params.model_copy(update={"checkpoint": None}),
        revision=revision,
    )


def _called(where: str, function: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the module that the function makes.

    Raises:
        PluginError: If the function cannot be imported, fails or returns something else.
    """
    from torch import nn

    make = _imported(where, *function.split(":"))
    try:
        module = make(**arguments)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise PluginError(f"{where}: {function}({given}) fails ({type(error).__name__}: {error})") from error
    if not isinstance(module, nn.Module):
        raise PluginError(f"{where}: {function} must return a torch.nn.Module, found {type(module).__name__}")
    return module


def _imported(where: str, module_name: str, attribute: str) -> Callable[..., Any]:
    """Return a function by its place.

    Raises:
        PluginError: If its module cannot be imported or lacks it.
    """
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        advice = "; put it beside the plugin's file, install it, or add its folder to PYTHONPATH" if absent else ""
        raise PluginError(
            f"{where}: module {module_name!r} cannot be imported ({type(error).__name__}: {error}){advice}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [key for key in dir(found) if not key.startswith("_") and callable(getattr(found, key))]
            raise PluginError(f"{where}: {module_name} has no {attribute!r}{did_you_mean(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise PluginError(f"{where}: {module_name}:{attribute} is no function, but a {type(found).__name__}")
    return found  # type: ignore[no-any-return]
