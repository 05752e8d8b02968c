"""The pruning table's configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from facetask.errors import did_you_mean
from facetask.experiments.config import ExperimentConfig, RunTemplate
from facetask.experiments.pruning_table.variants import VARIANTS


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse rows that there are none of, and return the others in the table's order."""
    for name in names:
        if name not in VARIANTS:
            raise ValueError(f"unknown variant {name!r}{did_you_mean(name, VARIANTS)}; there are {', '.join(VARIANTS)}")
    return tuple(name for name in VARIANTS if name in names)


class PruningTableConfig(ExperimentConfig):
    """A run, of whose tasks every variant of pruning is measured at the run's cut.

    Attributes:
        run: The run's YAML file, or the run itself as a mapping.
        variants: The table's rows; by default all.
        macs: What every pruned network may cost, as a share of the base network's MACs: the threshold of the label's
            curves is then the one that meets it. By default the run's ``prune.macs``; without one, what the label
            leaves at the run's own threshold.
        rounds: How often the finetuned network is pruned and finetuned again, in the variants of that name.
        distill: Weight of the distillation, as ``finetune.distill``, in the variants of that name.
        taylor_images: On so many training images the Taylor criterion takes the loss's gradients, at each of its steps.
        latency_s: About how long each pruned network's speed is measured beside the base network's, in seconds; null:
            not at all.
    """

    run: RunTemplate
    variants: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known)] = tuple(VARIANTS)
    macs: Annotated[float, Field(gt=0, le=1)] | None = None
    rounds: Annotated[int, Field(ge=1)] = 2
    distill: Annotated[float, Field(gt=0)] = 1.0
    taylor_images: Annotated[int, Field(ge=1)] = 128
    latency_s: Annotated[float, Field(gt=0)] | None = None
