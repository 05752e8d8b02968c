"""The shape of ``ablate.json``: every variant of pruning with its quality and its cost, trial by trial."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from facetask.json_record import Record, read_record
from facetask.running.results import LabelSummary, Metrics, NetworkCost, PlainMetrics


class VariantTrial(Record):
    """One variant in one trial."""

    trial: int
    seed: int
    cut: str
    budget: int = Field(description="MACs that a pruned network is meant to have.")
    cost: NetworkCost
    validation: PlainMetrics
    test: PlainMetrics
    epochs: int = Field(description="Of training in all, that of earlier rounds included; 0: none.")
    best_epoch: int | None = Field(description="The epoch that was kept, of the last round; null: no training.")
    wall_s: float = Field(description="Seconds of carving, measuring and training, without what variants share.")
    notes: list[str] = Field(default_factory=list)


class Speed(Record):
    """How long the first trial's network takes beside the whole base network, measured in turns."""

    batch: int
    base_ms: float = Field(description="Median, for one image.")
    network_ms: float
    speedup: float


class VariantResult(Record):
    """One row of the table."""

    name: str = Field(description="As in the configuration.")
    source: str = Field(description="Where its network comes from.")
    step: str = Field(description="What is done with it.")
    label: str
    validation: Metrics = Field(description="Over the trials.")
    test: Metrics = Field(description="Over the trials.")
    macs: float = Field(description="Mean over the trials, as are the following.")
    macs_share: float = Field(description="Of the base network's.")
    params: float
    conv_params: float
    size_bytes: float
    size_share: float
    macs_off: float | None = Field(description="Largest distance from the budget, as a share of it; null: unpruned.")
    wall_s: float = Field(description="Mean over the trials.")
    speed: list[Speed]
    trials: list[VariantTrial]


class TableTask(Record):
    """One task's table."""

    name: str
    labels: LabelSummary
    main_metric: str
    higher_is_better: bool
    base: NetworkCost = Field(description="Of the whole base network.")
    variants: list[VariantResult]
    left_out: dict[str, str] = Field(description="Variants that could not be had, and why.")


class PruningTableResults(Record):
    """All tables of one experiment."""

    format_version: Literal[1] = 1
    facetask_version: str
    base_network: str
    trials: int
    seed: int
    macs: float | None = Field(
        description="The budget as a share of the base network's MACs; null: what the label leaves."
    )
    size: float | None = Field(
        default=None, description="Limit of size where need chooses, as a share of the base network's; null: none."
    )
    epochs: int = Field(description="Of every finetuning; 0: nothing is trained.")
    rounds: int
    torch_pruning: str | None = Field(description="The rival's version; null: it is not installed.")
    tasks: list[TableTask]


def read_pruning_table(path: Path) -> PruningTableResults:
    """Read the results back.

    Raises:
        RunDirError: If the file is missing or not of this format.
    """
    return read_record(PruningTableResults, path, "a pruning table")
