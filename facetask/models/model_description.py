"""What a saved model says of itself: ``model.json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from facetask.errors import CheckpointError
from facetask.records import Flip, Kind
from facetask.tasks.kinds import TaskSpec
from facetask.tasks.task_kind import Decision

if TYPE_CHECKING:
    from facetask.networks.base_network import Round

FORMAT_VERSION = 3
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SavedArchitecture(_Base):
    """The architecture's plugin and its params."""

    name: str
    revision: str
    params: dict[str, Any]


class SavedTask(_Base):
    """What a head predicts, as :class:`facetask.tasks.kinds.TaskSpec`."""

    name: str
    kind: Kind
    unit: str
    classes: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    flip: Flip | tuple[Flip, ...]


class SavedRound(_Base):
    """One round of pruning, as :class:`facetask.networks.base_network.Round`."""

    cuts: Annotated[list[str], Field(min_length=1)]
    keep: dict[str, list[int]]

    @classmethod
    def of(cls, done: Round) -> SavedRound:
        """Return a round with its keep sets as lists."""
        return cls(cuts=list(done.cuts), keep={tap: kept.tolist() for tap, kept in done.keep.items()})

    def decoded(self) -> Round:
        """Return the round with its keep sets as arrays."""
        from facetask.networks.base_network import Round  # which imports torch; what a model says can be read without

        keep = {tap: np.array(kept, dtype=np.intp) for tap, kept in self.keep.items()}
        return Round(tuple(self.cuts), keep)


class SavedHead(_Base):
    """One task's head.

    Attributes:
        task: What it predicts.
        cut: The tap that it reads.
        n_outputs: Its outputs.
        decision: What was learned on validation for them.
        labels_licence: The labels' licence.
        metrics: Test metrics.
    """

    task: SavedTask
    cut: str
    n_outputs: PositiveInt
    decision: Decision
    labels_licence: str
    metrics: dict[str, float | None]

    @classmethod
    def of(
        cls,
        task: TaskSpec,
        cut: str,
        n_outputs: int,
        decision: Decision,
        labels_licence: str,
        metrics: dict[str, float | None],
    ) -> SavedHead:
        """Return a task's head as it is saved."""
        return cls(
            task=SavedTask(**asdict(task)),
            cut=cut,
            n_outputs=n_outputs,
            decision=decision,
            labels_licence=labels_licence,
            metrics=metrics,
        )

    @property
    def spec(self) -> TaskSpec:
        """What it predicts."""
        return TaskSpec(**self.task.model_dump())


class ModelDescription(_Base):
    """The contents of ``model.json``."""

    format_version: int
    facetask_version: str
    architecture: SavedArchitecture
    rounds: Annotated[list[SavedRound], Field(min_length=1)]
    heads: Annotated[list[SavedHead], Field(min_length=1)]
    preprocessing: dict[str, Any]
    weights_licence: str
    weights_source: str


def read_description(path: Path) -> ModelDescription:
    """Read ``model.json``; its version is checked before anything else in it.

    Raises:
        CheckpointError: If it is missing, damaged or of another version.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: no saved model (no {path.name}); a run saves one in model/ and TASK")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a model description ({type(error).__name__}: {error})") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version!r}, this facetask reads {FORMAT_VERSION}; run it again to save it anew"
        )
    try:
        return ModelDescription.model_validate(fields)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {error}") from None
