"""A transfer matrix's configuration: its base networks by primary task, its satellite tasks, and their yardstick."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from facetask.config import can_name_a_folder
from facetask.experiments.config import ExperimentConfig, RunTemplate
from facetask.experiments.rank.config import NetworkChoice
from facetask.yaml_loader import describe


def _folder_name(name: str) -> str:
    """Refuse a name that cannot name the primary's folder."""
    if not can_name_a_folder(name):
        raise ValueError(f"expected a name that can name a folder, found {describe(name)}")
    return name


class PrimaryChoice(NetworkChoice):
    """A base network: an architecture and its params, a saved model, or one that is trained here.

    Attributes:
        label: Not for primaries: their key is their name.
        pretrain: The run of ``facetask pretrain`` that makes it; its YAML file, or the run itself as a mapping.
    """

    label: None = None
    pretrain: RunTemplate | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> PrimaryChoice:
        if [self.name, self.model, self.pretrain].count(None) != 2:
            raise ValueError(
                "expected a mapping such as {name: …, params: {…}}, {model: FOLDER} for a saved model, or "
                "{pretrain: FILE} for a network that is trained here"
            )
        return self


class DirectConfig(ExperimentConfig):
    """How a network is trained for a satellite task directly, where no primary of the same name is.

    Attributes:
        base_network: What training starts from.
        finetune: Settings of the training that differ from those of the satellite's run.
        trials: How many random partitions, the run's first ones.
    """

    base_network: NetworkChoice
    finetune: dict[str, Any] = Field(default={})
    trials: Annotated[int, Field(ge=1)] = 1


class MatrixConfig(ExperimentConfig):
    """A transfer matrix.

    Attributes:
        primaries: The base networks by name, that of the primary task.
        satellites: Runs, for their data, satellite tasks, splits and trials; each a YAML file, or the run itself as a
            mapping.
        direct: The yardstick of a satellite task, a network trained for it directly: ``primaries`` takes the primary
            of the task's name, if it was trained on the same images with the same labels and split; a mapping says how
            to train one where there is none; null: no yardstick.
    """

    primaries: Annotated[dict[Annotated[str, AfterValidator(_folder_name)], PrimaryChoice], Field(min_length=1)]
    satellites: Annotated[tuple[RunTemplate, ...], Field(strict=False, min_length=1)]
    direct: Literal["primaries"] | DirectConfig | None = "primaries"

    @field_validator("primaries")
    @classmethod
    def _folders_differ(cls, primaries: dict[str, PrimaryChoice]) -> dict[str, PrimaryChoice]:
        """Refuse names that differ in case alone: some file systems give them one folder."""
        folded: dict[str, str] = {}
        for name in primaries:
            if folded.setdefault(name.casefold(), name) != name:
                raise ValueError(f"{folded[name.casefold()]!r} and {name!r} differ in case alone; rename one of them")
        return primaries
