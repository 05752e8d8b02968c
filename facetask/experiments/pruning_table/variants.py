"""The table's rows: which network, and what is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["unpruned", "sliced", "label", "need", "magnitude", "taylor", "rounds"]
"""Where a network comes from: nothing dropped; filters chosen by the label, sliced only or reconstructed; by what the
layers above need; by Torch-Pruning's magnitude or Taylor criterion; by need again and again on finetuned networks."""
Step = Literal["head sliced", "head refitted", "recalibrated", "finetuned", "distilled", "from scratch"]
"""What is done with it; ``recalibrated``: batch norm takes its statistics anew, then the head is refitted."""
RIVALS: tuple[Source, ...] = ("magnitude", "taylor")
TRAINED: tuple[Step, ...] = ("finetuned", "distilled", "from scratch")


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        name: As in the configuration.
        source: Where its network comes from.
        step: What is done with it.
    """

    name: str
    source: Source
    step: Step

    @property
    def is_trained(self) -> bool:
        """Whether anything below the head is trained."""
        return self.step in TRAINED

    @property
    def label(self) -> str:
        """The row's name for a reader."""
        return f"{SOURCES[self.source]}: {'regression' if self.name == 'unpruned' else self.step}"


SOURCES: dict[Source, str] = {
    "unpruned": "unpruned",
    "sliced": "label, sliced",
    "label": "label",
    "need": "need",
    "magnitude": "magnitude",
    "taylor": "Taylor",
    "rounds": "need, in rounds",
}

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("unpruned", "unpruned", "head refitted"),
        Variant("unpruned-finetuned", "unpruned", "finetuned"),
        Variant("sliced-head-sliced", "sliced", "head sliced"),
        Variant("sliced-refitted", "sliced", "head refitted"),
        Variant("sliced-recalibrated", "sliced", "recalibrated"),
        Variant("label-head-sliced", "label", "head sliced"),
        Variant("label-refitted", "label", "head refitted"),
        Variant("label-finetuned", "label", "finetuned"),
        Variant("need-refitted", "need", "head refitted"),
        Variant("need-recalibrated", "need", "recalibrated"),
        Variant("need-finetuned", "need", "finetuned"),
        Variant("need-distilled", "need", "distilled"),
        Variant("need-scratch", "need", "from scratch"),
        Variant("magnitude-refitted", "magnitude", "head refitted"),
        Variant("magnitude-recalibrated", "magnitude", "recalibrated"),
        Variant("magnitude-finetuned", "magnitude", "finetuned"),
        Variant("taylor-refitted", "taylor", "head refitted"),
        Variant("taylor-finetuned", "taylor", "finetuned"),
        Variant("rounds-finetuned", "rounds", "finetuned"),
        Variant("rounds-distilled", "rounds", "distilled"),
    )
}
"""All rows, in the table's order."""
