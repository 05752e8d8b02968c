"""What a run is given: a base network, images, satellite tasks, and how the images are divided."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, SerializeAsAny, model_validator

from facetask.config.section import ConfigPath, NoParams, PluginChoice, Section
from facetask.yaml_loader import describe


class BaseNetworkConfig(Section):
    """The base network: an architecture plugin and its params, or a model that an earlier run saved.

    Attributes:
        model: The saved model's folder, instead of a name: its pruned network is pruned further.
    """

    name: str | None = None
    params: SerializeAsAny[BaseModel] = NoParams()
    model: ConfigPath | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> BaseNetworkConfig:
        if (self.name is None) == (self.model is None):
            raise ValueError(
                "expected a mapping such as {name: …, params: {…}}, or {model: FOLDER} for a saved model to start from"
            )
        return self


def _pattern(pattern: str) -> str:
    """Refuse a pattern that names one column only."""
    if pattern.count("{}") != 1:
        raise ValueError(f"expected a column's name with {{}} in place of the landmark's index, found {pattern!r}")
    return pattern


_Pattern = Annotated[str, AfterValidator(_pattern)]
_Place = tuple[float, float]


class AlignConfig(Section):
    """How faces are turned, scaled and shifted so that they lie where the base network expects them.

    Attributes:
        landmarks: ``columns`` of the dataset's table, or ``detect`` them by dlib (extra ``landmarks``).
        x: Name of a landmark's column of x, in pixels, ``{}`` standing for its index from 0: 68 (iBUG), 5 (eyes, nose
            tip, corners of the mouth, as the viewer sees them from the left) or 2 (eyes). CelebA's names need none.
        y: Name of a landmark's column of y, which grows downwards.
        margin: Share of the network's own framing that is added on each side of a face; below 0 it is taken away.
        to: Where the five points shall lie, as shares of the input's width and height; null: as the network says.
    """

    landmarks: Literal["columns", "detect"]
    x: _Pattern = "x{}"
    y: _Pattern = "y{}"
    margin: Annotated[float, Field(gt=-0.5)] = 0.0
    to: tuple[_Place, _Place, _Place, _Place, _Place] | None = None

    @model_validator(mode="after")
    def _eyes_are_apart(self) -> AlignConfig:
        if self.to is not None and self.to[0][0] >= self.to[1][0]:
            raise ValueError("to: the first place is that of the eye on the left, the second of the one on the right")
        return self


class DataConfig(PluginChoice):
    """The dataset.

    Attributes:
        max_bad_share: Share of unreadable images above which the run stops.
        crop: Share of its width and height that every image loses on each side, where faces are framed loosely; with
            ``align`` that holds for images on which no face is known.
        align: Faces are aligned by their landmarks; null: images are taken as they are.
    """

    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    crop: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    align: AlignConfig | None = None


def _sum_to_one(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    """Refuse fractions of which images would be left over or used twice."""
    if abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"the fractions must sum to 1, but sum to {sum(fractions):g}")
    return fractions


_Share = Annotated[float, Field(gt=0)]


class SplitConfig(Section):
    """How images are divided.

    Attributes:
        fractions: Shares of the training, validation and test splits.
        group_by: Column whose equal values stay on one side; null: the dataset's own group column.
        stratify_by: Column whose values are spread evenly.
        min_per_class: Fewest images of each class in each split.
    """

    fractions: Annotated[tuple[_Share, _Share, _Share], AfterValidator(_sum_to_one)] = (0.5, 0.25, 0.25)
    group_by: str | None = None
    stratify_by: str | None = None
    min_per_class: Annotated[int, Field(ge=1)] = 1


PARTITION_KEYS = {"fractions", "group_by", "stratify_by"}  # min_per_class masks labels, and moves no image


def can_name_a_folder(label: str) -> bool:
    """Return whether a task's name can name its folder in the run directory, on any platform."""
    return bool(label) and label not in (".", "..") and not set(label) & set('/\\:*?"<>|\0')


def _folder_name(label: str) -> str:
    """Refuse a label that cannot name the task's folder."""
    if not can_name_a_folder(label):
        raise ValueError(f"expected a label that can name a folder, found {describe(label)}")
    return label


class SatelliteTask(PluginChoice):
    """A satellite task.

    Attributes:
        label: Its name in results, instead of the plugin's.
        split: Its own split; what it leaves out is taken from the run's.
    """

    label: Annotated[str, AfterValidator(_folder_name)] | None = None
    split: SplitConfig | None = None


CHOICE_KEYS = {*SatelliteTask.model_fields, *DataConfig.model_fields}


def _ascending(edges: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse edges that do not ascend."""
    if any(high <= low for low, high in pairwise(edges)):
        raise ValueError(f"the edges must ascend, found {', '.join(f'{edge:g}' for edge in edges)}")
    return edges


class SliceConfig(Section):
    """A column of numbers whose intervals are reported separately; a value on an edge belongs to the one above."""

    column: Annotated[str, Field(min_length=1)]
    edges: Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(_ascending)]


Slice = Annotated[str, Field(min_length=1)] | SliceConfig


def each_once(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
    """Refuse a column that is named twice."""
    columns = [each if isinstance(each, str) else each.column for each in slices]
    for column in columns:
        if columns.count(column) > 1:
            raise ValueError(f"column {column!r} is named {columns.count(column)} times; name it once")
    return slices
