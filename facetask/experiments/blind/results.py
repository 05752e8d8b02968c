"""The shape of ``blind.json``: the kept task, and what probes read of the excluded ones, at every amount removed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from facetask.json_record import Record, read_record
from facetask.running.results import LabelSummary, Metrics

Way = Literal["chosen", "random", "projected"]


class BlindTask(Record):
    """A task, kept or excluded."""

    name: str
    labels: LabelSummary
    main_metric: str
    higher_is_better: bool
    group_by: str | None = Field(description="The column whose equal values stay on one side of its split.")
    chance: Metrics = Field(description="Of the trivial prediction, on test images.")


class Probed(Record):
    """What fresh probes read of an excluded task, on test images, over the trials."""

    linear: Metrics
    nonlinear: Metrics


class Step(Record):
    """One amount of filters removed in one way."""

    way: Way = Field(
        description="chosen: those that carry the excluded tasks; random: any; projected: the chosen ones, and the "
        "excluded labels erased from the responses of the others."
    )
    removed: int
    filters: list[list[int]] = Field(description="The filters removed from the cut, sorted; one list a trial.")
    directions: list[int] = Field(description="Directions erased from the responses of the others, one number a trial.")
    kept: Metrics = Field(description="Of the kept task with its head refitted, on test images, over the trials.")
    excluded: dict[str, Probed]


class BlindResults(Record):
    """A whole experiment."""

    format_version: Literal[1] = 1
    facetask_version: str
    base_network: str
    selector: str
    trials: int
    seed: int
    task: BlindTask
    excluded: list[BlindTask]
    cuts: list[str] = Field(description="The tap that ends the network, one a trial.")
    n_filters: list[int] = Field(description="How many filters it has, one number a trial.")
    steps: list[Step]
    wall_s: float = Field(description="Seconds in all, forward passes included.")


def read_blind(path: Path) -> BlindResults:
    """Read the results back.

    Raises:
        RunDirError: If the file is missing or not of this format.
    """
    return read_record(BlindResults, path, "a blind network's results")
