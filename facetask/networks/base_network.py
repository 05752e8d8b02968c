"""A base network, ready to use: built, its weights loaded, traced by the surgery engine.

It may have been pruned before: then it is what its rounds left of the architecture's network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from facetask.errors import PluginError, SurgeryError, WeightsError, did_you_mean, first_names
from facetask.networks.cost import count_macs
from facetask.surgery import ChannelGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from facetask.data.preprocessing import Preprocessing
    from facetask.plugin_manager import PluginManager
    from facetask.records import Architecture


LEAST_SEEN = 0.5


@dataclass(frozen=True)
class Round:
    """One round of pruning.

    Attributes:
        cuts: The taps at which the network ends: what none of them needs was removed.
        keep: Keep set of each tap that is left, in the numbering of the network before the round.
    """

    cuts: tuple[str, ...]
    keep: Mapping[str, NDArray[np.intp]]


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
        follows: For each tap that keeps the same indices as another, that other tap.
        rounds: The rounds of pruning that made it out of the architecture's network.
    """

    architecture: Architecture
    params: Any
    module: nn.Module
    graph: ChannelGraph
    preprocessing: Preprocessing
    licence: str
    source: str
    follows: Mapping[str, str] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()

    def fingerprint(self) -> str:
        """Return a digest of everything that the responses depend on besides the images."""
        identity = [self.architecture.name, self.architecture.revision, self.preprocessing.to_json()]
        return fingerprint(self.module.state_dict(), [*identity, [tap.name for tap in self.graph.taps]])

    def filter_weights(self) -> dict[str, NDArray[np.float64]]:
        """Return each tap's filters, ``(n_filters, n_weights)``; where a filter has several (MFM's), side by side.

        Raises:
            SurgeryError: If a tap's filters are not those of one convolution.
        """
        weights = {}
        for tap in self.graph.taps:
            rows = _filters_of(self.module.get_submodule(tap.convolution))
            if len(rows) % tap.n_filters:
                raise SurgeryError(
                    f"tap {tap.name!r}: {tap.n_filters} filters cannot be told apart by the weights of "
                    f"{tap.convolution!r}, which has {len(rows)}; use a selector that needs no weights, such as lasso"
                )
            weights[tap.name] = np.concatenate(np.split(rows, len(rows) // tap.n_filters), axis=1)
        return weights


def _filters_of(convolution: nn.Module) -> NDArray[np.float64]:
    """Return a convolution's filters, ``(n_filters, n_weights)``: what each output channel weighs its inputs by."""
    from torch import nn

    weight = convolution.get_parameter("weight").detach().double().cpu()
    if isinstance(convolution, nn.ConvTranspose2d):  # inputs first, each with the outputs of its own part of the groups
        weight = weight.reshape(convolution.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    return np.asarray(weight.flatten(1).numpy())


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
    preprocessing = architecture.preprocessing(params)
    graph = trace_architecture(architecture, params, module, preprocessing)
    _refuse_if_hardly_seen(name, graph)
    return BaseNetwork(
        architecture=architecture,
        params=params,
        module=module,
        graph=graph,
        preprocessing=preprocessing,
        licence=weights.licence,
        source=weights.source,
        follows=following(architecture, params, graph),
    )


def trace_architecture(
    architecture: Architecture, params: Any, module: nn.Module, preprocessing: Preprocessing
) -> ChannelGraph:
    """Return the channel graph of an architecture's module, its taps as the architecture wants them.

    Raises:
        SurgeryError: If the module cannot be traced, or has no tap.
    """
    graph = ChannelGraph.trace(module.eval(), preprocessing.input_shape, architecture.taps(params))
    if not graph.taps:
        raise SurgeryError(f"{architecture.name}: no tap found; a base network needs convolutions over the image")
    return graph


def _refuse_if_hardly_seen(name: str, graph: ChannelGraph) -> None:
    """Refuse a network most of whose work lies above its last tap: there are no convolutions to read or prune there."""
    last = graph.taps[-1].name
    whole = count_macs(graph.module(), graph.input_shape)
    seen = count_macs(graph.cut(last).module(), graph.input_shape)
    if whole and seen is not None and seen < LEAST_SEEN * whole:
        raise SurgeryError(
            f"{name}: only {100 * seen / whole:.1f} % of its multiply–accumulates lie below its last tap, {last!r}; "
            "facetask reads and prunes convolutions: transformers and mixers cannot be base networks"
        )


def following(
    architecture: Architecture, params: Any, graph: ChannelGraph, rounds: Sequence[Round] = ()
) -> dict[str, str]:
    """Return which taps keep the same indices as another, as the architecture says, by their names.

    Where an earlier round let a tap keep other indices than the one that it follows, it follows no more.

    Raises:
        PluginError: If the architecture names taps that do not exist or are not equally wide.
    """
    widths = {tap.name: tap.n_filters for tap in graph.taps}
    known: dict[str, str] = {}
    for tap, leader in architecture.follows(params).items():
        if any(not np.array_equal(done.keep.get(tap, ()), done.keep.get(leader, ())) for done in rounds):
            continue
        if rounds and not {tap, leader} <= widths.keys():
            continue  # cut away
        for name in (tap, leader):
            if name not in widths:
                raise PluginError(
                    f"architecture {architecture.name!r}: follows: no tap {name!r}{did_you_mean(name, widths)}"
                )
        if widths[tap] != widths[leader]:
            raise PluginError(
                f"architecture {architecture.name!r}: follows: {tap!r} has {widths[tap]} filters, {leader!r} "
                f"{widths[leader]}; they cannot keep the same indices"
            )
        known[tap] = leader
    return known


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict, saying which key or shape does not fit.

    Batch normalisation's counts of batches may be missing, as in files of old; nothing here depends on them.

    Raises:
        WeightsError: If a key is missing, extra or of another shape.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    problems = []
    missing = [key for key in expected if key not in found and not key.endswith("num_batches_tracked")]
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
    module.load_state_dict({**{key: value for key, value in module.state_dict().items() if key not in state}, **state})


def fingerprint(state: Mapping[str, Tensor], identity: Any) -> str:
    """Return a digest of a state dict and of JSON values beside it."""
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16)
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
