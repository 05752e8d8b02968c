"""The shape of ``results.json``: what a run measured, for people and for programs.

A metric is ``{mean, std}`` over the trials, on the test split. Plain numbers (best tap, knee, kept filters, MACs …)
describe the *reported trial*, the first, whose model is saved; the other trials' numbers lie under ``trials``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from facetask.json_record import Record, read_record

FORMAT_VERSION = 1


class Metric(Record):
    """One metric on the test split over the trials; ``std`` is the sample standard deviation, 0 for one trial."""

    mean: float | None
    std: float | None


Metrics = dict[str, Metric]
PlainMetrics = dict[str, float | None]
Confusion = list[list[int]]
"""Test images of each class or bin (row) taken for each (column), in the reported trial; none for too many classes."""


class TapRegression(Record):
    """One tap's regression: how well its responses predict the task."""

    tap: str
    n_filters: int
    validation_rmse: float = Field(description="Of the reported trial; the best tap has the lowest.")
    metrics: Metrics


class RegressResult(Record):
    """Every tap's regression and the best tap, chosen on validation."""

    taps: list[TapRegression]
    best_tap: str
    baseline: Metrics = Field(description="Of the trivial predictor: the training mean or most frequent class.")
    classifier: Metrics | None = Field(
        default=None, description="Of the final classifier on the best tap, for nominal tasks: no plain regression."
    )
    confusion: Confusion | None = Field(default=None, description="On the best tap.")


class TapCurve(Record):
    """One tap's characteristic curve in the reported trial."""

    tap: str
    n_filters: list[int] = Field(description="Filters kept at each point.")
    rmse: list[float] = Field(description="Validation RMSE at each point.")
    knee: int = Field(description="Filters kept at the knee, by the configured rule.")
    full_rmse: float = Field(description="Validation RMSE of all of the tap's filters.")
    keep_set: list[int] = Field(default_factory=list, description="The filters that the rule keeps, sorted.")
    probability: list[float] | None = Field(
        default=None,
        description="Share of the draws in which each filter is among as many as the knee keeps; null for one draw.",
    )
    notes: list[str] = Field(default_factory=list)


class ResponseBin(Record):
    """The images whose labels lie in one interval, five at least."""

    label: float = Field(description="Mean label.")
    response: float = Field(description="Mean response.")
    low: float = Field(description="10th percentile of the responses.")
    high: float = Field(description="90th percentile of the responses.")
    n_images: int


class FilterResponse(Record):
    """How one filter responds to a continuous label, over all labelled images."""

    tap: str
    filter: int = Field(description="In original numbering, from 0.")
    output: int = Field(default=0, description="Which of the task's outputs, from 0.")
    correlation: float | None = Field(description="Of response and label; null where the response is constant.")
    n_images: int
    bins: list[ResponseBin] = Field(description="Equally wide intervals of the label, ascending.")


class GroupCurve(Record):
    """One coupled group's curve below the cut, which decides what its taps keep, in the reported trial."""

    taps: list[str]
    n_components: int
    n_filters: list[int] = Field(description="Components kept at each point.")
    rmse: list[float]
    knee: int
    notes: list[str] = Field(default_factory=list)


class CurveResult(Record):
    """The characteristic curves."""

    taps: list[TapCurve]
    selector: str
    rule: str = Field(default="threshold", description="The knee's rule, as prune.knee in the configuration.")
    threshold: float = Field(description="The knee's threshold, where that is the rule.")
    refit: Literal["least-squares", "none"] = Field(
        default="least-squares", description="Whether each support's model is fitted anew or the selector's own."
    )
    draws: int = Field(default=1, description="Trials and bootstrap resamples that the probabilities count.")
    unit: str = Field(description="Unit of every RMSE: the label's, or standard deviations with several outputs.")


class NetworkCost(Record):
    """What a network costs, at batch 1."""

    params: int
    conv_params: int
    macs: int
    conv_macs: int
    size_bytes: int = Field(description="Bytes of all parameters and buffers.")


class PruneResult(Record):
    """The pruned network of the reported trial, and its test metrics over the trials."""

    cut: str = Field(description="The tap that the task's head reads.")
    shared: list[str] = Field(
        default_factory=list,
        description="The tasks that share this network, a head each, by prune.share; empty: it is this task's own. "
        "Costs and kept filters are those of the whole network.",
    )
    kept: dict[str, int] = Field(description="Filters kept at each tap of the network.")
    full: dict[str, int] = Field(description="Filters that each of these taps had.")
    groups: list[GroupCurve]
    budget: float | None = Field(
        default=None,
        description="Share of the base network's MACs within which need chose what is kept below the cut; null: the "
        "label chose.",
    )
    size_budget: float | None = Field(
        default=None, description="The same of its size in bytes; null: it did not matter, or the label chose."
    )
    rounds: int = Field(default=0, description="How often the network was finetuned before it was pruned further.")
    params: int
    macs: int
    size_bytes: int
    size_reduction: float = Field(description="Fraction in [0, 1] against the full base network.")
    macs_reduction: float = Field(description="Fraction in [0, 1] against the full base network.")
    conv_size_reduction: float = Field(description="The same over convolution parameters alone.")
    pruned: NetworkCost
    base: NetworkCost
    unpruned_at_cut: NetworkCost = Field(description="The base network merely cut at the same taps, nothing pruned.")
    macs_note: str = Field(default="", description="Where the second counter disagrees.")
    metrics_unpruned: Metrics = Field(description="Regression on all filters of the cut tap.")
    metrics_pruned: Metrics = Field(description="Head refitted on the pruned network's own responses.")
    metrics_validation: Metrics = Field(
        default_factory=dict, description="The same on validation images, by which networks may be chosen."
    )
    confusion: Confusion | None = Field(default=None, description="Of the pruned network.")


class FinetuneResult(Record):
    """The finetuned network's test metrics over the trials."""

    metrics: Metrics
    metrics_validation: Metrics = Field(
        default_factory=dict, description="On validation images, by which networks may be chosen."
    )
    confusion: Confusion | None = Field(default=None, description="Of the finetuned network.")
    epochs: list[Epoch] = Field(description="Of the reported trial; epoch 0 is the starting point.")
    best_epoch: int


class Epoch(Record):
    """One epoch of finetuning."""

    epoch: int
    train_loss: float | None = Field(
        description="Of all tasks that share the network: the mean of each one's loss as a share of guessing's."
    )
    validation_rmse: float | None = Field(description="In the curves' unit; null where training diverged.")


class Trial(Record):
    """One trial's plain numbers."""

    trial: int
    seed: int
    n_train: int
    n_validation: int
    n_test: int
    best_tap: str
    regress: PlainMetrics
    cut: str | None = None
    kept: dict[str, int] | None = None
    params: int | None = None
    macs: int | None = None
    metrics_unpruned: PlainMetrics | None = None
    metrics_pruned: PlainMetrics | None = None
    validation_pruned: PlainMetrics | None = None
    best_epoch: int | None = None
    finetune: PlainMetrics | None = None
    validation_finetuned: PlainMetrics | None = None
    wall_s: dict[str, float] = Field(default_factory=dict)


SliceStep = Literal["regress", "unpruned", "pruned", "finetuned"]


class Subgroup(Record):
    """One group of a slice: what the task's networks are worth on its test images."""

    group: str = Field(description="The column's value, or an interval; `not known` where it is missing.")
    n_test: list[int] = Field(description="Its test images in each trial.")
    small: bool = Field(description="Whether these are fewer than 20 in some trial: its metrics tell little.")
    metrics: dict[SliceStep, Metrics] = Field(
        description="At the best tap, at the cut before pruning, after it, and after finetuning; by the thresholds "
        "learned for all images together."
    )
    excess: dict[Literal["pruned", "finetuned"], Metric] = Field(
        description="By how much more its error in the main metric has grown since before pruning than that of all "
        "test images; of a metric where higher is better, by how much more that fell. No std for one trial."
    )
    grew: list[Literal["pruned", "finetuned"]] = Field(
        description="The steps at which the mean excess is above its std, of a group that is not small."
    )


class Slice(Record):
    """The groups of one column among the test images."""

    column: str
    groups: list[Subgroup]


class LabelSummary(Record):
    """What was predicted, and from which labels."""

    kind: Literal["continuous", "binary", "multilabel", "binned", "nominal"]
    unit: str
    rmse_unit: str | None = Field(default=None, description="Of every RMSE: the label's, or standard deviations.")
    classes: list[str]
    n_labelled: int
    n_missing: int = Field(description="Images without any label.")
    n_partly: int = Field(default=0, description="Labelled images that lack some of several labels.")
    mean: float | None = Field(description="Of the labels: continuous and binned tasks with one output.")
    std: float | None
    counts: dict[str, int] = Field(description="Images in each class or bin, or with each label.")
    known: dict[str, int] = Field(default_factory=dict, description="Images where each of several labels is known.")
    left_out: dict[str, int] = Field(default_factory=dict, description="Classes too small to split, with their counts.")
    source: str
    licence: str
    notes: list[str] = Field(default_factory=list, description="What the source says of them: how far sources agree.")


class TaskResult(Record):
    """One satellite task."""

    name: str
    plugin: str
    labels: LabelSummary
    regress: RegressResult
    curve: CurveResult | None = None
    responses: list[FilterResponse] = Field(
        default_factory=list,
        description="Of the kept filter at the best tap that follows the label most closely, to each output; for "
        "continuous and binned tasks.",
    )
    prune: PruneResult | None = None
    finetune: FinetuneResult | None = None
    slices: list[Slice] = Field(
        default_factory=list, description="Metrics by groups of test images, as the configuration's `slices` asks."
    )
    wall_s: dict[str, float] = Field(
        description="Seconds of each stage, summed over the trials; of what tasks do together, an equal share."
    )
    trials: list[Trial]
    model: str | None = Field(
        default=None, description="The saved model's folder, inside the run directory; tasks may share it."
    )


class BadImages(Record):
    """Images that could not be read and were left out."""

    count: int
    first: list[str]


class AlignSummary(Record):
    """How faces were brought to where the base network expects them."""

    landmarks: Literal["columns", "detect"] = Field(description="Columns of the table, or detected in the images.")
    licence: str = Field(description="Of the landmarks.")
    n_without_face: int = Field(description="Images on which no face is known; they are used as they are.")


class DataSummary(Record):
    """The images of a run."""

    plugin: str
    n_images: int
    bad_images: BadImages
    group_by: str | None
    n_groups: int | None
    source: str
    licence: str
    align: AlignSummary | None = Field(default=None, description="Null where images are used as they are.")


class NetworkSummary(Record):
    """The base network of a run."""

    plugin: str
    n_taps: int
    n_filters: int
    weights_source: str
    weights_licence: str
    frozen: list[str] = Field(description="What surgery did not know and therefore keeps whole.")


class Results(Record):
    """A whole run."""

    format_version: Literal[1] = 1
    facetask_version: str
    finished: bool = Field(description="Whether every stage that was asked for has run.")
    stage: Literal["regress", "curve", "prune", "finetune"] = Field(description="The last stage asked for.")
    seed: int
    trials: int
    base_network: NetworkSummary
    data: DataSummary
    tasks: Annotated[list[TaskResult], Field(min_length=1)]
    wall_s: dict[str, float] = Field(description="Seconds of what the tasks share: data, responses; and the total.")


FinetuneResult.model_rebuild()


def read_results(path: Path) -> Results:
    """Read results back.

    Raises:
        RunDirError: If the file is missing or not of this format.
    """
    return read_record(Results, path, "a results file")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``results.json`` (docs/results.schema.json)."""
    return Results.model_json_schema(mode="serialization")
