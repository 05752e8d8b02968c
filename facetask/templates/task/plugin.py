"""A satellite task: whether a picture is dark."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from facetask import FaceData, Labels, Params, Task, hookimpl, label_images


class DarkParams(Params):
    """What counts as dark.

    Attributes:
        below: The mean grey level, 0 to 255, below which a picture is dark.
    """

    below: float = Field(default=110.0, ge=0, le=255)


def mean_grey(paths: Sequence[Path]) -> NDArray[np.float64]:
    """Return each picture's mean grey level, ``(n, 1)``."""
    return np.array([[np.asarray(Image.open(path).convert("L")).mean()] for path in paths])


def labels(data: FaceData, params: DarkParams) -> Labels:
    """Return 1 for dark pictures, 0 for bright ones and NaN for those that cannot be read."""
    grey = label_images(data, "mean grey level 1", mean_grey, columns=("grey",))["grey"]
    dark = np.where(np.isnan(grey), np.nan, grey < params.below)
    return Labels(
        name="$name",
        kind="binary",
        classes=("bright", "dark"),
        values=dark[:, None],
        source="mean grey level",
    )


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task."""
    return [Task(name="$name", labels=labels, params=DarkParams)]
