"""AFEW-VA: clips of films with 68 landmarks, valence and arousal for each frame.

Each face is cut out around its landmarks (see :mod:`.crops`), and the landmarks move along. One actor has several
clips, and a network that knows faces knows the actor again; so the group column is ``person``: the actor, of whom all
clips stay on one side of a split, or the clip where its file names nobody.

Source: Kossaifi et al. 2017, AFEW-VA database for valence and arousal estimation in-the-wild; the layout is general
knowledge.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facetask import ConfigPath, DataError, Dataset, FaceData, Params, hookimpl
from facetask.plugins.datasets.crops import Squares, cut_faces
from facetask.plugins.datasets.reading import listed_images, need_folder, numbers, shown, text, what_is_at

TERMS = "non-commercial research only, by its agreement"
N_LANDMARKS = 68
_KEYS = frozenset(("valence", "arousal", "landmarks"))
_RANGE = 10  # of valence and arousal, on either side of 0
_EXPECTED = "a folder for each clip with its frames and annotation, such as 001/00000.png and 001/001.json"


class AFEWVAParams(Params):
    """Where the data is.

    Attributes:
        root: The folder that has a folder for each clip.
        margin: Share of the landmarks' extent that is kept on each side of them; they end at the eyebrows.
    """

    root: ConfigPath
    margin: float = Field(default=0.3, ge=0, le=2)


def load(params: AFEWVAParams) -> FaceData:
    """Return all annotated frames.

    Columns are ``clip``, ``actor``, ``person``, ``frame`` (number), ``valence``, ``arousal`` (−10 to 10) and the
    landmarks ``x0``, ``y0`` … ``x67``, ``y67`` (pixels of the face image).

    Raises:
        DataError: If there is no clip, an annotation is malformed, no frame is there, or a face image cannot be
            written.
    """
    root = params.root
    need_folder(root, _EXPECTED)
    clips = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and (root / entry.name / f"{entry.name}.json").is_file()
    )
    if not clips:
        raise DataError(f"{root}: expected {_EXPECTED}, found {what_is_at(root)}")
    clip, actors, frames, values, points = [], [], [], [], []
    for name in clips:
        path = root / name / f"{name}.json"
        actor, annotations = _read(path)
        for frame, annotation in sorted(annotations.items()):
            clip.append(name)
            actors.append(actor)
            frames.append(frame)
            values.append(_values(annotation, f"{path}: frame {frame!r}"))
            points.append(_landmarks(annotation, f"{path}: frame {frame!r}"))
    landmarks, (valence, arousal) = np.stack(points), np.array(values).T
    names = [f"{folder}/{frame}.png" for folder, frame in zip(clip, frames, strict=True)]
    pictures = listed_images(root, names, root / clips[0] / f"{clips[0]}.json")
    lowest, highest = landmarks.min(axis=1), landmarks.max(axis=1)
    squares = Squares.around(np.hstack((lowest, highest - lowest)), params.margin)
    corner = np.stack((squares.left, squares.top), axis=1)
    moved = (landmarks - corner[:, None]) * squares.scale[:, None, None]
    return FaceData(
        paths=cut_faces("afew-va", root, pictures, squares),
        columns={
            "clip": text(clip),
            "actor": text(actors),
            "person": text(actor or f"clip {name}" for actor, name in zip(actors, clip, strict=True)),
            "frame": numbers(map(float, frames)),
            "valence": valence,
            "arousal": arousal,
            **{f"{axis}{i}": moved[:, i, k] for i in range(N_LANDMARKS) for k, axis in enumerate("xy")},
        },
        group_column="person",
        licence=TERMS,
        source=str(root),
    )


def _read(path: Path) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """Return a clip's actor, if named, and the annotations of its frames.

    Raises:
        DataError: If the file is malformed, or has no frame.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}: not JSON ({error.msg}); is the file whole?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, dict) or not frames:
        raise DataError(f"{path}: expected 'frames', a mapping of frames to their annotations, found {content!r:.60}")
    for frame, annotation in frames.items():
        if not frame.isdecimal() or not isinstance(annotation, dict):
            raise DataError(f"{path}: frame {frame!r}: expected a number and a mapping, found {annotation!r:.60}")
        if annotation and not annotation.keys() & _KEYS:
            raise DataError(
                f"{path}: frame {frame!r}: expected {', '.join(sorted(_KEYS))}, found {shown(annotation)}; an "
                "annotation of another version?"
            )
    return " ".join(str(content.get("actor") or "").split()) or None, frames


def _values(annotation: dict[str, Any], where: str) -> tuple[float, float]:
    """Return a frame's valence and arousal, NaN where missing.

    Raises:
        DataError: If one is no number of −10 to 10.
    """
    valence, arousal = (_value(annotation.get(name), f"{where}: {name}") for name in ("valence", "arousal"))
    return valence, arousal


def _value(value: Any, where: str) -> float:
    """Return a number, NaN where there is none.

    Raises:
        DataError: If it is no number of −10 to 10.
    """
    if value is None:
        return float("nan")
    if not isinstance(value, int | float) or not -_RANGE <= value <= _RANGE:
        raise DataError(f"{where}: expected a number of {-_RANGE} to {_RANGE}, found {value!r}")
    return float(value)


def _landmarks(annotation: dict[str, Any], where: str) -> NDArray[np.float64]:
    """Return a frame's landmarks, ``(68, 2)``, in pixels of the frame, NaN where they are missing.

    Raises:
        DataError: If they are something else than 68 pairs of numbers.
    """
    given = annotation.get("landmarks")
    if not given:
        return np.full((N_LANDMARKS, 2), np.nan)
    try:
        landmarks = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        landmarks = np.empty(0)
    if landmarks.shape != (N_LANDMARKS, 2):
        raise DataError(f"{where}: landmarks: expected {N_LANDMARKS} pairs [x, y], found {given!r:.60}")
    return landmarks


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset ``afew-va``."""
    return [Dataset(name="afew-va", load=load, params=AFEWVAParams)]
