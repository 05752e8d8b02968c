"""Rendered faces: drawn people with exact labels, the dataset that needs no data of yours.

Every picture is a small scene of meshes, turned, lit and rendered by numpy: :mod:`.people` says who and how,
:mod:`.drawing` draws it. Pictures are written once to the cache folder and read from there afterwards.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from facetask import DataError, Dataset, FaceData, Params, cache_folder, hookimpl
from facetask.plugins.datasets.rendered_faces import people
from facetask.plugins.datasets.rendered_faces.drawing import draw

REVISION = "1"
_FEW = 48  # pictures that are drawn sooner than worker processes start
_CHUNK = 16


class RenderedFacesParams(Params):
    """Which faces are drawn.

    Attributes:
        count: Number of pictures.
        identities: Number of people, who take turns.
        size: Height and width of a picture, in pixels.
        seed: Another seed, other people and other pictures.
    """

    count: int = Field(default=1200, ge=1)
    identities: int = Field(default=150, ge=1)
    size: int = Field(default=150, ge=32, le=1024)
    seed: int = Field(default=0, ge=0)


def rendered_faces(params: RenderedFacesParams) -> FaceData:
    """Return the faces with their labels, drawing those that are not in the cache folder yet.

    Columns are ``identity`` (the group), ``yaw`` (degrees, positive towards the subject's left), ``pitch`` (degrees,
    positive down), ``roll`` (degrees), ``age`` (years), ``glasses``, ``beard`` and ``hat`` (``no`` or ``yes``),
    ``expression``, ``hair`` (style), ``hair_colour`` (before greying), ``skin`` (lightness in [0, 1]) and ``light``
    (degrees from the front, positive from the subject's left).

    Raises:
        DataError: If a picture cannot be written.
    """
    folder = cache_folder("rendered-faces") / _digest(params)
    paths = tuple(folder / f"{index:04d}.png" for index in range(params.count))
    columns = _columns(params)
    try:
        folder.mkdir(exist_ok=True)
        there = {entry.name for entry in os.scandir(folder)}
        _render([index for index, path in enumerate(paths) if path.name not in there], params, folder)
        if "labels.csv" not in there:
            _write_table(folder / "labels.csv", paths, columns)
    except OSError as error:
        raise DataError(f"{folder}: rendered faces cannot be written ({error.strerror or error})") from None
    return FaceData(
        paths=paths,
        columns=columns,
        group_column="identity",
        licence="CC0-1.0",
        source=f"rendered-faces ({params.count} pictures of {params.identities} people, seed {params.seed})",
    )


def _digest(params: RenderedFacesParams) -> str:
    """Return a folder name for everything that the pictures depend on."""
    text = json.dumps([REVISION, params.model_dump()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _columns(params: RenderedFacesParams) -> dict[str, NDArray[np.float64] | NDArray[np.object_]]:
    """Return the labels of all pictures."""
    pictures = [people.picture(params.seed, index, params.identities) for index in range(params.count)]

    def words(values: Iterable[str]) -> NDArray[np.object_]:
        return np.array(list(values), dtype=object)

    def numbers(values: Iterable[float]) -> NDArray[np.float64]:
        return np.array(list(values), dtype=np.float64)

    yes = {False: "no", True: "yes"}
    return {
        "identity": words(f"person-{picture.person:04d}" for picture in pictures),
        "yaw": numbers(picture.yaw_deg for picture in pictures),
        "pitch": numbers(picture.pitch_deg for picture in pictures),
        "roll": numbers(picture.roll_deg for picture in pictures),
        "age": numbers(picture.age_years for picture in pictures),
        "glasses": words(yes[picture.glasses] for picture in pictures),
        "beard": words(yes[picture.beard] for picture in pictures),
        "hat": words(yes[picture.hat] for picture in pictures),
        "expression": words(picture.expression for picture in pictures),
        "hair": words(picture.hair for picture in pictures),
        "hair_colour": words(people.person(params.seed, picture.person).hair_colour for picture in pictures),
        "skin": numbers(picture.skin for picture in pictures),
        "light": numbers(picture.light_deg for picture in pictures),
    }


def _render(indices: list[int], params: RenderedFacesParams, folder: Path) -> None:
    """Draw pictures into a folder, in worker processes if they are many."""
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 32)
    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    if workers == 1 or len(indices) <= _FEW:
        for chunk in chunks:
            _render_chunk(chunk, params, folder)
        return
    # Spawned, because a forked child of a process with threads (torch's, say) may hang.
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=get_context("spawn")) as pool:
        try:
            for task in [pool.submit(_render_chunk, chunk, params, folder) for chunk in chunks]:
                task.result()
        except BrokenProcessPool:
            # A spawned worker imports the user's script, and dies where that lacks ``if __name__ == "__main__"``.
            _render_chunk([index for index in indices if not (folder / f"{index:04d}.png").exists()], params, folder)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _render_chunk(indices: list[int], params: RenderedFacesParams, folder: Path) -> None:
    """Draw some pictures; each file appears whole or not at all."""
    for index in indices:
        picture = people.picture(params.seed, index, params.identities)
        pixels = draw(
            people.person(params.seed, picture.person), picture, params.size, people.chance(params.seed, index)
        )
        part = folder / f"{index:04d}.{os.getpid()}.part"
        Image.fromarray(pixels).save(part, format="png", compress_level=1)
        part.replace(folder / f"{index:04d}.png")


def _write_table(
    path: Path, images: Iterable[Path], columns: dict[str, NDArray[np.float64] | NDArray[np.object_]]
) -> None:
    """Write the labels beside the pictures, for people to look at."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns])
        for image, *row in zip(images, *columns.values(), strict=True):
            writer.writerow([image.name, *(value if isinstance(value, str) else f"{value:.3f}" for value in row)])
    part.replace(path)


@hookimpl
def facetask_datasets() -> list[Dataset]:
    """Return the dataset."""
    return [Dataset(name="rendered-faces", load=rendered_faces, params=RenderedFacesParams, revision=REVISION)]
