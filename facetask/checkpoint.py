"""Saved models: ``model.safetensors`` and ``model.json``, nothing pickled.

``model.json`` names the architecture plugin, its params, the cut and the keep sets; the network is rebuilt from them
and filled from ``model.safetensors``. The base network's weights are not needed again.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor, nn

from facetask.errors import CheckpointError, FacetaskError, RunDirError, WeightsError
from facetask.kinds import Decision, TaskSpec
from facetask.preprocessing import Preprocessing
from facetask.records import Flip, Kind
from facetask.stages.prune import build_pruned
from facetask.surgery import ChannelGraph

if TYPE_CHECKING:
    from facetask.network import BaseNetwork
    from facetask.plugin_manager import PluginManager
    from facetask.records import Architecture
    from facetask.stages.prune import KeepSets
    from facetask.task_network import TaskNetwork

FORMAT_VERSION = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Architecture(_Base):
    name: str
    revision: str
    params: dict[str, Any]


class _Task(_Base):
    name: str
    kind: Kind
    unit: str
    classes: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    flip: Flip


class ModelDescription(_Base):
    """The contents of ``model.json``."""

    format_version: int
    facetask_version: str
    architecture: _Architecture
    cut: str
    keep: dict[str, list[int]]
    n_outputs: PositiveInt
    preprocessing: dict[str, Any]
    task: _Task
    decision: Decision
    weights_licence: str
    weights_source: str
    labels_licence: str
    metrics: dict[str, float | None]


class FaceModel(nn.Module):
    """A saved network with all that it takes to use it.

    Attributes:
        network: Backbone and head.
        preprocessing: What the network expects of an image.
        task: What it predicts.
        description: Everything that was saved with it, licences included.
    """

    def __init__(self, network: TaskNetwork, description: ModelDescription) -> None:
        super().__init__()
        self.network = network
        self.description = description
        self.preprocessing = Preprocessing.from_json(description.preprocessing)
        self.task = TaskSpec(**description.task.model_dump())

    @property
    def weights_licence(self) -> str:
        """The licence of the base network's weights, which this network was carved out of."""
        return self.description.weights_licence

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's outputs ``(batch, n_outputs)`` for normalised images, in the label's unit."""
        outputs: Tensor = self.network(x)
        return outputs

    def predict(self, paths: Sequence[str | os.PathLike[str]], batch_size: int = 32) -> Iterator[dict[str, Any]]:
        """Yield the task's value for each image file, preprocessed as in training.

        Each is a dict with ``value`` and, by the task's kind, ``unit``, ``score`` or ``regressed``.

        Raises:
            DataError: If an image cannot be read.
        """
        kind = self.task.behaviour()
        for start in range(0, len(paths), batch_size):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, on damaged EXIF data beside sound pixels
                pixels = np.stack([self.preprocessing.load(Path(path)) for path in paths[start : start + batch_size]])
            with torch.inference_mode():
                inputs = self.preprocessing.normalise(torch.from_numpy(pixels).to(self.network.head.weight.device))
                outputs = self(inputs).double().cpu().numpy()
            for prediction in kind.activate(outputs):
                yield kind.describe(prediction, self.description.decision)


def save_model(
    folder: Path,
    network: TaskNetwork,
    base: BaseNetwork,
    *,
    cut: str,
    keep: KeepSets,
    task: TaskSpec,
    decision: Decision,
    labels_licence: str,
    metrics: dict[str, float | None],
) -> None:
    """Write a network and its description into a folder, each file whole or not at all; the description comes last.

    Raises:
        RunDirError: If they cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from facetask import __version__

    description = ModelDescription(
        format_version=FORMAT_VERSION,
        facetask_version=__version__,
        architecture=_Architecture(
            name=base.architecture.name,
            revision=base.architecture.revision,
            params=base.params.model_dump(mode="json"),
        ),
        cut=cut,
        keep={tap: kept.tolist() for tap, kept in keep.items()},
        n_outputs=network.head.out_features,
        preprocessing=base.preprocessing.to_json(),
        task=_Task(**asdict(task)),
        decision=decision,
        weights_licence=base.licence,
        weights_source=base.source,
        labels_licence=labels_licence,
        metrics=metrics,
    )
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION).unlink(missing_ok=True)  # it must never describe other weights
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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from facetask.network import load_state
    from facetask.plugin_manager import default_manager

    folder = Path(folder)
    description = _read_description(folder / DESCRIPTION)
    saved = description.architecture
    architecture: Architecture = (plugins or default_manager()).find("architecture", saved.name)  # type: ignore[assignment]
    if architecture.revision != saved.revision:
        raise CheckpointError(
            f"{folder / DESCRIPTION}: made with revision {saved.revision!r} of {saved.name!r}; this is revision "
            f"{architecture.revision!r}, which gives other numbers; run it again"
        )
    path = folder / WEIGHTS
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from None
    try:
        model = FaceModel(_rebuilt(description, architecture), description)
    except (FacetaskError, ValueError, TypeError, LookupError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: does not fit {saved.name!r} ({error})") from error
    try:
        load_state(model.network, state, str(path))
    except WeightsError as error:
        raise CheckpointError(str(error)) from None
    return model.eval()


def _rebuilt(description: ModelDescription, architecture: Architecture) -> TaskNetwork:
    """Return the network that a description tells of, without its weights."""
    params = architecture.params.model_validate_json(json.dumps(description.architecture.params))
    shape = Preprocessing.from_json(description.preprocessing).input_shape
    graph = ChannelGraph.trace(architecture.build(params).eval(), shape)
    keep = {tap: np.array(kept, dtype=np.intp) for tap, kept in description.keep.items()}
    return build_pruned(graph, description.cut, keep, description.n_outputs)


def _read_description(path: Path) -> ModelDescription:
    """Read model.json; its version is checked before anything else in it."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: no saved model (no {path.name}); a run saves one in model/ and TASK")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a model description ({type(error).__name__}: {error})") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format version {version!r}, this facetask reads {FORMAT_VERSION}")
    try:
        return ModelDescription.model_validate(fields)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {error}") from None
