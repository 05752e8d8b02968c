"""The shape of ``matrix.json``: what each primary's base network knows of every satellite task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from facetask.json_record import Record, read_record
from facetask.running.results import LabelSummary, Metric, Metrics, PlainMetrics


class MatrixPrimary(Record):
    """A base network."""

    name: str
    base_network: dict[str, Any] = Field(description="As in a run's configuration.")
    crop: float | None = Field(description="Share of each side that its images lose; null: as in the runs.")
    trained_for: str | None = Field(description="The task that facetask trained it for; null where it did not.")
    n_taps: int
    n_filters: int
    weights_source: str
    weights_licence: str


class CellTrial(Record):
    """One trial of a cell."""

    trial: int
    seed: int
    n_train: int
    n_validation: int
    n_test: int
    n_left_out: int = Field(description="Validation and test images left out: the base network's training saw them.")
    best_tap: str = Field(description="Chosen on validation.")
    metrics: PlainMetrics = Field(description="Of the regression on the best tap, on test.")


class MatrixCell(Record):
    """One satellite task on one base network."""

    primary: str
    metrics: Metrics = Field(description="Of the regression on each trial's best tap, on test, over the trials.")
    reduction: Metric | None = Field(
        description="Fraction of the directly trained network's main metric by which the cell's is worse: what it "
        "loses where higher is better, what it grows by where lower is. Over the trials that both have; null without "
        "any."
    )
    trials: list[CellTrial]

    @property
    def best_taps(self) -> list[str]:
        """The trials' best taps, each once."""
        return list(dict.fromkeys(trial.best_tap for trial in self.trials))


class DirectTrial(Record):
    """One trial of direct training."""

    seed: int
    metrics: PlainMetrics = Field(description="On test, of the best epoch.")


class Direct(Record):
    """A network trained for a satellite task directly."""

    source: Literal["primary", "trained"] = Field(
        description="The primary of the task's name, or trained as yardstick."
    )
    start: str = Field(description="What training started from.")
    metrics: Metrics = Field(description="On test, over the trials.")
    trials: list[DirectTrial]


class MatrixTask(Record):
    """One satellite task: a column of the matrix."""

    name: str
    run: str
    labels: LabelSummary
    main_metric: str
    higher_is_better: bool
    trials: int
    seed: int
    baseline: Metrics = Field(description="Of the trivial predictor: the training mean or most frequent class.")
    direct: Direct | None
    no_direct: str = Field(default="", description="Why there is no yardstick.")
    cells: list[MatrixCell] = Field(description="In the primaries' order.")

    def cell(self, primary: str) -> MatrixCell:
        """Return a primary's cell."""
        return next(cell for cell in self.cells if cell.primary == primary)


class MatrixResults(Record):
    """A whole matrix."""

    format_version: Literal[1] = 1
    facetask_version: str
    primaries: list[MatrixPrimary]
    tasks: list[MatrixTask]


def read_matrix(path: Path) -> MatrixResults:
    """Read a matrix back.

    Raises:
        RunDirError: If the file is missing or not of this format.
    """
    return read_record(MatrixResults, path, "a transfer matrix")
