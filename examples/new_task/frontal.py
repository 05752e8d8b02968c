"""A task of your own: whether a face looks into the camera, from the angles of the head."""

import numpy as np
from pydantic import Field

from facetask import FaceData, Labels, Params, Task, hookimpl


class FrontalParams(Params):
    """What counts as looking into the camera.

    Attributes:
        within: The angle in degrees from which on a face is turned away.
        yaw: The dataset's column with the turn to the side, in degrees.
        pitch: The one with the nod, in degrees.
    """

    within: float = Field(default=25.0, gt=0, lt=180)
    yaw: str = "yaw"
    pitch: str = "pitch"


def labels(data: FaceData, params: FrontalParams) -> Labels:
    """Return 0 for frontal faces, 1 for those turned away and NaN where an angle is missing."""
    yaw, pitch = (np.deg2rad(data.column(name)) for name in (params.yaw, params.pitch))
    away = np.rad2deg(np.arccos(np.cos(yaw) * np.cos(pitch)))
    return Labels(
        name="frontal",
        kind="binary",
        classes=("frontal", "turned"),
        values=np.where(np.isnan(away), np.nan, away >= params.within)[:, None],
        flip="keep",  # a mirrored face is turned as far
        source=f"columns {params.yaw!r} and {params.pitch!r}",
        licence=data.licence,
    )


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task."""
    return [Task(name="frontal", labels=labels, params=FrontalParams)]
