"""The comparison's configuration: the run whose tasks are learned, and how the other methods learn them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from facetask.experiments.config import ExperimentConfig, RunTemplate
from facetask.yaml_loader import describe

MEASURED_EPOCHS = 2
"""So many epochs of the recipe pass through the network where the others' time is extrapolated."""

_LEARNING_RATES = {"adamw": 1e-3, "sgd": 1e-2}


def _learning_rate(fields: dict[str, Any]) -> float:
    """Return the optimiser's own learning rate; where the optimiser is wrong, that is told, not this."""
    return _LEARNING_RATES.get(fields.get("optimiser", ""), 1.0)


class RecipeConfig(ExperimentConfig):
    """New fully connected layers on frozen convolutions.

    Attributes:
        epochs: At most so many.
        patience: The stop rule: training ends after so many epochs without a better validation error. The best epoch
            is kept.
        hidden: Widths of the hidden layers; none leaves a linear layer alone.
        dropout: Share of each hidden layer's outputs that training drops.
        optimiser: ``sgd`` has Nesterov's momentum of 0.9.
        learning_rate: The same in all epochs; the default depends on the optimiser.
        flip: Mirror images at random, where the task says what that does to its label.
        shift: Largest random shift, as a share of the image's side.
        brightness: Largest random change of brightness, as a share.
    """

    epochs: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 10
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (512,)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = Field(default_factory=_learning_rate)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    flip: bool = False
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def augments(self) -> bool:
        """Whether an image differs from epoch to epoch."""
        return self.flip or self.shift > 0 or self.brightness > 0


def _mapping_or_false(value: Any) -> Any:
    """Refuse ``finetuning: true``, which would not say how."""
    if value is False or isinstance(value, dict):
        return value
    raise ValueError(
        "expected a mapping such as {epochs: 6}, whose settings change those of the run's finetune, or false to leave "
        f"full finetuning out; found {describe(value)}"
    )


class TransferConfig(ExperimentConfig):
    """Regression against transfer learning.

    Attributes:
        run: The run, for its base network, data, tasks, split and trials; its YAML file, or the run itself as a
            mapping.
        trials: How many random partitions; by default the run's.
        recipe: The recipe of transfer learning.
        finetuning: Settings of full finetuning that differ from those of the run's ``finetune``; false: it is left out,
            for it takes long.
        extrapolate: Pass images through the network in two epochs of the recipe only, train the others on cached
            features, which are the same, and multiply the time. Results say so.
    """

    run: RunTemplate
    trials: Annotated[int, Field(ge=1)] | None = None
    recipe: RecipeConfig = RecipeConfig()
    finetuning: Annotated[dict[str, Any] | Literal[False], BeforeValidator(_mapping_or_false)] = False
    extrapolate: bool = False

    @model_validator(mode="after")
    def _can_be_extrapolated(self) -> TransferConfig:
        """Refuse to extrapolate what differs from epoch to epoch, or is measured anyway."""
        if self.extrapolate and self.recipe.augments:
            raise ValueError(
                "extrapolate trains on cached features, which augmented images do not have; leave it out, or the "
                "recipe's flip, shift and brightness"
            )
        if self.extrapolate and self.recipe.epochs <= MEASURED_EPOCHS:
            raise ValueError(
                f"extrapolate measures {MEASURED_EPOCHS} epochs, and recipe.epochs allows no more; leave it out"
            )
        return self
