"""The shape of ``sweep.json``: every network of a sweep, with what it costs and how good it is.

What is decided (the fronts, a target) is decided on validation images, by the mean over the trials; test metrics are
there to be shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from facetask.json_record import Record, read_record
from facetask.running.results import LabelSummary, Metric, Metrics, NetworkCost

FORMAT_VERSION = 1


class SweepNetwork(Record):
    """One task's network of one combination: the saved one, of the reported trial."""

    combination: str = Field(description="The combination's name, which is its run's folder in runs/.")
    settings: dict[str, str] = Field(description="What the sweep set, by the names of its lists.")
    step: Literal["pruned", "finetuned"] = Field(description="The last step, after which it was saved.")
    model: str = Field(description="The saved model's folder, inside the sweep's.")
    cut: str
    kept: int = Field(description="Filters kept at all taps up to the cut.")
    cost: NetworkCost
    validation: Metrics = Field(
        description="Of the last step, on validation images, over the trials; by their mean it is chosen."
    )
    test: Metrics = Field(description="Of the last step, on test images, over the trials.")
    test_pruned: Metrics = Field(description="The same before finetuning.")
    macs_over_trials: Metric = Field(description="Each trial cuts and prunes a network of its own.")
    front: list[Literal["macs", "size"]] = Field(
        description="Against which costs it is on the Pareto front: no other is as cheap and as good on validation."
    )
    wall_s: float


class SweepTask(Record):
    """One satellite task's networks, by ascending MACs."""

    name: str
    labels: LabelSummary
    main_metric: str
    higher_is_better: bool
    base: NetworkCost
    unpruned: Metrics = Field(description="Of the regression on all filters of the best tap, on test images.")
    networks: list[SweepNetwork]


class SweepResults(Record):
    """A whole sweep."""

    format_version: Literal[1] = 1
    facetask_version: str
    base_network: str
    trials: int
    seed: int
    swept: dict[str, list[str]] = Field(description="The values of each list that the sweep varies.")
    tasks: list[SweepTask]
    failed: dict[str, str] = Field(description="Combinations that failed, and why.")


def read_sweep(path: Path) -> SweepResults:
    """Read a sweep's results back.

    Raises:
        RunDirError: If the file is missing or not of this format.
    """
    return read_record(SweepResults, path, "a sweep's results")
