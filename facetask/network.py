"""A base network, ready to use: built, its weights loaded, traced by the surgery engine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.errors import WeightsError, did_you_mean, first_names
from facetask.surgery import ChannelGraph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.plugin_manager import PluginManager
    from facetask.preprocessing import Preprocessing
    from facetask.records import Architecture


@dataclass(frozen=True)
class BaseNetwork:
    """A pretrained network and what surgery knows of it.

    Attributes:
        architecture: The plugin's record.
        params: The plugin's params.
        module: The network in evaluation mode.
        graph: Its taps, coupled groups and components.
        preprocessing: What it expects of an image.
        licence: The weights' licence.
        source: Where the weights come from.
    """

    architecture: Architecture
    params: Any
    module: nn.Module
    graph: ChannelGraph
    preprocessing: Preprocessing
    licence: str
    source: str

    def fingerprint(self) -> str:
        """Return a digest of everything that the responses depend on besides the images."""
        identity = [self.architecture.name, self.architecture.revision, self.preprocessing.to_json()]
        return fingerprint(self.module.state_dict(), [*identity, [tap.name for tap in self.graph.taps]])

    def filter_weights(self) -> dict[str, NDArray[np.float64]]:
        """Return each tap's filters, ``(n_filters, n_weights)``; where a filter has several (MFM's), side by side."""
        weights = {}
        for tap in self.graph.taps:
            weight = self.module.get_submodule(tap.name).get_parameter("weight").detach().double().cpu()
            rows = weight.flatten(1).numpy()
            weights[tap.name] = np.concatenate(np.split(rows, len(rows) // tap.n_filters), axis=1)
        return weights


def load_network(name: str, params: Any, plugins: PluginManager) -> BaseNetwork:
    """Build a base network and load its weights.

    Raises:
        PluginError: If the architecture is unknown or cannot be imported.
        WeightsError: If the weights are missing or do not fit.
        SurgeryError: If the network cannot be traced.
    """
    architecture: Architecture = plugins.find("architecture", name)  # type: ignore[assignment]
    module = architecture.build(params)
    weights = architecture.weights(params)
    load_state(module, weights.state, weights.source)
    module.eval()
    preprocessing = architecture.preprocessing(params)
    return BaseNetwork(
        architecture=architecture,
        params=params,
        module=module,
        graph=ChannelGraph.trace(module, preprocessing.input_shape),
        preprocessing=preprocessing,
        licence=weights.licence,
        source=weights.source,
    )


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict, saying which key or shape does not fit.

    Raises:
        WeightsError: If a key is missing, extra or of another shape.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    problems = []
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected]
    if missing:
        problems.append(f"{len(missing)} keys are missing: {first_names(missing)}")
    if extra:
        problems.append(
            f"{len(extra)} keys are unknown: {first_names(extra)}{did_you_mean(extra[0], missing or expected)}"
        )
    other = [
        f"{key} has shape {found[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    if other:
        problems.append(f"{len(other)} keys are of another shape: {first_names(other)}")
    if problems:
        raise WeightsError(f"{source}: does not fit the network: {'; '.join(problems)}")
    module.load_state_dict(state)


def fingerprint(state: Mapping[str, Tensor], identity: Any) -> str:
    """Return a digest of a state dict and of JSON values beside it."""
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16)
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
