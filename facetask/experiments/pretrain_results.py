"""The shape of ``pretrain.json``: what a pretraining measured, epoch by epoch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from facetask.json_record import Record
from facetask.running.results import Metrics, PlainMetrics

FORMAT_VERSION = 1


class PretrainEpoch(Record):
    """One epoch; epoch 0 is the starting point."""

    epoch: int
    train_loss: float | None
    validation_rmse: float | None = Field(description="The lowest decides which epoch is kept.")
    validation: PlainMetrics
    test: PlainMetrics = Field(description="Reported, and used for nothing.")
    wall_s: float = Field(description="Seconds of training up to the end of this epoch.")


class PretrainTrial(Record):
    """One trial: another partition and another seed."""

    trial: int
    seed: int
    n_train: int
    n_validation: int
    n_test: int
    epochs: list[PretrainEpoch]
    best_epoch: int
    metrics: PlainMetrics = Field(description="On test, of the best epoch.")
    decision: dict[str, float]
    wall_s: float = Field(description="Seconds, without those lost by interruptions.")


class PretrainResults(Record):
    """The contents of ``pretrain.json``."""

    format_version: int
    facetask_version: str
    task: str
    kind: str
    unit: str
    base_network: str
    start: Literal["pruned", "scratch"]
    cut: str
    n_filters: int = Field(description="At the cut.")
    metrics: Metrics = Field(description="On test, over the trials.")
    trials: list[PretrainTrial]
    model: str = Field(description="The first trial's model: its folder inside the run's.")
