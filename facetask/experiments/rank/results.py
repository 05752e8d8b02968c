"""The shape of ``rank.json``: every score of every tap of every base network, and how far the scores can be trusted.

Scores are computed on training and validation images, mean and spread over the trials; metrics are those of the tap's
regression on test images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from facetask.json_record import Record, read_record
from facetask.running.results import LabelSummary, Metric, Metrics


class RankNetwork(Record):
    """A base network."""

    name: str
    base_network: dict[str, Any] = Field(description="As in a run's configuration.")
    crop: float | None = Field(description="Share of each side that its images lose; null: as in the run.")
    n_taps: int
    n_filters: int
    weights_source: str
    weights_licence: str


class RankScore(Record):
    """A score."""

    name: str
    plugin: str
    params: dict[str, Any]


class TapRank(Record):
    """One tap of one network."""

    tap: str
    n_filters: int
    scores: Metrics
    validation_rmse: Metric = Field(description="Of its regression.")
    metrics: Metrics = Field(description="Of its regression, on test images.")


class NetworkTaps(Record):
    """All taps of one network, in network order."""

    network: str
    taps: list[TapRank]


class Place(Record):
    """One network in a score's order, at the tap that the score is highest at."""

    network: str
    tap: str
    score: Metric
    metrics: Metrics = Field(description="Of that tap's regression, on test images.")


class Ranking(Record):
    """One score's order of the networks, the best first; networks to which it does not apply are left out."""

    score: str
    places: list[Place]


class Agreement(Record):
    """How far a score orders things as what is measured does: 1 alike, 0 not at all, −1 the other way round."""

    score: str
    network: str | None = Field(description="Whose taps are ordered; null: all networks', or the networks themselves.")
    n: int = Field(description="How many are ordered.")
    weighted_tau: float | None = Field(description="Kendall's, in which the best count most.")
    spearman: float | None
    chance: float | None = Field(
        default=None, description="Share of all orders whose weighted tau is at least as high; for few networks."
    )


class Finetuned(Record):
    """What finetuning gave, in a finished run."""

    network: str
    metric: Metric = Field(description="The task's main metric on test images.")
    run: str = Field(description="The run's folder.")


class RankedTask(Record):
    """One satellite task."""

    name: str
    run: str
    labels: LabelSummary
    main_metric: str
    higher_is_better: bool
    trials: int
    seed: int
    networks: list[NetworkTaps]
    rankings: list[Ranking]
    over_taps: list[Agreement] = Field(description="Scores against the regression's main metric on test images.")
    finetuned: list[Finetuned]
    over_networks: list[Agreement] = Field(description="Scores, each at its best tap, against finetuned networks.")


class RankResults(Record):
    """A whole ranking."""

    format_version: Literal[1] = 1
    facetask_version: str
    label_bins: int
    networks: list[RankNetwork]
    scores: list[RankScore]
    tasks: list[RankedTask]
    wall_s: dict[str, float] = Field(description="Seconds of each network's forward passes, of each score, and in all.")


def read_rank(path: Path) -> RankResults:
    """Read a ranking back.

    Raises:
        RunDirError: If the file is missing or not of this format.
    """
    return read_record(RankResults, path, "a ranking")
