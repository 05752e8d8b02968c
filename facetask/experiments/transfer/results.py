"""The shape of ``transfer.json``: what each method reached for each task, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from facetask.json_record import Record, read_record
from facetask.running.results import LabelSummary, Metric, Metrics

Method = Literal["regression", "recipe", "cached", "finetuning"]
Pass = Literal["responses", "features"]
Part = Literal["decode", "forward", "fit", "train"]

METHODS: tuple[Method, ...] = get_args(Method)
PARTS: tuple[Part, ...] = get_args(Part)
PASS_OF: dict[Method, Pass] = {"regression": "responses", "cached": "features", "finetuning": "responses"}
"""The pass over all images that a method makes once, and that tasks can share."""


class Seconds(Record):
    """What some work took; the four parts are wall time and do not overlap."""

    decode: float = Field(default=0.0, description="The network waited for images.")
    forward: float = Field(default=0.0, description="Images passed through it.")
    fit: float = Field(default=0.0, description="Linear models were fitted.")
    train: float = Field(default=0.0, description="Layers were trained.")
    cpu: float = Field(default=0.0, description="Processor time of all threads and workers.")

    @property
    def wall(self) -> float:
        """Wall time."""
        return self.decode + self.forward + self.fit + self.train

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(**{name: getattr(self, name) + getattr(other, name) for name in Seconds.model_fields})

    def times(self, factor: float) -> Seconds:
        """Return a multiple of it."""
        return Seconds(**{name: factor * getattr(self, name) for name in Seconds.model_fields})


class Measured(Record):
    """One method, task and trial."""

    method: Method
    trial: int
    seed: int
    n_train: int
    n_validation: int
    n_test: int
    tap: str = Field(description="The tap that is read, or at which the network ends.")
    validation_rmse: float | None
    metrics: dict[str, float | None] = Field(description="On test images.")
    seconds: Seconds = Field(description="Without the pass over all images that is made once.")
    epochs: int | None = Field(default=None, description="Until the stop rule; null: nothing is trained.")
    best_epoch: int | None = None
    epochs_with_forward: int | None = Field(
        default=None, description="Epochs of the recipe in which images did pass through the network."
    )
    validation_by_epoch: list[float] = Field(default_factory=list)

    @property
    def extrapolated(self) -> bool:
        """Whether its time is that of fewer epochs, multiplied."""
        return self.epochs_with_forward is not None and self.epochs_with_forward < (self.epochs or 0)


class MethodTrial(Record):
    """A trial with all that it costs."""

    measured: Measured
    alone: Seconds = Field(description="For this task alone, its own pass over the images included.")
    shared: Seconds = Field(description="The same with its share of one pass for all tasks.")


class MethodResult(Record):
    """One method and task over the trials."""

    method: Method
    tap: str = Field(description="Of the first trial.")
    metrics: Metrics = Field(description="On test images.")
    validation_rmse: Metric
    difference: Metric = Field(description="Its main metric less that of the regression in the same trial.")
    epochs: Metric | None
    extrapolated: bool
    wall_s: Metric = Field(description="For this task alone.")
    shared_wall_s: Metric = Field(description="Where all tasks share one pass.")
    ratio: float | None = Field(description="Of its wall time to the regression's, for this task alone.")
    cpu_ratio: float | None = Field(description="The same of processor time.")
    shared_ratio: float | None = Field(description="Of wall times where all tasks share one pass.")
    trials: list[MethodTrial]


class TransferTask(Record):
    """One satellite task."""

    name: str
    labels: LabelSummary
    main_metric: str
    higher_is_better: bool
    methods: list[MethodResult] = Field(description="The regression first.")

    def method(self, name: Method) -> MethodResult | None:
        """Return one method's results, None where it was left out."""
        return next((found for found in self.methods if found.method == name), None)


class AllTasks(Record):
    """What a method costs per task where all tasks share one pass; its ratio is to the regression's."""

    method: Method
    per_task_wall_s: float
    ratio: float | None
    cpu_ratio: float | None
    extrapolated: bool


class TransferResults(Record):
    """A whole comparison."""

    format_version: Literal[1] = 1
    facetask_version: str
    base_network: str
    weights_licence: str
    n_images: int = Field(description="With a label of at least one task.")
    trials: int
    seed: int
    recipe: dict[str, Any]
    finetuning: dict[str, Any] | None = Field(description="Null: left out.")
    extrapolate: bool
    environment: dict[str, Any]
    threads: int = Field(description="Of torch.")
    tasks: list[TransferTask]
    all_tasks: list[AllTasks]


def read_transfer(path: Path) -> TransferResults:
    """Read a comparison back.

    Raises:
        RunDirError: If the file is missing or not of this format.
    """
    return read_record(TransferResults, path, "a comparison of regression and transfer learning")
