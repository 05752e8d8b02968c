"""How the stages do their work: curves, pruning, finetuning."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from facetask.config.section import Section
from facetask.keep_sets.budget import Budget

_DEFAULT_BUDGET = 0.25


class CutWithin(Section):
    """The lowest tap whose error is within a share of the best tap's."""

    within: Annotated[float, Field(ge=0)]


class CurveConfig(Section):
    """How the characteristic curves are drawn.

    Attributes:
        refit: ``least-squares`` fits the model anew on each support; ``none`` takes the selector's own coefficients,
            which only some selectors give (lasso does).
        bootstrap: On how many resamples of each trial's training images the selector is asked again, to see how often
            it chooses each filter.
    """

    refit: Literal["least-squares", "none"] = "least-squares"
    bootstrap: Annotated[int, Field(ge=0)] = 0


class KneeSize(Section):
    """The same number, or the same fraction, of the filters of every tap or coupled group."""

    filters: Annotated[int, Field(ge=1)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> KneeSize:
        if (self.filters is None) == (self.fraction is None):
            raise ValueError("expected a mapping such as {filters: 64} or {fraction: 0.25}")
        return self

    def of(self, n_components: int) -> int:
        """Return how many are kept of so many, at least one."""
        if self.fraction is not None:
            return max(math.floor(self.fraction * n_components + 0.5), 1)
        return min(self.filters or 1, n_components)

    def __str__(self) -> str:
        return f"filters: {self.filters}" if self.fraction is None else f"fraction: {self.fraction:g}"


class PruneConfig(Section):
    """Where to cut and what to keep.

    Attributes:
        knee: How many filters of a curve are kept: ``threshold``, the fewest within ``threshold`` of its best;
            ``elbow``, where it bends most; ``one-standard-error``, the fewest within one standard error of the best
            over the trials; or a given number or fraction of them.
        threshold: Knee threshold, as a fraction of a curve's RMSE range.
        stable: Keep, instead of the filters that the curve holds at its knee, those that at least this share of the
            trials and bootstrap resamples choose among as many; null keeps the curve's.
        cut: ``best``, a tap's name, or the lowest tap that is nearly as good as the best.
        couple: How the keep set of coupled taps is found: by one curve for the group, or from one for each tap
            (``union``, ``intersection``). ``free`` is ``group``, but taps that would keep the same indices as the one
            before them, by their architecture's rule, get a curve of their own.
        below_cut: What decides which filters are kept below the cut: ``label``, how well they predict it, as in the
            paper; or ``need``, what the kept filters of the cut must be computed from, within a budget of MACs. At the
            cut itself the label decides.
        macs: The budget of ``below_cut: need``, as a share of the base network's MACs; by default 0.25.
        size: What the network may take in memory besides, as a share of the base network's size; null: no limit.
        rounds: How often the network is finetuned before it is pruned, which takes it a step nearer to the budget; the
            cut's curve is drawn again each time. 0: the base network is pruned at once, as it is.
        round_to: Kept widths are rounded to the nearest multiple of this, which many processors compute faster.
        reconstruct: On so many training images the weights of every layer are changed so that its kept inputs stand in
            for the dropped ones; 0: they are sliced only, as in the paper.
        share: One network for all tasks, with a head each, which keeps what any of them needs and is finetuned for all
            together; false: a network for each.
    """

    knee: Literal["threshold", "elbow", "one-standard-error"] | KneeSize = "threshold"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.01
    stable: Annotated[float, Field(gt=0, le=1)] | None = None
    cut: Annotated[str, Field(min_length=1)] | CutWithin = "best"
    couple: Literal["group", "union", "intersection", "free"] = "group"
    below_cut: Literal["label", "need"] = "label"
    macs: Annotated[float, Field(gt=0, le=1)] | None = None
    size: Annotated[float, Field(gt=0, le=1)] | None = None
    round_to: Annotated[int, Field(ge=1)] = 1
    reconstruct: Annotated[int, Field(ge=0)] = 1024
    share: bool = False
    rounds: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _budget_is_used(self) -> PruneConfig:
        """Refuse a budget that nothing would keep to, and rounds that would have none to come down to."""
        for name in ("macs", "size"):
            if getattr(self, name) is not None and self.below_cut != "need":
                raise ValueError(f"{name} is the budget of below_cut: need; set that, or leave {name} out")
        if self.rounds and self.below_cut != "need":
            raise ValueError("rounds come down to the budget of below_cut: need; set that, or leave rounds out")
        if self.rounds and self.knee == "one-standard-error":
            raise ValueError(
                "knee: one-standard-error compares trials, which rounds train into different networks; take threshold"
            )
        return self

    @property
    def budget(self) -> Budget | None:
        """What need may choose within; None where the label chooses."""
        return Budget(self.macs or _DEFAULT_BUDGET, self.size) if self.below_cut == "need" else None


_LEARNING_RATES = {"scaled-adamw": 1e-2, "adamw": 1.5e-4, "sgd": 1e-3}


def _learning_rate(fields: dict[str, Any]) -> float:
    """Return the optimiser's own learning rate; where the optimiser is wrong, that is told, not this."""
    return _LEARNING_RATES.get(fields.get("optimiser", ""), 1.0)


def _batch_norm(fields: dict[str, Any]) -> Literal["frozen", "train"]:
    """Return how batch norm is trained unless the user says so: fresh networks have no statistics to keep."""
    return "train" if fields.get("start") == "scratch" else "frozen"


class FinetuneConfig(Section):
    """How the pruned network is trained.

    Attributes:
        start: ``pruned`` goes on from the weights that pruning left; ``scratch`` draws all parameters of the same
            network anew, the head's too, for comparison with training that knows nothing.
        trains: ``head`` leaves everything below the head as it is.
        batch_norm: ``frozen`` keeps the statistics that the base network was trained with: a few thousand faces
            estimate them worse; ``train`` learns them from the batches, the default for ``start: scratch``.
        optimiser: ``scaled-adamw`` is AdamW whose step is a share of each tensor's root mean square, for networks
            whose layers are scaled very differently.
        learning_rate: Peak of the one-cycle schedule; the default depends on the optimiser.
        warmup: Share of the steps before the peak.
        loss: ``auto``: what suits the task's kind.
        label_smoothing: Share of each label that is spread over all classes, in cross-entropies (nominal and multilabel
            tasks); what is regressed has nothing to smooth.
        mixup: α of mixup: each batch is blended with itself in another order, by a share that is drawn from Beta(α, α),
            and so are its losses; 0: without. Source: Zhang et al. 2018, "mixup: Beyond empirical risk minimization".
        distill: Weight of a second loss, beside the task's: the mean squared distance of the pruned network's pooled
            responses at the cut from the base network's own responses of the kept filters, in standard deviations. It
            costs next to nothing, for the run has these responses; 0: without.
        flip: Mirror images at random, where the task says what that does to its label.
        shift: Largest random shift, as a share of the image's side.
        brightness: Largest random change of brightness, as a share.
    """

    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 16
    start: Literal["pruned", "scratch"] = "pruned"
    trains: Literal["all", "head"] = "all"
    batch_norm: Literal["frozen", "train"] = Field(default_factory=_batch_norm)
    optimiser: Literal["scaled-adamw", "adamw", "sgd"] = "scaled-adamw"
    learning_rate: Annotated[float, Field(gt=0)] = Field(default_factory=_learning_rate)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    loss: Literal["auto", "smooth-l1", "mse", "cross-entropy", "partial-bce"] = "auto"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    distill: Annotated[float, Field(ge=0)] = 0.0
    flip: bool = True
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _belongs_together(self) -> FinetuneConfig:
        """Refuse settings that contradict each other."""
        if self.trains == "head":
            if self.start == "scratch":
                raise ValueError("trains: head would leave the fresh network of start: scratch untrained; use all")
            if self.batch_norm == "train":
                raise ValueError("batch_norm: train changes what trains: head leaves as it is; use frozen")
            if self.distill:
                raise ValueError("distill: moves the responses that trains: head leaves as they are; use 0")
        if self.distill and self.mixup:
            raise ValueError(
                "distill knows how the base network responds to single images, not to mixup's; leave one out"
            )
        if self.start == "scratch" and self.batch_norm == "frozen":
            raise ValueError("batch_norm: frozen keeps statistics that start: scratch does not have; use train")
        if self.batch_norm == "train" and self.batch_size == 1:
            raise ValueError("batch_norm: train needs statistics of a batch; use a batch_size of 2 or more")
        return self
