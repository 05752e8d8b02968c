"""Saved models: ``model.safetensors`` and ``model.json``, nothing pickled.

``model.json`` names the architecture plugin, its params, every round of pruning, its cuts and keep sets each, and the
heads; the network is rebuilt from them and filled from ``model.safetensors``. The base network's weights are not needed
again.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from facetask.data.alignment import N_IBUG, five_points, is_known
from facetask.data.landmarks import landmark_finder
from facetask.data.preprocessing import Preprocessing
from facetask.errors import CheckpointError, FacetaskError, RunDirError, WeightsError
from facetask.models.model_description import (
    DESCRIPTION,
    FORMAT_VERSION,
    WEIGHTS,
    ModelDescription,
    SavedArchitecture,
    SavedHead,
    SavedRound,
    read_description,
)
from facetask.networks.base_network import BaseNetwork, Round, following, load_state, trace_architecture
from facetask.stages.prune import build_pruned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetask.networks.task_network import TaskNetwork
    from facetask.plugin_manager import PluginManager
    from facetask.records import Architecture
    from facetask.surgery import ChannelGraph

EXPORTS = ("model.onnx", "model.pt2")


class FaceModel(nn.Module):
    """A saved network with all that it takes to use it.

    Attributes:
        network: Backbone and heads.
        preprocessing: What the network expects of an image.
        tasks: What its heads predict, one or more.
        description: Everything that was saved with it, licences included.
    """

    def __init__(self, network: TaskNetwork, description: ModelDescription) -> None:
        super().__init__()
        self.network = network
        self.description = description
        self.preprocessing = Preprocessing.from_json(description.preprocessing)
        self.tasks = tuple(head.spec for head in description.heads)

    @property
    def weights_licence(self) -> str:
        """The licence of the base network's weights, which this network was carved out of."""
        return self.description.weights_licence

    def forward(self, x: Tensor) -> Tensor:
        """Return the heads' outputs side by side, ``(batch, n_outputs)``, for normalised images."""
        outputs: Tensor = self.network(x)
        return outputs

    def predict(
        self,
        paths: Sequence[str | os.PathLike[str]],
        batch_size: int = 32,
        landmarks: NDArray[np.float64] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the task's value for each image file, preprocessed as in training.

        Each is a dict with ``value`` and, by the task's kind, ``unit``, ``score`` or ``regressed``. Of several labels,
        ``value`` (0 or 1) and ``score`` are dicts by label. A model of several tasks gives such a dict for each, under
        ``tasks`` by the task's name. Where the model wants aligned faces, ``face_found`` says whether this one was.

        Args:
            paths: The images.
            batch_size: Images per forward pass.
            landmarks: The faces' 68, 5 or 2 landmarks in pixels, ``(n, k, 2)``, NaN where unknown, for a model of
                aligned faces; by default they are found by dlib.

        Raises:
            DataError: If an image cannot be read.
            WeightsError: If landmarks are to be found, and dlib or its predictor is not installed.
        """
        device = next(self.network.parameters()).device
        for start in range(0, len(paths), batch_size):
            batch = [Path(path) for path in paths[start : start + batch_size]]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, on damaged EXIF data beside sound pixels
                points = self._points(batch, None if landmarks is None else landmarks[start : start + batch_size])
                pixels = np.stack([self.preprocessing.load(*pair) for pair in zip(batch, points, strict=True)])
            with torch.inference_mode():
                inputs = self.preprocessing.normalise(torch.from_numpy(pixels).to(device))
                outputs = self.network.read(self.network.backbone(inputs))
            described = [self._described(*each) for each in zip(self.description.heads, outputs, strict=True)]
            for own, values in zip(points, zip(*described, strict=True), strict=True):
                names = [task.name for task in self.tasks]
                found = values[0] if len(values) == 1 else {"tasks": dict(zip(names, values, strict=True))}
                yield found if own is None else {**found, "face_found": bool(is_known(own))}

    def _described(self, head: SavedHead, outputs: Tensor) -> list[dict[str, Any]]:
        """Return one task's predictions for a reader, one an image."""
        kind = head.spec.behaviour()
        return [kind.describe(each, head.decision) for each in kind.activate(outputs.double().cpu().numpy())]

    def _points(
        self, paths: Sequence[Path], landmarks: NDArray[np.float64] | None
    ) -> Sequence[NDArray[np.float64] | None]:
        """Return the points that images are aligned by, ``(5, 2)`` each; None for a model of other faces."""
        if self.preprocessing.face is None:
            return [None] * len(paths)
        if landmarks is None:
            landmarks = landmark_finder()(paths).reshape(len(paths), N_IBUG, 2)
        return list(five_points(landmarks))


def save_model(folder: Path, network: TaskNetwork, base: BaseNetwork, last: Round, heads: Sequence[SavedHead]) -> None:
    """Write a network and its description into a folder, each file whole or not at all; the description comes last.

    Args:
        folder: Where to write.
        network: The pruned network, perhaps finetuned.
        base: What it was pruned from.
        last: The round of pruning that made it.
        heads: What its heads are for.

    Raises:
        RunDirError: If they cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from facetask import __version__

    description = ModelDescription(
        format_version=FORMAT_VERSION,
        facetask_version=__version__,
        architecture=SavedArchitecture(
            name=base.architecture.name,
            revision=base.architecture.revision,
            params=base.architecture.portable(base.params).model_dump(mode="json"),
        ),
        rounds=[SavedRound.of(done) for done in (*base.rounds, last)],
        heads=list(heads),
        preprocessing=base.preprocessing.to_json(),
        weights_licence=base.licence,
        weights_source=base.source,
    )
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for other in (DESCRIPTION, *EXPORTS):  # none may stand beside other weights
            (folder / other).unlink(missing_ok=True)
        partial = folder / f"{WEIGHTS}.tmp"
        save_file(state, partial, metadata={"format": "pt", "licence": base.licence})
        partial.replace(folder / WEIGHTS)
        partial = folder / f"{DESCRIPTION}.tmp"
        partial.write_text(json.dumps(description.model_dump(), indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / DESCRIPTION)
    except (OSError, SafetensorError) as error:
        raise RunDirError(f"{folder}: the model cannot be written ({error})") from None


def load_model(folder: str | os.PathLike[str], plugins: PluginManager | None = None) -> FaceModel:
    """Return a saved model in evaluation mode.

    Args:
        folder: Where ``model.safetensors`` and ``model.json`` lie.
        plugins: Where the architecture is found; by default the bundled and installed plugins.

    Raises:
        CheckpointError: If a file is missing, damaged, of another format version or does not fit.
        PluginError: If the architecture's plugin is not there.
    """
    description, architecture, state = _read(Path(folder), plugins)
    try:
        graph = _before_last_round(description, architecture)
        heads = [(head.cut, head.n_outputs) for head in description.heads]
        network = build_pruned(graph, heads, description.rounds[-1].decoded().keep)
    except (FacetaskError, ValueError, TypeError, LookupError) as error:
        raise _misfit(Path(folder), description, error) from error
    _fill(network, state, Path(folder))
    return FaceModel(network, description).eval()


def load_base(folder: str | os.PathLike[str], plugins: PluginManager | None = None) -> BaseNetwork:
    """Return a saved model's network, without its heads, to be pruned further.

    Raises:
        CheckpointError: As :func:`load_model`.
        PluginError: If the architecture's plugin is not there.
    """
    folder = Path(folder)
    description, architecture, state = _read(folder, plugins)
    try:
        rounds = tuple(done.decoded() for done in description.rounds)
        graph = _before_last_round(description, architecture).cut(*rounds[-1].cuts).pruned(rounds[-1].keep)
        params = _params(description, architecture)
        follows = following(architecture, params, graph, rounds)
    except (FacetaskError, ValueError, TypeError, LookupError) as error:
        raise _misfit(folder, description, error) from error
    module = graph.module()
    backbone = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    _fill(module, backbone, folder)
    return BaseNetwork(
        architecture=architecture,
        params=params,
        module=module,
        graph=graph,
        preprocessing=Preprocessing.from_json(description.preprocessing),
        licence=description.weights_licence,
        source=description.weights_source,
        follows=follows,
        rounds=rounds,
    )


def _read(folder: Path, plugins: PluginManager | None) -> tuple[ModelDescription, Architecture, dict[str, Tensor]]:
    """Return a saved model's description, the record of its architecture and its tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from facetask.plugin_manager import default_manager

    description = read_description(folder / DESCRIPTION)
    saved = description.architecture
    architecture: Architecture = (plugins or default_manager()).find("architecture", saved.name)  # type: ignore[assignment]
    if architecture.revision != saved.revision:
        raise CheckpointError(
            f"{folder / DESCRIPTION}: made with revision {saved.revision!r} of {saved.name!r}; this is revision "
            f"{architecture.revision!r}, which gives other numbers; run it again"
        )
    try:
        return description, architecture, load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: not a safetensors file ({error})") from None


def _before_last_round(description: ModelDescription, architecture: Architecture) -> ChannelGraph:
    """Return the graph that the last round of pruning started from, without its weights."""
    params = _params(description, architecture)
    preprocessing = Preprocessing.from_json(description.preprocessing)
    graph = trace_architecture(architecture, params, architecture.build(params), preprocessing)
    for done in description.rounds[:-1]:
        graph = graph.cut(*done.cuts).pruned(done.decoded().keep)
    return graph


def _params(description: ModelDescription, architecture: Architecture) -> BaseModel:
    """Return the architecture's params."""
    return architecture.params.model_validate_json(json.dumps(description.architecture.params))


def _misfit(folder: Path, description: ModelDescription, error: Exception) -> CheckpointError:
    """Return the error for a description that the architecture cannot be pruned by."""
    return CheckpointError(f"{folder / DESCRIPTION}: does not fit {description.architecture.name!r} ({error})")


def _fill(module: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    """Load saved tensors into a network."""
    try:
        load_state(module, state, str(folder / WEIGHTS))
    except WeightsError as error:
        raise CheckpointError(str(error)) from None
